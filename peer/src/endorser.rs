//! The endorser: checks a proposal, runs its contract on the state at a named height, signs the result.
//!
//! ```text
//! SignedProposal ─ check ─→ Checked ─ route, snapshot, invoke ─→ Result ─ sign ─→ Endorsement
//! ```
//! The gateway of this peer calls it in the process; other peers through `Peer.EndorseLists`
//! ([`serve`]). All endorsers of a proposal at one height sign identical bytes: nothing of this
//! machine, not its clock, not its pages, not its retries, enters into the result.

pub mod check;
mod offers;
pub mod record;
pub mod serve;

use std::sync::Arc;

use prost::Message as _;
use protocol::keys::{key_prefix, response_digest};
use protocol::ledger::{self, Kind, Signature};
use protocol::limits::{RESPONSE_BYTES_MAX, SNAPSHOTS_KEPT, TRANSACTION_BYTES_MAX};
use protocol::signature::Purpose;
use protocol::transaction::Checker;
use service::identity::Identity;
use service::signer::BatchSigner;
use service::tls::Trust;
use service::{Code, Problem, rpc};
use tokio::time::Instant;

use crate::gateway::config::Limits;
use crate::ledger::{Ledger, Snapshot};
use crate::metrics::{ENDORSEMENT_SECONDS, ENDORSEMENTS, outcome};
use crate::workers::{Invocation, Workers};
use check::Checked;
use record::Record;

/// What of a transaction is left for its endorsements beside proposal and result.
const ENDORSEMENTS_BYTES: usize = 32 * 1024;

pub struct Endorser {
    pub ledger: Arc<Ledger>,
    pub workers: Arc<Workers>,
    pub signer: BatchSigner,
    pub identity: Arc<Identity>,
    pub trust: Arc<Trust>,
    pub limits: Limits,
}

/// An endorsement as it was made or received.
#[derive(Clone, Debug)]
pub struct Endorsed {
    /// [`ledger::Result`]
    pub result: Vec<u8>,
    pub response: Vec<u8>,
    pub signature: Signature,
    /// The endorser's certificate, DER.
    pub certificate: Arc<[u8]>,
}

impl Endorser {
    /// Whom a call is about and what it reads; it names exactly one kind of function.
    pub async fn route(
        &self,
        digest: &protocol::Digest,
        function: &str,
        arguments: &[u8],
        kind: Kind,
        deadline: Instant,
    ) -> Result<rpc::Routed, Problem> {
        let routed = self.workers.route(digest, function, arguments, deadline).await?;
        match kind {
            Kind::Submit if routed.query => Err(Problem::new(Code::WrongKind, "the function only reads: evaluate it")),
            Kind::Query if !routed.query => Err(Problem::new(Code::WrongKind, "the function changes state: submit it")),
            Kind::Submit if routed.subject.is_empty() => Err(Problem::new(
                Code::BadArguments,
                "the contract names nobody whom this change is about",
            )),
            _ => Ok(routed),
        }
    }

    /// Endorses at the named height.
    pub async fn endorse(&self, checked: &Checked, height: u64, deadline: Instant) -> Result<Endorsed, Problem> {
        let began = Instant::now();
        let endorsed = self.try_endorse(checked, height, deadline).await;
        ENDORSEMENT_SECONDS.observe(began.elapsed().as_secs_f64());
        ENDORSEMENTS.with_label_values(&[outcome(&endorsed)]).inc();
        endorsed
    }

