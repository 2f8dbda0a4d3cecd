//! The ordered log: append a record, read from a position.
//!
//! One trait, two logs: Kafka ([`kafka`]) for everything real, and a seeded faulty one in memory
//! ([`memory`]) for simulation. [`local`] runs real brokers on this machine. What both logs promise:
//!
//! * an acknowledged record is at its offset for ever, and offsets of a partition have no holes;
//! * a reader yields `offset == previous + 1` or stops with [`ReadError::Gap`];
//! * an append that failed with [`AppendError::Unknown`] may be in the log, once.
//!
//! Nothing here knows what a record means.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;

pub mod kafka;
pub mod local;
pub mod memory;
pub mod metrics;
pub mod topics;

/// What the log is called in every process's health.
pub const NAME: &str = "kafka";

/// One ordered sequence of records.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: u32,
}

/// What a topic must be before anyone relies on it; made so when absent, checked when present.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    pub name: Arc<str>,
    pub partitions: u32,
    pub record_bytes_max: usize,
    /// Flush to disk before every acknowledgement: survives a power cut of all brokers.
    pub flush_every_record: bool,
}

/// `value` is the Kafka value as stored; a null value is empty.
#[derive(Clone, Debug)]
pub struct Record {
    pub offset: u64,
    pub value: Bytes,
    /// When its writer handed it to the log, milliseconds since 1970 on the writer's clock: for metrics, never for
    /// decisions.
    pub appended_unix_ms: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("record of {bytes} bytes is over the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// Nothing was sent; the same record may be appended again.
    #[error("the log cannot be reached: {0}")]
    Unavailable(String),
    /// It may be in the log, or come into it later.
    #[error("no acknowledgement, the outcome is unknown: {0}")]
    Unknown(String),
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log holds another offset than the one after the last read: it lost or dropped records.
    #[error("expected offset {expected}, the log has {found}")]
    Gap { expected: u64, found: u64 },
    /// Positions before the log's start or after its end.
    #[error("offset {offset} is outside the log's {low}..{high}")]
    OutOfRange { offset: u64, low: u64, high: u64 },
    /// Passing: the reader goes on by itself, callers wait and ask again.
    #[error("the log cannot be reached: {0}")]
    Unavailable(String),
}

#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    #[error("topic {topic}: {setting} is {found}, must be {required}")]
    Unsafe {
        topic: String,
        setting: String,
        found: String,
        required: String,
    },
    #[error("the log cannot be reached: {0}")]
    Unavailable(String),
}

#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Creates absent topics and checks present ones. `allow_unsafe` turns weaker replication into
    /// a warning (the one-broker demo); a wrong number of partitions is always an error.
    async fn ensure(&self, topics: &[TopicSpec], allow_unsafe: bool) -> Result<(), TopicError>;

    /// Enqueues at once, in the order of the calls, and never blocks; the future ends with the offset
    /// when all in-sync replicas have acknowledged. Records of one partition are stored in the
    /// order of the calls, as far as they are stored. Dropping the future does not take it back.
    fn append(&self, to: &TopicPartition, value: Bytes) -> BoxFuture<'static, Result<u64, AppendError>>;

    /// First offset and the offset after the last.
    async fn bounds(&self, of: &TopicPartition) -> Result<(u64, u64), ReadError>;

    /// A reader whose next record is the one at `from`.
    async fn read(&self, of: &TopicPartition, from: u64) -> Result<Box<dyn Reader>, ReadError>;

    /// Whether the log answered lately: for health and metrics, never for decisions.
    fn reachable(&self) -> bool;
}

#[async_trait]
pub trait Reader: Send {
    /// The next records in order, at least one unless `wait` passes first (then none).
    async fn next(&mut self, wait: Duration) -> Result<Vec<Record>, ReadError>;
}
