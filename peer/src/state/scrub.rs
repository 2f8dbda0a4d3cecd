//! Reads all of a partition's state again and compares it with the state digest.
//!
//! The lattice follows the write stream and never looks back; this finds what changed underneath:
//! a disk that forgets or alters, a row written by something else.

use std::time::{Duration, Instant};

use protocol::{
    Digest,
    lattice::{Kind, Lattice},
    ledger, sha256,
};
use rocksdb::{DB, ReadOptions, SnapshotWithThreadMode};

use super::{
    PartitionState, Position, StateError, Version, disk,
    options::{META, POLICIES, STATE},
    rows::decode_row,
};

/// What a scrub read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    pub height: u64,
    pub rows: u64,
    pub bytes: u64,
}

/// Takes its time: at most `bytes_per_second`. `pause` waits so long, if at all, and says whether to
/// go on. `None` when there is nothing yet or it said no.
pub fn scrub(
    state: &PartitionState,
    config_digest: &Digest,
    bytes_per_second: u64,
    pause: impl Fn(Duration) -> bool,
) -> Result<Option<Scrubbed>, StateError> {
    let view = SnapshotWithThreadMode::new(state.db());
    let meta = state.family(META)?;
    let read = |word| view.get_cf(meta, word).map_err(disk("read the position"));
    let (Some(position), Some(lattice)) = (read("position")?, read("lattice")?) else {
        return Ok(None);
    };
    let position = Position::decode(&position, &lattice).ok_or(StateError::Row("position"))?;
    let Some(tip) = position.tip else { return Ok(None) };
    let mut reading = Reading {
        lattice: Lattice::new(),
        done: Scrubbed {
            height: tip.height,
            ..Scrubbed::default()
        },
        started: Instant::now(),
        bytes_per_second: bytes_per_second.max(1),
        pause,
    };
    if let Some(height) = position.started {
        let version = ledger::Version {
            epoch: 0,
            height,
            index: 0,
        };
        reading.lattice.add(Kind::Config, &[], &version, config_digest);
    }
    for (family, kind) in [(STATE, Kind::State), (POLICIES, Kind::KeyPolicy)] {
        if !reading.read(state, &view, family, kind)? {
            return Ok(None);
        }
    }
    if reading.lattice == position.lattice {
        Ok(Some(reading.done))
    } else {
        Err(StateError::Scrub { height: tip.height })
    }
}

struct Reading<P> {
    lattice: Lattice,
    done: Scrubbed,
    started: Instant,
    bytes_per_second: u64,
    pause: P,
}

impl<P: Fn(Duration) -> bool> Reading<P> {
    /// `false`: ended early.
    fn read(
        &mut self,
        state: &PartitionState,
        view: &SnapshotWithThreadMode<'_, DB>,
        family: &'static str,
        kind: Kind,
    ) -> Result<bool, StateError> {
        let mut options = ReadOptions::default();
        // What is read once should not push out what is read often.
        options.fill_cache(false);
        let mut rows = view.raw_iterator_cf_opt(state.family(family)?, options);
        rows.seek_to_first();
        while let Some((key, row)) = rows.item() {
            let (entry, value) = decode_row(row, family)?;
            if sha256(value) != entry.hash {
                return Err(StateError::Scrub {
                    height: self.done.height,
                });
            }
            self.lattice.add(kind, key, &version(entry.version), &entry.hash);
            self.done.rows += 1;
            self.done.bytes += (key.len() + row.len()) as u64;
            if self.done.rows.is_multiple_of(64) && !self.pace() {
                return Ok(false);
            }
            rows.next();
        }
        rows.status().map_err(disk("scrub"))?;
        Ok(true)
    }

    fn pace(&self) -> bool {
        let due = Duration::from_secs_f64(self.done.bytes as f64 / self.bytes_per_second as f64);
        (self.pause)(due.saturating_sub(self.started.elapsed()))
    }
}

fn version(version: Version) -> ledger::Version {
    version.into()
}
