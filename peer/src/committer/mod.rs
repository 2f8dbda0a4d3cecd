//! From the log to the state, one loop per partition.
//!
//! ```text
//! Follow ──records──▶ prepare (stage 1, rayon) ──in order──▶ validate (stage 2) ──▶ one WriteBatch ──▶ effects
//!          bytes bounded        block h+1 runs beside             block h
//! ```
//! A partition stops only for what [`chain::Stop`] names. With the log away it waits, and reads go
//! on being served. While it catches up, whole blocks share a batch.

pub mod chain;
pub mod control;
mod deltas;
mod effects;
pub(crate) mod follow;
pub mod prepare;
pub mod validate;
pub mod view;
pub mod watchers;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use ledger_log::{Log, ReadError, Record, TopicPartition};
use protocol::{sha256, transaction::Checker};
use service::time::unix_ms;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use chain::Stop;
use control::ControlView;
pub use effects::Effects;
use follow::{Follow, Followed};
use prepare::{Prepared, prepare};
use validate::{Rules, validate};
use view::Overlay;

use crate::{
    metrics::ledger as metrics,
    state::{Changes, PartitionState, Position, StateError},
};

/// Records between reading and commit, per partition. Decoded they take a few times as much.
const QUEUE_BYTES_MAX: usize = 8 << 20;
const QUEUE_BLOCKS_MAX: usize = 128;
/// Blocks that share a batch while catching up.
const BATCH_BLOCKS_MAX: usize = 32;

