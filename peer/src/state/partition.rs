//! One partition's database: what it holds, and the one batch that changes it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use prost::Message;
use protocol::{Digest, code::Code, lattice::Lattice};
use quick_cache::sync::Cache;
use rocksdb::{
    ColumnFamily, DB, FlushOptions, ReadOptions, WriteBatch, WriteOptions,
    perf::{PerfContext, PerfMetric},
};
use service::rpc;

use super::{
    BlockRow, Changes, Entry, Gaps, PASSED_MIN, Snapshot, StateError, Store, Version, disk,
    options::{BLOCKS, FAMILIES, HISTORY, META, POLICIES, STATE, TX},
    rows::{
        Cursor, block_hash, decode_block, decode_place, decode_row, encode_block, encode_row, history_key,
        history_prefix, place, tx_other_key, tx_valid_key,
    },
    successor,
};
use crate::ledger::{Tip, TxStatus};

/// Of the rows below. Another number on disk is refused: delete the directory, it is computed again.
const FORMAT: u32 = 1;

/// Header hashes kept in memory: about twice the window in which endorsements may cite them.
const HEADERS_CACHED: usize = 8192;

/// How far a partition is: what the next block is judged after, besides the rows.
#[derive(Clone, Debug)]
pub struct Position {
    /// `None` before the first block.
    pub tip: Option<Tip>,
    /// The height of the genesis marker, once it was met.
    pub started: Option<u64>,
    pub lattice: Lattice,
}

impl Position {
    pub fn next_height(&self) -> u64 {
        self.tip.map_or(0, |tip| tip.height + 1)
    }

    fn encode(&self, tip: Tip) -> Vec<u8> {
        let mut row = tip.height.to_be_bytes().to_vec();
        row.extend_from_slice(&tip.header);
        row.extend_from_slice(&self.started.map_or(0, |height| height + 1).to_be_bytes());
        row
    }

    pub(super) fn decode(row: &[u8], lattice: &[u8]) -> Option<Self> {
        let mut reader = Cursor(row);
        let tip = Tip {
            height: reader.u64()?,
            header: reader.digest()?,
        };
        let started = reader.u64()?.checked_sub(1);
        Some(Position {
            tip: Some(tip),
            started,
            lattice: Lattice::from_bytes(lattice)?,
        })
    }
}

/// Whose directory it is.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub channel: Digest,
    /// `ChannelSecret::hash`
    pub secret: Digest,
}

pub struct PartitionState {
    pub partition: u32,
    channel: Digest,
    db: DB,
    headers: Cache<u64, Digest>,
    /// Where the newest state has many deleted keys and no others.
    gaps: Mutex<Gaps>,
    unflushed: AtomicUsize,
    flush_bytes: usize,
}

impl PartitionState {
    /// Opens or makes the database. A directory of another channel, secret or partition is refused.
    pub fn open(store: &Store, owner: Owner, partition: u32) -> Result<Arc<Self>, StateError> {
        let directory = store.partition_directory(partition);
        let db = store.open(&directory)?;
        let state = PartitionState {
            partition,
            channel: owner.channel,
            db,
            headers: Cache::new(HEADERS_CACHED),
            gaps: Mutex::default(),
            unflushed: AtomicUsize::new(0),
            flush_bytes: store.tuning.flush_bytes,
        };
        state.check_owner(&directory, owner)?;
        Ok(Arc::new(state))
    }

    /// What its rows take, on disk and in memory.
    pub fn bytes(&self) -> Result<u64, StateError> {
        let mut bytes = 0;
        for name in FAMILIES {
            let family = self.family(name)?;
            for part in ["rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables"] {
                let found = self.db.property_int_value_cf(family, part);
                bytes += found.map_err(disk("ask for its size"))?.unwrap_or_default();
            }
        }
        Ok(bytes)
    }

