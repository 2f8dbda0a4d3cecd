//! A network of bytes, orderers on a log in memory, and the log as a peer reads it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use ledger_log::{TopicPartition, memory::MemoryLog};
use orderer::{Orderer, Parts, config::Bounds};
use prost::Message;
use protocol::{
    Digest, block,
    hash::digest,
    ledger::{Receipt, ReceiptContent},
    sha256,
    signature::Purpose,
    testing::{TestNet, TestTx},
    transaction::Checker,
};
use service::{Caller, Identity, Tasks, health::Health, rpc::BroadcastRequest};
use tokio::time::{sleep, timeout};

pub const PARTITIONS: u32 = 3;
pub const ORGANISATIONS: [&str; 2] = ["HospitalA", "HospitalB"];

pub struct Running {
    pub orderer: Orderer,
    pub tasks: Tasks,
    pub health: Health,
}

pub fn net() -> TestNet {
    TestNet::new(&ORGANISATIONS, PARTITIONS)
}

pub fn identity(net: &TestNet, organisation: &str, name: &str) -> Arc<Identity> {
    let directory = tempfile::tempdir().expect("a directory");
    net.identity(organisation, name)
        .write(directory.path())
        .expect("written");
    Arc::new(Identity::load(directory.path()).expect("loaded"))
}

pub fn parts(net: &TestNet, organisation: &str, log: MemoryLog) -> Parts {
    let modules = net
        .contracts
        .iter()
        .map(|contract| contract.component.clone())
        .collect();
    let bounds = Bounds {
        check_threads: 0,
        ..Bounds::default()
    };
    Parts {
        modules,
        bounds,
        ..Parts::new(
            net.genesis_bytes(),
            identity(net, organisation, "orderer0"),
            Arc::new(log),
        )
    }
}

pub fn start_with(parts: Parts) -> Running {
    let (tasks, health) = (Tasks::new(), Health::new());
    let orderer = Orderer::start(&tasks, &health, parts).expect("parts fit");
    Running { orderer, tasks, health }
}

pub async fn start(net: &TestNet, organisation: &str, log: MemoryLog) -> Running {
    let running = start_with(parts(net, organisation, log));
    running.opened().await;
    running
}

impl Running {
    pub async fn opened(&self) {
        let opened = async {
            while !self.orderer.is_open() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(120), opened).await.expect("opens");
    }

    pub async fn end(self) {
        self.tasks.cancel();
        self.tasks.wait(Duration::from_secs(20)).await.expect("ends");
        assert_eq!(self.orderer.queue_bytes(), 0, "everything was answered");
    }
}

pub fn gateway(net: &TestNet, organisation: &str) -> Caller {
    Caller::new(net.identity(organisation, "peer0").certificate.clone())
}

pub fn request(tx: &TestTx) -> BroadcastRequest {
    BroadcastRequest {
        id: 0,
        transaction: tx.bytes.clone(),
        certificates: tx.certificates.clone(),
    }
}

pub fn transactions(net: &TestNet, count: usize) -> Vec<TestTx> {
    (0..count)
        .map(|i| {
            net.tx(&format!("patient-{i}"))
                .height_bound(60_000)
                .write(b"record", b"{}")
                .build()
        })
        .collect()
}

/// Everything that stands in the data partitions, as a peer reads it.
pub struct Ordered {
    /// Where each transaction stands; more than one place is a duplicate.
    pub places: HashMap<Digest, Vec<(u32, u64, u32)>>,
    pub records: BTreeMap<(u32, u64), Bytes>,
    pub markers: Vec<u32>,
    pub empty: usize,
}

pub fn tx_topic(partition: u32) -> TopicPartition {
    TopicPartition {
        topic: "medledger.test.tx".into(),
        partition,
    }
}

pub fn control_topic() -> TopicPartition {
    TopicPartition {
        topic: "medledger.test.control".into(),
        partition: 0,
    }
}

pub fn read(net: &TestNet, log: &MemoryLog) -> Ordered {
    let checker = net.checker();
    let mut ordered = Ordered {
        places: HashMap::new(),
        records: BTreeMap::new(),
        markers: Vec::new(),
        empty: 0,
    };
    for partition in 0..PARTITIONS {
        for record in log.control().records(&tx_topic(partition)) {
            ordered.read(&checker, partition, record.offset, record.value);
        }
    }
    ordered
}

impl Ordered {
    pub fn read(&mut self, checker: &Checker, partition: u32, height: u64, raw: Bytes) {
        let opened = block::open(checker, partition, &raw);
        assert_eq!(opened.fault, None, "an orderer's record is sound");
        if let Some(marker) = opened.marker {
            assert!(block::is_genesis_marker(&marker));
            self.markers.push(partition);
        } else {
            assert!(self.markers.contains(&partition), "the marker comes first");
            self.empty += usize::from(opened.transactions.is_empty());
        }
        for (index, tx) in opened.transactions.iter().enumerate() {
            let tx = protocol::transaction::decode(tx).expect("admitted");
            checker
                .check(&tx, &opened.certificates, Some(partition))
                .expect("admitted");
            self.places
                .entry(tx.tx_id)
                .or_default()
                .push((partition, height, index as u32));
        }
        self.records.insert((partition, height), raw);
    }

    /// A receipt is true and signed by an orderer.
    pub fn check_receipt(&self, net: &TestNet, tx: &TestTx, receipt: &Receipt) {
        let content = ReceiptContent::decode(&receipt.content[..]).expect("content");
        let place = (content.partition, content.height, content.index);
        assert_eq!(self.places[&tx.tx_id], [place], "exactly once, where the receipt says");
        assert_eq!((content.tx_id, content.partition), (tx.tx_id.to_vec(), tx.partition));
        let raw = &self.records[&(content.partition, content.height)];
        assert_eq!(content.record_hash, sha256(raw));
        assert_eq!(content.channel, net.channel.id);
        let signature = receipt.signature.as_ref().expect("signed");
        let signer = digest(&signature.certificate).expect("a hash");
        let orderers = ORGANISATIONS.map(|name| net.identity(name, "orderer0"));
        let signer = orderers
            .iter()
            .find(|orderer| orderer.hash() == signer)
            .expect("an orderer");
        let key = &signer.certificate.public_key;
        let verified =
            net.checker()
                .verifier
                .verify(key, Purpose::Receipt, &net.channel.id, &receipt.content, signature);
        assert_eq!(verified, Ok(()));
    }
}
