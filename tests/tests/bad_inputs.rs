//! What dishonest clients, endorsers, peers and orderers send: each is refused with an error of its own,
//! and changes nothing, on any peer.
//!
//! | from where | cases |
//! |---|---|
//! | past the orderers, into the log | `forged`: transactions; `records`: whole records, also of the control topic |
//! | a peer at an orderer | `forged`, `mutated` |
//! | a client at its gateway | `proposals`, `mutated` |
//! | anybody at any port | `doors`: certificates and roles |
//!
//! All run on one network, one after another; every case is held against the state that all peers had before.

#[path = "bad_inputs/doors.rs"]
mod doors;
#[path = "bad_inputs/forged.rs"]
mod forged;
#[path = "bad_inputs/mutated.rs"]
mod mutated;
#[path = "bad_inputs/proposals.rs"]
mod proposals;
#[path = "bad_inputs/records.rs"]
mod records;

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use medledger_cli::{
    calls,
    network::spec::{ClientSpec, RECORDS},
    patients,
};
use medledger_tests::network::{PATIENCE, World, chain, client::Client, small};
use parking_lot::Mutex;
use protocol::Digest;
use service::rpc::Call;

/// Revoked by HospitalA before the founding.
const FORMER: &str = "former";

struct Here {
    world: World,
    /// Of HospitalA.
    client: Arc<Client>,
    next: AtomicU64,
    /// Transactions that are VALID on purpose.
    honest: AtomicU64,
    failed: Mutex<Vec<String>>,
}

impl Here {
    async fn up() -> Here {
        let mut spec = small();
        let former = ClientSpec {
            name: FORMER.to_owned(),
            attributes: BTreeMap::from([("practitioner_role".to_owned(), "physician".to_owned())]),
            revoked: true,
        };
        spec.organisations[0].clients.push(former);
        let world = World::up(&spec).await;
        let client = world.client("peer0.HospitalA", "physician");
        Here {
            world,
            client,
            next: AtomicU64::new(0),
            honest: AtomicU64::new(0),
            failed: Mutex::default(),
        }
    }

    /// A create of a patient that no other case is about.
    fn fresh(&self) -> Call {
        self.fresh_under(RECORDS)
    }

    fn fresh_under(&self, contract: &str) -> Call {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        calls::create(contract, &patients::patient(patients::SEED, index))
    }

    /// The same, of a patient who has a record by then.
    async fn existing(&self) -> String {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let patient = patients::patient(patients::SEED, index);
        self.client.must(calls::create(RECORDS, &patient)).await;
        self.honest.fetch_add(1, Ordering::Relaxed);
        patient.personal_number
    }

    /// The state digest of every partition, once all peers have judged what the log holds; the same on all.
    async fn state(&self) -> Vec<Digest> {
        let ends = self.world.ends().await;
        let mut all: Option<Vec<Digest>> = None;
        for peer in self.world.peers() {
            let reply = self.world.reached(&peer, &ends).await;
            let digests = (0..self.world.partitions()).map(|partition| {
                let chain = chain(&reply, partition);
                assert_eq!(chain.stopped, "", "{peer} stopped partition {partition}");
                protocol::hash::digest(&chain.state_digest).expect("32 bytes")
            });
            let digests: Vec<Digest> = digests.collect();
            assert_eq!(
                *all.get_or_insert_with(|| digests.clone()),
                digests,
                "{peer} has another state"
            );
        }
        all.expect("there are peers")
    }

    /// The codes that a block's transactions have, the same on every peer.
    async fn codes(&self, name: &str, partition: u32, height: u64) -> Vec<String> {
        let mut all: Option<Vec<String>> = None;
        for peer in self.world.peers() {
            let block = self.world.block(&peer, partition, height).await;
            let codes: Vec<String> = block.transactions.into_iter().map(|tx| tx.code).collect();
            assert_eq!(
                *all.get_or_insert_with(|| codes.clone()),
                codes,
                "{name}: {peer} judges otherwise"
            );
        }
        all.expect("there are peers")
    }

    /// Until a process has counted more than before.
    async fn counted(&self, process: &str, metric: &str, before: f64, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.world.metric(process, metric).await <= before {
            assert!(Instant::now() < deadline, "{name}: {metric} of {process} does not move");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Runs a case; nothing of the state may change meanwhile. One that fails is remembered, so that one run
/// tells of all.
async fn unchanged(here: &Here, name: &str, case: impl Future<Output = ()>) {
    let checked = async {
        let before = here.state().await;
        case.await;
        assert_eq!(here.state().await, before, "{name} changed the state");
    };
    // The panic's message is shown where it happened.
    if AssertUnwindSafe(checked).catch_unwind().await.is_err() {
        here.failed.lock().push(name.to_owned());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_input_has_its_own_error_and_changes_nothing() {
    let here = Here::up().await;
    forged::run(&here).await;
    records::run(&here).await;
    proposals::run(&here).await;
    mutated::run(&here).await;
    doors::run(&here).await;
    assert!(here.failed.lock().is_empty(), "these failed: {:#?}", here.failed.lock());

    // The network is as well as before, and nothing is VALID but what was meant to be.
    here.existing().await;
    here.world.drain().await;
    let ledger = here.world.ledger().await;
    let (valid, honest) = (ledger.valid.len() as u64, here.honest.load(Ordering::Relaxed));
    assert_eq!(valid, honest, "as many are VALID as were honest");
    here.world.check_logs(&[]);
}
