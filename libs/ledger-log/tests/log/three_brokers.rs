//! Three real brokers: one is killed under load and comes back, one after another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use ledger_log::{
    AppendError, Log, ReadError, TopicPartition,
    kafka::{KafkaLog, KafkaSettings},
};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};

use crate::{
    Brokers, TURN,
    contract::{partition, spec},
    eventually, telemetry,
};

const PARTITIONS: u32 = 2;
const TOPIC: &str = "killed.tx";

#[derive(Default)]
struct Told {
    acknowledged: BTreeMap<(u32, u64), Bytes>,
    unknown: BTreeSet<Bytes>,
    refused: BTreeSet<Bytes>,
    slowest: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "the test awaits each task")]
async fn brokers_die_under_load() {
    telemetry();
    let _turn = TURN.lock().await;
    let brokers = Brokers::start(3).await;
    let settings = KafkaSettings::new(brokers.kafka.bootstrap());
    let log = KafkaLog::open(&settings).unwrap();
    let mut topic = spec(TOPIC, PARTITIONS);
    topic.flush_every_record = true;
    log.ensure(&[topic.clone()], false).await.unwrap();
    log.ensure(&[topic.clone()], false).await.unwrap();
    topic.name = spec("other.tx", 1).name;
    log.ensure(&[topic], false).await.unwrap();
    check_weak_topics(&log, &brokers).await;

    let stop = Arc::new(AtomicBool::new(false));
    // Two orderers, each its own producer, on the same partitions.
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            // The second gives up before a dead broker is replaced: its appends end as unknown.
            let mut settings = settings.clone();
            settings.append_timeout_ms = [30_000, 1_500][writer];
            let log = KafkaLog::open(&settings).unwrap();
            tokio::spawn(write(log, writer, stop.clone()))
        })
        .collect();
    let readers: Vec<_> = (0..PARTITIONS)
        .map(|number| tokio::spawn(follow(log.clone(), partition(TOPIC, number), stop.clone())))
        .collect();
    for index in [0, 1, 2] {
        tokio::time::sleep(Duration::from_secs(2)).await;
        brokers.kafka.kill(index).unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        brokers.kafka.start_broker(index).await.unwrap();
        // All replicas in sync again, or the next kill would take the second of three.
        eventually("in sync", async || in_sync(&brokers)).await;
    }
    stop.store(true, Relaxed);
    let mut told = Told::default();
    for writer in writers {
        let one = writer.await.unwrap();
        told.acknowledged.extend(one.acknowledged);
        told.unknown.extend(one.unknown);
        told.refused.extend(one.refused);
        told.slowest = told.slowest.max(one.slowest);
    }
    let mut followed = Vec::new();
    for reader in readers {
        followed.push(reader.await.unwrap());
    }
    tracing::info!(
        acknowledged = told.acknowledged.len(),
        unknown = told.unknown.len(),
        refused = told.refused.len(),
        slowest_seconds = told.slowest.as_secs_f64(),
        "load with three kills"
    );
    check(&log, told, followed).await;
    drop(log);
    brokers.kafka.stop().await.unwrap();
}

