//! How rows and keys are laid out. All integers are big-endian, so that keys sort by them.

use protocol::{
    Digest,
    code::Code,
    hash::sha256,
    header::{self, Header},
    ledger,
};
use service::rpc;

use super::StateError;
use crate::ledger::{BlockInfo, TxStatus};

/// When a key was written: epoch, height and index of its transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub epoch: u32,
    pub height: u64,
    pub index: u32,
}

impl Version {
    pub const BYTES: usize = 16;

    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.height.to_be_bytes());
        bytes[12..].copy_from_slice(&self.index.to_be_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Cursor(bytes);
        let version = Version {
            epoch: reader.u32()?,
            height: reader.u64()?,
            index: reader.u32()?,
        };
        reader.0.is_empty().then_some(version)
    }
}

impl From<&ledger::Version> for Version {
    fn from(version: &ledger::Version) -> Self {
        Version {
            epoch: version.epoch,
            height: version.height,
            index: version.index,
        }
    }
}

impl From<Version> for ledger::Version {
    fn from(version: Version) -> Self {
        ledger::Version {
            epoch: version.epoch,
            height: version.height,
            index: version.index,
        }
    }
}

/// A key's value as contracts see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub version: Version,
    pub value: Vec<u8>,
}

/// What the state digest holds of a key: enough to take it out again without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub version: Version,
    pub hash: Digest,
}

impl Entry {
    pub fn new(version: Version, value: &[u8]) -> Self {
        Entry {
            version,
            hash: sha256(value),
        }
    }
}

const ENTRY_BYTES: usize = Version::BYTES + 32;

pub(super) fn encode_row(entry: &Entry, value: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(ENTRY_BYTES + value.len());
    row.extend_from_slice(&entry.version.to_bytes());
    row.extend_from_slice(&entry.hash);
    row.extend_from_slice(value);
    row
}

pub(super) fn decode_row<'a>(row: &'a [u8], family: &'static str) -> Result<(Entry, &'a [u8]), StateError> {
    let mut reader = Cursor(row);
    let mut read = || {
        let version = Version::from_bytes(reader.take(Version::BYTES)?)?;
        Some(Entry {
            version,
            hash: reader.digest()?,
        })
    };
    let entry = read().ok_or(StateError::Row(family))?;
    Ok((entry, reader.0))
}

/// One transaction of a block: its leaf in the block's Merkle tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// 32 zeros when the transaction does not decode.
    pub tx_id: Digest,
    /// H(transaction bytes)
    pub hash: Digest,
    pub code: Code,
}

impl Leaf {
    pub fn digest(&self) -> Digest {
        header::block_leaf(&self.tx_id, &self.hash, self.code)
    }
}

/// One change of a key for its history. Stored as the message that answers for it, without what
/// the key says already (height, index, partition).
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    pub key: Vec<u8>,
    pub index: u32,
    pub change: rpc::Change,
}

/// A key and what it holds from now on.
pub type Change<T> = (Vec<u8>, Option<(Entry, T)>);

/// Everything that one block changes: what `validate` decided and a `WriteBatch` will hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    pub header: Header,
    /// `header.hash()`
    pub hash: Digest,
    pub leaves: Vec<Leaf>,
    /// In the order of the transactions; a later one to the same key wins. `None` deletes.
    pub state: Vec<Change<Vec<u8>>>,
    pub policies: Vec<Change<String>>,
    pub history: Vec<HistoryEntry>,
}

/// A block as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRow {
    pub header: Header,
    pub hash: Digest,
    pub leaves: Vec<Leaf>,
}

impl BlockRow {
    pub fn info(self) -> BlockInfo {
        let transactions = self.leaves.iter().map(|leaf| (leaf.tx_id, leaf.code)).collect();
        BlockInfo {
            header: self.header,
            hash: self.hash,
            transactions,
        }
    }
}

const LEAF_BYTES: usize = 65;

/// Header without what the place says (channel, epoch, partition, height), its hash, the leaves.
pub(super) fn encode_block(header: &Header, hash: &Digest, leaves: &[Leaf]) -> Vec<u8> {
    let mut row = Vec::with_capacity(164 + leaves.len() * LEAF_BYTES);
    row.extend_from_slice(hash);
    for digest in [
        &header.previous,
        &header.record_hash,
        &header.root,
        &header.state_digest,
    ] {
        row.extend_from_slice(digest);
    }
    row.extend_from_slice(&header.rules_version.to_be_bytes());
    for leaf in leaves {
        row.extend_from_slice(&leaf.tx_id);
        row.extend_from_slice(&leaf.hash);
        row.push(leaf.code as u8);
    }
    row
}

