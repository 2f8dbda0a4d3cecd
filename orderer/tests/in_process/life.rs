//! Start, idleness and end.

use std::time::Duration;

use futures::future::join_all;
use ledger_log::{
    Log, TopicSpec,
    memory::{Faults, MemoryLog},
};
use orderer::{Orderer, Parts};
use protocol::{
    block,
    control::{Content, ControlChain},
    testing::TestNet,
};
use service::{Code, Tasks, health::Health};
use tokio::time::{Instant, sleep};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn what_was_admitted_is_answered_before_the_end() {
    let net = net();
    let slow = Faults {
        acknowledge_delay_max: Duration::from_millis(500),
        ..Faults::default()
    };
    let log = MemoryLog::new(3, slow);
    let running = start(&net, "HospitalA", log.clone()).await;
    let txs = transactions(&net, 200);
    let caller = gateway(&net, "HospitalA");
    let calls = join_all(txs.iter().map(|tx| running.orderer.broadcast(&caller, request(tx))));
    let end = async {
        sleep(Duration::from_millis(1)).await;
        running.tasks.cancel();
        let late = net.tx("late").build();
        running
            .orderer
            .broadcast(&caller, request(&late))
            .await
            .expect_err("ending")
    };
    let (results, late) = tokio::join!(calls, end);
    assert_eq!(late.code, Code::Unavailable);
    assert!(late.retry_after.is_some());
    let ordered = read(&net, &log);
    for (tx, result) in txs.iter().zip(&results) {
        ordered.check_receipt(&net, tx, result.as_ref().expect("admitted before the end"));
    }
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_end_without_the_log_is_unknown_or_unavailable_and_on_time() {
    let net = net();
    let never = Faults {
        acknowledge_delay_max: Duration::from_secs(3600),
        ..Faults::default()
    };
    let log = MemoryLog::reliable();
    let running = start(&net, "HospitalA", log.clone()).await;
    log.control().set_faults(never);
    let (orderer, caller) = (running.orderer.clone(), gateway(&net, "HospitalA"));
    let tx = &transactions(&net, 1)[0];
    let end = async {
        sleep(Duration::from_millis(100)).await;
        let since = Instant::now();
        running.end().await;
        since.elapsed()
    };
    let (result, took) = tokio::join!(orderer.broadcast(&caller, request(tx)), end);
    assert!(took < Duration::from_secs(10));
    let problem = result.expect_err("no acknowledgement");
    assert_eq!(problem.code, Code::UnknownOutcome);
}

#[tokio::test(start_paused = true)]
async fn starts_when_the_log_comes() {
    let net = net();
    let log = MemoryLog::reliable();
    log.control().set_available(false);
    let running = start_with(parts(&net, "HospitalA", log.clone()));
    sleep(Duration::from_secs(10)).await;
    assert!(!running.orderer.is_open() && !running.tasks.is_cancelled());
    let tx = &transactions(&net, 1)[0];
    let caller = gateway(&net, "HospitalA");
    let problem = running
        .orderer
        .broadcast(&caller, request(tx))
        .await
        .expect_err("starting");
    assert_eq!(problem.code, Code::Unavailable);
    log.control().set_available(true);
    running.opened().await;
    running.orderer.broadcast(&caller, request(tx)).await.expect("open");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn idle_partitions_get_one_empty_block_a_second() {
    let net = net();
    let log = MemoryLog::reliable();
    let orderers = [
        start(&net, "HospitalA", log.clone()).await,
        start(&net, "HospitalB", log.another()).await,
    ];
    let before = read(&net, &log).empty;
    sleep(Duration::from_secs(60)).await;
    let beats = read(&net, &log).empty - before;
    let expected = 60 * PARTITIONS as usize;
    assert!((expected * 3 / 4..=expected).contains(&beats), "{beats}");
    for running in orderers {
        running.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_partition_gets_none() {
    let net = net();
    let log = MemoryLog::reliable();
    let running = start(&net, "HospitalA", log.clone()).await;
    let caller = gateway(&net, "HospitalA");
    let busy = net.tx("patient-1").build().partition;
    let count = |ordered: &Ordered| {
        ordered
            .records
            .keys()
            .filter(|(partition, _)| *partition == busy)
            .count()
    };
    let before = count(&read(&net, &log));
    for _ in 0..40 {
        let tx = net.tx("patient-1").height_bound(60_000).build();
        running.orderer.broadcast(&caller, request(&tx)).await.expect("ordered");
        sleep(Duration::from_millis(500)).await;
    }
    let ordered = read(&net, &log);
    assert_eq!(count(&ordered) - before, 40, "one block each, and no heartbeats");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn genesis_and_modules_are_appended_once() {
    let net = net();
    let log = MemoryLog::reliable();
    log.control().inject(&control_topic(), b"garbage".to_vec());
    for organisation in ["HospitalA", "HospitalB", "HospitalA"] {
        start(&net, organisation, log.another()).await.end().await;
    }
    let mut chain = ControlChain::new(net.channel.clone());
    let contents: Vec<Content> = log
        .control()
        .records(&control_topic())
        .iter()
        .map(|record| chain.push(&record.value).content)
        .collect();
    assert_eq!(contents.len(), 2 + net.contracts.len(), "{contents:?}");
    assert!(matches!(contents[0], Content::Nothing(_)));
    assert_eq!(contents[1], Content::Genesis);
    assert!(
        contents[2..]
            .iter()
            .all(|content| matches!(content, Content::Module { .. }))
    );
    let genesis = chain.genesis().expect("there");
    for partition in 0..PARTITIONS {
        let first = &log.control().records(&tx_topic(partition))[0];
        let marker = block::open(&net.checker(), partition, &first.value)
            .marker
            .expect("a marker");
        assert!(genesis.is_cited_by(&marker));
    }
}

#[tokio::test(start_paused = true)]
async fn topics_that_do_not_fit_end_the_process_with_the_reason() {
    let net = net();
    let log = MemoryLog::reliable();
    let spec = |name: &str, partitions| TopicSpec {
        name: name.into(),
        partitions,
        record_bytes_max: 2 << 20,
        flush_every_record: false,
    };
    log.ensure(&[spec("medledger.test.tx", PARTITIONS + 1)], false)
        .await
        .expect("made");
    let running = start_with(parts(&net, "HospitalA", log));
    let error = running
        .tasks
        .wait(Duration::from_secs(5))
        .await
        .expect_err("refuses to run")
        .to_string();
    assert!(
        error.contains("medledger.test.tx") && error.contains("partitions"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn parts_that_do_not_fit_are_refused() {
    let net = net();
    let start = |change: fn(&TestNet, &mut Parts)| {
        let mut parts = parts(&net, "HospitalA", MemoryLog::reliable());
        change(&net, &mut parts);
        match Orderer::start(&Tasks::new(), &Health::new(), parts) {
            Ok(_) => panic!("started"),
            Err(error) => error.to_string(),
        }
    };
    assert!(start(|net, parts| parts.identity = identity(net, "HospitalA", "peer0")).contains("orderer's is needed"));
    assert!(start(|_, parts| parts.modules.push(b"unknown".to_vec())).contains("modules[2]"));
    assert!(start(|_, parts| parts.genesis.truncate(40)).contains("genesis"));
    let elsewhere = |_: &TestNet, parts: &mut Parts| {
        let other = TestNet::seeded(9, &["Elsewhere"], 1);
        parts.identity = identity(&other, "Elsewhere", "orderer0");
    };
    assert!(start(elsewhere).contains("of no member"));
}
