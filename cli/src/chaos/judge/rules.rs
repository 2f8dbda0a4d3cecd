//! The rules. Pure: a history, chains and answers in, a verdict out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    evidence::{Evidence, Ledger},
    ops::{self, Op, Told},
    verdict::{Verdict, Violation},
};
use crate::chaos::history::{Entry, Outcome, Place, TxId, What};

/// A stream may be so far behind an acknowledgement.
pub const STREAM_BEHIND_MAX_MS: u64 = 30_000;

/// A stretch of the history, in milliseconds of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub from_ms: u64,
    pub to_ms: u64,
}

/// VALID, and where; of a transaction that is so twice the first place.
type Valid = HashMap<TxId, Place>;

/// `window`: `None` for all of the history.
pub fn judge(evidence: &Evidence, window: Option<Window>) -> Verdict {
    let ops = ops::ops(&evidence.history);
    let mut broken = Vec::new();
    let valid: Vec<Valid> = evidence
        .ledgers
        .iter()
        .map(|ledger| valid_of(ledger, &mut broken))
        .collect();
    let doubled: BTreeSet<TxId> = broken.iter().filter_map(doubled_tx).collect();
    forks(&evidence.ledgers, &mut broken);
    let first = valid.first().cloned().unwrap_or_default();
    promises(&ops, evidence, &valid, &mut broken);
    undecided(&ops, evidence, &valid, &mut broken);
    overwritten(&ops, &first, &mut broken);
    let gateways = gateways(&evidence.history);
    reads(&evidence.history, &ops, &first, &gateways, &mut broken);
    streams(evidence, &ops, &first, &gateways, &mut broken);
    let mut verdict = count(evidence, &ops, &first);
    let distinct = |rule: fn(&Violation) -> Option<u64>| broken.iter().filter_map(rule).collect::<BTreeSet<_>>().len();
    verdict.lost = distinct(|violation| match violation {
        Violation::Lost { op, .. } => Some(*op),
        _ => None,
    }) as u64;
    verdict.doubled = doubled.len() as u64;
    let disagree = |violation: &&Violation| matches!(violation, Violation::Forked { .. } | Violation::Undecided { .. });
    verdict.disagreements = broken.iter().filter(disagree).count() as u64;
    let all = Window {
        from_ms: 0,
        to_ms: evidence.history.last().map_or(0, |entry| entry.at_ms),
    };
    let window = window.unwrap_or(all);
    let partitions = evidence.ledgers.first().map_or(0, |ledger| ledger.chains.len() as u32);
    verdict.window = ops::gaps(ops.values(), partitions, window.from_ms, window.to_ms);
    verdict.add(broken);
    verdict
}

fn doubled_tx(violation: &Violation) -> Option<TxId> {
    match violation {
        Violation::Doubled { tx_id, .. } => Some(*tx_id),
        _ => None,
    }
}

fn gateways(history: &[Entry]) -> Vec<String> {
    match history.first().map(|entry| &entry.what) {
        Some(What::Began { gateways, .. }) => gateways.clone(),
        _ => Vec::new(),
    }
}

fn count(evidence: &Evidence, ops: &BTreeMap<u64, Op>, valid: &Valid) -> Verdict {
    let mut verdict = Verdict {
        peers: evidence.ledgers.len(),
        blocks: evidence
            .ledgers
            .first()
            .map_or(0, |ledger| ledger.chains.iter().map(|chain| chain.len() as u64).sum()),
        ..Verdict::default()
    };
    for op in ops.values() {
        match op.told {
            Told::Acknowledged { .. } => verdict.acknowledged += 1,
            Told::Refused { .. } => verdict.refused += 1,
            Told::Unknown if valid.contains_key(&op.write.tx_id) => verdict.unknown_there += 1,
            Told::Unknown => verdict.unknown_absent += 1,
            Told::UnderWay => {}
        }
    }
    for entry in &evidence.history {
        match entry.what {
            What::Read { .. } => verdict.reads += 1,
            What::Event { .. } => verdict.events += 1,
            What::Broke { .. } => verdict.streams_resumed += 1,
            What::Unsigned { .. } => verdict.refused += 1,
            _ => {}
        }
    }
    verdict
}

/// A transaction is VALID at most once.
fn valid_of(ledger: &Ledger, broken: &mut Vec<Violation>) -> Valid {
    let mut valid = Valid::new();
    let mut twice: BTreeMap<TxId, Vec<Place>> = BTreeMap::new();
    for (place, tx_id, _) in ledger.transactions().filter(|(_, _, valid)| *valid) {
        if let Some(before) = valid.get(&tx_id) {
            twice.entry(tx_id).or_insert_with(|| vec![*before]).push(place);
        } else {
            valid.insert(tx_id, place);
        }
    }
    broken.extend(twice.into_iter().map(|(tx_id, places)| Violation::Doubled {
        tx_id,
        peer: ledger.peer.clone(),
        places,
    }));
    valid
}

