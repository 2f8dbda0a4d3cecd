//! Conversations between peer and worker: questions and answers within one exchange, messages that belong
//! to none, and exchanges that end badly.

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::identity::Role;
use protocol::testing::Keys;
use service::calls::Work;
use service::duplex::{Duplex, Exchange};
use service::lists::{Conversation, Limits, ReplyStream, converse};
use service::mux::{self, CallError};
use service::rpc::from_worker::Message as From;
use service::rpc::question::Question as Asked;
use service::rpc::to_worker::Message as To;
use service::rpc::{self, Done, Entry, FromWorker, Invocation, KeysWanted, Module, NeedModule, Question, ToWorker};
use service::serve::{Access, Config};
use service::tls::Target;
use service::{OnFailure, Tasks};
use support::{SECOND, World, until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

struct TestWorker {
    tasks: Tasks,
    modules: Arc<Mutex<Vec<Vec<u8>>>>,
}

#[tonic::async_trait]
impl rpc::worker_server::Worker for TestWorker {
    type InvokeStream = ReplyStream<Work>;

    async fn invoke(
        &self,
        request: Request<Streaming<rpc::ToWorkerList>>,
    ) -> Result<Response<Self::InvokeStream>, Status> {
        let (modules, known) = (self.modules.clone(), self.modules.clone());
        let handler = move |conversation| work(conversation, known.clone());
        converse::<Work, _, _, _>(&self.tasks, request, Limits::default(), handler, move |alone| {
            if let Some(To::Module(module)) = alone.message {
                modules.lock().push(module.digest);
            }
        })
    }
}

fn from(message: From) -> FromWorker {
    FromWorker {
        message: Some(message),
        ..Default::default()
    }
}

fn to(message: To) -> ToWorker {
    ToWorker {
        message: Some(message),
        ..Default::default()
    }
}

/// Asks for its module, then for a key, and gives back its value; `abandon` ends without a word.
async fn work(mut conversation: Conversation<Work>, modules: Arc<Mutex<Vec<Vec<u8>>>>) {
    let Some(To::Invoke(invocation)) = conversation.first.message.take() else {
        return;
    };
    if invocation.function == "abandon" {
        return;
    }
    if !modules.lock().contains(&invocation.digest) {
        conversation.say(from(From::NeedModule(NeedModule {
            digest: invocation.digest.clone(),
        })));
        until("the module comes", || modules.lock().contains(&invocation.digest)).await;
    }
    let keys = KeysWanted {
        keys: vec![invocation.arguments.clone()],
    };
    conversation.say(from(From::Question(Question {
        question: Some(Asked::Keys(keys)),
    })));
    let Some(To::Answer(answer)) = conversation.next(5 * SECOND).await.and_then(|item| item.message) else {
        return;
    };
    let response = answer
        .entries
        .first()
        .map(|entry| entry.value.clone())
        .unwrap_or_default();
    conversation.end(from(From::Done(Done {
        response,
        ..Default::default()
    })));
}

/// Digests that somebody has sent already: as a peer does, a module goes to a worker once, whoever is asked for it.
type Sent = Mutex<HashSet<Vec<u8>>>;

/// The peer's side of one call.
async fn invoke(duplex: &Duplex<Work>, sent: &Sent, digest: u8, key: &str) -> Vec<u8> {
    let invocation = Invocation {
        digest: vec![digest],
        arguments: key.as_bytes().to_vec(),
        ..Default::default()
    };
    let mut exchange = duplex.open(to(To::Invoke(invocation))).expect("open");
    loop {
        match next(&mut exchange).await {
            From::NeedModule(need) => {
                if sent.lock().insert(need.digest.clone()) {
                    duplex.send_alone(module(need.digest, 100_000)).expect("send");
                }
            }
            From::Question(Question {
                question: Some(Asked::Keys(wanted)),
            }) => {
                let value = [b"value of ".as_slice(), &wanted.keys[0]].concat();
                let entry = Entry {
                    key: wanted.keys[0].clone(),
                    present: true,
                    value,
                };
                exchange
                    .send(to(To::Answer(rpc::Answer {
                        entries: vec![entry],
                        ..Default::default()
                    })))
                    .expect("send");
            }
            From::Done(done) => return done.response,
            other => panic!("{other:?}"),
        }
    }
}

fn module(digest: Vec<u8>, bytes: usize) -> ToWorker {
    let component = vec![0; bytes];
    to(To::Module(Module { digest, component }))
}

/// A worker with these modules until `tasks` end; its address.
async fn serve(tasks: &Tasks, world: &World, modules: Vec<Vec<u8>>, access: Access) -> String {
    let worker = TestWorker {
        tasks: tasks.clone(),
        modules: Arc::new(Mutex::new(modules)),
    };
    let listener = service::serve::bind("127.0.0.1:0".parse().expect("address"))
        .await
        .expect("bind");
    let address = format!("localhost:{}", listener.local_addr().expect("address").port());
    let trust = world.trust(world.hospital.identity("peer1"), None);
    let routes = service::serve::grpc(rpc::worker_server(worker));
    service::serve::serve(tasks, listener, trust, routes, access, Config::default()).expect("serve");
    address
}

fn anybody() -> Access {
    Access::new().allow(rpc::path::WORKER, |_| true)
}

async fn next(exchange: &mut Exchange<Work>) -> From {
    exchange
        .next(5 * SECOND)
        .await
        .expect("a message")
        .message
        .expect("not empty")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanges_go_back_and_forth_side_by_side() {
    let world = World::new(Keys::P256);
    let tasks = Tasks::new();
    let access = Access::new().allow(rpc::path::WORKER, |caller| {
        caller.role == Role::Peer && caller.msp_id == "HospitalA"
    });
    let address = serve(&tasks, &world, Vec::new(), access).await;

    let ours = Tasks::new();
    let client = world.trust(world.hospital.identity("peer0"), None);
    let channel = client
        .channel(&Target::new(&address, Role::Peer, Some("HospitalA")))
        .expect("channel");
    let duplex = Duplex::<Work>::start(&ours, channel, mux::Config::default());
    let sent = Sent::default();
    let calls = (0..500_u32).map(|n| {
        let (duplex, sent) = (duplex.clone(), &sent);
        async move {
            let key = format!("key {n}");
            assert_eq!(
                invoke(&duplex, sent, (n % 3) as u8, &key).await,
                format!("value of {key}").into_bytes()
            );
        }
    });
    futures::future::join_all(calls).await;
    assert_eq!(sent.lock().len(), 3);
    assert_eq!(duplex.depth().items, 0);

    // A worker that says nothing is answered for.
    let abandon = Invocation {
        function: "abandon".to_owned(),
        ..Default::default()
    };
    let mut exchange = duplex.open(to(To::Invoke(abandon))).expect("open");
    let From::Failed(failed) = next(&mut exchange).await else {
        panic!("not failed")
    };
    assert_eq!(failed.code, "internal");

    // The end of the worker ends open exchanges.
    let hold = Invocation {
        digest: vec![99],
        ..Default::default()
    };
    let mut exchange = duplex.open(to(To::Invoke(hold))).expect("open");
    assert!(matches!(next(&mut exchange).await, From::NeedModule(_)));
    tasks.cancel();
    let outcome = exchange.next(10 * SECOND).await;
    assert!(
        matches!(&outcome, Err(CallError::Unknown(_)))
            || matches!(
                &outcome,
                Ok(FromWorker {
                    message: Some(From::Failed(_)),
                    ..
                })
            ),
        "{outcome:?}"
    );
    tokio::time::timeout(20 * SECOND, tasks.wait(15 * SECOND))
        .await
        .expect("in time")
        .expect("ends");

    // Another organisation's worker is not called.
    ours.cancel();
    let _ = ours.wait(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_on_a_worker_that_ends_are_done_or_lost_to_another() {
    let world = World::new(Keys::P256);
    let tasks = Tasks::new();
    let address = serve(&tasks, &world, vec![vec![7]], anybody()).await;

    let (client, ours) = (world.trust(world.hospital.identity("peer0"), None), Tasks::new());
    let channel = client
        .channel(&Target::new(&address, Role::Peer, None))
        .expect("channel");
    let duplex = Duplex::<Work>::start(&ours, channel, mux::Config::default());
    until("the stream is open", || duplex.is_up()).await;
    let (done, calling) = (Arc::new(Mutex::new(0)), Tasks::new());
    let callers = (0..16).map(|_| {
        let (duplex, done) = (duplex.clone(), done.clone());
        // Until the worker is away.
        async move {
            loop {
                let invocation = Invocation {
                    digest: vec![7],
                    ..Default::default()
                };
                let mut exchange = match duplex.open(to(To::Invoke(invocation))) {
                    Ok(exchange) => exchange,
                    Err(CallError::Unsent(_)) => return,
                    Err(error) => panic!("{error}"),
                };
                loop {
                    match exchange.next(5 * SECOND).await.map(|said| said.message) {
                        Ok(Some(From::Question(_))) => {
                            let _ = exchange.send(to(To::Answer(rpc::Answer::default())));
                        }
                        Ok(Some(From::Done(_))) => {
                            *done.lock() += 1;
                            break;
                        }
                        Ok(Some(From::Failed(failed))) => {
                            assert_eq!(failed.code, "unavailable");
                            break;
                        }
                        Err(error) if error.surely_undone() => break,
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
    });
    for caller in callers {
        calling.spawn("caller", OnFailure::StopProcess, caller);
    }
    until("calls are done", || *done.lock() > 200).await;
    tasks.cancel();
    tasks.wait(2 * SECOND).await.expect("ends, however much it is called");
    calling.cancel();
    calling.wait(5 * SECOND).await.expect("no caller failed");
    ours.cancel();
}

#[tokio::test]
async fn a_full_queue_refuses_what_is_sent_alone_and_keeps_the_rest() {
    let world = World::new(Keys::P256);
    let ours = Tasks::new();
    // Something that accepts and never answers: the stream stays opening, and everything queued.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = format!("localhost:{}", silent.local_addr().expect("address").port());
    let client = world.trust(world.hospital.identity("peer0"), None);
    let channel = client
        .channel(&Target::new(&address, Role::Worker, Some("HospitalA")))
        .expect("channel");
    let config = mux::Config {
        queue_bytes_max: 1_000,
        items_max: 4,
        ..mux::Config::default()
    };
    let full = Err(CallError::Full {
        retry_after: config.retry_after,
    });
    let duplex = Duplex::<Work>::start(&ours, channel.clone(), config.clone());
    // Larger than the queue, but nothing is refused for ever.
    assert_eq!(duplex.send_alone(module(vec![1], 5_000)), Ok(()));
    let before = duplex.depth();
    assert_eq!(duplex.send_alone(module(vec![2], 10)), full);
    assert_eq!(duplex.open(to(To::Invoke(Invocation::default()))).map(|_| ()), full);
    assert_eq!(duplex.depth(), before, "what was refused has left nothing");

    // Items are bounded as bytes are.
    let duplex = Duplex::<Work>::start(&ours, channel, config);
    for digest in 0..4 {
        assert_eq!(duplex.send_alone(module(vec![digest], 10)), Ok(()));
    }
    assert_eq!(duplex.send_alone(module(vec![4], 10)), full);
    ours.cancel();
}

#[tokio::test]
async fn an_exchange_under_way_keeps_its_id() {
    let world = World::new(Keys::P256);
    let tasks = Tasks::new();
    let address = serve(&tasks, &world, vec![vec![7]], anybody()).await;

    let client = world.trust(world.hospital.identity("peer0"), None);
    let channel = client
        .channel(&Target::new(&address, Role::Peer, None))
        .expect("channel");
    let (lists, receiver) = tokio::sync::mpsc::channel(4);
    let say = async |message: To| {
        let item = ToWorker {
            id: 5,
            message: Some(message),
        };
        let list = rpc::ToWorkerList { items: vec![item] };
        lists.send(list).await.expect("open");
    };
    let invocation = Invocation {
        digest: vec![7],
        ..Default::default()
    };
    say(To::Invoke(invocation.clone())).await;
    let mut replies = rpc::worker_client(channel)
        .invoke(ReceiverStream::new(receiver))
        .await
        .expect("a stream")
        .into_inner();
    let mut hear = async || {
        let heard = tokio::time::timeout(5 * SECOND, replies.message())
            .await
            .expect("in time");
        let mut items = heard.expect("a list").expect("not the end").items;
        assert_eq!((items.len(), items[0].id), (1, 5));
        items.remove(0).message.expect("not empty")
    };
    assert!(matches!(hear().await, From::Question(_)));
    // A second one under the same id is refused, and does not take the first one's answers.
    say(To::Invoke(invocation)).await;
    assert!(matches!(hear().await, From::Failed(failed) if failed.code == "invalid_argument"));
    say(To::Answer(rpc::Answer::default())).await;
    assert!(matches!(hear().await, From::Done(_)));
    tasks.cancel();
    drop(lists);
    tasks.wait(15 * SECOND).await.expect("ends");
}
