//! What `validate` reads, and the same with what earlier transactions wrote on top.

use std::collections::{BTreeMap, HashMap, HashSet};

use protocol::Digest;

use crate::state::{Entry, PartitionState, StateError, Version};

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
    state: BTreeMap<Vec<u8>, Option<Entry>>,
    policies: HashMap<Vec<u8>, Option<(Entry, String)>>,
    valid: HashSet<Digest>,
    headers: HashMap<u64, Digest>,
}

impl<'a, V: StateView> Overlay<'a, V> {
    pub fn new(base: &'a V) -> Self {
        Overlay {
            base,
            state: BTreeMap::new(),
            policies: HashMap::new(),
            valid: HashSet::new(),
            headers: HashMap::new(),
        }
    }

    /// Returns what was there before.
    pub fn put(&mut self, key: &[u8], entry: Option<Entry>) -> Result<Option<Entry>, V::Error> {
        let before = self.entry(key)?;
        self.state.insert(key.to_vec(), entry);
        Ok(before)
    }

    /// Returns what was there before.
    pub fn put_policy(&mut self, key: &[u8], row: Option<(Entry, String)>) -> Result<Option<Entry>, V::Error> {
        let before = self.policy(key)?;
        self.policies.insert(key.to_vec(), row);
        Ok(before.map(|(entry, _)| entry))
    }

    pub fn put_valid(&mut self, tx_id: Digest) {
        self.valid.insert(tx_id);
    }

    pub fn put_header(&mut self, height: u64, hash: Digest) {
        self.headers.insert(height, hash);
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
        if start >= end {
            return Ok(Vec::new());
        }
        let above: Vec<_> = self
            .state
            .range::<[u8], _>((bound(start), std::ops::Bound::Excluded(end)))
            .collect();
        // Every change on top may hide one row below.
        let mut rows = self.base.versions(start, end, limit + above.len())?;
        if !above.is_empty() {
            let mut merged: BTreeMap<Vec<u8>, Version> = rows.into_iter().collect();
            for (key, entry) in above {
                match entry {
                    Some(entry) => drop(merged.insert(key.clone(), entry.version)),
                    None => drop(merged.remove(key)),
                }
            }
            rows = merged.into_iter().collect();
        }
        rows.truncate(limit);
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

fn bound(start: &[u8]) -> std::ops::Bound<&[u8]> {
    std::ops::Bound::Included(start)
}
