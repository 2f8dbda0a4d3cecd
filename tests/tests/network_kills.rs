//! Processes are killed with -9 under load; nothing acknowledged is lost or doubled.

use std::time::{Duration, Instant};

use medledger_cli::{
    calls,
    network::{Spec, layout::Kind, spec::RECORDS},
    patients,
};
use medledger_tests::network::{
    PATIENCE, World,
    client::{Client, End},
    load::{Load, Offer},
    small,
};
use nix::sys::signal::Signal;
use service::rpc::Finality;

/// Creates that every gateway must have acknowledged between one event and the next.
const SOME: u64 = 15;

/// Kills one process under load, sees the others go on where they can, starts it again, and sees it work.
async fn kill_and_start(world: &World, load: &Load, name: &str, kind: Kind) {
    world.kill(name).await;
    let others: Vec<String> = world.peers().into_iter().filter(|peer| peer != name).collect();
    load.goes_on(&others, SOME, &format!("after kill -9 of {name}")).await;
    world.start(name).await;
    let again = if kind == Kind::Peer {
        vec![name.to_owned()]
    } else {
        world.peers()
    };
    load.goes_on(&again, SOME, &format!("after {name} came back")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderer_a_peer_and_a_worker_are_killed_and_nothing_acknowledged_is_lost_or_doubled() {
    let mut spec = Spec::default();
    // The organisation with two peers has a second worker too.
    spec.organisations[0].workers = 2;
    let world = World::up(&spec).await;
    let load = Load::start(&world, &world.peers(), Offer::default());
    load.goes_on(&world.peers(), SOME, "before anything is killed").await;
    for (name, kind) in [
        ("orderer0", Kind::Orderer),
        ("worker0.HospitalA", Kind::Worker),
        ("peer0.HospitalA", Kind::Peer),
        ("orderer1", Kind::Orderer),
        ("peer0.ReliefOrg", Kind::Peer),
    ] {
        kill_and_start(&world, &load, name, kind).await;
    }
    let mut book = load.stop().await;
    let found = world.check(&mut book).await;
    assert_eq!(found.peers, 5, "{found:?}");
    world.check_logs(&[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_broker_of_three_is_killed_and_nothing_acknowledged_is_lost_or_doubled() {
    let mut spec = small();
    spec.kafka.brokers = 3;
    let world = World::up(&spec).await;
    let load = Load::start(&world, &world.peers(), Offer::default());
    load.goes_on(&world.peers(), SOME, "before anything is killed").await;
    // Two of them, one after the other: at least one leads something, and may be the controller.
    for broker in &world.names(Kind::Broker)[..2] {
        kill_and_start(&world, &load, broker, Kind::Broker).await;
    }
    let mut book = load.stop().await;
    let found = world.check(&mut book).await;
    assert_eq!(found.peers, 4, "{found:?}");
    world.check_logs(&[]);
}

/// A gateway with its own quota of places, so that a small machine can offer several times what it takes.
fn narrow() -> Spec {
    let mut spec = small();
    spec.peer = toml::from_str("[limits]\nin_flight_max = 64").expect("settings");
    spec
}

/// Bytes of memory that no orderer, peer or worker may ever need for this little.
const RSS_BYTES_MAX: u64 = 600 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_times_the_capacity_is_refused_at_once_and_nothing_acknowledged_is_lost() {
    let world = World::up(&narrow()).await;
    let peers = world.peers();
    let alone = Load::start(
        &world,
        &peers,
        Offer {
            at_once: 8,
            ..Offer::default()
        },
    );
    alone.goes_on(&peers, 200, "within the capacity").await;
    let mut book = alone.stop().await;
    assert_eq!(
        book.words.get("resource_exhausted"),
        None,
        "nothing is refused within the capacity"
    );

    // Ten times the places of every gateway, all at once, and coming again at once.
    let flood = Offer {
        at_once: 640,
        first: 1_000_000,
        ..Offer::default()
    };
    let load = Load::start(&world, &peers, flood);
    let mut highest = Vec::new();
    for round in 0..10 {
        load.goes_on(&peers, 50, &format!("in the flood, round {round}")).await;
        let processes = world
            .network
            .description
            .processes
            .iter()
            .filter(|process| process.kind != Kind::Broker);
        for process in processes {
            let rss = world.rss_bytes(&process.name);
            assert!(
                rss < RSS_BYTES_MAX,
                "{} takes {} MB in the flood",
                process.name,
                rss >> 20
            );
            highest.push(rss);
        }
    }
    let flooded = load.stop().await;
    let refused = flooded.words.get("resource_exhausted").copied().unwrap_or(0);
    assert!(
        refused > 100,
        "several times the capacity was offered and {refused} were refused: {:?}",
        flooded.words
    );
    assert_eq!(flooded.without_delay, 0, "a refusal says when to come back");
    let (half, most) = (flooded.refusals_within(0.5), flooded.refusals_within(0.99));
    assert!(
        half < Duration::from_secs(1) && most < Duration::from_secs(5),
        "refused after {half:?}, {most:?}: not at once"
    );
    let others: Vec<_> = flooded
        .words
        .iter()
        .filter(|(word, _)| **word != "resource_exhausted")
        .collect();
    assert!(others.is_empty(), "refused for anything but want of room: {others:?}");
    book.join(flooded);
    world.check(&mut book).await;
    world.check_logs(&[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_kafka_reads_go_on_and_writes_are_refused_and_afterwards_all_goes_on_by_itself() {
    let mut spec = small();
    // Bring an unknown outcome forward, so that the frozen broker is a matter of seconds here.
    spec.orderer = toml::from_str("[kafka]\nappend_timeout_ms = 3000").expect("settings");
    let world = World::up(&spec).await;
    let peers = world.peers();
    let load = Load::start(
        &world,
        &peers,
        Offer {
            at_once: 2,
            ..Offer::default()
        },
    );
    load.goes_on(&peers, SOME, "before Kafka is away").await;
    let mut book = load.stop().await;
    let client = world.client(&peers[0], "physician");
    let patient = patients::patient(patients::SEED, 5_000_000);
    client.must(calls::create(RECORDS, &patient)).await;

    // Dead: nothing is sent, so the refusal is sure.
    world.kill("kafka0").await;
    let load = Load::start(
        &world,
        &peers,
        Offer {
            at_once: 2,
            first: 1_000_000,
            within: Duration::from_secs(10),
            ..Offer::default()
        },
    );
    away(&world, &client, &patient.personal_number).await;
    refused(&client, 6_000_000, &["log_unavailable"]).await;
    restarted_without_kafka(&world, &patient.personal_number).await;
    world.start("kafka0").await;
    load.goes_on(&peers, SOME, "after Kafka came back").await;
    back(&world).await;
    book.join(load.stop().await);

    // Frozen: what was sent may be in the log, and whoever says so is right.
    world.signal("kafka0", Signal::SIGSTOP).await;
    let load = Load::start(
        &world,
        &peers,
        Offer {
            at_once: 2,
            first: 2_000_000,
            within: Duration::from_secs(10),
            ..Offer::default()
        },
    );
    away(&world, &client, &patient.personal_number).await;
    refused(&client, 6_000_001, &["log_unavailable", "unknown_outcome"]).await;
    world.signal("kafka0", Signal::SIGCONT).await;
    load.goes_on(&peers, SOME, "after Kafka thawed").await;
    back(&world).await;
    book.join(load.stop().await);
    world.check(&mut book).await;
    world.check_logs(&[]);
}

/// Everyone says that the log is away and stays ready; reads are answered.
async fn away(world: &World, client: &Client, number: &str) {
    for name in world.peers() {
        world.until_health(&name, "kafka", "degraded").await;
    }
    for name in world.names(Kind::Orderer) {
        world.until_health(&name, "kafka", "degraded").await;
    }
    for name in world.peers().into_iter().chain(world.names(Kind::Orderer)) {
        let (ready, report) = world.health(&name).await;
        assert_eq!(ready, 200, "{name} still serves what it can: {report}");
    }
    assert!(
        !world.ask(client.peer()).await.log_reachable,
        "the peer's account says that the log is away"
    );
    let record = client
        .evaluate(calls::get(RECORDS, number), Duration::from_secs(5))
        .await
        .expect("reads go on");
    assert_eq!(record["personalNumber"], number);
}

/// A write is answered in time, by one of these words.
async fn refused(client: &Client, index: u64, words: &[&str]) {
    let call = calls::create(RECORDS, &patients::patient(patients::SEED, index));
    let asked = Instant::now();
    let (_, end) = client.send(call, Finality::Committed, Duration::from_secs(15)).await;
    let word = match &end {
        End::Refused(problem) => {
            assert!(
                problem.retry_after.is_some(),
                "a refusal says when to come back: {problem:?}"
            );
            problem.code.as_str()
        }
        End::Unknown(_) => "unknown_outcome",
        end => panic!("without Kafka a write ended with {end:?}"),
    };
    assert!(
        words.contains(&word),
        "without Kafka a write ended with {word}: {end:?}"
    );
    assert!(
        asked.elapsed() < Duration::from_secs(17),
        "a write hung for {:?}",
        asked.elapsed()
    );
}

/// A peer needs no Kafka to start and to answer from what it has: everything after an end in order. What `kill -9` takes of
/// the newest derived state is read from the log again, which is away here.
async fn restarted_without_kafka(world: &World, number: &str) {
    let name = world.peers().pop().expect("a peer");
    let before = world.ask(&name).await;
    world.signal(&name, Signal::SIGTERM).await;
    world.start(&name).await;
    let after = world.ask(&name).await;
    for (old, new) in before.chains.iter().zip(&after.chains) {
        assert_eq!(
            (old.partition, old.blocks, &old.header),
            (new.partition, new.blocks, &new.header),
            "{name}"
        );
    }
    // Until it knows that nobody tells it where the log ends, it answers nothing: it may have been told more before.
    world.until_health(&name, "replay", "degraded").await;
    let client = world.client(&name, "physician");
    let record = client
        .evaluate(calls::get(RECORDS, number), PATIENCE)
        .await
        .expect("reads go on after a restart");
    assert_eq!(record["personalNumber"], number);
}

async fn back(world: &World) {
    for name in world.peers() {
        world.until_health(&name, "kafka", "ok").await;
    }
    for name in world.names(Kind::Orderer) {
        world.until_health(&name, "kafka", "ok").await;
    }
}
