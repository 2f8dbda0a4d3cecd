//! What the rest of the peer sees of the ledger: tips, snapshots, judgements, attestations, history.
//!
//! Written by the committer, the control follower and the attestations' follower; read by gateway,
//! endorser and query. Nothing here waits for Kafka except [`Ledger::raw`]: with the log out of
//! reach everything committed goes on being served.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use ledger_log::{Log, ReadError, Reader, topics::Topics};
use protocol::{CONTROL, Digest, code::Code, header::Header, keys::ChannelSecret, ledger, transaction::Checker};
use service::rpc;
use tokio::time::Instant;

pub use crate::committer::watchers::TxWatch;
pub use crate::state::{Page, Row, Snapshot, StateError, Version};
use crate::{
    attester::attestations::Attestations,
    committer::{
        chain::{Chain, Stop},
        control::ControlView,
        watchers::Watchers,
    },
};

/// The newest committed block of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    pub height: u64,
    /// The header's hash.
    pub header: Digest,
}

/// One judgement of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxStatus {
    pub partition: u32,
    pub height: u64,
    pub index: u32,
    pub code: Code,
}

/// The asked height is not among the newest 64 blocks, or not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no snapshot at that height, the newest block is {tip:?}, the nearest below {below:?}")]
pub struct SnapshotUnavailable {
    pub tip: Option<u64>,
    /// The nearest lower height with a snapshot.
    pub below: Option<u64>,
}

/// A committed block without its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    pub header: Header,
    /// `header.hash()`
    pub hash: Digest,
    pub transactions: Vec<(Digest, Code)>,
}

pub struct Ledger {
    pub checker: Arc<Checker>,
    pub secret: ChannelSecret,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) topics: Topics,
    /// By partition.
    pub(crate) chains: Vec<Arc<Chain>>,
    pub(crate) control: Arc<ControlView>,
    pub(crate) attestations: Arc<Attestations>,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) replaying: AtomicBool,
}

impl Ledger {
    /// This process has not come to where the log ended when it began: what it has is older than what callers of it may
    /// have been told before.
    pub fn is_replaying(&self) -> bool {
        self.replaying.load(Ordering::Relaxed)
    }

    fn chain(&self, partition: u32) -> Option<&Arc<Chain>> {
        self.chains.get(partition as usize)
    }

    /// `None`: no block yet, or no such partition. Also of the control chain.
    pub fn tip(&self, partition: u32) -> Option<Tip> {
        match partition {
            CONTROL => self.control.tip(),
            _ => self.chain(partition)?.tip(),
        }
    }

    /// Why the chain grows no more here. Also of the control chain.
    pub fn stopped(&self, partition: u32) -> Option<Stop> {
        match partition {
            CONTROL => self.control.stopped(),
            _ => self.chain(partition)?.stopped(),
        }
    }

    /// State as it was after a block; `None` asks for the newest. The last 64 committed blocks are
    /// kept, but blocks committed together while catching up have one snapshot, after the last.
    pub fn snapshot(&self, partition: u32, height: Option<u64>) -> Result<Arc<Snapshot>, SnapshotUnavailable> {
        let nothing = SnapshotUnavailable { tip: None, below: None };
        let chain = self.chain(partition).ok_or(nothing)?;
        chain.snapshot(height).ok_or_else(|| SnapshotUnavailable {
            tip: chain.tip().map(|tip| tip.height),
            below: height.and_then(|height| chain.snapshot_below(height)),
        })
    }

    /// Waits until `height` is committed here; `false` when the deadline passed first.
    pub async fn reached(&self, partition: u32, height: u64, deadline: Instant) -> bool {
        let mut tip = match (partition, self.chain(partition)) {
            (CONTROL, _) => self.control.watch_tip(),
            (_, Some(chain)) => chain.watch_tip(),
            (_, None) => return false,
        };
        let reached = tip.wait_for(|tip| tip.is_some_and(|tip| tip.height >= height));
        matches!(tokio::time::timeout_at(deadline, reached).await, Ok(Ok(_)))
    }

    /// VALID wins over others, else the newest judgement. Asks the disk.
    pub fn status(&self, tx_id: &Digest) -> Option<TxStatus> {
        let found = self.chains.iter().filter_map(|chain| match chain.status(tx_id) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(partition = chain.partition, %error, "a transaction's judgements cannot be read");
                None
            }
        });
        found.max_by_key(|status| (status.code == Code::Valid, status.height))
    }

    /// Every judgement of a transaction from now on, in order. Register BEFORE submitting.
    pub fn watch(&self, tx_id: Digest) -> TxWatch {
        self.watchers.watch(tx_id)
    }

    /// The newest height here that a quorum of organisations vouches for.
    pub fn attested(&self, partition: u32) -> Option<u64> {
        *self.attestations.watch(partition)?.borrow()
    }

    /// Waits until `height` is attested; `false` when the deadline passed first.
    pub async fn attested_reached(&self, partition: u32, height: u64, deadline: Instant) -> bool {
        let Some(mut attested) = self.attestations.watch(partition) else {
            return false;
        };
        let reached = attested.wait_for(|attested| attested.is_some_and(|attested| attested >= height));
        matches!(tokio::time::timeout_at(deadline, reached).await, Ok(Ok(_)))
    }

    /// From another peer. Each is verified; what is old, foreign or forged is dropped.
    pub fn offer_attestations(&self, offered: Vec<ledger::Attestation>) {
        self.attestations.offer(offered);
    }

    /// The newest of every organisation and chain, for the exchange between peers.
    pub fn newest_attestations(&self) -> Vec<ledger::Attestation> {
        self.attestations.newest()
    }

    /// A contract's component from the control chain.
    pub fn module(&self, digest: &Digest) -> Option<Arc<Vec<u8>>> {
        self.control.module(digest)
    }

    /// Changes of a full state key, oldest first, and whether there are more after them.
    pub fn history(
        &self,
        partition: u32,
        key: &[u8],
        skip: u32,
        limit: u32,
    ) -> Result<(Vec<rpc::Change>, bool), StateError> {
        match self.chain(partition) {
            Some(chain) => chain.state.history(key, skip, limit),
            None => Ok((Vec::new(), false)),
        }
    }

    /// `None`: not committed here. Also of the control chain, whose blocks have no transactions.
    pub fn block(&self, partition: u32, height: u64) -> Option<BlockInfo> {
        if partition == CONTROL {
            return self.control.block(height);
        }
        let chain = self.chain(partition)?;
        match chain.state.block(height) {
            Ok(block) => block.map(|block| block.info()),
            Err(error) => {
                tracing::warn!(partition, height, %error, "a block cannot be read");
                None
            }
        }
    }

    /// The log itself from a height on: for event and block streams.
    pub async fn raw(&self, partition: u32, from: u64) -> Result<Box<dyn Reader>, ReadError> {
        self.log.read(&self.topics.of(partition), from).await
    }

    /// All data partitions and the control chain last.
    pub fn chains(&self) -> Vec<rpc::Chain> {
        let mut chains: Vec<rpc::Chain> = self.chains.iter().map(|chain| chain.describe()).collect();
        chains.push(self.control.describe());
        for chain in &mut chains {
            chain.attested_blocks = self.attested(chain.partition).map_or(0, |height| height + 1);
        }
        chains
    }

    pub fn log_reachable(&self) -> bool {
        self.log.reachable()
    }
}
