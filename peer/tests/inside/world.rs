//! A channel on a log in memory, and peers on it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ledger_log::{
    Log,
    memory::{Control, MemoryLog},
    topics::Topics,
};
use peer::{
    attester::{guard, sign::AttesterKey},
    ledger::Ledger,
    run::{Inside, ScrubConfig, start},
    state::Tuning,
};
use protocol::{
    CONTROL, Digest,
    signature::SigningKey,
    testing::{TestNet, TestTx},
};
use service::{Tasks, health::Health};
use tempfile::TempDir;
use tokio::time::Instant;

pub struct World {
    pub net: TestNet,
    pub log: MemoryLog,
    pub hand: Control,
    pub topics: Topics,
}

/// Everything that a test waits for happens within this.
pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

impl World {
    /// With genesis and modules in the control chain and a marker in every partition.
    pub async fn new(organisations: &[&str], partitions: u32) -> Self {
        let net = TestNet::new(organisations, partitions);
        let log = MemoryLog::reliable();
        let topics = Topics::of_channel(&net.channel);
        let specs = topics.specs(&net.channel, false);
        log.ensure(&specs, false).await.expect("made");
        let world = World {
            hand: log.control(),
            net,
            log,
            topics,
        };
        world.put(CONTROL, world.net.genesis_record());
        for contract in 0..world.net.contracts.len() {
            world.put(CONTROL, world.net.module_record(contract));
        }
        for partition in 0..partitions {
            world.put(partition, world.net.marker_block(partition));
        }
        world
    }

    /// The next record of a chain. Its height.
    pub fn put(&self, partition: u32, raw: Vec<u8>) -> u64 {
        self.hand.inject(&self.topics.of(partition), raw)
    }

    pub fn block(&self, partition: u32, transactions: &[&TestTx]) -> u64 {
        self.put(partition, self.net.block(partition, transactions))
    }

    /// A subject of a partition.
    pub fn subject(&self, partition: u32, number: usize) -> String {
        let names = (0..).map(|i| format!("patient-{i}"));
        let mut fit = names.filter(|name| {
            let key = self.net.secret.partition_key("records", name);
            protocol::keys::partition_of(&key, self.net.channel.partitions()) == partition
        });
        fit.nth(number).expect("one of few partitions")
    }

    pub fn peer(&self) -> Peer {
        Peer::start(self, Arc::new(tempfile::tempdir().expect("a directory")), None)
    }

    pub fn attester(&self, organisation: &str, guard: &Path) -> AttesterKey {
        let identity = self.net.identity(organisation, "attester");
        AttesterKey {
            certificate: identity.hash(),
            msp_id: organisation.to_owned(),
            key: SigningKey::from_pkcs8(&identity.pkcs8).expect("a key"),
            guard: guard.to_owned(),
        }
    }

    pub fn init_guard(&self, organisation: &str, directory: &Path) -> PathBuf {
        let path = directory.join("guard");
        let owner = guard::Owner {
            channel: self.net.channel.id,
            attester: self.net.identity(organisation, "attester").hash(),
            partitions: self.net.channel.partitions(),
        };
        guard::Guard::init(&path, owner).expect("made");
        path
    }
}

pub struct Peer {
    pub ledger: Arc<Ledger>,
    pub tasks: Tasks,
    pub health: Health,
    pub directory: Arc<TempDir>,
}

impl Peer {
    pub fn inside(world: &World, data: &Path, attester: Option<AttesterKey>) -> Inside {
        Inside {
            log: Arc::new(world.log.another()),
            genesis: world.net.genesis_bytes(),
            secret: world.net.secret_bytes,
            data: data.to_owned(),
            tuning: Tuning::default(),
            scrub: ScrubConfig {
                interval_s: 1,
                bytes_per_second: u64::MAX,
            },
            attester,
        }
    }

    pub fn start(world: &World, directory: Arc<TempDir>, attester: Option<AttesterKey>) -> Self {
        let (tasks, health) = (Tasks::new(), Health::new());
        let inside = Self::inside(world, &directory.path().join("data"), attester);
        let ledger = start(&tasks, &health, inside).expect("started");
        Peer {
            ledger,
            tasks,
            health,
            directory,
        }
    }

    /// Ends in good order; the directory stays.
    pub async fn end(self) -> Arc<TempDir> {
        let Peer {
            ledger,
            tasks,
            directory,
            ..
        } = self;
        tasks.cancel();
        tasks.wait(Duration::from_secs(10)).await.expect("ended");
        let held = Arc::downgrade(&ledger);
        drop(ledger);
        assert_eq!(held.strong_count(), 0, "nothing holds the databases open");
        directory
    }

    /// Ends as by kill -9: what was only in memory is lost.
    pub async fn kill(self) -> Arc<TempDir> {
        let left = tempfile::tempdir().expect("a directory");
        copy(self.directory.path(), left.path());
        self.end().await;
        Arc::new(left)
    }

    pub async fn reached(&self, partition: u32, height: u64) {
        assert!(
            self.ledger.reached(partition, height, soon()).await,
            "{:?}",
            self.ledger.chains()
        );
    }

    pub fn header(&self, partition: u32, height: u64) -> Digest {
        self.ledger.block(partition, height).expect("committed").hash
    }

    pub async fn until_ready(&self, ready: bool) {
        let deadline = soon();
        while self.health.is_ready() != ready {
            assert!(Instant::now() < deadline, "{:?}", self.health.checks());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn stopped(&self, partition: u32) -> String {
        let deadline = soon();
        loop {
            let chains = self.ledger.chains();
            let chain = chains.iter().find(|chain| chain.partition == partition).expect("known");
            if !chain.stopped.is_empty() {
                return chain.stopped.clone();
            }
            assert!(Instant::now() < deadline, "the partition goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            std::fs::create_dir(&target).expect("made");
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}
