//! What is seen of Kafka from here.

metric::declare! {
    /// 1 while Kafka answers, else 0
    pub(crate) REACHABLE: Gauge = "medledger_log_reachable";
    /// Errors in talking to Kafka, by what was being done
    pub(crate) ERRORS: Counters = "medledger_log_errors_total" by ["during"] of [DURING];
    /// Appends by outcome: acknowledged, unknown, late (acknowledged after its caller was told unknown), unavailable, too_large
    pub(crate) APPENDS: Counters = "medledger_log_appends_total" by ["topic", "outcome"];
    /// Bytes of acknowledged records
    pub(crate) APPEND_BYTES: Counters = "medledger_log_append_bytes_total" by ["topic"];
    /// From the append to the acknowledgement of all in-sync replicas
    pub(crate) APPEND_SECONDS: Histograms = "medledger_log_append_seconds" by ["topic"]
        in &[0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
    /// Bytes appended and not yet acknowledged
    pub(crate) APPEND_IN_FLIGHT_BYTES: Gauge = "medledger_log_append_in_flight_bytes";
    /// Records that readers got
    pub(crate) RECORDS_READ: Counters = "medledger_log_records_read_total" by ["topic"];
    /// Bytes of the records that readers got
    pub(crate) READ_BYTES: Counters = "medledger_log_read_bytes_total" by ["topic"];
}

const DURING: &[&str] = &[
    "append",
    "bounds",
    "connection",
    "gap",
    "position",
    "probe",
    "producer",
    "read",
    "topics",
];
