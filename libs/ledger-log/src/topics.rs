//! A channel's topics: their names, which records are where, and what they must be.

use std::sync::Arc;

use protocol::{
    CONTROL,
    genesis::Channel,
    limits::{CONTROL_RECORD_BYTES_MAX, KAFKA_RECORD_BYTES_MAX},
};

use crate::{TopicPartition, TopicSpec};

#[derive(Clone, Debug)]
pub struct Topics {
    control: Arc<str>,
    tx: Arc<str>,
    attest: Arc<str>,
}

impl Topics {
    pub fn of_channel(channel: &Channel) -> Self {
        let name = |kind: &str| Arc::from(format!("medledger.{}.{kind}", channel.name()));
        Topics {
            control: name("control"),
            tx: name("tx"),
            attest: name("attest"),
        }
    }

    /// Where the records of a data partition, or of [`CONTROL`], are.
    pub fn of(&self, partition: u32) -> TopicPartition {
        let (topic, partition) = match partition {
            CONTROL => (&self.control, 0),
            data => (&self.tx, data),
        };
        TopicPartition {
            topic: topic.clone(),
            partition,
        }
    }

    pub fn attest(&self) -> TopicPartition {
        TopicPartition {
            topic: self.attest.clone(),
            partition: 0,
        }
    }

    /// Replication and retention are the log's to demand: they are the same for every topic.
    pub fn specs(&self, channel: &Channel, flush_every_record: bool) -> [TopicSpec; 3] {
        let spec = |name: &Arc<str>, partitions, record_bytes_max| TopicSpec {
            name: name.clone(),
            partitions,
            record_bytes_max,
            flush_every_record,
        };
        [
            spec(&self.control, 1, CONTROL_RECORD_BYTES_MAX),
            spec(&self.tx, channel.partitions(), KAFKA_RECORD_BYTES_MAX),
            spec(&self.attest, 1, KAFKA_RECORD_BYTES_MAX),
        ]
    }
}
