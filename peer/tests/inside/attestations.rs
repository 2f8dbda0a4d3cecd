//! What organisations say of headers: quorums, liars, early words.

use std::time::Duration;

use protocol::{CONTROL, ledger::Attestation, testing::TestNet};
use tokio::time::Instant;

use crate::world::{Peer, World, soon};

const FOUR: [&str; 4] = ["HospitalA", "HospitalB", "MinistryOfHealth", "ReliefOrg"];

async fn world_with_blocks() -> (World, Peer, u64) {
    let world = World::new(&FOUR, 2).await;
    let peer = world.peer();
    let height = (0..9).map(|_| world.block(0, &[])).last().expect("some");
    peer.reached(0, height).await;
    (world, peer, height)
}

fn word(world: &World, peer: &Peer, organisation: &str, height: u64) -> Attestation {
    world.net.attestation(organisation, 0, height, &peer.header(0, height))
}

fn lie(world: &World, organisation: &str, height: u64) -> Attestation {
    world.net.attestation(organisation, 0, height, &[9; 32])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_attests_the_height_that_all_of_it_vouch_for() {
    let (world, peer, _) = world_with_blocks().await;
    let ledger = &peer.ledger;
    // ⌊2·4/3⌋ + 1 = 3
    ledger.offer_attestations(vec![word(&world, &peer, FOUR[0], 9), word(&world, &peer, FOUR[1], 7)]);
    assert_eq!(ledger.attested(0), None);
    ledger.offer_attestations(vec![word(&world, &peer, FOUR[2], 5)]);
    assert_eq!(ledger.attested(0), Some(5));
    ledger.offer_attestations(vec![word(&world, &peer, FOUR[3], 8)]);
    assert_eq!(ledger.attested(0), Some(7));
    ledger.offer_attestations(vec![word(&world, &peer, FOUR[0], 3)]);
    assert_eq!(ledger.attested(0), Some(7), "what is old changes nothing");
    assert!(ledger.attested_reached(0, 7, soon()).await);
    assert!(!ledger.attested_reached(0, 8, Instant::now()).await);
    assert_eq!(ledger.attested(1), None);
    assert_eq!(ledger.chains()[0].attested_blocks, 8);
    assert_eq!(ledger.newest_attestations().len(), 4);
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn early_words_count_when_the_height_is_reached() {
    let (world, peer, height) = world_with_blocks().await;
    let late = world.peer();
    late.reached(0, height).await;
    world.hand.set_available(false);
    let words: Vec<Attestation> = (0..3)
        .flat_map(|i| (height + 1..height + 40).map(move |at| (i, at)))
        .map(|(i, at)| {
            let header = protocol::sha256(&at.to_be_bytes());
            world.net.attestation(FOUR[i], 0, at, &header)
        })
        .collect();
    late.ledger.offer_attestations(words);
    assert_eq!(
        late.ledger.newest_attestations().len(),
        3,
        "bounded; the newest of each"
    );
    world.hand.set_available(true);
    // Early lies are judged like early truths: three contradict what comes.
    let next = world.block(0, &[]);
    peer.reached(0, next).await;
    let reason = late.stopped(0).await;
    assert!(reason.contains("3 organisations"), "{reason}");

    let third = world.peer();
    third.reached(0, next).await;
    let after = world.block(0, &[]);
    peer.reached(0, after).await;
    let words = FOUR[..3].iter().map(|name| word(&world, &peer, name, after)).collect();
    third.ledger.offer_attestations(words);
    assert!(third.ledger.attested_reached(0, after, soon()).await);
    for peer in [peer, late, third] {
        peer.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn liars_below_a_quorum_stop_nobody() {
    let (world, peer, _) = world_with_blocks().await;
    peer.ledger
        .offer_attestations(vec![lie(&world, FOUR[0], 9), lie(&world, FOUR[1], 4)]);
    let next = world.block(0, &[]);
    peer.reached(0, next).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let shown = format!("{:?}", peer.health.checks());
    assert!(shown.contains("HospitalA on partition 0"), "loud: {shown}");
    // They come back to the truth.
    let words = FOUR[..3].iter().map(|name| word(&world, &peer, name, next)).collect();
    peer.ledger.offer_attestations(words);
    assert_eq!(peer.ledger.attested(0), Some(next));
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_against_it_stops_the_partition_and_no_other() {
    let (world, peer, _) = world_with_blocks().await;
    let lies = FOUR[1..]
        .iter()
        .zip([9, 4, 6])
        .map(|(name, height)| lie(&world, name, height))
        .collect();
    peer.ledger.offer_attestations(lies);
    let reason = peer.stopped(0).await;
    assert!(
        reason.contains("another header than the one here at height 4"),
        "{reason}"
    );
    let tip = peer.ledger.tip(0);
    world.block(0, &[]);
    let other = world.block(1, &[]);
    peer.reached(1, other).await;
    assert_eq!(peer.ledger.tip(0), tip);
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_configs_attesters_count() {
    let (world, peer, _) = world_with_blocks().await;
    let header = peer.header(0, 5);
    let stranger = TestNet::seeded(7, &FOUR, 2);
    let forged: Vec<Attestation> = FOUR
        .iter()
        .flat_map(|name| {
            let word = world.net.attestation(name, 0, 5, &header);
            let mut altered = word.clone();
            altered.signature.as_mut().expect("signed").signature[7] ^= 1;
            let mut by_peer = word.clone();
            let key = world.net.identity(name, "peer0");
            by_peer.signature = Some(key.sign(
                protocol::signature::Purpose::Attestation,
                &world.net.channel.id,
                &word.content,
            ));
            let unsigned = Attestation {
                signature: None,
                ..word.clone()
            };
            let garbage = Attestation {
                content: b"x".to_vec(),
                ..word
            };
            [
                altered,
                by_peer,
                unsigned,
                garbage,
                stranger.attestation(name, 0, 5, &header),
            ]
        })
        .collect();
    peer.ledger.offer_attestations(forged);
    assert!(peer.ledger.newest_attestations().is_empty());
    let absent = FOUR
        .iter()
        .map(|name| world.net.attestation(name, 7, 5, &header))
        .collect();
    peer.ledger.offer_attestations(absent);
    assert!(peer.ledger.newest_attestations().is_empty());
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_chain_is_attested_too() {
    let (world, peer, _) = world_with_blocks().await;
    peer.reached(CONTROL, 2).await;
    let header = peer.header(CONTROL, 2);
    let words = FOUR[..3]
        .iter()
        .map(|name| world.net.attestation(name, CONTROL, 2, &header))
        .collect();
    peer.ledger.offer_attestations(words);
    assert_eq!(peer.ledger.attested(CONTROL), Some(2));
    let lies = FOUR[..3]
        .iter()
        .map(|name| world.net.attestation(name, CONTROL, 3, &[1; 32]))
        .collect();
    peer.ledger.offer_attestations(lies);
    world.put(CONTROL, b"garbage".to_vec());
    let reason = peer.stopped(CONTROL).await;
    assert!(reason.contains("height 3"), "{reason}");
    peer.end().await;
}
