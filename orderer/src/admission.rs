//! Who and what may come in.
//!
//! ```text
//! request ─▶ enter: sizes, quota of peer and organisation, room      no byte is parsed, all at once
//!         ─▶ check: decoding, signatures, rights, policy, expiry, revocation lists
//! ```
//! What passes would be judged by every peer the same way, as far as state and height do not enter; what
//! fails gets the code of the check, the field and the rule. Expiry and revocation lists are looked at here and
//! never by `validate`: they need a clock and files.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use protocol::{
    Digest,
    code::Code as Verdict,
    identity::{Certificate, IdentityError, Role},
    keys::partition_of,
    ledger::Signature,
    limits::{CERTIFICATE_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_CERTIFICATES_MAX},
    transaction::{self, Checker, Rejection, Table, Transaction},
};
use service::{
    Caller,
    problem::{Code, Problem},
    quota::Quota,
    rpc::BroadcastRequest,
};

use crate::{
    batcher::Cited,
    config::Quotas,
    room::{Held, Room},
};

/// When to come back after the room was full: a few blocks later.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// Whether a list revokes a certificate.
pub type Revoked = Arc<dyn Fn(&Certificate) -> bool + Send + Sync>;

pub struct Admission {
    checker: Checker,
    peers: Quota<Digest>,
    organisations: Quota<String>,
    room: Arc<Room>,
    revoked: Revoked,
    /// By partition: no record will stand before this height any more.
    heights: Vec<AtomicU64>,
}

/// An admitted transaction.
#[derive(Debug)]
pub struct Admitted {
    pub partition: u32,
    pub tx_id: Digest,
    pub transaction: Vec<u8>,
    pub certificates: Vec<Cited>,
}

impl Admission {
    pub fn new(checker: Checker, quotas: &Quotas, queue_bytes_max: usize, revoked: Revoked) -> Self {
        let heights = (0..checker.channel.partitions()).map(|_| AtomicU64::new(0)).collect();
        Admission {
            checker,
            peers: Quota::new("peer", quotas.peer()),
            organisations: Quota::new("organisation", quotas.organisation()),
            room: Room::new(queue_bytes_max),
            revoked,
            heights,
        }
    }

    /// The partition's next record stands at this height or later.
    pub fn reached(&self, partition: u32, height: u64) {
        if let Some(known) = self.heights.get(partition as usize) {
            known.fetch_max(height, Ordering::Relaxed);
        }
    }

    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Costs nothing but the look at sizes. The room is held until the answer.
    pub fn enter(&self, caller: &Caller, request: &BroadcastRequest) -> Result<Held, Problem> {
        if caller.role != Role::Peer {
            return Err(Problem::denied("only peers of member organisations broadcast"));
        }
        let too_large = |field: &str, rule: String| Err(Problem::new(Code::TooLarge, rule).with_field(field));
        if request.transaction.len() > TRANSACTION_BYTES_MAX {
            return too_large("transaction", format!("at most {TRANSACTION_BYTES_MAX} bytes"));
        }
        if request.certificates.len() > TRANSACTION_CERTIFICATES_MAX {
            return too_large("certificates", format!("at most {TRANSACTION_CERTIFICATES_MAX}"));
        }
        if request.certificates.iter().any(|der| der.len() > CERTIFICATE_BYTES_MAX) {
            return too_large("certificates", format!("at most {CERTIFICATE_BYTES_MAX} bytes each"));
        }
        let bytes = request.transaction.len() + request.certificates.iter().map(Vec::len).sum::<usize>();
        self.peers.check(&caller.account(), bytes)?;
        self.organisations.check(&caller.msp_id, bytes)?;
        let full = || Problem::exhausted(FULL_RETRY, "the orderer's queue is full for this organisation");
        self.room.take(&caller.msp_id, bytes).ok_or_else(full)
    }

