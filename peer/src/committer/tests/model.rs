//! Reads, ranges and writes of random transactions against a model that is obviously right.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::{
    code::Code,
    ledger::Version,
    testing::{TestNet, TestTx},
};

use crate::committer::model::Partition;

/// What a random transaction does with the keys `k0` to `k7`.
#[derive(Clone, Debug)]
struct Plan {
    /// How many blocks ago it was endorsed.
    age: u64,
    reads: Vec<u8>,
    range: Option<(u8, u8)>,
    writes: Vec<(u8, Option<u8>)>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let write = (0u8..8, proptest::option::weighted(0.7, any::<u8>()));
    let reads = proptest::collection::btree_set(0u8..8, 0..3);
    let writes = proptest::collection::btree_map(0u8..8, write.prop_map(|(_, value)| value), 0..3);
    let range = proptest::option::of((0u8..8, 1u8..9)).prop_map(|range| range.filter(|(start, end)| start < end));
    (1u64..4, reads, range, writes).prop_map(|(age, reads, range, writes)| Plan {
        age,
        reads: reads.into_iter().collect(),
        range,
        writes: writes.into_iter().collect(),
    })
}

fn key(k: u8) -> Vec<u8> {
    vec![b'k', b'0' + k]
}

/// Key → version: all that reads look at.
type State = BTreeMap<u8, Version>;

fn tx(partition: &Partition, states: &[State], plan: &Plan) -> TestTx {
    let at = (states.len() as u64).saturating_sub(plan.age);
    let seen = &states[at as usize];
    let header = partition.maps.headers[at as usize];
    let mut tx = partition.net.tx("patient").snapshot(at, &header);
    for read in &plan.reads {
        tx = tx.read(&key(*read), seen.get(read).copied());
    }
    if let Some((start, end)) = plan.range {
        let rows: Vec<(Vec<u8>, Version)> = seen.range(start..end).map(|(k, version)| (key(*k), *version)).collect();
        let rows: Vec<(&[u8], Version)> = rows.iter().map(|(key, version)| (&key[..], *version)).collect();
        tx = tx.range(&key(start), &key(end), &rows);
    }
    for (k, value) in &plan.writes {
        tx = match value {
            Some(value) => tx.write(&key(*k), &[*value]),
            None => tx.delete(&key(*k)),
        };
    }
    tx.build()
}

/// One after the other: what was read is still so, or it has lost.
fn judge(now: &mut State, seen: &State, plan: &Plan, version: Version) -> Code {
    if plan.reads.iter().any(|k| now.get(k) != seen.get(k)) {
        return Code::MvccConflict;
    }
    if let Some((start, end)) = plan.range
        && !now.range(start..end).eq(seen.range(start..end))
    {
        return Code::PhantomRead;
    }
    for (k, value) in &plan.writes {
        match value {
            Some(_) => drop(now.insert(*k, version)),
            None => drop(now.remove(k)),
        }
    }
    Code::Valid
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn codes_and_digest_are_the_models(
        blocks in proptest::collection::vec(proptest::collection::vec(plan(), 0..6), 1..6)
    ) {
        let mut partition = Partition::started(TestNet::new(&["HospitalA"], 1), 0);
        // States after each block; the marker's is empty.
        let mut states: Vec<State> = vec![State::new()];
        for plans in &blocks {
            let height = partition.position.next_height();
            let txs: Vec<TestTx> = plans.iter().map(|plan| tx(&partition, &states, plan)).collect();
            let codes = partition.block(&txs.iter().collect::<Vec<_>>());
            let mut now = states.last().expect("one").clone();
            let mut expected = Vec::new();
            for (index, plan) in (0u32..).zip(plans) {
                let seen = &states[(states.len() as u64).saturating_sub(plan.age) as usize];
                expected.push(judge(&mut now, seen, plan, Version { epoch: 0, height, index }));
            }
            prop_assert_eq!(codes, expected);
            states.push(now);
            let digest = partition.maps.digest(Some(0), partition.net.channel.config_digest);
            prop_assert_eq!(partition.position.lattice.digest(), digest, "incremental as from scratch");
            prop_assert_eq!(partition.maps.state.len(), states.last().expect("one").len());
        }
    }
}
