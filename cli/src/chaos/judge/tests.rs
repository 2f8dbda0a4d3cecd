//! Made-up histories: one that keeps every rule, and for each rule one that breaks it and nothing else.

use proptest::prelude::*;

use super::{
    evidence::{Answer, Block, Evidence, Ledger},
    ops::{Gaps, gaps, ops},
    rules::{STREAM_BEHIND_MAX_MS, judge},
    verdict::Verdict,
};
use crate::chaos::history::{Entry, Outcome, Place, Saw, TxId, What, Write};

const PEERS: [&str; 3] = ["peer0.A", "peer1.A", "peer0.B"];

fn tx(op: u64) -> TxId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&op.to_be_bytes());
    TxId(bytes)
}

fn at(partition: u32, height: u64, index: u32) -> Place {
    Place {
        partition,
        height,
        index,
    }
}

/// A load on two partitions, as it is told line by line, and the ledger that all peers have.
struct World {
    history: Vec<Entry>,
    ledgers: Vec<Ledger>,
    answers: Vec<Answer>,
    now_ms: u64,
}

impl World {
    fn new() -> World {
        let ledger = |peer: &&str| Ledger {
            peer: (*peer).to_owned(),
            from: vec![10, 20],
            chains: vec![Vec::new(), Vec::new()],
        };
        let mut world = World {
            history: Vec::new(),
            ledgers: PEERS.iter().map(ledger).collect(),
            answers: Vec::new(),
            now_ms: 0,
        };
        world.enter(What::Began {
            heights: vec![10, 20],
            gateways: PEERS.iter().map(|name| (*name).to_owned()).collect(),
        });
        world
    }

    fn enter(&mut self, what: What) {
        self.now_ms += 10;
        self.history.push(Entry {
            at_ms: self.now_ms,
            what,
        });
    }

    /// A block of these at the end of a partition, on all peers; the place of its first transaction.
    fn block(&mut self, partition: u32, transactions: &[(TxId, bool)]) -> Place {
        let mut place = at(partition, 0, 0);
        for ledger in &mut self.ledgers {
            place.height = ledger.end(partition);
            let chain = &mut ledger.chains[partition as usize];
            chain.push(Block {
                header: header(partition, place.height),
                transactions: transactions.to_vec(),
            });
        }
        place
    }

    fn invoke(&mut self, op: u64, record: u64, version: u64) {
        let (client, gateway, tx_id) = (op % 2, (op % 2) as usize, tx(op));
        self.enter(What::Invoked(Write {
            op,
            client,
            gateway,
            record,
            version,
            tx_id,
        }));
    }

    fn end(&mut self, op: u64, outcome: Outcome) {
        self.enter(What::Ended { op, outcome });
    }

    fn events(&mut self, op: u64, place: Place) {
        for gateway in 0..PEERS.len() {
            let tx_id = tx(op);
            self.enter(What::Event { gateway, place, tx_id });
        }
    }

    /// Invoked, ordered, VALID, acknowledged, streamed.
    fn done(&mut self, op: u64, record: u64, version: u64) -> Place {
        self.invoke(op, record, version);
        let place = self.block((record % 2) as u32, &[(tx(op), true)]);
        self.end(op, Outcome::Committed(place));
        self.events(op, place);
        place
    }

    fn read(&mut self, client: u64, record: u64, saw: Option<(u64, u64)>) {
        self.enter(What::Read {
            client,
            gateway: client as usize,
            record,
            saw: saw.map(|(version, op)| Saw { version, op }),
        });
    }

    fn answers(&mut self, op: u64, valid: Option<Place>) {
        for peer in PEERS {
            let peer = peer.to_owned();
            self.answers.push(Answer { peer, op, valid });
        }
    }

    fn judge(self) -> Verdict {
        let evidence = Evidence {
            history: self.history,
            ledgers: self.ledgers,
            answers: self.answers,
        };
        judge(&evidence, None)
    }

