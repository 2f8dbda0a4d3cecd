//! A partition stops for what nobody outside can cause, says why, and stands alone with it.

use std::{sync::Arc, time::Duration};

use peer::run::{StartError, start};
use protocol::testing::TestNet;
use service::{
    Tasks,
    health::{Health, State},
};

use crate::world::{Peer, World, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_stops_one_partition() {
    // Every peer that starts sets the gauges of its partitions to zero; no other test here has one of this number.
    const LAST: u32 = 2;
    let world = World::new(&["HospitalA"], LAST + 1).await;
    world.hand.set_available(false);
    let peer = world.peer();
    for _ in 0..3 {
        world.block(LAST, &[]);
    }
    world.hand.remove(&world.topics.of(LAST), 2);
    world.hand.set_available(true);
    let reason = peer.stopped(LAST).await;
    assert!(reason.contains("offset 3") && reason.contains('2'), "{reason}");
    assert!(metric::text().contains("medledger_peer_stopped{partition=\"2\"} 1\n"));
    assert_eq!(peer.ledger.tip(LAST).map(|tip| tip.height), Some(1));
    let height = world.block(1, &[]);
    peer.reached(1, height).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(peer.health.is_ready(), "the other partition is served");
    let shown = format!("{:?}", peer.health.checks());
    assert!(shown.contains("partition 2: the log has offset 3"), "{shown}");
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_which_every_partition_stands_still_is_not_ready() {
    let world = World::new(&["HospitalA"], 2).await;
    let peer = world.peer();
    peer.until_ready(true).await;
    for partition in [0, 1] {
        world.hand.set_available(false);
        for _ in 0..2 {
            world.block(partition, &[]);
        }
        world.hand.remove(&world.topics.of(partition), 1);
        world.hand.set_available(true);
        peer.stopped(partition).await;
        // The control chain goes on all the while.
        peer.until_ready(partition == 0).await;
    }
    let shown = format!("{:?}", peer.health.checks()["partitions"]);
    assert!(shown.starts_with("Failed") && shown.contains("partition 1"), "{shown}");
    assert!(peer.ledger.snapshot(0, None).is_ok(), "what it has can still be read");
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_ready_when_it_has_replayed_the_log_and_without_a_log_when_it_has_something() {
    let world = World::new(&["HospitalA"], 1).await;
    let height = (0..50).map(|_| world.block(0, &[])).last().expect("some");
    // Nothing here, and nobody says what there is: nothing to serve.
    world.hand.set_available(false);
    let peer = world.peer();
    tokio::time::sleep(Duration::from_millis(4000)).await;
    assert_eq!(peer.health.checks()["replay"], State::Starting);
    assert!(!peer.health.is_ready());
    world.hand.set_available(true);
    peer.until_ready(true).await;
    assert!(
        peer.ledger.tip(0).is_some_and(|tip| tip.height >= height),
        "ready, and behind"
    );
    let directory = peer.end().await;

    world.hand.set_available(false);
    let peer = Peer::start(&world, directory, None);
    peer.until_ready(true).await;
    let shown = format!("{:?}", peer.health.checks());
    assert!(shown.contains("what was committed before is served"), "{shown}");
    world.hand.set_available(true);
    let deadline = soon();
    while peer.health.checks()["replay"] != State::Ok {
        assert!(peer.health.is_ready(), "ready once, it stays so");
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_shorter_or_other_stops_it() {
    let world = World::new(&["HospitalA"], 2).await;
    let peer = world.peer();
    for partition in [0, 1] {
        let height = (0..4).map(|_| world.block(partition, &[])).last().expect("some");
        peer.reached(partition, height).await;
    }
    let directory = peer.end().await;
    world.hand.truncate(&world.topics.of(0), 3);
    world.hand.truncate(&world.topics.of(1), 3);
    // The same heights again, with other records.
    for i in 0..3 {
        world.put(1, vec![i]);
    }
    let peer = Peer::start(&world, directory, None);
    let reason = peer.stopped(1).await;
    assert!(reason.contains("height 4 is not the one committed here"), "{reason}");
    let reason = peer.stopped(0).await;
    assert!(reason.contains("does not reach what is committed here"), "{reason}");
    assert!(peer.ledger.snapshot(0, None).is_ok(), "reads go on");
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_or_channel_is_refused() {
    let world = World::new(&["HospitalA"], 1).await;
    let peer = world.peer();
    peer.reached(0, 0).await;
    let directory = peer.end().await;
    let data = directory.path().join("data");
    let refused = |inside| start(&Tasks::new(), &Health::new(), inside).err().expect("refused");

    let mut inside = Peer::inside(&world, &data, None);
    inside.secret[0] ^= 1;
    assert!(matches!(refused(inside), StartError::Secret));

    let other = TestNet::seeded(5, &["HospitalA"], 1);
    let mut inside = Peer::inside(&world, &data, None);
    inside.genesis = other.genesis_bytes();
    inside.secret = other.secret_bytes;
    let error = refused(inside).to_string();
    assert!(error.contains("another channel"), "{error}");

    let mut inside = Peer::inside(&world, &data, None);
    inside.genesis.truncate(40);
    assert!(matches!(refused(inside), StartError::Genesis(_)));
    drop(Arc::clone(&directory));
}
