//! `medledger bench`: an open loop at given rates, then a check that nothing was lost or doubled.
//!
//! ```text
//! schedule ─► clients (sign in batches) ─► gateways … committed      Tally: latency, ends, tx_ids
//!                                                                      └─► check: every peer's blocks
//! ```

pub mod check;
pub mod load;
pub mod saturate;
pub mod table;
pub mod tally;
pub mod usage;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::ProgressBar;
use protocol::Digest;
use rand::Rng as _;
use serde::Serialize;
use service::rpc::{Call, Finality};
use tokio::time::Instant;

use crate::{
    calls,
    client::Client,
    network::{
        Network,
        spec::{RECORDS, RECORDS_2_OF},
    },
    output::Output,
    patients::{PATIENTS_MAX, SEED, patient, personal_number},
    progress,
};
use check::Verdict;
use load::{Operation, Schedule};
use table::Row;
use tally::Tally;
use usage::Sample;

#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Directory of the network
    #[arg(long, value_name = "DIR", env = "MEDLEDGER_NETWORK", default_value = crate::network::DEFAULT_DIRECTORY)]
    pub network: PathBuf,
    /// Calls per second, one measurement each
    #[arg(long, value_name = "TX/S", value_delimiter = ',', default_values_t = [100.0, 200.0, 300.0, 400.0, 500.0, 700.0])]
    pub rates: Vec<f64>,
    /// Calls per measurement
    #[arg(long, value_name = "N", default_value_t = 5000)]
    pub count: u64,
    /// Length of a measurement instead of its number of calls
    #[arg(long, value_name = "S", conflicts_with = "count")]
    pub seconds: Option<u64>,
    /// What is called
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [What::Create, What::Read])]
    pub operations: Vec<What>,
    /// Whose endorsement creates need
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Policy::Any])]
    pub policies: Vec<Policy>,
    /// Peers that are called, by name, in turn; `all` for every peer
    #[arg(long, value_name = "PEER", value_delimiter = ',', default_value = "all")]
    pub gateways: Vec<String>,
    /// Seconds until a call counts as of unknown outcome
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub timeout: u64,
    /// First load so many records, as fast as they go, and watch the memory
    #[arg(long, value_name = "N")]
    pub records: Option<u64>,
    /// Calls at once while loading records
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub at_once: usize,
    /// Look for the highest rate that lasts, then offer a multiple of it
    #[arg(long)]
    pub saturate: bool,
    /// The multiple of the highest lasting rate that is offered
    #[arg(long, value_name = "FACTOR", default_value_t = 4.0)]
    pub overload: f64,
    /// Leave out the check of every peer's ledger
    #[arg(long)]
    pub no_check: bool,
    /// Write the report here as JSON too
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    Create,
    Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// Any one organisation
    #[value(name = "1-of-any")]
    Any,
    /// Any two of the four
    #[value(name = "2-of-4")]
    TwoOfFour,
}

impl Policy {
    pub fn word(self) -> &'static str {
        match self {
            Policy::Any => "1-of-any",
            Policy::TwoOfFour => "2-of-4",
        }
    }

    /// The same component under the policy's own name.
    pub fn contract(self) -> &'static str {
        match self {
            Policy::Any => RECORDS,
            Policy::TwoOfFour => RECORDS_2_OF,
        }
    }
}

/// How long the outcomes that nobody told may take to become known.
const SETTLE_WITHIN: Duration = Duration::from_secs(30);
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// Everything that a run of the command measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub cores: usize,
    pub rows: Vec<Row>,
    pub fill: Option<Fill>,
    pub saturation: Option<saturate::Saturation>,
    pub ok: bool,
}

#[derive(Debug, Serialize)]
pub struct Fill {
    pub row: Row,
    /// Memory while the records came, megabytes by kind of process.
    pub samples: Vec<FillSample>,
}

#[derive(Debug, Serialize)]
pub struct FillSample {
    pub records: u64,
    pub rss_mb: std::collections::BTreeMap<&'static str, u64>,
}

/// A network under measurement, its clients, and the next patients that nobody made yet.
pub struct Bench<'a> {
    pub network: &'a Network,
    pub clients: Vec<Arc<Client>>,
    pub within: Duration,
    pub check: bool,
    next: u64,
}

