//! Loops of `kill -9` over every process of a network with three brokers, under load: each round kills each
//! process once, in an order drawn from a seed, sometimes two together. Afterwards everything that was
//! acknowledged is on every peer exactly once.
//!
//! CI runs a short form; `make chaos-hour` runs it for `CHAOS_SECONDS`. Both leave `target/chaos/report.json`.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use medledger_cli::network::{Spec, layout::Kind};
use medledger_tests::network::{
    World,
    check::Found,
    load::{Load, Offer},
};
use rand::{Rng as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Every gateway that can must acknowledge so many between one event and the next.
const SOME: u64 = 5;
/// Of so many kills one is of two processes together.
const TOGETHER_EVERY: u32 = 4;
/// The short form: a part of one round.
const SECONDS: u64 = 60;

#[derive(Default, Serialize)]
struct Report {
    seed: u64,
    seconds: u64,
    rounds: u64,
    /// Kills, and what they cost, by the kind of the process; of two together, the first one's.
    kinds: BTreeMap<String, Cost>,
    refused_by_word: BTreeMap<&'static str, u64>,
    /// What the check found; a loss or a double ends it with a panic, and there is no report.
    found: Found,
}

#[derive(Default, Serialize)]
struct Cost {
    kills: u64,
    /// Nothing was acknowledged by anybody.
    longest_write_gap_ms: u64,
    /// From its start until every gateway acknowledges again.
    recovered_ms_max: u64,
}

impl Cost {
    fn enter(&mut self, kills: usize, gap: Duration, recovered: Duration) {
        self.kills += kills as u64;
        self.longest_write_gap_ms = self.longest_write_gap_ms.max(gap.as_millis() as u64);
        self.recovered_ms_max = self.recovered_ms_max.max(recovered.as_millis() as u64);
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a whole number, not {text:?}"))
    })
}

fn spec() -> Spec {
    let mut spec = Spec::default();
    spec.kafka.brokers = 3;
    for organisation in &mut spec.organisations {
        // Killing one leaves one: a gateway without any worker cannot say where a transaction belongs.
        organisation.workers = 2;
    }
    spec
}

/// Processes to kill together: one, or two. Not both orderers, nor two of three brokers: then nobody can write, and
/// nothing could be awaited before one of them is back.
fn victims(world: &World, waiting: &mut Vec<String>, random: &mut ChaCha8Rng) -> Vec<String> {
    let mut victims: Vec<String> = waiting.pop().into_iter().collect();
    if random.random_ratio(1, TOGETHER_EVERY) {
        let orders = |kind| matches!(kind, Kind::Broker | Kind::Orderer);
        let first = world.process(&victims[0]).kind;
        let may = |name: &String| world.process(name).kind != first || !orders(first);
        if let Some(at) = waiting.iter().rposition(may) {
            victims.push(waiting.remove(at));
        }
    }
    victims
}

/// Gateways that are alive and have a living worker.
fn able(world: &World, dead: &[String]) -> Vec<String> {
    let alive = |name: &String| !dead.contains(name);
    let workers: HashSet<String> = world
        .names(Kind::Worker)
        .iter()
        .filter(|name| alive(name))
        .map(|name| world.process(name).organisation.clone())
        .collect();
    let peers = world.peers().into_iter().filter(alive);
    peers
        .filter(|peer| workers.contains(&world.process(peer).organisation))
        .collect()
}

async fn kill_and_start(world: &World, load: &Load, victims: &[String], pause: Duration) -> Duration {
    futures::future::join_all(victims.iter().map(|name| world.kill(name))).await;
    let what = victims.join(" and ");
    load.goes_on(&able(world, victims), SOME, &format!("after kill -9 of {what}"))
        .await;
    // Not a wait for anything: how long a process stays away is part of what is drawn.
    tokio::time::sleep(pause).await;
    let started = Instant::now();
    futures::future::join_all(victims.iter().map(|name| world.start(name))).await;
    load.goes_on(&world.peers(), SOME, &format!("after {what} came back"))
        .await;
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loops_of_kill_9_over_every_process_lose_and_double_nothing() {
    let mut report = Report {
        seed: from_environment("MEDLEDGER_CHAOS_SEED", 1),
        seconds: from_environment("MEDLEDGER_CHAOS_SECONDS", SECONDS),
        ..Report::default()
    };
    let mut random = ChaCha8Rng::seed_from_u64(report.seed);
    let world = World::up(&spec()).await;
    let offer = Offer {
        at_once: 2,
        pause: Duration::from_millis(50),
        ..Offer::default()
    };
    let load = Load::start(&world, &world.peers(), offer);
    load.goes_on(&world.peers(), SOME, "before anything is killed").await;
    let until = Instant::now() + Duration::from_secs(report.seconds);
    'rounds: loop {
        let processes = &world.network.description.processes;
        let mut waiting: Vec<String> = processes.iter().map(|process| process.name.clone()).collect();
        waiting.shuffle(&mut random);
        while !waiting.is_empty() {
            if Instant::now() >= until {
                break 'rounds;
            }
            let victims = victims(&world, &mut waiting, &mut random);
            let pause = Duration::from_millis(random.random_range(0..2000));
            load.take_longest_gap();
            let recovered = kill_and_start(&world, &load, &victims, pause).await;
            let (kind, gap) = (world.process(&victims[0]).kind, load.take_longest_gap());
            let cost = report.kinds.entry(kind.to_string()).or_default();
            cost.enter(victims.len(), gap, recovered);
        }
        report.rounds += 1;
        tell(&report, &load);
    }
    let mut book = load.stop().await;
    report.found = world.check(&mut book).await;
    world.check_logs(&[]);
    report.refused_by_word = book.words;
    write(&report);
    assert_eq!(report.found.peers, 5, "{:?}", report.found);
    assert!(
        report.kinds.values().map(|cost| cost.kills).sum::<u64>() > 0,
        "nothing was killed"
    );
}

fn tell(report: &Report, load: &Load) {
    let kills: Vec<String> = report
        .kinds
        .iter()
        .map(|(kind, cost)| format!("{} {kind}", cost.kills))
        .collect();
    #[expect(clippy::print_stderr, reason = "a run of an hour says how far it is")]
    {
        eprintln!("round {}: killed {}; {}", report.rounds, kills.join(", "), load.words());
    }
}

fn write(report: &Report) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/chaos");
    std::fs::create_dir_all(&directory).expect("a directory for the report");
    let text = serde_json::to_string_pretty(report).expect("the report is JSON");
    std::fs::write(directory.join("report.json"), text + "\n").expect("the report");
}
