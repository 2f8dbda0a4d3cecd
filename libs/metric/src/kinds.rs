//! The six things a declaration can be made into.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    core::{Collector, MetricVec, MetricVecBuilder},
};

use crate::{About, Histogram};

/// As Prometheus calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

pub trait Make: Sized + 'static {
    const KIND: Kind;
    /// Registers it. A name that is declared twice, or breaks Prometheus' rules, is a defect: it panics.
    fn make(about: &About) -> Self;
}

fn made<M: Collector + Clone + 'static>(metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("a name and labels that Prometheus takes");
    prometheus::register(Box::new(metric.clone())).expect("declared once");
    metric
}

/// Every combination of the known values of its labels.
fn known<B: MetricVecBuilder>(metric: MetricVec<B>, about: &About) -> MetricVec<B> {
    let mut all = vec![Vec::new()];
    for values in about.known {
        let longer = |before: &Vec<&'static str>| {
            let before = before.clone();
            values.iter().map(move |value| [&before[..], &[*value]].concat())
        };
        all = all.iter().flat_map(longer).collect();
    }
    if !about.known.is_empty() {
        for values in all {
            let _at_zero = metric.with_label_values(&values);
        }
    }
    metric
}

impl Make for IntCounter {
    const KIND: Kind = Kind::Counter;

    fn make(about: &About) -> Self {
        made(IntCounter::new(about.name, about.help))
    }
}

impl Make for IntCounterVec {
    const KIND: Kind = Kind::Counter;

    fn make(about: &About) -> Self {
        let metric = made(IntCounterVec::new(Opts::new(about.name, about.help), about.labels));
        known(metric, about)
    }
}

impl Make for IntGauge {
    const KIND: Kind = Kind::Gauge;

    fn make(about: &About) -> Self {
        made(IntGauge::new(about.name, about.help))
    }
}

impl Make for IntGaugeVec {
    const KIND: Kind = Kind::Gauge;

    fn make(about: &About) -> Self {
        let metric = made(IntGaugeVec::new(Opts::new(about.name, about.help), about.labels));
        known(metric, about)
    }
}

fn histogram(about: &About) -> HistogramOpts {
    HistogramOpts::new(about.name, about.help).buckets(about.buckets.to_vec())
}

impl Make for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn make(about: &About) -> Self {
        made(Histogram::with_opts(histogram(about)))
    }
}

impl Make for HistogramVec {
    const KIND: Kind = Kind::Histogram;

    fn make(about: &About) -> Self {
        let metric = made(HistogramVec::new(histogram(about), about.labels));
        known(metric, about)
    }
}
