//! What a command prints: text for people, or one JSON document for programs.

use std::{
    fmt::Display,
    io::{self, Write},
};

use anyhow::Result;
use serde::Serialize;
use service::{Problem, problem::Document};

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

impl Output {
    /// Why a command failed, to standard error.
    pub fn error(self, error: &anyhow::Error) {
        let text = match self {
            Output::Text => format!("error: {}", causes(error)),
            Output::Json => failure(error),
        };
        // If standard error is gone there is nobody left to tell; the exit code still says it.
        let _ = print(io::stderr().lock(), &text);
    }
}

/// An error and what led to it, each once: many errors repeat their cause in their own words.
pub fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            let joint = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{joint}{cause}");
        }
    }
    text
}

/// `error`, and what REST would say of a refusal: its code, the field, who is missing.
fn failure(error: &anyhow::Error) -> String {
    #[derive(Serialize)]
    struct Failure {
        error: String,
        #[serde(flatten)]
        refusal: Option<Document>,
    }
    let refusal = error.chain().find_map(|cause| cause.downcast_ref::<Problem>());
    let failure = Failure {
        error: causes(error),
        refusal: refusal.map(Problem::document),
    };
    serde_json::to_string_pretty(&failure).unwrap_or_default()
}

fn print(mut out: impl Write, text: &str) -> io::Result<()> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Whoever reads has seen enough, as in `medledger … | head`.
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;
    use service::Code;

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Outer(#[from] io::Error);

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::Error::from(Outer(io::Error::other("inner"))).context("doing");
        assert_eq!(causes(&error), "doing: outer: inner");
        let error = Err::<(), _>(io::Error::other("inner"))
            .context("doing")
            .expect_err("one");
        assert_eq!(causes(&error), "doing: inner");
    }

    #[test]
    fn an_error_in_json_has_the_refusals_code_and_fields() {
        let plain: serde_json::Value = serde_json::from_str(&failure(&anyhow::anyhow!("no"))).expect("json");
        assert_eq!(plain, serde_json::json!({"error": "no"}));
        let problem = Problem::new(Code::PolicyUnsatisfiable, "away").with_missing(["B".to_owned()]);
        let error = anyhow::Error::from(problem).context("transaction 00");
        let refused: serde_json::Value = serde_json::from_str(&failure(&error)).expect("json");
        assert_eq!(refused["code"], "policy_unsatisfiable");
        assert_eq!(refused["missing"], serde_json::json!(["B"]));
        assert!(
            refused["error"]
                .as_str()
                .is_some_and(|text| text.starts_with("transaction 00: "))
        );
    }
}
