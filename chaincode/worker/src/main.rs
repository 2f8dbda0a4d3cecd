//! `medledger-worker`: settings → telemetry → serve → drain.

use std::time::Duration;

use clap::Parser;
use service::Tasks;
use service::health::Health;
use service::settings::{self, ConfigArgs};

const DRAIN_DEADLINE: Duration = Duration::from_secs(15);

/// Runs contracts for the peers of its organisation
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config: worker::Config = settings::load(&args.config.config)?;
    service::telemetry::init(config.log);
    let tasks = Tasks::lingering(Duration::from_millis(config.linger_on_end_ms));
    tasks.end_on_signals()?;
    let health = Health::new();
    worker::start(&config, &tasks, &health).await?;
    tasks.wait(DRAIN_DEADLINE).await?;
    Ok(())
}
