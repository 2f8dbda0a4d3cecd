//! What `validate` reads, and the same with what earlier transactions wrote on top.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ops::Bound::{Excluded, Included},
};

use protocol::Digest;

use crate::state::{Entry, Gaps, PASSED_MIN, PartitionState, StateError, Version, successor};

/// Rows of the view below that a walk over a range reads at once.
const PAGE_ROWS_MAX: usize = 256;

/// State after the last committed block, and the chain's past.
pub trait StateView {
    type Error;

    fn entry(&self, key: &[u8]) -> Result<Option<Entry>, Self::Error>;
    /// A key's own endorsement policy.
    fn policy(&self, key: &[u8]) -> Result<Option<(Entry, String)>, Self::Error>;
    /// The first `limit` keys in [start, end), ascending.
    fn versions(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Version)>, Self::Error>;
    fn is_valid(&self, tx_id: &Digest) -> Result<bool, Self::Error>;
    /// The hash of the header at a height; `None` above the chain's end.
    fn header(&self, height: u64) -> Result<Option<Digest>, Self::Error>;
}

impl StateView for PartitionState {
    type Error = StateError;

    fn entry(&self, key: &[u8]) -> Result<Option<Entry>, StateError> {
        PartitionState::entry(self, key)
    }

    fn policy(&self, key: &[u8]) -> Result<Option<(Entry, String)>, StateError> {
        PartitionState::policy(self, key)
    }

    fn versions(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Version)>, StateError> {
        PartitionState::versions(self, start, end, limit)
    }

    fn is_valid(&self, tx_id: &Digest) -> Result<bool, StateError> {
        PartitionState::is_valid(self, tx_id)
    }

    fn header(&self, height: u64) -> Result<Option<Digest>, StateError> {
        PartitionState::header(self, height)
    }
}

/// A view with changes on top that are judged but not committed: of earlier transactions of the
/// block, and of earlier blocks that go into the same batch.
pub struct Overlay<'a, V> {
    base: &'a V,
    /// `None`: what the base has there is deleted.
    state: BTreeMap<Vec<u8>, Option<Entry>>,
    /// Where many keys of the base are deleted and there are no others.
    gaps: RefCell<Gaps>,
    policies: HashMap<Vec<u8>, Option<(Entry, String)>>,
    valid: HashSet<Digest>,
    headers: HashMap<u64, Digest>,
}

impl<'a, V: StateView> Overlay<'a, V> {
    pub fn new(base: &'a V) -> Self {
        Overlay {
            base,
            state: BTreeMap::new(),
            gaps: RefCell::default(),
            policies: HashMap::new(),
            valid: HashSet::new(),
            headers: HashMap::new(),
        }
    }

    /// Returns what was there before.
    pub fn put(&mut self, key: &[u8], entry: Option<Entry>) -> Result<Option<Entry>, V::Error> {
        let before = self.entry(key)?;
        if entry.is_some() {
            self.gaps.get_mut().fill(key);
        }
        // A delete of what is not there leaves nothing that ranges would have to pass.
        if entry.is_some() || before.is_some() {
            self.state.insert(key.to_vec(), entry);
        }
        Ok(before)
    }

    /// Returns what was there before.
    pub fn put_policy(&mut self, key: &[u8], row: Option<(Entry, String)>) -> Result<Option<Entry>, V::Error> {
        let before = self.policy(key)?;
        if row.is_some() || before.is_some() {
            self.policies.insert(key.to_vec(), row);
        }
        Ok(before.map(|(entry, _)| entry))
    }

    pub fn put_valid(&mut self, tx_id: Digest) {
        self.valid.insert(tx_id);
    }

    pub fn put_header(&mut self, height: u64, hash: Digest) {
        self.headers.insert(height, hash);
    }

