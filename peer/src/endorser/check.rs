//! What of a proposal can be judged without running it.
//!
//! Signature and rights, the creator's certificate now (expiry, revocation lists), kind, contract,
//! height bound, the client's clock, and that the arguments are those that the client committed to.
//! The partition key is checked when the contract has said whom the call is about.

use protocol::identity::Certificate;
use protocol::keys::{arguments_commitment, partition_of};
use protocol::ledger::{self, Kind, Proposal, Signature};
use protocol::limits::{ARGUMENTS_BYTES_MAX, CERTIFICATE_BYTES_MAX, CLOCK_SKEW_MS_MAX, SIGNATURE_PATH_MAX};
use protocol::transaction::{Actor, Checker, Rejection, Table, check_result, decode_proposal};
use protocol::{Digest, code, sha256};
use service::{Code, Problem, rpc, time};

use super::Endorser;
use crate::{committer::validate::in_time, ledger::Ledger};

/// A proposal holds names, digests and asserted attributes: far less than this.
const PROPOSAL_BYTES_MAX: usize = 8 * 1024;

/// A proposal that passed, with what is never ordered beside it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The proposal as it was signed.
    pub bytes: Vec<u8>,
    pub proposal: Proposal,
    pub signature: Signature,
    /// The creator's certificate, DER.
    pub certificate: Vec<u8>,
    pub actor: Actor,
    pub tx_id: Digest,
    pub contract_digest: Digest,
    pub partition_key: Digest,
    pub partition: u32,
    pub salt: [u8; 32],
    pub arguments: Vec<u8>,
    /// What the contract said of this call, where this process has asked it already.
    pub routed: Option<rpc::Routed>,
}

impl Checked {
    /// For another endorser.
    pub fn signed(&self) -> rpc::SignedProposal {
        rpc::SignedProposal {
            proposal: self.bytes.clone(),
            signature: Some(self.signature.clone()),
            certificate: self.certificate.clone(),
            salt: self.salt.to_vec(),
            arguments: self.arguments.clone(),
        }
    }
}

impl Endorser {
    /// Everything but the route. Costs one signature check, less for proposals under one root.
    pub fn check(&self, signed: rpc::SignedProposal, kind: Kind) -> Result<Checked, Problem> {
        let checker = &self.ledger.checker;
        check_sizes(&signed)?;
        let salt: [u8; 32] = signed
            .salt
            .as_slice()
            .try_into()
            .map_err(|_| Problem::invalid("salt", "must be 32 bytes"))?;
        let signature = signed
            .signature
            .ok_or_else(|| Problem::invalid("signature", "is missing"))?;
        let proposal = decode_proposal(&signed.proposal).map_err(refusal)?;
        let table = Table::new([signed.certificate.as_slice()]);
        let creator = checker
            .check_proposal(&signed.proposal, &proposal, &signature, &table)
            .map_err(refusal)?;
        self.at_the_door(&creator)?;
        if proposal.kind() != kind {
            let detail = match kind {
                Kind::Query => "only proposals of kind query are evaluated",
                _ => "only proposals of kind submit are ordered",
            };
            return Err(Problem::new(Code::WrongKind, detail).with_field("proposal.kind"));
        }
        let contract_digest = active_contract(&self.ledger, &proposal.contract)?;
        if proposal.contract_digest != contract_digest {
            return Err(Problem::new(Code::ContractChanged, code::Code::ContractDigest.rule())
                .with_field("proposal.contract_digest"));
        }
        if arguments_commitment(&salt, &signed.arguments)[..] != proposal.arguments_commitment[..] {
            return Err(Problem::new(
                Code::ArgumentsChanged,
                "the commitment is of other arguments or another salt",
            )
            .with_field("proposal.arguments_commitment"));
        }
        let partition_key = key32(&proposal.partition_key)?;
        let partition = partition_of(&partition_key, checker.channel.partitions());
        check_time(proposal.client_time_ms, time::unix_ms())?;
        if kind == Kind::Submit {
            check_bound(&self.ledger, partition, proposal.height_bound)?;
        }
        Ok(Checked {
            tx_id: sha256(&signed.proposal),
            actor: Actor::of(&creator, proposal.on_behalf_of.as_ref()),
            bytes: signed.proposal,
            proposal,
            signature,
            certificate: signed.certificate,
            contract_digest,
            partition_key,
            partition,
            salt,
            arguments: signed.arguments,
            routed: None,
        })
    }

