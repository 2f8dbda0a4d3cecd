//! One real broker: the contract, strange records, weak topics, Kafka away and back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ledger_log::{
    AppendError, Log, ReadError,
    kafka::{KafkaLog, KafkaSettings},
    local::LocalKafka,
};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{FutureProducer, FutureRecord},
};

use crate::{
    Brokers, TURN,
    contract::{check_log, partition, spec, take},
    eventually, telemetry,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_broker() {
    telemetry();
    let _turn = TURN.lock().await;
    let brokers = Brokers::start(1).await;
    let log = KafkaLog::open(&KafkaSettings::new(brokers.kafka.bootstrap())).unwrap();
    check_log(&log).await;
    check_strangers(&log, &brokers).await;
    check_weak_topics(&log, &brokers).await;
    check_deleted_head(&log, &brokers).await;
    check_away_and_back(&log, &brokers).await;
    check_metrics();
    drop(log);
    // Whoever knows the directory finds the brokers again, and may stop them.
    let found = LocalKafka::open(brokers.kafka.directory()).unwrap();
    assert_eq!(
        (found.pids(), found.bootstrap()),
        (brokers.kafka.pids(), brokers.kafka.bootstrap())
    );
    brokers.kafka.stop().await.unwrap();
    assert_eq!((brokers.kafka.pids(), found.pids()), (vec![None], vec![None]));
}

/// Whoever may write can write anything: null values, keys, compressed batches. All are records.
async fn check_strangers(log: &KafkaLog, brokers: &Brokers) {
    let to = partition("strange.tx", 0);
    log.ensure(&[spec("strange.tx", 1)], true).await.unwrap();
    let producer: FutureProducer = brokers.stranger().set("compression.type", "gzip").create().unwrap();
    let null: FutureRecord<'_, str, [u8]> = FutureRecord::to("strange.tx").key("key").partition(0);
    producer.send(null, Duration::from_secs(5)).await.unwrap();
    let garbage = vec![0xff; 50_000];
    let record: FutureRecord<'_, str, [u8]> = FutureRecord::to("strange.tx").payload(&garbage[..]).partition(0);
    producer.send(record, Duration::from_secs(5)).await.unwrap();
    assert_eq!(log.append(&to, Bytes::from_static(b"ours")).await.unwrap(), 2);
    let read = take(&mut log.read(&to, 0).await.unwrap(), 3).await;
    assert!(read[0].value.is_empty());
    assert_eq!(read[1].value, garbage);
    assert_eq!(read[2].value, b"ours"[..]);
}

/// One broker is refused, unless allowed; what cannot work at all is refused in any case.
async fn check_weak_topics(log: &KafkaLog, brokers: &Brokers) {
    let absent = log.ensure(&[spec("absent.tx", 1)], false).await.unwrap_err();
    assert!(
        absent.to_string().contains("at most 1, the number of brokers"),
        "{absent}"
    );
    let admin: AdminClient<DefaultClientContext> = brokers.stranger().create().unwrap();
    let small = NewTopic::new("small.tx", 1, TopicReplication::Fixed(1)).set("max.message.bytes", "1000");
    admin.create_topics([&small], &AdminOptions::new()).await.unwrap()[0]
        .as_ref()
        .unwrap();
    let refused = log.ensure(&[spec("small.tx", 1)], true).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("max.message.bytes is 1000, must be 1049088 or more"),
        "{refused}"
    );
}

/// What was deleted at the log's start is out of range, and says where the log begins.
async fn check_deleted_head(log: &KafkaLog, brokers: &Brokers) {
    let of = partition("deleted.tx", 0);
    log.ensure(&[spec("deleted.tx", 1)], true).await.unwrap();
    for _ in 0..10 {
        log.append(&of, Bytes::from_static(b"x")).await.unwrap();
    }
    let mut early = log.read(&of, 0).await.unwrap();
    assert_eq!(take(&mut early, 10).await.len(), 10);
    let admin: AdminClient<DefaultClientContext> = brokers.stranger().create().unwrap();
    let mut until = rdkafka::TopicPartitionList::new();
    until
        .add_partition_offset("deleted.tx", 0, rdkafka::Offset::Offset(4))
        .unwrap();
    admin.delete_records(&until, &AdminOptions::new()).await.unwrap();
    let refused = log.read(&of, 0).await.err().unwrap();
    assert!(
        matches!(
            refused,
            ReadError::OutOfRange {
                offset: 0,
                low: 4,
                high: 10
            }
        ),
        "{refused}"
    );
    assert_eq!(take(&mut log.read(&of, 4).await.unwrap(), 6).await.len(), 6);
}

