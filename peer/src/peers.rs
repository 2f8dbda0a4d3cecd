//! The other peers: who is alive, and endorsements from them.
//!
//! Once a second heights and attestations go both ways; who answered lately, whatever was asked, and
//! whose stream is open counts as alive. A call that failed makes its peer suspect until it answers
//! again, so that the next transaction does not wait for the same silence. Who was not given the time
//! that an endorsement may take is not suspect: a client in a hurry says nothing about a peer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use protocol::limits::{ATTESTATIONS_PER_RECORD_MAX, RESPONSE_BYTES_MAX, TRANSACTION_BYTES_MAX};
use protocol::signature::Purpose;
use serde::Deserialize;
use service::lists::Endorse;
use service::mux::{self, Mux};
use service::rpc::{self, endorse_reply, peer_client::PeerClient};
use service::tls::{self, Target, Trust};
use service::{Code, OnFailure, Problem, Role, Tasks};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::transport::Channel;

use crate::endorser::Endorsed;
use crate::endorser::check::Checked;
use crate::gateway::endorse::Candidate;
use crate::ledger::Ledger;
use crate::metrics::PEERS_ALIVE;

const EXCHANGE_EVERY: Duration = Duration::from_secs(1);
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(2);
/// Without an answer for so long a peer is not alive, whatever its stream says.
const ALIVE_FOR: Duration = Duration::from_secs(4);

/// Who does not answer an endorsement for so long is suspect. More than an endorser waits for a height.
const SUSPECT_AFTER: Duration = Duration::from_secs(2);

/// Another peer of the network, by its settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    pub organisation: String,
    /// `host:port`
    pub address: String,
}

/// All other peers. Clones share them.
#[derive(Clone)]
pub struct Peers {
    others: Arc<Vec<Arc<Other>>>,
}

pub struct Other {
    at: Address,
    ledger: Arc<Ledger>,
    endorsements: Mux<Endorse>,
    client: PeerClient<Channel>,
    seen: Seen,
}

/// When it answered last; `None` also while it is suspect.
#[derive(Default)]
struct Seen(Mutex<Option<Instant>>);

impl Seen {
    fn answers(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    fn suspect(&self) {
        *self.0.lock() = None;
    }

    /// Something asked at `began` has no answer in its time.
    fn silent_since(&self, began: Instant) {
        let mut answered = self.0.lock();
        *answered = answered.filter(|at| *at > began);
    }

    fn is_recent(&self) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() < ALIVE_FOR)
    }
}

impl Peers {
    pub fn start(
        tasks: &Tasks,
        trust: &Arc<Trust>,
        ledger: &Arc<Ledger>,
        addresses: &[Address],
    ) -> Result<Self, tls::Error> {
        let mut others = Vec::new();
        for at in addresses {
            let target = Target::new(at.address.clone(), Role::Peer, Some(&at.organisation));
            let channel = trust.channel(&target)?;
            let other = Arc::new(Other {
                at: at.clone(),
                ledger: Arc::clone(ledger),
                endorsements: Mux::start(tasks, channel.clone(), mux::Config::default()),
                client: rpc::peer_client(channel),
                seen: Seen::default(),
            });
            others.push(Arc::clone(&other));
            let token = tasks.token().clone();
            tasks.spawn("exchange", OnFailure::StopProcess, async move {
                let mut ticks = tokio::time::interval(EXCHANGE_EVERY);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    tokio::select! {
                        _ = ticks.tick() => {}
                        () = token.cancelled() => return,
                    }
                    tokio::select! {
                        () = other.exchange() => {}
                        () = token.cancelled() => return,
                    }
                }
            });
        }
        let peers = Peers {
            others: Arc::new(others),
        };
        peers.count(tasks);
        Ok(peers)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Other>> {
        self.others.iter()
    }

    pub fn seen(&self) -> Vec<rpc::PeerSeen> {
        let seen = self.others.iter().map(|other| rpc::PeerSeen {
            organisation: other.at.organisation.clone(),
            address: other.at.address.clone(),
            alive: other.is_alive(),
        });
        seen.collect()
    }

    /// The metric, by organisation.
    fn count(&self, tasks: &Tasks) {
        let (peers, token) = (self.clone(), tasks.token().clone());
        tasks.spawn("peers alive", OnFailure::Log, async move {
            while tokio::time::timeout(EXCHANGE_EVERY, token.cancelled()).await.is_err() {
                let mut alive = std::collections::BTreeMap::<&str, i64>::new();
                for other in peers.iter() {
                    *alive.entry(&other.at.organisation).or_default() += i64::from(other.is_alive());
                }
                for (organisation, count) in alive {
                    PEERS_ALIVE.with_label_values(&[organisation]).set(count);
                }
            }
        });
    }
}

