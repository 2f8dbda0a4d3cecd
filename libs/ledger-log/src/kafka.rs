//! The log on Apache Kafka.
//!
//! ```text
//!  append ──► append::Appender ── one idempotent producer, made anew after a fatal error
//!  read   ──► read::Readers    ── few consumers, each shared by many readers (a queue per partition)
//!  ensure ──► topics           ── create, or compare with what is there
//!  bounds ──► ask::Asker       ── questions, on a client of their own
//!                link::Link    ── does the cluster answer? In doubt every client is reminded of the brokers,
//!                                 and readers' clients are told of new leaders
//! ```
//!
//! Promises beyond the trait's: it goes on by itself after the cluster was away; what waits to be sent
//! is bounded in bytes; no property given by the operator can weaken what the ledger relies on.
//! No consumer groups, no committed offsets, no Kafka transactions.
//!
//! What it cannot promise: whoever may write to a topic *with Kafka transactions* puts markers into
//! it, which take offsets and are never delivered: a reader sees a gap. Give nobody the right on
//! transactional ids; orderers need `Write` on topics (before Kafka 3.0 `IdempotentWrite` besides), peers
//! `Read`, and both `Describe`.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use protocol::limits::CONTROL_RECORD_BYTES_MAX;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
};
use serde::Deserialize;

use crate::{AppendError, Log, ReadError, Reader, TopicError, TopicPartition, TopicSpec};

mod append;
mod ask;
mod leaders;
mod link;
mod properties;
mod read;
mod remind;
mod topics;

use append::Appender;
use ask::Asker;
use link::Link;
use properties::{client_config, open_error};
use read::Readers;
use remind::Brokers;

/// Records that fit one Kafka batch; several small ones share it, a bigger one has its own.
pub(crate) const BATCH_BYTES: usize = 1_000_000;
/// What Kafka's batch adds to a single record: 61 bytes of header, and lengths and varints.
pub(crate) const BATCH_OVERHEAD_BYTES: usize = 512;

/// Where the cluster is and how to speak to it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port` of some brokers; the others are found.
    pub brokers: Vec<String>,
    /// Any librdkafka property, for example `security.protocol`, `ssl.ca.location`,
    /// `sasl.mechanism`. Properties that the ledger relies on are refused.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// More of them, over those: lines `name=value`, for passwords. Read once, at the start.
    #[serde(default)]
    pub properties_file: Option<PathBuf>,
    /// Appended and not yet acknowledged, over all partitions; past it appends end with `Unavailable`
    /// at once.
    #[serde(default = "default_append_queue_bytes_max")]
    pub append_queue_bytes_max: usize,
    /// An append without acknowledgement ends as `Unknown` after this; the record goes on being tried.
    /// Longer than a broker's failover (9 s by Kafka's defaults).
    #[serde(default = "default_append_timeout_ms")]
    pub append_timeout_ms: u64,
    /// Largest record of any topic; `TopicSpec::record_bytes_max` is the topic's own limit.
    #[serde(default = "default_record_bytes_max")]
    pub record_bytes_max: usize,
    /// Fetched ahead of one reader.
    #[serde(default = "default_read_queue_bytes_max")]
    pub read_queue_bytes_max: usize,
}

fn default_append_queue_bytes_max() -> usize {
    64 << 20
}
fn default_append_timeout_ms() -> u64 {
    30_000
}
fn default_record_bytes_max() -> usize {
    10 << 20
}
fn default_read_queue_bytes_max() -> usize {
    8 << 20
}

impl KafkaSettings {
    pub fn new<B: Into<String>>(brokers: impl IntoIterator<Item = B>) -> Self {
        KafkaSettings {
            brokers: brokers.into_iter().map(Into::into).collect(),
            properties: BTreeMap::new(),
            properties_file: None,
            append_queue_bytes_max: default_append_queue_bytes_max(),
            append_timeout_ms: default_append_timeout_ms(),
            record_bytes_max: default_record_bytes_max(),
            read_queue_bytes_max: default_read_queue_bytes_max(),
        }
    }

    /// The first setting that no ledger can live with, and the rule that it breaks.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let at_least = |field, value: u64, least: u64| match value < least {
            true => Err((field, format!("at least {least}, not {value}"))),
            false => Ok(()),
        };
        let record = CONTROL_RECORD_BYTES_MAX as u64;
        if self.brokers.is_empty() {
            return Err(("kafka.brokers", "must name at least one".to_owned()));
        }
        at_least("kafka.record_bytes_max", self.record_bytes_max as u64, record)?;
        at_least(
            "kafka.append_queue_bytes_max",
            self.append_queue_bytes_max as u64,
            record,
        )?;
        at_least("kafka.read_queue_bytes_max", self.read_queue_bytes_max as u64, 1 << 20)?;
        at_least("kafka.append_timeout_ms", self.append_timeout_ms, 1_000)
    }
}

/// Properties hold passwords: their names are shown, their values never.
impl std::fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("properties", &self.properties.keys())
            .field("properties_file", &self.properties_file)
            .field("append_queue_bytes_max", &self.append_queue_bytes_max)
            .field("append_timeout_ms", &self.append_timeout_ms)
            .field("record_bytes_max", &self.record_bytes_max)
            .field("read_queue_bytes_max", &self.read_queue_bytes_max)
            .finish()
    }
}

/// Why the log could not be opened. Kafka being away is not among the reasons.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no Kafka brokers are named")]
    NoBrokers,
    #[error("the Kafka property {0} is fixed by the ledger")]
    FixedProperty(String),
    #[error("the Kafka property {name} is refused: {reason}")]
    BadProperty { name: String, reason: String },
    #[error("kafka.properties_file {file}: {reason}")]
    PropertiesFile { file: String, reason: String },
    #[error("Kafka client: {0}")]
    Client(String),
}

