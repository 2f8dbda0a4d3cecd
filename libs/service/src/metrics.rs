//! What every process of ours is asked for, and what those have that call others or sign in batches.

use metric::Group;

metric::declare! {
    /// 1: the program and its version
    BUILD_INFO: Gauges = "medledger_build_info" by ["version", "role"];
    /// Checks of /health: 0 ok, 1 degraded, 2 starting, 3 failed
    pub(crate) HEALTH: Gauges = "medledger_health" by ["check"];
    /// Connections with a verified certificate
    pub(crate) CONNECTIONS: Gauge = "medledger_connections";
    /// Connections refused or cut, by reason; those that begin with certificate_ are refused handshakes
    pub(crate) CONNECTIONS_REFUSED: Counters = "medledger_connections_refused_total" by ["reason"] of [REFUSALS];
    /// When this process's own certificate ends, seconds since 1970
    pub(crate) CERTIFICATE_EXPIRES: Gauge = "medledger_certificate_expires_seconds";
    /// Certificates on the revocation lists that are in force here, by the organisation that revoked them
    pub(crate) REVOKED: Gauges = "medledger_revoked_certificates" by ["msp"];
    /// Items of a stream of lists that were accepted and are not answered yet
    pub(crate) SERVE_IN_FLIGHT: Gauges = "medledger_serve_in_flight" by ["call"];
    /// Items of streams of lists, by what became of them: accepted or refused
    pub(crate) SERVE_ITEMS: Counters = "medledger_serve_items_total" by ["call", "outcome"];
}

/// Why a connection is refused or cut.
const REFUSALS: &[&str] = &[
    "certificate_expired",
    "certificate_invalid",
    "certificate_missing",
    "certificate_revoked",
    "certificate_stranger",
    "connections",
    "connections_of_identity",
    "handshake",
    "handshake_deadline",
    "handshakes",
    "handshakes_of_source",
    "no_longer_trusted",
    "silent",
];

/// Of processes that call others by streams of lists.
pub mod calls {
    metric::declare! {
        /// Calls sent or queued that wait for their reply
        pub(crate) WAITING: Gauges = "medledger_call_waiting" by ["call"] of [CALLS];
        /// Bytes queued for a stream of lists
        pub(crate) QUEUE_BYTES: Gauges = "medledger_call_queue_bytes" by ["call"] of [CALLS];
        /// Streams of lists that broke
        pub(crate) BREAKS: Counters = "medledger_call_stream_breaks_total" by ["call"] of [CALLS];
        /// Calls refused because the queue is full
        pub(crate) REFUSED: Counters = "medledger_call_refused_total" by ["call"] of [CALLS];
    }

    /// What a peer calls: orderers, other peers' endorsers, workers.
    const CALLS: &[&str] = &["broadcast", "endorse", "work"];
}

/// Of processes that sign for the ledger.
pub mod signer {
    metric::declare! {
        /// Contents under one signature
        pub(crate) BATCH: Histogram = "medledger_signer_batch_items"
            in &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
    }
}

/// At a process's start: makes visible what it has, whether it moves or not.
pub fn start(role: &str, groups: &[Group]) {
    groups.iter().for_each(|group| metric::register(group));
    let version = env!("CARGO_PKG_VERSION");
    BUILD_INFO.with_label_values(&[version, role]).set(1);
}
