//! The command line of `medledger`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::{
    beds,
    bench::BenchArgs,
    block, ca, chaos, cluster, contract, demo, encounter,
    network::{self, Network},
    output::Output,
    record, report,
    session::Session,
    site, tx, verify,
};

/// Medical records that hospitals, relief organisations and ministries share.
///
/// Start with `medledger demo`, which brings up a network of four organisations on this machine, kills
/// some of its processes, and leaves it running; `medledger record list` then asks it.
#[derive(Debug, Parser)]
#[command(name = "medledger", version, max_term_width = 100)]
pub struct Cli {
    /// How answers are shown: as text, or as one JSON document on standard output. Errors go to standard error; in
    /// JSON as an object with `error` and, where a process refused, the refusal's `code`, `field`, `missing` and so on
    #[arg(long, value_enum, default_value = "text", global = true)]
    pub output: Output,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Certificates: an organisation's root, its identities, their revocation
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// A whole network on this machine: start, stop, look
    #[command(subcommand)]
    Network(network::command::NetworkCommand),
    /// A network's keys and genesis as Kubernetes Secrets
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Medical records: create, get, update, delete, history, list
    #[command(subcommand)]
    Record(record::RecordCommand),
    /// What reports count: a patient's treatments at a facility
    #[command(subcommand)]
    Encounter(encounter::EncounterCommand),
    /// Beds of facilities
    #[command(subcommand)]
    Beds(beds::BedsCommand),
    /// What facilities lack, fear, and report at once
    #[command(subcommand)]
    Site(site::SiteCommand),
    /// What the ministry's peer publishes of closed periods
    #[command(subcommand)]
    Report(report::ReportCommand),
    /// Any contract's functions, and what became of a transaction
    #[command(subcommand)]
    Tx(tx::TxCommand),
    /// Blocks of the ledger as a peer judged them
    #[command(subcommand)]
    Block(block::BlockCommand),
    /// Contracts' components
    #[command(subcommand)]
    Contract(contract::ContractCommand),
    /// Read the log from its genesis, with nothing but the genesis, and compute what peers should have
    Verify(verify::VerifyArgs),
    /// Measure a running network: rates, latencies, and that nothing is lost or doubled
    Bench(BenchArgs),
    /// Four organisations, a real Kafka, and processes killed under them, step by step
    Demo(demo::DemoArgs),
    /// Faults under load on a Kubernetes cluster, and whether every promise was kept
    #[command(subcommand)]
    Chaos(chaos::ChaosCommand),
    /// Do nothing until told to end: keeps a pod there for `kubectl exec`
    #[command(hide = true)]
    Pause,
    /// Completions for a shell, on standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Which network, as whom, at which peer.
#[derive(Clone, Debug, Args)]
pub struct At {
    /// Directory of the network
    #[arg(long, value_name = "DIR", env = "MEDLEDGER_NETWORK", default_value = network::DEFAULT_DIRECTORY)]
    pub network: PathBuf,
    /// Who asks
    #[arg(
        long = "as",
        value_name = "ORGANISATION/CLIENT",
        default_value = "HospitalA/physician"
    )]
    pub who: Who,
    /// The peer that is asked, of the same organisation (default: its first)
    #[arg(long, value_name = "NAME")]
    pub peer: Option<String>,
}

impl At {
    pub fn connect(&self) -> Result<Session> {
        let network = Network::load(&self.network)?;
        let session = network.connect(&self.who.organisation, &self.who.name, self.peer.as_deref())?;
        let peer = &session.peer.name;
        if !network.may_answer(peer) {
            let flag = network.layout.flag();
            bail!("{peer} does not run; `medledger network start {peer}{flag}` starts it, `network up{flag}` all");
        }
        Ok(session)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub organisation: String,
    pub name: String,
}

impl std::str::FromStr for Who {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (organisation, name) = text
            .split_once('/')
            .context("must be ORGANISATION/CLIENT, as HospitalA/nurse")?;
        Ok(Who {
            organisation: organisation.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// How long the answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Wait {
    /// In the log
    Ordered,
    /// Judged by the asked peer
    Committed,
    /// More than two thirds of the organisations signed it
    Attested,
}

impl From<Wait> for service::rpc::Finality {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Ordered => Self::Ordered,
            Wait::Committed => Self::Committed,
            Wait::Attested => Self::Attested,
        }
    }
}

/// How a transaction is sent.
#[derive(Clone, Debug, Args)]
pub struct Sending {
    /// Sign here with the client's key, instead of leaving it to the gateway
    #[arg(long)]
    pub sign: bool,
    /// What to wait for
    #[arg(long, value_enum, default_value = "committed")]
    pub wait: Wait,
    /// Seconds to wait
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub timeout: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn newcomers_commands_parse() {
        for line in [
            "medledger network up --partitions 4 --policy medical-records.deleteMedicalRecord=AND('HospitalA.peer')",
            "medledger network kill peer0.HospitalB --signal 9",
            "medledger record create 940220-1234 --first-name Alfa --last-name Exempelberg --gender female --address X",
            "medledger record get 940220-1234 --as ReliefOrg/nurse --output json",
            "medledger encounter add 940220-1234 --area NORTH --triage red --items 9,44 --age <1 --sex male",
            "medledger encounter outcome 940220-1234 1700000000000-0123456789abcdef 36 --version 2",
            "medledger beds set HospitalA-1 general=40/31 icu=4/4 --as HospitalA/registrar",
            "medledger site set HospitalA-1 --items 61,62 --as HospitalA/physician",
            "medledger report show --csv",
            "medledger report sample --count 10 --seconds 0",
            "medledger --output json tx submit medical-records addNote [] --sign --wait attested",
            "medledger block show 0 3",
            "medledger bench --rates 100,700 --count 500 --operations create --policies 2-of-4 --gateways peer0.HospitalA",
            "medledger bench --saturate",
            "medledger demo --short",
            "medledger verify --compare --allow-missing",
            "medledger network up --network DIR --fresh",
            "medledger network prometheus --every 15 --rules a.yaml --rules b.yaml",
            "medledger ca issue --dir DIR --role worker --name worker0",
            "medledger chaos load --network DIR --history FILE --seconds 10",
            "medledger chaos judge --network DIR --history FILE --from-ms 1 --to-ms 2 --output json",
            "medledger chaos run pod-peer drain --namespace N --release R --write docs/chaos.md --output json",
            "medledger chaos run --short",
            "medledger chaos heal --namespace N",
            "medledger cluster secrets --network DIR --only HospitalB --slug HospitalB=hospital-b",
            "medledger completions bash",
        ] {
            Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn nonsense_does_not() {
        for line in [
            "medledger record get 1 --as HospitalA",
            "medledger tx submit",
            "medledger beds set HospitalA-1",
            "medledger beds set HospitalA-1 icu=4",
            "medledger encounter add 940220-1234",
            "medledger verify --allow-missing",
            "medledger network up --kafka foo",
            "medledger network prometheus --every 0",
            "medledger demo --kafka foo",
            "medledger verify --genesis g --kafka foo",
            "medledger ca issue --dir DIR --role king --name king0",
            "medledger bench --count 1 --seconds 1",
            "medledger chaos judge --history FILE --from-ms 1",
            "medledger chaos run pod-peer --short",
            "medledger cluster secrets --network DIR --slug HospitalB=Hospital_B",
        ] {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
    }
}
