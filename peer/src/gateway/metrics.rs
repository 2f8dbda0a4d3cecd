//! What operators see of gateway, endorser and workers. Labels are words of the interface, never data.

use std::sync::LazyLock;
use std::time::Instant;

use prometheus::{
    HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, register_histogram_vec, register_int_counter,
    register_int_counter_vec, register_int_gauge, register_int_gauge_vec,
};
use service::Problem;

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ident = $register:ident($metric:literal $(, $extra:expr)*);)+) => {
        $($(#[doc = $doc])+ pub static $name: LazyLock<$type> = LazyLock::new(|| {
            $register!($metric, concat!($($doc,)+).trim_ascii() $(, $extra)*).expect("declared once")
        });)+

        /// So that all are there, at zero, from the start.
        pub fn declare() {
            $(LazyLock::force(&$name);)+
        }
    };
}

/// From a query in memory to a transaction that waits for its quorum.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];

metrics! {
    /// Requests by verb and outcome: ok, or the word of the refusal
    REQUESTS: IntCounterVec = register_int_counter_vec("medledger_gateway_requests_total", &["verb", "outcome"]);
    /// Time from a request to its answer, by verb
    SECONDS_BY_VERB: HistogramVec = register_histogram_vec("medledger_gateway_request_seconds", &["verb"], SECONDS.to_vec());
    /// Requests under way, by gate
    IN_FLIGHT: IntGaugeVec = register_int_gauge_vec("medledger_gateway_in_flight", &["gate"]);
    /// Bytes of the requests under way, by gate
    IN_FLIGHT_BYTES: IntGaugeVec = register_int_gauge_vec("medledger_gateway_in_flight_bytes", &["gate"]);
    /// Transactions endorsed again after a conflict
    REENDORSEMENTS: IntCounter = register_int_counter("medledger_gateway_reendorsements_total");
    /// Transactions given to orderers, by outcome
    BROADCASTS: IntCounterVec = register_int_counter_vec("medledger_gateway_broadcasts_total", &["outcome"]);
    /// Validation codes of transactions that clients here waited for
    JUDGED: IntCounterVec = register_int_counter_vec("medledger_gateway_judged_total", &["code"]);
    /// Event and block streams open
    STREAMS: IntGauge = register_int_gauge("medledger_gateway_streams");
    /// Endorsements made here, by outcome: ok, or the word of the refusal
    ENDORSEMENTS: IntCounterVec = register_int_counter_vec("medledger_endorser_endorsements_total", &["outcome"]);
    /// Calls of workers by kind and outcome: ok, the worker's word, or lost
    WORKER_CALLS: IntCounterVec = register_int_counter_vec("medledger_workers_calls_total", &["call", "outcome"]);
    /// Calls that were tried again on another worker
    WORKER_RETRIES: IntCounter = register_int_counter("medledger_workers_retries_total");
    /// Modules sent to workers
    WORKER_MODULES: IntCounter = register_int_counter("medledger_workers_modules_sent_total");
    /// Workers connected
    WORKERS_UP: IntGauge = register_int_gauge("medledger_workers_up");
    /// Other peers that answer, by organisation
    PEERS_ALIVE: IntGaugeVec = register_int_gauge_vec("medledger_peers_alive", &["organisation"]);
}

/// The outcome's word for a label.
pub fn outcome<T>(result: &Result<T, Problem>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(problem) => problem.code.as_str(),
    }
}

/// One request of a verb, counted when its answer is known.
pub struct Request {
    verb: &'static str,
    began: Instant,
}

impl Request {
    pub fn begin(verb: &'static str) -> Self {
        Request {
            verb,
            began: Instant::now(),
        }
    }

    pub fn end(self, outcome: &'static str) {
        REQUESTS.with_label_values(&[self.verb, outcome]).inc();
        SECONDS_BY_VERB
            .with_label_values(&[self.verb])
            .observe(self.began.elapsed().as_secs_f64());
    }
}
