//! What an orderer counts. Declared here once; nothing in a label says anything about a patient.

use std::sync::LazyLock;

use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, register_histogram, register_histogram_vec,
    register_int_counter, register_int_counter_vec, register_int_gauge,
};

macro_rules! metrics {
    ($($name:ident: $type:ty = $register:ident!($($argument:expr),+);)+) => {
        $(pub static $name: LazyLock<$type> = LazyLock::new(|| $register!($($argument),+).expect("declared once"));)+

        /// Makes every metric visible from the start, those that have not moved too.
        pub fn declare() {
            $(LazyLock::force(&$name);)+
        }
    };
}

fn seconds() -> Vec<f64> {
    vec![
        0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
    ]
}

fn sizes() -> Vec<f64> {
    vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]
}

metrics! {
    ADMITTED: IntCounterVec = register_int_counter_vec!(
        "medledger_orderer_admitted_total", "Transactions admitted, by the sending peer's organisation", &["organisation"]
    );
    ADMITTED_BYTES: IntCounterVec = register_int_counter_vec!(
        "medledger_orderer_admitted_bytes_total", "Bytes of admitted transactions, without certificates", &["organisation"]
    );
    REFUSED: IntCounterVec = register_int_counter_vec!(
        "medledger_orderer_refused_total", "Transactions refused, by problem code", &["code"]
    );
    CHECK_SECONDS: Histogram = register_histogram!(
        "medledger_orderer_check_seconds", "Checks of one list, from its arrival to its last verdict", seconds()
    );
    QUEUE_TRANSACTIONS: IntGauge = register_int_gauge!(
        "medledger_orderer_queue_transactions", "Transactions between arrival and answer"
    );
    QUEUE_BYTES: IntGauge = register_int_gauge!(
        "medledger_orderer_queue_bytes", "Bytes of transactions between arrival and answer"
    );
    BLOCKS: IntCounterVec = register_int_counter_vec!(
        "medledger_orderer_blocks_total", "Blocks of transactions sealed, by reason", &["reason"]
    );
    BLOCK_TRANSACTIONS: Histogram = register_histogram!(
        "medledger_orderer_block_transactions", "Transactions in a block", sizes()
    );
    APPEND_SECONDS: HistogramVec = register_histogram_vec!(
        "medledger_orderer_append_seconds", "From a block's sealing to the log's answer", &["outcome"], seconds()
    );
    APPEND_RETRIES: IntCounter = register_int_counter!(
        "medledger_orderer_append_retries_total", "Blocks offered again because the log did not take them"
    );
    IN_FLIGHT_BLOCKS: IntGauge = register_int_gauge!(
        "medledger_orderer_in_flight_blocks", "Blocks sent and not acknowledged"
    );
    IN_FLIGHT_BYTES: IntGauge = register_int_gauge!(
        "medledger_orderer_in_flight_bytes", "Bytes of blocks sent and not acknowledged"
    );
    ANSWERED: IntCounterVec = register_int_counter_vec!(
        "medledger_orderer_answered_total", "Admitted transactions answered, by receipt or problem code", &["outcome"]
    );
    HEARTBEATS: IntCounter = register_int_counter!(
        "medledger_orderer_heartbeats_total", "Empty blocks appended to idle partitions"
    );
    MARKERS: IntCounter = register_int_counter!(
        "medledger_orderer_markers_total", "Genesis markers appended"
    );
}