    fn check_owner(&self, directory: &Path, owner: Owner) -> Result<(), StateError> {
        let rows: [(&'static str, Vec<u8>); 4] = [
            ("format", FORMAT.to_be_bytes().to_vec()),
            ("channel", owner.channel.to_vec()),
            ("secret", owner.secret.to_vec()),
            ("partition", self.partition.to_be_bytes().to_vec()),
        ];
        if self.meta("format")?.is_none() && self.meta("position")?.is_none() {
            let mut batch = WriteBatch::default();
            for (what, row) in &rows {
                batch.put_cf(self.family(META)?, what, row);
            }
            self.write(batch)?;
            return self.flush(true);
        }
        for (what, row) in &rows {
            let found = self.meta(what)?.unwrap_or_default();
            if found == *row {
                continue;
            }
            let directory = directory.display().to_string();
            if *what != "format" {
                return Err(StateError::Foreign { directory, what });
            }
            let found = Cursor(&found).u32().unwrap_or(0);
            return Err(StateError::Format {
                directory,
                found,
                known: FORMAT,
            });
        }
        Ok(())
    }

    pub(super) fn db(&self) -> &DB {
        &self.db
    }

    pub(super) fn family(&self, name: &'static str) -> Result<&ColumnFamily, StateError> {
        self.db.cf_handle(name).ok_or(StateError::Row(name))
    }

    fn meta(&self, word: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.db
            .get_cf(self.family(META)?, word)
            .map_err(disk("read the position"))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StateError> {
        let bytes = batch.size_in_bytes();
        let mut options = WriteOptions::default();
        // Kafka is the log; a second one would only cost.
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(disk("write a batch"))?;
        self.unflushed.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// After the last committed block.
    pub fn position(&self) -> Result<Position, StateError> {
        let Some(row) = self.meta("position")? else {
            return Ok(Position {
                tip: None,
                started: None,
                lattice: Lattice::default(),
            });
        };
        let lattice = self.meta("lattice")?.unwrap_or_default();
        Position::decode(&row, &lattice).ok_or(StateError::Row("position"))
    }

    /// Whole blocks in one batch, with the position after the last of them.
    pub fn commit(&self, blocks: &[Changes], position: &Position) -> Result<(), StateError> {
        let Some(tip) = position.tip else { return Ok(()) };
        let mut batch = WriteBatch::default();
        for block in blocks {
            self.put_block(&mut batch, block)?;
        }
        let meta = self.family(META)?;
        batch.put_cf(meta, "position", position.encode(tip));
        batch.put_cf(meta, "lattice", position.lattice.to_bytes());
        {
            // Held until it is written, so that no range remembers a stretch in between.
            let mut gaps = self.gaps.lock();
            let written = blocks.iter().flat_map(|block| &block.state);
            let appear = written.filter(|(_, row)| row.is_some());
            appear.for_each(|(key, _)| gaps.fill(key));
            self.write(batch)?;
        }
        for block in blocks {
            self.headers.insert(block.header.height, block.hash);
        }
        if self.unflushed.load(Ordering::Relaxed) >= self.flush_bytes {
            self.flush(false)?;
        }
        Ok(())
    }

    fn put_block(&self, batch: &mut WriteBatch, block: &Changes) -> Result<(), StateError> {
        let height = block.header.height;
        let (state, policies) = (self.family(STATE)?, self.family(POLICIES)?);
        for (key, row) in &block.state {
            match row {
                Some((entry, value)) => batch.put_cf(state, key, encode_row(entry, value)),
                None => batch.delete_cf(state, key),
            }
        }
        for (key, row) in &block.policies {
            match row {
                Some((entry, policy)) => batch.put_cf(policies, key, encode_row(entry, policy.as_bytes())),
                None => batch.delete_cf(policies, key),
            }
        }
        let history = self.family(HISTORY)?;
        for entry in &block.history {
            let version = Version {
                epoch: 0,
                height,
                index: entry.index,
            };
            batch.put_cf(history, history_key(&entry.key, version), entry.change.encode_to_vec());
        }
        let tx = self.family(TX)?;
        for (index, leaf) in (0u32..).zip(&block.leaves) {
            if leaf.code == Code::Valid {
                batch.put_cf(tx, tx_valid_key(&leaf.tx_id), place(height, index));
            } else if leaf.tx_id != [0; 32] {
                batch.put_cf(tx, tx_other_key(&leaf.tx_id, height, index), [leaf.code as u8]);
            }
        }
        let row = encode_block(&block.header, &block.hash, &block.leaves);
        batch.put_cf(self.family(BLOCKS)?, height.to_be_bytes(), row);
        Ok(())
    }

    /// Writes what is new in memory to disk, all column families at once.
    pub fn flush(&self, wait: bool) -> Result<(), StateError> {
        if self.unflushed.swap(0, Ordering::Relaxed) == 0 && !wait {
            return Ok(());
        }
        let mut families = Vec::with_capacity(FAMILIES.len());
        for name in FAMILIES {
            families.push(self.family(name)?);
        }
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        self.db.flush_cfs_opt(&families, &options).map_err(disk("flush"))
    }

    pub fn snapshot(self: &Arc<Self>, tip: Tip) -> Arc<Snapshot> {
        Snapshot::new(self, tip.height, tip.header)
    }

    pub fn entry(&self, key: &[u8]) -> Result<Option<Entry>, StateError> {
        let row = self
            .db
            .get_pinned_cf(self.family(STATE)?, key)
            .map_err(disk("read a key"))?;
        row.map(|row| Ok(decode_row(&row, STATE)?.0)).transpose()
    }

    pub fn policy(&self, key: &[u8]) -> Result<Option<(Entry, String)>, StateError> {
        let row = self
            .db
            .get_pinned_cf(self.family(POLICIES)?, key)
            .map_err(disk("read a key's policy"))?;
        let decode = |row: &[u8]| {
            let (entry, text) = decode_row(row, POLICIES)?;
            let text = String::from_utf8(text.to_vec()).map_err(|_| StateError::Row(POLICIES))?;
            Ok((entry, text))
        };
        row.map(|row| decode(&row)).transpose()
    }

    /// The first `limit` keys in [start, end) and when they were written.
    pub fn versions(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Version)>, StateError> {
        let mut gaps = self.gaps.lock();
        let deletes = Deletes(PerfContext::default());
        let mut found = Vec::new();
        // Where to look, where the stretch since the last key began, and what was passed on it.
        let (mut at, mut since, mut passed) = (start.to_vec(), start.to_vec(), 0);
        loop {
            while let Some(to) = gaps.end_of(&at) {
                at = to.to_vec();
                passed += 1;
            }
            if at[..] >= *end || found.len() >= limit {
                break;
            }
            // An iterator passes deleted rows by itself: it must end where known ones begin.
            let known = gaps.next_start(&at).filter(|start| *start < end);
            let bound = known.unwrap_or(end).to_vec();
            let mut options = ReadOptions::default();
            options.set_iterate_upper_bound(bound.clone());
            let mut rows = self.db.raw_iterator_cf_opt(self.family(STATE)?, options);
            let mut before = deletes.passed();
            rows.seek(&at);
            loop {
                passed += deletes.passed() - before;
                let Some((key, row)) = rows.item() else {
                    rows.status().map_err(disk("read a range"))?;
                    at = bound;
                    break;
                };
                if passed >= PASSED_MIN {
                    gaps.add(&since, key);
                }
                found.push((key.to_vec(), decode_row(row, STATE)?.0.version));
                at = successor(key);
                (since, passed) = (at.clone(), 0);
                if found.len() >= limit {
                    break;
                }
                before = deletes.passed();
                rows.next();
            }
        }
        if passed >= PASSED_MIN {
            gaps.add(&since, &at);
        }
        Ok(found)
    }

    pub fn is_valid(&self, tx_id: &Digest) -> Result<bool, StateError> {
        let row = self
            .db
            .get_pinned_cf(self.family(TX)?, tx_valid_key(tx_id))
            .map_err(disk("read a tx_id"))?;
        Ok(row.is_some())
    }

    /// VALID wins; otherwise the newest judgement.
    pub fn status(&self, tx_id: &Digest) -> Result<Option<TxStatus>, StateError> {
        let tx = self.family(TX)?;
        let malformed = || StateError::Row(TX);
        if let Some(row) = self
            .db
            .get_pinned_cf(tx, tx_valid_key(tx_id))
            .map_err(disk("read a tx_id"))?
        {
            return decode_place(self.partition, &row, Code::Valid)
                .map(Some)
                .ok_or_else(malformed);
        }
        let mut rows = self.db.raw_iterator_cf(tx);
        rows.seek_for_prev(tx_other_key(tx_id, u64::MAX, u32::MAX));
        rows.status().map_err(disk("read a tx_id"))?;
        match rows.item() {
            Some((key, row)) if key.starts_with(tx_id) => {
                let code = row
                    .first()
                    .and_then(|&number| Code::from_number(number))
                    .ok_or_else(malformed)?;
                key.get(33..)
                    .and_then(|at| decode_place(self.partition, at, code))
                    .map(Some)
                    .ok_or_else(malformed)
            }
            _ => Ok(None),
        }
    }

    pub fn block(&self, height: u64) -> Result<Option<BlockRow>, StateError> {
        let row = self
            .db
            .get_pinned_cf(self.family(BLOCKS)?, height.to_be_bytes())
            .map_err(disk("read a block"))?;
        let decode = |row: &[u8]| decode_block(&self.channel, self.partition, height, row);
        row.map(|row| decode(&row).ok_or(StateError::Row(BLOCKS))).transpose()
    }

    /// The hash of the header at a height.
    pub fn header(&self, height: u64) -> Result<Option<Digest>, StateError> {
        if let Some(known) = self.headers.get(&height) {
            return Ok(Some(known));
        }
        let row = self
            .db
            .get_pinned_cf(self.family(BLOCKS)?, height.to_be_bytes())
            .map_err(disk("read a header"))?;
        let Some(row) = row else { return Ok(None) };
        let hash = block_hash(&row).ok_or(StateError::Row(BLOCKS))?;
        self.headers.insert(height, hash);
        Ok(Some(hash))
    }

    /// Changes of a key, oldest first, and whether there are more.
    pub fn history(&self, key: &[u8], skip: u32, limit: u32) -> Result<(Vec<rpc::Change>, bool), StateError> {
        let prefix = history_prefix(key);
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(protocol::keys::prefix_end(&prefix));
        let mut rows = self.db.raw_iterator_cf_opt(self.family(HISTORY)?, options);
        rows.seek(&prefix);
        for _ in 0..skip {
            if !rows.valid() {
                break;
            }
            rows.next();
        }
        let mut changes = Vec::new();
        while let Some((key, row)) = rows.item() {
            if changes.len() == limit as usize {
                return Ok((changes, true));
            }
            let malformed = || StateError::Row(HISTORY);
            let version = key
                .get(prefix.len()..)
                .and_then(Version::from_bytes)
                .ok_or_else(malformed)?;
            let change = rpc::Change::decode(row).map_err(|_| malformed())?;
            changes.push(rpc::Change {
                partition: self.partition,
                height: version.height,
                index: version.index,
                ..change
            });
            rows.next();
        }
        rows.status().map_err(disk("read a history"))?;
        Ok((changes, false))
    }
}

/// Counts deleted rows that this thread's iterators pass.
pub(super) struct Deletes(pub PerfContext);

impl Deletes {
    pub fn passed(&self) -> usize {
        self.0.metric(PerfMetric::InternalDeleteSkippedCount) as usize
    }
}
