//! `medledger network`: a whole network's processes, for people.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use nix::sys::signal::Signal;

use super::{
    DEFAULT_DIRECTORY, Network, Say, Spec, brokers,
    check::check,
    found,
    layout::{Kind, Layout},
    scrape::{self, PrometheusArgs},
    silent,
    spec::{ContractSpec, EXPLAINED},
    status::{ProcessStatus, Status},
};
use crate::{bench::table::aligned, output::Output, progress};

#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Start the network of a directory, with the data and keys it has; found one where there is none
    ///
    /// Its processes go on when this command ends. Options that say what the network should be must fit
    /// the one that is there: nothing is ever changed or deleted, unless by --fresh.
    Up(Box<UpArgs>),
    /// Found a network whose processes are started elsewhere, as in Kubernetes: keys, certificates, genesis
    Found {
        #[command(flatten)]
        at: Directory,
        /// What the network should be, with [addresses] of all processes (TOML; `network spec` prints the default)
        #[arg(long, value_name = "FILE")]
        spec: PathBuf,
    },
    /// Stop all processes; everything they stored stays
    Down {
        #[command(flatten)]
        at: Directory,
        /// Delete the directory too: ledger, keys, everything
        #[arg(long)]
        purge: bool,
    },
    /// Processes, heights, headers, attestations
    Status {
        #[command(flatten)]
        at: Directory,
    },
    /// Write a record, wait for its attestation, read it at every peer, delete it
    Check {
        #[command(flatten)]
        at: Directory,
        /// How long a network that is just starting is waited for
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        patience: u64,
    },
    /// Start a process that does not run, or all of them, on the data they have
    Start {
        #[command(flatten)]
        at: Directory,
        /// As `status` shows it; `all` for every one
        name: String,
    },
    /// Send a signal to a process
    Kill {
        #[command(flatten)]
        at: Directory,
        /// As `status` shows it
        name: String,
        /// Number or name; 9 asks nobody
        #[arg(long, default_value = "9", value_parser = signal)]
        signal: Signal,
    },
    /// Print settings for Prometheus: where the network's processes are, and the alert rules
    Prometheus(PrometheusArgs),
    /// Print the default specification with a word on every field, to change and give to `up --spec`
    Spec,
}

#[derive(Debug, Args)]
pub struct Directory {
    /// Directory of the network
    #[arg(long, value_name = "DIR", env = "MEDLEDGER_NETWORK", default_value = DEFAULT_DIRECTORY)]
    network: PathBuf,
}

#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    at: Directory,
    /// Delete the stopped network that is there, ledger and keys, and found a new one
    #[arg(long)]
    fresh: bool,
    /// What the network should be (TOML; `network spec` prints the default)
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// A Kafka that runs already, instead of brokers of our own
    #[arg(long, value_name = "HOST:PORT,…", value_parser = brokers::addresses)]
    kafka: Option<String>,
    /// Accept that the Kafka given by --kafka replicates less than a network in earnest needs
    #[arg(long, requires = "kafka")]
    allow_unsafe_topics: bool,
    /// Brokers of our own: 1 or 3
    #[arg(long, value_name = "N", conflicts_with = "kafka")]
    brokers: Option<u32>,
    /// Data partitions
    #[arg(long, value_name = "N")]
    partitions: Option<u32>,
    /// The channel's endorsement policy (default: a peer of any organisation)
    #[arg(long, value_name = "POLICY")]
    endorsement_policy: Option<String>,
    /// Policy of a contract or of one of its functions; may be repeated
    #[arg(long, value_name = "CONTRACT[.FUNCTION]=POLICY")]
    policy: Vec<String>,
    /// Also deploy the hostile contract that shows what a worker survives
    #[arg(long)]
    misbehave: bool,
    /// First of a run of ports (default: free ones are looked for)
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
}

/// `9`, `KILL` or `SIGKILL`.
fn signal(text: &str) -> Result<Signal, String> {
    let wrong = || "must be a signal's number or name, as 9 or KILL".to_owned();
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).map_err(|_| wrong());
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") {
        name
    } else {
        format!("SIG{name}")
    };
    name.parse().map_err(|_| wrong())
}

