//! `medledger verify`: reads a channel's log from its genesis, with nothing but the genesis, and says
//! what every peer should have; `--compare` asks the peers.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::ProgressBar;
use ledger_log::kafka::{KafkaLog, KafkaSettings};
use peer::VerifiedChain;
use serde::Serialize;

use crate::{
    bench::{check, table::aligned},
    network::{self, Network, layout::Process, plan::ADMIN, status::partition_name},
    output::Output,
    progress, unary,
};

#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// Directory of a network on this machine
    #[arg(long, value_name = "DIR", default_value = network::DEFAULT_DIRECTORY, conflicts_with_all = ["genesis", "kafka"])]
    pub network: PathBuf,
    /// The channel's genesis, where there is no such directory
    #[arg(long, value_name = "FILE", requires = "kafka")]
    pub genesis: Option<PathBuf>,
    /// The Kafka that holds the log
    #[arg(long, value_name = "HOST:PORT,…", requires = "genesis")]
    pub kafka: Option<String>,
    /// A librdkafka property, as security.protocol=ssl; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub property: Vec<String>,
    /// Ask every peer of the network for its headers and compare
    #[arg(long, conflicts_with_all = ["genesis", "kafka"])]
    pub compare: bool,
}

#[derive(Debug, Serialize)]
pub struct Verified {
    pub channel: String,
    pub chains: Vec<Chain>,
    /// Peers whose headers and state digests are these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agree: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chain {
    pub partition: String,
    pub blocks: u64,
    pub header: String,
    pub state_digest: String,
    pub transactions: u64,
    pub valid: u64,
    #[serde(skip)]
    number: u32,
}

impl From<VerifiedChain> for Chain {
    fn from(chain: VerifiedChain) -> Self {
        Chain {
            partition: partition_name(chain.partition),
            blocks: chain.blocks,
            header: hex::encode(chain.header),
            state_digest: hex::encode(chain.state_digest),
            transactions: chain.transactions,
            valid: chain.valid,
            number: chain.partition,
        }
    }
}

pub async fn run(args: &VerifyArgs, output: Output) -> Result<()> {
    let verified = match (&args.genesis, &args.kafka) {
        (Some(genesis), Some(kafka)) => {
            let genesis = std::fs::read(genesis).with_context(|| genesis.display().to_string())?;
            log(&genesis, kafka, &args.property).await?
        }
        _ => {
            let network = Network::load(&args.network)?;
            let genesis = std::fs::read(network.layout.genesis())?;
            let mut verified = log(&genesis, &network.description.kafka, &args.property).await?;
            if args.compare {
                verified.agree = verified.compare(&network).await?;
            }
            verified
        }
    };
    output.show(&verified, || verified.text())
}

/// The log of a network on this machine.
pub async fn network(network: &Network) -> Result<Verified> {
    let genesis = std::fs::read(network.layout.genesis())?;
    log(&genesis, &network.description.kafka, &[]).await
}

async fn log(genesis: &[u8], kafka: &str, properties: &[String]) -> Result<Verified> {
    let channel = protocol::genesis::Channel::from_genesis(genesis)?;
    let mut settings = KafkaSettings::new(kafka.split(','));
    for property in properties {
        let (name, value) = property.split_once('=').context("--property: must be NAME=VALUE")?;
        settings.properties.insert(name.to_owned(), value.to_owned());
    }
    let log = KafkaLog::open(&settings, &prometheus::Registry::new())?;
    // Derived state, thrown away at the end.
    let state = tempfile::tempdir().context("a directory for the state")?;
    let bar = progress::bar(0, "verifying");
    let chains = peer::verify(Arc::new(log), genesis, state.path(), |at| {
        show(&bar, at.partition, at.blocks, at.end)
    })
    .await;
    bar.finish_and_clear();
    let chains = chains?.into_iter().map(Chain::from).collect();
    Ok(Verified {
        channel: hex::encode(channel.id),
        chains,
        agree: Vec::new(),
    })
}

fn show(bar: &ProgressBar, partition: u32, blocks: u64, end: u64) {
    bar.set_message(format!("partition {}", partition_name(partition)));
    bar.set_length(end);
    bar.set_position(blocks);
}

const ANSWER_WITHIN: Duration = Duration::from_secs(30);

impl Verified {
    pub fn summary(&self) -> String {
        let valid: u64 = self.chains.iter().map(|chain| chain.valid).sum();
        let headers = self
            .chains
            .iter()
            .map(|chain| format!("{} {}…", chain.partition, &chain.header[..12]));
        format!(
            "{valid} valid transactions; headers {}",
            headers.collect::<Vec<_>>().join(", ")
        )
    }

    /// Names of the peers that have these headers and digests; an error names the first that has not.
    pub async fn compare(&self, network: &Network) -> Result<Vec<String>> {
        let heights: Vec<u64> = self
            .chains
            .iter()
            .filter(|chain| chain.number != protocol::CONTROL)
            .map(|chain| chain.blocks)
            .collect();
        let mut agree = Vec::new();
        for peer in network.peers().filter(|peer| network.running(&peer.name).is_some()) {
            check::reached(network, peer, &heights).await?;
            for chain in self.chains.iter().filter(|chain| chain.blocks > 0) {
                tokio::time::timeout(ANSWER_WITHIN, same(network, peer, chain))
                    .await
                    .with_context(|| format!("{} did not answer", peer.name))??;
            }
            agree.push(peer.name.clone());
        }
        ensure!(!agree.is_empty(), "no peer lives that could be compared");
        Ok(agree)
    }

    fn text(&self) -> String {
        let mut lines = vec![
            ["partition", "blocks", "transactions", "valid", "header", "state digest"]
                .map(String::from)
                .to_vec(),
        ];
        for chain in &self.chains {
            lines.push(vec![
                chain.partition.clone(),
                chain.blocks.to_string(),
                chain.transactions.to_string(),
                chain.valid.to_string(),
                chain.header.clone(),
                chain.state_digest.clone(),
            ]);
        }
        let mut text = format!("channel {}\n{}", self.channel, aligned(&lines));
        if !self.agree.is_empty() {
            text.push_str(&format!("the same on {}\n", self.agree.join(", ")));
        }
        text
    }
}

/// Whether the peer has this header at this height.
async fn same(network: &Network, peer: &Process, chain: &Chain) -> Result<()> {
    let session = network.connect(&peer.organisation, ADMIN, Some(&peer.name))?;
    let height = chain.blocks - 1;
    let block = unary::block(&session, chain.number, height).await?;
    let block = block.with_context(|| format!("{} has no block {height}", peer.name))?;
    let (header, digest) = (hex::encode(&block.header), hex::encode(&block.state_digest));
    if header != chain.header || digest != chain.state_digest {
        bail!(
            "{} has another ledger: partition {} height {height}: header {header}, not {}; state {digest}, not {}",
            peer.name,
            chain.partition,
            chain.header,
            chain.state_digest
        );
    }
    Ok(())
}
