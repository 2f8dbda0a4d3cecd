//! A small network in one process for tests: ledgers over a log in memory, endorsers with a worker
//! that runs a made-up contract, an orderer that does as it is told, and gateways in front.

mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ledger_log::Log;
use ledger_log::memory::{Control, MemoryLog};
use ledger_log::topics::Topics;
use parking_lot::Mutex;
use prost::Message as _;
use protocol::keys::{arguments_commitment, partition_of};
use protocol::ledger::{self, Kind, Proposal, ReceiptContent};
use protocol::signature::Purpose;
use protocol::testing::{Spec, TestContract, TestIdentity, TestNet};
use protocol::{CONTROL, sha256};
use service::health::Health;
use service::identity::Identity;
use service::mux::CallError;
use service::rpc::{self, BroadcastReply, BroadcastRequest, Finality, broadcast_reply};
use service::signer::{self, BatchSigner};
use service::tls::Trust;
use service::{Caller, Problem, Tasks, time};
use tokio::time::Instant;

use super::Gateway;
use super::config::{Limits, Quotas};
use super::endorse::Candidate;
use super::orderers::{Orderer, Orderers};
use crate::endorser::check::Checked;
use crate::endorser::{Endorsed, Endorser};
use crate::ledger::Ledger;
use crate::peers::Peers;
use crate::reporting::Reports;
use crate::run::{Inside, ScrubConfig, start};
use crate::state::Tuning;
use crate::workers::Workers;
pub(crate) use worker::FakeWorker;

pub(crate) const A: &str = "HospitalA";
pub(crate) const B: &str = "HospitalB";

/// One peer.
pub(crate) struct Node {
    pub ledger: Arc<Ledger>,
    pub endorser: Arc<Endorser>,
    pub worker: Arc<FakeWorker>,
    _data: tempfile::TempDir,
}

pub(crate) struct Rig {
    pub net: TestNet,
    pub tasks: Tasks,
    pub log: Control,
    pub orderer: Arc<FakeOrderer>,
    pub a: Node,
    pub b: Node,
    /// HospitalB as HospitalA's gateway sees it.
    pub b_seen: Arc<InProcess>,
    /// Of HospitalA.
    pub gateway: Arc<Gateway>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.tasks.cancel();
        // The directories go before the last holder of a database does: then it must have nothing left
        // to write, or it tries for a second each.
        for chain in self.a.ledger.chains.iter().chain(&self.b.ledger.chains) {
            let _ = chain.state.flush(true);
        }
    }
}

/// Another peer without a network in between.
pub(crate) struct InProcess {
    endorser: Arc<Endorser>,
    pub alive: AtomicBool,
    pub fails_with: Mutex<Option<Problem>>,
    pub asked: AtomicU32,
}

#[async_trait]
impl Candidate for InProcess {
    fn organisation(&self) -> &str {
        self.endorser.identity.msp_id()
    }

    fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    async fn endorse(&self, checked: &Checked, height: u64, timeout: Duration) -> Result<Endorsed, Problem> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if let Some(problem) = self.fails_with.lock().clone() {
            return Err(problem);
        }
        // As over the wire: everything is checked again.
        let checked = self.endorser.check(checked.signed(), Kind::Submit)?;
        self.endorser.endorse(&checked, height, Instant::now() + timeout).await
    }
}

/// Heights after which a result is too old here.
const SNAPSHOT_AGE_MAX: u64 = 100;

/// What an orderer does with the next transactions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mood {
    Orders,
    /// Ordered, and the reply is lost.
    LosesReply,
    /// Somebody had a copy with other signatures ordered before.
    FollowsCopy,
    /// Others come first, until what it was computed on is too old.
    ComesLate,
    /// Only such a copy is ordered, and nobody knows.
    OnlyCopies,
    /// Not ordered, and said to be: a receipt with a signature for something else.
    Pretends,
    /// Not ordered, and said to be: a good receipt for a place that something else takes.
    BreaksWord,
    /// Not ordered, and nobody knows.
    LosesAll,
    Refuses(Problem),
    Away,
}

pub(crate) struct FakeOrderer {
    net: Arc<TestNetParts>,
    log: Control,
    topic: Mutex<Option<Arc<Ledger>>>,
    moods: Mutex<Vec<Mood>>,
    pub asked: AtomicU32,
}

