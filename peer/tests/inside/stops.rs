//! A partition stops for what nobody outside can cause, says why, and stands alone with it.

use std::sync::Arc;

use peer::run::{StartError, start};
use protocol::testing::TestNet;
use service::{Tasks, health::Health};

use crate::world::{Peer, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_stops_one_partition() {
    let world = World::new(&["HospitalA"], 2).await;
    world.hand.set_available(false);
    let peer = world.peer();
    for _ in 0..3 {
        world.block(0, &[]);
    }
    world.hand.remove(&world.topics.of(0), 2);
    world.hand.set_available(true);
    let reason = peer.stopped(0).await;
    assert!(reason.contains("offset 3") && reason.contains('2'), "{reason}");
    assert_eq!(peer.ledger.tip(0).map(|tip| tip.height), Some(1));
    let height = world.block(1, &[]);
    peer.reached(1, height).await;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert!(peer.health.is_ready(), "the other partition is served");
    let shown = format!("{:?}", peer.health.checks());
    assert!(shown.contains("partition 0: the log has offset 3"), "{shown}");
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
