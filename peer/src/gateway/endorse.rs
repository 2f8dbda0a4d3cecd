//! Endorsements for one proposal: the smallest set of organisations that satisfies the policy and is
//! alive, in parallel, all at one height.
//!
//! ```text
//! choose a team ─→ ask in parallel ─→ all the same bytes? ─→ endorsements
//!      ▲               │ silent: another team, while the policy can still be met
//!      │               │ no such snapshot: the lowest common height
//!      └───────────────┘ a written key has a policy of its own: more organisations
//! ```
//! When no team is left the answer comes at once and names the missing organisations.

mod teams;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use protocol::canonical;
use protocol::keys::response_digest;
use protocol::ledger::{self, Kind, Signature};
use protocol::policy::Policy;
use service::{Code, Problem, rpc};
use tokio::time::Instant;

use super::metrics::{Request, outcome};
use crate::endorser::check::Checked;
use crate::endorser::{Endorsed, Endorser};
use crate::query::not_started;
pub use teams::Teams;

/// Teams and heights tried for one proposal.
const ROUNDS_MAX: usize = 8;
/// Of those, how often another height is agreed on before the ones behind are left out.
const HEIGHT_ROUNDS_MAX: usize = 3;

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
    pub response: Vec<u8>,
    pub signatures: Vec<Signature>,
    pub certificates: Vec<Arc<[u8]>>,
}

/// What is known of one proposal while teams are tried.
struct Attempt<'a> {
    teams: &'a Teams,
    chain: &'a dyn Chain,
    checked: &'a Checked,
    height: u64,
    made: BTreeMap<usize, Endorsed>,
    failed: Vec<(usize, Problem)>,
    key_policies: Vec<Policy>,
    height_rounds: usize,
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
    let height = chain
        .newest(checked.partition)
        .ok_or_else(|| not_started(checked.partition))?;
    let mut attempt = Attempt {
        teams,
        chain,
        checked,
        height,
        made: BTreeMap::new(),
        failed: Vec::new(),
        key_policies: Vec::new(),
        height_rounds: 0,
    };
    for _ in 0..ROUNDS_MAX {
        let team = attempt.choose(policy)?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(attempt.out_of_time());
        }
        if attempt.ask(&team, timeout.min(left)).await? {
            let result = attempt.agreed(&team)?;
            if attempt.satisfies_keys(&result, &team)? {
                return attempt.finish(&team, &result);
            }
        }
    }
    Err(attempt.unsatisfied(policy))
}

