//! A client's intent, signed by the client itself: nobody between it and the ledger can change it.

use std::time::Duration;

use anyhow::Result;
use prost::Message as _;
use protocol::{
    Digest,
    keys::arguments_commitment,
    ledger::{Kind, Proposal},
    sha256,
    signature::{Purpose, sign},
};
use rand::RngCore as _;
use service::{
    Identity, Problem,
    rpc::{self, Call, Plan, SignedProposal},
    signer::BatchSigner,
};

use crate::session::{Session, deadline};

/// A proposal before its signature.
pub struct Intent {
    pub tx_id: Digest,
    pub proposal: Vec<u8>,
    pub salt: [u8; 32],
    pub arguments: Vec<u8>,
}

/// What the gateway's plan and the caller's wish give. `height_bound` 0: what the gateway chose.
pub fn propose(identity: &Identity, plan: &Plan, call: Call, kind: Kind, height_bound: u64) -> Intent {
    let mut random = [0; 48];
    rand::rng().fill_bytes(&mut random);
    let mut salt = [0; 32];
    salt.copy_from_slice(&random[16..]);
    let proposal = Proposal {
        channel: plan.channel.clone(),
        epoch: plan.epoch,
        contract: call.contract,
        contract_digest: plan.contract_digest.clone(),
        function: call.function,
        partition_key: plan.partition_key.clone(),
        creator: identity.hash().to_vec(),
        on_behalf_of: None,
        kind: kind.into(),
        nonce: random[..16].to_vec(),
        client_time_ms: service::time::unix_ms(),
        height_bound: if height_bound == 0 {
            plan.height_bound
        } else {
            height_bound
        },
        arguments_commitment: arguments_commitment(&salt, &call.arguments).to_vec(),
    };
    let proposal = proposal.encode_to_vec();
    Intent {
        tx_id: sha256(&proposal),
        proposal,
        salt,
        arguments: call.arguments,
    }
}

impl Intent {
    fn with(self, identity: &Identity, signature: protocol::ledger::Signature) -> SignedProposal {
        SignedProposal {
            proposal: self.proposal,
            signature: Some(signature),
            certificate: identity.certificate_der().to_vec(),
            salt: self.salt.to_vec(),
            arguments: self.arguments,
        }
    }

    /// One signature for itself.
    pub fn sign(self, identity: &Identity, channel: &Digest) -> Result<SignedProposal> {
        let signatures = sign(
            &identity.signing_key,
            &identity.hash(),
            Purpose::Proposal,
            channel,
            &[&self.proposal],
        )?;
        let signature = signatures.into_iter().next().unwrap_or_default();
        Ok(self.with(identity, signature))
    }

    /// Under one signed root with whatever else is waiting.
    pub async fn sign_in_batch(self, identity: &Identity, signer: &BatchSigner) -> Result<SignedProposal, Problem> {
        let signature = signer.sign(Purpose::Proposal, self.proposal.clone()).await?;
        Ok(self.with(identity, signature))
    }
}

const PLAN_WITHIN: Duration = Duration::from_secs(10);

/// Asks the session's gateway what to sign for a call.
pub async fn plan(session: &Session, call: &Call) -> Result<Plan, Problem> {
    let request = tonic::Request::new(rpc::PrepareRequest {
        id: 0,
        call: Some(call.clone()),
    });
    let reply = session
        .gateway()
        .prepare(deadline(request, PLAN_WITHIN))
        .await?
        .into_inner();
    match reply.outcome {
        Some(rpc::prepare_reply::Outcome::Plan(plan)) => Ok(plan),
        Some(rpc::prepare_reply::Outcome::Problem(problem)) => Err(problem.into()),
        None => Err(Problem::internal("the gateway's reply is empty")),
    }
}

/// Plans, proposes and signs one call; its tx_id beside it.
pub async fn signed(session: &Session, call: Call, kind: Kind) -> Result<(Digest, SignedProposal)> {
    let plan = plan(session, &call).await?;
    let intent = propose(&session.identity, &plan, call, kind, 0);
    Ok((intent.tx_id, intent.sign(&session.identity, session.channel_id())?))
}
