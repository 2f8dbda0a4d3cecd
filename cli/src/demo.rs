//! `medledger demo`: four organisations share records over a real Kafka, and processes are killed under them.
//!
//! Every step says what it saw; one that fails does not stop the next. The table and
//! `target/demo/report.json` tell the same. The network stays up afterwards.

mod outage;
mod report;
mod reporting;
mod walk;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::ProgressBar;

use crate::{
    bench::{Bench, Policy, load::Operation, table},
    network::{Network, Spec, layout::write_whole, silent},
    output::Output,
    progress, verify,
};
use report::Report;

#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Directory of the demo's network; one that an earlier demo founded there is stopped and deleted
    #[arg(long, value_name = "DIR", default_value = crate::network::DEFAULT_DIRECTORY)]
    pub network: PathBuf,
    /// Where the report goes
    #[arg(long, value_name = "FILE", default_value = "target/demo/report.json")]
    pub report: PathBuf,
    /// A Kafka that runs already, instead of one broker of our own
    #[arg(long, value_name = "HOST:PORT,…", value_parser = crate::network::brokers::addresses)]
    pub kafka: Option<String>,
    /// Fewer patients, shorter loads
    #[arg(long)]
    pub short: bool,
    /// Stop the network at the end
    #[arg(long)]
    pub down: bool,
}

/// How much of everything.
struct Size {
    patients: u64,
    idle_creates: usize,
    rates: &'static [f64],
    read_rates: &'static [f64],
    seconds: f64,
}

const FULL: Size = Size {
    patients: 1000,
    idle_creates: 50,
    rates: &[100.0, 200.0, 300.0, 400.0, 500.0, 700.0],
    read_rates: &[100.0, 200.0, 300.0, 400.0, 500.0],
    seconds: 7.0,
};
const SHORT: Size = Size {
    patients: 200,
    idle_creates: 20,
    rates: &[100.0, 700.0],
    read_rates: &[500.0],
    seconds: 3.0,
};

/// A call of a person, not of a load.
const CALL_WITHIN: Duration = Duration::from_secs(60);

pub async fn run(args: &DemoArgs, output: Output) -> Result<()> {
    let size = if args.short { SHORT } else { FULL };
    let bar = progress::spinner("starting");
    let mut report = Report::new(bar.clone());
    make_room(&args.network, &bar).await?;
    let network = report
        .step("network up: four organisations, real Kafka", up(args, &bar))
        .await;
    if let Some(network) = &network {
        steps(network, &size, &mut report).await;
    }
    bar.finish_and_clear();
    write_whole(&args.report, &serde_json::to_vec_pretty(&report)?, false)?;
    output.show(&report, || text(&report, network.as_ref(), args))?;
    if let (true, Some(network)) = (args.down, &network) {
        network.down(&silent).await?;
    }
    let failed = report.failed();
    ensure!(failed == 0, "{failed} of {} steps failed", report.steps.len());
    Ok(())
}

/// The network of an earlier demo is this one's to delete; any other is somebody's ledger.
async fn make_room(directory: &Path, bar: &ProgressBar) -> Result<()> {
    let Some(old) = Network::find(directory)? else {
        return Ok(());
    };
    ensure!(
        old.description.spec.demo,
        "the network in {} was not founded by a demo, so no demo deletes it; give the demo another --network, \
         or delete it with `medledger network down --purge{}`",
        old.layout.root().display(),
        old.layout.flag()
    );
    bar.set_message("stopping the network of an earlier demo");
    old.down(&silent).await?;
    old.remove()
}

async fn up(args: &DemoArgs, bar: &ProgressBar) -> Result<(String, Network)> {
    let mut spec = Spec::default();
    spec.kafka.external = args.kafka.clone();
    // A demo shows processes failing, not power cuts of brokers.
    spec.allow_unsafe_topics = true;
    spec.demo = true;
    reporting::short_periods(&mut spec);
    let network = Network::up(&spec, &args.network, &|line: &str| bar.set_message(line.to_owned())).await?;
    let count = network.description.processes.len();
    Ok((
        format!("{count} processes, {} partitions", network.description.partitions),
        network,
    ))
}

async fn steps(network: &Network, size: &Size, report: &mut Report) {
    report
        .step(
            format!("load {} synthetic patients", size.patients),
            load(network, size.patients),
        )
        .await;
    report.idle_create_ms_p50 = report
        .step(
            "one create at a time on the idle network",
            walk::idle(network, size.idle_creates),
        )
        .await;
    walk::record(network, report).await;
    report
        .step(
            "what the ministry publishes of a closed period",
            reporting::published(network),
        )
        .await;
    report
        .step(
            "kill -9 a peer under load; it comes back",
            outage::peer_comes_back(network, size.seconds),
        )
        .await;
    outage::three_of_five(network, report).await;
    // Also when one of them fails the table is shown: then more than ever.
    let mut rows = Vec::new();
    report.step("load table", load_table(network, size, &mut rows)).await;
    report.load = rows;
    report
        .step(
            "verify: the log alone gives the state that every peer reports",
            verified(network),
        )
        .await;
}

async fn load(network: &Network, count: u64) -> Result<(String, ())> {
    let mut bench = Bench::new(network, &["all".to_owned()], CALL_WITHIN)?;
    let (fill, _) = bench.fill(count, 100, Policy::Any).await?;
    ensure!(
        fill.row.success == count,
        "{} of {count} were committed: {:?}",
        fill.row.success,
        fill.row.failed_by_word
    );
    judge(&fill.row)?;
    Ok((format!("{:.0} tx/s", fill.row.goodput), ()))
}

fn judge(row: &table::Row) -> Result<()> {
    match &row.verdict {
        Some(verdict) if !verdict.ok() => bail!("the peers' ledgers: {verdict:?}"),
        Some(_) => Ok(()),
        None => bail!("the ledgers were not checked"),
    }
}

async fn load_table(network: &Network, size: &Size, rows: &mut Vec<table::Row>) -> Result<(String, ())> {
    let mut bench = Bench::new(network, &["all".to_owned()], CALL_WITHIN)?;
    let mut known = (0, 0);
    for rate in size.rates {
        let count = (rate * size.seconds) as u64;
        let first = bench.fresh(count);
        rows.push(
            bench
                .measure(Operation::Create, Policy::Any, *rate, count, first, 0)
                .await?,
        );
        known = (first, count);
    }
    for rate in size.read_rates {
        let count = (rate * size.seconds / 2.0) as u64;
        rows.push(
            bench
                .measure(Operation::Read, Policy::Any, *rate, count, known.0, known.1)
                .await?,
        );
    }
    for row in rows.iter() {
        judge(row)?;
        ensure!(
            row.success == row.offered,
            "{} at {}/s: {} of {}",
            row.operation.word(),
            row.rate,
            row.success,
            row.offered
        );
    }
    let worst = rows.iter().map(|row| row.latency.p99_ms).fold(0.0, f64::max);
    Ok((format!("0 lost, 0 failed; worst p99 {worst:.0} ms"), ()))
}

async fn verified(network: &Network) -> Result<(String, ())> {
    let verified = verify::network(network).await?;
    let compared = verified.compare(network).await;
    compared.judge(false).with_context(|| compared.text())?;
    Ok((verified.summary(), ()))
}

fn text(report: &Report, network: Option<&Network>, args: &DemoArgs) -> String {
    let mut text = report.text();
    if let (Some(network), false) = (network, args.down) {
        text.push_str(&walk::next_commands(network));
    }
    text
}
