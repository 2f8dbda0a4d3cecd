//! The same records give the same headers, however they are batched and wherever a peer restarts.

use std::{path::Path, sync::Arc};

use proptest::prelude::*;
use protocol::{
    keys::key_prefix,
    ledger::Version,
    testing::{TestNet, TestTx},
};

use crate::{
    committer::{commit_blocks, model::Partition, prepare::prepare},
    state::{Owner, PartitionState, Store, Tuning, scrub},
};

/// What a range over all of a subject sees now.
fn rows(partition: &Partition, subject: &str) -> Vec<(Vec<u8>, Version)> {
    let prefix = key_prefix("records", &partition.net.secret.partition_key("records", subject));
    let all = partition.maps.state.iter();
    all.filter_map(|(key, entry)| Some((key.strip_prefix(&prefix[..])?.to_vec(), entry.version.into())))
        .collect()
}

/// Records with everything in them: valid, conflicting, garbage, policies, deletes, ranges.
fn records(blocks: usize) -> (Partition, Vec<Vec<u8>>) {
    let mut partition = Partition::new(TestNet::new(&["HospitalA", "HospitalB"], 1), 0);
    let net = partition.net.clone();
    let mut records = vec![net.block(0, &[]), net.marker_block(0)];
    records.iter().for_each(|raw| drop(partition.push(raw)));
    for i in 0..blocks {
        let (height, header) = partition.snapshot();
        let tx = |j: usize| {
            let subject = format!("patient-{}", (i + j) % 7);
            let tx = net.tx(&subject).snapshot(height, &header);
            let rows = rows(&partition, &subject);
            let rows: Vec<_> = rows.iter().map(|(key, version)| (&key[..], *version)).collect();
            match (i + 2 * j) % 8 {
                // Ranges that hold, over what was written and deleted in blocks of the same batch.
                4 => tx.range(b"", b"", &rows).write(&[b'e', i as u8], b"x").delete(b"a"),
                5 => tx
                    .range(b"b", b"", &rows[rows.partition_point(|(key, _)| *key < &b"b"[..])..])
                    .delete(b"c"),
                6 => rows.iter().fold(tx, |tx, (key, _)| tx.delete(key)),
                0 => tx.write(b"a", &[i as u8]).read(b"b", None),
                1 => tx.write(b"b", &[j as u8; 300]).policy(b"b", "OR('HospitalA.peer')"),
                2 => tx.delete(b"a").range(b"a", b"c", &[]),
                3 => tx.write(b"c", b"").policy(b"b", ""),
                _ => tx.write(b"d", b"x").transaction(|tx| tx.endorsements.clear()),
            }
            .build()
        };
        let txs: Vec<TestTx> = (0..i % 6).map(tx).collect();
        let raw = if i % 11 == 10 {
            b"garbage".to_vec()
        } else {
            net.block(0, &txs.iter().collect::<Vec<_>>())
        };
        partition.push(&raw);
        records.push(raw);
    }
    (partition, records)
}

fn open(directory: &Path, net: &TestNet) -> Arc<PartitionState> {
    let store = Store::new(directory, Tuning::default()).expect("a store");
    let owner = Owner {
        channel: net.channel.id,
        secret: net.secret.hash(),
    };
    PartitionState::open(&store, owner, 0).expect("a partition")
}

/// Commits in batches of the given sizes, with a new start after each.
fn replay(model: &Partition, records: &[Vec<u8>], batches: &[usize]) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut sizes = batches.iter().copied().cycle();
    let mut rest = records;
    while !rest.is_empty() {
        let state = open(directory.path(), &model.net);
        let mut position = state.position().expect("read");
        assert_eq!(position.next_height() as usize, records.len() - rest.len());
        let (batch, later) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        let blocks = batch.iter().map(|raw| prepare(&model.rules.checker, 0, raw)).collect();
        commit_blocks(&model.rules, &state, &mut position, blocks).expect("committed");
        rest = later;
    }
    let state = open(directory.path(), &model.net);
    let headers: Vec<_> = (0..records.len() as u64)
        .map(|height| state.header(height).expect("read").expect("there"))
        .collect();
    assert_eq!(headers, model.maps.headers);
    let position = state.position().expect("read");
    assert_eq!(position.lattice, model.position.lattice);
    assert_eq!(position.started, Some(1));
    for (key, entry) in &model.maps.state {
        assert_eq!(state.entry(key).expect("read"), Some(*entry));
    }
    let done = scrub(&state, &model.net.channel.config_digest, u64::MAX, |_| true)
        .expect("intact")
        .expect("done");
    assert_eq!(done.rows as usize, model.maps.state.len() + model.maps.policies.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn batches_and_restarts_change_nothing(batches in proptest::collection::vec(1usize..20, 1..8)) {
        let (model, records) = records(40);
        replay(&model, &records, &batches);
    }
}

#[test]
fn all_at_once_is_as_one_by_one() {
    let (model, records) = records(30);
    replay(&model, &records, &[usize::MAX]);
    replay(&model, &records, &[1]);
}
