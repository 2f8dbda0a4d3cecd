//! One data partition as others see it: its tip, its newest snapshots, why it stands still.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use protocol::{Digest, limits::SNAPSHOTS_KEPT};
use service::rpc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    ledger::{Tip, TxStatus},
    state::{PartitionState, Position, Snapshot, StateError},
};

/// A partition stops for exactly these reasons. None can be caused from outside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    #[error("the log has offset {found} where {expected} must follow what is committed here")]
    Gap { expected: u64, found: u64 },
    #[error("the log holds {low}..{high}, which does not reach what is committed here (height {height})")]
    OutOfRange { height: u64, low: u64, high: u64 },
    #[error("the log's record at height {height} is not the one committed here")]
    Mismatch { height: u64 },
    #[error("{organisations} organisations, a quorum, attest another header than the one here at height {height}")]
    Contradicted { height: u64, organisations: usize },
    #[error(transparent)]
    Disk(#[from] StateError),
    #[error("validating height {height} failed in an unforeseen way")]
    Defect { height: u64 },
}

pub struct Chain {
    pub partition: u32,
    pub state: Arc<PartitionState>,
    tip: watch::Sender<Option<Tip>>,
    snapshots: Mutex<VecDeque<Arc<Snapshot>>>,
    state_digest: Mutex<Digest>,
    stop: Mutex<Option<Stop>>,
    stopping: CancellationToken,
}

impl Chain {
    pub fn new(state: Arc<PartitionState>, position: &Position) -> Arc<Self> {
        let chain = Chain {
            partition: state.partition,
            tip: watch::Sender::new(position.tip),
            snapshots: Mutex::default(),
            state_digest: Mutex::new(position.lattice.digest()),
            stop: Mutex::default(),
            stopping: CancellationToken::new(),
            state,
        };
        if let Some(tip) = position.tip {
            crate::metrics::ledger::reached(chain.partition, tip.height);
        }
        chain
            .snapshots
            .lock()
            .extend(position.tip.map(|tip| chain.state.snapshot(tip)));
        Arc::new(chain)
    }

    pub fn tip(&self) -> Option<Tip> {
        *self.tip.borrow()
    }

    pub fn watch_tip(&self) -> watch::Receiver<Option<Tip>> {
        self.tip.subscribe()
    }

    pub fn snapshot(&self, height: Option<u64>) -> Option<Arc<Snapshot>> {
        let snapshots = self.snapshots.lock();
        match height {
            None => snapshots.back().cloned(),
            Some(height) => {
                let at = snapshots
                    .binary_search_by_key(&height, |snapshot| snapshot.height)
                    .ok()?;
                snapshots.get(at).cloned()
            }
        }
    }

    /// The nearest kept height below; blocks committed together have a snapshot of the last only.
    pub fn snapshot_below(&self, height: u64) -> Option<u64> {
        let snapshots = self.snapshots.lock();
        let below = snapshots.partition_point(|snapshot| snapshot.height < height);
        snapshots.get(below.checked_sub(1)?).map(|snapshot| snapshot.height)
    }

    pub fn status(&self, tx_id: &Digest) -> Result<Option<TxStatus>, StateError> {
        self.state.status(tx_id)
    }

    /// The hash of a committed header; `None` above the tip.
    pub fn header(&self, height: u64) -> Result<Option<Digest>, StateError> {
        match self.tip() {
            Some(tip) if height <= tip.height => self.state.header(height),
            _ => Ok(None),
        }
    }

    /// After a commit: the snapshot first, so that whoever learns of the tip finds it.
    pub(super) fn publish(&self, position: &Position) {
        let Some(tip) = position.tip else { return };
        let snapshot = self.state.snapshot(tip);
        let oldest = {
            let mut snapshots = self.snapshots.lock();
            snapshots.push_back(snapshot);
            let kept = tip.height.saturating_sub(SNAPSHOTS_KEPT as u64 - 1);
            let old = snapshots.iter().take_while(|snapshot| snapshot.height < kept).count();
            snapshots.drain(..old).collect::<Vec<_>>()
        };
        // Outside the lock: releasing a snapshot takes the database's lock.
        drop(oldest);
        *self.state_digest.lock() = position.lattice.digest();
        self.tip.send_replace(Some(tip));
    }

    /// Ends the partition's commits; reads go on. The first reason stays.
    pub fn stop(&self, why: Stop) {
        let mut stop = self.stop.lock();
        if stop.is_none() {
            tracing::error!(partition = self.partition, reason = %why, "the partition stops");
            crate::metrics::ledger::stopped(self.partition);
            *stop = Some(why);
        }
        self.stopping.cancel();
    }

    pub fn stopped(&self) -> Option<Stop> {
        self.stop.lock().clone()
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    pub fn describe(&self) -> rpc::Chain {
        let tip = self.tip();
        rpc::Chain {
            partition: self.partition,
            blocks: tip.map_or(0, |tip| tip.height + 1),
            header: tip.map(|tip| tip.header.to_vec()).unwrap_or_default(),
            state_digest: self.state_digest.lock().to_vec(),
            attested_blocks: 0,
            stopped: self.stopped().map(|stop| stop.to_string()).unwrap_or_default(),
        }
    }
}