    /// Gives the rows in [start, end) in order to `each` for as long as it says so. `rows` is how many
    /// are expected. Reads no further than it must; see [`Gaps`] for deleted keys.
    pub fn walk(
        &self,
        start: &[u8],
        end: &[u8],
        rows: usize,
        mut each: impl FnMut(&[u8], Version) -> bool,
    ) -> Result<(), V::Error> {
        let mut gaps = self.gaps.borrow_mut();
        let mut below = Below::new(self.base, rows);
        // Where to look, where the stretch since the last key began, and what was passed on it.
        let (mut at, mut since, mut passed) = (start.to_vec(), start.to_vec(), 0);
        loop {
            while let Some(to) = gaps.end_of(&at) {
                at = to.to_vec();
                passed += 1;
            }
            if at[..] >= *end {
                break;
            }
            let under = below.first(&at, end)?;
            let above = self.state.range::<[u8], _>((Included(&at[..]), Excluded(end))).next();
            let (key, version) = match (above, under) {
                (Some((key, entry)), under) if under.is_none_or(|(other, _)| key <= other) => {
                    (key, entry.map(|entry| entry.version))
                }
                (_, Some((key, version))) => (key, Some(*version)),
                (_, None) => {
                    at = end.to_vec();
                    break;
                }
            };
            at = successor(key);
            let Some(version) = version else {
                passed += 1;
                continue;
            };
            if passed >= PASSED_MIN {
                gaps.add(&since, key);
            }
            if !each(key, version) {
                return Ok(());
            }
            (since, passed) = (at.clone(), 0);
        }
        if passed >= PASSED_MIN {
            gaps.add(&since, &at);
        }
        Ok(())
    }
}

/// The base's rows of a range, read in pages.
struct Below<'a, V> {
    base: &'a V,
    page: usize,
    rows: VecDeque<(Vec<u8>, Version)>,
    ended: bool,
}

impl<'a, V: StateView> Below<'a, V> {
    fn new(base: &'a V, page: usize) -> Self {
        Below {
            base,
            page: page.clamp(1, PAGE_ROWS_MAX),
            rows: VecDeque::new(),
            ended: false,
        }
    }

    /// The first row from `at` on; `at` only grows.
    fn first(&mut self, at: &[u8], end: &[u8]) -> Result<Option<&(Vec<u8>, Version)>, V::Error> {
        while self.rows.front().is_some_and(|(key, _)| key[..] < *at) {
            self.rows.pop_front();
        }
        if self.rows.is_empty() && !self.ended {
            self.rows = self.base.versions(at, end, self.page)?.into();
            self.ended = self.rows.len() < self.page;
            // More than expected is asked for where keys are deleted: perhaps a few, perhaps many.
            self.page = (2 * self.page).min(PAGE_ROWS_MAX);
        }
        Ok(self.rows.front())
    }
}

impl<V: StateView> StateView for Overlay<'_, V> {
    type Error = V::Error;

    fn entry(&self, key: &[u8]) -> Result<Option<Entry>, V::Error> {
        match self.state.get(key) {
            Some(entry) => Ok(*entry),
            None => self.base.entry(key),
        }
    }

    fn policy(&self, key: &[u8]) -> Result<Option<(Entry, String)>, V::Error> {
        match self.policies.get(key) {
            Some(row) => Ok(row.clone()),
            None => self.base.policy(key),
        }
    }

    fn versions(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Version)>, V::Error> {
        let mut rows = Vec::new();
        if limit > 0 {
            self.walk(start, end, limit, |key, version| {
                rows.push((key.to_vec(), version));
                rows.len() < limit
            })?;
        }
        Ok(rows)
    }

    fn is_valid(&self, tx_id: &Digest) -> Result<bool, V::Error> {
        Ok(self.valid.contains(tx_id) || self.base.is_valid(tx_id)?)
    }

    fn header(&self, height: u64) -> Result<Option<Digest>, V::Error> {
        match self.headers.get(&height) {
            Some(hash) => Ok(Some(*hash)),
            None => self.base.header(height),
        }
    }
}
