//! What others see of commits; restarts at any point; what the log alone comes to.

use std::{sync::Arc, time::Duration};

use peer::ledger::{SnapshotUnavailable, TxStatus, Version};
use protocol::{CONTROL, code::Code, keys::state_key, sha256};
use tokio::time::Instant;

use crate::world::{Peer, World, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_seen_everywhere() {
    let world = World::new(&["HospitalA", "HospitalB"], 2).await;
    let peer = world.peer();
    peer.reached(0, 0).await;
    peer.reached(1, 0).await;
    peer.reached(CONTROL, 2).await;
    let ledger = &peer.ledger;
    let module = sha256(&world.net.contracts[0].component);
    assert_eq!(
        ledger.module(&module).as_deref(),
        Some(&world.net.contracts[0].component)
    );

    let (subject, tip) = (world.subject(1, 0), ledger.tip(1).expect("a block"));
    let tx = world
        .net
        .tx(&subject)
        .snapshot(tip.height, &tip.header)
        .write(b"a", b"1")
        .write(b"b", b"2")
        .build();
    let mut watch = ledger.watch(tx.tx_id);
    assert_eq!(ledger.status(&tx.tx_id), None);
    let height = world.block(1, &[&tx, &tx]);
    let valid = TxStatus {
        partition: 1,
        height,
        index: 0,
        code: Code::Valid,
    };
    assert_eq!(watch.next(soon()).await, Some(valid));
    assert_eq!(
        watch.next(soon()).await,
        Some(TxStatus {
            index: 1,
            code: Code::Duplicate,
            ..valid
        })
    );
    assert_eq!(watch.next(Instant::now() + Duration::from_millis(20)).await, None);
    assert_eq!(ledger.status(&tx.tx_id), Some(valid), "VALID wins");

    let key = |suffix: &[u8]| state_key("records", &tx.partition_key, suffix);
    let snapshot = ledger.snapshot(1, None).expect("the newest");
    assert_eq!((snapshot.height, snapshot.header), (height, peer.header(1, height)));
    let row = snapshot.get(&key(b"a")).expect("read").expect("there");
    assert_eq!(
        (row.version, &row.value[..]),
        (
            Version {
                epoch: 0,
                height,
                index: 0
            },
            &b"1"[..]
        )
    );
    assert_eq!(
        ledger.snapshot(1, Some(0)).expect("kept").get(&key(b"a")),
        Ok(None),
        "as it was"
    );
    let later = ledger.snapshot(1, Some(height + 1)).err();
    let tip = Some(height);
    assert_eq!(later, Some(SnapshotUnavailable { tip, below: tip }));
    assert_eq!(snapshot.range(&key(b"a"), &key(b"b"), 10).expect("read").len(), 1);
    assert_eq!(snapshot.range(&key(b"a"), &key(b"c"), 10).expect("read").len(), 2);
    assert_eq!(snapshot.range(&key(b"a"), &key(b"c"), 1).expect("read").len(), 1);

    let (changes, more) = ledger.history(1, &key(b"a"), 0, 10).expect("read");
    assert!(!more && changes.len() == 1);
    assert_eq!(
        (changes[0].height, changes[0].partition, &changes[0].value[..]),
        (height, 1, &b"1"[..])
    );
    assert_eq!(
        (&*changes[0].organisation, &*changes[0].common_name),
        ("HospitalA", "client0")
    );
    let block = ledger.block(1, height).expect("there");
    assert_eq!(
        block.transactions,
        [(tx.tx_id, Code::Valid), (tx.tx_id, Code::Duplicate)]
    );
    assert_eq!(block.header.hash(), block.hash);
    let chains = ledger.chains();
    assert_eq!(
        chains.iter().map(|chain| chain.blocks).collect::<Vec<_>>(),
        [1, height + 1, 3]
    );
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_histories_are_paged() {
    let world = World::new(&["HospitalA"], 1).await;
    let peer = world.peer();
    peer.reached(0, 0).await;
    let tip = peer.ledger.tip(0).expect("a block");
    let tx = |subject: usize, suffix: &[u8], value: &[u8]| {
        let subject = world.subject(0, subject);
        world
            .net
            .tx(&subject)
            .snapshot(tip.height, &tip.header)
            .write(suffix, value)
            .build()
    };
    let mut all = Vec::new();
    for subject in 0..10 {
        all.push(tx(subject, b"record", &[subject as u8]));
        all.push(tx(subject, b"aaa", b""));
        if subject % 2 == 0 {
            all.push(tx(subject, b"zzz", b""));
        }
    }
    all.push(tx(10, b"other", b""));
    all.extend((0..5u8).map(|i| tx(0, b"record", &[i])));
    let height = world.block(0, &all.iter().collect::<Vec<_>>());
    peer.reached(0, height).await;
    let snapshot = peer.ledger.snapshot(0, None).expect("the newest");
    for limit in [1, 3, 10, 100] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = snapshot
                .list("records", b"record", after.as_deref(), limit)
                .expect("read");
            assert!(page.entries.len() <= limit);
            seen.extend(page.entries.into_iter().map(|(key, _)| key));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert!(seen.len() == 10 && seen.is_sorted(), "{limit}: {}", seen.len());
        assert!(seen.iter().all(|key| key.ends_with(b"record")));
    }
    assert!(
        snapshot
            .list("record", b"record", None, 10)
            .expect("read")
            .entries
            .is_empty()
    );
    let key = state_key("records", &all[0].partition_key, b"record");
    let (changes, more) = peer.ledger.history(0, &key, 1, 3).expect("read");
    assert!(more);
    assert_eq!(
        changes.iter().map(|change| change.value[0]).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    let (changes, more) = peer.ledger.history(0, &key, 4, 3).expect("read");
    assert!(!more && changes.len() == 2);
    peer.end().await;
}

/// Blocks with a few transactions each, on the newest snapshot of `peer`.
async fn load(world: &World, peer: &Peer, blocks: usize) -> u64 {
    let mut height = 0;
    for i in 0..blocks {
        let tip = peer.ledger.tip(0).expect("a block");
        let tx = |j: usize| {
            let subject = world.subject(0, (i + j) % 5);
            world
                .net
                .tx(&subject)
                .snapshot(tip.height, &tip.header)
                .write(b"a", &[i as u8, j as u8])
                .build()
        };
        let txs = [tx(0), tx(1), tx(2)];
        height = world.block(0, &txs.iter().collect::<Vec<_>>());
        if i % 7 == 0 {
            peer.reached(0, height).await;
        }
    }
    peer.reached(0, height).await;
    height
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_peer_comes_to_the_same_headers() {
    let world = World::new(&["HospitalA"], 1).await;
    let witness = world.peer();
    witness.reached(0, 0).await;
    let mut peer = world.peer();
    for round in 0..6 {
        let height = load(&world, &witness, 20).await;
        let directory = match round % 3 {
            // In the middle of it, with everything since the last flush lost.
            0 => peer.kill().await,
            1 => {
                peer.reached(0, height).await;
                peer.kill().await
            }
            _ => peer.end().await,
        };
        peer = Peer::start(&world, directory, None);
        peer.reached(0, height).await;
        for at in 0..=height {
            assert_eq!(peer.header(0, at), witness.header(0, at), "height {at}");
        }
        let digests = |peer: &Peer| peer.ledger.chains()[0].state_digest.clone();
        assert_eq!(digests(&peer), digests(&witness));
    }
    // The scrub, once a second here, has found nothing in any of them.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(
        peer.ledger
            .chains()
            .iter()
            .chain(&witness.ledger.chains())
            .all(|chain| chain.stopped.is_empty())
    );
    peer.end().await;
    witness.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_log_reads_go_on_and_so_does_the_peer_when_it_is_back() {
    let world = World::new(&["HospitalA"], 1).await;
    let peer = world.peer();
    peer.reached(0, 0).await;
    let height = load(&world, &peer, 3).await;
    world.hand.set_available(false);
    let directory = peer.end().await;
    let peer = Peer::start(&world, directory, None);
    assert_eq!(
        peer.ledger.tip(0).map(|tip| tip.height),
        Some(height),
        "at once, without the log"
    );
    assert!(peer.ledger.tip(CONTROL).is_some());
    assert!(peer.ledger.snapshot(0, None).is_ok());
    assert!(
        !peer
            .ledger
            .reached(0, height + 1, Instant::now() + Duration::from_millis(300))
            .await
    );
    world.hand.set_available(true);
    let next = world.block(0, &[]);
    peer.reached(0, next).await;
    peer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_and_the_genesis_are_enough_to_verify() {
    let world = World::new(&["HospitalA", "HospitalB"], 2).await;
    let peer = world.peer();
    peer.reached(0, 0).await;
    peer.reached(1, 0).await;
    peer.reached(CONTROL, 2).await;
    load(&world, &peer, 30).await;
    world.put(1, b"garbage".to_vec());
    peer.reached(1, 1).await;
    let directory = tempfile::tempdir().expect("a directory");
    let mut reported = 0;
    let log = Arc::new(world.log.another());
    let genesis = world.net.genesis_bytes();
    let verified = peer::verify(log, &genesis, directory.path(), |progress| {
        assert!(progress.blocks <= progress.end);
        reported += 1;
    })
    .await
    .expect("verified");
    assert!(reported >= 2);
    let told: Vec<_> = peer.ledger.chains();
    assert_eq!(verified.len(), told.len());
    for (verified, told) in verified.iter().zip(&told) {
        assert_eq!(verified.partition, told.partition);
        assert_eq!(verified.blocks, told.blocks);
        assert_eq!(verified.header[..], told.header[..]);
        assert_eq!(verified.state_digest[..], told.state_digest[..]);
    }
    assert_eq!((verified[0].transactions, verified[0].valid), (90, 90));
    peer.end().await;
}
