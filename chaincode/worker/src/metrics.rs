//! What the worker counts.

use metric::Group;

metric::declare! {
    /// Calls, by kind (route, invoke) and outcome: ok, or the word of the failure
    pub(crate) CALLS: Counters = "medledger_worker_calls_total" by ["call", "outcome"] of [KINDS, OUTCOMES];
    /// From the start of an instance to its end, with waiting for answers
    pub(crate) SECONDS: Histograms = "medledger_worker_call_seconds" by ["call"] of [KINDS]
        in &[10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 5e-3, 20e-3, 100e-3, 500e-3, 2.0, 10.0];
    /// Fuel used by all calls
    pub(crate) FUEL: Counter = "medledger_worker_fuel_total";
    /// Questions to peers, by kind
    pub(crate) QUESTIONS: Counters = "medledger_worker_questions_total" by ["kind"] of [&["range", "history", "list"]];
    /// Calls that wait for a thread
    pub(crate) QUEUE_ITEMS: Gauge = "medledger_worker_queue_items";
    /// Calls that may wait for a thread; one more is refused as busy
    pub(crate) QUEUE_ITEMS_MAX: Gauge = "medledger_worker_queue_items_max";
    /// Bytes of calls that wait for a thread
    pub(crate) QUEUE_BYTES: Gauge = "medledger_worker_queue_bytes";
    /// Guests that run
    pub(crate) RUNNING: Gauge = "medledger_worker_running";
    /// Guests that may run at the same time
    pub(crate) RUNNING_MAX: Gauge = "medledger_worker_running_max";
    /// Guests that wait for a peer's answer
    pub(crate) WAITING: Gauge = "medledger_worker_waiting";
    /// Compiled modules that are kept
    pub(crate) MODULES: Gauge = "medledger_worker_modules";
    /// Compiling a module
    pub(crate) COMPILE_SECONDS: Histogram = "medledger_worker_compile_seconds"
        in &[0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
}

const KINDS: &[&str] = &["route", "invoke"];
/// Those that rules and dashboards ask for; the others come when they happen.
const OUTCOMES: &[&str] = &["ok", "rejected", "busy", "timed_out", "trapped", "unanswered"];

/// Everything that a worker's process has.
pub fn all() -> Vec<Group> {
    vec![service::metrics::DECLARED, DECLARED]
}
