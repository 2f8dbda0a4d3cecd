//! Which transactions share a block, and when it is sealed. Pure: the caller brings the time.
//!
//! ```text
//! push(now, entry) ──▶ waiting ═══════════╗ the open block: the longest run from the front that
//!                      e e e e e e e e e  ║ keeps every limit
//!             seal(now) ◀── due() ────────╝
//! ```
//! Promises: nothing is lost, doubled or reordered; no block is over its limits; a block is due as soon as
//! it is full, else when its first transaction has waited for `linger`, but never more than
//! [`BLOCKS_PER_SECOND_MAX`] blocks in any second: under load the linger grows by itself.
//!
//! Times are durations since a moment of the caller's choice. What is pushed is bounded by the caller.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use prost::Message as _;
use protocol::{
    Digest,
    ledger::Block,
    limits::{
        BLOCK_BYTES_MAX, BLOCK_TRANSACTIONS_MAX, BLOCKS_PER_SECOND_MAX, CERTIFICATE_BYTES_MAX, TRANSACTION_BYTES_MAX,
        TRANSACTION_CERTIFICATES_MAX,
    },
};

/// Of the blocks of a second, those that may come at once after a rest.
const BURST: u32 = 10;
const _: () = assert!(BURST < BLOCKS_PER_SECOND_MAX);

/// The smallest useful limit of a block's bytes: any one transaction fits a block of its own.
pub const BYTES_MIN: usize = TRANSACTION_BYTES_MAX + TRANSACTION_CERTIFICATES_MAX * (CERTIFICATE_BYTES_MAX + 8) + 1024;
const _: () = assert!(BYTES_MIN <= BLOCK_BYTES_MAX);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a block stays open for more after its first transaction.
    pub linger: Duration,
    /// 1 to [`BLOCK_TRANSACTIONS_MAX`].
    pub transactions_max: usize,
    /// Of the block as encoded, its certificates included. [`BYTES_MIN`] to [`BLOCK_BYTES_MAX`].
    pub bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            linger: Duration::from_millis(2),
            transactions_max: BLOCK_TRANSACTIONS_MAX,
            bytes_max: BLOCK_BYTES_MAX,
        }
    }
}

/// A certificate that a transaction cites: hash and DER.
pub type Cited = (Digest, Arc<[u8]>);

/// An admitted transaction. `tag` is whatever the caller wants back with the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// ledger.Transaction, at most [`TRANSACTION_BYTES_MAX`].
    pub transaction: Vec<u8>,
    /// Exactly those it cites.
    pub certificates: Vec<Cited>,
    pub tag: T,
}

/// Why a block was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Count,
    Bytes,
    Linger,
    Drain,
}

impl Reason {
    pub const WORDS: &[&str] = &[
        Reason::Count.word(),
        Reason::Bytes.word(),
        Reason::Linger.word(),
        Reason::Drain.word(),
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Reason::Count => "count",
            Reason::Bytes => "bytes",
            Reason::Linger => "linger",
            Reason::Drain => "drain",
        }
    }
}

/// A block to sign, and the tags of its transactions in the block's order.
#[derive(Debug)]
pub struct Sealed<T> {
    pub block: Block,
    pub tags: Vec<T>,
    pub reason: Reason,
}

pub struct Batcher<T> {
    limits: Limits,
    /// Channel, epoch, partition.
    empty: Block,
    waiting: VecDeque<(Duration, Entry<T>)>,
    open: Open,
    pace: Pace,
    draining: bool,
}

/// The run of waiting entries that the next block takes.
struct Open {
    count: usize,
    bytes: usize,
    cited: HashSet<Digest>,
    /// Takes no more, and why.
    full: Option<Reason>,
}

impl<T> Batcher<T> {
    pub fn new(channel: &Digest, partition: u32, limits: Limits) -> Self {
        let empty = Block {
            channel: channel.to_vec(),
            partition,
            ..Block::default()
        };
        let open = Open::new(&empty);
        Batcher {
            limits,
            empty,
            waiting: VecDeque::new(),
            open,
            pace: Pace::default(),
            draining: false,
        }
    }

