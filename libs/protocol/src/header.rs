//! The header of a block: computed by every reader, never stored in Kafka.
//!
//! Any bytes at all give a header: a garbage record is an empty block everywhere.

use crate::{
    code::Code,
    hash::{Digest, Hasher},
    merkle,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub channel: Digest,
    pub epoch: u32,
    pub partition: u32,
    /// The Kafka offset.
    pub height: u64,
    /// The header before height 0 is the channel id.
    pub previous: Digest,
    /// SHA-256 of the raw Kafka value.
    pub record_hash: Digest,
    /// Over the block's transactions and their codes.
    pub root: Digest,
    /// After this block.
    pub state_digest: Digest,
    pub rules_version: u32,
}

impl Header {
    pub fn hash(&self) -> Digest {
        Hasher::new("medledger/header/1")
            .fixed(&self.channel)
            .u32(self.epoch)
            .u32(self.partition)
            .u64(self.height)
            .fixed(&self.previous)
            .fixed(&self.record_hash)
            .fixed(&self.root)
            .fixed(&self.state_digest)
            .u32(self.rules_version)
            .finish()
    }
}

/// One transaction's leaf in its block: tx_id ‖ H(transaction bytes) ‖ code.
/// A transaction that does not decode has the tx_id of 32 zeros.
pub fn block_leaf(tx_id: &Digest, transaction_hash: &Digest, code: Code) -> Digest {
    merkle::leaf(&[tx_id, transaction_hash, &[code as u8]])
}
