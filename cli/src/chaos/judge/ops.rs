//! The history's changes, each with what its client was told in the end. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::chaos::history::{Entry, Outcome, Place, TxId, What, Write};

/// One change and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub write: Write,
    pub told: Told,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was acknowledged at that time; `judged`: VALID, not only in the log.
    Acknowledged {
        at_ms: u64,
        place: Place,
        judged: bool,
    },
    Refused {
        word: String,
    },
    Unknown,
    /// Nobody said anything yet.
    UnderWay,
}

impl Told {
    /// What it comes to when the same intent ends once more.
    fn and(self, at_ms: u64, outcome: &Outcome) -> Told {
        let acknowledged = |place: &Place, judged| Told::Acknowledged {
            at_ms,
            place: *place,
            judged,
        };
        match (self, outcome) {
            (told @ Told::Acknowledged { .. }, _) => told,
            (_, Outcome::Committed(place)) => acknowledged(place, true),
            (_, Outcome::Ordered(place)) => acknowledged(place, false),
            (Told::UnderWay, Outcome::Refused { word }) => Told::Refused { word: word.clone() },
            (told @ Told::Refused { .. }, Outcome::Refused { .. }) => told,
            // A refusal of the second says nothing of the first.
            (_, Outcome::Unknown { .. } | Outcome::Refused { .. }) => Told::Unknown,
        }
    }
}

pub fn ops(history: &[Entry]) -> BTreeMap<u64, Op> {
    let mut ops: BTreeMap<u64, Op> = BTreeMap::new();
    for entry in history {
        match &entry.what {
            What::Invoked(write) => {
                let op = Op {
                    write: write.clone(),
                    told: Told::UnderWay,
                };
                ops.insert(write.op, op);
            }
            What::Ended { op, outcome } => {
                if let Some(op) = ops.get_mut(op) {
                    let told = std::mem::replace(&mut op.told, Told::UnderWay);
                    op.told = told.and(entry.at_ms, outcome);
                }
            }
            _ => {}
        }
    }
    ops
}

/// Those of which nobody said what became of them.
pub fn unknown(history: &[Entry]) -> Vec<(u64, TxId)> {
    let ops = ops(history).into_values().filter(|op| op.told == Told::Unknown);
    ops.map(|op| (op.write.op, op.write.tx_id)).collect()
}

/// From one acknowledgement to the next at most, milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Gaps {
    /// Acknowledged in this time.
    pub acknowledged: u64,
    /// Nothing was acknowledged at all for so long.
    pub longest_ms: u64,
    /// The same for the worst single partition.
    pub longest_of_a_partition_ms: u64,
    /// The same for clients of the worst single gateway.
    pub longest_of_a_gateway_ms: u64,
}

/// Of `from_ms..=to_ms`; its ends count as acknowledgements.
pub fn gaps<'a>(ops: impl Iterator<Item = &'a Op>, partitions: u32, from_ms: u64, to_ms: u64) -> Gaps {
    let mut times = Vec::new();
    let mut gateways = BTreeSet::new();
    for op in ops {
        gateways.insert(op.write.gateway);
        if let Told::Acknowledged { at_ms, place, .. } = op.told
            && (from_ms..=to_ms).contains(&at_ms)
        {
            times.push((at_ms, place.partition, op.write.gateway));
        }
    }
    times.sort_unstable();
    let longest = |times: &mut dyn Iterator<Item = u64>| {
        let (mut last, mut longest) = (from_ms, 0);
        for at_ms in times.chain([to_ms]) {
            longest = longest.max(at_ms - last);
            last = at_ms;
        }
        longest
    };
    let of = |is_its: &dyn Fn(u32, usize) -> bool| {
        let own = times
            .iter()
            .filter(|(_, partition, gateway)| is_its(*partition, *gateway));
        longest(&mut own.map(|(at_ms, ..)| *at_ms))
    };
    let of_partition = |asked| of(&|partition, _| partition == asked);
    let of_gateway = |asked| of(&|_, gateway| gateway == asked);
    Gaps {
        acknowledged: times.len() as u64,
        longest_ms: of(&|_, _| true),
        longest_of_a_partition_ms: (0..partitions).map(of_partition).max().unwrap_or(0),
        longest_of_a_gateway_ms: gateways.into_iter().map(of_gateway).max().unwrap_or(0),
    }
}
