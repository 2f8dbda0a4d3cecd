//! Calls in lists, from `mux` and `duplex` to `lists`, over real TLS: order, bounds, breaks, drains.

#![allow(clippy::disallowed_methods)] // tests wait for what they spawn themselves

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use protocol::identity::Role;
use protocol::limits::{GRPC_LIST_ITEMS_MAX, ITEM_OVERHEAD_BYTES};
use protocol::testing::Keys;
use service::Tasks;
use service::calls::Broadcast;
use service::lists::Limits;
use service::mux::{self, CallError, Mux};
use service::rpc::{self, BroadcastRequest, BroadcastRequests};
use service::serve::Config;
use service::tls::Target;
use support::{Running, SECOND, World, echo, orderer_at, problem, request, text, until};
use tokio::sync::Semaphore;
use tokio_stream::wrappers::ReceiverStream;

fn mux_to(world: &World, server: &Running, tasks: &Tasks, config: mux::Config) -> Mux<Broadcast> {
    let client = world.trust(world.hospital.identity("peer0"), None);
    Mux::start(tasks, client.channel(&server.target()).expect("channel"), config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_gets_its_own_reply() {
    let world = World::new(Keys::P256);
    let server = world
        .orderer(Limits::default(), |item| async {
            // Replies come in another order than requests.
            let pause = u64::from(item.transaction.last().copied().unwrap_or(0)) % 5;
            tokio::time::sleep(Duration::from_millis(pause)).await;
            echo(item).await
        })
        .await;
    let tasks = Tasks::new();
    let mux = mux_to(&world, &server, &tasks, mux::Config::default());
    let calls = (0..5_000).map(|n| {
        let mux = mux.clone();
        async move {
            let sent = format!("transaction {n}");
            assert_eq!(
                text(mux.call(request(&sent), 10 * SECOND).await.expect("a reply")),
                sent
            );
        }
    });
    futures::future::join_all(calls).await;
    assert_eq!(
        mux.depth(),
        mux::Depth {
            items: 0,
            queue_bytes: 0
        }
    );
    tasks.cancel();
    server.stop().await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let world = World::new(Keys::P256);
    let server = world.orderer(Limits::default(), |_| std::future::pending()).await;
    let tasks = Tasks::new();
    let mux = mux_to(
        &world,
        &server,
        &tasks,
        mux::Config {
            items_max: 10,
            ..mux::Config::default()
        },
    );
    let counted = || metric::value("medledger_call_refused_total{call=\"broadcast\"}");
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let mux = mux.clone();
            tokio::spawn(async move { mux.call(request("x"), SECOND).await })
        })
        .collect();
    until("ten wait", || mux.depth().items == 10).await;
    let (before, counted_before) = (Instant::now(), counted());
    let refused = mux.call(request("x"), SECOND).await.expect_err("full");
    assert!(matches!(refused, CallError::Full { .. }) && refused.surely_undone());
    assert!(before.elapsed() < Duration::from_millis(100));
    assert!(counted() > counted_before);
    assert_eq!(service::Problem::from(refused).code, service::Code::ResourceExhausted);
    for call in waiting {
        let error = call.await.expect("no panic").expect_err("no reply");
        assert_eq!(error, CallError::Deadline { sent: true });
    }
    // Whoever gave up makes room.
    assert_eq!(mux.depth().items, 0);
    tasks.cancel();
}

#[tokio::test]
async fn bytes_are_bounded_too() {
    let world = World::new(Keys::P256);
    // Nobody listens there, so everything stays in the queue until the first attempt has failed.
    let server = world.orderer(Limits::default(), echo).await;
    let tasks = Tasks::new();
    let mux = mux_to(
        &world,
        &server,
        &tasks,
        mux::Config {
            queue_bytes_max: 1000,
            ..mux::Config::default()
        },
    );
    let large = "x".repeat(900);
    // Polled once, before the stream can have opened.
    let mut first = Box::pin(mux.call(request(&large), SECOND));
    assert!(futures::poll!(first.as_mut()).is_pending());
    assert!(matches!(
        mux.call(request(&large), SECOND).await,
        Err(CallError::Full { .. })
    ));
    assert_eq!(text(first.await.expect("a reply")), large);
    // Nothing is too large for an empty queue.
    let larger = "x".repeat(5000);
    assert_eq!(text(mux.call(request(&larger), SECOND).await.expect("a reply")), larger);
    tasks.cancel();
    server.stop().await;
}