/// Kafka is killed: health says so, nothing ends. It returns: the same log, the same reader go on.
async fn check_away_and_back(log: &KafkaLog, brokers: &Brokers) {
    let of = partition("away.tx", 0);
    log.ensure(&[spec("away.tx", 1)], true).await.unwrap();
    let mut reader = log.read(&of, 0).await.unwrap();
    log.append(&of, Bytes::from_static(b"before")).await.unwrap();
    assert_eq!(take(&mut reader, 1).await.len(), 1);
    brokers.kafka.kill(0).unwrap();
    let killed = Instant::now();
    let during = log.append(&of, Bytes::from_static(b"during"));
    eventually("unreachable", async || !log.reachable()).await;
    tracing::info!(seconds = killed.elapsed().as_secs_f64(), "noticed that Kafka is away");
    let away = reader.next(Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(away, ReadError::Unavailable(_)), "{away}");
    assert!(matches!(log.bounds(&of).await, Err(ReadError::Unavailable(_))));
    assert!(matches!(log.read(&of, 0).await, Err(ReadError::Unavailable(_))));
    brokers.kafka.start_broker(0).await.unwrap();
    let back = Instant::now();
    let offset = during.await.unwrap();
    assert_eq!(offset, 1, "the append waited for Kafka's return");
    assert_eq!(take(&mut reader, 1).await[0].value, b"during"[..]);
    tracing::info!(seconds = back.elapsed().as_secs_f64(), "went on after Kafka's return");
    eventually("reachable", async || log.reachable()).await;
    // A short deadline: the caller is told in time, the record comes later, once.
    brokers.kafka.kill(0).unwrap();
    let mut settings = KafkaSettings::new(brokers.kafka.bootstrap());
    settings.append_timeout_ms = 1_000;
    let hasty = KafkaLog::open(&settings).unwrap();
    let unknown = hasty.append(&of, Bytes::from_static(b"later")).await.unwrap_err();
    assert!(matches!(unknown, AppendError::Unknown(_)), "{unknown}");
    settings.append_queue_bytes_max = 100 << 10;
    let small = KafkaLog::open(&settings).unwrap();
    let waiting: Vec<_> = (0..10)
        .map(|_| small.append(&of, Bytes::from(vec![0; 50 << 10])))
        .collect();
    let begin = Instant::now();
    let refused = small.append(&of, Bytes::from(vec![0; 50 << 10])).await.unwrap_err();
    assert!(matches!(refused, AppendError::Unavailable(_)), "{refused}");
    assert!(
        begin.elapsed() < Duration::from_millis(100),
        "a full queue refuses at once"
    );
    drop((waiting, small)); // what a closed log had not sent never comes
    brokers.kafka.start_broker(0).await.unwrap();
    assert_eq!(take(&mut reader, 1).await[0].value, b"later"[..]);
    assert_eq!(log.append(&of, Bytes::from_static(b"after")).await.unwrap(), 3);
    assert_eq!(take(&mut reader, 1).await[0].value, b"after"[..]);
}

/// Every declared metric has moved by now.
fn check_metrics() {
    let shown = metric::text();
    for declared in ledger_log::metrics::DECLARED {
        let name = declared.about().name;
        let of = |line: &&str| line.starts_with(name) && !line.contains("_bucket{");
        let moved = shown
            .lines()
            .filter(of)
            .filter_map(|line| line.rsplit_once(' '))
            .any(|(_, value)| value != "0");
        // Nothing is under way any more.
        assert!(
            moved || name == "medledger_log_append_in_flight_bytes",
            "{name} never moved"
        );
    }
}
