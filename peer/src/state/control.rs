//! The control chain's records as they were read, so that a restart without Kafka serves reads.
//!
//! Raw records, not what was computed from them: they are few, and one rule computes the rest.

use protocol::Digest;
use rocksdb::{DB, IteratorMode, Options, WriteBatch, WriteOptions};

use super::{StateError, Store, disk};

const FORMAT: &[u8] = b"format";
const CHANNEL: &[u8] = b"channel";

pub struct ControlStore {
    db: DB,
}

impl ControlStore {
    pub fn open(store: &Store, channel: &Digest) -> Result<Self, StateError> {
        let directory = store.control_directory();
        let mut options: Options = store.process();
        options.set_write_buffer_size(16 << 20);
        options.set_arena_block_size(256 << 10);
        let db = DB::open(&options, &directory).map_err(disk("open the control chain"))?;
        let control = ControlStore { db };
        match control.db.get(CHANNEL).map_err(disk("read the control chain"))? {
            None => {
                let mut batch = WriteBatch::default();
                batch.put(FORMAT, 1u32.to_be_bytes());
                batch.put(CHANNEL, channel);
                control.write(batch)?;
            }
            Some(found) if found == channel => {}
            Some(_) => {
                return Err(StateError::Foreign {
                    directory: directory.display().to_string(),
                    what: "channel",
                });
            }
        }
        Ok(control)
    }

    /// Appends happen a few times in a channel's life: synced, with a log of their own.
    fn write(&self, batch: WriteBatch) -> Result<(), StateError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db
            .write_opt(batch, &options)
            .map_err(disk("write the control chain"))
    }

    pub fn push(&self, height: u64, raw: &[u8]) -> Result<(), StateError> {
        let mut batch = WriteBatch::default();
        batch.put(record_key(height), raw);
        self.write(batch)
    }

    /// All records in order, given to `each`.
    pub fn records(&self, mut each: impl FnMut(u64, &[u8])) -> Result<(), StateError> {
        for (expected, row) in (0u64..).zip(self.db.iterator(IteratorMode::Start)) {
            let (key, raw) = row.map_err(disk("read the control chain"))?;
            if key.first() != Some(&0) {
                break;
            }
            if *key != record_key(expected) {
                return Err(StateError::Row("control"));
            }
            each(expected, &raw);
        }
        Ok(())
    }
}

/// Sorts before the words.
fn record_key(height: u64) -> [u8; 9] {
    let mut key = [0; 9];
    key[1..].copy_from_slice(&height.to_be_bytes());
    key
}