/// There is one block at each height, on all peers. What follows a fork differs too, and is not told again.
fn forks(ledgers: &[Ledger], broken: &mut Vec<Violation>) {
    let Some((first, others)) = ledgers.split_first() else {
        return;
    };
    for other in others {
        for (partition, (a, b)) in (0u32..).zip(first.chains.iter().zip(&other.chains)) {
            let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
            if same < a.len().max(b.len()) {
                broken.push(Violation::Forked {
                    partition,
                    height: first.from[partition as usize] + same as u64,
                    peers: [first.peer.clone(), other.peer.clone()],
                });
            }
        }
    }
}

/// What is acknowledged is VALID on every peer, where it was told; what is refused is so nowhere.
fn promises(ops: &BTreeMap<u64, Op>, evidence: &Evidence, valid: &[Valid], broken: &mut Vec<Violation>) {
    let stands: HashSet<(Place, TxId)> = match evidence.ledgers.first() {
        Some(ledger) => ledger.transactions().map(|(place, tx_id, _)| (place, tx_id)).collect(),
        None => HashSet::new(),
    };
    for op in ops.values() {
        let (number, tx_id) = (op.write.op, op.write.tx_id);
        let found = || valid.iter().find_map(|valid| valid.get(&tx_id).copied());
        match &op.told {
            Told::Acknowledged { place, judged, .. } => {
                let without = evidence
                    .ledgers
                    .iter()
                    .zip(valid)
                    .filter(|(_, valid)| !valid.contains_key(&tx_id));
                let mut lost = false;
                for (ledger, _) in without {
                    lost = true;
                    broken.push(Violation::Lost {
                        op: number,
                        tx_id,
                        peer: ledger.peer.clone(),
                    });
                }
                // What is only ordered may have come twice and be VALID at its other place.
                let there = match judged {
                    true => found() == Some(*place),
                    false => stands.contains(&(*place, tx_id)),
                };
                if !lost && !there {
                    broken.push(Violation::Misplaced {
                        op: number,
                        tx_id,
                        told: *place,
                        found: found(),
                    });
                }
            }
            Told::Refused { word } if found().is_some() => broken.push(Violation::RefusedYetValid {
                op: number,
                tx_id,
                word: word.clone(),
            }),
            _ => {}
        }
    }
}

/// An unknown outcome is there or not, on all peers the same, and stays so. What was not there yet when the chains
/// were read may come later, at a place behind them.
fn undecided(ops: &BTreeMap<u64, Op>, evidence: &Evidence, valid: &[Valid], broken: &mut Vec<Violation>) {
    let ends = |place: &Place| evidence.ledgers.first().map_or(0, |ledger| ledger.end(place.partition));
    for op in ops.values().filter(|op| op.told == Told::Unknown) {
        let (number, tx_id) = (op.write.op, op.write.tx_id);
        let chain = valid.first().and_then(|valid| valid.get(&tx_id).copied());
        let mut say = |peer: &str, answer: Option<Place>| {
            broken.push(Violation::Undecided {
                op: number,
                tx_id,
                peer: peer.to_owned(),
                chain,
                answer,
            });
        };
        for (ledger, valid) in evidence.ledgers.iter().zip(valid) {
            let here = valid.get(&tx_id).copied();
            if here != chain {
                say(&ledger.peer, here);
            }
        }
        let mut later = None;
        for answer in evidence.answers.iter().filter(|answer| answer.op == number) {
            let fits = match (chain, answer.valid) {
                (Some(chain), answer) => answer == Some(chain),
                (None, None) => true,
                (None, Some(place)) => place.height >= ends(&place) && *later.get_or_insert(place) == place,
            };
            if !fits {
                say(&answer.peer, answer.valid);
            }
        }
    }
}

/// Of the changes that saw one version of a record at most one is VALID.
fn overwritten(ops: &BTreeMap<u64, Op>, valid: &Valid, broken: &mut Vec<Violation>) {
    let mut changes: BTreeMap<(u64, u64), Vec<u64>> = BTreeMap::new();
    for op in ops.values().filter(|op| valid.contains_key(&op.write.tx_id)) {
        changes
            .entry((op.write.record, op.write.version))
            .or_default()
            .push(op.write.op);
    }
    for ((record, version), ops) in changes.into_iter().filter(|(_, ops)| ops.len() > 1) {
        broken.push(Violation::Overwritten { record, version, ops });
    }
}

