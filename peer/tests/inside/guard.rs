//! The attester never signs two headers for one height, whatever happens between.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use prost::Message;
use protocol::{
    Digest, canonical,
    ledger::{AttestationContent, AttestationList},
};
use tokio::time::Instant;

use crate::world::{Peer, World, soon};

const ONE: &str = "HospitalA";

/// (partition, height) → headers that were signed for it, as the attest topic has them.
fn signed(world: &World) -> BTreeMap<(u32, u64), Vec<Digest>> {
    let mut signed: BTreeMap<(u32, u64), Vec<Digest>> = BTreeMap::new();
    for record in world.hand.records(&world.topics.attest()) {
        let list: AttestationList = canonical::decode(&record.value).expect("canonical");
        for attestation in list.attestations {
            let content = AttestationContent::decode(&attestation.content[..]).expect("decodes");
            let header = content.header.try_into().expect("32 bytes");
            let headers = signed.entry((content.partition, content.height)).or_default();
            if !headers.contains(&header) {
                headers.push(header);
            }
        }
    }
    signed
}

fn health(peer: &Peer) -> String {
    format!("{:?}", peer.health.checks().get("attester"))
}

#[tokio::test(flavor = "multi_thread")]
async fn signs_the_newest_of_all_chains() {
    let world = World::new(&[ONE], 2).await;
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let guard = world.init_guard(ONE, directory.path());
    let peer = Peer::start(&world, directory, Some(world.attester(ONE, &guard)));
    let mut last = 0;
    for _ in 0..50 {
        last = world.block(0, &[]);
        world.block(1, &[]);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for partition in [0, 1] {
        assert!(
            peer.ledger.attested_reached(partition, last, soon()).await,
            "one of one is a quorum"
        );
    }
    assert!(peer.ledger.attested_reached(protocol::CONTROL, 2, soon()).await);
    // 50 heights in 100 ms or more: about one list in 20 ms.
    let lists = world.hand.records(&world.topics.attest()).len();
    assert!((2..50).contains(&lists), "{lists}");
    for ((partition, height), headers) in signed(&world) {
        assert_eq!(headers, [peer.header(partition, height)]);
    }
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn never_two_headers_for_one_height_on_another_log() {
    let world = World::new(&[ONE], 1).await;
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let guard = world.init_guard(ONE, directory.path());
    let peer = Peer::start(&world, directory, Some(world.attester(ONE, &guard)));
    let height = (0..5).map(|_| world.block(0, &[])).last().expect("some");
    assert!(peer.ledger.attested_reached(0, height, soon()).await);
    let directory = peer.end().await;
    // The log loses its tail and grows another; the peer starts from nothing but its guard.
    world.hand.truncate(&world.topics.of(0), 3);
    world.hand.truncate(&world.topics.attest(), 0);
    std::fs::remove_dir_all(directory.path().join("data")).expect("removed");
    let peer = Peer::start(&world, directory, Some(world.attester(ONE, &guard)));
    let height = (0..20u8).map(|i| world.put(0, vec![i])).last().expect("some");
    peer.reached(0, height).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        !signed(&world).keys().any(|(partition, _)| *partition == 0),
        "silent on that chain"
    );
    assert!(
        health(&peer).contains("does not extend what was attested"),
        "{}",
        health(&peer)
    );
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_the_steps_signs_nothing_twice() {
    let world = World::new(&[ONE], 1).await;
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let guard = world.init_guard(ONE, directory.path());
    let mut peer = Peer::start(&world, directory, Some(world.attester(ONE, &guard)));
    for round in 0..5u64 {
        for _ in 0..10 {
            world.block(0, &[]);
            tokio::time::sleep(Duration::from_millis(round)).await;
        }
        // The guard is a file in the directory that is copied, or the very same one.
        let directory = if round % 2 == 0 {
            peer.kill().await
        } else {
            peer.end().await
        };
        let guard = directory.path().join("guard");
        peer = Peer::start(&world, directory, Some(world.attester(ONE, &guard)));
    }
    let height = world.block(0, &[]);
    assert!(peer.ledger.attested_reached(0, height, soon()).await);
    assert!(signed(&world).values().all(|headers| headers.len() == 1));
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_that_a_crash_kept_from_being_said_is_said_at_the_next_start() {
    let world = World::new(&[ONE], 1).await;
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let guard = world.init_guard(ONE, directory.path());
    let peer = Peer::start(&world, directory, Some(world.attester(ONE, &guard)));
    assert!(peer.ledger.attested_reached(protocol::CONTROL, 2, soon()).await);
    let directory = peer.end().await;
    // As if it had been killed after the guard was on disk: nobody has heard of it.
    world.hand.truncate(&world.topics.attest(), 0);
    let peer = Peer::start(&world, directory, Some(world.attester(ONE, &guard)));
    assert!(
        peer.ledger.attested_reached(protocol::CONTROL, 2, soon()).await,
        "the control chain does not grow"
    );
    let deadline = soon();
    while !signed(&world).contains_key(&(protocol::CONTROL, 2)) {
        assert!(Instant::now() < deadline, "not in the topic");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_guard_or_key_it_is_silent_and_loud_in_health() {
    let world = World::new(&[ONE, "HospitalB"], 1).await;
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let lost = directory.path().join("guard");
    let peer = Peer::start(&world, directory, Some(world.attester(ONE, &lost)));
    let height = world.block(0, &[]);
    peer.reached(0, height).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(signed(&world).is_empty());
    assert!(
        health(&peer).contains("attests nothing: the guard"),
        "{}",
        health(&peer)
    );
    // It serves all the same.
    peer.until_ready(true).await;
    let directory = peer.end().await;

    let guard = world.init_guard(ONE, directory.path());
    let mut key = world.attester("HospitalB", &guard);
    key.msp_id = ONE.to_owned();
    let peer = Peer::start(&world, directory, Some(key));
    peer.reached(0, height).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(signed(&world).is_empty());
    assert!(health(&peer).contains("not the attester"), "{}", health(&peer));
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn goes_on_when_the_log_was_away() {
    let world = World::new(&[ONE], 1).await;
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let guard = world.init_guard(ONE, directory.path());
    let peer = Peer::start(&world, directory, Some(world.attester(ONE, &guard)));
    let height = world.block(0, &[]);
    assert!(peer.ledger.attested_reached(0, height, soon()).await);
    let before = signed(&world).len();
    world.hand.set_available(false);
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.hand.set_available(true);
    let height = world.block(0, &[]);
    let deadline = soon();
    while !signed(&world).contains_key(&(0, height)) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(signed(&world).len() > before);
    peer.end().await;
}