/// What is needed of a network to make blocks.
struct TestNetParts {
    identity: TestIdentity,
    channel: protocol::Digest,
    partitions: u32,
}

impl FakeOrderer {
    /// The moods of the next calls; afterwards it orders.
    pub fn expect(&self, moods: &[Mood]) {
        *self.moods.lock() = moods.iter().rev().cloned().collect();
    }

    /// A transaction and the partition it belongs to.
    fn place(&self, request: &BroadcastRequest) -> (ledger::Transaction, u32) {
        let transaction = ledger::Transaction::decode(&request.transaction[..]).expect("a transaction");
        let proposal = Proposal::decode(&transaction.proposal[..]).expect("a proposal");
        let key = proposal.partition_key.as_slice().try_into().expect("32 bytes");
        (transaction, partition_of(&key, self.net.partitions))
    }

    /// A block without it, and its receipt all the same.
    fn break_word(&self, request: &BroadcastRequest) -> ledger::Receipt {
        let (_, partition) = self.place(request);
        let height = self.append_block(partition, BTreeMap::new(), Vec::new());
        self.receipt(request, height, Purpose::Receipt)
    }

    fn append(&self, request: &BroadcastRequest) -> ledger::Receipt {
        let (_, partition) = self.place(request);
        let certificates: BTreeMap<_, _> = request
            .certificates
            .iter()
            .map(|der| (sha256(der), der.clone()))
            .collect();
        let height = self.append_block(partition, certificates, vec![request.transaction.clone()]);
        self.receipt(request, height, Purpose::Receipt)
    }

    fn append_block(
        &self,
        partition: u32,
        certificates: BTreeMap<protocol::Digest, Vec<u8>>,
        transactions: Vec<Vec<u8>>,
    ) -> u64 {
        let block = ledger::Block {
            channel: self.net.channel.to_vec(),
            partition,
            certificates: certificates.into_values().collect(),
            transactions,
            ..Default::default()
        };
        let ledger = self.topic.lock().clone().expect("started");
        self.log.inject(&ledger.topics.of(partition), sign(&self.net, &block))
    }

    /// Only with [`Purpose::Receipt`] it is one.
    fn receipt(&self, request: &BroadcastRequest, height: u64, purpose: Purpose) -> ledger::Receipt {
        let (transaction, partition) = self.place(request);
        let content = ReceiptContent {
            channel: self.net.channel.to_vec(),
            partition,
            height,
            tx_id: sha256(&transaction.proposal).to_vec(),
            ..Default::default()
        }
        .encode_to_vec();
        ledger::Receipt {
            signature: Some(self.net.identity.sign(purpose, &self.net.channel, &content)),
            content,
        }
    }
}

/// The same transaction with an endorsement that does not hold.
fn tampered(request: &BroadcastRequest) -> BroadcastRequest {
    let mut transaction = ledger::Transaction::decode(&request.transaction[..]).expect("a transaction");
    transaction.endorsements[0].signature[0] ^= 1;
    BroadcastRequest {
        transaction: transaction.encode_to_vec(),
        ..request.clone()
    }
}

fn sign(net: &TestNetParts, block: &ledger::Block) -> Vec<u8> {
    let block = block.encode_to_vec();
    let signature = Some(net.identity.sign(Purpose::Block, &net.channel, &block));
    ledger::BlockRecord {
        block,
        certificate: net.identity.der().to_vec(),
        signature,
    }
    .encode_to_vec()
}

pub(crate) struct Shared(Arc<FakeOrderer>);

#[async_trait]
impl Orderer for Shared {
    fn is_up(&self) -> bool {
        true
    }

    fn waiting(&self) -> usize {
        0
    }

