//! What the commit path costs: stage 1 (signatures) and stage 2 (judging, writing) per transaction.
//!
//! `cargo run --release -p medledger-peer --example commit -- [BLOCKS] [TRANSACTIONS] [PROPOSALS_PER_ROOT]`

#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use peer::{
    committer::{commit_blocks, prepare::prepare, validate::Rules},
    state::{Owner, PartitionState, Store, Tuning},
};
use protocol::{
    ledger,
    signature::Purpose,
    testing::{Keys, Spec, TestNet, TestTx},
};

fn argument(at: usize, default: usize) -> usize {
    std::env::args()
        .nth(at)
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// New certificates' signatures: `roots` transactions share one signed root, as busy clients and gateways sign.
fn share_roots(net: &TestNet, transactions: &mut [TestTx], per_root: usize) {
    use prost::Message;
    for chunk in transactions.chunks_mut(per_root.max(1)) {
        let client = net.identity("HospitalA", "client0");
        let peer = net.identity("HospitalA", "peer0");
        let proposals: Vec<&[u8]> = chunk.iter().map(|tx| &tx.proposal_bytes[..]).collect();
        let clients = client.sign_all(Purpose::Proposal, &net.channel.id, &proposals);
        let results: Vec<Vec<u8>> = chunk.iter().map(|tx| tx.result.encode_to_vec()).collect();
        let peers = peer.sign_all(Purpose::Endorsement, &net.channel.id, &results);
        for ((tx, client), endorsement) in chunk.iter_mut().zip(clients).zip(peers) {
            let mut message = ledger::Transaction::decode(&tx.bytes[..]).expect("own bytes");
            message.client = Some(client);
            message.endorsements = vec![endorsement];
            tx.bytes = message.encode_to_vec();
        }
    }
}

fn main() {
    let (blocks, per_block, per_root) = (argument(1, 100), argument(2, 100), argument(3, 16));
    let net = TestNet::with(Spec {
        partitions: 1,
        keys: Keys::P256,
        ..Spec::default()
    });
    let checker = std::sync::Arc::new(net.checker());
    let rules = Rules {
        checker: checker.clone(),
        partition: 0,
        genesis: net.genesis_place(),
    };
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::new(directory.path(), Tuning::default()).expect("a store");
    let owner = Owner {
        channel: net.channel.id,
        secret: net.secret.hash(),
    };
    let state = PartitionState::open(&store, owner, 0).expect("opened");
    let mut position = state.position().expect("read");
    let marker = prepare(&checker, 0, &net.marker_block(0));
    commit_blocks(&rules, &state, &mut position, vec![marker]).expect("committed");

    let (mut stage1, mut stage2) = (Duration::ZERO, Duration::ZERO);
    let mut bytes = 0;
    for block in 0..blocks {
        let tip = position.tip.expect("a marker");
        let mut transactions: Vec<TestTx> = (0..per_block)
            .map(|i| {
                let tx = net.tx(&format!("patient-{block}-{i}")).height_bound(tip.height + 1000);
                tx.snapshot(tip.height, &tip.header)
                    .read(b"record", None)
                    .write(b"record", &[b'x'; 600])
                    .build()
            })
            .collect();
        share_roots(&net, &mut transactions, per_root);
        let raw = net.block(0, &transactions.iter().collect::<Vec<_>>());
        bytes += raw.len();
        let started = Instant::now();
        let prepared = prepare(&checker, 0, &raw);
        stage1 += started.elapsed();
        let started = Instant::now();
        let changes = commit_blocks(&rules, &state, &mut position, vec![prepared]).expect("committed");
        stage2 += started.elapsed();
        let valid = changes[0]
            .leaves
            .iter()
            .filter(|leaf| leaf.code == protocol::code::Code::Valid)
            .count();
        assert_eq!(
            valid,
            per_block,
            "{:?}",
            changes[0].leaves.first().map(|leaf| leaf.code)
        );
    }
    let all = (blocks * per_block) as f64;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / all;
    println!(
        "{blocks} blocks of {per_block} transactions of {} bytes, {per_root} under a root",
        bytes as f64 / all
    );
    println!(
        "stage 1 {:.1} µs, stage 2 {:.1} µs per transaction (wall, all cores)",
        each(stage1),
        each(stage2)
    );
}
