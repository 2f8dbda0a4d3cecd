//! `medledger chaos`: faults under load on a Kubernetes cluster, and the judgement of what was promised meanwhile.
//!
//! ```text
//! run (outside, by kubectl) ── steady, fault, heal, recovered ──► table
//!   └─► pod of the load:  load ─► history ─► judge ◄─ every peer's chains
//! ```

pub mod history;
pub mod judge;
pub mod load;
pub mod run;

use anyhow::Result;
use clap::Subcommand;

use crate::output::Output;

#[derive(Debug, Subcommand)]
pub enum ChaosCommand {
    /// Faults on the cluster that kubectl reaches, under a load inside it; every promise is judged after each
    Run(run::RunArgs),
    /// Undo whatever a run left that was killed: faults, load and agents
    Heal(run::Release),
    /// Write and read at every gateway until told to end, and keep a history; a line of progress each second
    Load(load::LoadArgs),
    /// Hold a history against every peer's chains
    Judge(judge::JudgeArgs),
}

pub async fn run(command: ChaosCommand, output: Output) -> Result<()> {
    match command {
        ChaosCommand::Run(args) => run::run(&args, output).await,
        ChaosCommand::Heal(release) => run::heal(&release).await,
        ChaosCommand::Load(args) => load::run(&args).await,
        ChaosCommand::Judge(args) => judge::run(&args, output).await,
    }
}