    async fn broadcast(&self, request: BroadcastRequest, _: Duration) -> Result<BroadcastReply, CallError> {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        // Others that run at the same time get as far as they can.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mood = self.0.moods.lock().pop().unwrap_or(Mood::Orders);
        let outcome = match mood {
            Mood::Orders => broadcast_reply::Outcome::Receipt(self.0.append(&request)),
            Mood::LosesReply => {
                self.0.append(&request);
                return Err(CallError::Unknown("lost".to_owned()));
            }
            Mood::FollowsCopy => {
                self.0.append(&tampered(&request));
                broadcast_reply::Outcome::Receipt(self.0.append(&request))
            }
            Mood::ComesLate => {
                let (_, partition) = self.0.place(&request);
                for _ in 0..=SNAPSHOT_AGE_MAX {
                    self.0.append_block(partition, BTreeMap::new(), Vec::new());
                }
                broadcast_reply::Outcome::Receipt(self.0.append(&request))
            }
            Mood::OnlyCopies => {
                self.0.append(&tampered(&request));
                return Err(CallError::Unknown("lost".to_owned()));
            }
            Mood::Pretends => broadcast_reply::Outcome::Receipt(self.0.receipt(&request, 1, Purpose::Block)),
            Mood::BreaksWord => broadcast_reply::Outcome::Receipt(self.0.break_word(&request)),
            Mood::LosesAll => return Err(CallError::Unknown("lost".to_owned())),
            Mood::Refuses(problem) => broadcast_reply::Outcome::Problem(problem.into()),
            Mood::Away => return Err(CallError::Unsent("away".to_owned())),
        };
        Ok(BroadcastReply {
            id: 0,
            outcome: Some(outcome),
        })
    }
}

/// Policies: `create` and `add` by any organisation, `both` by both.
fn spec() -> Spec {
    let contract = TestContract {
        name: "records".to_owned(),
        component: b"component".to_vec(),
        policy: String::new(),
        functions: vec![("both".to_owned(), "AND('HospitalA.peer', 'HospitalB.peer')".to_owned())],
    };
    Spec {
        contracts: vec![contract],
        snapshot_age_max: SNAPSHOT_AGE_MAX,
        ..Spec::default()
    }
}

impl Rig {
    pub async fn new() -> Self {
        Self::with(Limits::default(), Quotas::default()).await
    }

    pub async fn with(limits: Limits, quotas: Quotas) -> Self {
        Self::reporting(limits, quotas, None).await
    }

    pub async fn reporting(limits: Limits, quotas: Quotas, reports: Option<Arc<Reports>>) -> Self {
        let net = TestNet::with(spec());
        let tasks = Tasks::new();
        let memory = MemoryLog::reliable();
        let log = memory.control();
        let a = node(&net, &tasks, memory.another(), A, &limits).await;
        let b = node(&net, &tasks, memory.another(), B, &limits).await;
        log.inject(&a.ledger.topics.of(CONTROL), net.genesis_record());
        log.inject(&a.ledger.topics.of(CONTROL), net.module_record(0));
        let parts = TestNetParts {
            identity: net.identity(A, "orderer0").clone(),
            channel: net.channel.id,
            partitions: net.channel.partitions(),
        };
        let orderer = Arc::new(FakeOrderer {
            net: Arc::new(parts),
            log: log.clone(),
            topic: Mutex::new(Some(Arc::clone(&a.ledger))),
            moods: Mutex::default(),
            asked: AtomicU32::new(0),
        });
        for partition in 0..net.channel.partitions() {
            log.inject(&a.ledger.topics.of(partition), net.marker_block(partition));
            for node in [&a, &b] {
                let deadline = Instant::now() + Duration::from_secs(10);
                assert!(
                    node.ledger.reached(partition, 0, deadline).await,
                    "the marker is committed"
                );
                assert!(node.ledger.reached(CONTROL, 1, deadline).await, "the module is read");
            }
        }
        while a.ledger.is_replaying() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let b_seen = Arc::new(InProcess {
            endorser: Arc::clone(&b.endorser),
            alive: AtomicBool::new(true),
            fails_with: Mutex::default(),
            asked: AtomicU32::new(0),
        });
        let trust = Arc::clone(&a.endorser.trust);
        let peers = Peers::start(&tasks, &trust, &a.ledger, &[]).expect("no peers");
        let orderers = Orderers::over(vec![Box::new(Shared(Arc::clone(&orderer)))]);
        let others: Vec<Arc<dyn Candidate>> = vec![Arc::clone(&b_seen) as Arc<dyn Candidate>];
        let gateway = Gateway::new(
            &tasks,
            Arc::clone(&a.endorser),
            orderers,
            peers,
            others,
            &quotas,
            reports,
        );
        Rig {
            net,
            tasks,
            log,
            orderer,
            a,
            b,
            b_seen,
            gateway,
        }
    }

    pub fn caller(&self) -> Caller {
        Caller::new(self.net.identity(A, "client0").certificate.clone())
    }

