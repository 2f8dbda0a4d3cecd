//! `medledger verify`: reads a channel's log from its genesis, with nothing but the genesis, and says
//! what every peer should have; `--compare` asks the peers.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use indicatif::ProgressBar;
use ledger_log::kafka::{KafkaLog, KafkaSettings};
use peer::VerifiedChain;
use serde::Serialize;

use crate::{
    bench::{check, table::aligned},
    network::{self, Network, brokers, layout::Process, plan::ADMIN, status::partition_name},
    output::{Output, causes},
    progress, unary,
};

#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// Directory of a network on this machine
    #[arg(long, value_name = "DIR", env = "MEDLEDGER_NETWORK", default_value = network::DEFAULT_DIRECTORY, conflicts_with_all = ["genesis", "kafka"])]
    pub network: PathBuf,
    /// The channel's genesis, where there is no such directory
    #[arg(long, value_name = "FILE", requires = "kafka")]
    pub genesis: Option<PathBuf>,
    /// The Kafka that holds the log
    #[arg(long, value_name = "HOST:PORT,…", requires = "genesis", value_parser = brokers::addresses)]
    pub kafka: Option<String>,
    /// A librdkafka property, as security.protocol=ssl; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub property: Vec<String>,
    /// Properties beneath those, one a line
    #[arg(
        long,
        value_name = "LINES",
        hide = true,
        env = "MEDLEDGER_KAFKA_PROPERTIES",
        hide_env_values = true
    )]
    pub known_properties: Option<String>,
    /// More of them, one a line: other users of this machine see what a command was given, passwords too
    #[arg(long, value_name = "FILE", env = "MEDLEDGER_KAFKA_PROPERTIES_FILE")]
    pub properties_file: Option<PathBuf>,
    /// Ask every peer of the network for its headers and compare; one that differs or cannot be asked is a failure
    #[arg(long, conflicts_with_all = ["genesis", "kafka"])]
    pub compare: bool,
    /// Peers that cannot be asked are no failure, as long as one can
    #[arg(long, requires = "compare")]
    pub allow_missing: bool,
}

#[derive(Debug, Serialize)]
pub struct Verified {
    pub channel: String,
    pub chains: Vec<Chain>,
    #[serde(flatten)]
    pub compared: Option<Compared>,
}

/// What the peers have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Names of those whose headers and state digests are the log's.
    pub agree: Vec<String>,
    pub differ: Vec<Told>,
    pub not_compared: Vec<Told>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    pub peer: String,
    pub why: String,
}

impl Compared {
    /// Whether it may be said that the peers have what the log comes to.
    pub fn judge(&self, allow_missing: bool) -> Result<()> {
        let names = |told: &[Told]| told.iter().map(|told| told.peer.clone()).collect::<Vec<_>>().join(", ");
        ensure!(
            self.differ.is_empty(),
            "another ledger than the log's: {}",
            names(&self.differ)
        );
        ensure!(
            allow_missing || self.not_compared.is_empty(),
            "not compared: {}; --allow-missing leaves them out",
            names(&self.not_compared)
        );
        ensure!(!self.agree.is_empty(), "no peer could be compared");
        Ok(())
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.agree.is_empty() {
            text.push_str(&format!("the same on {}\n", self.agree.join(", ")));
        }
        for (what, told) in [("DIFFERS", &self.differ), ("not compared", &self.not_compared)] {
            for Told { peer, why } in told {
                text.push_str(&format!("{what}: {peer}: {why}\n"));
            }
        }
        text
    }
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
            let mut settings = KafkaSettings::new(kafka.split(','));
            args.know(&mut settings)?;
            log(&genesis, &settings).await?
        }
        _ => {
            let network = Network::load(&args.network)?;
            let genesis = std::fs::read(network.layout.genesis())?;
            let mut settings = of(&network);
            args.know(&mut settings)?;
            let mut verified = log(&genesis, &settings).await?;
            if args.compare {
                verified.compared = Some(verified.compare(&network).await);
            }
            verified
        }
    };
    output.show(&verified, || verified.text())?;
    let compared = verified.compared.as_ref();
    compared.map_or(Ok(()), |compared| compared.judge(args.allow_missing))
}

/// The log of a network on this machine.
pub async fn network(network: &Network) -> Result<Verified> {
    let genesis = std::fs::read(network.layout.genesis())?;
    log(&genesis, &of(network)).await
}

/// How the network's description reaches the log.
fn of(network: &Network) -> KafkaSettings {
    let mut settings = KafkaSettings::new(network.description.kafka.split(','));
    settings
        .properties
        .clone_from(&network.description.spec.kafka.properties);
    settings
}