    pub fn push(&mut self, now: Duration, entry: Entry<T>) {
        self.open.take(&entry, &self.limits);
        self.waiting.push_back((now, entry));
    }

    /// From now on blocks are due without linger.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// When [`Batcher::seal`] will give a block; `None` while nothing waits.
    pub fn due(&self) -> Option<Duration> {
        let (first, _) = self.waiting.front()?;
        let wanted = match self.draining || self.open.full.is_some() {
            true => Duration::ZERO,
            false => *first + self.limits.linger,
        };
        Some(wanted.max(self.pace.earliest()))
    }

    /// The next block, if it is due.
    pub fn seal(&mut self, now: Duration) -> Option<Sealed<T>> {
        self.due().filter(|due| *due <= now)?;
        self.pace.count(now);
        let reason = self
            .open
            .full
            .unwrap_or(if self.draining { Reason::Drain } else { Reason::Linger });
        let entries: Vec<Entry<T>> = self.waiting.drain(..self.open.count).map(|(_, entry)| entry).collect();
        self.reopen();
        let mut certificates = BTreeMap::new();
        let (mut transactions, mut tags) = (Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
        for entry in entries {
            for (hash, der) in entry.certificates {
                certificates.entry(hash).or_insert(der);
            }
            transactions.push(entry.transaction);
            tags.push(entry.tag);
        }
        let certificates = certificates.into_values().map(|der| der.to_vec()).collect();
        Some(Sealed {
            block: Block {
                certificates,
                transactions,
                ..self.empty.clone()
            },
            tags,
            reason,
        })
    }

    /// Since when the first of those waiting waits.
    pub fn oldest(&self) -> Option<Duration> {
        self.waiting.front().map(|(since, _)| *since)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gives up everything that waits, in order.
    pub fn abandon(&mut self) -> impl Iterator<Item = T> {
        self.open = Open::new(&self.empty);
        std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|(_, entry)| entry.tag)
    }

    fn reopen(&mut self) {
        self.open = Open::new(&self.empty);
        for (_, entry) in &self.waiting {
            self.open.take(entry, &self.limits);
            if self.open.full.is_some() {
                break;
            }
        }
    }
}

impl Open {
    fn new(empty: &Block) -> Self {
        Open {
            count: 0,
            bytes: empty.encoded_len(),
            cited: HashSet::new(),
            full: None,
        }
    }

    fn take<T>(&mut self, entry: &Entry<T>, limits: &Limits) {
        if self.full.is_some() {
            return;
        }
        let new = |cited: &&Cited| !self.cited.contains(&cited.0);
        let certificates: usize = entry
            .certificates
            .iter()
            .filter(new)
            .map(|(_, der)| field_bytes(der.len()))
            .sum();
        let bytes = self.bytes + certificates + field_bytes(entry.transaction.len());
        // The first always goes in: whoever admitted it has checked that it fits.
        if bytes > limits.bytes_max && self.count > 0 {
            self.full = Some(Reason::Bytes);
            return;
        }
        self.bytes = bytes;
        self.count += 1;
        self.cited.extend(entry.certificates.iter().map(|(hash, _)| *hash));
        if self.count >= limits.transactions_max {
            self.full = Some(Reason::Count);
        }
    }
}

/// A `bytes` field of a message: tag, length, content.
fn field_bytes(len: usize) -> usize {
    1 + prost::length_delimiter_len(len) + len
}

/// At most [`BURST`] blocks at once, and in any second [`BLOCKS_PER_SECOND_MAX`] (a leaky bucket).
#[derive(Default)]
struct Pace {
    /// When the bucket will have leaked empty.
    empty_at: Duration,
}

impl Pace {
    fn interval() -> Duration {
        Duration::from_secs(1) / (BLOCKS_PER_SECOND_MAX - BURST)
    }

    fn earliest(&self) -> Duration {
        self.empty_at.saturating_sub(Self::interval() * (BURST - 1))
    }

    fn count(&mut self, now: Duration) {
        self.empty_at = self.empty_at.max(now) + Self::interval();
    }
}

#[cfg(test)]
mod tests;
