//! What happens when workers are dead, busy, without module, or ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocol::sha256;
use service::Code;
use tokio::time::Instant;

use super::*;
use crate::endorser::record::Record;
use crate::endorser::record::tests::Memory;
use crate::gateway::testing::FakeWorker;

fn pool(count: usize) -> (Arc<Workers>, Vec<Arc<FakeWorker>>) {
    let workers: Vec<Arc<FakeWorker>> = (0..count).map(|_| FakeWorker::new()).collect();
    let transports = workers
        .iter()
        .map(|worker| Box::new(Arc::clone(worker)) as Box<dyn Transport>)
        .collect();
    let modules = |digest: &Digest| (*digest == sha256(b"component")).then(|| Arc::new(b"component".to_vec()));
    (Workers::over(transports, Arc::new(modules)), workers)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

async fn create(pool: &Workers, deadline: Instant) -> Result<rpc::Done, Problem> {
    let call = Invocation {
        digest: sha256(b"component"),
        function: "create".to_owned(),
        arguments: br#"["one"]"#.to_vec(),
        context: rpc::Context::default(),
        keys: vec![b"record".to_vec()],
    };
    let mut record = Record::new(Arc::new(Memory::default()), b"p/".to_vec());
    let done = pool.invoke(&call, &mut record, deadline).await?;
    let (reads, _) = record.finish();
    assert_eq!(reads.len(), 1, "one record of reads, whatever was tried before");
    Ok(done)
}

#[tokio::test]
async fn a_module_is_sent_when_it_is_needed_and_once() {
    let (pool, _) = pool(1);
    let before = crate::metrics::WORKER_MODULES.get();
    let routed = pool
        .route(&sha256(b"component"), "create", br#"["one"]"#, soon())
        .await
        .expect("routed");
    assert_eq!((routed.subject.as_str(), routed.query), ("one", false));
    create(&pool, soon()).await.expect("done");
    assert!(crate::metrics::WORKER_MODULES.get() > before);
}

#[tokio::test]
async fn the_same_route_is_asked_for_once() {
    let (pool, workers) = pool(1);
    let component = sha256(b"component");
    let opened = || workers[0].opened.load(Ordering::Relaxed);
    let one = pool
        .route(&component, "create", br#"["one"]"#, soon())
        .await
        .expect("routed");
    let after_one = opened();
    let again = pool
        .route(&component, "create", br#"["one"]"#, soon())
        .await
        .expect("routed");
    assert_eq!((again, opened()), (one, after_one));
    let two = pool
        .route(&component, "create", br#"["two"]"#, soon())
        .await
        .expect("routed");
    assert_eq!(two.subject, "two");
    assert!(opened() > after_one);
}

#[tokio::test]
async fn a_module_that_the_ledger_has_not_is_said_to_be() {
    let (pool, _) = pool(1);
    let problem = pool
        .route(&[7; 32], "create", br#"["one"]"#, soon())
        .await
        .expect_err("no module");
    assert_eq!(problem.code, Code::LogUnavailable);
    assert!(problem.retry_after.is_some());
}

#[tokio::test]
async fn a_dead_worker_costs_a_retry_on_another() {
    let (pool, workers) = pool(2);
    for worker in &workers {
        worker.dies.store(1, Ordering::Relaxed);
    }
    let before = WORKER_RETRIES.get();
    create(&pool, soon()).await.expect("the third attempt works");
    assert!(WORKER_RETRIES.get() > before);
    let opened: u32 = workers.iter().map(|worker| worker.opened.load(Ordering::Relaxed)).sum();
    assert_eq!(opened, 3);
}

#[tokio::test]
async fn a_call_that_kills_workers_kills_few() {
    let (pool, workers) = pool(5);
    for worker in &workers {
        worker.dies.store(100, Ordering::Relaxed);
    }
    let problem = create(&pool, soon()).await.expect_err("nobody survives it");
    assert_eq!(problem.code, Code::WorkerUnavailable);
    let opened: u32 = workers.iter().map(|worker| worker.opened.load(Ordering::Relaxed)).sum();
    assert_eq!(opened as usize, ATTEMPTS_MAX);
}

#[tokio::test]
async fn without_a_connected_worker_the_answer_comes_at_once() {
    let (pool, workers) = pool(2);
    for worker in &workers {
        worker.down.store(true, Ordering::Relaxed);
    }
    let began = Instant::now();
    assert_eq!(
        create(&pool, soon()).await.expect_err("all away").code,
        Code::WorkerUnavailable
    );
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn busy_everywhere_is_429_and_busy_somewhere_is_not() {
    let (pool, workers) = pool(2);
    workers[0].busy.store(true, Ordering::Relaxed);
    create(&pool, soon()).await.expect("the other one");
    workers[1].busy.store(true, Ordering::Relaxed);
    let problem = create(&pool, soon()).await.expect_err("busy");
    assert_eq!(problem.code, Code::ResourceExhausted);
    assert!(problem.retry_after.is_some());
}

#[tokio::test]
async fn the_contracts_own_end_is_not_tried_again() {
    let (pool, workers) = pool(2);
    let problem = pool
        .route(&sha256(b"component"), "absent", br#"["one"]"#, soon())
        .await
        .expect_err("unknown");
    assert_eq!((problem.code, &*problem.field), (Code::UnknownFunction, "function"));
    let opened: u32 = workers.iter().map(|worker| worker.opened.load(Ordering::Relaxed)).sum();
    assert_eq!(opened, 1);
}

#[tokio::test]
async fn a_worker_is_primed_when_it_connects_and_again_after_a_break() {
    let (pool, workers) = pool(1);
    let link = &pool.links()[0];
    assert!(link.wants_priming() && !link.wants_priming(), "by one at a time");
    link.prime(&[sha256(b"component")], soon()).await;
    assert!(link.is_primed());
    workers[0].down.store(true, Ordering::Relaxed);
    assert!(!link.is_primed() && !link.wants_priming());
    workers[0].down.store(false, Ordering::Relaxed);
    assert!(link.wants_priming());
    workers[0].dies.store(1, Ordering::Relaxed);
    link.prime(&[sha256(b"component")], soon()).await;
    assert!(!link.is_primed() && link.wants_priming(), "it died meanwhile");
}

#[tokio::test]
async fn a_worker_is_not_primed_before_the_module_is_known_here() {
    let (pool, workers) = pool(1);
    let link = &pool.links()[0];
    assert!(link.wants_priming());
    link.prime(&[[7; 32]], soon()).await;
    assert!(!link.is_primed());
    let opened = workers[0].opened.load(Ordering::Relaxed);
    assert_eq!(opened, 0, "nor is it made to wait for it");
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_primed_at_the_moment_in_which_the_module_comes() {
    let worker = FakeWorker::new();
    let (known, tasks) = (Arc::new(AtomicBool::new(false)), Tasks::new());
    let modules = Arc::clone(&known);
    let pool = Workers::over(
        vec![Box::new(Arc::clone(&worker))],
        Arc::new(move |_: &Digest| modules.load(Ordering::Relaxed).then(|| Arc::new(b"component".to_vec()))),
    );
    let (came, control) = watch::channel(None);
    let watched = Watched {
        tasks: tasks.clone(),
        contracts: Arc::new([sha256(b"component")]),
        control,
        check: Health::new().check("workers"),
        expected: true,
    };
    tasks.spawn("workers", OnFailure::Log, Arc::clone(&pool).watch(watched));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(worker.opened.load(Ordering::Relaxed), 0);
    known.store(true, Ordering::Relaxed);
    came.send_replace(Some(Tip {
        height: 1,
        header: [1; 32],
    }));
    let now = Instant::now();
    while !pool.links()[0].is_primed() {
        tokio::task::yield_now().await;
    }
    assert_eq!(now.elapsed(), Duration::ZERO);
    tasks.cancel();
}
