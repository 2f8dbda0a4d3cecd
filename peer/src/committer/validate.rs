//! Stage 2: judges a block's transactions in order and says what they change. Pure: the same
//! records give the same headers everywhere, however they were batched and whenever they were read.
//!
//! ```text
//! position ─┐
//! overlay  ─┼─▶ validate ──▶ Changes { header, leaves, state, policies, history } + position after
//! prepared ─┘
//! ```
//! It reads no clock and does no I/O of its own. Checks are made in the order of [`Code`]: those
//! that need no state were made by [`super::prepare`], the rest is here.

use std::sync::Arc;

use protocol::{
    Digest,
    code::Code,
    control,
    hash::Digest as Hash,
    header::Header,
    lattice::Kind,
    ledger::{Config, Write},
    merkle,
    policy::Policy,
    transaction::{Actor, Checker, Transaction},
};
use service::rpc;

use super::{
    deltas::{self, Delta},
    prepare::{Prepared, PreparedTx, Sound},
    view::{Overlay, StateView},
};
use crate::{
    ledger::Tip,
    state::{Changes, Entry, HistoryEntry, Leaf, Position, Version},
};

/// What a partition is judged by: the config in force (the genesis') and where the genesis stands.
#[derive(Clone)]
pub struct Rules {
    pub checker: Arc<Checker>,
    pub partition: u32,
    pub genesis: control::Genesis,
}

/// Judges the next block and moves `position` and `overlay` past it.
pub fn validate<V: StateView>(
    rules: &Rules,
    position: &mut Position,
    overlay: &mut Overlay<'_, V>,
    block: Prepared,
) -> Result<Changes, V::Error> {
    let height = position.next_height();
    let mut started = position.started;
    let starts = |marker| started.is_none() && rules.genesis.is_cited_by(marker);
    let starts = block.marker.as_ref().is_some_and(starts);
    if starts {
        started = Some(height);
    }
    let changes = empty(rules, position, &block);
    let writes = block.transactions.iter().map(PreparedTx::writes).sum();
    let (judged, delta) = deltas::beside(writes, |deltas| {
        if starts {
            deltas(config_entry(height, rules.checker.channel.config_digest));
        }
        let judging = Judging {
            rules,
            height,
            overlay: &mut *overlay,
            deltas,
            changes,
        };
        judging.block(started.is_some(), block.transactions)
    });
    let mut changes = judged?;
    position.lattice.merge(&delta);
    let leaves: Vec<Digest> = changes.leaves.iter().map(Leaf::digest).collect();
    changes.header.root = merkle::root(&leaves);
    changes.header.state_digest = position.lattice.digest();
    changes.hash = changes.header.hash();
    position.started = started;
    position.tip = Some(Tip {
        height,
        header: changes.hash,
    });
    overlay.put_header(height, changes.hash);
    Ok(changes)
}

/// The config in force is part of the state digest from its marker on.
pub(crate) fn config_entry(marker_height: u64, config_digest: Digest) -> Delta {
    let version = Version {
        epoch: 0,
        height: marker_height,
        index: 0,
    };
    Delta {
        add: true,
        kind: Kind::Config,
        key: Vec::new(),
        entry: Entry {
            version,
            hash: config_digest,
        },
    }
}

fn empty(rules: &Rules, position: &Position, block: &Prepared) -> Changes {
    let channel = &rules.checker.channel;
    Changes {
        header: Header {
            channel: channel.id,
            epoch: 0,
            partition: rules.partition,
            height: position.next_height(),
            previous: position.tip.map_or(channel.id, |tip| tip.header),
            record_hash: block.record_hash,
            root: Hash::default(),
            state_digest: Hash::default(),
            rules_version: channel.config.rules_version,
        },
        hash: Hash::default(),
        leaves: Vec::with_capacity(block.transactions.len()),
        state: Vec::new(),
        policies: Vec::new(),
        history: Vec::new(),
    }
}

/// Whether a bound reaches a block at `height` and is not too far `ahead` of it.
pub fn in_time(height: u64, bound: u64, ahead: u64) -> bool {
    (height..=height.saturating_add(ahead)).contains(&bound)
}

/// What a block at `height` makes of a transaction by heights alone: its bound, and the snapshot it was computed on.
pub fn judge_heights(config: &Config, height: u64, bound: u64, snapshot: u64) -> Option<Code> {
    if !in_time(height, bound, config.heights_in_time_max) {
        return Some(Code::HeightBound);
    }
    if snapshot >= height || height - snapshot > config.snapshot_age_max {
        return Some(Code::SnapshotAge);
    }
    None
}

struct Judging<'a, 'v, V> {
    rules: &'a Rules,
    height: u64,
    overlay: &'a mut Overlay<'v, V>,
    /// Where changes of the state digest go.
    deltas: &'a mut dyn FnMut(Delta),
    changes: Changes,
}

impl<V: StateView> Judging<'_, '_, V> {
    fn block(mut self, started: bool, transactions: Vec<PreparedTx>) -> Result<Changes, V::Error> {
        for (index, tx) in (0u32..).zip(transactions) {
            let code = match started {
                true => self.judge(&tx)?,
                false => Code::NotStarted,
            };
            self.changes.leaves.push(Leaf {
                tx_id: tx.tx_id,
                hash: tx.hash,
                code,
            });
            if let (Code::Valid, Ok(sound)) = (code, tx.body) {
                self.accept(tx.tx_id, index, sound)?;
            }
        }
        Ok(self.changes)
    }

