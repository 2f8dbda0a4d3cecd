//! What the log in memory holds, and what befalls it. Knows no futures: everything is told the time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::{sync::oneshot, time::Instant};

use super::Faults;
use crate::{AppendError, ReadError, Record, TopicError, TopicPartition, TopicSpec};

/// Of topics that nobody ensured.
const RECORD_BYTES_MAX: usize = 10 << 20;

pub(super) struct Cluster {
    pub faults: Faults,
    random: ChaCha8Rng,
    clients: usize,
    topics: BTreeMap<Arc<str>, TopicSpec>,
    partitions: BTreeMap<TopicPartition, Partition>,
    switched_off: bool,
    away_until: Option<Instant>,
}

#[derive(Default)]
struct Partition {
    stored: Vec<Stored>,
    end: u64,
    /// By client, in the order of its appends.
    wires: BTreeMap<usize, VecDeque<InFlight>>,
}

struct Stored {
    record: Record,
    visible_at: Instant,
}

struct InFlight {
    value: Bytes,
    at: Instant,
    stored: oneshot::Sender<u64>,
}

/// What becomes of an append.
pub(super) enum Sent {
    Refused(AppendError),
    Lost {
        until: Instant,
    },
    OnTheWire {
        stored_at: Instant,
        until: Instant,
        stored: oneshot::Receiver<u64>,
    },
}

impl Cluster {
    pub fn new(seed: u64, faults: Faults) -> Cluster {
        Cluster {
            faults,
            random: ChaCha8Rng::seed_from_u64(seed),
            clients: 0,
            topics: BTreeMap::new(),
            partitions: BTreeMap::new(),
            switched_off: false,
            away_until: None,
        }
    }

    pub fn client(&mut self) -> usize {
        self.clients += 1;
        self.clients
    }

    pub fn set_available(&mut self, available: bool) {
        self.switched_off = !available;
        self.away_until = None;
    }

    pub fn available(&self, now: Instant) -> bool {
        !self.switched_off && self.away_until.is_none_or(|until| until <= now)
    }

    fn chance(&mut self, of: f64) -> bool {
        of > 0.0 && self.random.random_bool(of.clamp(0.0, 1.0))
    }

    fn delay(&mut self, max: Duration) -> Duration {
        match max.as_micros() as u64 {
            0 => Duration::ZERO,
            micros => Duration::from_micros(self.random.random_range(0..=micros)),
        }
    }

    pub fn ensure(&mut self, topics: &[TopicSpec], now: Instant) -> Result<(), TopicError> {
        if !self.available(now) {
            return Err(TopicError::Unavailable("the log is away".into()));
        }
        for spec in topics {
            match self.topics.get(&spec.name) {
                Some(known) if known.partitions != spec.partitions => {
                    return Err(TopicError::Unsafe {
                        topic: spec.name.to_string(),
                        setting: "partitions".into(),
                        found: known.partitions.to_string(),
                        required: spec.partitions.to_string(),
                    });
                }
                Some(_) => {}
                None => {
                    self.topics.insert(spec.name.clone(), spec.clone());
                }
            }
        }
        Ok(())
    }

    pub fn send(&mut self, client: usize, to: &TopicPartition, value: Bytes, now: Instant) -> Sent {
        self.settle(now);
        let limit = self
            .topics
            .get(&to.topic)
            .map_or(RECORD_BYTES_MAX, |spec| spec.record_bytes_max);
        if value.len() > limit {
            return Sent::Refused(AppendError::TooLarge {
                bytes: value.len(),
                limit,
            });
        }
        let faults = self.faults.clone();
        if self.chance(faults.outage) {
            let length = self.delay(faults.outage_max);
            self.away_until = Some(now + length);
        }
        if !self.available(now) || self.chance(faults.refuse) {
            return Sent::Refused(AppendError::Unavailable("the log is away".into()));
        }
        let store_delay = self.delay(faults.store_delay_max);
        let acknowledge_delay = self.delay(faults.acknowledge_delay_max);
        if self.chance(faults.lose_record) {
            return Sent::Lost {
                until: now + store_delay + acknowledge_delay,
            };
        }
        let wire = self
            .partitions
            .entry(to.clone())
            .or_default()
            .wires
            .entry(client)
            .or_default();
        // In the order of the calls: nothing is stored before what was sent before it.
        let at = wire.back().map_or(now, |before| before.at).max(now + store_delay);
        let (done, stored) = oneshot::channel();
        wire.push_back(InFlight {
            value,
            at,
            stored: done,
        });
        self.settle(now);
        let until = at + acknowledge_delay;
        match self.chance(faults.lose_acknowledgement) {
            true => Sent::Lost { until },
            false => Sent::OnTheWire {
                stored_at: at,
                until,
                stored,
            },
        }
    }