/// A read sees what a VALID change wrote, and nothing older than its client was told before by the same gateway.
fn reads(history: &[Entry], ops: &BTreeMap<u64, Op>, valid: &Valid, gateways: &[String], broken: &mut Vec<Violation>) {
    // By client, gateway and record.
    let mut told: HashMap<(u64, usize, u64), u64> = HashMap::new();
    for entry in history {
        match &entry.what {
            What::Ended {
                op,
                outcome: Outcome::Committed(_),
            } => {
                let Some(Op { write, .. }) = ops.get(op) else { continue };
                let version = told.entry((write.client, write.gateway, write.record)).or_default();
                *version = (*version).max(write.version + 1);
            }
            What::Read {
                client,
                gateway,
                record,
                saw,
            } => {
                let version = saw.map_or(0, |saw| saw.version);
                let last = told.entry((*client, *gateway, *record)).or_default();
                if version < *last {
                    broken.push(Violation::SawOlder {
                        client: *client,
                        gateway: gateways.get(*gateway).cloned().unwrap_or_default(),
                        record: *record,
                        told: *last,
                        saw: version,
                        at_ms: entry.at_ms,
                    });
                }
                *last = (*last).max(version);
                let Some(saw) = saw else { continue };
                let wrote = ops.get(&saw.op).map(|op| &op.write).filter(|write| {
                    write.record == *record && write.version + 1 == saw.version && valid.contains_key(&write.tx_id)
                });
                if wrote.is_none() {
                    broken.push(Violation::SawUncommitted {
                        client: *client,
                        record: *record,
                        version: saw.version,
                        op: saw.op,
                    });
                }
            }
            _ => {}
        }
    }
}

/// What one gateway's stream of one partition handed out.
#[derive(Default)]
struct Stream {
    last: Option<Place>,
    handed: HashSet<TxId>,
}

/// A stream hands out every VALID change once and in order, however often it broke.
fn streams(
    evidence: &Evidence,
    ops: &BTreeMap<u64, Op>,
    valid: &Valid,
    gateways: &[String],
    broken: &mut Vec<Violation>,
) {
    let partitions = evidence.ledgers.first().map_or(0, |ledger| ledger.chains.len() as u32);
    let mut streams: BTreeMap<(usize, u32), Stream> = BTreeMap::new();
    for gateway in 0..gateways.len() {
        streams.extend((0..partitions).map(|partition| ((gateway, partition), Stream::default())));
    }
    let name = |gateway: usize| gateways.get(gateway).cloned().unwrap_or_default();
    let ends = |partition: u32| evidence.ledgers.first().map_or(0, |ledger| ledger.end(partition));
    for entry in &evidence.history {
        let What::Event { gateway, place, tx_id } = &entry.what else {
            continue;
        };
        let stream = streams.entry((*gateway, place.partition)).or_default();
        let (gateway, place) = (name(*gateway), *place);
        if stream.last.is_some_and(|last| place <= last) || !stream.handed.insert(*tx_id) {
            broken.push(Violation::EventRepeated { gateway, place });
            continue;
        }
        stream.last = Some(place);
        if valid.get(tx_id) != Some(&place) && place.height < ends(place.partition) {
            broken.push(Violation::EventUncommitted { gateway, place });
        }
    }
    let now_ms = evidence.history.last().map_or(0, |entry| entry.at_ms);
    for ((gateway, partition), stream) in streams {
        let mut behind: Option<(u64, u64)> = None;
        for op in ops.values() {
            let Some(place) = valid.get(&op.write.tx_id).filter(|place| place.partition == partition) else {
                continue;
            };
            if stream.handed.contains(&op.write.tx_id) {
                continue;
            }
            if stream.last.is_some_and(|last| *place < last) {
                let (gateway, op, place) = (name(gateway), op.write.op, *place);
                broken.push(Violation::EventMissed { gateway, op, place });
            } else if let Told::Acknowledged { at_ms, .. } = op.told {
                let for_ms = now_ms.saturating_sub(at_ms);
                if for_ms > STREAM_BEHIND_MAX_MS && behind.is_none_or(|(_, longest)| for_ms > longest) {
                    behind = Some((op.write.op, for_ms));
                }
            }
        }
        if let Some((op, for_ms)) = behind {
            let gateway = name(gateway);
            broken.push(Violation::StreamBehind {
                gateway,
                partition,
                op,
                for_ms,
            });
        }
    }
}
