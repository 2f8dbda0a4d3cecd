//! The log in memory, with seeded faults: for simulations and tests.
//!
//! ```text
//!  append ─► the client's wire (in order, late) ─► stored ─► visible to readers (late)
//!                    └─► acknowledgement (late, or lost)
//! ```
//!
//! What happens is drawn from a ChaCha8 generator in the order of the calls: the same seed and the
//! same calls give the same log, faults and times. Time is tokio's, so with a paused clock on a
//! current-thread runtime a simulation takes no time and is deterministic. No threads, no tasks:
//! what is due happens when somebody next looks.
//!
//! Each [`MemoryLog`] is a client with a wire of its own, as a producer has: [`MemoryLog::another`] is
//! a second client of the same log, whose records may overtake the first's. The log's own troubles are
//! in the hands of [`Control`].

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{AppendError, Log, ReadError, Reader, Record, TopicError, TopicPartition, TopicSpec};

mod cluster;

use cluster::{Cluster, Sent};

/// How often what goes wrong: probabilities from 0 to 1, and the longest of the random delays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// An append ends as `Unavailable`; nothing is stored.
    pub refuse: f64,
    /// An append is stored and ends as `Unknown`.
    pub lose_acknowledgement: f64,
    /// An append is not stored and ends as `Unknown`.
    pub lose_record: f64,
    /// A bound, a new reader or a reader's `next` ends as `Unavailable`.
    pub fail_read: f64,
    /// An append begins a time in which the whole log is away.
    pub outage: f64,
    pub outage_max: Duration,
    /// From the append until the record is stored.
    pub store_delay_max: Duration,
    /// From there until the acknowledgement arrives.
    pub acknowledge_delay_max: Duration,
    /// From there until readers see it.
    pub deliver_delay_max: Duration,
}

impl Faults {
    /// Everything goes wrong often enough to be seen in a hundred appends.
    pub fn many() -> Faults {
        Faults {
            refuse: 0.05,
            lose_acknowledgement: 0.05,
            lose_record: 0.05,
            fail_read: 0.02,
            outage: 0.003,
            outage_max: Duration::from_millis(300),
            store_delay_max: Duration::from_millis(20),
            acknowledge_delay_max: Duration::from_millis(20),
            deliver_delay_max: Duration::from_millis(50),
        }
    }
}

/// One client of a log in memory. Clones are the same client.
#[derive(Clone)]
pub struct MemoryLog {
    shared: Arc<Shared>,
    client: usize,
}

struct Shared {
    cluster: Mutex<Cluster>,
    /// Something was put on a wire, stored, or the log came back.
    changed: Notify,
}

impl MemoryLog {
    pub fn new(seed: u64, faults: Faults) -> MemoryLog {
        let shared = Arc::new(Shared {
            cluster: Mutex::new(Cluster::new(seed, faults)),
            changed: Notify::new(),
        });
        let client = shared.cluster.lock().client();
        MemoryLog { shared, client }
    }

    /// Without faults: every append is stored and seen at once.
    pub fn reliable() -> MemoryLog {
        MemoryLog::new(0, Faults::default())
    }

    /// Another client of the same log.
    pub fn another(&self) -> MemoryLog {
        let client = self.shared.cluster.lock().client();
        MemoryLog {
            shared: self.shared.clone(),
            client,
        }
    }

    pub fn control(&self) -> Control {
        Control {
            shared: self.shared.clone(),
        }
    }
}

/// The hand of fate, and an eye on what is stored.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

impl Control {
    pub fn set_faults(&self, faults: Faults) {
        self.shared.cluster.lock().faults = faults;
    }

    /// Takes the log away from all clients, or gives it back. What is on the wires arrives all the same.
    pub fn set_available(&self, available: bool) {
        self.shared.cluster.lock().set_available(available);
        self.shared.changed.notify_waiters();
    }

    /// Stores a record that no client sent, at once. Its offset.
    pub fn inject(&self, to: &TopicPartition, value: impl Into<Bytes>) -> u64 {
        let offset = self.shared.cluster.lock().inject(to, value.into(), Instant::now());
        self.shared.changed.notify_waiters();
        offset
    }