impl UpArgs {
    /// The network that is asked for: `base`, unless there is a file, changed by what else is said.
    fn spec(&self, base: Spec) -> Result<Spec> {
        let mut spec = match &self.spec {
            Some(file) => Spec::load(file)?,
            None => base,
        };
        if let Some(kafka) = &self.kafka {
            spec.kafka.external = Some(kafka.clone());
        }
        spec.allow_unsafe_topics |= self.allow_unsafe_topics;
        spec.kafka.brokers = self.brokers.unwrap_or(spec.kafka.brokers);
        spec.partitions = self.partitions.unwrap_or(spec.partitions);
        spec.base_port = self.base_port.or(spec.base_port);
        if let Some(policy) = &self.endorsement_policy {
            spec.endorsement_policy = policy.clone();
        }
        let misbehave = ContractSpec::misbehave();
        if self.misbehave && spec.contracts.iter().all(|contract| contract.name != misbehave.name) {
            spec.contracts.push(misbehave);
        }
        for policy in &self.policy {
            let (of, is) = policy
                .split_once('=')
                .with_context(|| format!("--policy: must be CONTRACT[.FUNCTION]=POLICY; {policy:?} is not"))?;
            spec.set_policy(of, is).context("--policy")?;
        }
        spec.check()?;
        Ok(spec)
    }
}

pub async fn run(command: NetworkCommand, output: Output) -> Result<()> {
    match command {
        NetworkCommand::Up(args) => up(&args, output).await,
        NetworkCommand::Found { at, spec } => found(&at, &spec, output),
        NetworkCommand::Down { at, purge } => down(&at, purge, output).await,
        NetworkCommand::Status { at } => {
            let status = Network::load(&at.network)?.status().await;
            output.show(&status, || text(&status))
        }
        NetworkCommand::Check { at, patience } => {
            let done = check(&Network::load(&at.network)?, Duration::from_secs(patience)).await?;
            output.show(&done, || {
                let (by, at, ms) = (&done.written_by, done.read_at.join(", "), done.attested_ms);
                format!("a record written by {by} was attested after {ms} ms, read at {at}, and deleted\n")
            })
        }
        NetworkCommand::Start { at, name } => {
            let bar = progress::spinner(&format!("starting {name}"));
            let mut network = Network::load(&at.network)?;
            match name.as_str() {
                "all" => {
                    network
                        .start_all(&|line: &str| bar.set_message(line.to_owned()))
                        .await?
                }
                name => network.start(name).await?,
            }
            bar.finish_and_clear();
            output.show(&serde_json::json!({"started": name}), || format!("{name} is ready\n"))
        }
        NetworkCommand::Kill { at, name, signal } => {
            Network::load(&at.network)?.kill(&name, signal).await?;
            output.show(&serde_json::json!({"killed": name}), || format!("{signal} to {name}\n"))
        }
        NetworkCommand::Prometheus(args) => {
            let config = scrape::run(&args)?;
            output.show(&config, || config.yaml())
        }
        NetworkCommand::Spec => output.show(&Spec::default(), || EXPLAINED),
    }
}

async fn up(args: &UpArgs, output: Output) -> Result<()> {
    let bar = progress::spinner("planning the network");
    let say = |line: &str| bar.set_message(line.to_owned());
    let (network, done) = match Network::find(&args.at.network)? {
        Some(old) if !args.fresh => again(old, args, &say).await?,
        old => {
            // Refused before anything is deleted.
            let spec = args.spec(Spec::default())?;
            old.map_or(Ok(()), Network::remove)?;
            let network = Network::up(&spec, &args.at.network, &say).await?;
            (network, "was founded and runs")
        }
    };
    bar.finish_and_clear();
    let status = network.status().await;
    output.show(&network.description, || {
        format!(
            "{}\nThe network {done}; it is described in {}\n`medledger network status{flag}` shows it, `medledger network down{flag}` stops it.\n",
            text(&status),
            network.layout.description().display(),
            flag = network.layout.flag()
        )
    })
}

