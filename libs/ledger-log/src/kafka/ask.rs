//! Questions to the cluster: bounds of a partition, who leads, and whether it answers at all.
//!
//! A client of their own: a broker serves one request of a connection at a time, and on a producer's
//! connection a question would wait behind appends that wait for a dead replica.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::time::Instant;

use super::{
    leaders::Leaders,
    link::{Context, Link},
    reason,
    remind::Brokers,
};
use crate::{ReadError, TopicPartition};

/// Metadata and watermarks come within this, or the log counts as away.
pub(crate) const QUERY_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) struct Asker {
    client: Arc<BaseConsumer<Context>>,
    link: Arc<Link>,
}

impl Asker {
    pub fn new(config: &ClientConfig, link: Arc<Link>) -> Result<Asker, KafkaError> {
        let mut config = config.clone();
        // A broker that died without a word is given up as soon as a question to it is.
        config.set("socket.timeout.ms", QUERY_TIMEOUT.as_millis().to_string());
        let client: BaseConsumer<Context> = config.create_with_context(Context { link: link.clone() })?;
        Ok(Asker {
            client: Arc::new(client),
            link,
        })
    }

    /// First offset and the one after the last. A new topic or leader gets a moment to be known.
    pub async fn bounds(&self, of: &TopicPartition) -> Result<(u64, u64), ReadError> {
        let deadline = Instant::now() + QUERY_TIMEOUT;
        loop {
            let asked = of.clone();
            let found = self
                .query(move |client| client.fetch_watermarks(&asked.topic, asked.partition as i32, QUERY_TIMEOUT))
                .await;
            let error = match found {
                Ok((low, high)) if low >= 0 && high >= low => {
                    self.link.answered();
                    return Ok((low as u64, high as u64));
                }
                Ok(_) => KafkaError::MetadataFetch(RDKafkaErrorCode::OffsetNotAvailable),
                Err(error) => error,
            };
            if !settling(&error) || Instant::now() >= deadline {
                self.link.doubt("bounds");
                return Err(ReadError::Unavailable(reason(&error)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Does the cluster answer at all, and who leads there?
    pub async fn ask(&self) -> Result<Leaders, KafkaError> {
        self.query(|client| {
            client
                .fetch_metadata(None, QUERY_TIMEOUT)
                .map(|told| Leaders::of(&told))
        })
        .await
    }

    /// The client's own errors and logs, which somebody must take.
    pub fn listen(&self) {
        while self.client.poll(Duration::ZERO).is_some() {}
    }

    pub fn remind(&self, brokers: &Brokers) {
        brokers.remind(self.client.client());
    }

    /// librdkafka's questions block: they have a thread of their own, and a deadline inside.
    async fn query<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer<Context>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let client = self.client.clone();
        tokio::task::spawn_blocking(move || question(&client))
            .await
            .unwrap_or(Err(KafkaError::Canceled))
    }
}

/// What brokers say while a topic or a leader is new.
fn settling(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::*;
    matches!(
        error.rdkafka_error_code(),
        Some(
            NotLeaderForPartition
                | LeaderNotAvailable
                | OffsetNotAvailable
                | UnknownTopicOrPartition
                | UnknownPartition
                | UnknownTopic
                | FencedLeaderEpoch
                | UnknownLeaderEpoch
        )
    )
}

impl Drop for Asker {
    fn drop(&mut self) {
        // A client's end waits for its threads.
        let client = self.client.clone();
        std::thread::spawn(move || drop(client));
    }
}
