//! What a command prints: text for people, or one JSON document for programs.

use std::{
    fmt::Display,
    io::{self, Write},
};

use anyhow::Result;
use serde::Serialize;

/// `--output`, for every command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

impl Output {
    /// Prints `value` as JSON or what `text` makes of it, to standard output.
    pub fn show<D: Display>(self, value: &impl Serialize, text: impl FnOnce() -> D) -> Result<()> {
        let shown = match self {
            Output::Text => text().to_string(),
            Output::Json => serde_json::to_string_pretty(value)?,
        };
        Ok(print(io::stdout().lock(), shown.trim_end_matches('\n'))?)
    }
}

/// Why a command failed, with its causes, to standard error.
pub fn error(error: &anyhow::Error) {
    // If standard error is gone there is nobody left to tell; the exit code still says it.
    let _ = print(io::stderr().lock(), &format!("error: {error:#}"));
}

fn print(mut out: impl Write, text: &str) -> io::Result<()> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Whoever reads has seen enough, as in `medledger … | head`.
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
