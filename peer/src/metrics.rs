//! What operators see of a peer: the ledger's metrics are in [`ledger`], the attester's in [`attester`], those of
//! gateway, endorser and workers here.

use std::time::Instant;

use metric::Group;
use service::Problem;

pub mod ledger;

metric::declare! {
    /// Requests by verb and outcome: ok, or the word of the refusal
    pub(crate) REQUESTS: Counters = "medledger_gateway_requests_total" by ["verb", "outcome"]
        of [VERBS, &["ok", "resource_exhausted", "log_unavailable", "deadline_exceeded", "unknown_outcome"]];
    /// Time from a request to its answer, by verb
    pub(crate) SECONDS_BY_VERB: Histograms = "medledger_gateway_request_seconds" by ["verb"] of [VERBS] in SECONDS;
    /// Parts of a submitted transaction's way: endorse (asked until the policy is satisfied), order (until the receipt),
    /// commit (from there until it is judged here), attest (from there until a quorum attests it, if the client waits for that)
    pub(crate) STAGE_SECONDS: Histograms = "medledger_gateway_stage_seconds" by ["stage"]
        of [&["endorse", "order", "commit", "attest"]] in SECONDS;
    /// Requests under way, by gate
    pub(crate) IN_FLIGHT: Gauges = "medledger_gateway_in_flight" by ["gate"] of [GATES];
    /// Requests that may be under way, by gate; fewer while answers take longer than the target
    pub(crate) IN_FLIGHT_MAX: Gauges = "medledger_gateway_in_flight_max" by ["gate"] of [GATES];
    /// Bytes of the requests under way, by gate
    pub(crate) IN_FLIGHT_BYTES: Gauges = "medledger_gateway_in_flight_bytes" by ["gate"] of [GATES];
    /// Transactions endorsed again after a conflict
    pub(crate) REENDORSEMENTS: Counter = "medledger_gateway_reendorsements_total";
    /// Transactions given to orderers, by outcome: ordered, unknown, or the word of the refusal
    pub(crate) BROADCASTS: Counters = "medledger_gateway_broadcasts_total" by ["outcome"]
        of [&["ordered", "unknown", "resource_exhausted", "log_unavailable", "unavailable"]];
    /// Validation codes of transactions that clients here waited for
    pub(crate) JUDGED: Counters = "medledger_gateway_judged_total" by ["code"] of [protocol::code::Code::WORDS];
    /// Event and block streams open
    pub(crate) STREAMS: Gauge = "medledger_gateway_streams";
    /// Proposals on which endorsers did not come to the same result
    pub(crate) MISMATCHES: Counter = "medledger_gateway_endorsement_mismatches_total";
    /// Answers of endorsers that are not of what was asked, or that others contradict, by the endorser's organisation
    pub(crate) ENDORSER_FAULTS: Counters = "medledger_gateway_endorser_faults_total" by ["msp"];
    /// Receipts of orderers that prove nothing (no_proof) or name a place where the transaction is not (not_there)
    pub(crate) RECEIPT_FAULTS: Counters = "medledger_gateway_receipt_faults_total" by ["reason"]
        of [&["no_proof", "not_there"]];
    /// Orderers connected
    pub(crate) ORDERERS_UP: Gauge = "medledger_orderers_up";
    /// Endorsements made here, by outcome: ok, or the word of the refusal
    pub(crate) ENDORSEMENTS: Counters = "medledger_endorser_endorsements_total" by ["outcome"]
        of [&["ok", "contract_rejected", "worker_unavailable", "resource_exhausted", "deadline_exceeded"]];
    /// Time from the question for an endorsement to its answer
    pub(crate) ENDORSEMENT_SECONDS: Histogram = "medledger_endorser_endorsement_seconds" in SECONDS;
    /// Calls of workers by kind and outcome: ok, the worker's word, or lost
    pub(crate) WORKER_CALLS: Counters = "medledger_workers_calls_total" by ["call", "outcome"]
        of [&["route", "invoke"], &["ok", "lost", "busy"]];
    /// Calls that were tried again on another worker
    pub(crate) WORKER_RETRIES: Counter = "medledger_workers_retries_total";
    /// Modules sent to workers
    pub(crate) WORKER_MODULES: Counter = "medledger_workers_modules_sent_total";
    /// Workers connected
    pub(crate) WORKERS_UP: Gauge = "medledger_workers_up";
    /// Other peers that answer, by organisation
    pub(crate) PEERS_ALIVE: Gauges = "medledger_peers_alive" by ["msp"];
}

/// Of the one peer of an organisation that attests.
pub mod attester {
    metric::declare! {
        /// Newest height that this attester signed
        pub(crate) SIGNED: Gauges = "medledger_attester_signed_height" by ["partition"];
        /// Writing the guard to disk, before every signature
        pub(crate) GUARD_SECONDS: Histogram = "medledger_attester_guard_seconds"
            in &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0];
    }
}

/// From a query in memory to a transaction that waits for its quorum.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];
const VERBS: &[&str] = &["prepare", "evaluate", "submit", "status", "endorse"];
const GATES: &[&str] = &["submit", "read", "stream", "endorse"];

/// Everything that a peer's process has.
pub fn all(attests: bool) -> Vec<Group> {
    let mut all = vec![
        service::metrics::DECLARED,
        service::metrics::calls::DECLARED,
        service::metrics::signer::DECLARED,
        ledger_log::metrics::DECLARED,
        ledger::DECLARED,
        DECLARED,
    ];
    if attests {
        all.push(attester::DECLARED);
    }
    all
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

/// The part of a transaction's way that began then has ended now.
pub(crate) fn stage(stage: &'static str, began: tokio::time::Instant) {
    let took = began.elapsed().as_secs_f64();
    STAGE_SECONDS.with_label_values(&[stage]).observe(took);
}