    /// The first check that fails gives the code.
    fn judge(&self, tx: &PreparedTx) -> Result<Code, V::Error> {
        let Sound { transaction, checked } = match &tx.body {
            Ok(sound) => sound,
            Err(rejection) => return Ok(rejection.code),
        };
        if let Some(code) = self.judge_place(transaction)? {
            return Ok(code);
        }
        if self.overlay.is_valid(&tx.tx_id)? {
            return Ok(Code::Duplicate);
        }
        let endorsers = match &checked.endorsers {
            Ok(endorsers) => endorsers,
            Err(rejection) => return Ok(rejection.code),
        };
        if let Err(rejection) = self.rules.checker.check_policy(transaction, endorsers) {
            return Ok(rejection.code);
        }
        // A key's own policy holds for its value and for the policy itself.
        let written = transaction.result.writes.iter().map(|write| &write.key);
        for key in written.chain(transaction.result.policies.iter().map(|policy| &policy.key)) {
            let Some((_, text)) = self.overlay.policy(key)? else {
                continue;
            };
            if !Policy::parse(&text).is_ok_and(|policy| policy.evaluate(endorsers)) {
                return Ok(Code::PolicyNotSatisfied);
            }
        }
        self.judge_reads(transaction)
    }

    /// Height bound and endorsement snapshot.
    fn judge_place(&self, tx: &Transaction) -> Result<Option<Code>, V::Error> {
        let (bound, snapshot) = (tx.proposal.height_bound, tx.result.snapshot_height);
        let config = &self.rules.checker.channel.config;
        if let Some(code) = judge_heights(config, self.height, bound, snapshot) {
            return Ok(Some(code));
        }
        if self.overlay.header(snapshot)? != Some(tx.snapshot_header) {
            return Ok(Some(Code::SnapshotUnknown));
        }
        Ok(None)
    }

    /// Reads unchanged, ranges free of phantoms; both see the earlier VALID transactions.
    fn judge_reads(&self, tx: &Transaction) -> Result<Code, V::Error> {
        for read in &tx.result.reads {
            let now = self.overlay.entry(&read.key)?.map(|entry| entry.version);
            if now != read.version.as_ref().map(Version::from) {
                return Ok(Code::MvccConflict);
            }
        }
        for range in &tx.result.ranges {
            let mut then = range.entries.iter();
            let mut same = true;
            // Ends at the first difference, so at the row after the last entry at the latest.
            self.overlay
                .walk(&range.start, &range.end, range.entries.len() + 1, |key, version| {
                    let read = then.next().filter(|read| read.key == key);
                    same = read.is_some_and(|read| read.version.as_ref().map(Version::from) == Some(version));
                    same
                })?;
            if !same || then.next().is_some() {
                return Ok(Code::PhantomRead);
            }
        }
        Ok(Code::Valid)
    }

    /// Takes a VALID transaction's writes over.
    fn accept(&mut self, tx_id: Digest, index: u32, sound: Sound) -> Result<(), V::Error> {
        let Sound { transaction, checked } = sound;
        let version = Version {
            epoch: 0,
            height: self.height,
            index,
        };
        self.overlay.put_valid(tx_id);
        let actor = Actor::of(&checked.creator, transaction.proposal.on_behalf_of.as_ref());
        for Write { key, delete, value } in transaction.result.writes {
            let change = rpc::Change {
                tx_id: tx_id.to_vec(),
                client_time_ms: transaction.proposal.client_time_ms,
                organisation: actor.organisation.clone(),
                common_name: actor.common_name.clone(),
                role: actor.role.clone(),
                function: transaction.proposal.function.clone(),
                asserted: actor.asserted,
                delete,
                value: value.clone(),
                ..rpc::Change::default()
            };
            let entry = (!delete).then(|| Entry::new(version, &value));
            let before = self.overlay.put(&key, entry)?;
            self.replace(Kind::State, &key, before, entry);
            self.changes.history.push(HistoryEntry {
                key: key.clone(),
                index,
                change,
            });
            // A delete of what was not there would only lie in the way of ranges.
            if before.is_some() || entry.is_some() {
                self.changes.state.push((key, entry.map(|entry| (entry, value))));
            }
        }
        for policy in transaction.result.policies {
            let row =
                (!policy.policy.is_empty()).then(|| (Entry::new(version, policy.policy.as_bytes()), policy.policy));
            let before = self.overlay.put_policy(&policy.key, row.clone())?;
            self.replace(
                Kind::KeyPolicy,
                &policy.key,
                before,
                row.as_ref().map(|(entry, _)| *entry),
            );
            if before.is_some() || row.is_some() {
                self.changes.policies.push((policy.key, row));
            }
        }
        Ok(())
    }

    fn replace(&mut self, kind: Kind, key: &[u8], before: Option<Entry>, after: Option<Entry>) {
        let delta = |add, entry| Delta {
            add,
            kind,
            key: key.to_vec(),
            entry,
        };
        before.into_iter().for_each(|entry| (self.deltas)(delta(false, entry)));
        after.into_iter().for_each(|entry| (self.deltas)(delta(true, entry)));
    }
}
