//! What every log promises, checked on whichever it is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ledger_log::{
    AppendError, Log, ReadError, Reader, Record, TopicError, TopicPartition, TopicSpec,
    memory::{Faults, MemoryLog},
};

const RECORD_BYTES_MAX: usize = 1 << 20;
const SOON: Duration = Duration::from_secs(20);

pub fn spec(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec {
        name: name.into(),
        partitions,
        record_bytes_max: RECORD_BYTES_MAX,
        flush_every_record: false,
    }
}

pub fn partition(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition {
        topic: topic.into(),
        partition,
    }
}

pub async fn take(reader: &mut Box<dyn Reader>, count: usize) -> Vec<Record> {
    let begin = Instant::now();
    let mut taken = Vec::new();
    while taken.len() < count {
        assert!(begin.elapsed() < SOON, "{} of {count} records", taken.len());
        match reader.next(Duration::from_secs(1)).await {
            Ok(records) => taken.extend(records),
            Err(ReadError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    taken
}

/// The whole contract, on a topic of its own.
pub async fn check_log(log: &dyn Log) {
    let topic = "contract.tx";
    log.ensure(&[spec(topic, 2)], true).await.unwrap();
    log.ensure(&[spec(topic, 2)], true).await.unwrap();
    let wrong = log.ensure(&[spec(topic, 3)], true).await.unwrap_err();
    assert!(
        matches!(&wrong, TopicError::Unsafe { setting, found, required, .. }
            if setting == "partitions" && found == "2" && required == "3"),
        "{wrong}"
    );
    check_empty(log, &partition(topic, 1)).await;
    check_order(log, &partition(topic, 0)).await;
    check_readers(log, &partition(topic, 0)).await;
    check_waiting(log, &partition(topic, 1)).await;
    assert!(log.reachable());
}

async fn check_empty(log: &dyn Log, empty: &TopicPartition) {
    assert_eq!(log.bounds(empty).await.unwrap(), (0, 0));
    let mut reader = log.read(empty, 0).await.unwrap();
    assert!(reader.next(Duration::from_millis(50)).await.unwrap().is_empty());
    let beyond = log.read(empty, 1).await.err().unwrap();
    assert!(
        matches!(
            beyond,
            ReadError::OutOfRange {
                offset: 1,
                low: 0,
                high: 0
            }
        ),
        "{beyond}"
    );
}

/// Enqueued without waiting, stored in the order of the calls; sizes from nothing to the limit.
async fn check_order(log: &dyn Log, to: &TopicPartition) {
    let sizes = [
        0,
        1,
        10,
        1_000,
        100_000,
        RECORD_BYTES_MAX,
        0,
        RECORD_BYTES_MAX - 1,
        5,
        5,
    ];
    let value = |index: usize, size: usize| Bytes::from(vec![index as u8; size]);
    let appends: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(index, size)| log.append(to, value(index, *size)))
        .collect();
    for (index, append) in appends.into_iter().enumerate() {
        assert_eq!(append.await.unwrap(), index as u64);
    }
    assert_eq!(log.bounds(to).await.unwrap(), (0, sizes.len() as u64));
    let read = take(&mut log.read(to, 0).await.unwrap(), sizes.len()).await;
    for (index, record) in read.iter().enumerate() {
        assert_eq!(record.offset, index as u64);
        assert_eq!(record.value, value(index, sizes[index]));
    }
    let refused = log
        .append(to, Bytes::from(vec![0; RECORD_BYTES_MAX + 1]))
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            AppendError::TooLarge {
                limit: RECORD_BYTES_MAX,
                ..
            }
        ),
        "{refused}"
    );
    // A dropped future does not take the record back.
    drop(log.append(to, Bytes::from_static(b"dropped")));
    let last = log.append(to, Bytes::from_static(b"last")).await.unwrap();
    assert_eq!(last, sizes.len() as u64 + 1);
}

/// Many readers of one partition, at any position, one after another and together.
async fn check_readers(log: &dyn Log, of: &TopicPartition) {
    let (_, high) = log.bounds(of).await.unwrap();
    for from in 0..high {
        let mut reader = log.read(of, from).await.unwrap();
        assert_eq!(take(&mut reader, 1).await[0].offset, from);
    }
    let mut together = Vec::new();
    for from in [0, 3, high] {
        together.push((from, log.read(of, from).await.unwrap()));
    }
    for (from, reader) in &mut together {
        let expected: Vec<u64> = (*from..high).collect();
        let read = take(reader, expected.len()).await;
        assert_eq!(read.iter().map(|record| record.offset).collect::<Vec<_>>(), expected);
    }
    let next = log.append(of, Bytes::from_static(b"for all")).await.unwrap();
    for (_, reader) in &mut together {
        assert_eq!(take(reader, 1).await[0].offset, next);
    }
    let beyond = log.read(of, next + 2).await.err().unwrap();
    assert!(matches!(beyond, ReadError::OutOfRange { .. }), "{beyond}");
}

/// A waiting reader is woken by the record, not by its deadline.
async fn check_waiting(log: &dyn Log, of: &TopicPartition) {
    let mut reader = log.read(of, 0).await.unwrap();
    let begin = Instant::now();
    let (read, _) = futures::join!(reader.next(SOON), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        log.append(of, Bytes::from_static(b"wake up")).await.unwrap();
    });
    assert_eq!(read.unwrap()[0].value, b"wake up"[..]);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn memory() {
    check_log(&MemoryLog::reliable()).await;
    let slow = Faults {
        store_delay_max: Duration::from_millis(5),
        acknowledge_delay_max: Duration::from_millis(5),
        deliver_delay_max: Duration::from_millis(20),
        ..Faults::default()
    };
    check_log(&MemoryLog::new(3, slow)).await;
}