    /// Expiry and revocation lists: what `validate` does not know.
    fn at_the_door(&self, certificate: &Certificate) -> Result<(), Problem> {
        let now_s = time::unix_s();
        if !certificate.valid_at(now_s) {
            return Err(Problem::new(
                Code::CertificateExpired,
                "the creator's certificate is outside its validity",
            ));
        }
        if self.trust.is_revoked(certificate) {
            return Err(Problem::new(
                Code::Revoked,
                "the creator's certificate is on its organisation's list",
            ));
        }
        Ok(())
    }
}

/// The digest of a contract in force.
pub fn active_contract(ledger: &Ledger, name: &str) -> Result<Digest, Problem> {
    let contract = ledger.checker.channel.contracts.get(name);
    contract
        .map(|contract| contract.digest)
        .ok_or_else(|| Problem::new(Code::UnknownContract, "").with_field("contract"))
}

/// The contract said whom the call is about: the proposal must be about the same.
pub fn partition_key(ledger: &Ledger, checked: &Checked, subject: &str) -> Result<(), Problem> {
    if ledger.secret.partition_key(&checked.proposal.contract, subject) == checked.partition_key {
        return Ok(());
    }
    Err(Problem::new(
        Code::WrongPartition,
        "the partition key is not the one of the call's subject",
    )
    .with_field("proposal.partition_key"))
}

fn check_sizes(signed: &rpc::SignedProposal) -> Result<(), Problem> {
    let path = signed.signature.as_ref().map_or(0, |signature| signature.path.len());
    let sizes = [
        (signed.proposal.len(), PROPOSAL_BYTES_MAX, "proposal"),
        (signed.certificate.len(), CERTIFICATE_BYTES_MAX, "certificate"),
        (signed.arguments.len(), ARGUMENTS_BYTES_MAX, "arguments"),
        (path, SIGNATURE_PATH_MAX, "signature.path"),
    ];
    for (size, max, field) in sizes {
        if size > max {
            return Err(Problem::new(Code::TooLarge, format!("at most {max}")).with_field(field));
        }
    }
    Ok(())
}

/// The client's clock against this machine's.
fn check_time(client_time_ms: u64, now_ms: u64) -> Result<(), Problem> {
    if client_time_ms.abs_diff(now_ms) <= CLOCK_SKEW_MS_MAX {
        return Ok(());
    }
    Err(Problem::new(
        Code::Expired,
        "the client's time is more than 15 minutes from this peer's",
    )
    .with_field("proposal.client_time_ms"))
}

/// `h ≤ bound ≤ h + L` must hold at the next height at least.
fn check_bound(ledger: &Ledger, partition: u32, bound: u64) -> Result<(), Problem> {
    let next = ledger.tip(partition).map_or(0, |tip| tip.height + 1);
    let ahead = ledger.checker.channel.config.heights_in_time_max;
    in_time(next, bound, ahead).then_some(()).ok_or_else(|| {
        Problem::new(
            Code::Expired,
            format!("the bound must be from {next} to {}", next + ahead),
        )
        .with_field("proposal.height_bound")
        .with_height(next.saturating_sub(1))
    })
}

fn key32(bytes: &[u8]) -> Result<Digest, Problem> {
    bytes
        .try_into()
        .map_err(|_| Problem::new(Code::BadEncoding, "").with_field("proposal.partition_key"))
}

