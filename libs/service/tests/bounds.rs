//! What one account can make a server hold: replies that it does not read, requests that it does not end.

#![allow(clippy::disallowed_methods)] // tests wait for what they spawn themselves

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use protocol::testing::Keys;
use service::calls::Broadcast;
use service::lists::{Budget, Limits};
use service::mux::{self, Mux};
use service::rpc::{self, BroadcastRequests};
use service::serve::Config;
use service::tls::Trust;
use service::{Code, Problem, Tasks};
use support::{Running, SECOND, World, echo, orderer_at, problem, request, text, until, whoami};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

const LONG: usize = 256 * 1024;
const ASKED: usize = 200;

type Lists = mpsc::Sender<BroadcastRequests>;

async fn open(trust: &Arc<Trust>, server: &Running) -> (Lists, Streaming<rpc::BroadcastReplies>) {
    let (lists, receiver) = mpsc::channel(ASKED);
    let channel = trust.channel(&server.target()).expect("channel");
    let replies = rpc::orderer_client(channel)
        .broadcast_lists(ReceiverStream::new(receiver))
        .await;
    (lists, replies.expect("a stream").into_inner())
}

#[tokio::test]
async fn one_who_does_not_read_gets_no_more_than_his_part_of_the_memory() {
    let world = World::new(Keys::P256);
    let limits = Limits {
        budget: Budget::new(16 * LONG, 8 * LONG),
        ready_bytes_max: usize::MAX,
        ..Limits::default()
    };
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let long = move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { echo(request(&"x".repeat(LONG))).await }
    };
    let server = world.orderer(limits, long).await;
    let silent = world.trust(world.hospital.identity("peer0"), None);
    let (lists, mut replies) = open(&silent, &server).await;
    for _ in 0..ASKED {
        let items = vec![request("a")];
        lists.send(BroadcastRequests { items }).await.expect("open");
    }
    until("all are answered", || made.load(Ordering::SeqCst) == ASKED).await;

    // Whoever else asks is served as ever.
    let tasks = Tasks::new();
    let other = world.trust(world.relief.identity("peer0"), None);
    let channel = other.channel(&server.target()).expect("channel");
    let mux = Mux::<Broadcast>::start(&tasks, channel, mux::Config::default());
    let reply = mux.call(request("b"), 5 * SECOND).await.expect("a reply");
    assert_eq!(text(reply).len(), LONG);

    // Every request has its answer: the long one, or why it is not there.
    drop(lists);
    let (mut whole, mut left_out) = (0, 0);
    while let Some(list) = replies.message().await.expect("a list") {
        for reply in list.items {
            let problem = problem(reply);
            if problem.detail.len() == LONG {
                whole += 1;
            } else {
                assert_eq!(problem.code, Code::UnknownOutcome.as_str());
                left_out += 1;
            }
        }
    }
    assert_eq!(whole + left_out, ASKED);
    assert!(whole >= 8 && left_out > 0, "{whole} whole, {left_out} left out");

    // What has been read makes room.
    let mux = Mux::<Broadcast>::start(
        &tasks,
        silent.channel(&server.target()).expect("channel"),
        mux::Config::default(),
    );
    let reply = mux.call(request("a"), 5 * SECOND).await.expect("a reply");
    assert_eq!(text(reply).len(), LONG);
    tasks.cancel();
    server.stop().await;
}

#[tokio::test]
async fn one_who_does_not_read_refusals_loses_the_stream() {
    let world = World::new(Keys::P256);
    let limits = Limits {
        in_flight_items_max: 0,
        budget: Budget::new(1 << 20, 64 * 1024),
        ..Limits::default()
    };
    let server = world.orderer(limits, echo).await;
    let client = world.trust(world.hospital.identity("peer0"), None);
    let (lists, mut replies) = open(&client, &server).await;
    // More refusals than the account may have waiting, before one of them can leave.
    let items = vec![request("a"); 1_000];
    lists.send(BroadcastRequests { items }).await.expect("open");
    let mut refused = 0;
    let status = loop {
        match replies.message().await {
            Ok(Some(list)) => refused += list.items.len(),
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => break status,
        }
    };
    let problem = Problem::from(status);
    assert_eq!(problem.code, Code::ResourceExhausted, "{problem}");
    assert!((1..1_000).contains(&refused), "{refused}");
    server.tasks.cancel();
}

#[tokio::test]
async fn one_identity_cannot_have_any_number_of_requests_under_way() {
    let world = World::new(Keys::P256);
    let config = Config {
        requests_per_identity_max: 2,
        ..Config::default()
    };
    let trust = world.trust(world.relief.identity("orderer0"), None);
    let anywhere = "127.0.0.1:0".parse().expect("address");
    let server = orderer_at(trust, Limits::default(), config, anywhere, echo).await;
    let client = world.trust(world.hospital.identity("peer0"), None);
    let first = open(&client, &server).await;
    let _second = open(&client, &server).await;

    // On whichever connection.
    let refused = whoami(client.channel(&server.target()).expect("channel")).await;
    let problem = Problem::from(refused.expect_err("one too many"));
    assert_eq!(problem.code, Code::ResourceExhausted);
    assert!(problem.retry_after.is_some());

    let other = world.trust(world.relief.identity("peer0"), None);
    whoami(other.channel(&server.target()).expect("channel"))
        .await
        .expect("served");

    drop(first);
    let mut served = false;
    for _ in 0..500 {
        let channel = client.channel(&server.target()).expect("channel");
        served = whoami(channel).await.is_ok();
        if served {
            break;
        }
        tokio::time::sleep(SECOND / 100).await;
    }
    assert!(served, "one that is over makes room");
    server.tasks.cancel();
}
