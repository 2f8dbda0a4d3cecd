//! From what a client asks to a proposal that is ready to be endorsed.
//!
//! A client that signs hands over the proposal; it is checked as every endorser checks it. For one
//! that does not, the gateway makes the proposal, says on whose behalf by what it saw at the TLS
//! handshake, and signs it; the record says so for ever.

use prost::Message as _;
use protocol::keys::{arguments_commitment, is_function_name, partition_of};
use protocol::ledger::{Attribute, Kind, OnBehalfOf, Proposal};
use protocol::limits::ARGUMENTS_BYTES_MAX;
use protocol::signature::Purpose;
use protocol::transaction::Actor;
use protocol::{Digest, sha256};
use service::{Caller, Code, Problem, rpc, time};
use tokio::time::Instant;

use super::Gateway;
use crate::endorser::check::{Checked, active_contract};
use crate::query::not_started;

/// A call whose contract and subject are known.
pub(super) struct Planned {
    pub contract_digest: Digest,
    pub routed: rpc::Routed,
    pub partition_key: Digest,
    pub partition: u32,
}

impl Gateway {
    /// Asks the contract whom the call is about.
    pub(super) async fn plan(&self, call: &rpc::Call, deadline: Instant) -> Result<Planned, Problem> {
        check_call(call)?;
        let contract_digest = active_contract(&self.ledger, &call.contract)?;
        let workers = &self.endorser.workers;
        let routed = workers
            .route(&contract_digest, &call.function, &call.arguments, deadline)
            .await?;
        let partition_key = self.ledger.secret.partition_key(&call.contract, &routed.subject);
        let partition = partition_of(&partition_key, self.ledger.checker.channel.partitions());
        Ok(Planned {
            contract_digest,
            routed,
            partition_key,
            partition,
        })
    }

    /// Makes and signs a proposal on behalf of the caller.
    pub(super) async fn on_behalf(
        &self,
        call: rpc::Call,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<Checked, Problem> {
        let identity = &self.identity;
        if caller.msp_id != identity.msp_id() {
            return Err(Problem::denied("a gateway signs for its own organisation only"));
        }
        let planned = self.plan(&call, deadline).await?;
        if planned.routed.query {
            return Err(Problem::new(Code::WrongKind, "the function only reads: evaluate it"));
        }
        if planned.routed.subject.is_empty() {
            return Err(Problem::new(
                Code::BadArguments,
                "the contract names nobody whom this change is about",
            ));
        }
        let channel = &self.ledger.checker.channel;
        let height = self
            .ledger
            .tip(planned.partition)
            .ok_or_else(|| not_started(planned.partition))?
            .height;
        let salt: [u8; 32] = rand::random();
        let nonce: [u8; 16] = rand::random();
        let on_behalf_of = OnBehalfOf {
            certificate: caller.hash.to_vec(),
            common_name: caller.common_name.clone(),
            role: caller.role.to_string(),
            attributes: attributes(caller),
        };
        let proposal = Proposal {
            channel: channel.id.to_vec(),
            epoch: 0,
            contract: call.contract,
            contract_digest: planned.contract_digest.to_vec(),
            function: call.function,
            partition_key: planned.partition_key.to_vec(),
            creator: identity.hash().to_vec(),
            on_behalf_of: Some(on_behalf_of),
            kind: Kind::Submit.into(),
            nonce: nonce.to_vec(),
            client_time_ms: time::unix_ms(),
            height_bound: self.limits.height_bound(height, channel.config.heights_in_time_max),
            arguments_commitment: arguments_commitment(&salt, &call.arguments).to_vec(),
        };
        let bytes = proposal.encode_to_vec();
        let signature = self.signer.sign(Purpose::Proposal, bytes.clone()).await?;
        Ok(Checked {
            tx_id: sha256(&bytes),
            actor: Actor::of(&identity.certificate, proposal.on_behalf_of.as_ref()),
            bytes,
            proposal,
            signature,
            certificate: identity.certificate_der().to_vec(),
            contract_digest: planned.contract_digest,
            partition_key: planned.partition_key,
            partition: planned.partition,
            salt,
            arguments: call.arguments,
            routed: Some(planned.routed),
        })
    }
}

/// A caller's attributes as a proposal carries them, ascending by name.
pub(super) fn attributes(caller: &Caller) -> Vec<Attribute> {
    let pairs = caller.attributes.iter();
    pairs
        .map(|(name, value)| Attribute {
            name: name.clone(),
            value: value.clone(),
        })
        .collect()
}

/// Form only: whether there is such a function is the contract's to say.
pub(super) fn check_call(call: &rpc::Call) -> Result<(), Problem> {
    if call.contract.is_empty() {
        return Err(Problem::invalid("contract", "is missing"));
    }
    if !is_function_name(&call.function) {
        return Err(Problem::invalid(
            "function",
            "must be [A-Za-z][A-Za-z0-9_-]*, 64 bytes at most",
        ));
    }
    if call.arguments.len() > ARGUMENTS_BYTES_MAX {
        let detail = format!("at most {ARGUMENTS_BYTES_MAX} bytes");
        return Err(Problem::new(Code::TooLarge, detail).with_field("arguments"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_names_contract_and_function() {
        let call = |contract: &str, function: &str, bytes: usize| {
            let (contract, function) = (contract.to_owned(), function.to_owned());
            check_call(&rpc::Call {
                contract,
                function,
                arguments: vec![b'1'; bytes],
            })
            .err()
            .map(|p| (p.code, p.field))
        };
        assert_eq!(call("medical-records", "createMedicalRecord", 10), None);
        assert_eq!(call("", "f", 0), Some((Code::InvalidArgument, "contract".into())));
        assert_eq!(
            call("c", "no such name", 0),
            Some((Code::InvalidArgument, "function".into()))
        );
        assert_eq!(
            call("c", "f", ARGUMENTS_BYTES_MAX + 1),
            Some((Code::TooLarge, "arguments".into()))
        );
    }
}
