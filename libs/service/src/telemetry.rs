//! What a process says: log lines as text or JSON, filtered by `RUST_LOG`, and where it panicked.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// How log lines look. `MEDLEDGER_LOG_FORMAT` overrides what the settings say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Starts logging to standard error and installs the panic hook. A second call does nothing.
pub fn init(format: Format) {
    let format = match std::env::var("MEDLEDGER_LOG_FORMAT").as_deref() {
        Ok("json") => Format::Json,
        Ok("text") => Format::Text,
        _ => format,
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(report_panic));
    }
}

/// Says where, and the message only if it is a literal: a formatted one may hold anything.
fn report_panic(info: &std::panic::PanicHookInfo<'_>) {
    let message = info
        .payload()
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("(not shown)");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(location, message, thread = thread.name().unwrap_or("unnamed"), "panic");
}

/// Between two lines about the same.
const SAID_AGAIN: Duration = Duration::from_secs(60);
/// Beyond so many within that time, others are counted only.
const NAMES_MAX: usize = 256;

/// For lines that somebody else's wrongs make: whoever lies often would fill the log, and a counter has their number.
#[derive(Default)]
pub struct Seldom(Mutex<HashMap<String, Instant>>);

impl Seldom {
    /// Whether a line about this may be said now: once a minute.
    pub fn may(&self, about: &str) -> bool {
        self.may_at(about, Instant::now())
    }

    fn may_at(&self, about: &str, now: Instant) -> bool {
        let mut said = self.0.lock();
        said.retain(|_, when| now.saturating_duration_since(*when) < SAID_AGAIN);
        if said.contains_key(about) || said.len() >= NAMES_MAX {
            return false;
        }
        said.insert(about.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute() {
        let (seldom, now) = (Seldom::default(), Instant::now());
        assert!(seldom.may_at("A", now) && !seldom.may_at("A", now));
        assert!(seldom.may_at("B", now), "others are others");
        assert!(!seldom.may_at("A", now + SAID_AGAIN / 2));
        assert!(seldom.may_at("A", now + SAID_AGAIN));
        let said = (0..2 * NAMES_MAX)
            .filter(|n| seldom.may_at(&n.to_string(), now + SAID_AGAIN))
            .count();
        assert!(said < NAMES_MAX, "bounded, however many names there are");
    }
}