    /// Exactly this rule is broken, so often.
    fn breaks(self, rule: &str, times: u64) -> Verdict {
        let verdict = self.judge();
        let broken: Vec<(&str, u64)> = verdict
            .broken
            .iter()
            .map(|(rule, times)| (rule.as_str(), *times))
            .collect();
        assert_eq!(broken, [(rule, times)], "{}", verdict.text());
        assert!(!verdict.ok());
        verdict
    }
}

fn header(partition: u32, height: u64) -> protocol::Digest {
    let mut header = [partition as u8; 32];
    header[..8].copy_from_slice(&height.to_be_bytes());
    header
}

fn refused() -> Outcome {
    Outcome::Refused {
        word: "log_unavailable".into(),
    }
}

fn unknown() -> Outcome {
    Outcome::Unknown {
        word: "unknown_outcome".into(),
    }
}

/// Everything that may happen when nothing is wrong.
fn good() -> World {
    let mut world = World::new();
    world.done(2, 100, 0);
    world.done(4, 100, 1);
    world.read(0, 100, Some((2, 4)));
    // Another client, at a gateway that is behind.
    world.read(1, 100, Some((1, 2)));
    world.read(1, 100, Some((2, 4)));
    world.read(1, 103, None);
    // Two that saw the same version: one wins, the other is in the log and not VALID.
    world.invoke(6, 100, 2);
    world.invoke(7, 100, 2);
    let place = world.block(0, &[(tx(7), true), (tx(6), false)]);
    world.end(7, Outcome::Committed(place));
    world.end(
        6,
        Outcome::Refused {
            word: "mvcc_conflict".into(),
        },
    );
    world.events(7, place);
    world.enter(What::Broke {
        gateway: 1,
        partition: 0,
        word: "unavailable".into(),
    });
    // Ordered twice, VALID once.
    world.invoke(8, 101, 0);
    let place = world.block(1, &[(tx(8), true)]);
    let again = world.block(1, &[(tx(8), false)]);
    world.end(8, Outcome::Ordered(again));
    world.events(8, place);
    // Unknown, and there; unknown, and not; unknown, and known the second time; unknown, then refused.
    world.invoke(10, 102, 0);
    let place = world.block(0, &[(tx(10), true)]);
    world.end(10, unknown());
    world.events(10, place);
    world.answers(10, Some(place));
    world.invoke(12, 104, 0);
    world.end(12, unknown());
    world.answers(12, None);
    world.invoke(14, 106, 0);
    world.end(14, unknown());
    world.enter(What::Again { op: 14 });
    let place = world.block(0, &[(tx(14), true)]);
    world.end(14, Outcome::Committed(place));
    world.events(14, place);
    world.invoke(16, 108, 0);
    world.end(16, unknown());
    world.end(16, refused());
    world.answers(16, Some(at(0, 999, 0)));
    world.invoke(18, 110, 0);
    world.end(18, refused());
    // Nobody said anything of it yet.
    world.invoke(20, 112, 0);
    world
}

#[test]
fn a_good_history_keeps_every_rule() {
    let verdict = good().judge();
    assert!(verdict.ok(), "{}", verdict.text());
    assert_eq!((verdict.lost, verdict.doubled, verdict.disagreements), (0, 0, 0));
    assert_eq!((verdict.acknowledged, verdict.refused), (5, 2));
    assert_eq!((verdict.unknown_there, verdict.unknown_absent), (1, 2));
    assert_eq!((verdict.reads, verdict.streams_resumed, verdict.peers), (4, 1, 3));
}

#[test]
fn what_is_acknowledged_and_not_there_is_lost() {
    let mut world = good();
    world.invoke(30, 200, 0);
    let end = world.ledgers[0].end(0);
    world.end(30, Outcome::Committed(at(0, end, 0)));
    assert_eq!(world.breaks("lost", 3).lost, 1);
    let mut world = good();
    world.invoke(30, 200, 0);
    let place = world.block(0, &[(tx(30), false)]);
    world.end(30, Outcome::Ordered(place));
    assert_eq!(world.breaks("lost", 3).lost, 1);
}

