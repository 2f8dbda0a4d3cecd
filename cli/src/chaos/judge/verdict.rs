//! What the judge says, and each rule that can be broken.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::ops::Gaps;
use crate::chaos::history::{Place, TxId};

/// A rule that was broken, where, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum Violation {
    /// Acknowledged, and not VALID on that peer.
    Lost { op: u64, tx_id: TxId, peer: String },
    /// Acknowledged at one place, and not to be found there.
    Misplaced {
        op: u64,
        tx_id: TxId,
        told: Place,
        found: Option<Place>,
    },
    /// VALID more than once on one peer.
    Doubled {
        tx_id: TxId,
        peer: String,
        places: Vec<Place>,
    },
    /// Refused, and VALID nonetheless.
    RefusedYetValid { op: u64, tx_id: TxId, word: String },
    /// Two VALID changes of one version of a record: one undid what it had not seen.
    Overwritten { record: u64, version: u64, ops: Vec<u64> },
    /// Two peers have different blocks at one height.
    Forked {
        partition: u32,
        height: u64,
        peers: [String; 2],
    },
    /// A transaction of unknown outcome is there by one account and not by another.
    Undecided {
        op: u64,
        tx_id: TxId,
        peer: String,
        chain: Option<Place>,
        answer: Option<Place>,
    },
    /// A read saw what no VALID change wrote.
    SawUncommitted {
        client: u64,
        record: u64,
        version: u64,
        op: u64,
    },
    /// A read saw less than the same client had been told before by the same gateway.
    SawOlder {
        client: u64,
        gateway: String,
        record: u64,
        told: u64,
        saw: u64,
        at_ms: u64,
    },
    /// A stream handed out a place that was not behind the one before.
    EventRepeated { gateway: String, place: Place },
    /// A stream handed out what is not VALID at that place.
    EventUncommitted { gateway: String, place: Place },
    /// A stream went past a VALID change without handing out its event.
    EventMissed { gateway: String, op: u64, place: Place },
    /// A stream did not hand out a change long after its acknowledgement.
    StreamBehind {
        gateway: String,
        partition: u32,
        op: u64,
        for_ms: u64,
    },
}

impl Violation {
    pub fn rule(&self) -> &'static str {
        match self {
            Violation::Lost { .. } => "lost",
            Violation::Misplaced { .. } => "misplaced",
            Violation::Doubled { .. } => "doubled",
            Violation::RefusedYetValid { .. } => "refused_yet_valid",
            Violation::Overwritten { .. } => "overwritten",
            Violation::Forked { .. } => "forked",
            Violation::Undecided { .. } => "undecided",
            Violation::SawUncommitted { .. } => "saw_uncommitted",
            Violation::SawOlder { .. } => "saw_older",
            Violation::EventRepeated { .. } => "event_repeated",
            Violation::EventUncommitted { .. } => "event_uncommitted",
            Violation::EventMissed { .. } => "event_missed",
            Violation::StreamBehind { .. } => "stream_behind",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The fields' names say it; a line of JSON can be searched in the history.
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// All of a history so far, and the stretch that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub peers: usize,
    pub blocks: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub unknown_there: u64,
    pub unknown_absent: u64,
    pub reads: u64,
    pub events: u64,
    pub streams_resumed: u64,
    /// Acknowledged changes that some peer has not.
    pub lost: u64,
    /// Transactions that are VALID more than once.
    pub doubled: u64,
    /// Heights or unknown outcomes that peers do not agree on.
    pub disagreements: u64,
    pub window: Gaps,
    /// How often each rule was broken.
    pub broken: BTreeMap<String, u64>,
    /// The first of them.
    pub violations: Vec<Violation>,
}

/// So many are shown.
const SHOWN_MAX: usize = 40;

impl Verdict {
    pub fn ok(&self) -> bool {
        self.broken.is_empty()
    }

    pub(super) fn add(&mut self, violations: Vec<Violation>) {
        for violation in &violations {
            *self.broken.entry(violation.rule().to_owned()).or_default() += 1;
        }
        self.violations = violations;
        self.violations.truncate(SHOWN_MAX);
    }

    pub fn text(&self) -> String {
        let mut text = format!(
            "{} acknowledged, {} refused, {} unknown ({} there, {} not), {} reads, {} events ({} streams resumed); \
             {} peers, {} blocks: {} lost, {} doubled, {} disagreements; longest gap {} ms, of one partition {} ms, of one gateway {} ms\n",
            self.acknowledged,
            self.refused,
            self.unknown_there + self.unknown_absent,
            self.unknown_there,
            self.unknown_absent,
            self.reads,
            self.events,
            self.streams_resumed,
            self.peers,
            self.blocks,
            self.lost,
            self.doubled,
            self.disagreements,
            self.window.longest_ms,
            self.window.longest_of_a_partition_ms,
            self.window.longest_of_a_gateway_ms
        );
        for (rule, count) in &self.broken {
            text.push_str(&format!("BROKEN {count} times: {rule}\n"));
        }
        for violation in &self.violations {
            text.push_str(&format!("  {violation}\n"));
        }
        text
    }
}
