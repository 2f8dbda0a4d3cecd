//! What an orderer counts.

use metric::Group;
use protocol::genesis::Channel;
use service::Code;

use crate::config::Bounds;

metric::declare! {
    /// 1 once admission is open: the control chain is prepared and every partition has its marker
    pub(crate) OPEN: Gauge = "medledger_orderer_open";
    /// Transactions admitted, by the sending peer's organisation
    pub(crate) ADMITTED: Counters = "medledger_orderer_admitted_total" by ["msp"];
    /// Bytes of admitted transactions, without certificates
    pub(crate) ADMITTED_BYTES: Counters = "medledger_orderer_admitted_bytes_total" by ["msp"];
    /// Transactions refused, by the word of the refusal
    pub(crate) REFUSED: Counters = "medledger_orderer_refused_total" by ["code"] of [Code::WORDS];
    /// Checks of one list, from its arrival to its last verdict
    pub(crate) CHECK_SECONDS: Histogram = "medledger_orderer_check_seconds" in SECONDS;
    /// Transactions between arrival and answer
    pub(crate) QUEUE_TRANSACTIONS: Gauge = "medledger_orderer_queue_transactions";
    /// Bytes of transactions between arrival and answer
    pub(crate) QUEUE_BYTES: Gauge = "medledger_orderer_queue_bytes";
    /// Bytes that there is room for between arrival and answer; one organisation alone gets half of it
    pub(crate) QUEUE_BYTES_MAX: Gauge = "medledger_orderer_queue_bytes_max";
    /// Blocks of transactions sealed, by reason
    pub(crate) BLOCKS: Counters = "medledger_orderer_blocks_total" by ["reason"] of [crate::batcher::Reason::WORDS];
    /// Transactions in a block
    pub(crate) BLOCK_TRANSACTIONS: Histogram = "medledger_orderer_block_transactions"
        in &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];
    /// From a block's sealing to the log's answer, with every further attempt
    pub(crate) APPEND_SECONDS: Histograms = "medledger_orderer_append_seconds" by ["outcome"]
        of [&["acknowledged", "unknown", "unavailable"]] in SECONDS;
    /// Blocks offered again because the log did not take them
    pub(crate) APPEND_RETRIES: Counter = "medledger_orderer_append_retries_total";
    /// Blocks sent and not acknowledged
    pub(crate) IN_FLIGHT_BLOCKS: Gauge = "medledger_orderer_in_flight_blocks";
    /// Bytes of blocks sent and not acknowledged
    pub(crate) IN_FLIGHT_BYTES: Gauge = "medledger_orderer_in_flight_bytes";
    /// Admitted transactions answered, by outcome: receipt, or the word of the refusal
    pub(crate) ANSWERED: Counters = "medledger_orderer_answered_total" by ["outcome"]
        of [&["receipt", "log_unavailable", "unknown_outcome", "unavailable"]];
    /// Empty blocks appended to idle partitions
    pub(crate) HEARTBEATS: Counter = "medledger_orderer_heartbeats_total";
    /// Genesis markers appended
    pub(crate) MARKERS: Counter = "medledger_orderer_markers_total";
}

const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// What is known before anything comes.
pub(crate) fn known(channel: &Channel, bounds: &Bounds) {
    QUEUE_BYTES_MAX.set(i64::try_from(bounds.queue_bytes_max).unwrap_or(i64::MAX));
    for organisation in channel.organisations() {
        ADMITTED.with_label_values(&[organisation]).inc_by(0);
        ADMITTED_BYTES.with_label_values(&[organisation]).inc_by(0);
    }
}

/// Everything that an orderer's process has.
pub fn all() -> Vec<Group> {
    vec![
        service::metrics::DECLARED,
        service::metrics::signer::DECLARED,
        ledger_log::metrics::DECLARED,
        DECLARED,
    ]
}
