//! Clients that know fewer brokers than there are: what a broker does not list, librdkafka forgets.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ledger_log::{
    Log, Reader, TopicPartition,
    kafka::{KafkaLog, KafkaSettings},
};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::{
    Brokers, TURN,
    contract::{partition, spec},
    eventually, telemetry,
    three_brokers::in_sync,
};

const TOPIC: &str = "forgotten.tx";
/// A local broker's session of 4 s, an election, and a client that looks for the new leader.
const FAILOVER: Duration = Duration::from_secs(12);

/// One record after the other, from an append to a reader.
struct Line {
    log: KafkaLog,
    to: TopicPartition,
    reader: Box<dyn Reader>,
    number: u64,
}

impl Line {
    async fn of(brokers: &Brokers, properties: &[(&str, &str)]) -> Line {
        let mut settings = KafkaSettings::new(brokers.kafka.bootstrap());
        for (name, value) in properties {
            settings.properties.insert((*name).into(), (*value).into());
        }
        let log = KafkaLog::open(&settings).unwrap();
        log.ensure(&[spec(TOPIC, 1)], false).await.unwrap();
        let to = partition(TOPIC, 0);
        let reader = log.read(&to, 0).await.unwrap();
        Line {
            log,
            to,
            reader,
            number: 0,
        }
    }

    /// A record goes in and comes out, within that time.
    async fn passes(&mut self, within: Duration) {
        let begin = Instant::now();
        let value = Bytes::from(format!("{:08}", self.number));
        self.number += 1;
        let ended = tokio::time::timeout(within, self.log.append(&self.to, value.clone())).await;
        assert!(matches!(ended, Ok(Ok(_))), "not acknowledged: {ended:?}");
        let acknowledged = begin.elapsed();
        loop {
            let came = self.reader.next(Duration::from_millis(200)).await.unwrap_or_default();
            if came.iter().any(|record| record.value == value) {
                break;
            }
            assert!(
                begin.elapsed() < within,
                "acknowledged after {acknowledged:?}, not read"
            );
        }
        tracing::info!(?acknowledged, read = ?begin.elapsed(), "a record");
    }
}

/// The leader of the only partition.
fn leader(brokers: &Brokers) -> usize {
    let client: BaseConsumer = brokers.stranger().create().unwrap();
    let metadata = client.fetch_metadata(Some(TOPIC), Duration::from_secs(10)).unwrap();
    metadata.topics()[0].partitions()[0].leader() as usize - 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_broker_that_clients_know_dies() {
    telemetry();
    let _turn = TURN.lock().await;
    let brokers = Brokers::start(3).await;
    let mut line = Line::of(&brokers, &[]).await;
    line.passes(FAILOVER).await;
    let last = leader(&brokers);
    let others: Vec<usize> = (0..3).filter(|index| *index != last).collect();
    for index in &others {
        brokers.kafka.ask_to_end(*index).unwrap();
        eventually("an end", async || brokers.kafka.pids()[*index].is_none()).await;
    }
    // It lists itself only, and whoever wants to write now asks who there is.
    let waits = line.log.append(&line.to, Bytes::from_static(b"waits"));
    tokio::time::sleep(FAILOVER).await;
    for index in &others {
        brokers.kafka.start_broker(*index).await.unwrap();
    }
    eventually("in sync", async || in_sync(&brokers)).await;
    waits.await.unwrap();
    line.passes(FAILOVER).await;
    brokers.kafka.kill(leader(&brokers)).unwrap();
    line.passes(FAILOVER).await;
    brokers.kafka.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_brokers_begin_again_at_once() {
    telemetry();
    let _turn = TURN.lock().await;
    let brokers = Brokers::start(3).await;
    // Clients that ask much are told everything, also by brokers that do not know any other yet, nor themselves.
    let mut line = Line::of(&brokers, &[("topic.metadata.refresh.interval.ms", "100")]).await;
    for _ in 0..3 {
        line.passes(FAILOVER).await;
        for index in 0..3 {
            brokers.kafka.kill(index).unwrap();
        }
        let starting = (0..3).map(|index| brokers.kafka.start_broker(index));
        for started in futures::future::join_all(starting).await {
            started.unwrap();
        }
        eventually("in sync", async || in_sync(&brokers)).await;
        line.passes(FAILOVER).await;
    }
    brokers.kafka.stop().await.unwrap();
}
