//! Readers: partitions assigned at an offset, no group, no committed position.
//!
//! ```text
//!  consumer ─┬─ queue of tx/0 ──► KafkaReader     one client (its threads, its connections, one fetch
//!            ├─ queue of tx/1 ──► KafkaReader     at a time per broker) for as many readers as hold
//!            └─ queue of control ► KafkaReader    different partitions
//!  consumer ─── queue of control ► KafkaReader    a second reader of a partition opens a second client
//! ```
//!
//! A client of librdkafka costs a thread per broker and, idle, ten fetches a second; a peer has P + 2
//! readers, so they share. A reader that is slow holds up nobody: its partition is fetched no further
//! than its own bound, the others go on.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use metric::Counter;
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, base_consumer::PartitionQueue},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::{sync::Notify, time::Instant};

use super::{
    KafkaSettings,
    ask::Asker,
    leaders::Leaders,
    link::{Context, Link},
    reason,
    remind::Brokers,
};
use crate::{
    ReadError, Reader, Record, TopicPartition,
    metrics::{READ_BYTES, RECORDS_READ},
};

/// One `next` returns no more than about this; the rest waits in the queue.
const NEXT_BYTES: usize = 1 << 20;
const NEXT_RECORDS: usize = 1_000;
/// A client whose brokers do not answer within this asks again later.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// Clients that are to ask are waited for this long.
const FOLLOW_FOR: Duration = Duration::from_millis(100);

/// All clients that read, and who reads what on which.
pub(crate) struct Readers {
    config: ClientConfig,
    link: Arc<Link>,
    clients: Mutex<Vec<Arc<Shared>>>,
}

struct Shared {
    consumer: Arc<BaseConsumer<Context>>,
    held: Mutex<HashMap<TopicPartition, Lead>>,
    /// On our behalf, who leads.
    is_asking: AtomicBool,
}

/// Who leads a partition, by a broker's number.
#[derive(Default)]
struct Lead {
    /// What this client was told when it was last asked to ask.
    told: Option<i32>,
    /// What the process knows.
    seen: Option<i32>,
}

impl Shared {
    /// Asks who leads; librdkafka goes by every answer. What nobody answers is asked again in the next round.
    fn ask(&self, topics: &BTreeSet<Arc<str>>) {
        for topic in topics {
            if let Ok(told) = self.consumer.fetch_metadata(Some(topic), ASK_TIMEOUT) {
                let told = Leaders::of(&told);
                for (of, lead) in self.held.lock().iter_mut().filter(|(of, _)| of.topic == *topic) {
                    lead.told = told.leader(of);
                }
            }
        }
        self.is_asking.store(false, Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A consumer's end waits for its threads: not on the reader's.
        let consumer = self.consumer.clone();
        std::thread::spawn(move || drop(consumer));
    }
}

impl Readers {
    pub fn new(common: &ClientConfig, settings: &KafkaSettings, link: Arc<Link>) -> Readers {
        let mut config = common.clone();
        for (name, value) in [
            // librdkafka wants a group's name to assign partitions; nothing is ever stored under it.
            ("group.id", "medledger-no-group".to_string()),
            ("auto.offset.reset", "error".into()),
            ("enable.auto.commit", "false".into()),
            ("enable.auto.offset.store", "false".into()),
            ("enable.partition.eof", "false".into()),
            ("allow.auto.create.topics", "false".into()),
            ("check.crcs", "true".into()),
            ("fetch.min.bytes", "1".into()),
            ("fetch.wait.max.ms", "100".into()),
            ("fetch.error.backoff.ms", "5".into()),
            ("fetch.queue.backoff.ms", "5".into()),
            ("fetch.message.max.bytes", (2usize << 20).to_string()),
            ("fetch.max.bytes", (16usize << 20).to_string()),
            // A single record over the fetch's size comes whole, so there is room for the largest.
            (
                "receive.message.max.bytes",
                ((32usize << 20) + settings.record_bytes_max).to_string(),
            ),
            (
                "queued.max.messages.kbytes",
                (settings.read_queue_bytes_max / 1024).max(1).to_string(),
            ),
            ("queued.min.messages", "10000".into()),
        ] {
            config.set(name, value);
        }
        Readers {
            config,
            link,
            clients: Mutex::default(),
        }
    }

    pub fn open(self: &Arc<Self>, of: &TopicPartition, from: u64, asker: Arc<Asker>) -> Result<KafkaReader, ReadError> {
        let unavailable = |error: KafkaError| ReadError::Unavailable(reason(&error));
        let shared = self.place(of).map_err(unavailable)?;
        let mut reader = KafkaReader {
            of: of.clone(),
            expected: from,
            suspected_gap: false,
            heard: Instant::now(),
            queue: None,
            wake: Arc::new(Notify::new()),
            shared,
            readers: Arc::downgrade(self),
            asker,
            link: self.link.clone(),
            records: RECORDS_READ.with_label_values(&[&*of.topic]),
            bytes: READ_BYTES.with_label_values(&[&*of.topic]),
        };
        reader.assign().map_err(unavailable)?;
        Ok(reader)
    }

