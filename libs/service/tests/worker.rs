//! Conversations between peer and worker: questions and answers within one exchange, messages that belong
//! to none, and exchanges that end badly.

mod support;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::identity::Role;
use protocol::testing::Keys;
use service::Tasks;
use service::calls::Work;
use service::duplex::{Duplex, Exchange};
use service::lists::{Conversation, Limits, ReplyStream, converse};
use service::mux;
use service::rpc::from_worker::Message as From;
use service::rpc::question::Question as Asked;
use service::rpc::to_worker::Message as To;
use service::rpc::{self, Done, Entry, FromWorker, Invocation, KeysWanted, Module, NeedModule, Question, ToWorker};
use service::serve::{Access, Config};
use service::tls::Target;
use support::{SECOND, World, until};
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

/// The peer's side of one call.
async fn invoke(duplex: &Duplex<Work>, digest: u8, key: &str) -> Vec<u8> {
    let invocation = Invocation {
        digest: vec![digest],
        arguments: key.as_bytes().to_vec(),
        ..Default::default()
    };
    let mut exchange = duplex.open(to(To::Invoke(invocation))).expect("open");
    loop {
        match next(&mut exchange).await {
            From::NeedModule(need) => {
                let module = Module {
                    digest: need.digest,
                    component: vec![0; 100_000],
                };
                duplex.send_alone(to(To::Module(module))).expect("send");
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
    let server = rpc::worker_server(TestWorker {
        tasks: tasks.clone(),
        modules: Arc::default(),
    });
    let access = Access::new().allow(rpc::path::WORKER, |caller| {
        caller.role == Role::Peer && caller.msp_id == "HospitalA"
    });
    let listener = service::serve::bind("127.0.0.1:0".parse().expect("address"))
        .await
        .expect("bind");
    let address = format!("localhost:{}", listener.local_addr().expect("address").port());
    let trust = world.trust(world.hospital.identity("peer1"), None);
    service::serve::serve(
        &tasks,
        listener,
        trust,
        service::serve::grpc(server),
        access,
        Config::default(),
    )
    .expect("serve");

    let ours = Tasks::new();
    let client = world.trust(world.hospital.identity("peer0"), None);
    let channel = client
        .channel(&Target::new(&address, Role::Peer, Some("HospitalA")))
        .expect("channel");
    let duplex = Duplex::<Work>::start(&ours, channel, mux::Config::default());
    let calls = (0..500_u32).map(|n| {
        let duplex = duplex.clone();
        async move {
            let key = format!("key {n}");
            assert_eq!(
                invoke(&duplex, (n % 3) as u8, &key).await,
                format!("value of {key}").into_bytes()
            );
        }
    });
    futures::future::join_all(calls).await;
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
        matches!(&outcome, Err(mux::CallError::Unknown(_)))
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