#[tokio::test]
async fn a_server_refuses_more_than_it_takes_in() {
    let world = World::new(Keys::P256);
    let gate = Arc::new(Semaphore::new(0));
    let (entered, inner) = (Arc::new(AtomicUsize::new(0)), gate.clone());
    let count = entered.clone();
    let limits = Limits {
        in_flight_items_max: 8,
        ..Limits::default()
    };
    let server = world
        .orderer(limits, move |item| {
            let (gate, count) = (inner.clone(), count.clone());
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = gate.acquire().await;
                echo(item).await
            }
        })
        .await;
    let tasks = Tasks::new();
    let mux = mux_to(&world, &server, &tasks, mux::Config::default());
    let calls: Vec<_> = (0..100)
        .map(|n| {
            let mux = mux.clone();
            tokio::spawn(async move { mux.call(request(&n.to_string()), 5 * SECOND).await.expect("a reply") })
        })
        .collect();
    until("all but those inside are refused", || mux.depth().items == 8).await;
    assert_eq!(entered.load(Ordering::SeqCst), 8);
    gate.add_permits(100);
    let mut refused = 0;
    for call in calls {
        let problem = problem(call.await.expect("no panic"));
        if problem.code == "resource_exhausted" {
            assert!(problem.retry_after_ms > 0);
            refused += 1;
        }
    }
    assert_eq!(refused, 92);
    tasks.cancel();
    server.stop().await;
}