/// What an error says, in Kafka's own words, without the wrapping.
fn reason(error: &KafkaError) -> String {
    error
        .rdkafka_error_code()
        .map_or_else(|| error.to_string(), |code: RDKafkaErrorCode| code.to_string())
}

/// The log on Kafka. One per process; clones are cheap and the same log.
#[derive(Clone)]
pub struct KafkaLog {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    clients: Arc<Clients>,
    link: Arc<Link>,
    probe: tokio::task::JoinHandle<()>,
}

/// Everything of this log that speaks to Kafka.
struct Clients {
    appender: Appender,
    readers: Arc<Readers>,
    asker: Arc<Asker>,
    brokers: Brokers,
}

impl Clients {
    fn remind(&self) {
        self.appender.remind(&self.brokers);
        self.readers.remind(&self.brokers);
        self.asker.remind(&self.brokers);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.probe.abort();
    }
}

impl KafkaLog {
    /// Opens without waiting for Kafka. Must be called inside a tokio runtime. The last clone's end gives up
    /// appends without acknowledgement.
    pub fn open(settings: &KafkaSettings) -> Result<KafkaLog, OpenError> {
        let config = client_config(settings)?;
        let link = Arc::new(Link::new());
        let clients = Arc::new(Clients {
            appender: Appender::new(&config, settings, link.clone())?,
            readers: Arc::new(Readers::new(&config, settings, link.clone())),
            asker: Arc::new(Asker::new(&config, link.clone()).map_err(open_error)?),
            brokers: Brokers::new(settings),
        });
        #[expect(clippy::disallowed_methods, reason = "Inner owns it and ends it")]
        let probe = tokio::spawn(link::probe(link.clone(), Arc::downgrade(&clients)));
        Ok(KafkaLog {
            inner: Arc::new(Inner {
                config,
                clients,
                link,
                probe,
            }),
        })
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn ensure(&self, topics: &[TopicSpec], allow_unsafe: bool) -> Result<(), TopicError> {
        topics::ensure(&self.inner.config, topics, allow_unsafe, &self.inner.link).await?;
        for topic in topics {
            self.inner
                .clients
                .appender
                .limit(topic.name.clone(), topic.record_bytes_max);
        }
        Ok(())
    }

    fn append(&self, to: &TopicPartition, value: Bytes) -> BoxFuture<'static, Result<u64, AppendError>> {
        self.inner.clients.appender.append(to, value)
    }

    async fn bounds(&self, of: &TopicPartition) -> Result<(u64, u64), ReadError> {
        self.inner.clients.asker.bounds(of).await
    }

    async fn read(&self, of: &TopicPartition, from: u64) -> Result<Box<dyn Reader>, ReadError> {
        // A new leader may need a moment to know its end: what looks like a lost tail is asked again.
        let mut patience = [Duration::from_millis(200), Duration::from_millis(800)].into_iter();
        let (low, high) = loop {
            let (low, high) = self.inner.clients.asker.bounds(of).await?;
            if from <= high {
                break (low, high);
            }
            match patience.next() {
                Some(pause) => tokio::time::sleep(pause).await,
                None => break (low, high),
            }
        };
        if from < low || from > high {
            return Err(ReadError::OutOfRange {
                offset: from,
                low,
                high,
            });
        }
        let Clients { readers, asker, .. } = &*self.inner.clients;
        let reader = readers.open(of, from, asker.clone())?;
        Ok(Box::new(reader))
    }

    fn reachable(&self) -> bool {
        self.inner.link.reachable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_strict_and_keep_secrets() {
        let settings: KafkaSettings =
            toml::from_str("brokers = ['a:1', 'b:2']\n[properties]\n'sasl.password' = 's3cret'").unwrap();
        assert_eq!(settings.append_timeout_ms, 30_000);
        let shown = format!("{settings:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("s3cret"));
        assert!(toml::from_str::<KafkaSettings>("brokers = []\nbroker = 1").is_err());
    }

    #[tokio::test]
    async fn an_impatient_caller_is_told_in_its_own_time() {
        let mut settings = KafkaSettings::new(["127.0.0.1:9"]);
        settings.append_timeout_ms = 1_000;
        let log = KafkaLog::open(&settings).unwrap();
        let to = TopicPartition {
            topic: "t".into(),
            partition: 0,
        };
        let began = std::time::Instant::now();
        let ended = log.append(&to, Bytes::from_static(b"one")).await;
        assert!(matches!(ended, Err(AppendError::Unknown(_))), "{ended:?}");
        assert!(began.elapsed() < append::OVERDUE, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_producer_that_gave_up_is_replaced() {
        // librdkafka's own stand-in for a cluster; real brokers are in the integration tests.
        let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let settings = KafkaSettings::new([cluster.bootstrap_servers()]);
        let log = KafkaLog::open(&settings).unwrap();
        let to = TopicPartition {
            topic: "t".into(),
            partition: 0,
        };
        assert_eq!(log.append(&to, Bytes::from_static(b"one")).await.unwrap(), 0);
        log.inner.clients.appender.fail_for_test();
        assert_eq!(log.append(&to, Bytes::from_static(b"two")).await.unwrap(), 1);
        log.inner.clients.appender.fail_for_test();
        assert_eq!(log.append(&to, Bytes::from_static(b"three")).await.unwrap(), 2);
    }
}
