//! `medledger block`: a block as a peer judged it.

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::json;

use crate::{args::At, network::status::partition_name, output::Output, unary};

#[derive(Debug, Subcommand)]
pub enum BlockCommand {
    /// Header and transactions of a block
    Show {
        /// Number of the partition, or `control`
        #[arg(value_parser = partition)]
        partition: u32,
        /// Height of the block
        height: u64,
        #[command(flatten)]
        at: At,
    },
}

fn partition(text: &str) -> Result<u32, String> {
    match text {
        "control" => Ok(protocol::CONTROL),
        number => number.parse().map_err(|_| "must be a number or `control`".to_owned()),
    }
}

pub async fn run(command: BlockCommand, output: Output) -> Result<()> {
    let BlockCommand::Show { partition, height, at } = command;
    let session = at.connect()?;
    let block = unary::block(&session, partition, height).await?;
    let block = block.with_context(|| format!("{} has no block {height} there", session.peer.name))?;
    let transactions: Vec<_> = block
        .transactions
        .iter()
        .map(|tx| json!({"tx_id": hex::encode(&tx.tx_id), "code": tx.code}))
        .collect();
    let shown = json!({
        "partition": partition_name(partition),
        "height": block.height,
        "header": hex::encode(&block.header),
        "previous": hex::encode(&block.previous),
        "record_hash": hex::encode(&block.record_hash),
        "root": hex::encode(&block.root),
        "state_digest": hex::encode(&block.state_digest),
        "rules_version": block.rules_version,
        "transactions": transactions,
    });
    output.show(&shown, || {
        let mut text = format!(
            "block {height} of partition {}, as {} judged it\n",
            partition_name(partition),
            session.peer.name
        );
        for (name, value) in [
            ("header", &block.header),
            ("previous", &block.previous),
            ("record", &block.record_hash),
            ("root", &block.root),
            ("state", &block.state_digest),
        ] {
            text.push_str(&format!("{name:<9} {}\n", hex::encode(value)));
        }
        text.push_str(&format!("transactions: {}\n", block.transactions.len()));
        for tx in &block.transactions {
            text.push_str(&format!("  {}  {}\n", hex::encode(&tx.tx_id), tx.code));
        }
        text
    })
}
