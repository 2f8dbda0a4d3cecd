//! The log's contract over memory and over real Kafka, and what only real brokers can show.

mod contract;
mod forgotten;
mod one_broker;
mod secured;
mod three_brokers;

use std::time::Duration;

use ledger_log::local::{LocalKafka, LocalKafkaSettings};
use rdkafka::ClientConfig;

/// Brokers of one test at a time: two cores are enough for either.
pub static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A cluster in a directory that goes with it, however the test ends.
pub struct Brokers {
    pub kafka: LocalKafka,
    _directory: tempfile::TempDir,
}

impl Brokers {
    pub async fn start(brokers: usize) -> Brokers {
        let directory = tempfile::tempdir().unwrap();
        let settings = LocalKafkaSettings {
            directory: directory.path().join("kafka"),
            brokers,
            port: None,
        };
        let begin = std::time::Instant::now();
        let kafka = LocalKafka::start(settings).await.unwrap();
        tracing::info!(brokers, seconds = begin.elapsed().as_secs_f64(), "Kafka started");
        Brokers {
            kafka,
            _directory: directory,
        }
    }

    /// A client that is none of ours.
    pub fn stranger(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.bootstrap().join(","));
        config
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        for index in 0..self.kafka.pids().len() {
            let _ = self.kafka.kill(index);
        }
    }
}

pub fn telemetry() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
}

/// Waits for something to become true, with a deadline.
pub async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !check().await {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
