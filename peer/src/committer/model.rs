//! A partition in memory, as simple as can be: what the tests hold `validate` against.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
};

use protocol::{
    Digest,
    code::Code,
    lattice::{Kind, Lattice},
    testing::{TestNet, TestTx},
    transaction::Checker,
};

use super::{
    prepare::prepare,
    validate::{Rules, config_entry, validate},
    view::{Overlay, StateView},
};
use crate::state::{Changes, Entry, Position, Version};

/// The view as maps.
#[derive(Clone, Default)]
pub struct Maps {
    pub state: BTreeMap<Vec<u8>, Entry>,
    pub policies: BTreeMap<Vec<u8>, (Entry, String)>,
    pub valid: BTreeSet<Digest>,
    pub headers: Vec<Digest>,
}

impl StateView for Maps {
    type Error = Infallible;

    fn entry(&self, key: &[u8]) -> Result<Option<Entry>, Infallible> {
        Ok(self.state.get(key).copied())
    }

    fn policy(&self, key: &[u8]) -> Result<Option<(Entry, String)>, Infallible> {
        Ok(self.policies.get(key).cloned())
    }

    fn versions(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Version)>, Infallible> {
        let rows = self.state.iter().filter(|(key, _)| start <= &key[..] && &key[..] < end);
        Ok(rows
            .take(limit)
            .map(|(key, entry)| (key.clone(), entry.version))
            .collect())
    }

    fn is_valid(&self, tx_id: &Digest) -> Result<bool, Infallible> {
        Ok(self.valid.contains(tx_id))
    }

    fn header(&self, height: u64) -> Result<Option<Digest>, Infallible> {
        Ok(self.headers.get(height as usize).copied())
    }
}

impl Maps {
    pub fn apply(&mut self, block: &Changes) {
        for (key, row) in &block.state {
            match row {
                Some((entry, _)) => drop(self.state.insert(key.clone(), *entry)),
                None => drop(self.state.remove(key)),
            }
        }
        for (key, row) in &block.policies {
            match row {
                Some(row) => drop(self.policies.insert(key.clone(), row.clone())),
                None => drop(self.policies.remove(key)),
            }
        }
        let valid = block.leaves.iter().filter(|leaf| leaf.code == Code::Valid);
        self.valid.extend(valid.map(|leaf| leaf.tx_id));
        self.headers.push(block.hash);
    }

    /// The state digest, computed from nothing but what is there.
    pub fn digest(&self, started: Option<u64>, config_digest: Digest) -> Digest {
        let mut lattice = Lattice::new();
        if let Some(height) = started {
            let delta = config_entry(height, config_digest);
            lattice.add(delta.kind, &delta.key, &delta.entry.version.into(), &delta.entry.hash);
        }
        for (key, entry) in &self.state {
            lattice.add(Kind::State, key, &entry.version.into(), &entry.hash);
        }
        for (key, (entry, _)) in &self.policies {
            lattice.add(Kind::KeyPolicy, key, &entry.version.into(), &entry.hash);
        }
        lattice.digest()
    }
}

/// One partition of a test network with [`Maps`] for a disk.
pub struct Partition {
    pub net: Arc<TestNet>,
    pub rules: Rules,
    pub maps: Maps,
    pub position: Position,
}

impl Partition {
    pub fn new(net: TestNet, partition: u32) -> Self {
        let checker: Arc<Checker> = Arc::new(net.checker());
        let rules = Rules {
            checker,
            partition,
            genesis: net.genesis_place(),
        };
        let position = Position {
            tip: None,
            started: None,
            lattice: Lattice::new(),
        };
        Partition {
            net: Arc::new(net),
            rules,
            maps: Maps::default(),
            position,
        }
    }

    /// With its genesis marker at height 0.
    pub fn started(net: TestNet, partition: u32) -> Self {
        let mut started = Partition::new(net, partition);
        let marker = started.net.marker_block(partition);
        started.push(&marker);
        started
    }

    pub fn push(&mut self, raw: &[u8]) -> Changes {
        let block = prepare(&self.rules.checker, self.rules.partition, raw);
        let mut overlay = Overlay::new(&self.maps);
        let changes = match validate(&self.rules, &mut self.position, &mut overlay, block) {
            Ok(changes) => changes,
            Err(never) => match never {},
        };
        self.maps.apply(&changes);
        changes
    }

    pub fn block(&mut self, transactions: &[&TestTx]) -> Vec<Code> {
        let raw = self.net.block(self.rules.partition, transactions);
        self.push(&raw).leaves.iter().map(|leaf| leaf.code).collect()
    }

    pub fn judge(&mut self, tx: &TestTx) -> Code {
        self.block(&[tx])[0]
    }

    /// Empty blocks up to a height.
    pub fn idle_until(&mut self, height: u64) {
        while self.position.next_height() < height {
            self.block(&[]);
        }
    }

    /// Newest height and header: what an endorser would take now.
    pub fn snapshot(&self) -> (u64, Digest) {
        let tip = self.position.tip.expect("started");
        (tip.height, tip.header)
    }
}
