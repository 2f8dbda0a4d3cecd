//! `medledger chaos judge`: holds a load's history against every peer's chains.
//!
//! ```text
//! history ─┐
//! chains  ─┼─► rules (pure) ─► Verdict
//! answers ─┘
//! ```

pub mod evidence;
pub mod ops;
pub mod rules;
#[cfg(test)]
mod tests;
pub mod verdict;

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::history;
use crate::{network::Network, output::Output};
use rules::Window;
pub use verdict::Verdict;

#[derive(Clone, Debug, clap::Args)]
pub struct JudgeArgs {
    /// Directory of the network
    #[arg(long, value_name = "DIR", default_value = crate::network::DEFAULT_DIRECTORY)]
    pub network: PathBuf,
    /// The load's history; the load may still run
    #[arg(long, value_name = "FILE")]
    pub history: PathBuf,
    /// Tell the gaps between acknowledgements from here on: milliseconds of the load's clock
    #[arg(long, value_name = "MS", requires = "to_ms")]
    pub from_ms: Option<u64>,
    /// And up to here
    #[arg(long, value_name = "MS", requires = "from_ms")]
    pub to_ms: Option<u64>,
}

pub async fn run(args: &JudgeArgs, output: Output) -> Result<()> {
    let network = Network::load(&args.network)?;
    let history = history::read(&args.history)?;
    let evidence = evidence::gather(&network, history).await?;
    let window = args.from_ms.zip(args.to_ms);
    let window = window.map(|(from_ms, to_ms)| Window { from_ms, to_ms });
    let verdict = rules::judge(&evidence, window);
    output.show(&verdict, || verdict.text())?;
    ensure!(verdict.ok(), "promises were broken: {:?}", verdict.broken);
    Ok(())
}