    /// The expensive part; runs beside others. `unix_ms` is the wall clock.
    pub fn check(&self, request: BroadcastRequest, unix_ms: u64) -> Result<Admitted, Problem> {
        let tx = transaction::decode(&request.transaction).map_err(refusal)?;
        let table = Table::new(request.certificates.iter().map(Vec::as_slice));
        let explain = |rejection| self.explain(rejection, &tx, &table);
        let checked = self.checker.check(&tx, &table, None).map_err(explain)?;
        let endorsers = checked.endorsers.map_err(explain)?;
        self.checker.check_policy(&tx, &endorsers).map_err(refusal)?;
        let partition = partition_of(&tx.partition_key, self.checker.channel.partitions());
        let reached = self
            .heights
            .get(partition as usize)
            .map_or(0, |height| height.load(Ordering::Relaxed));
        if tx.proposal.height_bound < reached {
            return Err(refusal(Rejection {
                code: Verdict::HeightBound,
                field: "proposal.height_bound",
            }));
        }
        self.in_force(&checked.creator, "proposal.creator", unix_ms)?;
        let mut cited = HashMap::from([(checked.creator.hash, checked.creator)]);
        for signature in &tx.endorsements {
            if let Some(endorser) = self.checker.lookup(&table, &signature.certificate) {
                self.in_force(&endorser, "endorsements.certificate", unix_ms)?;
                cited.insert(endorser.hash, endorser);
            }
        }
        let certificates = cited
            .into_iter()
            .map(|(hash, certificate)| (hash, Arc::from(certificate.der())))
            .collect();
        Ok(Admitted {
            partition,
            tx_id: tx.tx_id,
            transaction: request.transaction,
            certificates,
        })
    }

    /// Expiry and revocation lists.
    fn in_force(&self, certificate: &Certificate, field: &str, unix_ms: u64) -> Result<(), Problem> {
        let unix_s = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
        if !certificate.valid_at(unix_s) {
            let detail = "the certificate is not yet valid or has expired";
            return Err(Problem::new(Code::CertificateExpired, detail).with_field(field));
        }
        if (self.revoked)(certificate) {
            let detail = "the certificate is on its organisation's revocation list";
            return Err(Problem::new(Code::Revoked, detail).with_field(field));
        }
        Ok(())
    }

    /// Says more of a certificate that is not a member's: on the way out there is time.
    fn explain(&self, rejection: Rejection, tx: &Transaction, table: &Table<'_>) -> Problem {
        let missing = match rejection.code {
            Verdict::UnknownCreator => Some(tx.proposal.creator.as_slice()),
            Verdict::UnknownEndorser => {
                let endorser = |signature: &Signature| self.checker.lookup(table, &signature.certificate);
                let stranger = |signature: &&Signature| endorser(signature).is_none_or(|c| c.role != Role::Peer);
                tx.endorsements
                    .iter()
                    .find(stranger)
                    .map(|signature| signature.certificate.as_slice())
            }
            _ => None,
        };
        let problem = refusal(rejection.clone());
        let Some(missing) = missing else { return problem };
        let Some(der) = table.der(missing) else {
            return Problem {
                detail: format!("{}: the certificate was not sent along", rejection.code),
                ..problem
            };
        };
        match self.checker.channel.members.verify_der(der) {
            Ok(_) => problem,
            Err(error) => {
                let code = if error == IdentityError::Revoked {
                    Code::Revoked
                } else {
                    problem.code
                };
                Problem {
                    code,
                    detail: format!("{}: {error}", rejection.code),
                    ..problem
                }
            }
        }
    }
}

/// A check's rejection in the words of refusals: the detail starts with the validation code.
fn refusal(rejection: Rejection) -> Problem {
    let code = match rejection.code {
        Verdict::BadEncoding => Code::BadEncoding,
        Verdict::TooLarge => Code::TooLarge,
        Verdict::WrongChannel => Code::WrongChannel,
        Verdict::NotSubmit => Code::WrongKind,
        Verdict::UnknownCreator | Verdict::UnknownEndorser => Code::Unauthenticated,
        Verdict::CreatorRole | Verdict::PolicyNotSatisfied => Code::PermissionDenied,
        Verdict::BadClientSignature | Verdict::BadEndorsement => Code::BadSignature,
        Verdict::UnknownContract => Code::UnknownContract,
        Verdict::ContractDigest => Code::ContractChanged,
        Verdict::WrongPartition => Code::WrongPartition,
        Verdict::HeightBound => Code::Expired,
        _ => Code::InvalidArgument,
    };
    Problem::new(code, format!("{}: {}", rejection.code, rejection.code.rule())).with_field(rejection.field)
}

#[cfg(test)]
mod tests;