const _: () = assert!(QUEUE_BYTES_MAX > 2 * protocol::limits::KAFKA_RECORD_BYTES_MAX);

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("reading the log: {0}")]
    Log(#[from] ReadError),
    #[error(transparent)]
    State(#[from] StateError),
}

/// Everything that commits one partition.
pub struct Committer {
    pub log: Arc<dyn Log>,
    pub topic: TopicPartition,
    pub checker: Arc<Checker>,
    pub control: Arc<ControlView>,
    pub effects: Effects,
}

/// A record whose stage 1 runs or is done.
struct Staged {
    height: u64,
    appended_unix_ms: Option<u64>,
    prepared: oneshot::Receiver<Prepared>,
    queued: Queued,
}

/// Holds a record's share of the queue until it is committed.
struct Queued {
    partition: u32,
    bytes: usize,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Queued {
    fn drop(&mut self) {
        metrics::queued(self.partition, -(self.bytes as i64));
    }
}

impl Committer {
    /// Runs until the token is cancelled or the partition stops.
    pub async fn run(self, token: CancellationToken) {
        let chain = Arc::clone(&self.effects.chain);
        let (staged_in, staged_out) = mpsc::channel(QUEUE_BLOCKS_MAX);
        let work = async {
            // Nothing can be judged before the genesis is known.
            let mut genesis = self.control.watch_genesis();
            let Ok(Some(genesis)) = genesis.wait_for(Option::is_some).await.map(|genesis| *genesis) else {
                return;
            };
            let rules = Rules {
                checker: Arc::clone(&self.checker),
                partition: chain.partition,
                genesis,
            };
            let mut commit = pin!(self.commit(rules, staged_out));
            let done = tokio::select! {
                committed = &mut commit => committed,
                // What was read before the log failed is committed.
                read = self.read(staged_in) => commit.await.and(read),
            };
            if let Err(why) = done {
                chain.stop(why);
            }
        };
        tokio::select! {
            () = work => {}
            () = token.cancelled() => {}
            () = chain.stopping().cancelled() => {}
        }
    }

    /// Reads ahead of the commits, and checks that the log still has what was committed last.
    async fn read(&self, staged: mpsc::Sender<Staged>) -> Result<(), Stop> {
        let chain = &self.effects.chain;
        let budget = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        let committed = match chain.tip() {
            Some(tip) => chain
                .state
                .block(tip.height)?
                .ok_or(StateError::Row("blocks"))
                .map(Some)?,
            None => None,
        };
        let from = committed.as_ref().map_or(0, |block| block.header.height);
        let mut verify = committed.map(|block| block.header.record_hash);
        let mut follow = Follow::new(Arc::clone(&self.log), self.topic.clone(), from);
        loop {
            let Followed::Records(records) = follow.next(Duration::from_secs(1)).await? else {
                continue;
            };
            for record in records {
                if let Some(expected) = verify.take() {
                    if sha256(&record.value) != expected {
                        return Err(Stop::Mismatch { height: record.offset });
                    }
                    continue;
                }
                let Some(block) = self.stage(&budget, record).await else {
                    return Ok(());
                };
                if staged.send(block).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// Starts stage 1 of a record, once there is room for it.
    async fn stage(&self, budget: &Arc<Semaphore>, record: Record) -> Option<Staged> {
        let partition = self.effects.chain.partition;
        let (height, appended_unix_ms, bytes) = (record.offset, record.appended_unix_ms, record.value.len());
        let share = bytes.clamp(1024, QUEUE_BYTES_MAX) as u32;
        let permit = Arc::clone(budget).acquire_many_owned(share).await.ok()?;
        metrics::queued(partition, bytes as i64);
        let queued = Queued {
            partition,
            bytes,
            _permit: permit,
        };
        let (done, prepared) = oneshot::channel();
        let checker = Arc::clone(&self.checker);
        rayon::spawn(move || {
            // A panic is a defect of ours; it stops this partition instead of the process.
            if let Ok(prepared) = catch_unwind(AssertUnwindSafe(|| prepare(&checker, partition, &record.value))) {
                let _ = done.send(prepared);
            }
        });
        Some(Staged {
            height,
            appended_unix_ms,
            prepared,
            queued,
        })
    }

    async fn commit(&self, rules: Rules, mut staged: mpsc::Receiver<Staged>) -> Result<(), Stop> {
        let state = &self.effects.chain.state;
        let mut position = state.position()?;
        let mut next: Option<Staged> = None;
        // What was in the log before says how long this peer was away, not how long a commit takes.
        let began_unix_ms = unix_ms();
        loop {
            let first = match next.take() {
                Some(first) => first,
                None => match staged.recv().await {
                    Some(first) => first,
                    None => return Ok(()),
                },
            };
            let height = first.height;
            let mut blocks = vec![first.prepared.await.map_err(|_| Stop::Defect { height })?];
            let mut queued = vec![first.queued];
            let mut appended = vec![first.appended_unix_ms];
            while blocks.len() < BATCH_BLOCKS_MAX {
                let Ok(mut more) = staged.try_recv() else { break };
                match more.prepared.try_recv() {
                    Ok(prepared) => {
                        blocks.push(prepared);
                        queued.push(more.queued);
                        appended.push(more.appended_unix_ms);
                    }
                    Err(_) => {
                        // Not ready yet, or never: awaiting it will tell.
                        next = Some(more);
                        break;
                    }
                }
            }
            position = self.commit_batch(&rules, position, blocks).await?;
            drop(queued);
            let now_unix_ms = unix_ms();
            for appended in appended.into_iter().flatten().filter(|at| *at >= began_unix_ms) {
                metrics::lag(self.effects.chain.partition, appended, now_unix_ms);
            }
        }
    }

    async fn commit_batch(&self, rules: &Rules, position: Position, blocks: Vec<Prepared>) -> Result<Position, Stop> {
        let started = Instant::now();
        let (rules, state) = (rules.clone(), Arc::clone(&self.effects.chain.state));
        let height = position.next_height();
        for block in &blocks {
            if let Some(fault) = block.fault {
                tracing::debug!(partition = rules.partition, fault, "an empty block");
                metrics::faulty(rules.partition);
            }
        }
        let work = tokio::task::spawn_blocking(move || {
            let mut position = position;
            let changes = commit_blocks(&rules, &state, &mut position, blocks)?;
            Ok::<_, StateError>((position, changes))
        });
        let (position, changes) = work.await.map_err(|_| Stop::Defect { height })??;
        self.effects.committed(&position, &changes, started.elapsed());
        Ok(position)
    }
}

/// Judges whole blocks and commits them in one batch.
pub fn commit_blocks(
    rules: &Rules,
    state: &PartitionState,
    position: &mut Position,
    blocks: Vec<Prepared>,
) -> Result<Vec<Changes>, StateError> {
    let mut overlay = Overlay::new(state);
    let mut changes = Vec::with_capacity(blocks.len());
    for block in blocks {
        changes.push(validate(rules, position, &mut overlay, block)?);
    }
    state.commit(&changes, position)?;
    Ok(changes)
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