impl<'a> Bench<'a> {
    /// `gateways`: names of peers, or `all`.
    pub fn new(network: &'a Network, gateways: &[String], within: Duration) -> Result<Self> {
        let all = gateways.iter().any(|name| name == "all");
        let mut clients = Vec::new();
        for peer in network.peers().filter(|peer| all || gateways.contains(&peer.name)) {
            let session = network.connect(&peer.organisation, "physician", Some(&peer.name))?;
            clients.push(Arc::new(Client::new(session)?));
        }
        for name in gateways.iter().filter(|name| *name != "all") {
            network.process(name)?;
        }
        ensure!(
            !clients.is_empty(),
            "--gateways: {} is no peer of this network",
            gateways.join(", ")
        );
        // Patients of earlier runs on the same ledger must not come again.
        let next = rand::rng().random_range(1_000_000..PATIENTS_MAX / 2);
        Ok(Bench {
            network,
            clients,
            within,
            check: true,
            next,
        })
    }

    /// The first of `count` patients that were not used yet.
    pub fn fresh(&mut self, count: u64) -> u64 {
        self.next += count;
        self.next - count
    }

    /// One measurement with its check. Reads ask for patients `first..`, of which there are `known`.
    pub async fn measure(
        &self,
        operation: Operation,
        policy: Policy,
        rate: f64,
        count: u64,
        first: u64,
        known: u64,
    ) -> Result<Row> {
        let contract = policy.contract();
        let calls = |index: u64| -> Call {
            match operation {
                Operation::Create => calls::create(contract, &patient(SEED, first + index)),
                Operation::Read => calls::get(contract, &personal_number(first + index % known.max(1))),
            }
        };
        let bar = progress::bar(
            count,
            &format!("{} at {rate:.0}/s, {}", operation.word(), policy.word()),
        );
        let heights = if self.check {
            check::heights(self.network).await?
        } else {
            Vec::new()
        };
        let before = Sample::take(self.network);
        let schedule = Schedule {
            operation,
            rate,
            count,
            within: self.within,
        };
        let tally = load::run(&self.clients, &schedule, &calls, &bar).await;
        let mut row = Row::new(operation, policy.word(), contract, rate, count, &tally);
        row.cost = Sample::take(self.network).since(&before, tally.done);
        row.verdict = self.verdict(&heights, &tally, &bar).await?;
        bar.finish_and_clear();
        Ok(row)
    }

    async fn verdict(&self, from: &check::Heights, tally: &Tally, bar: &ProgressBar) -> Result<Option<Verdict>> {
        if !self.check {
            return Ok(None);
        }
        if !tally.unknown.is_empty() {
            bar.set_message(format!("asking what became of {}", tally.unknown.len()));
            self.settle(&tally.unknown).await;
        }
        bar.set_message("checking every peer's ledger");
        check::check(self.network, from, tally).await.map(Some)
    }

    /// Waits, for a while, until the status of each is known: what is still queued somewhere gets its judgement.
    async fn settle(&self, unknown: &[Digest]) {
        let deadline = Instant::now() + SETTLE_WITHIN;
        for (index, tx_id) in unknown.iter().enumerate() {
            let client = &self.clients[index % self.clients.len()];
            while Instant::now() < deadline {
                // An error is as good as "not yet": the check of the ledgers has the last word.
                let asked = client.status(tx_id, Finality::Unspecified, ASK_WITHIN).await;
                if asked.is_ok_and(|status| status.found) {
                    break;
                }
                tokio::time::sleep(ASK_WITHIN / 20).await;
            }
        }
    }

