//! `medledger`: one command, its answer, its exit code.

use std::process::ExitCode;

use clap::Parser as _;
use medledger_cli::args::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match medledger_cli::run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            medledger_cli::output::error(&error);
            ExitCode::FAILURE
        }
    }
}