    async fn try_endorse(&self, checked: &Checked, height: u64, deadline: Instant) -> Result<Endorsed, Problem> {
        let proposal = &checked.proposal;
        let asked;
        let routed = match &checked.routed {
            Some(routed) => routed,
            None => {
                let digest = &checked.contract_digest;
                asked = self
                    .route(digest, &proposal.function, &checked.arguments, Kind::Submit, deadline)
                    .await?;
                check::partition_key(&self.ledger, checked, &asked.subject)?;
                &asked
            }
        };
        let snapshot = self.snapshot(checked.partition, height, deadline).await?;
        let place = (snapshot.height, snapshot.header);
        let prefix = key_prefix(&proposal.contract, &checked.partition_key);
        let mut record = Record::new(snapshot, prefix);
        let call = Invocation {
            digest: checked.contract_digest,
            function: proposal.function.clone(),
            arguments: checked.arguments.clone(),
            context: context(checked),
            keys: routed.keys.clone(),
        };
        let done = self.workers.invoke(&call, &mut record, deadline).await?;
        let (result, response) = assemble(&self.ledger.checker, checked, place, record, done)?;
        let signature = self.signer.sign(Purpose::Endorsement, result.clone()).await?;
        let certificate = Arc::from(self.identity.certificate_der());
        Ok(Endorsed {
            result,
            response,
            signature,
            certificate,
        })
    }

    /// The state at a height; waits a moment for one that is just coming. Who has none of it names the
    /// nearest lower height that he has, or if there is none where he stands.
    async fn snapshot(&self, partition: u32, height: u64, deadline: Instant) -> Result<Arc<Snapshot>, Problem> {
        let mut unavailable = match self.ledger.snapshot(partition, Some(height)) {
            Ok(snapshot) => return Ok(snapshot),
            Err(unavailable) => unavailable,
        };
        let blocks = unavailable.tip.map_or(0, |tip| tip + 1);
        // Farther behind, it would not be reached in time, and whoever asks has better to do.
        if blocks <= height && height - blocks < SNAPSHOTS_KEPT as u64 {
            let patience = deadline.min(Instant::now() + self.limits.snapshot_wait());
            self.ledger.reached(partition, height, patience).await;
            unavailable = match self.ledger.snapshot(partition, Some(height)) {
                Ok(snapshot) => return Ok(snapshot),
                Err(unavailable) => unavailable,
            };
        }
        let problem = Problem::new(
            Code::SnapshotUnavailable,
            format!("partition {partition} stands at another height"),
        );
        Err(problem.with_height(unavailable.below.or(unavailable.tip).unwrap_or(0)))
    }
}

/// Who calls, as the contract sees it.
pub fn context(checked: &Checked) -> rpc::Context {
    let actor = &checked.actor;
    rpc::Context {
        tx_id: checked.tx_id.to_vec(),
        query: checked.proposal.kind() == Kind::Query,
        client_time_ms: checked.proposal.client_time_ms,
        organisation: actor.organisation.clone(),
        common_name: actor.common_name.clone(),
        role: actor.role.clone(),
        attributes: actor.attributes.clone(),
        asserted: actor.asserted,
    }
}

/// The result's bytes and the response.
fn assemble(
    checker: &Checker,
    checked: &Checked,
    (snapshot_height, snapshot_header): (u64, protocol::Digest),
    record: Record,
    done: rpc::Done,
) -> Result<(Vec<u8>, Vec<u8>), Problem> {
    if done.response.len() > RESPONSE_BYTES_MAX {
        return Err(Problem::new(
            Code::OutputTooLarge,
            format!("a response has at most {RESPONSE_BYTES_MAX} bytes"),
        ));
    }
    let mut writes = done.writes;
    for write in &mut writes {
        write.key = record.full_key(&write.key);
    }
    let mut policies = done.policies;
    for policy in &mut policies {
        policy.key = record.full_key(&policy.key);
    }
    let (reads, ranges) = record.finish();
    let result = ledger::Result {
        tx_id: checked.tx_id.to_vec(),
        contract_digest: checked.contract_digest.to_vec(),
        snapshot_height,
        snapshot_header: snapshot_header.to_vec(),
        reads,
        ranges,
        writes,
        policies,
        response_digest: response_digest(&checked.salt, &done.response).to_vec(),
        events: done.events,
    };
    check::result(checker, &result)?;
    let bytes = result.encode_to_vec();
    if bytes.len() + checked.bytes.len() + ENDORSEMENTS_BYTES > TRANSACTION_BYTES_MAX {
        return Err(Problem::new(
            Code::OutputTooLarge,
            "the call reads and writes more than a transaction may hold",
        ));
    }
    Ok((bytes, done.response))
}

#[cfg(test)]
mod tests;
