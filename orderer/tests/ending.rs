//! Two orderers over mTLS, of which one is asked to end while gateways go on sending: nothing is lost, nothing is
//! doubled, and nobody is left without knowing.

#[allow(dead_code)] // the other half is the in-process tests'
#[path = "in_process/support.rs"]
mod support;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::future::join_all;
use ledger_log::memory::{Faults, MemoryLog};
use orderer::{Broadcast, Orderer};
use protocol::testing::{TestNet, TestTx};
use service::{
    Code, Role, Tasks,
    health::Health,
    lists,
    mux::{self, Mux},
    problem::Problem,
    rpc::{self, broadcast_reply::Outcome},
    serve::{self, Access, Config},
    tls::{Target, Trust},
};
use tokio::time::{sleep, timeout};

use support::{identity, net, parts, read, request, transactions};

const LINGER: Duration = Duration::from_millis(100);
const DEADLINE: Duration = Duration::from_secs(20);
const COUNT: usize = 800;
const CALLERS: usize = 16;

async fn start(net: &TestNet, organisation: &str, log: MemoryLog, tasks: &Tasks) -> Target {
    let parts = parts(net, organisation, log);
    let trust = Trust::load(parts.identity.clone(), net.channel.members.clone(), None).expect("a member");
    let orderer = Orderer::start(tasks, &Health::new(), parts).expect("parts fit");
    let listener = serve::bind("127.0.0.1:0".parse().expect("an address"))
        .await
        .expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let routes = serve::grpc(rpc::orderer_server(Broadcast::new(orderer.clone(), tasks.clone())));
    let access = Access::new().allow(rpc::path::ORDERER, |caller| caller.role == Role::Peer);
    serve::serve(tasks, listener, trust, routes, access, Config::default()).expect("serves");
    let opened = async {
        while !orderer.is_open() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, opened).await.expect("opens");
    Target::new(format!("localhost:{port}"), Role::Orderer, None)
}

/// As a gateway does: what was surely not done is offered to the next one. How often it was.
async fn send(orderers: &[Mux<lists::Broadcast>; 2], tx: &TestTx) -> usize {
    for tried in 0..20 {
        match orderers[tried % 2].call(request(tx), DEADLINE).await {
            Ok(reply) => match reply.outcome.expect("an outcome") {
                Outcome::Receipt(_) => return tried,
                Outcome::Problem(problem) => {
                    assert_eq!(Problem::from(problem).code, Code::Unavailable);
                }
            },
            Err(error) => assert!(error.surely_undone(), "{error}"),
        }
    }
    panic!("nobody orders it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderer_that_ends_under_load_costs_tries_elsewhere_and_nothing_else() {
    let net = net();
    let faults = Faults {
        acknowledge_delay_max: Duration::from_millis(10),
        ..Faults::default()
    };
    let log = MemoryLog::new(3, faults);
    let (ending, staying) = (Tasks::lingering(LINGER), Tasks::new());
    let targets = [
        start(&net, "HospitalA", log.clone(), &ending).await,
        start(&net, "HospitalB", log.another(), &staying).await,
    ];
    let gateway_trust = Trust::load(identity(&net, "HospitalA", "peer0"), net.channel.members.clone(), None);
    let (trust, clients) = (gateway_trust.expect("a member"), Tasks::new());
    let orderers = targets.map(|target| {
        let channel = trust.channel(&target).expect("a channel");
        Mux::<lists::Broadcast>::start(&clients, channel, mux::Config::default())
    });
    let txs = transactions(&net, COUNT);
    let (next, elsewhere) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let callers = join_all((0..CALLERS).map(|_| async {
        while let Some(tx) = txs.get(next.fetch_add(1, Ordering::Relaxed)) {
            elsewhere.fetch_add(send(&orderers, tx).await, Ordering::Relaxed);
        }
    }));
    let end = async {
        while next.load(Ordering::Relaxed) < COUNT / 8 {
            sleep(Duration::from_millis(1)).await;
        }
        ending.leave();
        ending.wait(Duration::from_secs(10)).await
    };
    let (_, ended) = tokio::join!(callers, end);
    ended.expect("ends in order");
    assert!(elsewhere.load(Ordering::Relaxed) > 0, "somebody had to try again");
    let ordered = read(&net, &log);
    for tx in &txs {
        assert_eq!(ordered.places[&tx.tx_id].len(), 1, "exactly once");
    }
    clients.cancel();
    staying.cancel();
    staying.wait(Duration::from_secs(10)).await.expect("ends");
}
