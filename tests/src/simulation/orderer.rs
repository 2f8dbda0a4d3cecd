//! An orderer without its processes: the real batcher over a client of the simulated log.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use ledger_log::{AppendError, Log, memory::MemoryLog};
use orderer::batcher::{Batcher, Entry, Limits};
use protocol::{
    Digest, sha256,
    testing::{TestNet, TestTx},
};

use super::{PARTITIONS, topic};

/// Where the log stored a transaction, as its orderer says.
#[derive(Clone, Debug)]
pub struct Receipt {
    pub tx_id: Digest,
    pub partition: u32,
    pub height: u64,
    pub index: u32,
}

struct Appending {
    partition: u32,
    tx_ids: Vec<Digest>,
    offset: BoxFuture<'static, Result<u64, AppendError>>,
}

pub struct Orderer {
    net: Arc<TestNet>,
    log: MemoryLog,
    /// None: crashed. By partition.
    batchers: Option<Vec<Batcher<Digest>>>,
    appending: VecDeque<Appending>,
    epoch: tokio::time::Instant,
}

impl Orderer {
    pub fn new(net: Arc<TestNet>, log: MemoryLog) -> Orderer {
        let epoch = tokio::time::Instant::now();
        let mut orderer = Orderer {
            net: net.clone(),
            log,
            batchers: None,
            appending: VecDeque::new(),
            epoch,
        };
        orderer.start(&net);
        orderer
    }

    pub fn is_up(&self) -> bool {
        self.batchers.is_some()
    }

    /// Every orderer appends a marker at start; all but the first are no-ops.
    pub fn start(&mut self, net: &TestNet) {
        if self.is_up() {
            return;
        }
        let batcher = |partition| Batcher::new(&net.channel.id, partition, Limits::default());
        self.batchers = Some((0..PARTITIONS).map(batcher).collect());
        for partition in 0..PARTITIONS {
            self.append(partition, net.marker_block(partition), Vec::new());
        }
    }

    /// What waits and what is under way is forgotten; records on the wire may arrive all the same.
    pub fn crash(&mut self) {
        self.batchers = None;
        self.appending.clear();
    }

    /// `false`: it is down, the message is lost.
    pub fn receive(&mut self, tx: &TestTx) -> bool {
        let now = self.now();
        let Some(batchers) = &mut self.batchers else {
            return false;
        };
        let certificates = tx
            .certificates
            .iter()
            .map(|der| (sha256(der), der.clone().into()))
            .collect();
        let entry = Entry {
            transaction: tx.bytes.clone(),
            certificates,
            tag: tx.tx_id,
        };
        batchers[tx.partition as usize].push(now, entry);
        true
    }

    pub async fn step(&mut self) -> Vec<Receipt> {
        let now = self.now();
        let mut sealed = Vec::new();
        for (partition, batcher) in (0..).zip(self.batchers.iter_mut().flatten()) {
            while let Some(block) = batcher.seal(now) {
                sealed.push((partition, block));
            }
        }
        for (partition, sealed) in sealed {
            let record = self
                .net
                .sign_block(self.net.identity("HospitalA", "orderer0"), &sealed.block);
            self.append(partition, record, sealed.tags);
        }
        self.receipts()
    }

    fn append(&mut self, partition: u32, record: Vec<u8>, tx_ids: Vec<Digest>) {
        let offset = self.log.append(&topic(partition), record.into());
        self.appending.push_back(Appending {
            partition,
            tx_ids,
            offset,
        });
    }

    fn receipts(&mut self) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        self.appending
            .retain_mut(|appending| match (&mut appending.offset).now_or_never() {
                None => true,
                Some(Err(_)) => false,
                Some(Ok(height)) => {
                    let partition = appending.partition;
                    let tx_ids = std::mem::take(&mut appending.tx_ids).into_iter();
                    receipts.extend((0..).zip(tx_ids).map(|(index, tx_id)| Receipt {
                        tx_id,
                        partition,
                        height,
                        index,
                    }));
                    false
                }
            });
        receipts
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
}
