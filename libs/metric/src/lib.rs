//! The one way to declare a metric. Only this crate says `prometheus::`.
//!
//! ```
//! metric::declare! {
//!     /// Blocks sealed, by reason
//!     pub BLOCKS: Counters = "example_blocks_total" by ["reason"] of [&["count", "linger"]];
//!     /// From a block's sealing to the log's answer
//!     pub APPEND_SECONDS: Histogram = "example_append_seconds" in &[0.001, 0.01, 0.1, 1.0];
//! }
//! metric::register(DECLARED);
//! BLOCKS.with_label_values(&["count"]).inc();
//! assert!(metric::text().contains("example_blocks_total{reason=\"linger\"} 0"));
//! assert_eq!(metric::value("example_blocks_total{reason=\"count\"}"), 1.0);
//! ```
//! The comment is the help, in Prometheus and in `docs/metrics.md`. Names follow Prometheus: the unit last, base units,
//! `_total` for counters. Values of labels that are known beforehand are there at zero from the start, so that a rule
//! or a dashboard finds a series before the first event. What a label may be is [`LABELS`]: nothing about a patient.

mod kinds;

use std::{ops::Deref, sync::OnceLock};

use prometheus::TextEncoder;

pub use kinds::{Kind, Make};
/// What counts up, by the values of its labels.
pub type Counters = prometheus::IntCounterVec;
pub type Counter = prometheus::IntCounter;
pub type Gauges = prometheus::IntGaugeVec;
pub type Gauge = prometheus::IntGauge;
pub type Histograms = prometheus::HistogramVec;
pub type Histogram = prometheus::Histogram;

/// Every label that a metric may have, and what its values are. A test holds the declarations against it.
pub const LABELS: &[(&str, &str)] = &[
    ("age", "an age band of the reports: `under5`, `over5`"),
    ("area", "a first-level area of the reports"),
    ("call", "a verb between processes, or what a worker is called for"),
    ("check", "a check of `/health`"),
    ("code", "a validation code, or the stable word of a refusal"),
    ("during", "what was being done"),
    ("facility", "a facility of the reports"),
    ("gate", "which of a peer's bounds"),
    ("item", "an item of the reports' list of conditions"),
    ("kind", "a kind of question, or of bed"),
    // Not `organisation`: that is what the chart calls the organisation whose process is asked.
    ("msp", "the MSP id of an organisation"),
    ("outcome", "how it ended: `ok` or a stable word"),
    ("partition", "the number of a data partition, or `control`"),
    ("reason", "a stable word"),
    ("role", "`orderer`, `peer` or `worker`"),
    ("stage", "a part of a transaction's way"),
    ("state", "a state of beds"),
    ("topic", "a Kafka topic of the channel"),
    ("triage", "a triage category of the reports"),
    ("verb", "a verb of the gateway"),
    ("version", "the program's version"),
];

/// What is known of a metric before it has any value.
#[derive(Clone, Copy, Debug)]
pub struct About {
    pub name: &'static str,
    pub help: &'static str,
    pub labels: &'static [&'static str],
    /// By label, the values that are known beforehand; empty: none are.
    pub known: &'static [&'static [&'static str]],
    /// Upper bounds of a histogram's buckets.
    pub buckets: &'static [f64],
}

/// A declared metric; used as what it is made into, which is registered at the first use.
pub struct Declared<M> {
    about: About,
    made: OnceLock<M>,
}

impl<M> Declared<M> {
    pub const fn new(about: About) -> Self {
        Declared {
            about,
            made: OnceLock::new(),
        }
    }
}

impl<M: Make> Deref for Declared<M> {
    type Target = M;

    fn deref(&self) -> &M {
        self.made.get_or_init(|| M::make(&self.about))
    }
}

/// A metric of any kind.
pub trait Metric: Sync {
    fn about(&self) -> &About;
    fn kind(&self) -> Kind;
    /// Makes it visible, with the known values of its labels at zero.
    fn register(&self);
}

impl<M: Make + Send + Sync> Metric for Declared<M> {
    fn about(&self) -> &About {
        &self.about
    }

