//! The log in memory keeps the log's promises under its own faults.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn partition(number: u32) -> TopicPartition {
    TopicPartition {
        topic: "t".into(),
        partition: number,
    }
}

/// Runs on a paused clock: a simulation of seconds takes no time.
fn paused<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(work)
}

/// One append and what its client was told.
#[derive(Debug, PartialEq)]
struct Told {
    client: usize,
    value: Bytes,
    outcome: Result<u64, String>,
    at_ms: u128,
}

/// Two clients append in turn, pausing now and then, and wait for what they sent.
async fn load(log: &MemoryLog, appends: usize) -> Vec<Told> {
    let clients = [log.clone(), log.another()];
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for number in 0..appends {
        let client = number % clients.len();
        let value = Bytes::from(format!("{client}/{number:06}"));
        let outcome = clients[client].append(&partition(0), value.clone());
        waiting.push(async move {
            let outcome = outcome.await.map_err(|error| error.to_string());
            Told {
                client,
                value,
                outcome,
                at_ms: begin.elapsed().as_millis(),
            }
        });
        if number % 7 == 0 {
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }
    futures::future::join_all(waiting).await
}

async fn read_all(log: &MemoryLog, from: u64) -> Vec<Record> {
    let mut reader = loop {
        match log.read(&partition(0), from).await {
            Ok(reader) => break reader,
            Err(ReadError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    };
    let mut read: Vec<Record> = Vec::new();
    let mut silent = 0;
    while silent < 3 {
        match reader.next(Duration::from_secs(1)).await {
            Ok(records) if records.is_empty() => silent += 1,
            Ok(records) => {
                read.extend(records);
                silent = 0;
            }
            Err(ReadError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    read
}

fn check_promises(seed: u64, faults: Faults, appends: usize) {
    paused(async {
        let log = MemoryLog::new(seed, faults);
        let told = load(&log, appends).await;
        tokio::time::sleep(Duration::from_secs(5)).await; // what was on its way has arrived
        let stored = log.control().records(&partition(0));
        for (expected, record) in stored.iter().enumerate() {
            assert_eq!(record.offset, expected as u64, "no holes");
        }
        let distinct: BTreeSet<&Bytes> = stored.iter().map(|record| &record.value).collect();
        assert_eq!(distinct.len(), stored.len(), "nothing twice");
        for one in &told {
            match &one.outcome {
                Ok(offset) => assert_eq!(stored[*offset as usize].value, one.value, "acknowledged is there"),
                Err(why) if why.contains("cannot be reached") => {
                    assert!(!distinct.contains(&one.value), "refused is not there")
                }
                Err(_) => {} // unknown: there or not
            }
        }
        for client in 0..2 {
            let mine: Vec<&Bytes> = stored
                .iter()
                .map(|record| &record.value)
                .filter(|value| value[0] == b'0' + client)
                .collect();
            assert!(mine.is_sorted(), "a client's records are in the order of its calls");
        }
        let from = stored.len() as u64 / 2;
        let read = read_all(&log, from).await;
        let values = |records: &[Record]| records.iter().map(|record| record.value.clone()).collect::<Vec<_>>();
        assert_eq!(
            values(&read),
            values(&stored[from as usize..]),
            "readers see all of it, in order"
        );
    });
}

fn faults() -> impl Strategy<Value = Faults> {
    let chance = || prop_oneof![Just(0.0), 0.0..0.3f64];
    let delay = || prop_oneof![Just(0u64), 0..200u64].prop_map(Duration::from_millis);
    (
        chance(),
        chance(),
        chance(),
        chance(),
        chance(),
        delay(),
        delay(),
        delay(),
        delay(),
    )
        .prop_map(
            |(refuse, lose_acknowledgement, lose_record, fail_read, outage, length, store, acknowledge, deliver)| {
                Faults {
                    refuse,
                    lose_acknowledgement,
                    lose_record,
                    fail_read,
                    outage,
                    outage_max: length,
                    store_delay_max: store,
                    acknowledge_delay_max: acknowledge,
                    deliver_delay_max: deliver,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_under_any_faults(seed: u64, faults in faults(), appends in 1..120usize) {
        check_promises(seed, faults, appends);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        paused(async move {
            let log = MemoryLog::new(seed, Faults::many());
            let told = load(&log, 300).await;
            let read: Vec<(u64, Bytes)> = read_all(&log, 0)
                .await
                .into_iter()
                .map(|record| (record.offset, record.value))
                .collect();
            (told, read)
        })
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).0, run(8).0);
}

#[test]
fn many_faults_show_each_outcome() {
    paused(async {
        let log = MemoryLog::new(1, Faults::many());
        let told = load(&log, 500).await;
        let stored = log.control().records(&partition(0));
        let there = |one: &&Told| stored.iter().any(|record| record.value == one.value);
        let unknown: Vec<&Told> = told
            .iter()
            .filter(|one| matches!(&one.outcome, Err(why) if why.contains("unknown")))
            .collect();
        assert!(unknown.iter().any(there) && !unknown.iter().all(there));
        assert!(
            told.iter()
                .any(|one| matches!(&one.outcome, Err(why) if why.contains("cannot be reached")))
        );
        assert!(told.iter().filter(|one| one.outcome.is_ok()).count() > 100);
    });
}

#[test]
fn holes_and_lost_tails_stop_a_reader() {
    paused(async {
        let log = MemoryLog::reliable();
        for number in 0..5 {
            log.append(&partition(0), Bytes::from(vec![number])).await.unwrap();
        }
        let mut reader = log.read(&partition(0), 5).await.unwrap();
        log.control().remove(&partition(0), 2);
        let mut early = log.read(&partition(0), 0).await.unwrap();
        assert_eq!(early.next(Duration::ZERO).await.unwrap().len(), 2);
        let gap = early.next(Duration::ZERO).await.unwrap_err();
        assert!(matches!(gap, ReadError::Gap { expected: 2, found: 3 }), "{gap}");
        log.control().truncate(&partition(0), 4);
        let lost = reader.next(Duration::ZERO).await.unwrap_err();
        assert!(
            matches!(
                lost,
                ReadError::OutOfRange {
                    offset: 5,
                    low: 0,
                    high: 4
                }
            ),
            "{lost}"
        );
    });
}

#[test]
fn away_and_back() {
    paused(async {
        let log = MemoryLog::reliable();
        let control = log.control();
        let mut reader = log.read(&partition(0), 0).await.unwrap();
        control.set_available(false);
        assert!(!log.reachable());
        let refused = log.append(&partition(0), Bytes::from_static(b"a")).await.unwrap_err();
        assert!(matches!(refused, AppendError::Unavailable(_)));
        let away = reader.next(Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(away, ReadError::Unavailable(_)));
        control.set_available(true);
        assert_eq!(control.inject(&partition(0), &b"garbage"[..]), 0);
        assert_eq!(
            reader.next(Duration::from_secs(1)).await.unwrap()[0].value,
            b"garbage"[..]
        );
    });
}
