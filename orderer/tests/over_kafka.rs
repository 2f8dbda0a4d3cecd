//! The whole process on a real Kafka, asked over mTLS: what the in-process tests leave out.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use futures::future::join_all;
use ledger_log::local::{LocalKafka, LocalKafkaSettings};
use orderer::config::Config;
use prost::Message;
use protocol::{
    ledger::ReceiptContent,
    testing::{Keys, Spec, TestNet, TestTx},
};
use service::{
    Identity, Role, Tasks,
    lists::Broadcast,
    mux::{self, Mux},
    rpc::{self, BroadcastReply, BroadcastRequest, broadcast_reply::Outcome},
    settings,
    tls::{Target, Trust},
};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// Writes what an operator would.
fn write_config(directory: &Path, net: &TestNet, listen: SocketAddr, health: SocketAddr, brokers: &[String]) -> Config {
    std::fs::write(directory.join("genesis.bin"), net.genesis_bytes()).expect("written");
    std::fs::write(directory.join("records.wasm"), &net.contract("records").component).expect("written");
    net.identity("HospitalA", "orderer0")
        .write(&directory.join("identity"))
        .expect("written");
    let text = format!(
        r#"
genesis = "genesis.bin"
modules = ["records.wasm"]
identity = "identity"
listen = "{listen}"
health = "{health}"
allow_unsafe_topics = true
[kafka]
brokers = {brokers:?}
"#
    );
    let file = directory.join("orderer.toml");
    std::fs::write(&file, text).expect("written");
    settings::load(&file).expect("valid")
}

async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound")
}

fn trust(directory: &Path, net: &TestNet, name: &str) -> Arc<Trust> {
    let directory = directory.join(name);
    net.identity("HospitalB", name).write(&directory).expect("written");
    let identity = Arc::new(Identity::load(&directory).expect("loaded"));
    Trust::load(identity, net.channel.members.clone(), None).expect("a member")
}

fn request(tx: &TestTx) -> BroadcastRequest {
    BroadcastRequest {
        id: 0,
        transaction: tx.bytes.clone(),
        certificates: tx.certificates.clone(),
    }
}

fn height(reply: &BroadcastReply) -> u64 {
    match &reply.outcome {
        Some(Outcome::Receipt(receipt)) => ReceiptContent::decode(&receipt.content[..]).expect("content").height,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_over_mutual_tls_and_ends_gracefully() {
    let directory = tempfile::tempdir().expect("a directory");
    let kafka = LocalKafkaSettings {
        directory: directory.path().join("kafka"),
        brokers: 1,
        port: None,
    };
    let kafka = LocalKafka::start(kafka).await.expect("Kafka starts");
    let net = TestNet::with(Spec {
        keys: Keys::P256,
        ..Spec::default()
    });
    let (listen, health) = (free_address().await, free_address().await);
    let config = write_config(directory.path(), &net, listen, health, &kafka.bootstrap());
    let tasks = Tasks::new();
    orderer::run(config, &tasks).await.expect("starts");

    let target = Target::new(listen.to_string(), Role::Orderer, Some("HospitalA"));
    let peer = trust(directory.path(), &net, "peer0")
        .channel(&target)
        .expect("a channel");
    let mut unary = rpc::orderer_client(peer.clone());
    let first = net.tx("patient-1").height_bound(60_000).write(b"record", b"{}").build();
    let opened = async {
        loop {
            let reply = unary.broadcast(request(&first)).await.expect("answers").into_inner();
            match &reply.outcome {
                Some(Outcome::Problem(problem)) if problem.code == "unavailable" => {
                    sleep(Duration::from_millis(20)).await;
                }
                _ => return reply,
            }
        }
    };
    let reply = timeout(DEADLINE, opened).await.expect("opens");
    assert!(height(&reply) >= 1, "after the marker");

    // A client has no business here.
    let client = trust(directory.path(), &net, "client0")
        .channel(&target)
        .expect("a channel");
    let status = rpc::orderer_client(client)
        .broadcast(request(&first))
        .await
        .expect_err("a client");
    assert_eq!(status.code(), tonic::Code::PermissionDenied);

    let callers = Tasks::new();
    let mux: Mux<Broadcast> = Mux::start(&callers, peer, mux::Config::default());
    let txs: Vec<TestTx> = (0..500)
        .map(|i| net.tx(&format!("patient-{i}")).height_bound(60_000).build())
        .collect();
    let replies = join_all(txs.iter().map(|tx| mux.call(request(tx), DEADLINE))).await;
    for reply in &replies {
        height(reply.as_ref().expect("ordered"));
    }

    // Whoever was admitted before the end is answered.
    let last = net.tx("patient-1").height_bound(60_000).build();
    let end = async {
        sleep(Duration::from_millis(1)).await;
        tasks.cancel();
    };
    let (reply, ()) = tokio::join!(mux.call(request(&last), DEADLINE), end);
    match reply.expect("answered").outcome {
        Some(Outcome::Problem(problem)) => assert_eq!(problem.code, "unavailable", "came too late"),
        outcome => assert!(outcome.is_some()),
    }
    tasks.wait(DEADLINE).await.expect("ends");
    callers.cancel();
    kafka.stop().await.expect("stops");
}