pub(super) fn decode_block(channel: &Digest, partition: u32, height: u64, row: &[u8]) -> Option<BlockRow> {
    let mut reader = Cursor(row);
    let hash = reader.digest()?;
    let header = Header {
        channel: *channel,
        epoch: 0,
        partition,
        height,
        previous: reader.digest()?,
        record_hash: reader.digest()?,
        root: reader.digest()?,
        state_digest: reader.digest()?,
        rules_version: reader.u32()?,
    };
    let mut leaves = Vec::with_capacity(reader.0.len() / LEAF_BYTES);
    while !reader.0.is_empty() {
        let (tx_id, hash) = (reader.digest()?, reader.digest()?);
        leaves.push(Leaf {
            tx_id,
            hash,
            code: Code::from_number(reader.take(1)?[0])?,
        });
    }
    Some(BlockRow { header, hash, leaves })
}

/// Only the header's hash of a block's row.
pub(super) fn block_hash(row: &[u8]) -> Option<Digest> {
    Cursor(row).digest()
}

/// Length ‖ key ‖ version: a scan of one key's changes never meets another key's.
pub(super) fn history_prefix(key: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(2 + key.len() + Version::BYTES);
    // Keys are at most KEY_BYTES_MAX long.
    prefix.extend_from_slice(&(key.len() as u16).to_be_bytes());
    prefix.extend_from_slice(key);
    prefix
}

pub(super) fn history_key(key: &[u8], version: Version) -> Vec<u8> {
    let mut row = history_prefix(key);
    row.extend_from_slice(&version.to_bytes());
    row
}

/// Where a tx_id is VALID.
pub(super) fn tx_valid_key(tx_id: &Digest) -> [u8; 33] {
    let mut key = [0; 33];
    key[..32].copy_from_slice(tx_id);
    key
}

/// Another judgement of a tx_id.
pub(super) fn tx_other_key(tx_id: &Digest, height: u64, index: u32) -> [u8; 45] {
    let mut key = [0; 45];
    key[..32].copy_from_slice(tx_id);
    key[32] = 1;
    key[33..].copy_from_slice(&place(height, index));
    key
}

pub(super) fn place(height: u64, index: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&height.to_be_bytes());
    bytes[8..].copy_from_slice(&index.to_be_bytes());
    bytes
}

pub(super) fn decode_place(partition: u32, bytes: &[u8], code: Code) -> Option<TxStatus> {
    let mut reader = Cursor(bytes);
    Some(TxStatus {
        partition,
        height: reader.u64()?,
        index: reader.u32()?,
        code,
    })
}

pub(super) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn digest(&mut self) -> Option<Digest> {
        self.take(32)?.try_into().ok()
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_as_their_bytes() {
        let version = |epoch, height, index| Version { epoch, height, index };
        let ascending = [
            version(0, 0, 0),
            version(0, 0, 256),
            version(0, 1, 0),
            version(0, 256, 1),
            version(1, 0, 0),
        ];
        assert!(ascending.is_sorted());
        assert!(ascending.map(Version::to_bytes).is_sorted());
        for version in ascending {
            assert_eq!(Version::from_bytes(&version.to_bytes()), Some(version));
        }
        assert_eq!(Version::from_bytes(&[0; 15]), None);
    }

    #[test]
    fn rows_lead_back() {
        let entry = Entry::new(
            Version {
                epoch: 0,
                height: 7,
                index: 3,
            },
            b"value",
        );
        let row = encode_row(&entry, b"value");
        assert_eq!(decode_row(&row, "state"), Ok((entry, &b"value"[..])));
        assert_eq!(decode_row(&row[..40], "state"), Err(StateError::Row("state")));
    }

    #[test]
    fn blocks_lead_back() {
        let header = Header {
            channel: [1; 32],
            epoch: 0,
            partition: 3,
            height: 9,
            previous: [2; 32],
            record_hash: [3; 32],
            root: [4; 32],
            state_digest: [5; 32],
            rules_version: 1,
        };
        let leaves: Vec<Leaf> = Code::ALL
            .iter()
            .map(|&code| Leaf {
                tx_id: [code as u8; 32],
                hash: [6; 32],
                code,
            })
            .collect();
        let row = encode_block(&header, &header.hash(), &leaves);
        let block = decode_block(&[1; 32], 3, 9, &row).expect("own bytes");
        assert_eq!(
            block,
            BlockRow {
                hash: header.hash(),
                header,
                leaves
            }
        );
        assert_eq!(block_hash(&row), Some(block.hash));
        assert_eq!(decode_block(&[1; 32], 3, 9, &row[..row.len() - 1]), None);
    }

    #[test]
    fn histories_of_keys_do_not_meet() {
        let newest = Version {
            epoch: u32::MAX,
            height: u64::MAX,
            index: u32::MAX,
        };
        let other = history_key(&[b"a".as_slice(), &newest.to_bytes()].concat(), Version::default());
        assert!(!other.starts_with(&history_prefix(b"a")));
    }
}
