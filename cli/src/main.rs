//! `medledger`: one command, its answer, its exit code.

use std::process::ExitCode;

use clap::Parser as _;
use medledger_cli::{args::Cli, output::Output};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return usage_error(&usage),
    };
    let output = cli.output;
    match medledger_cli::run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::FAILURE
        }
    }
}

/// A line that was not understood, or only asked for help.
fn usage_error(usage: &clap::Error) -> ExitCode {
    let said: Vec<String> = std::env::args().collect();
    let json = said.iter().any(|word| word == "--output=json")
        || said.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json");
    if json && usage.use_stderr() {
        let text = usage.to_string();
        let text = text.trim_start_matches("error: ").trim_end();
        Output::Json.error(&anyhow::Error::msg(text.to_owned()));
        return ExitCode::from(2);
    }
    usage.exit()
}
