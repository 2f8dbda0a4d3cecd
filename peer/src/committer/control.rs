//! Follows the control chain, whole: genesis, modules, headers. Kept on disk as read, so that a
//! restart without Kafka serves reads and starts the partitions that had started.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ledger_log::{Log, Record, TopicPartition};
use parking_lot::RwLock;
use protocol::{
    CONTROL, Digest,
    control::{Content, ControlChain, Genesis, Pushed},
    genesis::Channel,
    header::Header,
    sha256,
};
use service::rpc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    chain::Stop,
    follow::{Follow, Followed},
};
use crate::{
    attester::attestations::Attestations,
    ledger::{BlockInfo, Tip},
    metrics::ledger as metrics,
    state::{ControlStore, StateError},
};

/// What is known of the control chain.
pub struct ControlView {
    store: ControlStore,
    inner: RwLock<Inner>,
    tip: watch::Sender<Option<Tip>>,
    genesis: watch::Sender<Option<Genesis>>,
    stop: RwLock<Option<Stop>>,
    stopping: CancellationToken,
}

struct Inner {
    chain: ControlChain,
    headers: Vec<(Header, Digest)>,
    modules: HashMap<Digest, Arc<Vec<u8>>>,
}

impl Inner {
    fn push(&mut self, raw: &[u8]) -> Pushed {
        let pushed = self.chain.push(raw);
        self.headers.push((pushed.header.clone(), pushed.hash));
        if let Content::Module { digest, component } = &pushed.content {
            self.modules.insert(*digest, Arc::new(component.clone()));
        }
        pushed
    }
}

impl ControlView {
    pub fn open(store: ControlStore, channel: Arc<Channel>) -> Result<Arc<Self>, StateError> {
        let mut inner = Inner {
            chain: ControlChain::new(channel),
            headers: Vec::new(),
            modules: HashMap::new(),
        };
        store.records(|_, raw| drop(inner.push(raw)))?;
        let tip = inner.headers.last().map(|(header, hash)| Tip {
            height: header.height,
            header: *hash,
        });
        if let Some(tip) = tip {
            metrics::reached(CONTROL, tip.height);
        }
        Ok(Arc::new(ControlView {
            store,
            tip: watch::Sender::new(tip),
            genesis: watch::Sender::new(inner.chain.genesis()),
            inner: RwLock::new(inner),
            stop: RwLock::default(),
            stopping: CancellationToken::new(),
        }))
    }

    pub fn tip(&self) -> Option<Tip> {
        *self.tip.borrow()
    }

    pub fn watch_tip(&self) -> watch::Receiver<Option<Tip>> {
        self.tip.subscribe()
    }

    /// Where the genesis stands, once it was read.
    pub fn watch_genesis(&self) -> watch::Receiver<Option<Genesis>> {
        self.genesis.subscribe()
    }

    pub fn module(&self, digest: &Digest) -> Option<Arc<Vec<u8>>> {
        self.inner.read().modules.get(digest).cloned()
    }

    pub fn header(&self, height: u64) -> Option<Digest> {
        self.inner
            .read()
            .headers
            .get(usize::try_from(height).ok()?)
            .map(|(_, hash)| *hash)
    }

    pub fn block(&self, height: u64) -> Option<BlockInfo> {
        let inner = self.inner.read();
        let (header, hash) = inner.headers.get(usize::try_from(height).ok()?)?;
        Some(BlockInfo {
            header: header.clone(),
            hash: *hash,
            transactions: Vec::new(),
        })
    }

    pub fn stop(&self, why: Stop) {
        let mut stop = self.stop.write();
        if stop.is_none() {
            tracing::error!(reason = %why, "the control chain stops");
            metrics::stopped(CONTROL);
            *stop = Some(why);
        }
        self.stopping.cancel();
    }

    pub fn stopped(&self) -> Option<Stop> {
        self.stop.read().clone()
    }

    pub fn describe(&self) -> rpc::Chain {
        let inner = self.inner.read();
        let newest = inner.headers.last();
        rpc::Chain {
            partition: CONTROL,
            blocks: inner.headers.len() as u64,
            header: newest.map(|(_, hash)| hash.to_vec()).unwrap_or_default(),
            state_digest: newest
                .map(|(header, _)| header.state_digest.to_vec())
                .unwrap_or_default(),
            attested_blocks: 0,
            stopped: self.stopped().map(|stop| stop.to_string()).unwrap_or_default(),
        }
    }

    fn push(&self, record: &Record) -> Result<(), StateError> {
        // Disk first: what was published was kept.
        self.store.push(record.offset, &record.value)?;
        let (pushed, genesis) = {
            let mut inner = self.inner.write();
            (inner.push(&record.value), inner.chain.genesis())
        };
        let height = pushed.header.height;
        match pushed.content {
            Content::Genesis => tracing::info!(height, "the channel's genesis"),
            Content::Module { digest, .. } => {
                tracing::info!(height, digest = hex::encode(digest), "a contract's module")
            }
            Content::ConfigRefused { sequence } => {
                tracing::warn!(height, sequence, "a config update: not supported, no effect");
            }
            Content::Nothing(why) => tracing::debug!(height, why, "an empty control block"),
        }
        self.genesis
            .send_if_modified(|known| std::mem::replace(known, genesis) != genesis);
        metrics::reached(CONTROL, height);
        self.tip.send_replace(Some(Tip {
            height,
            header: pushed.hash,
        }));
        Ok(())
    }
}

/// Reads the control topic for ever.
pub async fn run(
    view: Arc<ControlView>,
    log: Arc<dyn Log>,
    topic: TopicPartition,
    attestations: Arc<Attestations>,
    token: CancellationToken,
) {
    let reading = async {
        if let Err(why) = follow(&view, log, topic, &attestations).await {
            view.stop(why);
        }
    };
    tokio::select! {
        () = reading => {}
        () = token.cancelled() => {}
        () = view.stopping.cancelled() => {}
    }
}

async fn follow(
    view: &ControlView,
    log: Arc<dyn Log>,
    topic: TopicPartition,
    attestations: &Attestations,
) -> Result<(), Stop> {
    let last = view.block(view.tip().map_or(u64::MAX, |tip| tip.height));
    let from = last.as_ref().map_or(0, |block| block.header.height);
    let mut follow = Follow::new(log, topic, from);
    let mut verify = last.map(|block| block.header.record_hash);
    loop {
        let Followed::Records(records) = follow.next(Duration::from_secs(1)).await? else {
            continue;
        };
        for record in records {
            if let Some(expected) = verify.take() {
                if sha256(&record.value) != expected {
                    return Err(Stop::Mismatch { height: record.offset });
                }
                continue;
            }
            view.push(&record)?;
            attestations.advanced(CONTROL);
        }
    }
}

/// Reads it once, up to the end that the log has now.
pub async fn read_to_end(view: &ControlView, log: &dyn Log, topic: &TopicPartition) -> Result<(), super::ReplayError> {
    let (_, high) = log.bounds(topic).await?;
    let mut reader = log.read(topic, 0).await?;
    while view.tip().map_or(0, |tip| tip.height + 1) < high {
        for record in reader.next(Duration::from_secs(1)).await? {
            if record.offset < high {
                view.push(&record)?;
            }
        }
    }
    Ok(())
}
