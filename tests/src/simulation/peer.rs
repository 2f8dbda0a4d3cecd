//! A peer without its processes: real stage 1, real `validate`, real databases, and crashes that lose
//! what was not flushed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ledger_log::{Log, Reader, memory::MemoryLog};
use peer::{
    committer::{
        prepare::prepare,
        validate::{Rules, validate},
        view::Overlay,
    },
    state::{Changes, Owner, PartitionState, Position, Store, Tuning},
};
use protocol::{Digest, code::Code, testing::TestNet, transaction::Checker};

use super::{PARTITIONS, topic};

/// What one peer made of one block.
#[derive(Clone, Debug)]
pub struct Judged {
    pub partition: u32,
    pub height: u64,
    pub header: Digest,
    pub transactions: Vec<(Digest, Code)>,
}

pub struct Peer {
    directory: PathBuf,
    /// How often it crashed: each life has a directory of its own.
    lives: u32,
    net: Arc<TestNet>,
    checker: Arc<Checker>,
    log: MemoryLog,
    store: Store,
    partitions: Vec<Partition>,
}

struct Partition {
    state: Arc<PartitionState>,
    position: Position,
    reader: Option<Box<dyn Reader>>,
}

impl Peer {
    pub fn new(directory: &Path, net: Arc<TestNet>, checker: Arc<Checker>, log: MemoryLog) -> Peer {
        let store = open_store(&life(directory, 0));
        let directory = directory.to_owned();
        let mut peer = Peer {
            directory,
            lives: 0,
            net,
            checker,
            log,
            store,
            partitions: Vec::new(),
        };
        peer.open();
        peer
    }

    fn open(&mut self) {
        let owner = Owner {
            channel: self.net.channel.id,
            secret: self.net.secret.hash(),
        };
        self.partitions = (0..PARTITIONS)
            .map(|partition| {
                let state = PartitionState::open(&self.store, owner, partition).expect("its own directory");
                let position = state.position().expect("a readable position");
                Partition {
                    state,
                    position,
                    reader: None,
                }
            })
            .collect();
    }

    /// As `kill -9`: goes on from a copy of the files as they are now, without what only memory held.
    pub fn crash(&mut self) {
        let (now, next) = (life(&self.directory, self.lives), life(&self.directory, self.lives + 1));
        // RocksDB removes files behind our back; a copy that met one leaving is made again.
        while copy(&now, &next).is_err() {
            std::fs::remove_dir_all(&next).expect("its own directory");
        }
        self.lives += 1;
        self.partitions.clear();
        self.store = open_store(&next);
        std::fs::remove_dir_all(&now).expect("its own directory");
        self.open();
    }

    /// Reads what there is and judges it; `flush` writes the memory of one partition to disk.
    pub async fn step(&mut self, flush: bool) -> Vec<Judged> {
        let mut judged = Vec::new();
        for (partition, own) in (0..).zip(&mut self.partitions) {
            if own.reader.is_none() {
                own.reader = self.log.read(&topic(partition), own.position.next_height()).await.ok();
            }
            let Some(reader) = &mut own.reader else { continue };
            let records = match reader.next(Duration::ZERO).await {
                Ok(records) => records,
                Err(ledger_log::ReadError::Unavailable(_)) => continue,
                Err(error) => panic!("the log lost something: {error}"),
            };
            let rules = Rules {
                checker: self.checker.clone(),
                partition,
                genesis: self.net.genesis_place(),
            };
            let mut changes = Vec::new();
            let mut position = own.position.clone();
            let mut overlay = Overlay::new(&*own.state);
            for record in &records {
                assert_eq!(
                    record.offset,
                    position.next_height(),
                    "no record is skipped or read twice"
                );
                let prepared = prepare(&self.checker, partition, &record.value);
                changes.push(validate(&rules, &mut position, &mut overlay, prepared).expect("a readable disk"));
            }
            own.state.commit(&changes, &position).expect("a writable disk");
            own.position = position;
            if flush {
                own.state.flush(true).expect("a writable disk");
            }
            judged.extend(changes.iter().map(|changes| describe(partition, changes)));
        }
        judged
    }

    /// The newest height and header of a partition.
    pub fn tip(&self, partition: u32) -> Option<(u64, Digest)> {
        self.partitions[partition as usize]
            .position
            .tip
            .map(|tip| (tip.height, tip.header))
    }

    pub fn state(&self, partition: u32) -> &Arc<PartitionState> {
        &self.partitions[partition as usize].state
    }

    pub fn value(&self, partition: u32, key: &[u8]) -> Option<Vec<u8>> {
        let own = &self.partitions[partition as usize];
        let row = own.state.snapshot(own.position.tip?).get(key).expect("a readable disk");
        row.map(|row| row.value)
    }

    pub fn state_digest(&self, partition: u32) -> Digest {
        self.partitions[partition as usize].position.lattice.digest()
    }
}

fn describe(partition: u32, changes: &Changes) -> Judged {
    Judged {
        partition,
        height: changes.header.height,
        header: changes.hash,
        transactions: changes.leaves.iter().map(|leaf| (leaf.tx_id, leaf.code)).collect(),
    }
}

fn life(directory: &Path, life: u32) -> PathBuf {
    directory.join(format!("life-{life}"))
}

fn open_store(directory: &Path) -> Store {
    Store::new(directory, Tuning::default()).expect("a directory of its own")
}

/// Manifests first: what they name is there before they say so.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    let mut entries = std::fs::read_dir(from)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(|entry| !entry.file_name().to_string_lossy().starts_with("MANIFEST"));
    for entry in entries {
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
