//! Nothing lost, doubled or reordered; no limit passed; no more blocks a second than allowed.

use proptest::prelude::*;
use protocol::{canonical::ascending, sha256};

use super::*;

fn entry(tag: usize, bytes: usize, certificates: &[u8]) -> Entry<usize> {
    let der = |seed: &u8| Arc::from(vec![*seed; 100 + usize::from(*seed) * 10]);
    let certificates = certificates
        .iter()
        .map(der)
        .map(|der: Arc<[u8]>| (sha256(&der), der))
        .collect();
    let mut transaction = vec![0; bytes.max(8)];
    transaction[..8].copy_from_slice(&tag.to_be_bytes());
    Entry {
        transaction,
        certificates,
        tag,
    }
}

fn batcher(limits: Limits) -> Batcher<usize> {
    Batcher::new(&[7; 32], 3, limits)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn one_alone_waits_for_the_linger_and_no_longer() {
    let mut batcher = batcher(Limits::default());
    assert_eq!(batcher.due(), None);
    batcher.push(ms(1000), entry(0, 100, &[1]));
    assert_eq!(batcher.due(), Some(ms(1002)));
    assert!(batcher.seal(ms(1001)).is_none());
    let sealed = batcher.seal(ms(1002)).expect("due");
    assert_eq!((sealed.tags, sealed.reason), (vec![0], Reason::Linger));
    assert!(batcher.is_empty() && batcher.due().is_none());
}

#[test]
fn a_full_block_does_not_wait() {
    let mut batcher = batcher(Limits {
        transactions_max: 3,
        ..Limits::default()
    });
    for tag in 0..4 {
        batcher.push(ms(5), entry(tag, 100, &[1]));
    }
    let sealed = batcher.seal(ms(5)).expect("full");
    assert_eq!((sealed.tags, sealed.reason), (vec![0, 1, 2], Reason::Count));
    assert_eq!(batcher.due(), Some(ms(7)), "the fourth waits on its own");
}

#[test]
fn bytes_count_certificates_once() {
    let limits = Limits {
        bytes_max: BYTES_MIN,
        ..Limits::default()
    };
    let size = 200 * 1024;
    let mut same = batcher(limits);
    for tag in 0..3 {
        same.push(ms(0), entry(tag, size, &[9]));
    }
    let sealed = same.seal(ms(0)).expect("full");
    assert_eq!(
        (sealed.tags.as_slice(), sealed.reason),
        ([0, 1].as_slice(), Reason::Bytes)
    );
    assert_eq!(sealed.block.certificates.len(), 1);
}

#[test]
fn the_largest_transaction_fits_a_block_of_its_own() {
    let der: Vec<Arc<[u8]>> = (0..TRANSACTION_CERTIFICATES_MAX)
        .map(|i| Arc::from(vec![i as u8; CERTIFICATE_BYTES_MAX]))
        .collect();
    let certificates = der.into_iter().map(|der| (sha256(&der), der)).collect();
    let mut batcher = batcher(Limits {
        bytes_max: BYTES_MIN,
        ..Limits::default()
    });
    batcher.push(
        ms(0),
        Entry {
            transaction: vec![1; TRANSACTION_BYTES_MAX],
            certificates,
            tag: 0,
        },
    );
    let sealed = batcher.seal(ms(2)).expect("due");
    assert!(sealed.block.encoded_len() <= BYTES_MIN);
}

#[test]
fn draining_seals_at_once() {
    let mut batcher = batcher(Limits {
        linger: ms(1000),
        ..Limits::default()
    });
    batcher.push(ms(0), entry(0, 100, &[]));
    assert!(batcher.seal(ms(1)).is_none());
    batcher.drain();
    assert_eq!(batcher.seal(ms(1)).expect("draining").reason, Reason::Drain);
}

#[test]
fn what_is_given_up_is_returned() {
    let mut batcher = batcher(Limits::default());
    (0..3).for_each(|tag| batcher.push(ms(0), entry(tag, 10, &[])));
    assert_eq!(batcher.abandon().collect::<Vec<_>>(), [0, 1, 2]);
    assert!(batcher.is_empty() && batcher.due().is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Push { bytes: usize, certificates: Vec<u8> },
    Wait { micros: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![8 => 8usize..3000, 1 => 3000usize..TRANSACTION_BYTES_MAX];
    let push = (size, prop::collection::btree_set(0u8..20, 0..6)).prop_map(|(bytes, certificates)| Step::Push {
        bytes,
        certificates: certificates.into_iter().collect(),
    });
    let wait = (0u64..4000).prop_map(|micros| Step::Wait { micros });
    prop::collection::vec(prop_oneof![5 => push, 2 => wait], 1..400)
}

fn limits() -> impl Strategy<Value = Limits> {
    (0u64..20, 1usize..60, BYTES_MIN..BLOCK_BYTES_MAX).prop_map(|(linger, transactions_max, bytes_max)| Limits {
        linger: ms(linger),
        transactions_max,
        bytes_max,
    })
}

type SealedAt = (Duration, Sealed<usize>);

/// Runs the steps as the partition's task does: seals whenever a block is due. Ends with a drain.
fn run(limits: Limits, steps: &[Step]) -> (Vec<Entry<usize>>, Vec<SealedAt>) {
    let mut batcher = batcher(limits);
    let (mut now, mut pushed, mut sealed) = (Duration::ZERO, Vec::new(), Vec::new());
    let mut seal = |batcher: &mut Batcher<usize>, until: Duration| {
        while let Some(due) = batcher.due().filter(|due| *due <= until) {
            let at = due.max(sealed.last().map_or(Duration::ZERO, |(at, _)| *at));
            sealed.push((at, batcher.seal(at).expect("due")));
        }
    };
    for step in steps {
        match step {
            Step::Push { bytes, certificates } => {
                let entry = entry(pushed.len(), *bytes, certificates);
                pushed.push(entry.clone());
                batcher.push(now, entry);
            }
            Step::Wait { micros } => now += Duration::from_micros(*micros),
        }
        seal(&mut batcher, now);
    }
    batcher.drain();
    seal(&mut batcher, now + Duration::from_secs(3600));
    assert!(batcher.is_empty());
    (pushed, sealed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_lost_doubled_or_reordered(limits in limits(), steps in steps()) {
        let (pushed, sealed) = run(limits, &steps);
        let tags: Vec<usize> = sealed.iter().flat_map(|(_, sealed)| sealed.tags.clone()).collect();
        prop_assert_eq!(tags, (0..pushed.len()).collect::<Vec<_>>());
        let ordered: Vec<&Vec<u8>> = sealed.iter().flat_map(|(_, sealed)| &sealed.block.transactions).collect();
        let given: Vec<&Vec<u8>> = pushed.iter().map(|entry| &entry.transaction).collect();
        prop_assert_eq!(ordered, given);
    }

    #[test]
    fn every_block_keeps_its_limits(limits in limits(), steps in steps()) {
        let (pushed, sealed) = run(limits, &steps);
        for (_, Sealed { block, tags, reason }) in &sealed {
            prop_assert!(block.encoded_len() <= limits.bytes_max);
            prop_assert!((1..=limits.transactions_max).contains(&tags.len()));
            prop_assert_eq!(block.transactions.len(), tags.len());
            if *reason == Reason::Count {
                prop_assert_eq!(tags.len(), limits.transactions_max);
            }
            let hashes: Vec<Digest> = block.certificates.iter().map(|der| sha256(der)).collect();
            prop_assert!(ascending(&hashes, |hash| hash));
            let mut cited: Vec<Digest> =
                tags.iter().flat_map(|tag| pushed[*tag].certificates.iter().map(|(hash, _)| *hash)).collect();
            cited.sort();
            cited.dedup();
            prop_assert_eq!(hashes, cited, "those that are cited and no others");
        }
    }

    #[test]
    fn no_second_has_more_blocks_than_allowed(limits in limits(), steps in steps()) {
        let (_, sealed) = run(limits, &steps);
        let times: Vec<Duration> = sealed.iter().map(|(at, _)| *at).collect();
        let max = BLOCKS_PER_SECOND_MAX as usize;
        for window in times.windows(max + 1) {
            prop_assert!(window[max] - window[0] >= Duration::from_secs(1) - Duration::from_micros(1));
        }
    }

    #[test]
    fn a_block_is_due_after_its_linger_when_it_may_be(limits in limits(), steps in steps()) {
        let mut batcher = batcher(limits);
        let (mut now, mut last) = (Duration::ZERO, Duration::ZERO);
        let mut pushed = Vec::new();
        for step in &steps {
            match step {
                Step::Push { bytes, certificates } => {
                    batcher.push(now, entry(pushed.len(), *bytes, certificates));
                    pushed.push(now);
                }
                Step::Wait { micros } => now += Duration::from_micros(*micros),
            }
            while let Some(due) = batcher.due().filter(|due| *due <= now) {
                let sealed = batcher.seal(now).expect("due");
                let first = pushed[sealed.tags[0]];
                prop_assert!(due <= (first + limits.linger).max(last + Duration::from_millis(12)));
                last = now;
            }
        }
    }
}