    /// As the clients were told last.
    #[cfg(test)]
    pub fn leaders(&self) -> Vec<Option<i32>> {
        let clients = self.clients.lock();
        let leaders = clients
            .iter()
            .map(|shared| shared.held.lock().values().map(|lead| lead.told).collect::<Vec<_>>());
        leaders.flatten().collect()
    }

    pub fn remind(&self, brokers: &Brokers) {
        for shared in self.clients.lock().iter() {
            brokers.remind(shared.consumer.client());
        }
    }

    /// Clients that were told of other leaders than these of what they read ask again, which has them turn to them. True if
    /// one of these is another than it was. A client without an answer keeps nobody waiting.
    pub async fn follow(&self, leaders: &Leaders) -> bool {
        let mut asking = Vec::new();
        let mut changed = false;
        for shared in self.clients.lock().iter() {
            let mut topics = BTreeSet::new();
            for (of, lead) in shared.held.lock().iter_mut() {
                let Some(leader) = leaders.leader(of) else { continue };
                changed |= lead.seen.replace(leader).is_some_and(|seen| seen != leader);
                if lead.told != Some(leader) {
                    topics.insert(of.topic.clone());
                }
            }
            if !topics.is_empty() && !shared.is_asking.swap(true, Relaxed) {
                let shared = shared.clone();
                asking.push(tokio::task::spawn_blocking(move || shared.ask(&topics)));
            }
        }
        let _ = tokio::time::timeout(FOLLOW_FOR, join_all(asking)).await;
        changed
    }

    pub fn is_idle(&self) -> bool {
        self.clients.lock().is_empty()
    }

    /// A client on which nobody reads this partition yet.
    fn place(&self, of: &TopicPartition) -> Result<Arc<Shared>, KafkaError> {
        let mut clients = self.clients.lock();
        for shared in clients.iter() {
            if let Entry::Vacant(free) = shared.held.lock().entry(of.clone()) {
                free.insert(Lead::default());
                return Ok(shared.clone());
            }
        }
        let consumer = self.config.create_with_context(Context {
            link: self.link.clone(),
        })?;
        let held = Mutex::new(HashMap::from([(of.clone(), Lead::default())]));
        let shared = Arc::new(Shared {
            consumer: Arc::new(consumer),
            held,
            is_asking: AtomicBool::new(false),
        });
        clients.push(shared.clone());
        Ok(shared)
    }

    /// The partition is free on that client; a client without readers goes.
    fn leave(&self, shared: &Arc<Shared>, of: &TopicPartition) {
        let mut clients = self.clients.lock();
        let mut held = shared.held.lock();
        held.remove(of);
        if held.is_empty() {
            clients.retain(|other| !Arc::ptr_eq(other, shared));
        }
    }
}

fn list(of: &TopicPartition, offset: Offset) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(&of.topic, of.partition as i32, offset)?;
    Ok(list)
}

/// After so long without a record it is asked whether there is one: after a change of leaders librdkafka sometimes stops
/// fetching without an error.
const QUIET: Duration = Duration::from_secs(2);
/// What was appended while it was asked for comes by itself within this.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

pub(crate) struct KafkaReader {
    of: TopicPartition,
    expected: u64,
    suspected_gap: bool,
    /// When the last record came, or it was last asked for one.
    heard: Instant,
    queue: Option<PartitionQueue<Context>>,
    wake: Arc<Notify>,
    shared: Arc<Shared>,
    readers: Weak<Readers>,
    asker: Arc<Asker>,
    link: Arc<Link>,
    records: Counter,
    bytes: Counter,
}

/// What stopped a drain of the queue.
enum Stop {
    Empty,
    Full,
    Gap { found: u64 },
    Failed(KafkaError),
}

impl KafkaReader {
    /// Starts fetching at the expected offset, into a queue of its own.
    fn assign(&mut self) -> Result<(), KafkaError> {
        let consumer = &self.shared.consumer;
        let mut queue = consumer
            .split_partition_queue(&self.of.topic, self.of.partition as i32)
            .ok_or_else(|| KafkaError::Subscription("no queue for the partition".into()))?;
        let wake = self.wake.clone();
        queue.set_nonempty_callback(move || wake.notify_one());
        consumer.incremental_assign(&list(&self.of, Offset::Offset(self.expected as i64))?)?;
        self.queue = Some(queue);
        Ok(())
    }

    fn unassign(&mut self) {
        if let Ok(list) = list(&self.of, Offset::Invalid)
            && let Err(error) = self.shared.consumer.incremental_unassign(&list)
        {
            tracing::debug!(error = %reason(&error), "unassign");
        }
        self.queue = None;
    }