impl Attempt<'_> {
    fn choose(&self, policy: &Policy) -> Result<Vec<usize>, Problem> {
        let failed = |at: usize| self.failed.iter().any(|(other, _)| *other == at);
        let made = |at: usize| self.made.contains_key(&at);
        let team = self.teams.choose(policy, &self.key_policies, &failed, &made);
        team.ok_or_else(|| self.unsatisfied(policy))
    }

    /// Whether all of the team have endorsed at the height. An error ends it all.
    async fn ask(&mut self, team: &[usize], timeout: Duration) -> Result<bool, Problem> {
        let wanted: Vec<usize> = team.iter().copied().filter(|at| !self.made.contains_key(at)).collect();
        let (checked, height, teams) = (self.checked, self.height, self.teams);
        let answers = match wanted.as_slice() {
            // Most transactions have one endorser.
            [only] => vec![teams.candidate(*only).endorse(checked, height, timeout).await],
            _ => {
                join_all(
                    wanted
                        .iter()
                        .map(|&at| teams.candidate(at).endorse(checked, height, timeout)),
                )
                .await
            }
        };
        let mut behind = Vec::new();
        let mut complete = true;
        for (at, answer) in wanted.into_iter().zip(answers) {
            match answer {
                Ok(endorsed) => {
                    self.made.insert(at, endorsed);
                }
                Err(problem) if problem.code == Code::SnapshotUnavailable => behind.push((at, problem)),
                Err(problem) if is_everywhere(problem.code) => return Err(problem),
                Err(problem) => {
                    self.failed.push((at, problem));
                    complete = false;
                }
            }
        }
        if behind.is_empty() {
            return Ok(complete);
        }
        self.height_rounds += 1;
        let newest = self.chain.newest(self.checked.partition).unwrap_or(self.height);
        if self.height_rounds > HEIGHT_ROUNDS_MAX {
            self.height = newest;
            self.failed.extend(behind);
        } else {
            let heights: Vec<u64> = behind.iter().map(|(_, problem)| problem.height).collect();
            self.height = common_height(self.height, newest, &heights);
        }
        self.made.clear();
        Ok(false)
    }

    /// All must have signed the same bytes.
    fn agreed(&self, team: &[usize]) -> Result<ledger::Result, Problem> {
        let mut by_result = BTreeMap::<&[u8], Vec<&str>>::new();
        for at in team {
            if let Some(endorsed) = self.made.get(at) {
                by_result
                    .entry(&endorsed.result)
                    .or_default()
                    .push(self.teams.candidate(*at).organisation());
            }
        }
        if by_result.len() > 1 {
            let groups: Vec<String> = by_result.values().map(|names| names.join(" and ")).collect();
            tracing::error!(
                tx_id = hex::encode(self.checked.tx_id),
                groups = groups.join(" / "),
                "endorsers disagree"
            );
            let detail = format!("these came to different results: {}", groups.join(" / "));
            return Err(Problem::new(Code::EndorsementMismatch, detail));
        }
        let Some(bytes) = by_result.into_keys().next() else {
            return Err(Problem::internal("a policy was satisfied by nobody"));
        };
        let foreign = || {
            Problem::new(
                Code::EndorsementMismatch,
                "the endorsed result is not of this proposal and height",
            )
        };
        let result: ledger::Result = canonical::decode(bytes).map_err(|_| foreign())?;
        let fits = result.tx_id == self.checked.tx_id
            && result.contract_digest == self.checked.contract_digest
            && result.snapshot_height == self.height;
        if fits { Ok(result) } else { Err(foreign()) }
    }

    /// Whether the team also satisfies the policies of the keys that are written; remembers them if not.
    fn satisfies_keys(&mut self, result: &ledger::Result, team: &[usize]) -> Result<bool, Problem> {
        let policies = self.chain.key_policies(self.checked.partition, result)?;
        if policies.iter().all(|policy| self.teams.satisfies(policy, team)) {
            return Ok(true);
        }
        self.key_policies = policies;
        Ok(false)
    }

    fn finish(mut self, team: &[usize], result: &ledger::Result) -> Result<Endorsements, Problem> {
        let mut endorsed: Vec<Endorsed> = team.iter().filter_map(|at| self.made.remove(at)).collect();
        // A response travels unsigned; its digest is in the result.
        let is_signed =
            |one: &Endorsed| response_digest(&self.checked.salt, &one.response)[..] == result.response_digest;
        let Some(at) = endorsed.iter().position(is_signed) else {
            return Err(Problem::new(
                Code::EndorsementMismatch,
                "no endorser's response is the one that was signed",
            ));
        };
        let response = std::mem::take(&mut endorsed[at].response);
        let bytes = std::mem::take(&mut endorsed[at].result);
        let (signatures, certificates) = endorsed.into_iter().map(|one| (one.signature, one.certificate)).unzip();
        Ok(Endorsements {
            result: bytes,
            response,
            signatures,
            certificates,
        })
    }

    /// Nobody is left to ask.
    fn unsatisfied(&self, policy: &Policy) -> Problem {
        // A refusal that is not silence says more than who is missing.
        if let Some((at, problem)) = self.failed.iter().find(|(_, problem)| !is_silence(problem.code)) {
            let organisation = self.teams.candidate(*at).organisation();
            let detail = format!("{organisation}: {}", problem.detail);
            return Problem {
                detail,
                ..problem.clone()
            };
        }
        let full = self
            .failed
            .iter()
            .find(|(_, problem)| problem.code == Code::ResourceExhausted);
        let failed = |at: usize| self.failed.iter().any(|(other, _)| *other == at);
        let missing = self.teams.missing(policy, &self.key_policies, &failed);
        let busy = |(at, _): &(usize, Problem)| {
            missing
                .iter()
                .any(|name| name == self.teams.candidate(*at).organisation())
        };
        if let Some((_, problem)) = full.filter(|full| busy(full)) {
            return problem.clone();
        }
        let detail = format!(
            "the endorsement policy {policy} cannot be met: {} away",
            missing.join(", ")
        );
        Problem::new(Code::PolicyUnsatisfiable, detail)
            .with_missing(missing)
            .with_retry_after(Duration::from_secs(1))
    }

    fn out_of_time(&self) -> Problem {
        Problem::new(Code::DeadlineExceeded, "not endorsed in time")
    }
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

/// Where all have a snapshot: the lowest of those that are not as far. One that is as far and has none
/// of that block joined several blocks: then the newest of all.
fn common_height(asked: u64, newest: u64, heights: &[u64]) -> u64 {
    let lowest = heights.iter().copied().min().unwrap_or(asked);
    if heights.iter().all(|&height| height < asked) {
        lowest
    } else {
        heights.iter().copied().max().unwrap_or(asked).max(newest)
    }
}
