//! Every declared metric moves on a real network under load, kills and lies; what cannot move here says why.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use ledger_log::Log as _;
use medledger_cli::{
    calls,
    network::{Spec, layout::Kind, layout::Process, ready, spec::RECORDS},
    patients,
    report::sample,
};
use medledger_tests::{
    metrics::Role,
    network::{
        PATIENCE, World,
        client::Client,
        load::{Load, Offer},
        small,
    },
};
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use prost::Message as _;
use protocol::ledger::{Attestation, AttestationList};
use serde_json::json;
use service::{OnFailure, Tasks, rpc::Finality};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

/// Gauges of what is short are above zero for moments only.
const LOOK_EVERY: Duration = Duration::from_millis(30);

/// What does not move on a healthy network that nobody inside lies to, and the test that provokes and reads it.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "medledger_call_refused_total",
        "a stream's queue must be full: service, tests/lists.rs",
    ),
    (
        "medledger_gateway_endorsement_mismatches_total",
        "two endorsers must disagree: peer, gateway/endorse/tests/differences.rs",
    ),
    (
        "medledger_gateway_endorser_faults_total",
        "an endorser must lie: peer, gateway/endorse/tests/differences.rs",
    ),
    (
        "medledger_gateway_receipt_faults_total",
        "an orderer must lie: peer, gateway/submit/tests.rs",
    ),
    (
        "medledger_orderer_append_retries_total",
        "Kafka's client must be full: orderer, tests/in_process/answers.rs",
    ),
    (
        "medledger_peer_attestations_contradicting_total",
        "an attester must lie: tests/bad_inputs/records.rs",
    ),
    (
        "medledger_peer_stopped",
        "a disk or the log must fail: peer, tests/inside/stops.rs",
    ),
    (
        "medledger_workers_retries_total",
        "a call must be under way when a worker dies: peer, workers/tests.rs",
    ),
    (
        "medledger_revoked_certificates",
        "there must be a revocation list: service, tests/tls.rs",
    ),
];

const REPORTER: &str = "peer0.MinistryOfHealth";

fn roles(process: &Process) -> &'static [Role] {
    match process.kind {
        Kind::Orderer => &[Role::Orderer],
        Kind::Peer if process.name == REPORTER => &[Role::Attester, Role::Reporter],
        Kind::Peer if process.attester => &[Role::Attester],
        Kind::Peer => &[Role::Peer],
        Kind::Worker => &[Role::Worker],
        Kind::Broker => &[],
    }
}

/// Names of metrics with a value above zero; of a histogram, with any observation.
fn moved(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let values = lines.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let name = series.split('{').next()?;
        (value.parse::<f64>().ok()? > 0.0).then_some(name)
    });
    // Buckets are counted up with their sum.
    values
        .filter(|name| !name.ends_with("_bucket"))
        .map(|name| name.strip_suffix("_count").unwrap_or(name))
}

/// Looks at all processes again and again, and keeps what has ever moved.
struct Watch {
    tasks: Tasks,
    moved: Arc<Mutex<BTreeSet<(Role, String)>>>,
}