impl VerifyArgs {
    /// What was given is over what the environment says, that over the network's description; a file is over all.
    fn know(&self, settings: &mut KafkaSettings) -> Result<()> {
        let known = self.known_properties.iter().flat_map(|lines| lines.lines());
        let known = known.filter(|line| !line.trim().is_empty());
        for property in known.chain(self.property.iter().map(String::as_str)) {
            // Not repeated: it may hold a password.
            let (name, value) = property.split_once('=').context("--property: must be NAME=VALUE")?;
            settings.properties.insert(name.to_owned(), value.to_owned());
        }
        if self.properties_file.is_some() {
            settings.properties_file.clone_from(&self.properties_file);
        }
        Ok(())
    }
}

async fn log(genesis: &[u8], settings: &KafkaSettings) -> Result<Verified> {
    let channel = protocol::genesis::Channel::from_genesis(genesis)?;
    brokers::reach(&settings.brokers.join(",")).await?;
    let log = KafkaLog::open(settings)?;
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
        compared: None,
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

    /// Asks every peer of the network.
    pub async fn compare(&self, network: &Network) -> Compared {
        let mut compared = Compared::default();
        for peer in network.peers() {
            let told = |why| Told {
                peer: peer.name.clone(),
                why,
            };
            match self.difference(network, peer).await {
                Ok(None) => compared.agree.push(peer.name.clone()),
                Ok(Some(why)) => compared.differ.push(told(why)),
                Err(error) => compared.not_compared.push(told(causes(&error))),
            }
        }
        compared
    }

    /// Where the peer has another ledger; an error says why that cannot be known.
    async fn difference(&self, network: &Network, peer: &Process) -> Result<Option<String>> {
        ensure!(network.may_answer(&peer.name), "it does not run");
        let data = self.chains.iter().filter(|chain| chain.number != protocol::CONTROL);
        let heights = data.map(|chain| chain.blocks).collect();
        check::reached(network, peer, &heights).await?;
        for chain in self.chains.iter().filter(|chain| chain.blocks > 0) {
            let asked = tokio::time::timeout(ANSWER_WITHIN, differs(network, peer, chain)).await;
            let difference = asked.with_context(|| format!("no answer within {ANSWER_WITHIN:?}"))??;
            if difference.is_some() {
                return Ok(difference);
            }
        }
        Ok(None)
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
        let compared = self.compared.as_ref().map(Compared::text).unwrap_or_default();
        format!("channel {}\n{}{compared}", self.channel, aligned(&lines))
    }
}

/// Where the peer has another header or state at this height.
async fn differs(network: &Network, peer: &Process, chain: &Chain) -> Result<Option<String>> {
    let session = network.connect(&peer.organisation, ADMIN, Some(&peer.name))?;
    let height = chain.blocks - 1;
    let block = unary::block(&session, chain.number, height).await?;
    let partition = &chain.partition;
    let Some(block) = block else {
        return Ok(Some(format!("partition {partition} has no block {height}")));
    };
    let (header, digest) = (hex::encode(&block.header), hex::encode(&block.state_digest));
    let same = header == chain.header && digest == chain.state_digest;
    Ok((!same).then(|| {
        let (logs, state) = (&chain.header, &chain.state_digest);
        format!("partition {partition} height {height}: header {header}, not {logs}; state {digest}, not {state}")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(peer: &str) -> Vec<Told> {
        vec![Told {
            peer: peer.to_owned(),
            why: "it does not run".to_owned(),
        }]
    }

    #[test]
    fn a_peer_that_was_not_compared_is_named_and_a_failure_unless_allowed() {
        let mut compared = Compared {
            agree: vec!["peer0".to_owned()],
            ..Compared::default()
        };
        compared.judge(false).expect("all agree");
        compared.not_compared = told("peer1");
        let error = compared.judge(false).expect_err("one is missing").to_string();
        assert!(error.contains("peer1") && error.contains("--allow-missing"), "{error}");
        compared.judge(true).expect("allowed");
        assert!(compared.text().contains("not compared: peer1: it does not run"));
        compared.agree.clear();
        assert!(compared.judge(true).is_err(), "nobody was compared");
        compared.differ = told("peer2");
        let error = compared.judge(true).expect_err("one differs").to_string();
        assert!(error.contains("peer2"), "{error}");
    }

    #[test]
    fn json_has_the_comparison_only_when_there_was_one() {
        let mut verified = Verified {
            channel: String::new(),
            chains: Vec::new(),
            compared: None,
        };
        let json = |verified: &Verified| serde_json::to_value(verified).expect("json");
        assert!(json(&verified).get("agree").is_none());
        verified.compared = Some(Compared {
            not_compared: told("peer1"),
            ..Compared::default()
        });
        assert_eq!(json(&verified)["agree"], serde_json::json!([]));
        assert_eq!(json(&verified)["not_compared"][0]["peer"], "peer1");
    }
}
