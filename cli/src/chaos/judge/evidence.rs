//! What the judge has before it: the history, every peer's chains, and what the peers say when they are asked.

use std::time::Duration;

use anyhow::{Context as _, Result};
use protocol::{Digest, code::Code};
use service::rpc::Finality;

use crate::{
    bench::check::{self, Heights},
    chaos::history::{Entry, Outcome, Place, TxId, What},
    client::Client,
    network::{Network, layout::Process},
};

pub struct Evidence {
    pub history: Vec<Entry>,
    /// One for each peer of the network.
    pub ledgers: Vec<Ledger>,
    /// Asked after the chains were read.
    pub answers: Vec<Answer>,
}

/// A stretch of one peer's chains, by partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub peer: String,
    pub from: Heights,
    pub chains: Vec<Vec<Block>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub header: Digest,
    /// As they stand in the block, and whether each is VALID.
    pub transactions: Vec<(TxId, bool)>,
}

/// A peer's word on a transaction of unknown outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub peer: String,
    pub op: u64,
    pub valid: Option<Place>,
}

impl Ledger {
    /// Every transaction, where it stands, and whether it is VALID there.
    pub fn transactions(&self) -> impl Iterator<Item = (Place, TxId, bool)> {
        let chains = (0u32..).zip(self.from.iter().zip(&self.chains));
        chains.flat_map(|(partition, (from, blocks))| {
            (*from..).zip(blocks).flat_map(move |(height, block)| {
                (0u32..).zip(&block.transactions).map(move |(index, (tx_id, valid))| {
                    let place = Place {
                        partition,
                        height,
                        index,
                    };
                    (place, *tx_id, *valid)
                })
            })
        })
    }

    pub fn end(&self, partition: u32) -> u64 {
        let at = partition as usize;
        let (from, blocks) = (self.from.get(at).copied(), self.chains.get(at).map_or(0, Vec::len));
        from.unwrap_or(0) + blocks as u64
    }
}

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Questions under way at one peer.
const ASKED_AT_ONCE: usize = 64;

/// Reads everything up to where the furthest peer is now, or where an acknowledgement says something is.
pub async fn gather(network: &Network, history: Vec<Entry>) -> Result<Evidence> {
    let Some(What::Began { heights: from, .. }) = history.first().map(|entry| &entry.what) else {
        anyhow::bail!("a history begins with its heights");
    };
    let from = from.clone();
    let mut to = check::heights(network).await?;
    for entry in &history {
        if let What::Ended {
            outcome: Outcome::Committed(place) | Outcome::Ordered(place),
            ..
        } = &entry.what
        {
            let end = to
                .get_mut(place.partition as usize)
                .context("a place in no partition")?;
            *end = (*end).max(place.height + 1);
        }
    }
    let peers: Vec<&Process> = network.peers().collect();
    let read = peers.iter().map(|peer| ledger(network, peer, &from, &to));
    let ledgers = futures::future::try_join_all(read).await?;
    let unknown = super::ops::unknown(&history);
    let asked = peers.iter().map(|peer| ask(network, peer, &unknown));
    let answers = futures::future::try_join_all(asked).await?;
    Ok(Evidence {
        history,
        ledgers,
        answers: answers.into_iter().flatten().collect(),
    })
}

async fn ledger(network: &Network, peer: &Process, from: &Heights, to: &Heights) -> Result<Ledger> {
    let mut ledger = Ledger {
        peer: peer.name.clone(),
        from: from.clone(),
        chains: vec![Vec::new(); from.len()],
    };
    check::blocks(network, peer, from, to, |partition, block| {
        let transactions = block.transactions.iter().map(|tx| {
            let tx_id = protocol::hash::digest(&tx.tx_id).context("a tx_id is not of 32 bytes")?;
            Ok((TxId(tx_id), tx.code == Code::Valid.word()))
        });
        ledger.chains[partition].push(Block {
            header: protocol::hash::digest(&block.header).context("a header is not of 32 bytes")?,
            transactions: transactions.collect::<Result<_>>()?,
        });
        Ok(())
    })
    .await?;
    Ok(ledger)
}

async fn ask(network: &Network, peer: &Process, unknown: &[(u64, TxId)]) -> Result<Vec<Answer>> {
    let client = Client::new(network.connect(&peer.organisation, "physician", Some(&peer.name))?)?;
    let mut answers = Vec::new();
    for some in unknown.chunks(ASKED_AT_ONCE) {
        let asked = some.iter().map(async |(op, tx_id)| {
            let status = client.status(&tx_id.0, Finality::Unspecified, ANSWER_WITHIN).await;
            let status = status.with_context(|| format!("{}: the status of {tx_id}", peer.name))?;
            let place = Place {
                partition: status.partition,
                height: status.height,
                index: status.index,
            };
            anyhow::Ok(Answer {
                peer: peer.name.clone(),
                op: *op,
                valid: (status.found && status.code == Code::Valid.word()).then_some(place),
            })
        });
        answers.extend(futures::future::try_join_all(asked).await?);
    }
    client.session.close();
    Ok(answers)
}