    /// Takes what is there, without waiting.
    fn drain(&mut self) -> (Vec<Record>, Stop) {
        let mut taken = Vec::new();
        let mut bytes = 0;
        // Errors and logs of the client itself; never a record.
        if let Some(Err(error)) = self.shared.consumer.poll(Duration::ZERO) {
            tracing::debug!(error = %reason(&error), "Kafka consumer");
        }
        let Some(queue) = &self.queue else {
            return (taken, Stop::Empty);
        };
        let stop = loop {
            if bytes >= NEXT_BYTES || taken.len() >= NEXT_RECORDS {
                break Stop::Full;
            }
            match queue.poll(Duration::ZERO) {
                None => break Stop::Empty,
                Some(Err(error)) => break Stop::Failed(error),
                Some(Ok(message)) => {
                    let offset = message.offset() as u64;
                    if offset != self.expected {
                        break Stop::Gap { found: offset };
                    }
                    let value = message.payload().map_or_else(Bytes::new, Bytes::copy_from_slice);
                    bytes += value.len();
                    taken.push(Record {
                        offset,
                        value,
                        appended_unix_ms: message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok()),
                    });
                    self.expected += 1;
                }
            }
        };
        if !taken.is_empty() {
            self.suspected_gap = false;
            self.heard = Instant::now();
            self.link.answered();
            self.records.inc_by(taken.len() as u64);
            self.bytes.inc_by(bytes as u64);
        }
        (taken, stop)
    }

    /// Whether the log has more than what came, after a long silence. Asked no more often than that.
    async fn is_passed_over(&mut self) -> bool {
        if self.heard.elapsed() < QUIET {
            return false;
        }
        self.heard = Instant::now();
        // Who does not answer is away, which the link knows. What comes meanwhile is answer enough.
        let has_more = tokio::select! {
            () = self.wake.notified() => return false,
            bounds = self.asker.bounds(&self.of) => bounds.is_ok_and(|(_, high)| high > self.expected),
        };
        has_more && tokio::time::timeout(ON_ITS_WAY, self.wake.notified()).await.is_err()
    }

    /// Fetches from the expected offset again.
    fn again(&mut self) -> Result<(), ReadError> {
        self.unassign();
        self.assign().map_err(|error| ReadError::Unavailable(reason(&error)))
    }

    /// A hole is believed when a second fetch has it too: corruption on the way is dropped by the
    /// client as if the record were missing.
    fn gap(&mut self, found: u64) -> Result<(), ReadError> {
        if self.suspected_gap {
            self.link.failed("gap");
            // Asked again, it is looked at again.
            self.suspected_gap = false;
            self.again()?;
            return Err(ReadError::Gap {
                expected: self.expected,
                found,
            });
        }
        self.suspected_gap = true;
        self.again()
    }

    /// The client's word that it cannot go on here is checked with the log's bounds; everything else
    /// it heals by itself.
    async fn failed(&mut self, error: KafkaError) -> Result<(), ReadError> {
        let code = error.rdkafka_error_code();
        tracing::debug!(error = %reason(&error), offset = self.expected, "read");
        match code {
            Some(
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::LogTruncation
                | RDKafkaErrorCode::NoOffset,
            ) => {
                // Fetching has stopped: whatever comes of it, it must be started again.
                self.again()?;
                self.link.failed("position");
                let (low, high) = self.asker.bounds(&self.of).await?;
                if self.expected < low || self.expected > high {
                    return Err(ReadError::OutOfRange {
                        offset: self.expected,
                        low,
                        high,
                    });
                }
                // Not outside after all: a leader that did not know its end yet.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(())
            }
            Some(RDKafkaErrorCode::BadMessage) => self.again(),
            _ => {
                self.link.doubt("read");
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Reader for KafkaReader {
    async fn next(&mut self, wait: Duration) -> Result<Vec<Record>, ReadError> {
        let deadline = Instant::now() + wait;
        loop {
            if self.queue.is_none() {
                self.again()?;
            }
            let (taken, stop) = self.drain();
            let went_on = match stop {
                Stop::Empty | Stop::Full => true,
                // What was taken before the hole is given first; the hole is found again.
                Stop::Gap { found } => {
                    let outcome = self.gap(found);
                    if taken.is_empty() {
                        outcome?;
                    }
                    false
                }
                Stop::Failed(error) => {
                    if taken.is_empty() {
                        self.failed(error).await?;
                    } else {
                        self.again()?;
                    }
                    false
                }
            };
            if !taken.is_empty() {
                return Ok(taken);
            }
            if !went_on && Instant::now() < deadline {
                continue;
            }
            if tokio::time::timeout_at(deadline, self.wake.notified()).await.is_err() {
                // A client was once seen that had stopped fetching, without any error.
                if self.is_passed_over().await {
                    tracing::warn!(
                        topic = &*self.of.topic,
                        partition = self.of.partition,
                        offset = self.expected,
                        "nothing comes, though there is more: fetching anew"
                    );
                    self.link.wonder();
                    self.again()?;
                }
                return match self.link.reachable() {
                    true => Ok(Vec::new()),
                    false => Err(ReadError::Unavailable("Kafka does not answer".into())),
                };
            }
        }
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.unassign();
        if let Some(readers) = self.readers.upgrade() {
            readers.leave(&self.shared, &self.of);
        }
    }
}