    fn kind(&self) -> Kind {
        M::KIND
    }

    fn register(&self) {
        let _registered: &M = self;
    }
}

/// Metrics that are declared together, for processes that have all of them.
pub type Group = &'static [&'static dyn Metric];

/// Declares metrics as statics, and all of them together as `DECLARED`.
#[macro_export]
macro_rules! declare {
    ($(
        $(#[doc = $help:literal])+
        $vis:vis $name:ident: $type:ident = $metric:literal
            $(by [$($label:literal),+] $(of [$($known:expr),+])?)?
            $(in $buckets:expr)?;
    )+) => {
        $(
            $(#[doc = $help])+
            $vis static $name: $crate::Declared<$crate::$type> = $crate::Declared::new($crate::About {
                name: $metric,
                help: concat!($($help),+).trim_ascii(),
                labels: &[$($($label),+)?],
                known: &[$($($($known),+)?)?],
                buckets: $crate::declare!(@buckets $($buckets)?),
            });
        )+

        /// All metrics that are declared here.
        pub static DECLARED: $crate::Group = &[$(&$name),+];
    };
    (@buckets) => { &[] };
    (@buckets $buckets:expr) => { $buckets };
}

/// Makes metrics visible from the start, those that have not moved too.
pub fn register(metrics: Group) {
    metrics.iter().for_each(|metric| metric.register());
}

/// Everything that is registered, and the process's own figures, as Prometheus reads it. An error is a defect of ours.
pub fn text() -> String {
    let mut text = String::new();
    let encoded = TextEncoder::new().encode_utf8(&prometheus::gather(), &mut text);
    encoded.map_or_else(|_| String::new(), |()| text)
}

/// What [`text`] says of one series, named as it stands there: `name{label="value"}`. Not there is 0, as before the first
/// event.
pub fn value(series: &str) -> f64 {
    let text = text();
    let said = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    said.map_or(0.0, |value| value.parse().expect("Prometheus' text has numbers"))
}

/// What [`text`] is, for `Content-Type`.
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// Names and helps of what this crate's library tells of a process by itself.
pub fn process() -> Vec<(String, String, Kind)> {
    let families = prometheus::gather().into_iter();
    let of_process = families.filter(|family| family.name().starts_with("process_"));
    of_process
        .map(|family| {
            let kind = match family.get_field_type() {
                prometheus::proto::MetricType::COUNTER => Kind::Counter,
                _ => Kind::Gauge,
            };
            (family.name().to_owned(), family.help().to_owned(), kind)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    declare! {
        /// Of two known labels
        PAIRS: Counters = "test_pairs_total" by ["call", "outcome"] of [&["a", "b"], &["ok"]];
        /// Of nothing known
        STRANGERS: Gauges = "test_strangers" by ["msp"];
        /// Alone
        ALONE: Histogram = "test_alone_seconds" in &[0.5, 1.0];
    }

    #[test]
    fn what_is_known_is_there_from_the_start() {
        register(DECLARED);
        let shown = text();
        for line in [
            "# HELP test_pairs_total Of two known labels",
            r#"test_pairs_total{call="a",outcome="ok"} 0"#,
            r#"test_pairs_total{call="b",outcome="ok"} 0"#,
            r#"test_alone_seconds_bucket{le="0.5"} 0"#,
        ] {
            assert!(shown.contains(line), "{line} is not in\n{shown}");
        }
        assert!(!shown.contains("test_strangers{"));
        STRANGERS.with_label_values(&["A"]).set(3);
        ALONE.observe(0.7);
        assert!(text().contains(r#"test_strangers{msp="A"} 3"#));
        assert!(text().contains(r#"test_alone_seconds_bucket{le="1"} 1"#));
        assert_eq!(PAIRS.about().labels, ["call", "outcome"]);
    }

    #[test]
    fn the_process_tells_of_itself() {
        let names: Vec<String> = process().into_iter().map(|(name, ..)| name).collect();
        assert!(
            names.iter().any(|name| name == "process_resident_memory_bytes"),
            "{names:?}"
        );
    }
}
