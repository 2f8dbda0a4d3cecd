//! Derived state on disk: the only place that says `rocksdb::`.
//!
//! One database per partition; one environment, block cache and write-buffer manager over all of a
//! process. The write-ahead log is off and flushes are atomic over all column families, so that
//! after any crash a database is what it was after some block: the reader goes on from there.
//!
//! | column family | key | row |
//! |---|---|---|
//! | `default` | a word | format, whose directory this is, position, lattice |
//! | `state` | state key | version ‖ H(value) ‖ value |
//! | `policies` | state key | version ‖ H(policy) ‖ policy |
//! | `history` | length of key ‖ key ‖ version | who changed it to what, when |
//! | `tx` | tx_id ‖ 0, tx_id ‖ 1 ‖ place | where it is VALID; every other judgement |
//! | `blocks` | height | header and leaves |

mod control;
mod gaps;
mod options;
mod partition;
mod rows;
mod scrub;
mod snapshot;

pub use control::ControlStore;
pub use gaps::{Gaps, PASSED_MIN, successor};
pub use options::{Store, Tuning};
pub use partition::{Owner, PartitionState, Position};
pub use rows::{BlockRow, Changes, Entry, HistoryEntry, Leaf, Row, Version};
pub use scrub::{Scrubbed, scrub};
pub use snapshot::{Page, Snapshot};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("disk: {doing}: {cause}")]
    Disk { doing: &'static str, cause: String },
    #[error("disk: a row of {0} is malformed")]
    Row(&'static str),
    /// A row changed by itself, or one is lost.
    #[error("disk: the rows do not give the state digest of height {height}")]
    Scrub { height: u64 },
    /// The directory was made for something else: another channel, secret or partition.
    #[error("{directory}: belongs to another {what}")]
    Foreign { directory: String, what: &'static str },
    #[error("{directory}: has format {found}, this build knows {known}; delete it, it is computed again")]
    Format { directory: String, found: u32, known: u32 },
}

/// What was being done when RocksDB refused.
pub(crate) fn disk(doing: &'static str) -> impl Fn(rocksdb::Error) -> StateError {
    move |cause| StateError::Disk {
        doing,
        cause: cause.into_string(),
    }
}

#[cfg(test)]
mod tests;
