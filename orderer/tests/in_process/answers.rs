//! Every transaction is answered, and the answer is true.

use std::time::Duration;

use futures::future::join_all;
use ledger_log::memory::{Faults, MemoryLog};
use prost::Message;
use protocol::{ledger::ReceiptContent, sha256, testing::TestTx};
use service::{Code, health::State};
use tokio::time::{Instant, sleep, timeout};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn every_transaction_gets_a_receipt_of_its_place() {
    let net = net();
    let log = MemoryLog::reliable();
    let orderers = [
        start(&net, "HospitalA", log.clone()).await,
        start(&net, "HospitalB", log.another()).await,
    ];
    let txs = transactions(&net, 600);
    let calls = txs.iter().enumerate().map(|(i, tx)| {
        let (orderer, caller) = (&orderers[i % 2].orderer, gateway(&net, ORGANISATIONS[i % 2]));
        async move {
            sleep(Duration::from_micros(500) * i as u32).await;
            orderer.broadcast(&caller, request(tx)).await.expect("ordered")
        }
    });
    let receipts = join_all(calls).await;
    let ordered = read(&net, &log);
    assert_eq!(ordered.places.len(), txs.len());
    for (tx, receipt) in txs.iter().zip(&receipts) {
        ordered.check_receipt(&net, tx, receipt);
    }
    for partition in 0..PARTITIONS {
        assert_eq!(
            ordered.markers.iter().filter(|marked| **marked == partition).count(),
            2,
            "one of each orderer"
        );
    }
    for running in orderers {
        running.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_is_answered_item_by_item_and_its_order_kept() {
    let net = net();
    let log = MemoryLog::reliable();
    let running = start(&net, "HospitalA", log.clone()).await;
    let txs: Vec<TestTx> = (0..40u8)
        .map(|i| net.tx("patient-1").write(b"record", &[i]).height_bound(60_000).build())
        .collect();
    let (sender, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let items = txs.iter().enumerate().map(|(i, tx)| {
        let mut request = request(tx);
        if i == 7 {
            request.transaction[20] ^= 1;
        }
        let sender = sender.clone();
        let answer: orderer::Answer = Box::new(move |result| sender.send((i, result)).expect("listens"));
        (request, answer)
    });
    running.orderer.offer(&gateway(&net, "HospitalA"), items.collect());
    let mut places = Vec::new();
    for _ in 0..txs.len() {
        let (i, result) = answers.recv().await.expect("an answer");
        match result {
            Ok(receipt) => {
                let content = ReceiptContent::decode(&receipt.content[..]).expect("content");
                places.push((content.height, content.index, i));
            }
            Err(_) => assert_eq!(i, 7),
        }
    }
    places.sort_unstable();
    let order: Vec<usize> = places.iter().map(|(_, _, i)| *i).collect();
    assert_eq!(order, (0..40).filter(|i| *i != 7).collect::<Vec<_>>());
    running.end().await;
}

/// What a sender hears is what the log holds, whatever the log does.
async fn run_with_faults(seed: u64) -> Vec<String> {
    let net = net();
    let log = MemoryLog::new(seed, Faults::many());
    let orderers = [
        start(&net, "HospitalA", log.clone()).await,
        start(&net, "HospitalB", log.another()).await,
    ];
    let txs = transactions(&net, 300);
    let calls = txs.iter().enumerate().map(|(i, tx)| {
        let (orderer, caller) = (&orderers[i % 2].orderer, gateway(&net, ORGANISATIONS[i % 2]));
        async move {
            sleep(Duration::from_millis(2) * i as u32).await;
            orderer.broadcast(&caller, request(tx)).await
        }
    });
    let results = timeout(Duration::from_secs(300), join_all(calls))
        .await
        .expect("all are answered");
    sleep(Duration::from_secs(5)).await;
    let ordered = read(&net, &log);
    let mut heard = Vec::new();
    for (tx, result) in txs.iter().zip(&results) {
        let places = ordered.places.get(&tx.tx_id).map_or(0, Vec::len);
        assert!(places <= 1, "appended twice");
        match result {
            Ok(receipt) => ordered.check_receipt(&net, tx, receipt),
            Err(problem) => match problem.code {
                Code::UnknownOutcome => {}
                Code::LogUnavailable | Code::ResourceExhausted => assert_eq!(places, 0, "{problem}"),
                _ => panic!("{problem}"),
            },
        }
        heard.push(
            result
                .as_ref()
                .map_or_else(|problem| problem.code.to_string(), |_| "receipt".to_owned()),
        );
    }
    for running in orderers {
        running.end().await;
    }
    heard.extend(
        log.control()
            .records(&tx_topic(0))
            .iter()
            .map(|record| hex::encode(sha256(&record.value))),
    );
    heard
}

#[tokio::test(start_paused = true)]
async fn under_faults_every_answer_is_honest() {
    let mut all = Vec::new();
    for seed in 0..12 {
        all.extend(run_with_faults(seed).await);
    }
    for outcome in ["receipt", "unknown_outcome"] {
        assert!(
            all.iter().any(|heard| heard == outcome),
            "no {outcome} among all answers"
        );
    }
    let receipts = all.iter().filter(|heard| *heard == "receipt").count();
    assert!(receipts > 12 * 300 / 2, "{receipts}");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_log() {
    assert_eq!(run_with_faults(5).await, run_with_faults(5).await);
}

#[tokio::test(start_paused = true)]
async fn while_the_log_is_away_it_says_so_and_goes_on_by_itself() {
    let net = net();
    let log = MemoryLog::reliable();
    let running = start(&net, "HospitalA", log.clone()).await;
    let caller = gateway(&net, "HospitalA");
    let txs = transactions(&net, 20);
    let calls = || txs.iter().map(|tx| running.orderer.broadcast(&caller, request(tx)));
    // What was admitted before waits for the log and is ordered when it is back.
    let retries = || metric::value("medledger_orderer_append_retries_total");
    let before = retries();
    let under_way = calls();
    let away = async {
        sleep(Duration::from_millis(1)).await;
        log.control().set_available(false);
        let since = Instant::now();
        for result in join_all(calls()).await {
            let problem = result.expect_err("away");
            assert_eq!(problem.code, Code::LogUnavailable);
            assert!(problem.retry_after.is_some());
        }
        assert!(
            since.elapsed() < Duration::from_millis(10),
            "refused at once: {:?}",
            since.elapsed()
        );
        sleep(Duration::from_secs(3)).await;
        assert!(matches!(running.health.checks()["kafka"], State::Degraded { .. }));
        log.control().set_available(true);
    };
    let (results, ()) = tokio::join!(join_all(under_way), away);
    assert!(retries() > before);
    let ordered = read(&net, &log);
    for (tx, result) in txs.iter().zip(&results) {
        ordered.check_receipt(&net, tx, result.as_ref().expect("back"));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(running.health.checks()["kafka"], State::Ok);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_log_answers_and_keeps_nothing_it_says_so_and_goes_on_by_itself() {
    let net = net();
    let log = MemoryLog::reliable();
    let running = start(&net, "HospitalA", log.clone()).await;
    let caller = gateway(&net, "HospitalA");
    let txs = transactions(&net, 40);
    let call = |tx| running.orderer.broadcast(&caller, request(tx));
    log.control().set_faults(Faults {
        store_delay_max: Duration::from_secs(1_000),
        ..Faults::default()
    });
    let under_way = async { join_all(txs[..20].iter().map(call)).await };
    let later = async {
        sleep(Duration::from_secs(6)).await;
        let since = Instant::now();
        for result in join_all(txs[20..].iter().map(call)).await {
            assert_eq!(result.expect_err("stalled").code, Code::LogUnavailable);
        }
        assert!(since.elapsed() < Duration::from_millis(100), "{:?}", since.elapsed());
        log.control().set_faults(Faults::default());
    };
    // What was sent before is not refused: it is ordered when the log keeps something again.
    let (results, ()) = tokio::join!(under_way, later);
    let ordered = read(&net, &log);
    for (tx, result) in txs.iter().zip(&results) {
        ordered.check_receipt(&net, tx, result.as_ref().expect("kept after all"));
    }
    call(&txs[30]).await.expect("as ever");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn too_much_is_refused_at_once_and_nothing_admitted_is_lost() {
    let net = net();
    let slow = Faults {
        acknowledge_delay_max: Duration::from_secs(1),
        ..Faults::default()
    };
    let log = MemoryLog::new(1, slow);
    let mut parts = parts(&net, "HospitalA", log.clone());
    parts.bounds.queue_bytes_max = 512 * 1024;
    let running = start_with(parts);
    running.opened().await;
    let txs = transactions(&net, 400);
    let caller = gateway(&net, "HospitalA");
    let since = Instant::now();
    let calls = txs.iter().map(|tx| async {
        let result = running.orderer.broadcast(&caller, request(tx)).await;
        assert!(running.orderer.queue_bytes() <= 512 * 1024);
        (result, since.elapsed())
    });
    let results = join_all(calls).await;
    let ordered = read(&net, &log);
    let mut refused = 0;
    for (tx, (result, after)) in txs.iter().zip(&results) {
        match result {
            Ok(receipt) => ordered.check_receipt(&net, tx, receipt),
            Err(problem) => {
                assert_eq!(problem.code, Code::ResourceExhausted);
                assert!(problem.retry_after.is_some() && *after < Duration::from_millis(1));
                refused += 1;
            }
        }
    }
    assert!((100..400).contains(&refused), "{refused}");
    running.end().await;
}
