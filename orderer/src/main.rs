//! `medledger-orderer --config orderer.toml`

use std::time::Duration;

use clap::Parser;
use service::{Tasks, settings, telemetry};

/// An orderer of a Medledger channel: admits transactions, seals blocks, appends them to Kafka.
#[derive(Parser)]
#[command(name = "medledger-orderer", version)]
struct Args {
    #[command(flatten)]
    at: settings::ConfigArgs,
}

/// Longer than the drain of partitions and connections.
const END_DEADLINE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config: orderer::config::Config = settings::load(&args.at.config)?;
    telemetry::init(config.log);
    let tasks = Tasks::lingering(Duration::from_millis(config.linger_on_end_ms));
    tasks.end_on_signals()?;
    orderer::run(config, &tasks).await?;
    tasks.wait(END_DEADLINE).await?;
    Ok(())
}
