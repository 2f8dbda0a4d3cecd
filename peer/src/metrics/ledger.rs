//! From the log to attested blocks.

use std::{collections::VecDeque, time::Duration};

use protocol::{CONTROL, code::Code, genesis::Channel};
use tokio::time::Instant;

metric::declare! {
    /// Newest committed height
    HEIGHT: Gauges = "medledger_peer_height" by ["partition"];
    /// Newest height that a quorum attests
    ATTESTED: Gauges = "medledger_peer_attested_height" by ["partition"];
    /// Blocks in the log that are not committed here, as of a few seconds ago; stays as it is while Kafka is away
    BEHIND: Gauges = "medledger_peer_behind_blocks" by ["partition"];
    /// Committed blocks, empty ones too
    BLOCKS: Counters = "medledger_peer_blocks_total" by ["partition"];
    /// Judged transactions by validation code
    JUDGED: Counters = "medledger_peer_transactions_total" by ["code"] of [Code::WORDS];
    /// Records that are empty blocks for a fault
    FAULTY: Counters = "medledger_peer_faulty_records_total" by ["partition"];
    /// Judging and writing one batch of blocks
    COMMIT_SECONDS: Histograms = "medledger_peer_commit_seconds" by ["partition"] in &[
        0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2,
    ];
    /// From an orderer's append of a block, on its clock, to the commit here; blocks from before this process began are left out
    COMMIT_LAG_SECONDS: Histograms = "medledger_peer_commit_lag_seconds" by ["partition"] in LAGS;
    /// From a block's commit here until a quorum attests it
    ATTEST_LAG_SECONDS: Histograms = "medledger_peer_attest_lag_seconds" by ["partition"] in LAGS;
    /// Bytes of records read and not yet committed
    QUEUED_BYTES: Gauges = "medledger_peer_commit_queue_bytes" by ["partition"];
    /// 1: the partition stands still, the log and /health say why
    STOPPED: Gauges = "medledger_peer_stopped" by ["partition"];
    /// Bytes of the partition's state, indexes and blocks: files on disk and what is still in memory
    STATE_BYTES: Gauges = "medledger_peer_state_bytes" by ["partition"];
    /// Newest height that an organisation attests, whatever its header
    ORGANISATION_HEIGHT: Gauges = "medledger_peer_attestation_height" by ["msp", "partition"];
    /// Attestations of other headers than the ones here, by organisation
    CONTRADICTIONS: Counters = "medledger_peer_attestations_contradicting_total" by ["msp"];
    /// Attestations that count for nothing, by reason: malformed, elsewhere (another channel, or a height that cannot be),
    /// stranger (no attester of the config), signature
    ATTESTATIONS_REFUSED: Counters = "medledger_peer_attestations_refused_total" by ["reason"]
        of [&["malformed", "elsewhere", "stranger", "signature"]];
}

const LAGS: &[f64] = &[
    0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];

fn label(partition: u32) -> String {
    if partition == CONTROL {
        "control".to_owned()
    } else {
        partition.to_string()
    }
}

fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What is known before anything is read.
pub(crate) fn known(channel: &Channel) {
    for partition in (0..channel.partitions()).chain([CONTROL]) {
        let label = label(partition);
        for gauges in [&HEIGHT, &ATTESTED, &STOPPED] {
            gauges.with_label_values(&[&label]).set(0);
        }
        for organisation in channel.organisations() {
            ORGANISATION_HEIGHT.with_label_values(&[organisation, &label]).set(0);
        }
        // The control chain has no transactions, queue or state of this kind.
        if partition != CONTROL {
            for gauges in [&BEHIND, &QUEUED_BYTES, &STATE_BYTES] {
                gauges.with_label_values(&[&label]).set(0);
            }
            for counters in [&BLOCKS, &FAULTY] {
                counters.with_label_values(&[&label]).inc_by(0);
            }
        }
    }
    for organisation in channel.organisations() {
        CONTRADICTIONS.with_label_values(&[organisation]).inc_by(0);
        super::ENDORSER_FAULTS.with_label_values(&[organisation]).inc_by(0);
    }
}

/// At a start: how far a chain was.
pub(crate) fn reached(partition: u32, height: u64) {
    HEIGHT.with_label_values(&[&label(partition)]).set(gauge(height));
}

pub(crate) fn committed(partition: u32, height: u64, blocks: usize, took: Duration) {
    let label = label(partition);
    HEIGHT.with_label_values(&[&label]).set(gauge(height));
    BLOCKS.with_label_values(&[&label]).inc_by(blocks as u64);
    COMMIT_SECONDS.with_label_values(&[&label]).observe(took.as_secs_f64());
}

/// A block that was appended then is committed now. Clocks differ by a little: no lag is below zero.
pub(crate) fn lag(partition: u32, appended_unix_ms: u64, now_unix_ms: u64) {
    let lag_s = now_unix_ms.saturating_sub(appended_unix_ms) as f64 / 1000.0;
    COMMIT_LAG_SECONDS
        .with_label_values(&[&label(partition)])
        .observe(lag_s);
}

pub(crate) fn judged(code: &str, count: u64) {
    JUDGED.with_label_values(&[code]).inc_by(count);
}

pub(crate) fn faulty(partition: u32) {
    FAULTY.with_label_values(&[&label(partition)]).inc();
}

pub(crate) fn queued(partition: u32, bytes: i64) {
    QUEUED_BYTES.with_label_values(&[&label(partition)]).add(bytes);
}

pub(crate) fn stopped(partition: u32) {
    STOPPED.with_label_values(&[&label(partition)]).set(1);
}

pub(crate) fn behind(partition: u32, blocks: u64) {
    BEHIND.with_label_values(&[&label(partition)]).set(gauge(blocks));
}

pub(crate) fn state_bytes(partition: u32, bytes: u64) {
    STATE_BYTES.with_label_values(&[&label(partition)]).set(gauge(bytes));
}

pub(crate) fn attested_by(organisation: &str, partition: u32, height: u64) {
    ORGANISATION_HEIGHT
        .with_label_values(&[organisation, &label(partition)])
        .set(gauge(height));
}

pub(crate) fn contradicted(organisation: &str) {
    CONTRADICTIONS.with_label_values(&[organisation]).inc();
}

pub(crate) fn attestation_refused(reason: &str) {
    ATTESTATIONS_REFUSED.with_label_values(&[reason]).inc();
}

pub(crate) fn signed(partition: u32, height: u64) {
    super::attester::SIGNED
        .with_label_values(&[&label(partition)])
        .set(gauge(height));
}

/// Blocks that wait for their quorum, for how long it takes. Without one for long, the oldest are forgotten.
#[derive(Default)]
pub(crate) struct Awaited(VecDeque<(u64, Instant)>);

const AWAITED_MAX: usize = 1024;

impl Awaited {
    pub fn committed(&mut self, height: u64) {
        if self.0.back().is_none_or(|(newest, _)| *newest < height) {
            self.0.push_back((height, Instant::now()));
        }
        if self.0.len() > AWAITED_MAX {
            self.0.pop_front();
        }
    }

    pub fn attested(&mut self, partition: u32, height: u64) {
        let label = label(partition);
        ATTESTED.with_label_values(&[&label]).set(gauge(height));
        while let Some((_, since)) = self.0.pop_front_if(|(committed, _)| *committed <= height) {
            let lag_s = since.elapsed().as_secs_f64();
            ATTEST_LAG_SECONDS.with_label_values(&[&label]).observe(lag_s);
        }
    }
}
