//! Endorsements for one proposal: the smallest set of organisations that satisfies the policy and is
//! alive, in parallel, all at one height.
//!
//! ```text
//! choose a team ─→ ask in parallel ─→ all the same bytes? ─→ endorsements
//!      ▲               │ silent, or not of this proposal: another team
//!      │               │ no such snapshot: the lowest height that was named
//!      │               │ other bytes: a team of those who agree
//!      └───────────────┘ a written key has a policy of its own: more organisations
//! ```
//! When no team is left the answer comes at once and names the missing organisations. Who is only at
//! another height is not missing: while the deadline allows it, he is asked again.

mod attempt;
mod teams;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use protocol::ledger::{self, Kind, Signature};
use protocol::policy::Policy;
use service::{Code, Problem, rpc};
use tokio::time::Instant;

use crate::endorser::check::Checked;
use crate::endorser::{Endorsed, Endorser};
use crate::metrics::{Request, outcome};
use crate::query::not_started;
use attempt::Attempt;
pub use teams::Teams;

/// Rounds for one proposal, however many peers there are and whatever they answer.
const ROUNDS_MAX: usize = 1024;

/// A peer that may endorse: this one, in the process, or another.
#[async_trait]
pub trait Candidate: Send + Sync {
    fn organisation(&self) -> &str;
    fn is_alive(&self) -> bool;
    async fn endorse(&self, checked: &Checked, height: u64, timeout: Duration) -> Result<Endorsed, Problem>;
}

/// This peer as an endorser.
pub struct Local(pub Arc<Endorser>);

#[async_trait]
impl Candidate for Local {
    fn organisation(&self) -> &str {
        self.0.identity.msp_id()
    }

    fn is_alive(&self) -> bool {
        self.0.workers.any_up()
    }

    async fn endorse(&self, checked: &Checked, height: u64, timeout: Duration) -> Result<Endorsed, Problem> {
        self.0.endorse(checked, height, Instant::now() + timeout).await
    }
}

/// Policies of the keys that a result writes, and how high this peer stands.
pub trait Chain: Send + Sync {
    fn newest(&self, partition: u32) -> Option<u64>;
    fn key_policies(&self, partition: u32, result: &ledger::Result) -> Result<Vec<Policy>, Problem>;
}

/// What goes into the transaction, in the order that the policy wants.
#[derive(Debug)]
pub struct Endorsements {
    pub result: Vec<u8>,
    /// The height that it was computed on.
    pub snapshot: u64,
    pub response: Vec<u8>,
    pub signatures: Vec<Signature>,
    pub certificates: Vec<Arc<[u8]>>,
}

/// Endorses under `policy`; `timeout` is for one endorsement, `deadline` for all of it.
pub async fn endorse(
    teams: &Teams,
    chain: &dyn Chain,
    policy: &Policy,
    checked: &Checked,
    timeout: Duration,
    deadline: Instant,
) -> Result<Endorsements, Problem> {
    let mut attempt = Attempt::new(teams, chain, policy, checked)?;
    for _ in 0..ROUNDS_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match attempt.choose()? {
            Some(team) => {
                attempt.ask(&team, timeout.min(left)).await?;
                if attempt.is_settled(&team)? {
                    return attempt.finish(&team);
                }
            }
            None if attempt.begin_again(deadline).await => {}
            None => break,
        }
    }
    Err(attempt.out_of_time())
}

impl super::Gateway {
    /// This peer's endorsement only, for a client that gathers others itself. Height 0 is the newest.
    pub(super) async fn endorse_alone(&self, request: rpc::EndorseRequest) -> rpc::EndorseReply {
        let metric = Request::begin("endorse");
        let endorsed = self.try_endorse_alone(request).await;
        metric.end(outcome(&endorsed));
        crate::endorser::serve::reply(endorsed)
    }

    async fn try_endorse_alone(&self, request: rpc::EndorseRequest) -> Result<Endorsed, Problem> {
        let proposal = request
            .proposal
            .ok_or_else(|| Problem::invalid("proposal", "is missing"))?;
        let checked = self.endorser.check(proposal, Kind::Submit)?;
        let height = match request.snapshot_height {
            0 => self
                .chain
                .newest(checked.partition)
                .ok_or_else(|| not_started(checked.partition))?,
            height => height,
        };
        self.endorser
            .endorse(&checked, height, Instant::now() + self.limits.endorse_timeout())
            .await
    }
}

/// The contract's own answers, and what is wrong with the proposal itself: asking others is in vain.
fn is_everywhere(code: Code) -> bool {
    matches!(
        code,
        Code::ContractRejected
            | Code::BadArguments
            | Code::UnknownFunction
            | Code::FuelExhausted
            | Code::MemoryExceeded
            | Code::OutputTooLarge
            | Code::Trapped
            | Code::ArgumentsChanged
            | Code::WrongPartition
            | Code::WrongKind
            | Code::WrongChannel
            | Code::BadEncoding
            | Code::TooLarge
            | Code::InvalidArgument
    )
}

/// No answer, or none that says anything about the proposal.
fn is_silence(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::WorkerUnavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::UnknownOutcome
            | Code::PartitionStopped
            | Code::SnapshotUnavailable
            | Code::LogUnavailable
            | Code::Internal
    )
}