    /// Loads `count` records as fast as they go, sampling memory ten times.
    pub async fn fill(&mut self, count: u64, at_once: usize, policy: Policy) -> Result<(Fill, u64)> {
        let first = self.fresh(count);
        let contract = policy.contract();
        let calls = |index: u64| calls::create(contract, &patient(SEED, first + index));
        let bar = progress::bar(count, "loading records");
        let samples = std::sync::Mutex::new(Vec::new());
        let every = (count / 10).max(1);
        let each = |done: u64| {
            bar.set_position(done);
            if done.is_multiple_of(every) {
                let sample = FillSample {
                    records: done,
                    rss_mb: Sample::take(self.network).rss_mb(),
                };
                samples
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .push(sample);
            }
        };
        let heights = check::heights(self.network).await?;
        let before = Sample::take(self.network);
        let tally = load::fill(&self.clients, count, at_once, self.within, &calls, &each).await;
        let mut row = Row::new(Operation::Create, policy.word(), contract, 0.0, count, &tally);
        row.cost = Sample::take(self.network).since(&before, tally.done);
        row.verdict = self.verdict(&heights, &tally, &bar).await?;
        bar.finish_and_clear();
        let samples = samples.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok((Fill { row, samples }, first))
    }
}

pub async fn run(args: &BenchArgs, output: Output) -> Result<()> {
    let network = Network::load(&args.network)?;
    let mut bench = Bench::new(&network, &args.gateways, Duration::from_secs(args.timeout))?;
    bench.check = !args.no_check;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut report = Report {
        cores,
        ok: true,
        ..Report::default()
    };
    if let Some(count) = args.records {
        report.fill = Some(bench.fill(count, args.at_once, Policy::Any).await?.0);
    }
    if args.saturate {
        report.saturation = Some(saturate::run(&mut bench, Policy::Any, args.overload).await?);
    }
    // Loading or saturating alone is a run too: rates are measured unless another was asked for.
    if args.records.is_none() && !args.saturate {
        report.rows = rates(&mut bench, args).await?;
    }
    report.ok = is_ok(&report);
    if let Some(file) = &args.report {
        crate::network::layout::write_whole(file, &serde_json::to_vec_pretty(&report)?, false)?;
    }
    output.show(&report, || text(&report))?;
    if !report.ok {
        bail!("the ledgers do not hold what was acknowledged: see the report");
    }
    Ok(())
}

async fn rates(bench: &mut Bench<'_>, args: &BenchArgs) -> Result<Vec<Row>> {
    if let Some(rate) = args.rates.iter().find(|rate| !(**rate > 0.0 && rate.is_finite())) {
        bail!("--rates: must be above 0; {rate} is not");
    }
    let count = |rate: f64| {
        args.seconds
            .map_or(args.count, |seconds| (rate * seconds as f64).ceil() as u64)
            .max(1)
    };
    let mut rows = Vec::new();
    for policy in &args.policies {
        let mut known = None;
        for what in &args.operations {
            for rate in &args.rates {
                let count = count(*rate);
                let row = match what {
                    What::Create => {
                        let first = bench.fresh(count);
                        let row = bench
                            .measure(Operation::Create, *policy, *rate, count, first, 0)
                            .await?;
                        known = Some((first, count));
                        row
                    }
                    What::Read => {
                        if known.is_none() {
                            let (_, first) = bench.fill(1000, 200, *policy).await?;
                            known = Some((first, 1000));
                        }
                        let (first, known) = known.context("records to read")?;
                        bench
                            .measure(Operation::Read, *policy, *rate, count, first, known)
                            .await?
                    }
                };
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

fn is_ok(report: &Report) -> bool {
    report.rows.iter().all(Row::ok)
        && report.fill.as_ref().is_none_or(|fill| fill.row.ok())
        && report.saturation.as_ref().is_none_or(saturate::Saturation::ok)
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    if !report.rows.is_empty() {
        text.push_str(&table::render(&report.rows));
    }
    if let Some(fill) = &report.fill {
        text.push_str(&format!(
            "{} records in {:.0} s: {:.0} tx/s\n",
            fill.row.success,
            fill.row.success as f64 / fill.row.goodput.max(0.1),
            fill.row.goodput
        ));
        for sample in &fill.samples {
            let kinds: Vec<String> = sample.rss_mb.iter().map(|(kind, mb)| format!("{kind} {mb}")).collect();
            text.push_str(&format!("  {:>9} records, MB: {}\n", sample.records, kinds.join(", ")));
        }
    }
    if let Some(saturation) = &report.saturation {
        text.push_str(&saturation.text());
    }
    text
}
