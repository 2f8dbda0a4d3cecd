//! Stage 1: everything about a block that needs neither state nor order. Runs in parallel.

use protocol::{
    Digest, block,
    ledger::Marker,
    sha256,
    transaction::{self, Checked, Checker, Rejection, Table, Transaction},
};
use rayon::prelude::*;

/// A record as far as it can be judged alone.
#[derive(Debug)]
pub struct Prepared {
    /// SHA-256 of the raw Kafka value.
    pub record_hash: Digest,
    pub marker: Option<Marker>,
    pub transactions: Vec<PreparedTx>,
    /// Why it is an empty block, if something is wrong with it.
    pub fault: Option<&'static str>,
}

#[derive(Debug)]
pub struct PreparedTx {
    /// 32 zeros when it does not decode.
    pub tx_id: Digest,
    /// H(transaction bytes)
    pub hash: Digest,
    pub body: Result<Sound, Rejection>,
}

impl PreparedTx {
    /// Keys that it changes if it becomes VALID.
    pub fn writes(&self) -> usize {
        let result = self.body.as_ref().map(|sound| &sound.transaction.result);
        result.map_or(0, |result| result.writes.len() + result.policies.len())
    }
}

/// A transaction that passed every check without state, but maybe those of its endorsers.
#[derive(Debug)]
pub struct Sound {
    pub transaction: Transaction,
    pub checked: Checked,
}

/// Below so many transactions splitting the work costs more than it gains.
const PARALLEL_MIN: usize = 4;

pub fn prepare(checker: &Checker, partition: u32, raw: &[u8]) -> Prepared {
    let opened = block::open(checker, partition, raw);
    let prepare = |bytes: Vec<u8>| prepare_tx(checker, &opened.certificates, partition, &bytes);
    let transactions = if opened.transactions.len() < PARALLEL_MIN {
        opened.transactions.into_iter().map(prepare).collect()
    } else {
        opened.transactions.into_par_iter().map(prepare).collect()
    };
    Prepared {
        record_hash: sha256(raw),
        marker: opened.marker,
        transactions,
        fault: opened.fault,
    }
}

fn prepare_tx(checker: &Checker, table: &Table<'_>, partition: u32, bytes: &[u8]) -> PreparedTx {
    let mut transaction = match transaction::decode(bytes) {
        Ok(transaction) => transaction,
        Err(rejection) => {
            return PreparedTx {
                tx_id: [0; 32],
                hash: sha256(bytes),
                body: Err(rejection),
            };
        }
    };
    let (tx_id, hash) = (transaction.tx_id, transaction.hash);
    let body = checker.check(&transaction, table, Some(partition));
    // Verified; nobody needs them from here on, and many blocks may be waiting.
    transaction.proposal_bytes = Vec::new();
    transaction.result_bytes = Vec::new();
    PreparedTx {
        tx_id,
        hash,
        body: body.map(|checked| Sound { transaction, checked }),
    }
}
