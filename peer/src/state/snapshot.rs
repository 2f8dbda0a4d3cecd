//! State as it was after one block, for endorsements and queries.

use std::sync::Arc;

use protocol::{
    Digest,
    keys::{key_prefix, prefix_end},
};
use rocksdb::{DB, ReadOptions, SnapshotWithThreadMode};

use super::{PartitionState, Row, StateError, disk, options::STATE, rows::decode_row};

/// Subjects that one page of a list looks at, whether or not they have the suffix.
const SUBJECTS_PER_PAGE_MAX: usize = 4096;

/// A consistent view; holds its database open and old versions of rows from being dropped.
pub struct Snapshot {
    pub height: u64,
    /// The header's hash.
    pub header: Digest,
    // Declared before `state`: fields are dropped in this order, the view before what it looks at.
    view: SnapshotWithThreadMode<'static, DB>,
    state: Arc<PartitionState>,
}

/// Rows in ascending order of their keys; `next` is where the list goes on, if it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<(Vec<u8>, Row)>,
    /// Give it as `after_key`.
    pub next: Option<Vec<u8>>,
}

impl Snapshot {
    pub(crate) fn new(state: &Arc<PartitionState>, height: u64, header: Digest) -> Arc<Self> {
        let view: SnapshotWithThreadMode<'_, DB> = SnapshotWithThreadMode::new(state.db());
        // SAFETY: the view borrows the `DB` inside the `PartitionState` behind `state`. That is on
        // the heap and never moves; `Snapshot` holds an `Arc` of it that is dropped after the view
        // (order of the fields), and no reference with the long lifetime leaves this struct.
        let view =
            unsafe { std::mem::transmute::<SnapshotWithThreadMode<'_, DB>, SnapshotWithThreadMode<'static, DB>>(view) };
        Arc::new(Snapshot {
            height,
            header,
            view,
            state: Arc::clone(state),
        })
    }

    /// By the full state key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Row>, StateError> {
        let row = self
            .view
            .get_pinned_cf(self.state.family(STATE)?, key)
            .map_err(disk("read a key"))?;
        row.map(|row| decode(&row)).transpose()
    }

    /// The first `limit` keys in [start, end).
    pub fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>, StateError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end);
        let mut rows = self.view.raw_iterator_cf_opt(self.state.family(STATE)?, options);
        let mut found = Vec::new();
        rows.seek(start);
        while found.len() < limit {
            let Some((key, row)) = rows.item() else { break };
            found.push((key.to_vec(), decode(row)?));
            rows.next();
        }
        rows.status().map_err(disk("read a range"))?;
        Ok(found)
    }

    /// The key with this suffix of every subject of a contract, after `after_key` (a full key).
    ///
    /// A page may hold fewer than `limit` entries and still go on: it looks at a bounded number of
    /// subjects.
    pub fn list(
        &self,
        contract: &str,
        suffix: &[u8],
        after_key: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, StateError> {
        let all = key_prefix(contract, &[]);
        let subject_bytes = all.len() + 32;
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(all.clone());
        options.set_iterate_upper_bound(prefix_end(&all));
        let mut rows = self.view.raw_iterator_cf_opt(self.state.family(STATE)?, options);
        let mut page = Page::default();
        match after_key {
            // After the subject of that key.
            Some(after) => rows.seek(prefix_end(&after[..after.len().min(subject_bytes)])),
            None => rows.seek(&all),
        }
        for _ in 0..SUBJECTS_PER_PAGE_MAX {
            let Some(subject) = rows.key().and_then(|key| key.get(..subject_bytes)).map(<[u8]>::to_vec) else {
                rows.status().map_err(disk("read a list"))?;
                page.next = None;
                return Ok(page);
            };
            if page.entries.len() >= limit.max(1) {
                return Ok(page);
            }
            let mut wanted = subject.clone();
            wanted.extend_from_slice(suffix);
            if rows.key().is_some_and(|key| key < &wanted[..]) {
                rows.seek(&wanted);
            }
            match rows.item() {
                Some((key, row)) if key == wanted => page.entries.push((wanted, decode(row)?)),
                _ => {}
            }
            if rows.key().is_some_and(|key| key.starts_with(&subject)) {
                rows.seek(prefix_end(&subject));
            }
            page.next = Some(subject);
        }
        Ok(page)
    }
}

fn decode(row: &[u8]) -> Result<Row, StateError> {
    let (entry, value) = decode_row(row, STATE)?;
    Ok(Row {
        version: entry.version,
        value: value.to_vec(),
    })
}