    pub fn call(function: &str, arguments: &str) -> rpc::Call {
        let (function, arguments) = (function.to_owned(), arguments.as_bytes().to_vec());
        rpc::Call {
            contract: "records".to_owned(),
            function,
            arguments,
        }
    }

    /// Submits a call that the gateway signs.
    pub async fn submit(&self, function: &str, arguments: &str, wait: Finality) -> rpc::SubmitReply {
        let intent = rpc::submit_request::Intent::Call(Self::call(function, arguments));
        self.submit_intent(intent, wait, 5_000).await
    }

    pub async fn submit_intent(
        &self,
        intent: rpc::submit_request::Intent,
        wait: Finality,
        timeout_ms: u32,
    ) -> rpc::SubmitReply {
        let request = rpc::SubmitRequest {
            id: 0,
            intent: Some(intent),
            wait: wait.into(),
            timeout_ms,
        };
        self.gateway.submit(request, &self.caller()).await
    }

    pub async fn evaluate(&self, function: &str, arguments: &str) -> Result<String, Problem> {
        let intent = rpc::evaluate_request::Intent::Call(Self::call(function, arguments));
        let place = self.gateway.admit("evaluate", &self.caller(), 0)?;
        let response = self.gateway.evaluated(Some(intent), &self.caller(), place).await?;
        Ok(String::from_utf8(response).expect("text"))
    }

    /// A proposal that `client0` signs, after `change` had its way with it.
    pub fn signed(
        &self,
        (function, subject, arguments): (&str, &str, &str),
        kind: Kind,
        change: impl FnOnce(&mut Proposal),
    ) -> rpc::SignedProposal {
        let client = self.net.identity(A, "client0");
        let salt: [u8; 32] = rand::random();
        let mut proposal = Proposal {
            channel: self.net.channel.id.to_vec(),
            contract: "records".to_owned(),
            contract_digest: self.net.contract("records").digest().to_vec(),
            function: function.to_owned(),
            partition_key: self.net.secret.partition_key("records", subject).to_vec(),
            creator: client.hash().to_vec(),
            kind: kind.into(),
            nonce: rand::random::<[u8; 16]>().to_vec(),
            client_time_ms: time::unix_ms(),
            height_bound: 1_000,
            arguments_commitment: arguments_commitment(&salt, arguments.as_bytes()).to_vec(),
            ..Default::default()
        };
        change(&mut proposal);
        let bytes = proposal.encode_to_vec();
        rpc::SignedProposal {
            signature: Some(client.sign(Purpose::Proposal, &self.net.channel.id, &bytes)),
            proposal: bytes,
            certificate: client.der().to_vec(),
            salt: salt.to_vec(),
            arguments: arguments.as_bytes().to_vec(),
        }
    }
}

async fn node(net: &TestNet, tasks: &Tasks, log: MemoryLog, msp_id: &str, limits: &Limits) -> Node {
    let data = tempfile::tempdir().expect("a directory");
    let topics = Topics::of_channel(&net.channel).specs(&net.channel, false);
    log.ensure(&topics, true).await.expect("topics");
    let inside = Inside {
        log: Arc::new(log),
        genesis: net.genesis_bytes(),
        secret: net.secret_bytes,
        data: data.path().join("state"),
        tuning: Tuning::default(),
        scrub: ScrubConfig {
            interval_s: 0,
            bytes_per_second: 0,
        },
        attester: None,
    };
    let ledger = start(tasks, &Health::new(), inside).expect("the inside starts");
    let directory = data.path().join("identity");
    net.identity(msp_id, "peer0").write(&directory).expect("an identity");
    let identity = Arc::new(Identity::load(&directory).expect("an identity"));
    let trust = Trust::load(Arc::clone(&identity), net.channel.members.clone(), None).expect("trust");
    let worker = FakeWorker::new();
    let modules = Arc::clone(&ledger);
    let endorser = Arc::new(Endorser {
        ledger: Arc::clone(&ledger),
        workers: Workers::over(
            vec![Box::new(Arc::clone(&worker))],
            Arc::new(move |digest: &protocol::Digest| modules.module(digest)),
        ),
        signer: BatchSigner::start(tasks, Arc::clone(&identity), net.channel.id, signer::Config::default()),
        identity,
        trust,
        limits: limits.clone(),
    });
    Node {
        ledger,
        endorser,
        worker,
        _data: data,
    }
}
