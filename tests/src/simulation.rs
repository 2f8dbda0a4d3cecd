//! The whole ledger in one thread, from one seed: orderers, a log with faults, peers that crash.
//!
//! ```text
//! clients ──(lost, late, repeated)──▶ orderers: Batcher ──▶ MemoryLog, faults ──▶ peers: prepare, validate, RocksDB
//!    ▲                                    │ receipts (lost)                          │ judgements
//!    └────────────────────────────────────┴──────────────────────────────────────────┘
//! ```
//! The parts that decide are the real ones: batcher, checker, `validate`, the state's databases and their
//! crash recovery. Time is tokio's paused clock; nothing runs beside the loop, so that a seed
//! gives one history. [`run`] plays a seed, checks the promises and returns a digest of all that happened.

mod client;
mod orderer;
mod peer;
mod promises;

use std::{sync::Arc, time::Duration};

use ledger_log::{
    Log, TopicPartition,
    memory::{Control, Faults, MemoryLog},
};
use protocol::{Digest, hash::Hasher, testing::TestNet, transaction::Checker};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use promises::Outcome;
use {client::Clients, orderer::Orderer, peer::Peer, promises::Witness};

pub const ORGANISATIONS: [&str; 4] = ["HospitalA", "HospitalB", "MinistryOfHealth", "ReliefOrg"];
const PARTITIONS: u32 = 2;
/// The longest step of the simulated clock.
const STEP_MS_MAX: u64 = 12;

/// How much of what.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub orderers: usize,
    pub peers: usize,
    /// Transactions that clients intend.
    pub intents: usize,
    /// Subjects they are about: fewer make more conflicts.
    pub subjects: usize,
    pub faults: Faults,
    /// Chances per step, from 0 to 1.
    pub crash: f64,
    pub garbage: f64,
    pub lose_message: f64,
}

impl Plan {
    pub fn stormy(seed: u64) -> Plan {
        Plan {
            seed,
            orderers: 2,
            peers: 3,
            intents: 120,
            subjects: 12,
            faults: Faults::many(),
            crash: 0.01,
            garbage: 0.02,
            lose_message: 0.05,
        }
    }
}

struct World {
    random: ChaCha8Rng,
    plan: Plan,
    net: Arc<TestNet>,
    control: Control,
    orderers: Vec<Orderer>,
    peers: Vec<Peer>,
    clients: Clients,
    witness: Witness,
}

pub(crate) fn topic(partition: u32) -> TopicPartition {
    TopicPartition {
        topic: "medledger.test.tx".into(),
        partition,
    }
}

/// Plays one seed to its end. Panics, naming the seed, when a promise is broken.
pub async fn run(plan: Plan) -> Outcome {
    let directory = tempfile::tempdir().expect("a directory for the peers' databases");
    let mut world = World::new(plan, directory.path()).await;
    while !world.clients.all_ended() {
        world.step().await;
    }
    world.heal().await;
    world
        .witness
        .judge(&world.plan, &world.net, &world.control, &world.peers)
}

impl World {
    async fn new(plan: Plan, directory: &std::path::Path) -> World {
        let net = Arc::new(TestNet::seeded(plan.seed, &ORGANISATIONS, PARTITIONS));
        let log = MemoryLog::new(plan.seed, Faults::default());
        let topic = ledger_log::TopicSpec {
            name: topic(0).topic,
            partitions: PARTITIONS,
            record_bytes_max: protocol::limits::KAFKA_RECORD_BYTES_MAX,
            flush_every_record: false,
        };
        log.ensure(&[topic], true)
            .await
            .expect("topics of a log without faults");
        let control = log.control();
        control.set_faults(plan.faults.clone());
        let checker = Arc::new(Checker::new(net.channel.clone()));
        let orderers = (0..plan.orderers)
            .map(|_| Orderer::new(net.clone(), log.another()))
            .collect();
        let peers = (0..plan.peers)
            .map(|i| {
                Peer::new(
                    &directory.join(format!("peer{i}")),
                    net.clone(),
                    checker.clone(),
                    log.another(),
                )
            })
            .collect();
        World {
            random: ChaCha8Rng::seed_from_u64(plan.seed),
            clients: Clients::new(plan.intents),
            witness: Witness::default(),
            net,
            control,
            orderers,
            peers,
            plan,
        }
    }

    async fn step(&mut self) {
        let World {
            random,
            plan,
            net,
            control,
            orderers,
            peers,
            clients,
            witness,
        } = self;
        tokio::time::advance(Duration::from_millis(random.random_range(1..=STEP_MS_MAX))).await;
        for orderer in orderers.iter_mut() {
            if orderer.is_up() && random.random_bool(plan.crash) {
                orderer.crash();
            } else if !orderer.is_up() && random.random_bool(0.1) {
                orderer.start(net);
            }
            for receipt in orderer.step().await {
                witness.acknowledged(&receipt);
                if !random.random_bool(plan.lose_message) {
                    clients.acknowledged(&receipt);
                }
            }
        }
        if random.random_bool(plan.garbage) {
            let partition = random.random_range(0..PARTITIONS);
            control.inject(&topic(partition), garbage(random, net, partition));
        }
        clients.step(random, plan, net, orderers, peers);
        for peer in peers.iter_mut() {
            if random.random_bool(plan.crash) {
                peer.crash();
            }
            for judged in peer.step(random.random_bool(0.02)).await {
                witness.judged(plan.seed, &judged);
                clients.judged(&judged);
            }
        }
    }

    /// No more faults; everybody up; what was under way ends; every peer reads to the end.
    async fn heal(&mut self) {
        self.control.set_faults(Faults::default());
        self.control.set_available(true);
        self.plan = Plan {
            crash: 0.0,
            garbage: 0.0,
            lose_message: 0.0,
            ..self.plan.clone()
        };
        for orderer in &mut self.orderers {
            orderer.start(&self.net);
        }
        for _ in 0..400 {
            self.step().await;
        }
    }
}

/// What must be an empty block everywhere: noise, a stranger's block, another partition's block.
fn garbage(random: &mut ChaCha8Rng, net: &TestNet, partition: u32) -> Vec<u8> {
    match random.random_range(0..4) {
        0 => Vec::new(),
        1 => (0..random.random_range(1..300)).map(|_| random.random()).collect(),
        2 => net.sign_block(net.identity("HospitalA", "peer0"), &net.empty_block(partition)),
        _ => net.marker_block(partition ^ 1),
    }
}

/// A chain of hashes over everything that happened.
pub(crate) fn fold(into: &mut Digest, what: &str, bytes: &[u8]) {
    *into = Hasher::new(what).fixed(into).bytes(bytes).finish();
}
