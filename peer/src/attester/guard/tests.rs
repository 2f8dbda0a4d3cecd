//! Promises outlive crashes and torn writes, and belong to one key on one channel.

use super::*;

const OWNER: Owner = Owner {
    channel: [1; 32],
    attester: [2; 32],
    partitions: 3,
};

fn made() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("guard");
    Guard::init(&path, OWNER).expect("made");
    (directory, path)
}

#[test]
fn is_made_once() {
    let (_directory, path) = made();
    assert!(matches!(Guard::init(&path, OWNER), Err(GuardError::Exists(_))));
    let absent = path.with_file_name("lost");
    assert!(matches!(Guard::open(&absent, OWNER), Err(GuardError::Io { .. })));
}

#[test]
fn a_crash_while_it_is_made_leaves_none_and_the_next_attempt_makes_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("guard");
    let unfinished = directory.path().join("guard.unfinished");
    std::fs::write(&unfinished, b"torn").expect("written");
    Guard::init(&path, OWNER).expect("made");
    assert!(!unfinished.exists());
    Guard::open(&path, OWNER).expect("whole");
}

#[test]
fn if_absent_makes_it_once_and_takes_no_other_for_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("guard");
    assert!(Guard::init_if_absent(&path, OWNER).expect("made"));
    let mut guard = Guard::open(&path, OWNER).expect("opened");
    guard.promise_all(&[(0, (5, [9; 32]))]).expect("kept");
    assert!(
        !Guard::init_if_absent(&path, OWNER).expect("there"),
        "also while it is held"
    );
    drop(guard);
    let guard = Guard::open(&path, OWNER).expect("opened");
    assert_eq!(guard.promise(0), Some((5, [9; 32])), "as it was");
    let of_other_key = Owner {
        attester: [3; 32],
        ..OWNER
    };
    assert!(matches!(
        Guard::init_if_absent(&path, of_other_key),
        Err(GuardError::Foreign { what: "attester", .. })
    ));
    std::fs::write(&path, b"torn").expect("written");
    assert!(matches!(
        Guard::init_if_absent(&path, OWNER),
        Err(GuardError::Damaged(_))
    ));
}

#[test]
fn remembers_and_only_moves_up() {
    let (_directory, path) = made();
    let mut guard = Guard::open(&path, OWNER).expect("opened");
    assert_eq!(guard.promise(0), None);
    guard
        .promise_all(&[(0, (0, [7; 32])), (CONTROL, (4, [8; 32]))])
        .expect("kept");
    guard.promise_all(&[(0, (5, [9; 32]))]).expect("kept");
    for height in [0, 4, 5] {
        let again = guard.promise_all(&[(0, (height, [3; 32]))]);
        assert!(
            matches!(again, Err(GuardError::NotAbove { guarded: 5, .. })),
            "{again:?}"
        );
    }
    assert!(
        matches!(Guard::open(&path, OWNER), Err(GuardError::Held(_))),
        "two processes"
    );
    drop(guard);
    let guard = Guard::open(&path, OWNER).expect("opened");
    assert_eq!(guard.promise(0), Some((5, [9; 32])));
    assert_eq!(guard.promise(CONTROL), Some((4, [8; 32])));
    assert_eq!(guard.promise(1), None);
}

#[test]
fn another_ones_guard_is_refused() {
    let (_directory, path) = made();
    let of_other_key = Owner {
        attester: [3; 32],
        ..OWNER
    };
    assert!(matches!(
        Guard::open(&path, of_other_key),
        Err(GuardError::Foreign { what: "attester", .. })
    ));
    let of_other_channel = Owner {
        channel: [3; 32],
        ..OWNER
    };
    assert!(matches!(
        Guard::open(&path, of_other_channel),
        Err(GuardError::Foreign { what: "channel", .. })
    ));
}

/// Every way in which a write can be torn leaves either the promise before it or the one after it.
#[test]
fn a_torn_write_leaves_the_promise_before_it() {
    let (_directory, path) = made();
    let mut guard = Guard::open(&path, OWNER).expect("opened");
    guard.promise_all(&[(0, (1, [1; 32]))]).expect("kept");
    let before = std::fs::read(&path).expect("read");
    guard.promise_all(&[(0, (2, [2; 32]))]).expect("kept");
    let after = std::fs::read(&path).expect("read");
    drop(guard);
    for at in 0..=after.len() {
        let torn = [&after[..at], &before[at..]].concat();
        std::fs::write(&path, torn).expect("written");
        let promise = Guard::open(&path, OWNER).expect("one slot is intact").promise(0);
        assert!(
            matches!(promise, Some((1, [1, ..]) | (2, [2, ..]))),
            "torn at {at}: {promise:?}"
        );
    }
    std::fs::write(&path, &after[..10]).expect("written");
    assert!(matches!(Guard::open(&path, OWNER), Err(GuardError::Damaged(_))));
}