    /// Everything that is stored by now, seen by readers or not.
    pub fn records(&self, of: &TopicPartition) -> Vec<Record> {
        self.shared.cluster.lock().records(of, Instant::now())
    }

    /// Takes one record out and leaves a hole, as no healthy log does.
    pub fn remove(&self, of: &TopicPartition, offset: u64) {
        self.shared.cluster.lock().remove(of, offset);
    }

    /// Forgets everything from `end` on, as a log does that lost its tail. Offsets are given again.
    pub fn truncate(&self, of: &TopicPartition, end: u64) {
        self.shared.cluster.lock().truncate(of, end);
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn ensure(&self, topics: &[TopicSpec], _allow_unsafe: bool) -> Result<(), TopicError> {
        self.shared.cluster.lock().ensure(topics, Instant::now())
    }

    fn append(&self, to: &TopicPartition, value: Bytes) -> BoxFuture<'static, Result<u64, AppendError>> {
        let sent = self.shared.cluster.lock().send(self.client, to, value, Instant::now());
        self.shared.changed.notify_waiters();
        let shared = self.shared.clone();
        Box::pin(async move {
            match sent {
                Sent::Refused(error) => Err(error),
                Sent::Lost { until } => {
                    tokio::time::sleep_until(until).await;
                    Err(AppendError::Unknown("no acknowledgement".into()))
                }
                Sent::OnTheWire {
                    stored_at,
                    until,
                    stored,
                } => {
                    let offset = stored_offset(&shared, stored_at, stored).await;
                    tokio::time::sleep_until(until).await;
                    offset.ok_or_else(|| AppendError::Unknown("the log was truncated".into()))
                }
            }
        })
    }

    async fn bounds(&self, of: &TopicPartition) -> Result<(u64, u64), ReadError> {
        self.shared.cluster.lock().bounds(of, Instant::now())
    }

    async fn read(&self, of: &TopicPartition, from: u64) -> Result<Box<dyn Reader>, ReadError> {
        let (low, high) = self.bounds(of).await?;
        if from < low || from > high {
            return Err(ReadError::OutOfRange {
                offset: from,
                low,
                high,
            });
        }
        Ok(Box::new(MemoryReader {
            shared: self.shared.clone(),
            of: of.clone(),
            expected: from,
        }))
    }

    fn reachable(&self) -> bool {
        self.shared.cluster.lock().available(Instant::now())
    }
}

/// Waits for the store's time, makes sure that it happened, and takes the offset.
async fn stored_offset(shared: &Shared, at: Instant, mut stored: oneshot::Receiver<u64>) -> Option<u64> {
    if let Ok(offset) = stored.try_recv() {
        return Some(offset);
    }
    tokio::time::sleep_until(at).await;
    shared.cluster.lock().settle(Instant::now());
    stored.try_recv().ok()
}

struct MemoryReader {
    shared: Arc<Shared>,
    of: TopicPartition,
    expected: u64,
}

#[async_trait]
impl Reader for MemoryReader {
    async fn next(&mut self, wait: Duration) -> Result<Vec<Record>, ReadError> {
        let deadline = Instant::now() + wait;
        let shared = self.shared.clone();
        loop {
            let mut changed = std::pin::pin!(shared.changed.notified());
            changed.as_mut().enable();
            let now = Instant::now();
            let (outcome, later) = {
                let mut cluster = shared.cluster.lock();
                let outcome = cluster.take(&self.of, self.expected, now);
                (outcome, cluster.next_change(&self.of, now))
            };
            let unavailable = match outcome {
                Ok(records) if records.is_empty() => None,
                Ok(records) => {
                    self.expected += records.len() as u64;
                    return Ok(records);
                }
                Err(error @ ReadError::Unavailable(_)) => Some(error),
                Err(error) => return Err(error),
            };
            if now >= deadline {
                return unavailable.map_or(Ok(Vec::new()), Err);
            }
            let until = later.map_or(deadline, |later| later.min(deadline));
            let _ = tokio::time::timeout_at(until, changed).await;
        }
    }
}

#[cfg(test)]
mod tests;