#[test]
fn what_is_missing_on_one_peer_is_lost_and_a_fork() {
    let mut world = good();
    world.done(30, 200, 0);
    let block = world.ledgers[2].chains[0].last_mut().expect("a block");
    block.transactions[0].1 = false;
    let verdict = world.judge();
    let broken: Vec<&String> = verdict.broken.keys().collect();
    assert_eq!(broken, ["forked", "lost"]);
    assert_eq!((verdict.lost, verdict.disagreements), (1, 1));
}

#[test]
fn what_is_elsewhere_than_told_is_misplaced() {
    let mut world = good();
    world.invoke(30, 200, 0);
    let place = world.block(0, &[(tx(30), true)]);
    world.end(30, Outcome::Committed(at(0, place.height, 1)));
    world.events(30, place);
    world.breaks("misplaced", 1);
    let mut world = good();
    world.invoke(30, 200, 0);
    let place = world.block(0, &[(tx(30), true)]);
    world.end(30, Outcome::Ordered(at(0, place.height - 1, 0)));
    world.events(30, place);
    world.breaks("misplaced", 1);
}

#[test]
fn valid_twice_is_doubled() {
    let mut world = good();
    let place = world.done(30, 200, 0);
    world.block(place.partition, &[(tx(30), true)]);
    assert_eq!(world.breaks("doubled", 3).doubled, 1);
}

#[test]
fn refused_and_valid_is_told() {
    let mut world = good();
    world.invoke(30, 200, 0);
    let place = world.block(0, &[(tx(30), true)]);
    world.end(30, refused());
    world.events(30, place);
    world.breaks("refused_yet_valid", 1);
}

#[test]
fn two_valid_changes_of_one_version_overwrite() {
    let mut world = good();
    world.done(30, 100, 2);
    world.breaks("overwritten", 1);
}

#[test]
fn another_header_or_another_end_is_a_fork() {
    let mut world = good();
    world.ledgers[1].chains[1][0].header = [9; 32];
    assert_eq!(world.breaks("forked", 1).disagreements, 1);
    let mut world = good();
    world.block(1, &[]);
    world.ledgers[2].chains[1].pop();
    world.breaks("forked", 1);
}

#[test]
fn an_unknown_outcome_is_one_thing_and_stays_so() {
    // There, and one peer says it is not.
    let mut world = good();
    world.answers[1].valid = None;
    assert_eq!(world.breaks("undecided", 1).disagreements, 1);
    // Not there, and one peer says it was.
    let mut world = good();
    world.answers[3].valid = Some(at(0, 10, 0));
    world.breaks("undecided", 1);
    // It came later, and not at the same place everywhere.
    let mut world = good();
    world.answers.last_mut().expect("answers").valid = Some(at(0, 999, 1));
    world.breaks("undecided", 1);
}

#[test]
fn a_read_of_what_nobody_committed_is_told() {
    for (version, op) in [
        // Refused; of another record; at another version; not of this load.
        (1, 18),
        (1, 2),
        (2, 14),
        (1, 0),
    ] {
        let mut world = good();
        let record = if op == 14 { 106 } else { 110 };
        world.read(0, record, Some((version, op)));
        world.breaks("saw_uncommitted", 1);
    }
}

#[test]
fn a_read_of_less_than_was_told_before_is_told() {
    let mut world = good();
    world.read(0, 100, Some((1, 2)));
    world.breaks("saw_older", 1);
    let mut world = good();
    world.read(1, 100, None);
    world.breaks("saw_older", 1);
    // Told by an acknowledgement only.
    let mut world = good();
    world.done(30, 200, 0);
    world.read(0, 200, None);
    world.breaks("saw_older", 1);
}

#[test]
fn events_come_once_and_in_order() {
    let mut world = good();
    let last = world.done(30, 200, 0);
    world.enter(What::Event {
        gateway: 1,
        place: last,
        tx_id: tx(30),
    });
    world.breaks("event_repeated", 1);
    let mut world = good();
    world.enter(What::Event {
        gateway: 2,
        place: at(0, 10, 0),
        tx_id: tx(2),
    });
    world.breaks("event_repeated", 1);
}

