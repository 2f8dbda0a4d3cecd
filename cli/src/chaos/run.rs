//! `medledger chaos run`: the driver, outside the cluster.
//!
//! ```text
//! heal what a killed run left ─► load ─► for each experiment: steady ─ fault ─ heal ─ recovered ─ judge ─► row
//!                                                                  └── SIGINT, SIGTERM, errors ──► heal
//! ```

mod agent;
mod cluster;
mod disk;
mod experiments;
mod fault;
mod heal;
mod kubectl;
mod pod;
mod recovery;
mod table;
mod volume;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use indicatif::ProgressBar;
use service::Tasks;

use super::judge::Verdict;
use crate::{
    network::layout::write_whole,
    output::{Output, causes},
    progress,
};
use agent::Agents;
use cluster::Cluster;
use experiments::Experiment;
use fault::{Made, Scene};
use pod::{Load, Offer};
use recovery::Before;
use table::{Came, Report, Row};

/// Which release.
#[derive(Clone, Debug, clap::Args)]
pub struct Release {
    /// The release's namespace
    #[arg(long, value_name = "NAME", env = "NAMESPACE", default_value = "medledger")]
    pub namespace: String,
    /// The release's name
    #[arg(long, value_name = "NAME", env = "RELEASE", default_value = "medledger")]
    pub release: String,
}

#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Experiments by name, in this order; none: all
    #[arg(value_name = "EXPERIMENT", conflicts_with = "short")]
    pub experiments: Vec<String>,
    #[command(flatten)]
    pub release: Release,
    /// One pod of each kind is deleted, nothing else
    #[arg(long)]
    pub short: bool,
    /// Seconds of load before each fault
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub steady: u64,
    /// Clients at each gateway
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub clients: u64,
    /// Milliseconds between one thing and the next of the same client
    #[arg(long, value_name = "MS", default_value_t = 200)]
    pub pause_ms: u64,
    /// Limits of gaps are so many times as long: for machines that do other things besides
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub slack: u32,
    /// The agents' image: anything with /bin/busybox
    #[arg(long, value_name = "IMAGE", env = "CHAOS_AGENT_IMAGE", default_value = AGENT_IMAGE)]
    pub agent_image: String,
    /// Put the table into this document, between its marks
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Write the report here as JSON too
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// By digest: what runs with all rights on every node cannot change under us.
const AGENT_IMAGE: &str =
    "docker.io/library/busybox:1.36.1@sha256:73aaf090f3d85aa34ee199857f03fa3a95c8ede2ffd4cc2cdb5b94e566b11662";

