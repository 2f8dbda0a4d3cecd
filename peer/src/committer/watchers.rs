//! Who waits for which transaction's judgement.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use protocol::{Digest, code::Code};
use tokio::{sync::Notify, time::Instant};

use crate::ledger::TxStatus;

/// Judgements that a watch keeps until they are asked for. The log may repeat a transaction
/// without end; beyond this others than VALID are dropped.
const JUDGEMENTS_MAX: usize = 64;
const SHARDS: usize = 16;

#[derive(Default)]
pub struct Watchers {
    shards: [Mutex<HashMap<Digest, Vec<Arc<Watch>>>>; SHARDS],
}

#[derive(Default)]
struct Watch {
    judgements: Mutex<VecDeque<TxStatus>>,
    arrived: Notify,
}

/// Every judgement of one transaction since the watch began, in order. Ends its watch when dropped.
pub struct TxWatch {
    tx_id: Digest,
    watch: Arc<Watch>,
    watchers: Arc<Watchers>,
}

impl Watchers {
    fn shard(&self, tx_id: &Digest) -> &Mutex<HashMap<Digest, Vec<Arc<Watch>>>> {
        &self.shards[tx_id[0] as usize % SHARDS]
    }

    pub fn watch(self: &Arc<Self>, tx_id: Digest) -> TxWatch {
        let watch = Arc::new(Watch::default());
        self.shard(&tx_id)
            .lock()
            .entry(tx_id)
            .or_default()
            .push(Arc::clone(&watch));
        TxWatch {
            tx_id,
            watch,
            watchers: Arc::clone(self),
        }
    }

    /// Called once per judgement, in the order of the chain.
    pub fn judged(&self, tx_id: &Digest, status: TxStatus) {
        let shard = self.shard(tx_id).lock();
        for watch in shard.get(tx_id).into_iter().flatten() {
            let mut judgements = watch.judgements.lock();
            if judgements.len() < JUDGEMENTS_MAX || status.code == Code::Valid {
                judgements.push_back(status);
            }
            watch.arrived.notify_one();
        }
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl TxWatch {
    /// The next judgement; `None` when the deadline passed first.
    pub async fn next(&mut self, deadline: Instant) -> Option<TxStatus> {
        loop {
            // Before looking, so that one that comes between looking and waiting wakes us.
            let arrived = self.watch.arrived.notified();
            if let Some(status) = self.watch.judgements.lock().pop_front() {
                return Some(status);
            }
            tokio::time::timeout_at(deadline, arrived).await.ok()?;
        }
    }
}

impl Drop for TxWatch {
    fn drop(&mut self) {
        let mut shard = self.watchers.shard(&self.tx_id).lock();
        if let Some(watches) = shard.get_mut(&self.tx_id) {
            watches.retain(|watch| !Arc::ptr_eq(watch, &self.watch));
            if watches.is_empty() {
                shard.remove(&self.tx_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn status(height: u64, code: Code) -> TxStatus {
        TxStatus {
            partition: 0,
            height,
            index: 0,
            code,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_watch_sees_every_judgement_in_order() {
        let watchers = Arc::new(Watchers::default());
        let (mut one, mut other) = (watchers.watch([1; 32]), watchers.watch([1; 32]));
        watchers.judged(&[2; 32], status(1, Code::Valid));
        watchers.judged(&[1; 32], status(2, Code::MvccConflict));
        watchers.judged(&[1; 32], status(3, Code::Valid));
        for watch in [&mut one, &mut other] {
            let deadline = Instant::now() + Duration::from_secs(1);
            assert_eq!(watch.next(deadline).await, Some(status(2, Code::MvccConflict)));
            assert_eq!(watch.next(deadline).await, Some(status(3, Code::Valid)));
            assert_eq!(watch.next(deadline).await, None);
        }
        drop((one, other));
        assert!(watchers.is_empty());
    }

    #[tokio::test]
    async fn repetitions_do_not_grow_it_and_never_hide_valid() {
        let watchers = Arc::new(Watchers::default());
        let mut watch = watchers.watch([1; 32]);
        for height in 0..1000 {
            watchers.judged(&[1; 32], status(height, Code::BadEndorsement));
        }
        watchers.judged(&[1; 32], status(1000, Code::Valid));
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut seen = 0;
        while watch
            .next(deadline)
            .await
            .is_some_and(|status| status.code != Code::Valid)
        {
            seen += 1;
        }
        assert_eq!(seen, JUDGEMENTS_MAX);
    }
}
