//! The peer's process: settings → telemetry → build → serve → drain.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand};
use peer::{config::Config, run};
use service::{Tasks, settings, telemetry};

/// One organisation's copy of the ledger, and its people's way to it
#[derive(Parser)]
#[command(name = "medledger-peer", version)]
struct Args {
    /// Settings, TOML
    #[arg(long, value_name = "FILE", env = "MEDLEDGER_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// The attester's guard: what was signed last
    Guard {
        #[command(subcommand)]
        command: GuardCommand,
    },
}

#[derive(Subcommand)]
enum GuardCommand {
    /// Makes the guard file, once, together with the attester's key
    Init {
        /// Do nothing if this attester's guard is there. DANGEROUS unless something else than the guard's own
        /// disk remembers that it was made: a lost guard would be made anew, and the attester might sign a second header
        /// for one height
        #[arg(long)]
        if_absent: bool,
    },
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config: Config = settings::load(&args.config.context("--config FILE is missing")?)?;
    telemetry::init(config.log);
    if let Some(Command::Guard {
        command: GuardCommand::Init { if_absent },
    }) = args.command
    {
        return Ok(run::init_guard(&config, if_absent)?);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let tasks = Tasks::lingering(Duration::from_millis(config.linger_on_end_ms));
    let ended = runtime.block_on(async {
        tasks.end_on_signals()?;
        run::serve(&tasks, config).await?;
        tasks.wait(Duration::from_secs(20)).await?;
        anyhow::Ok(())
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    ended
}