pub async fn run(args: &RunArgs, output: Output) -> Result<()> {
    let names: Vec<String> = match args.short {
        true => experiments::SHORT.iter().map(|name| (*name).to_owned()).collect(),
        false => args.experiments.clone(),
    };
    let chosen: Vec<Experiment> = experiments::chosen(&names)?
        .into_iter()
        .map(|experiment| experiment.eased(args.slack))
        .collect();
    let bar = progress::spinner("looking at the cluster");
    let cluster = Cluster::find(&args.release.namespace, &args.release.release).await?;
    let tasks = Tasks::new();
    tasks.end_on_signals()?;
    let mut report = Report::default();
    let ended = tokio::select! {
        ended = all(args, &cluster, &chosen, &tasks, &mut report, &bar) => ended,
        () = tasks.token().cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    tasks.cancel();
    bar.set_message("healing and clearing away");
    let healed = heal::all(&cluster, &|line: &str| progress::say(&bar, line)).await;
    bar.finish_and_clear();
    report.ok = ended.is_ok() && report.rows.iter().all(|row| row.result != Came::Failed);
    if let Some(file) = &args.report {
        write_whole(file, &serde_json::to_vec_pretty(&report)?, false)?;
    }
    if let (Some(file), Ok(())) = (&args.write, &ended) {
        table::write(file, &report.markdown())?;
    }
    output.show(&report, || report.text())?;
    healed.context("not everything is healed; `medledger chaos heal` tries again")?;
    ended?;
    let failed = report.rows.iter().filter(|row| row.result == Came::Failed);
    let failed: Vec<&str> = failed.map(|row| row.experiment).collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// `medledger chaos heal`: what a killed run left.
pub async fn heal(release: &Release) -> Result<()> {
    let bar = progress::spinner("healing");
    let cluster = Cluster::find(&release.namespace, &release.release).await?;
    let healed = heal::all(&cluster, &|line: &str| progress::say(&bar, line)).await;
    bar.finish_and_clear();
    healed
}

async fn all(
    args: &RunArgs,
    cluster: &Cluster,
    chosen: &[Experiment],
    tasks: &Tasks,
    report: &mut Report,
    bar: &ProgressBar,
) -> Result<()> {
    heal::all(cluster, &|line: &str| progress::say(bar, line))
        .await
        .context("healing what an earlier run left")?;
    bar.set_message("waiting until every pod is ready");
    let before = Before::look(cluster).await?;
    let agents = Agents::of(cluster);
    if chosen.iter().any(|experiment| experiment.fault.needs_agents()) {
        bar.set_message("starting agents on the nodes");
        agents.start(&args.agent_image).await?;
    }
    bar.set_message("starting the load");
    let offer = Offer {
        clients: args.clients,
        pause_ms: args.pause_ms,
    };
    let load = Load::start(cluster, offer, tasks).await?;
    let scene = Scene {
        cluster,
        agents: &agents,
        load: &load,
        before: &before,
    };
    let mut verdict = Verdict::default();
    for experiment in chosen {
        let row = one(&scene, experiment, Duration::from_secs(args.steady), &mut verdict, bar).await;
        let gave_up = |error: &anyhow::Error| Row::without(experiment, Came::Failed, causes(error));
        let shown = row.as_ref().map_or_else(gave_up, Row::clone);
        progress::say(bar, &shown.line());
        report.rows.push(shown);
        row.with_context(|| format!("after {} nothing more was tried", experiment.name))?;
    }
    report.verdict = Some(verdict);
    Ok(())
}

/// An error: nothing further can be tried.
async fn one(
    scene: &Scene<'_>,
    experiment: &Experiment,
    steady: Duration,
    verdict: &mut Verdict,
    bar: &ProgressBar,
) -> Result<Row> {
    let say = |what: &str| bar.set_message(format!("{}: {what}", experiment.name));
    say("steady");
    recovery::recovered(scene.cluster, scene.before, scene.load).await?;
    tokio::time::sleep(steady).await;
    let from_ms = scene.load.now().await?.at_ms;
    let pods = scene.cluster.pods().await?;
    say("the fault");
    let made = scene.make(experiment.fault).await;
    let (detail, over) = match made {
        Ok(Made::Hit { what, over }) => (what, over),
        Ok(Made::Skipped(why)) => return Ok(Row::without(experiment, Came::Skipped, why)),
        Err(error) => {
            // The others are still worth trying, once this is undone.
            say("healing");
            heal::faults(scene.cluster, scene.agents, &|line: &str| progress::say(bar, line)).await?;
            let why = causes(&error);
            recovery::recovered(scene.cluster, scene.before, scene.load).await?;
            let to_ms = scene.load.now().await?.at_ms;
            let now = scene.load.judge(from_ms, to_ms).await?;
            let mut row = Row::judged(experiment, why, 0.0, verdict, &now);
            row.result = Came::Failed;
            *verdict = now;
            return Ok(row);
        }
    };
    say("recovering");
    recovery::recovered(scene.cluster, scene.before, scene.load).await?;
    let recovery_s = over.elapsed().as_secs_f64();
    let to_ms = scene.load.now().await?.at_ms;
    say("judging");
    let now = scene.load.judge(from_ms, to_ms).await?;
    let mut row = Row::judged(experiment, detail, recovery_s, verdict, &now);
    *verdict = now;
    let after = scene.cluster.pods().await?;
    let others = cluster::replaced(&pods, &after, experiment.fault.spares());
    if !others.is_empty() {
        row.failed(&format!("restarted, though only Kafka was away: {}", others.join(", ")));
    }
    Ok(row)
}
