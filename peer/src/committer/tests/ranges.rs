//! A range over an overlay is the range over its content, and deleted keys do not cost again and again.

use std::{cell::Cell, collections::BTreeMap};

use proptest::prelude::*;
use protocol::{Digest, code::Code, testing::TestNet};

use crate::{
    committer::{
        model::{Maps, Partition},
        view::{Overlay, StateView},
    },
    state::{Entry, PASSED_MIN, Version},
};

fn entry(index: u32) -> Entry {
    let version = Version {
        epoch: 0,
        height: 1,
        index,
    };
    Entry::new(version, b"")
}

fn key(number: u16) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Counts the rows that it gave.
#[derive(Default)]
struct Counting {
    maps: Maps,
    rows: Cell<usize>,
}

impl StateView for Counting {
    type Error = std::convert::Infallible;

    fn entry(&self, key: &[u8]) -> Result<Option<Entry>, Self::Error> {
        self.maps.entry(key)
    }

    fn policy(&self, key: &[u8]) -> Result<Option<(Entry, String)>, Self::Error> {
        self.maps.policy(key)
    }

    fn versions(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Version)>, Self::Error> {
        // As a disk seeks: `Maps` goes through everything.
        let range = self.maps.state.range(start.to_vec()..end.to_vec());
        let rows: Vec<_> = range
            .take(limit)
            .map(|(key, entry)| (key.clone(), entry.version))
            .collect();
        self.rows.set(self.rows.get() + rows.len());
        Ok(rows)
    }

    fn is_valid(&self, tx_id: &Digest) -> Result<bool, Self::Error> {
        self.maps.is_valid(tx_id)
    }

    fn header(&self, height: u64) -> Result<Option<Digest>, Self::Error> {
        self.maps.header(height)
    }
}

fn written(keys: impl Iterator<Item = u16>) -> Counting {
    let state: BTreeMap<_, _> = keys.map(|k| (key(k), entry(u32::from(k)))).collect();
    let maps = Maps {
        state,
        ..Maps::default()
    };
    Counting {
        maps,
        rows: Cell::new(0),
    }
}

#[test]
fn deleted_keys_do_not_cost_every_range() {
    const KEYS: u16 = 20_000;
    let base = written(0..KEYS);
    let mut overlay = Overlay::new(&base);
    for k in 0..KEYS - 1 {
        overlay.put(&key(k), None).expect("put");
    }
    for k in 0..2_000 {
        // From everywhere, the far ones first.
        let start = key(KEYS - 1 - 9 * k);
        let rows = overlay.versions(&start, &[0xff; 3], 1).expect("read");
        assert_eq!(rows.len(), 1);
        // What comes into a stretch and goes again does not open it for long.
        overlay.put(&key(9 * k), Some(entry(7))).expect("put");
        overlay.put(&key(9 * k), None).expect("put");
    }
    let bound = 2_000 * 4 * PASSED_MIN + 3 * usize::from(KEYS);
    assert!(
        base.rows.get() < bound,
        "{} rows, every time it would be 20 million",
        base.rows.get()
    );
}

#[test]
fn a_walk_ends_where_it_is_told_to() {
    let base = written(0..10_000);
    let overlay = Overlay::new(&base);
    let mut seen = 0;
    let read = overlay.walk(&key(0), &[0xff; 3], 1000, |_, _| {
        seen += 1;
        seen < 3
    });
    assert_eq!((read, seen), (Ok(()), 3));
    assert!(base.rows.get() <= 256, "one page");
}

#[test]
fn a_delete_of_what_is_not_there_leaves_nothing() {
    let mut partition = Partition::started(TestNet::new(&["HospitalA"], 1), 0);
    let net = partition.net.clone();
    let (height, header) = partition.snapshot();
    let tx = net
        .tx("patient")
        .snapshot(height, &header)
        .write(b"a", b"1")
        .delete(b"b")
        .policy(b"c", "")
        .build();
    let changes = partition.push(&net.block(0, &[&tx]));
    assert_eq!(changes.leaves[0].code, Code::Valid);
    assert_eq!((changes.state.len(), changes.policies.len()), (1, 0));
    assert_eq!(changes.history.len(), 2, "its history says that somebody did");
}

proptest! {
    #[test]
    fn a_walk_gives_what_is_there(
        base in proptest::collection::btree_set(0u16..300, 0..300),
        steps in proptest::collection::vec((any::<bool>(), 0u16..300, 1u16..200, 1usize..40), 0..40),
    ) {
        let base = written(base.into_iter());
        let mut overlay = Overlay::new(&base);
        let mut model = base.maps.state.clone();
        for (writes, from, many, limit) in steps {
            for k in from..from + many {
                if writes && k % 3 == 0 {
                    overlay.put(&key(k), Some(entry(9))).expect("put");
                    model.insert(key(k), entry(9));
                } else if !writes {
                    overlay.put(&key(k), None).expect("put");
                    model.remove(&key(k));
                }
            }
            for start in [0, from, from + many / 2] {
                for end in [from, from + many, 1000] {
                    let rows = overlay.versions(&key(start), &key(end), limit).expect("read");
                    let there = model.iter().filter(|(k, _)| key(start) <= **k && **k < key(end));
                    let there: Vec<_> = there.take(limit).map(|(k, entry)| (k.clone(), entry.version)).collect();
                    prop_assert_eq!(rows, there);
                }
            }
        }
    }
}
