//! From a raw Kafka value to what stands in it. Never fails: whatever is wrong is an empty block.

use crate::{
    canonical::{self, ascending},
    hash::{Digest, digest, sha256},
    identity::Role,
    ledger::{Block, BlockRecord, ControlRecord, Marker, control_record},
    limits::{BLOCK_BYTES_MAX, BLOCK_TRANSACTIONS_MAX, KAFKA_RECORD_BYTES_MAX},
    signature::Purpose,
    transaction::{Checker, Table},
};

/// A record of a data partition as every peer reads it.
#[derive(Default)]
pub struct Opened {
    pub transactions: Vec<Vec<u8>>,
    pub certificates: Table<'static>,
    pub marker: Option<Marker>,
    /// The orderer that appended it; `None` for a record that is an empty block for its faults.
    pub orderer: Option<Digest>,
    /// Why it is empty, if something is wrong with it. For logs and `block show`.
    pub fault: Option<&'static str>,
}

pub fn open(checker: &Checker, partition: u32, raw: &[u8]) -> Opened {
    match try_open(checker, partition, raw) {
        Ok(opened) => opened,
        Err(fault) => Opened {
            fault: Some(fault),
            ..Opened::default()
        },
    }
}

fn try_open(checker: &Checker, partition: u32, raw: &[u8]) -> Result<Opened, &'static str> {
    if raw.len() > KAFKA_RECORD_BYTES_MAX {
        return Err("the record is too large");
    }
    let record: BlockRecord = canonical::decode(raw).map_err(|_| "the record is no block record")?;
    let signature = record.signature.ok_or("the record has no signature")?;
    let orderer = checker
        .certificates
        .check(&checker.channel, &record.certificate)
        .filter(|certificate| certificate.role == Role::Orderer && signature.certificate == certificate.hash)
        .ok_or("the signer is no orderer of a member")?;
    checker
        .verifier
        .verify(
            &orderer.public_key,
            Purpose::Block,
            &checker.channel.id,
            &record.block,
            &signature,
        )
        .map_err(|_| "the orderer's signature does not cover the block")?;
    let block: Block = canonical::decode(&record.block).map_err(|_| "the block is not canonical")?;
    let hashes = check_form(checker, partition, &block, record.block.len())?;
    Ok(Opened {
        certificates: Table::owned(hashes.into_iter().zip(block.certificates)),
        transactions: block.transactions,
        marker: block.marker,
        orderer: Some(orderer.hash),
        fault: None,
    })
}

/// Gives the hashes of the certificates.
fn check_form(checker: &Checker, partition: u32, block: &Block, bytes: usize) -> Result<Vec<Digest>, &'static str> {
    if block.channel != checker.channel.id || block.epoch != 0 {
        return Err("the block is of another channel or epoch");
    }
    if block.partition != partition {
        return Err("the block is of another partition");
    }
    if bytes > BLOCK_BYTES_MAX || block.transactions.len() > BLOCK_TRANSACTIONS_MAX {
        return Err("the block is too large");
    }
    if block.marker.is_some() && !block.transactions.is_empty() {
        return Err("a block with a marker has no transactions");
    }
    let hashes: Vec<Digest> = block.certificates.iter().map(|der| sha256(der)).collect();
    if !ascending(&hashes, |hash| hash) {
        return Err("the certificates do not ascend by hash");
    }
    Ok(hashes)
}

/// Whether a marker is the one that starts a partition. Later sequences are recognised and are no-ops.
pub fn is_genesis_marker(marker: &Marker) -> bool {
    marker.sequence == 0 && marker.attestations.is_empty() && digest(&marker.control_header).is_some()
}

/// A record of the control chain; `None` is an empty block.
pub fn open_control(raw: &[u8]) -> Option<control_record::Content> {
    canonical::decode::<ControlRecord>(raw).ok()?.content
}