impl Watch {
    fn start(world: &World) -> Watch {
        let watch = Watch {
            tasks: Tasks::new(),
            moved: Arc::default(),
        };
        let processes = world.network.description.processes.iter();
        for (process, role) in processes.flat_map(|process| roles(process).iter().map(move |role| (process, *role))) {
            let metrics = role.groups().into_iter().flatten();
            let names: BTreeSet<&str> = metrics.map(|metric| metric.about().name).collect();
            let (health, moved_here, token) =
                (process.health.clone(), watch.moved.clone(), watch.tasks.token().clone());
            watch.tasks.spawn("watch", OnFailure::StopProcess, async move {
                while !token.is_cancelled() {
                    // Those that were killed answer nothing.
                    if let Ok((200, text)) = ready::get(&health, "/metrics").await {
                        let mut all = moved_here.lock();
                        for name in moved(&text).filter(|name| names.contains(name)) {
                            all.insert((role, name.to_owned()));
                        }
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            });
        }
        watch
    }

    fn has(&self, role: Role, name: &str) -> bool {
        self.moved.lock().contains(&(role, name.to_owned()))
    }

    async fn until(&self, role: Role, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.has(role, name) {
            assert!(Instant::now() < deadline, "{name} of {role:?} does not move");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// With somebody else's worker, another peer and everything that clients ask.
fn spec() -> Spec {
    let mut spec = small();
    spec.organisations[0].peers = 2;
    spec.organisations[0].workers = 2;
    // Long enough for counts that are told.
    spec.reporting.set_periods(5, 1);
    spec
}

/// Of everything that a report tells; its gauges are those of one period, and the next one has others.
async fn reports(world: &World, watch: &Watch) {
    let load = sample::Load {
        contract: RECORDS.to_owned(),
        count: 400,
        over: Duration::from_secs(8),
        silent: 1,
        seed: patients::SEED,
    };
    sample::send(&world.network, &load).await.expect("the sample");
    watch.until(Role::Reporter, "medledger_report_alert").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_declared_metric_moves_or_says_why_it_cannot_here() {
    let world = World::up(&spec()).await;
    let watch = Watch::start(&world);
    let peers = world.peers();
    let clients: Vec<Arc<Client>> = peers.iter().map(|peer| world.client(peer, "physician")).collect();

    reads_and_conflicts(&world, &clients).await;
    strangers(&world).await;
    reports(&world, &watch).await;
    // An idle partition has heartbeats.
    watch.until(Role::Orderer, "medledger_orderer_heartbeats_total").await;

    let stream = world.blocks(&peers[0], 0, 0, 0).await;
    watch.until(Role::Attester, "medledger_gateway_streams").await;
    drop(stream);

    // So many at once that something waits everywhere.
    let crowd = Offer {
        at_once: 48,
        ..Offer::default()
    };
    let load = Load::start(&world, &peers, crowd);
    load.goes_on(&peers, 60, "in the crowd").await;
    queues(&watch, &clients).await;
    // A worker with calls under way, until one of them was tried again: chance, so not for ever.
    for _ in 0..5 {
        if watch.has(Role::Attester, "medledger_workers_retries_total") {
            break;
        }
        world.kill("worker0.HospitalA").await;
        load.goes_on(&peers, 15, "after kill -9 of a worker").await;
        world.start("worker0.HospitalA").await;
    }
    for name in ["orderer0", "peer0.HospitalA", "peer1.HospitalA"] {
        world.kill(name).await;
        if name == "peer0.HospitalA" {
            // A worker that begins has no modules, and only the other peer is there to send them.
            world.kill("worker0.HospitalA").await;
            world.start("worker0.HospitalA").await;
            watch.until(Role::Peer, "medledger_workers_modules_sent_total").await;
        }
        world.start(name).await;
        load.goes_on(&peers, 15, &format!("after {name} came back")).await;
    }
    load.stop().await;
    without_kafka(&world, &watch, &clients[0]).await;

    check(&watch);
    world.check_logs(&[]);
}

/// Everything that can be asked, and changes of one record at the same time.
async fn reads_and_conflicts(world: &World, clients: &[Arc<Client>]) {
    let patient = patients::patient(patients::SEED, 7_000_000);
    let number = &patient.personal_number;
    let (tx_id, done) = clients[0].must(calls::create(RECORDS, &patient)).await;
    let ends = world.ends().await;
    for client in clients {
        world.reached(client.peer(), &ends).await;
        let status = client
            .status(&tx_id, Finality::Attested, PATIENCE)
            .await
            .expect("a status");
        assert!(status.attested, "{status:?}");
        for call in [
            calls::get(RECORDS, number),
            calls::history(RECORDS, number, 0, None),
            calls::list(RECORDS, None, None),
        ] {
            client.evaluate(call, PATIENCE).await.expect("an answer");
        }
    }
    assert!(done.height > 0);
    let attested = calls::call(RECORDS, "addNote", &json!([number, {"information": "attested"}]));
    clients[0].send(attested, Finality::Attested, PATIENCE).await;
    for round in 0..3 {
        let notes = clients.iter().map(|client| async move {
            let text = format!("{round} {}", client.peer());
            let call = calls::call(RECORDS, "addNote", &json!([number, {"information": text}]));
            client.send(call, Finality::Committed, PATIENCE).await
        });
        join_all(notes).await;
    }
}

/// Who may write to the log can write anything, and who may connect can be silent.
async fn strangers(world: &World) {
    world.inject(0, b"nothing".to_vec()).await;
    let attest = ledger_log::topics::Topics::of_channel(&world.network.channel).attest();
    let list = AttestationList {
        attestations: vec![Attestation {
            content: b"nothing".to_vec(),
            signature: None,
        }],
    };
    let appended = world.log().append(&attest, list.encode_to_vec().into()).await;
    appended.expect("Kafka takes it");
    for process in &world.network.description.processes {
        if !roles(process).is_empty() {
            let mut silent = TcpStream::connect(&process.listen).await.expect("a connection");
            let closed = tokio::time::timeout(PATIENCE, silent.read(&mut [0])).await;
            closed.expect("closed in time").expect("closed in order");
        }
    }
}

/// Queries of many while others write, until each queue has held something.
async fn queues(watch: &Watch, clients: &[Arc<Client>]) {
    let short = [
        (Role::Worker, "medledger_worker_queue_items"),
        (Role::Worker, "medledger_worker_queue_bytes"),
        (Role::Worker, "medledger_worker_running"),
        (Role::Worker, "medledger_worker_waiting"),
        (Role::Worker, "medledger_serve_in_flight"),
        (Role::Orderer, "medledger_orderer_in_flight_bytes"),
        (Role::Attester, "medledger_call_queue_bytes"),
        (Role::Attester, "medledger_log_append_in_flight_bytes"),
        (Role::Attester, "medledger_peer_commit_queue_bytes"),
        (Role::Peer, "medledger_peer_commit_queue_bytes"),
        (Role::Peer, "medledger_call_queue_bytes"),
    ];
    let deadline = Instant::now() + PATIENCE;
    while let Some((role, name)) = short.iter().find(|(role, name)| !watch.has(*role, name)) {
        assert!(Instant::now() < deadline, "{name} of {role:?} does not move");
        let asked = clients
            .iter()
            .flat_map(|client| (0..16).map(move |_| client.evaluate(calls::list(RECORDS, None, None), PATIENCE)));
        // A full gate may refuse some of them.
        join_all(asked).await;
    }
}

/// Writes are refused, and everybody says that Kafka is away; then it is back.
async fn without_kafka(world: &World, watch: &Watch, client: &Client) {
    let broker = world.names(Kind::Broker).pop().expect("a broker");
    world.signal(&broker, Signal::SIGKILL).await;
    for name in world.names(Kind::Orderer) {
        world.until_health(&name, "kafka", "degraded").await;
    }
    let call = calls::create(RECORDS, &patients::patient(patients::SEED, 8_000_000));
    client.send(call, Finality::Committed, Duration::from_secs(10)).await;
    watch.until(Role::Orderer, "medledger_orderer_refused_total").await;
    for role in [Role::Orderer, Role::Attester, Role::Peer] {
        watch.until(role, "medledger_log_errors_total").await;
    }
    world.start(&broker).await;
    for name in world.names(Kind::Orderer) {
        world.until_health(&name, "kafka", "ok").await;
    }
}

fn check(watch: &Watch) {
    let mut still = Vec::new();
    let mut declared = BTreeSet::new();
    for role in medledger_tests::metrics::ROLES {
        for metric in role.groups().into_iter().flatten() {
            let name = metric.about().name;
            declared.insert(name);
            if !watch.has(role, name) && !ELSEWHERE.iter().any(|(other, _)| *other == name) && !is_excused(role, name) {
                still.push(format!("{name} of {role:?}"));
            }
        }
    }
    assert!(still.is_empty(), "these never moved: {still:#?}");
    for (name, _) in ELSEWHERE {
        assert!(declared.contains(name), "{name} is declared nowhere");
    }
    assert!(declared.len() > 70, "{} metrics were looked at", declared.len());
}

/// What does not move at some processes, though it does at others.
const NOT_OF: &[(Role, &str, &str)] = &[
    (
        Role::Peer,
        "medledger_log_append",
        "a peer that does not attest appends nothing",
    ),
    (
        Role::Peer,
        "medledger_gateway_streams",
        "the one stream here is at an attester",
    ),
    (
        Role::Worker,
        "medledger_health",
        "its checks are ok before anybody asks",
    ),
];

fn is_excused(role: Role, name: &str) -> bool {
    let mut excused = NOT_OF.iter();
    excused.any(|(other, prefix, _)| *other == role && name.starts_with(prefix))
}

#[test]
fn what_moved_is_found_in_a_page() {
    let text = "# HELP a b\na{x=\"1\"} 0\nb{x=\"1 2\"} 3\nc_bucket{le=\"1\"} 4\nc_sum 0\nc_count 5\nd 0\n";
    assert_eq!(moved(text).collect::<Vec<_>>(), ["b", "c"]);
}
