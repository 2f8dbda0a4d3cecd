//! What the disk alone must hold.

use std::sync::Arc;

use protocol::{Digest, header::Header, lattice::Kind};

use super::{options::STATE, *};
use crate::ledger::Tip;

const OWNER: Owner = Owner {
    channel: [1; 32],
    secret: [2; 32],
};

fn open(directory: &std::path::Path) -> Result<Arc<PartitionState>, StateError> {
    PartitionState::open(&Store::new(directory, Tuning::default())?, OWNER, 0)
}

/// One block that writes some keys.
fn block(position: &mut Position, keys: &[&[u8]]) -> Changes {
    let height = position.next_height();
    let mut state = Vec::new();
    for (index, key) in (0u32..).zip(keys) {
        let entry = Entry::new(
            Version {
                epoch: 0,
                height,
                index,
            },
            key,
        );
        position
            .lattice
            .add(Kind::State, key, &entry.version.into(), &entry.hash);
        state.push((key.to_vec(), Some((entry, key.to_vec()))));
    }
    let header = Header {
        channel: OWNER.channel,
        epoch: 0,
        partition: 0,
        height,
        previous: position.tip.map_or(OWNER.channel, |tip| tip.header),
        record_hash: Digest::default(),
        root: Digest::default(),
        state_digest: position.lattice.digest(),
        rules_version: 1,
    };
    let hash = header.hash();
    position.tip = Some(Tip { height, header: hash });
    Changes {
        header,
        hash,
        leaves: Vec::new(),
        state,
        policies: Vec::new(),
        history: Vec::new(),
    }
}

#[test]
fn a_batch_holds_whole_blocks_and_the_position_after_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = open(directory.path()).expect("opened");
    let mut position = state.position().expect("read");
    assert_eq!(position.next_height(), 0);
    let blocks = [block(&mut position, &[b"a", b"b"]), block(&mut position, &[b"c"])];
    state.commit(&blocks, &position).expect("committed");
    drop(state);
    let state = open(directory.path()).expect("opened");
    let again = state.position().expect("read");
    assert_eq!((again.tip, again.lattice), (position.tip, position.lattice));
    assert_eq!(state.header(0), Ok(Some(blocks[0].hash)));
    assert_eq!(state.block(1).expect("read").expect("there").header, blocks[1].header);
    assert_eq!(state.header(2), Ok(None));
}

#[test]
fn a_directory_has_one_owner() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(open(directory.path()).expect("made"));
    let store = Store::new(directory.path(), Tuning::default()).expect("a store");
    let other = |owner| PartitionState::open(&store, owner, 0).err();
    let refused = other(Owner {
        channel: [9; 32],
        ..OWNER
    });
    assert!(
        matches!(refused, Some(StateError::Foreign { what: "channel", .. })),
        "{refused:?}"
    );
    let refused = other(Owner {
        secret: [9; 32],
        ..OWNER
    });
    assert!(
        matches!(refused, Some(StateError::Foreign { what: "secret", .. })),
        "{refused:?}"
    );
    assert_eq!(other(OWNER), None);
}

#[test]
fn two_processes_do_not_share_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let _first = open(directory.path()).expect("opened");
    assert!(matches!(open(directory.path()), Err(StateError::Disk { .. })));
}

#[test]
fn a_scrub_finds_what_changed_underneath() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = open(directory.path()).expect("opened");
    let mut position = state.position().expect("read");
    assert_eq!(scrub(&state, &[0; 32], u64::MAX, |_| true), Ok(None), "nothing yet");
    let keys: Vec<Vec<u8>> = (0..200u8).map(|i| vec![i; 20]).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let blocks = [block(&mut position, &keys)];
    state.commit(&blocks, &position).expect("committed");
    let intact = scrub(&state, &[0; 32], u64::MAX, |_| true)
        .expect("intact")
        .expect("done");
    assert_eq!((intact.rows, intact.height), (200, 0));
    assert_eq!(scrub(&state, &[0; 32], u64::MAX, |_| false), Ok(None), "ended early");

    let family = state.family(STATE).expect("there");
    let row = state.db().get_cf(family, keys[7]).expect("read").expect("there");
    let altered = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut row = row.clone();
        change(&mut row);
        state.db().put_cf(family, keys[7], row).expect("written");
        scrub(&state, &[0; 32], u64::MAX, |_| true)
    };
    let found = Err(StateError::Scrub { height: 0 });
    assert_eq!(altered(&|row| row[60] ^= 1), found, "a value");
    assert_eq!(altered(&|row| row[11] ^= 1), found, "a version");
    assert!(altered(&|_| ()).is_ok());
    state.db().delete_cf(family, keys[7]).expect("deleted");
    assert_eq!(scrub(&state, &[0; 32], u64::MAX, |_| true), found, "a lost row");
}

/// As [`block`], of deletes.
fn deletes(position: &mut Position, keys: &[Vec<u8>]) -> Changes {
    let mut changes = block(position, &[]);
    changes.state = keys.iter().map(|key| (key.clone(), None)).collect();
    changes
}

#[test]
fn deleted_rows_do_not_cost_every_range() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = open(directory.path()).expect("opened");
    let mut position = state.position().expect("read");
    let keys: Vec<Vec<u8>> = (0..5000u32).map(|i| i.to_be_bytes().to_vec()).collect();
    let all: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let written = block(&mut position, &all);
    state.commit(&[written], &position).expect("committed");
    let deleted = deletes(&mut position, &keys[..4999]);
    state.commit(&[deleted], &position).expect("committed");
    let counter = partition::Deletes(rocksdb::perf::PerfContext::default());
    let before = counter.passed();
    let read = |from: &[u8], to: &[u8]| state.versions(from, to, 9).expect("read");
    for start in keys.iter().step_by(5).rev() {
        assert_eq!(read(start, &[0xff]).len(), 1);
    }
    let passed = counter.passed() - before;
    assert!(
        (4999..1000 * PASSED_MIN + 5000).contains(&passed),
        "{passed}, every time it would be 2.5 million"
    );

    // What is written into such a stretch is found, and only that.
    let (one, other) = (&keys[1000][..], &keys[3000][..]);
    let again = block(&mut position, &[one, other]);
    state.commit(&[again], &position).expect("committed");
    let found: Vec<Vec<u8>> = read(&[], &[0xff]).into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, [one, other, &keys[4999]]);
    assert_eq!(read(&keys[1001], &keys[3000]).len(), 0);
    assert_eq!(read(&keys[1001], &keys[3001]).len(), 1);
}