/// A topic that somebody made otherwise is refused with the reason, unless allowed.
async fn check_weak_topics(log: &KafkaLog, brokers: &Brokers) {
    let admin: AdminClient<DefaultClientContext> = brokers.stranger().create().unwrap();
    let cases = [
        (2, "retention.ms", "-1", "replication factor is 2, must be 3 or more"),
        (
            3,
            "min.insync.replicas",
            "1",
            "min.insync.replicas is 1, must be 2 or more",
        ),
        (
            3,
            "unclean.leader.election.enable",
            "true",
            "unclean.leader.election.enable is true, must be false",
        ),
        (3, "retention.ms", "60000", "retention.ms is 60000, must be -1"),
        (
            3,
            "retention.bytes",
            "1000000",
            "retention.bytes is 1000000, must be -1",
        ),
        (
            3,
            "cleanup.policy",
            "compact",
            "cleanup.policy is compact, must be delete",
        ),
        (3, "flush.messages", "10", "flush.messages is 10, must be 1"),
        (
            3,
            "compression.type",
            "gzip",
            "compression.type is gzip, must be uncompressed",
        ),
    ];
    for (number, (replication, setting, value, expected)) in cases.into_iter().enumerate() {
        let name = format!("weak.{number}");
        let mut settings = BTreeMap::from([
            ("min.insync.replicas", "2"),
            ("retention.ms", "-1"),
            ("max.message.bytes", "10485760"),
            ("flush.messages", "1"),
            ("compression.type", "uncompressed"),
        ]);
        settings.insert(setting, value);
        let mut topic = NewTopic::new(&name, 1, TopicReplication::Fixed(replication));
        for (setting, value) in settings {
            topic = topic.set(setting, value);
        }
        admin.create_topics([&topic], &AdminOptions::new()).await.unwrap()[0]
            .as_ref()
            .unwrap();
        let mut spec = spec(&name, 1);
        spec.flush_every_record = true;
        let refused = log.ensure(std::slice::from_ref(&spec), false).await.unwrap_err();
        assert_eq!(refused.to_string(), format!("topic {name}: {expected}"));
        log.ensure(&[spec], true).await.unwrap();
    }
    let names: Vec<String> = (0..cases.len()).map(|number| format!("weak.{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    admin.delete_topics(&names, &AdminOptions::new()).await.unwrap();
}

/// All partitions of all topics have all three replicas in sync.
pub fn in_sync(brokers: &Brokers) -> bool {
    let client: BaseConsumer = brokers.stranger().create().unwrap();
    let Ok(metadata) = client.fetch_metadata(None, Duration::from_secs(2)) else {
        return false;
    };
    metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
        .all(|partition| partition.isr().len() == 3)
}

async fn write(log: KafkaLog, writer: usize, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    let mut waiting = futures::stream::FuturesUnordered::new();
    let mut number = 0u64;
    while !stop.load(Relaxed) {
        let partition_number = (number % u64::from(PARTITIONS)) as u32;
        let mut value = format!("{writer}/{number:08}/").into_bytes();
        value.resize(2_000, b'.');
        let value = Bytes::from(value);
        let append = log.append(&partition(TOPIC, partition_number), value.clone());
        let begin = Instant::now();
        waiting.push(async move { (partition_number, value, append.await, begin.elapsed()) });
        number += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
        while let Some(Some(end)) = futures::FutureExt::now_or_never(futures::StreamExt::next(&mut waiting)) {
            record(&mut told, end);
        }
    }
    while let Some(end) = futures::StreamExt::next(&mut waiting).await {
        record(&mut told, end);
    }
    told
}

fn record(told: &mut Told, end: (u32, Bytes, Result<u64, AppendError>, Duration)) {
    let (partition, value, outcome, took) = end;
    told.slowest = told.slowest.max(took);
    match outcome {
        Ok(offset) => assert!(told.acknowledged.insert((partition, offset), value).is_none()),
        Err(AppendError::Unknown(_)) => assert!(told.unknown.insert(value)),
        Err(AppendError::Unavailable(_)) => assert!(told.refused.insert(value)),
        Err(error) => panic!("{error}"),
    }
}

/// One reader through it all; it stops when the writers did and the log is silent.
async fn follow(log: KafkaLog, of: TopicPartition, stop: Arc<AtomicBool>) -> Vec<Bytes> {
    let mut reader = log.read(&of, 0).await.unwrap();
    let mut read = Vec::new();
    loop {
        let stopped = stop.load(Relaxed);
        match reader.next(Duration::from_secs(3)).await {
            Ok(records) if records.is_empty() && stopped => return read,
            Ok(records) => {
                for record in records {
                    assert_eq!(record.offset, read.len() as u64);
                    read.push(record.value);
                }
            }
            Err(ReadError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn check(log: &KafkaLog, told: Told, followed: Vec<Vec<Bytes>>) {
    assert!(told.acknowledged.len() > 1_000);
    assert!(!told.unknown.is_empty(), "the impatient writer is left in doubt");
    for (number, read) in (0..PARTITIONS).zip(&followed) {
        let (low, high) = log.bounds(&partition(TOPIC, number)).await.unwrap();
        assert_eq!((low, high), (0, read.len() as u64), "the reader saw it all");
        let distinct: BTreeSet<&Bytes> = read.iter().collect();
        assert_eq!(distinct.len(), read.len(), "nothing twice");
        for writer in [b'0', b'1'] {
            let mine: Vec<&Bytes> = read.iter().filter(|value| value[0] == writer).collect();
            assert!(mine.is_sorted(), "a writer's records are in the order of its calls");
        }
        for (offset, value) in read.iter().enumerate() {
            match told.acknowledged.get(&(number, offset as u64)) {
                Some(acknowledged) => assert_eq!(acknowledged, value, "an acknowledged record is at its offset"),
                None => assert!(
                    told.unknown.contains(value),
                    "what is there was acknowledged or in doubt"
                ),
            }
            assert!(!told.refused.contains(value), "what was never sent is not there");
        }
    }
    for (partition, offset) in told.acknowledged.keys() {
        assert!(
            (*offset as usize) < followed[*partition as usize].len(),
            "acknowledged and lost"
        );
    }
}