#[test]
fn an_event_of_what_is_not_valid_is_told() {
    let mut world = good();
    world.invoke(30, 200, 0);
    let place = world.block(0, &[(tx(30), false)]);
    world.end(30, refused());
    let tx_id = tx(30);
    world.enter(What::Event {
        gateway: 0,
        place,
        tx_id,
    });
    world.breaks("event_uncommitted", 1);
}

#[test]
fn a_stream_that_goes_past_a_change_missed_it() {
    let mut world = good();
    world.done(30, 200, 0);
    let missed = |entry: &Entry| matches!(entry.what, What::Event { gateway: 1, tx_id, .. } if tx_id == tx(30));
    world.history.retain(|entry| !missed(entry));
    world.done(32, 202, 0);
    world.breaks("event_missed", 1);
}

#[test]
fn a_stream_that_does_not_come_on_is_behind() {
    let behind = |after_ms: u64| {
        let mut world = good();
        world.done(31, 201, 0);
        world
            .history
            .retain(|entry| !matches!(entry.what, What::Event { gateway: 2, tx_id, .. } if tx_id == tx(31)));
        world.now_ms += after_ms;
        world.read(0, 300, None);
        world
    };
    behind(STREAM_BEHIND_MAX_MS + 1_000).breaks("stream_behind", 1);
    assert!(behind(STREAM_BEHIND_MAX_MS - 1_000).judge().ok());
}

fn acknowledged(times: &[(u64, u32)]) -> World {
    let mut world = World::new();
    for (op, (at_ms, partition)) in (1..).zip(times) {
        world.now_ms = *at_ms - 20;
        world.invoke(op, op, 0);
        world.end(op, Outcome::Committed(at(*partition, op, 0)));
    }
    world
}

#[test]
fn gaps_are_counted_over_all_by_partition_and_by_gateway() {
    let world = acknowledged(&[(1_000, 0), (1_500, 1), (4_000, 0), (4_500, 0), (9_000, 1)]);
    let ops = ops(&world.history);
    let of = |from_ms, to_ms| gaps(ops.values(), 2, from_ms, to_ms);
    let expected = Gaps {
        acknowledged: 4,
        longest_ms: 2_500,
        longest_of_a_partition_ms: 3_500,
        longest_of_a_gateway_ms: 3_000,
    };
    assert_eq!(of(1_000, 5_000), expected);
    // Nothing at all: as long as one looked.
    assert_eq!(of(5_000, 8_000).longest_ms, 3_000);
}

proptest! {
    /// However the acknowledgements fall, no gap is longer than the window, and none of all is longer than the
    /// worst of a partition.
    #[test]
    fn gaps_fit_their_window(times in prop::collection::vec((50u64..10_000, 0u32..3), 1..40), from in 0u64..5_000, length in 1u64..5_000) {
        let world = acknowledged(&times);
        let ops = ops(&world.history);
        let found = gaps(ops.values(), 3, from, from + length);
        prop_assert!(found.longest_ms <= found.longest_of_a_partition_ms);
        prop_assert!(found.longest_ms <= found.longest_of_a_gateway_ms);
        prop_assert!(found.longest_of_a_partition_ms.max(found.longest_of_a_gateway_ms) <= length);
        prop_assert!(found.longest_ms * (found.acknowledged + 1) >= length);
    }

    /// Taking any one acknowledged change away from any one peer is found.
    #[test]
    fn no_loss_escapes(changes in 1u64..20, lost in 0u64..20, peer in 0usize..3) {
        let mut world = World::new();
        for op in 1..=changes {
            world.done(op, op, 0);
        }
        let lost = tx(1 + lost % changes);
        for chain in &mut world.ledgers[peer].chains {
            for block in chain {
                block.transactions.retain(|(tx_id, _)| *tx_id != lost);
            }
        }
        let verdict = world.judge();
        prop_assert_eq!(verdict.lost, 1);
        prop_assert!(verdict.broken.contains_key("forked"));
    }
}