#[tokio::test]
async fn a_break_says_what_is_known_and_the_stream_comes_back() {
    let world = World::new(Keys::P256);
    let trust = world.trust(world.relief.identity("orderer0"), None);
    let config = Config {
        drain_deadline: Duration::from_millis(100),
        ..Config::default()
    };
    let anywhere = "127.0.0.1:0".parse().expect("address");
    let server = orderer_at(trust.clone(), Limits::default(), config.clone(), anywhere, |_| {
        std::future::pending()
    })
    .await;
    let address = server.address;
    let tasks = Tasks::new();
    let mux = mux_to(&world, &server, &tasks, mux::Config::default());
    let waiting = {
        let mux = mux.clone();
        tokio::spawn(async move { mux.call(request("x"), 20 * SECOND).await })
    };
    until("it is sent", || {
        mux.is_up()
            && mux.depth()
                == mux::Depth {
                    items: 1,
                    queue_bytes: 0,
                }
    })
    .await;
    // It hangs, so the drain is cut.
    server.tasks.cancel();
    let _ = server.tasks.wait(Duration::from_millis(300)).await;
    let error = waiting.await.expect("no panic").expect_err("broken");
    assert!(
        matches!(error, CallError::Unknown(_)) && !error.surely_undone(),
        "{error}"
    );
    assert_eq!(service::Problem::from(error).code, service::Code::UnknownOutcome);

    // Away: refused at once as surely not done.
    until("it is known to be away", || !mux.is_up()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = Instant::now();
    let error = mux.call(request("x"), 20 * SECOND).await.expect_err("away");
    assert!(
        matches!(error, CallError::Unsent(_)) && error.surely_undone(),
        "{error}"
    );
    assert!(before.elapsed() < SECOND);

    // Back at the same address: goes on by itself.
    let server = orderer_at(trust, Limits::default(), config, address, echo).await;
    until("the stream is open again", || mux.is_up()).await;
    assert_eq!(
        text(mux.call(request("again"), 5 * SECOND).await.expect("a reply")),
        "again"
    );
    tasks.cancel();
    server.stop().await;
}

#[tokio::test]
async fn a_drain_finishes_what_was_accepted() {
    let world = World::new(Keys::P256);
    let server = world
        .orderer(Limits::default(), |item| async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            echo(item).await
        })
        .await;
    let tasks = Tasks::new();
    let mux = mux_to(&world, &server, &tasks, mux::Config::default());
    until("the stream is open", || mux.is_up()).await;
    let accepted: Vec<_> = (0..50)
        .map(|n| {
            let mux = mux.clone();
            tokio::spawn(async move { mux.call(request(&n.to_string()), 5 * SECOND).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.tasks.cancel();
    tokio::time::sleep(Duration::from_millis(20)).await;
    // Comes too late, and is told so.
    let late = mux.call(request("late"), 5 * SECOND).await.expect("a reply");
    assert_eq!(problem(late).code, "unavailable");
    for (n, call) in accepted.into_iter().enumerate() {
        assert_eq!(text(call.await.expect("no panic").expect("finished")), n.to_string());
    }
    let before = Instant::now();
    server.stop().await;
    assert!(
        before.elapsed() < 2 * SECOND,
        "an idle connection does not hold up the end"
    );
    tasks.cancel();
}

#[tokio::test]
async fn an_ending_process_finishes_its_calls() {
    let world = World::new(Keys::P256);
    let server = world
        .orderer(Limits::default(), |item| async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            echo(item).await
        })
        .await;
    let tasks = Tasks::new();
    let mux = mux_to(&world, &server, &tasks, mux::Config::default());
    let calls = mux.clone();
    let under_way = tokio::spawn(async move {
        let first = calls.call(request("first"), 5 * SECOND).await.map(text);
        // What was accepted may need another call to be finished.
        (first, calls.call(request("second"), 5 * SECOND).await.map(text))
    });
    until("it is sent", || mux.is_up() && mux.depth().items == 1).await;
    tasks.cancel();
    let (first, second) = under_way.await.expect("no panic");
    assert_eq!((first.as_deref(), second.as_deref()), (Ok("first"), Ok("second")));
    tasks.wait(2 * SECOND).await.expect("ends soon after the last call");
    assert_eq!(mux.call(request("late"), SECOND).await, Err(CallError::Closed));
    server.stop().await;
}

#[tokio::test]
async fn a_handler_that_panics_answers_internal() {
    let world = World::new(Keys::P256);
    let server = world
        .orderer(Limits::default(), |item| async {
            assert!(item.transaction != b"bad", "clumsy");
            echo(item).await
        })
        .await;
    let tasks = Tasks::new();
    let mux = mux_to(&world, &server, &tasks, mux::Config::default());
    let reply = mux.call(request("bad"), 5 * SECOND).await.expect("a reply");
    assert_eq!(problem(reply).code, "internal");
    assert_eq!(
        text(mux.call(request("good"), 5 * SECOND).await.expect("a reply")),
        "good"
    );
    tasks.cancel();
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_empty_items_is_refused_by_name_after_what_was_accepted() {
    let world = World::new(Keys::P256);
    let gate = Arc::new(Semaphore::new(0));
    let (entered, inner) = (Arc::new(AtomicUsize::new(0)), gate.clone());
    let count = entered.clone();
    let server = world
        .orderer(Limits::default(), move |item| {
            let (gate, count) = (inner.clone(), count.clone());
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = gate.acquire().await;
                echo(item).await
            }
        })
        .await;
    let client = world.trust(world.hospital.identity("peer0"), None);
    let channel = client.channel(&server.target()).expect("channel");
    let (lists, receiver) = tokio::sync::mpsc::channel(2);
    let list = |items: usize| BroadcastRequests {
        items: vec![BroadcastRequest::default(); items],
    };
    lists.send(list(GRPC_LIST_ITEMS_MAX)).await.expect("open");
    lists.send(list(GRPC_LIST_ITEMS_MAX + 1)).await.expect("open");
    let mut replies = rpc::orderer_client(channel)
        .broadcast_lists(ReceiverStream::new(receiver))
        .await
        .expect("a stream")
        .into_inner();
    until("the first list is accepted", || {
        entered.load(Ordering::SeqCst) == GRPC_LIST_ITEMS_MAX
    })
    .await;
    gate.add_permits(GRPC_LIST_ITEMS_MAX);
    let mut answered = 0;
    let status = loop {
        match replies.message().await {
            Ok(Some(list)) => answered += list.items.len(),
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(answered, GRPC_LIST_ITEMS_MAX);
    let refusal = service::Problem::from(status);
    assert_eq!(
        (refusal.code, refusal.field.as_str()),
        (service::Code::TooLarge, "items")
    );
    assert_eq!(
        entered.load(Ordering::SeqCst),
        GRPC_LIST_ITEMS_MAX,
        "nothing of the second list"
    );
    server.stop().await;
}

#[tokio::test]
async fn empty_items_are_charged_for() {
    let world = World::new(Keys::P256);
    let limits = Limits {
        in_flight_bytes_max: 8 * (ITEM_OVERHEAD_BYTES + 8),
        ..Limits::default()
    };
    let server = world.orderer(limits, |_| std::future::pending()).await;
    let tasks = Tasks::new();
    let mux = mux_to(&world, &server, &tasks, mux::Config::default());
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let mux = mux.clone();
            tokio::spawn(async move { mux.call(BroadcastRequest::default(), 60 * SECOND).await })
        })
        .collect();
    until("all but a few are refused", || mux.depth().items == 8).await;
    for call in calls {
        call.abort();
    }
    tasks.cancel();
}

#[tokio::test]
async fn callers_who_give_up_make_room() {
    let world = World::new(Keys::P256);
    let tasks = Tasks::new();
    // Something that accepts and never answers: the stream stays opening, and everything queued.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = format!("localhost:{}", silent.local_addr().expect("address").port());
    let client = world.trust(world.hospital.identity("peer0"), None);
    let target = Target::new(address, Role::Orderer, None);
    let large = "x".repeat(100);
    let config = mux::Config {
        queue_bytes_max: 1_000,
        ..mux::Config::default()
    };
    let mux = Mux::<Broadcast>::start(&tasks, client.channel(&target).expect("channel"), config);
    let mut waits = Box::pin(mux.call(request(&large), 60 * SECOND));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    for _ in 0..1_000 {
        let mut gives_up = Box::pin(mux.call(request(&large), 60 * SECOND));
        assert!(futures::poll!(gives_up.as_mut()).is_pending(), "there is room");
        drop(gives_up);
        assert!(mux.depth().queue_bytes < 500);
    }
    assert_eq!(mux.depth().items, 1, "whoever waits still does");
    drop(waits);
    assert_eq!(
        mux.depth(),
        mux::Depth {
            items: 0,
            queue_bytes: 0
        }
    );
    tasks.cancel();
}

#[tokio::test]
async fn callers_learn_the_rule_that_their_stream_broke() {
    let world = World::new(Keys::P256);
    let server = world.orderer(Limits::default(), echo).await;
    let tasks = Tasks::new();
    let config = mux::Config {
        list_items_max: 4 * GRPC_LIST_ITEMS_MAX,
        ..mux::Config::default()
    };
    let mux = mux_to(&world, &server, &tasks, config);
    let mut calls: Vec<_> = (0..2 * GRPC_LIST_ITEMS_MAX)
        .map(|_| Box::pin(mux.call(request("x"), 5 * SECOND)))
        .collect();
    // Polled before the stream is open, so that they become one list.
    for call in &mut calls {
        assert!(futures::poll!(call.as_mut()).is_pending());
    }
    for outcome in futures::future::join_all(calls).await {
        let error = outcome.expect_err("refused");
        assert!(
            matches!(&error, CallError::Unknown(why) if why.contains("at most 1024 items in one list")),
            "{error}"
        );
    }
    tasks.cancel();
    server.stop().await;
}