    /// Stores what is due, in the order of the times, then of the clients.
    pub fn settle(&mut self, now: Instant) {
        let deliver_delay_max = self.faults.deliver_delay_max;
        // One partition after another: times between partitions do not matter, draws must not depend
        // on anything but the calls.
        let names: Vec<TopicPartition> = self.partitions.keys().cloned().collect();
        for name in names {
            while let Some(partition) = self.partitions.get_mut(&name) {
                let due = partition
                    .wires
                    .iter()
                    .filter_map(|(client, wire)| wire.front().map(|first| (first.at, *client)))
                    .filter(|(at, _)| *at <= now)
                    .min();
                let Some((at, client)) = due else { break };
                let Some(sent) = partition.wires.get_mut(&client).and_then(VecDeque::pop_front) else {
                    break;
                };
                let delay = self.delay(deliver_delay_max);
                let offset = self.store(&name, sent.value, at + delay);
                let _ = sent.stored.send(offset); // nobody may wait for it
            }
        }
    }

    fn store(&mut self, to: &TopicPartition, value: Bytes, visible_at: Instant) -> u64 {
        let partition = self.partitions.entry(to.clone()).or_default();
        let offset = partition.end;
        partition.end += 1;
        let visible_at = partition
            .stored
            .last()
            .map_or(visible_at, |last| last.visible_at.max(visible_at));
        partition.stored.push(Stored {
            record: Record {
                offset,
                value,
                appended_unix_ms: None,
            },
            visible_at,
        });
        offset
    }

    pub fn inject(&mut self, to: &TopicPartition, value: Bytes, now: Instant) -> u64 {
        self.settle(now);
        self.store(to, value, now)
    }

    pub fn records(&mut self, of: &TopicPartition, now: Instant) -> Vec<Record> {
        self.settle(now);
        let stored = self.partitions.get(of).map(|partition| &partition.stored);
        stored
            .into_iter()
            .flatten()
            .map(|stored| stored.record.clone())
            .collect()
    }

    pub fn remove(&mut self, of: &TopicPartition, offset: u64) {
        if let Some(partition) = self.partitions.get_mut(of) {
            partition.stored.retain(|stored| stored.record.offset != offset);
        }
    }

    pub fn truncate(&mut self, of: &TopicPartition, end: u64) {
        if let Some(partition) = self.partitions.get_mut(of) {
            partition.stored.retain(|stored| stored.record.offset < end);
            partition.end = partition.end.min(end);
        }
    }

    pub fn bounds(&mut self, of: &TopicPartition, now: Instant) -> Result<(u64, u64), ReadError> {
        self.settle(now);
        self.readable(now)?;
        Ok((0, self.partitions.get(of).map_or(0, |partition| partition.end)))
    }

    fn readable(&mut self, now: Instant) -> Result<(), ReadError> {
        if !self.available(now) || self.chance(self.faults.fail_read) {
            return Err(ReadError::Unavailable("the log is away".into()));
        }
        Ok(())
    }

    /// What a reader at `from` gets now: some of the visible records, at least one if there are any.
    pub fn take(&mut self, of: &TopicPartition, from: u64, now: Instant) -> Result<Vec<Record>, ReadError> {
        self.settle(now);
        self.readable(now)?;
        let Some(partition) = self.partitions.get(of) else {
            return Ok(Vec::new());
        };
        if from > partition.end {
            return Err(ReadError::OutOfRange {
                offset: from,
                low: 0,
                high: partition.end,
            });
        }
        let first = partition.stored.partition_point(|stored| stored.record.offset < from);
        let visible: Vec<Record> = partition.stored[first..]
            .iter()
            .take_while(|stored| stored.visible_at <= now)
            .take(1_000)
            .map(|stored| stored.record.clone())
            .collect();
        let Some(next) = visible.first() else {
            return Ok(visible);
        };
        if next.offset != from {
            return Err(ReadError::Gap {
                expected: from,
                found: next.offset,
            });
        }
        let whole = visible
            .iter()
            .zip(from..)
            .take_while(|(record, offset)| record.offset == *offset)
            .count();
        // Batches end anywhere, as fetches do.
        let count = if self.faults == Faults::default() {
            whole
        } else {
            self.random.random_range(1..=whole)
        };
        Ok(visible.into_iter().take(count).collect())
    }

    /// When a reader may see more without anybody doing anything.
    pub fn next_change(&self, of: &TopicPartition, now: Instant) -> Option<Instant> {
        let back = self.away_until.filter(|until| *until > now);
        let partition = self.partitions.get(of);
        let visible = partition.and_then(|partition| {
            let first = partition.stored.partition_point(|stored| stored.visible_at <= now);
            partition.stored.get(first).map(|stored| stored.visible_at)
        });
        let arrival = partition.and_then(|partition| {
            partition
                .wires
                .values()
                .filter_map(|wire| wire.front())
                .map(|first| first.at)
                .min()
        });
        [back, visible, arrival].into_iter().flatten().min()
    }
}
