//! What the worker counts.

use std::sync::LazyLock;

use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, register_histogram, register_histogram_vec,
    register_int_counter, register_int_counter_vec, register_int_gauge,
};

pub static CALLS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "medledger_worker_calls_total",
        "Calls, by kind (route, invoke) and outcome (ok, or the word of the failure)",
        &["call", "outcome"]
    )
    .expect("declared once")
});
pub static SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    register_histogram_vec!(
        "medledger_worker_call_seconds",
        "From the start of an instance to its end, with waiting for answers",
        &["call"],
        vec![
            10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 5e-3, 20e-3, 100e-3, 500e-3, 2.0, 10.0
        ]
    )
    .expect("declared once")
});
pub static FUEL: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("medledger_worker_fuel_total", "Fuel used by all calls").expect("declared once")
});
pub static QUESTIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "medledger_worker_questions_total",
        "Questions to peers, by kind",
        &["kind"]
    )
    .expect("declared once")
});
pub static QUEUE_ITEMS: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("medledger_worker_queue_items", "Calls that wait for a thread").expect("declared once")
});
pub static QUEUE_BYTES: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("medledger_worker_queue_bytes", "Bytes of calls that wait for a thread").expect("declared once")
});
pub static RUNNING: LazyLock<IntGauge> =
    LazyLock::new(|| register_int_gauge!("medledger_worker_running", "Guests that run").expect("declared once"));
pub static WAITING: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("medledger_worker_waiting", "Guests that wait for a peer's answer").expect("declared once")
});
pub static MODULES: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("medledger_worker_modules", "Compiled modules that are kept").expect("declared once")
});
pub static COMPILE_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    register_histogram!(
        "medledger_worker_compile_seconds",
        "Compiling a module",
        vec![0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
    )
    .expect("declared once")
});