impl Other {
    async fn exchange(&self) {
        let began = Instant::now();
        let mut attestations = self.ledger.newest_attestations();
        attestations.truncate(ATTESTATIONS_PER_RECORD_MAX);
        let mut client = self.client.clone();
        let asked = client.exchange(rpc::ExchangeRequest { attestations });
        match tokio::time::timeout(EXCHANGE_TIMEOUT, asked).await {
            Ok(Ok(reply)) => {
                let mut reply = reply.into_inner();
                reply.attestations.truncate(ATTESTATIONS_PER_RECORD_MAX);
                self.seen.answers();
                if !reply.attestations.is_empty() {
                    let ledger = Arc::clone(&self.ledger);
                    let verified = tokio::task::spawn_blocking(move || ledger.offer_attestations(reply.attestations));
                    // It fails only if it panicked, which the hook has logged.
                    let _ = verified.await;
                }
            }
            // It lives; this organisation's peers ask it for too much.
            Ok(Err(status)) if status.code() == Code::ResourceExhausted.grpc_code() => {
                self.seen.answers();
            }
            Ok(Err(status)) => {
                tracing::debug!(organisation = self.at.organisation, code = ?status.code(), "a peer does not answer");
                self.seen.suspect();
            }
            Err(_) => self.seen.silent_since(began),
        }
    }

    /// Signature, signer and contents: a peer that lies about them is as good as silent.
    fn verify(&self, endorsement: rpc::Endorsement) -> Result<Endorsed, Problem> {
        let bad = |why: &str| Problem::new(Code::BadSignature, format!("{}: {why}", self.at.organisation));
        let checker = &self.ledger.checker;
        if endorsement.response.len() > RESPONSE_BYTES_MAX || endorsement.result.len() > TRANSACTION_BYTES_MAX {
            return Err(bad("an endorsement of more than an endorser may give"));
        }
        let signature = endorsement
            .signature
            .ok_or_else(|| bad("an endorsement without signature"))?;
        let certificate = checker
            .certificates
            .check(&checker.channel, &endorsement.certificate)
            .filter(|certificate| certificate.role == Role::Peer && certificate.msp_id == self.at.organisation)
            .filter(|certificate| signature.certificate == certificate.hash)
            .ok_or_else(|| bad("the endorsement is by no peer of the organisation"))?;
        let (key, channel) = (&certificate.public_key, &checker.channel.id);
        checker
            .verifier
            .verify(key, Purpose::Endorsement, channel, &endorsement.result, &signature)
            .map_err(|_| bad("the endorsement's signature does not cover its result"))?;
        Ok(Endorsed {
            result: endorsement.result,
            response: endorsement.response,
            signature,
            certificate: Arc::from(certificate.der()),
        })
    }
}

#[async_trait]
impl Candidate for Other {
    fn organisation(&self) -> &str {
        &self.at.organisation
    }

    fn is_alive(&self) -> bool {
        self.seen.is_recent() && self.endorsements.is_up()
    }

    async fn endorse(&self, checked: &Checked, height: u64, timeout: Duration) -> Result<Endorsed, Problem> {
        let request = rpc::EndorseRequest {
            id: 0,
            proposal: Some(checked.signed()),
            snapshot_height: height,
        };
        let began = Instant::now();
        let reply = match self.endorsements.call(request, timeout).await {
            Ok(reply) => {
                self.seen.answers();
                reply
            }
            Err(mux::CallError::Full { retry_after }) => {
                return Err(Problem::exhausted(
                    retry_after,
                    format!("{} is busy", self.at.organisation),
                ));
            }
            Err(error) => {
                let code = match error {
                    mux::CallError::Deadline { .. } => Code::DeadlineExceeded,
                    _ => Code::Unavailable,
                };
                match code {
                    Code::DeadlineExceeded if timeout < SUSPECT_AFTER => {}
                    // If others were answered meanwhile it is busy, not away.
                    Code::DeadlineExceeded => self.seen.silent_since(began),
                    _ => self.seen.suspect(),
                }
                // An endorsement that was made and not heard of has no effect: nothing is unknown.
                return Err(Problem::new(code, format!("{}: {error}", self.at.organisation)));
            }
        };
        match reply.outcome {
            Some(endorse_reply::Outcome::Endorsement(endorsement)) => self.verify(endorsement),
            Some(endorse_reply::Outcome::Problem(problem)) => Err(problem.into()),
            None => Err(Problem::internal("an endorser's reply without outcome")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_busy_is_not_away() {
        let seen = Seen::default();
        assert!(!seen.is_recent(), "nobody is alive before he has answered");
        let before = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        seen.answers();
        seen.silent_since(before);
        assert!(seen.is_recent(), "one call has no answer, a later one had");
        tokio::time::advance(Duration::from_secs(1)).await;
        seen.silent_since(Instant::now());
        assert!(!seen.is_recent());
        seen.answers();
        seen.suspect();
        assert!(!seen.is_recent());
        seen.answers();
        tokio::time::advance(ALIVE_FOR).await;
        assert!(!seen.is_recent());
    }
}