/// What the worker hands over must be what `validate` accepts; a violation is the contract's fault.
pub fn result(checker: &Checker, result: &ledger::Result) -> Result<(), Problem> {
    use protocol::code::Code as Check;
    let faulty = |Rejection { code, field }: Rejection| {
        let problem = match (code, field) {
            (Check::TooLarge, _) => Problem::new(Code::OutputTooLarge, code.rule()),
            (_, "result.policies.policy") => Problem::new(
                Code::Trapped,
                "the contract set a policy that does not parse or that no peers of members could satisfy",
            ),
            _ => return Problem::internal(format!("a worker handed over a malformed result: {field}")),
        };
        problem.with_field(field)
    };
    check_result(result).map_err(faulty)?;
    checker.check_key_policies(result).map_err(faulty)
}

/// A check of the protocol as a refusal.
pub fn refusal(rejection: Rejection) -> Problem {
    use protocol::code::Code as Check;
    let code = match rejection.code {
        Check::TooLarge => Code::TooLarge,
        Check::WrongChannel => Code::WrongChannel,
        Check::NotSubmit => Code::WrongKind,
        Check::UnknownCreator | Check::UnknownEndorser => Code::Unauthenticated,
        Check::CreatorRole => Code::PermissionDenied,
        Check::BadClientSignature | Check::BadEndorsement => Code::BadSignature,
        Check::UnknownContract => Code::UnknownContract,
        Check::ContractDigest => Code::ContractChanged,
        Check::WrongPartition | Check::KeyOutside => Code::WrongPartition,
        _ => Code::BadEncoding,
    };
    Problem::new(code, rejection.code.rule()).with_field(rejection.field)
}

#[cfg(test)]
mod tests {
    use protocol::{limits::VALUE_BYTES_MAX, testing::TestNet};

    use super::*;

    #[test]
    fn a_bound_is_in_time_from_the_next_height_to_l_ahead() {
        assert!(!in_time(10, 9, 5));
        assert!(in_time(10, 10, 5) && in_time(10, 15, 5));
        assert!(!in_time(10, 16, 5));
    }

    #[test]
    fn a_clock_may_be_15_minutes_off_either_way() {
        let now = 1_000_000_000;
        assert!(check_time(now - CLOCK_SKEW_MS_MAX, now).is_ok());
        assert!(check_time(now + CLOCK_SKEW_MS_MAX, now).is_ok());
        let problem = check_time(now + CLOCK_SKEW_MS_MAX + 1, now).expect_err("too far");
        assert_eq!(
            (problem.code, &*problem.field),
            (Code::Expired, "proposal.client_time_ms")
        );
    }

    #[test]
    fn what_validate_refuses_never_leaves() {
        let checker = TestNet::new(&["HospitalA"], 1).checker();
        let judge = |change: &dyn Fn(&mut ledger::Result)| {
            let mut output = ledger::Result {
                tx_id: vec![0; 32],
                contract_digest: vec![0; 32],
                snapshot_header: vec![0; 32],
                response_digest: vec![0; 32],
                ..Default::default()
            };
            change(&mut output);
            result(&checker, &output).map_err(|problem| problem.code)
        };
        let write = |key: &str, bytes: usize| ledger::Write {
            key: key.into(),
            value: vec![0; bytes],
            ..Default::default()
        };
        let policy = |text: &str| {
            judge(&|output| {
                output.policies.push(ledger::KeyPolicy {
                    key: b"a".to_vec(),
                    policy: text.to_owned(),
                })
            })
        };
        assert_eq!(
            judge(&|output| output.writes = vec![write("a", 1), write("b", 1)]),
            Ok(())
        );
        assert_eq!(
            judge(&|output| output.writes = vec![write("b", 1), write("a", 1)]),
            Err(Code::Internal)
        );
        assert_eq!(
            judge(&|output| output.writes = vec![write("a", VALUE_BYTES_MAX + 1)]),
            Err(Code::OutputTooLarge)
        );
        assert_eq!(policy("OR('HospitalA.peer')"), Ok(()));
        assert_eq!(policy(""), Ok(()));
        for locks in ["AND(", "OR('Stranger.peer')", "OR('HospitalA.client')"] {
            assert_eq!(policy(locks), Err(Code::Trapped), "{locks}");
        }
    }
}
