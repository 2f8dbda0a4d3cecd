//! What operators see of the commit path.

use std::{sync::LazyLock, time::Duration};

use prometheus::{
    HistogramVec, IntCounterVec, IntGaugeVec, register_histogram_vec, register_int_counter_vec, register_int_gauge_vec,
};
use protocol::CONTROL;

static HEIGHT: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register_int_gauge_vec!("medledger_peer_height", "Newest committed height", &["partition"]).expect("declared once")
});
static ATTESTED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register_int_gauge_vec!(
        "medledger_peer_attested_height",
        "Newest height that a quorum attests",
        &["partition"]
    )
    .expect("declared once")
});
static JUDGED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "medledger_peer_transactions_total",
        "Judged transactions by validation code",
        &["code"]
    )
    .expect("declared once")
});
static EMPTY: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "medledger_peer_faulty_records_total",
        "Records that are empty blocks for a fault",
        &["partition"]
    )
    .expect("declared once")
});
static COMMIT: LazyLock<HistogramVec> = LazyLock::new(|| {
    let buckets = prometheus::exponential_buckets(0.0001, 2.0, 16).expect("constant");
    register_histogram_vec!(
        "medledger_peer_commit_seconds",
        "Judging and writing one batch of blocks",
        &["partition"],
        buckets
    )
    .expect("declared once")
});
static QUEUED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register_int_gauge_vec!(
        "medledger_peer_commit_queue_bytes",
        "Records read and not yet committed",
        &["partition"]
    )
    .expect("declared once")
});
static STOPPED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register_int_gauge_vec!(
        "medledger_peer_stopped",
        "1: the partition stands still, see the log",
        &["partition"]
    )
    .expect("declared once")
});

fn label(partition: u32) -> String {
    if partition == CONTROL {
        "control".to_owned()
    } else {
        partition.to_string()
    }
}

pub fn committed(partition: u32, height: u64, took: Duration) {
    let label = label(partition);
    HEIGHT.with_label_values(&[&label]).set(height as i64);
    COMMIT.with_label_values(&[&label]).observe(took.as_secs_f64());
    STOPPED.with_label_values(&[&label]).set(0);
}

pub fn judged(code: &str, count: u64) {
    JUDGED.with_label_values(&[code]).inc_by(count);
}

pub fn faulty(partition: u32) {
    EMPTY.with_label_values(&[&label(partition)]).inc();
}

pub fn queued(partition: u32, bytes: i64) {
    QUEUED.with_label_values(&[&label(partition)]).add(bytes);
}

pub fn stopped(partition: u32) {
    STOPPED.with_label_values(&[&label(partition)]).set(1);
}

pub fn attested(partition: u32, height: u64) {
    ATTESTED.with_label_values(&[&label(partition)]).set(height as i64);
}
