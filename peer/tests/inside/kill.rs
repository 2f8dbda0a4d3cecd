//! A real SIGKILL at any moment, again and again, with flushes and compactions under way: what is on
//! disk afterwards is always the state after some block, and the peer goes on from there.

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use peer::{
    committer::{commit_blocks, prepare::prepare, validate::Rules},
    state::{Owner, PartitionState, Store, Tuning, scrub},
};
use protocol::testing::{TestNet, TestTx};

const BLOCKS: usize = 1500;
const KILLS: u64 = 25;
const DIRECTORY: &str = "MEDLEDGER_TEST_KILL_DIRECTORY";

/// The same in both processes: it follows from its seed.
fn net() -> TestNet {
    TestNet::new(&["HospitalA"], 1)
}

fn open(net: &TestNet, directory: &Path) -> (Rules, Arc<PartitionState>) {
    // Flushes every few blocks.
    let tuning = Tuning {
        flush_bytes: 64 << 10,
        ..Tuning::default()
    };
    let store = Store::new(directory, tuning).expect("a store");
    let owner = Owner {
        channel: net.channel.id,
        secret: net.secret.hash(),
    };
    let state = PartitionState::open(&store, owner, 0).expect("opened");
    let rules = Rules {
        checker: Arc::new(net.checker()),
        partition: 0,
        genesis: net.genesis_place(),
    };
    (rules, state)
}

/// Commits what is missing; one to three blocks at a time.
fn commit(net: &TestNet, directory: &Path, records: &[Vec<u8>], mut begun: impl FnMut()) {
    let (rules, state) = open(net, directory);
    let mut position = state.position().expect("read");
    let from = position.next_height() as usize;
    let mut rest = &records[from..];
    while !rest.is_empty() {
        let (batch, later) = rest.split_at((1 + rest.len() % 3).min(rest.len()));
        let blocks = batch.iter().map(|raw| prepare(&rules.checker, 0, raw)).collect();
        commit_blocks(&rules, &state, &mut position, blocks).expect("committed");
        rest = later;
        begun();
    }
}

fn records(net: &TestNet, directory: &Path) -> Vec<Vec<u8>> {
    let mut records = vec![net.marker_block(0)];
    commit(net, directory, &records, || ());
    let (_, state) = open(net, directory);
    let header = state.header(0).expect("read").expect("the marker");
    for i in 0..BLOCKS {
        let tx = |j: usize| {
            let tx = net
                .tx(&format!("patient-{}", (i * 3 + j) % 50))
                .height_bound(2 * BLOCKS as u64);
            tx.snapshot(0, &header).write(b"record", &[i as u8; 900]).build()
        };
        let txs: Vec<TestTx> = (0..3).map(tx).collect();
        records.push(net.block(0, &txs.iter().collect::<Vec<_>>()));
    }
    records
}

fn store(file: &Path, records: &[Vec<u8>]) {
    let mut bytes = Vec::new();
    for raw in records {
        bytes.extend_from_slice(&(raw.len() as u32).to_be_bytes());
        bytes.extend_from_slice(raw);
    }
    std::fs::write(file, bytes).expect("written");
}

fn load(file: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(file).expect("read");
    let (mut rest, mut records) = (&bytes[..], Vec::new());
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let (raw, more) = more.split_at(u32::from_be_bytes(*length) as usize);
        records.push(raw.to_vec());
        rest = more;
    }
    records
}

/// Not a test by itself: what the killed process does.
#[test]
fn the_process_that_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let records = load(&directory.join("records"));
    let mut ready = Some(directory.join("ready"));
    commit(&net(), &directory.join("data"), &records, || {
        if let Some(file) = ready.take() {
            std::fs::write(file, b"").expect("written");
        }
    });
}

fn child(directory: &Path) -> Child {
    let _ = std::fs::remove_file(directory.join("ready"));
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args(["--exact", "kill::the_process_that_is_killed"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    let started = Instant::now();
    // One that has nothing left to do ends by itself.
    while !directory.join("ready").exists() && matches!(child.try_wait(), Ok(None)) {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not start");
        std::thread::yield_now();
    }
    child
}

#[test]
fn killed_at_any_moment_it_goes_on_from_a_block() {
    let net = net();
    let (witness, killed) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let records = records(&net, witness.path());
    commit(&net, witness.path(), &records, || ());
    store(&killed.path().join("records"), &records);
    let (_, expected) = open(&net, witness.path());
    let (mut kills, mut heights) = (0, Vec::new());
    for i in 0..KILLS {
        let mut child = child(killed.path());
        let moment = Instant::now() + Duration::from_micros(i * i * 997 % 60_000);
        while Instant::now() < moment {
            std::thread::yield_now();
        }
        child.kill().expect("killed");
        let ended = child.wait().expect("waited for");
        kills += u64::from(ended.signal() == Some(9));
        let (_, state) = open(&net, &killed.path().join("data"));
        let position = state.position().expect("read");
        if let Some(tip) = position.tip {
            assert_eq!(expected.header(tip.height), Ok(Some(tip.header)));
            assert_eq!(state.header(tip.height), Ok(Some(tip.header)));
            assert_eq!(state.header(tip.height + 1), Ok(None), "nothing beyond the position");
        }
        scrub(&state, &net.channel.config_digest, u64::MAX, |_| true).expect("rows and position agree");
        heights.push(position.next_height());
    }
    assert!(heights.is_sorted(), "{heights:?}");
    assert!(
        kills > 0 && heights.iter().any(|height| (2..BLOCKS as u64).contains(height)),
        "{kills}: {heights:?}"
    );
    commit(&net, &killed.path().join("data"), &records, || ());
    let (_, state) = open(&net, &killed.path().join("data"));
    assert_eq!(
        state.position().expect("read").tip,
        expected.position().expect("read").tip
    );
}
