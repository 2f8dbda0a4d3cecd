//! Signs whatever is waiting with one signature over its Merkle root: one when idle, many under load.
//!
//! A signature costs 12 µs and each one that is verified 36: under load, contents wait up to [`Config::pace`]
//! for company, and both costs are shared.

use std::sync::Arc;
use std::time::Duration;

use protocol::signature::{Purpose, sign};
use protocol::{Digest, ledger};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::identity::Identity;
use crate::metrics::signer::BATCH;
use crate::problem::Problem;
use crate::tasks::{OnFailure, Tasks};

#[derive(Clone, Debug)]
pub struct Config {
    /// Requests that wait. More are refused at once.
    pub queue_items_max: usize,
    /// At most one round of signatures in this time. 0: never wait.
    pub pace: Duration,
    pub retry_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue_items_max: 16_384,
            pace: Duration::from_millis(8),
            retry_after: Duration::from_millis(100),
        }
    }
}

struct Wanted {
    purpose: Purpose,
    contents: Vec<Vec<u8>>,
    signed: oneshot::Sender<Result<Vec<ledger::Signature>, Problem>>,
}

/// One identity's signatures on one channel. Clones share the queue.
#[derive(Clone)]
pub struct BatchSigner {
    queue: mpsc::Sender<Wanted>,
    signer: Arc<Signer>,
    retry_after: Duration,
}

impl BatchSigner {
    pub fn start(tasks: &Tasks, identity: Arc<Identity>, channel: Digest, config: Config) -> Self {
        let (queue, wanted) = mpsc::channel(config.queue_items_max.max(1));
        let retry_after = config.retry_after;
        let signer = Arc::new(Signer { identity, channel });
        let task = Task {
            signer: signer.clone(),
            config,
            wanted,
        };
        tasks.spawn("signer", OnFailure::StopProcess, task.run(tasks.token().clone()));
        Self {
            queue,
            signer,
            retry_after,
        }
    }

    pub async fn sign(&self, purpose: Purpose, content: Vec<u8>) -> Result<ledger::Signature, Problem> {
        let mut signatures = self.sign_all(purpose, vec![content]).await?;
        signatures
            .pop()
            .ok_or_else(|| Problem::internal("the signer gave no signature"))
    }

    /// One signature per content, in the same order.
    pub async fn sign_all(&self, purpose: Purpose, contents: Vec<Vec<u8>>) -> Result<Vec<ledger::Signature>, Problem> {
        let (signed, signatures) = oneshot::channel();
        match self.queue.try_send(Wanted {
            purpose,
            contents,
            signed,
        }) {
            // The task answers everything in its queue, also at its end.
            Ok(()) => signatures
                .await
                .unwrap_or_else(|_| Err(Problem::internal("the signer is gone"))),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(Problem::exhausted(self.retry_after, "too many signatures at once"))
            }
            // While the process drains, the task is gone: what was accepted is signed one by one.
            Err(mpsc::error::TrySendError::Closed(wanted)) => self
                .signer
                .sign(purpose, &wanted.contents.iter().map(Vec::as_slice).collect::<Vec<_>>()),
        }
    }
}

struct Signer {
    identity: Arc<Identity>,
    channel: Digest,
}

impl Signer {
    fn sign(&self, purpose: Purpose, contents: &[&[u8]]) -> Result<Vec<ledger::Signature>, Problem> {
        BATCH.observe(contents.len() as f64);
        sign(
            &self.identity.signing_key,
            &self.identity.hash(),
            purpose,
            &self.channel,
            contents,
        )
        .map_err(Problem::internal)
    }
}

struct Task {
    signer: Arc<Signer>,
    config: Config,
    wanted: mpsc::Receiver<Wanted>,
}

impl Task {
    async fn run(mut self, token: CancellationToken) {
        let round_max = self.config.queue_items_max.max(1);
        let mut last: Option<Instant> = None;
        let mut round = Vec::new();
        while !token.is_cancelled() {
            tokio::select! {
                received = self.wanted.recv_many(&mut round, round_max) => if received == 0 { break },
                () = token.cancelled() => break,
            }
            if let Some(next) = last.map(|last| last + self.config.pace)
                && next > Instant::now()
            {
                tokio::time::sleep_until(next).await;
                self.take_waiting(&mut round);
            }
            last = Some(Instant::now());
            self.sign_round(std::mem::take(&mut round));
        }
        self.wanted.close();
        self.take_waiting(&mut round);
        self.sign_round(round);
    }

    fn take_waiting(&mut self, round: &mut Vec<Wanted>) {
        while let Ok(wanted) = self.wanted.try_recv() {
            round.push(wanted);
        }
    }

    /// One signature per purpose, or a few if there are more contents than one root may have.
    fn sign_round(&self, mut round: Vec<Wanted>) {
        while let Some(purpose) = round.first().map(|wanted| wanted.purpose) {
            let (same, other): (Vec<_>, Vec<_>) = round.into_iter().partition(|wanted| wanted.purpose == purpose);
            self.sign_purpose(purpose, same);
            round = other;
        }
    }

    fn sign_purpose(&self, purpose: Purpose, wanted: Vec<Wanted>) {
        let contents: Vec<&[u8]> = wanted
            .iter()
            .flat_map(|wanted| wanted.contents.iter().map(Vec::as_slice))
            .collect();
        match self.signer.sign(purpose, &contents) {
            Ok(signatures) => {
                let mut signatures = signatures.into_iter();
                for wanted in wanted {
                    let share = signatures.by_ref().take(wanted.contents.len()).collect();
                    let _ = wanted.signed.send(Ok(share));
                }
            }
            Err(problem) => {
                for wanted in wanted {
                    let _ = wanted.signed.send(Err(problem.clone()));
                }
            }
        }
    }
}