fn found(at: &Directory, spec: &Path, output: Output) -> Result<()> {
    let spec = Spec::load(spec)?;
    ensure!(
        !spec.addresses.is_empty(),
        "addresses: are missing; `medledger network up` founds and starts a network on this machine"
    );
    let layout = Layout::new(&at.network)?;
    found::check_empty(&layout)?;
    let (description, _) = found::found(&spec, &layout, &silent)?;
    output.show(&description, || {
        format!(
            "channel {} was founded in {}: keep it, it holds every authority's key\n",
            description.channel_id,
            layout.root().display()
        )
    })
}

/// Starts what does not run of a network that is there, and says what that came to.
async fn again(mut old: Network, args: &UpArgs, say: Say<'_>) -> Result<(Network, &'static str)> {
    let founded = &old.description.spec;
    let differences = founded.differences(&args.spec(founded.clone())?);
    ensure!(
        differences.is_empty(),
        "the network in {} is another one: {}; leave that out to start it as it is, found one in another --network, \
         or say --fresh to delete this one with its ledger and keys",
        old.layout.root().display(),
        differences.join("; ")
    );
    let done = match old.alive().len() {
        n if n == old.description.processes.len() => return Ok((old, "runs already")),
        0 => "runs again, with the data and keys it had",
        _ => "runs again; a part of it had ended",
    };
    old.start_all(say).await?;
    Ok((old, done))
}

async fn down(at: &Directory, purge: bool, output: Output) -> Result<()> {
    let network = Network::load(&at.network)?;
    let bar = progress::spinner("stopping");
    network.down(&|line: &str| bar.set_message(line.to_owned())).await?;
    bar.finish_and_clear();
    let left = network.alive();
    ensure!(left.is_empty(), "these still live: {}", left.join(", "));
    let root = network.layout.root().to_owned();
    let mut end = "is kept; `network up` starts it again";
    if purge {
        network.remove()?;
        end = "is deleted";
    }
    output.show(&serde_json::json!({"stopped": root, "deleted": purge}), || {
        format!("all processes have ended; {} {end}\n", root.display())
    })
}

fn text(status: &Status) -> String {
    let mut lines = vec![
        ["process", "state", "pid", "MB", "address", "health"]
            .map(String::from)
            .to_vec(),
    ];
    for process in &status.processes {
        lines.push(vec![
            process.name.clone(),
            state(process).to_owned(),
            process.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            (process.rss_bytes / 1_000_000).to_string(),
            process.listen.clone(),
            process.health.clone(),
        ]);
    }
    let mut text = format!("channel {}\n\n{}", status.channel, aligned(&lines));
    let mut chains = vec![
        ["peer", "partition", "blocks", "attested", "header", "state"]
            .map(String::from)
            .to_vec(),
    ];
    for process in status.processes.iter().filter(|process| process.kind == Kind::Peer) {
        for chain in &process.chains {
            let short = |hex: &str| hex.get(..12).unwrap_or(hex).to_owned();
            let mut line = vec![
                process.name.clone(),
                chain.partition.clone(),
                chain.blocks.to_string(),
                chain.attested_blocks.to_string(),
                short(&chain.header),
                short(&chain.state_digest),
            ];
            if !chain.stopped.is_empty() {
                line.push(format!("stopped: {}", chain.stopped));
            }
            chains.push(line);
        }
    }
    text.push_str(&format!("\n{}", aligned(&chains)));
    for process in &status.processes {
        if process.log_reachable == Some(false) {
            text.push_str(&format!("{}: Kafka cannot be reached\n", process.name));
        }
        if !process.peers_away.is_empty() {
            text.push_str(&format!("{} misses {}\n", process.name, process.peers_away.join(", ")));
        }
        if let Some(error) = &process.error {
            text.push_str(&format!("{}: {error}\n", process.name));
        }
    }
    text
}

fn state(process: &ProcessStatus) -> &'static str {
    match (process.ready, process.pid) {
        (true, _) => "ready",
        (false, Some(_)) => "not ready",
        (false, None) => "down",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_number_and_name() {
        for text in ["9", "KILL", "sigkill"] {
            assert_eq!(signal(text), Ok(Signal::SIGKILL), "{text}");
        }
        assert!(signal("99").is_err() && signal("GO").is_err());
    }
}
