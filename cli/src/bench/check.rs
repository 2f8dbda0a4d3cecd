//! After a measurement: everything acknowledged is there exactly once, on every peer; nothing that
//! was refused is; every unknown outcome has become known; and all peers have the same headers.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use protocol::{Digest, code::Code};
use serde::Serialize;
use service::{Problem, rpc};

use super::tally::Tally;
use crate::network::{Network, layout::Process, plan::ADMIN};

/// How long the slowest peer may take to reach the heights of the fastest.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(120);
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Blocks per data partition.
pub type Heights = Vec<u64>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub peers: usize,
    pub acknowledged: u64,
    /// Acknowledged, and not VALID on some peer.
    pub lost: u64,
    /// VALID more than once on some peer.
    pub doubled: u64,
    /// Refused or failed, and VALID on some peer.
    pub undone_valid: u64,
    /// Of unknown outcome when the load ended; what the ledger says of them.
    pub unknown_valid: u64,
    pub unknown_absent: u64,
    /// VALID on one peer and not on another.
    pub disagreements: u64,
    /// Whether all peers have the same header at the last common height of every partition.
    pub headers_agree: bool,
}

impl Verdict {
    pub fn ok(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.undone_valid == 0 && self.disagreements == 0 && self.headers_agree
    }
}

/// Where the log ends now, as the furthest peer knows it.
pub async fn heights(network: &Network) -> Result<Heights> {
    let partitions = network.description.partitions as usize;
    let mut heights = vec![0; partitions];
    let asked = futures::future::join_all(living(network).into_iter().map(|peer| network.ask_peer(peer))).await;
    for reply in asked {
        for chain in reply?.chains {
            if let Some(height) = heights.get_mut(chain.partition as usize) {
                *height = (*height).max(chain.blocks);
            }
        }
    }
    Ok(heights)
}

fn living(network: &Network) -> Vec<&Process> {
    network.peers().filter(|peer| network.may_answer(&peer.name)).collect()
}

/// Judges what ended since `from` on every peer that lives.
pub async fn check(network: &Network, from: &Heights, tally: &Tally) -> Result<Verdict> {
    let to = heights(network).await?;
    let peers = living(network);
    let read = peers.iter().map(|peer| valid_on(network, peer, from, &to));
    let ledgers = futures::future::try_join_all(read).await?;
    let Some(first) = ledgers.first() else {
        bail!("no peer lives")
    };
    let mut verdict = Verdict {
        peers: peers.len(),
        acknowledged: tally.acknowledged.len() as u64,
        headers_agree: ledgers.iter().all(|ledger| ledger.last_headers == first.last_headers),
        ..Verdict::default()
    };
    let times = |ledger: &Seen, tx_id: &Digest| ledger.valid.get(tx_id).copied().unwrap_or(0);
    for tx_id in &tally.acknowledged {
        verdict.lost += u64::from(ledgers.iter().any(|ledger| times(ledger, tx_id) == 0));
    }
    for tx_id in &tally.undone {
        verdict.undone_valid += u64::from(ledgers.iter().any(|ledger| times(ledger, tx_id) > 0));
    }
    for tx_id in &tally.unknown {
        let there = ledgers.iter().filter(|ledger| times(ledger, tx_id) > 0).count();
        match there {
            0 => verdict.unknown_absent += 1,
            _ => verdict.unknown_valid += 1,
        }
        verdict.disagreements += u64::from(there != 0 && there != ledgers.len());
    }
    let twice = |ledger: &Seen| ledger.valid.values().filter(|times| **times > 1).count() as u64;
    verdict.doubled = ledgers.iter().map(twice).max().unwrap_or(0);
    Ok(verdict)
}

/// Whether all peers that live have the same header at the end of `from..to`.
pub async fn headers(network: &Network, from: &Heights, to: &Heights) -> Result<bool> {
    let peers = living(network);
    let ledgers = futures::future::try_join_all(peers.iter().map(|peer| valid_on(network, peer, from, to))).await?;
    Ok(ledgers
        .windows(2)
        .all(|pair| pair[0].last_headers == pair[1].last_headers))
}

/// What one peer has in a stretch of its chains.
struct Seen {
    /// How often each tx_id is VALID.
    valid: HashMap<Digest, u32>,
    last_headers: Vec<Vec<u8>>,
}

async fn valid_on(network: &Network, peer: &Process, from: &Heights, to: &Heights) -> Result<Seen> {
    let mut seen = Seen {
        valid: HashMap::new(),
        last_headers: vec![Vec::new(); from.len()],
    };
    blocks(network, peer, from, to, |partition, block| {
        count_valid(&mut seen.valid, &block)?;
        seen.last_headers[partition] = block.header;
        Ok(())
    })
    .await?;
    Ok(seen)
}

/// Every block of `from..to`, partition by partition, once the peer has them; each follows the one before.
pub async fn blocks(
    network: &Network,
    peer: &Process,
    from: &Heights,
    to: &Heights,
    mut take: impl FnMut(usize, rpc::BlockReply) -> Result<()>,
) -> Result<()> {
    reached(network, peer, to).await?;
    let session = network.connect(&peer.organisation, ADMIN, Some(&peer.name))?;
    for (partition, (from, to)) in from.iter().zip(to).enumerate().filter(|(_, (from, to))| from < to) {
        let request = rpc::BlocksRequest {
            partition: partition as u32,
            from_height: *from,
            count: to - from,
        };
        let opened = session.gateway().blocks(request).await;
        let mut blocks = opened.map_err(Problem::from)?.into_inner();
        let mut next = *from;
        while let Some(block) = blocks.message().await.map_err(Problem::from)? {
            if block.height != next {
                bail!(
                    "{}: block {} of partition {partition} came where {next} should",
                    peer.name,
                    block.height
                );
            }
            next += 1;
            take(partition, block)?;
        }
        if next != *to {
            bail!(
                "{}: the blocks of partition {partition} end at {next}, not at {to}",
                peer.name
            );
        }
    }
    session.close();
    Ok(())
}

fn count_valid(valid: &mut HashMap<Digest, u32>, block: &rpc::BlockReply) -> Result<()> {
    for tx in block.transactions.iter().filter(|tx| tx.code == Code::Valid.word()) {
        let tx_id = protocol::hash::digest(&tx.tx_id).context("a tx_id is not of 32 bytes")?;
        *valid.entry(tx_id).or_default() += 1;
    }
    Ok(())
}

/// Waits until the peer has all blocks up to `to`.
pub async fn reached(network: &Network, peer: &Process, to: &Heights) -> Result<()> {
    let deadline = Instant::now() + CATCH_UP_WITHIN;
    loop {
        let reply = network.ask_peer(peer).await?;
        let blocks = |partition: usize| {
            let chain = reply.chains.iter().find(|chain| chain.partition as usize == partition);
            chain.map_or(0, |chain| chain.blocks)
        };
        if let Some(stopped) = reply.chains.iter().find(|chain| !chain.stopped.is_empty()) {
            bail!(
                "{}: partition {} stands still: {}",
                peer.name,
                stopped.partition,
                stopped.stopped
            );
        }
        if to.iter().enumerate().all(|(partition, to)| blocks(partition) >= *to) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("{} did not catch up within {CATCH_UP_WITHIN:?}", peer.name);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
