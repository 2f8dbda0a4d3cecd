//! `orderer.toml`. Paths are relative to the file.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ledger_log::kafka::KafkaSettings;
use protocol::limits::{BLOCK_BYTES_MAX, BLOCK_TRANSACTIONS_MAX, TRANSACTION_BYTES_MAX};
use serde::Deserialize;
use service::{
    quota,
    settings::{self, Broken},
    telemetry::Format,
};

use crate::batcher::{BYTES_MIN, Limits};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The bytes of `ledger.Genesis`: who belongs, which contracts.
    pub genesis: PathBuf,
    /// Components of the genesis' contracts; appended to the control chain when they are not there.
    #[serde(default)]
    pub modules: Vec<PathBuf>,
    /// `cert.pem`, `key.pem`: role orderer of a member.
    pub identity: PathBuf,
    /// Revocation lists of the members, read again when they change.
    pub crls: Option<PathBuf>,
    /// gRPC with mTLS.
    pub listen: SocketAddr,
    /// Health and metrics, plain HTTP.
    pub health: SocketAddr,
    /// When it is asked to end it is not ready at once, and serves so long before it drains: who sends here hears of
    /// it later.
    #[serde(default)]
    pub linger_on_end_ms: u64,
    /// A process that finds its certificate renewed ends within this time, so that replicas do not go at once.
    #[serde(default = "settings::renewal_spread_ms")]
    pub renewal_spread_ms: u64,
    #[serde(default)]
    pub log: Format,
    /// Warn instead of refusing to run when topics are replicated weakly: for one broker on a desk.
    #[serde(default)]
    pub allow_unsafe_topics: bool,
    /// Topics made here flush every record: survives a power cut of all brokers, costs throughput.
    #[serde(default)]
    pub flush_every_record: bool,
    pub kafka: KafkaSettings,
    #[serde(default)]
    pub batch: Batch,
    #[serde(default)]
    pub quota: Quotas,
    #[serde(default)]
    pub bounds: Bounds,
}

/// When a block is sealed.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    pub linger_ms: u64,
    pub transactions_max: usize,
    pub bytes_max: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Batch {
            linger_ms: 2,
            transactions_max: BLOCK_TRANSACTIONS_MAX,
            bytes_max: BLOCK_BYTES_MAX,
        }
    }
}

impl Batch {
    pub fn limits(&self) -> Limits {
        Limits {
            linger: Duration::from_millis(self.linger_ms),
            transactions_max: self.transactions_max,
            bytes_max: self.bytes_max,
        }
    }
}

/// What one peer and one organisation may send. A burst is what may come at once after a rest.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    pub peer_bytes_per_second: u64,
    pub peer_burst_bytes: u64,
    pub organisation_bytes_per_second: u64,
    pub organisation_burst_bytes: u64,
}

impl Default for Quotas {
    /// Far above 10,000 transactions a second: against a runaway, not against load.
    fn default() -> Self {
        Quotas {
            peer_bytes_per_second: 64 << 20,
            peer_burst_bytes: 64 << 20,
            organisation_bytes_per_second: 128 << 20,
            organisation_burst_bytes: 128 << 20,
        }
    }
}

impl Quotas {
    pub fn peer(&self) -> quota::Config {
        let (bytes_per_second, burst_bytes) = (self.peer_bytes_per_second, self.peer_burst_bytes);
        quota::Config {
            bytes_per_second,
            burst_bytes,
            identities_max: 4096,
        }
    }

    pub fn organisation(&self) -> quota::Config {
        let (bytes_per_second, burst_bytes) = (self.organisation_bytes_per_second, self.organisation_burst_bytes);
        quota::Config {
            bytes_per_second,
            burst_bytes,
            identities_max: 1024,
        }
    }
}

/// What may be under way here at once, and for how long.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// Transactions from their arrival to their answer. More are refused at once.
    pub queue_bytes_max: usize,
    /// Blocks of one partition sent and not acknowledged; more stay open meanwhile.
    pub in_flight_bytes_max: usize,
    /// Threads that check signatures. 0: on the callers' own, for simulations.
    pub check_threads: usize,
    /// How long a block that the log did not take is offered again.
    pub append_retry_ms: u64,
    /// While a block is not acknowledged for so long, its partition takes nothing more: a log that answers questions and
    /// keeps nothing, as with too few brokers. Longer than a failover, which callers do not notice.
    pub stalled_ms: u64,
    /// How long an ending orderer waits for acknowledgements.
    pub drain_ms: u64,
    /// An idle partition gets an empty block after this.
    pub heartbeat_ms: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            queue_bytes_max: 64 << 20,
            in_flight_bytes_max: 16 << 20,
            check_threads: std::thread::available_parallelism().map_or(2, usize::from),
            append_retry_ms: 10_000,
            stalled_ms: 5_000,
            drain_ms: 8_000,
            heartbeat_ms: 1_000,
        }
    }
}

impl settings::Settings for Config {
    fn check(&self) -> Result<(), Broken> {
        let broken = |field: &str, rule: String| Err(Broken::new(field, rule));
        settings::check_end(self.linger_on_end_ms, self.renewal_spread_ms)?;
        let Batch {
            linger_ms,
            transactions_max,
            bytes_max,
        } = self.batch;
        if linger_ms > 1_000 {
            return broken("batch.linger_ms", "at most 1000".into());
        }
        if !(1..=BLOCK_TRANSACTIONS_MAX).contains(&transactions_max) {
            return broken("batch.transactions_max", format!("1 to {BLOCK_TRANSACTIONS_MAX}"));
        }
        if !(BYTES_MIN..=BLOCK_BYTES_MAX).contains(&bytes_max) {
            return broken("batch.bytes_max", format!("{BYTES_MIN} to {BLOCK_BYTES_MAX}"));
        }
        let largest = (2 * BYTES_MIN) as u64;
        if self.quota.peer_burst_bytes < largest {
            return broken("quota.peer_burst_bytes", format!("at least {largest}"));
        }
        if self.quota.organisation_burst_bytes < largest {
            return broken("quota.organisation_burst_bytes", format!("at least {largest}"));
        }
        if self.bounds.queue_bytes_max < 4 * BYTES_MIN {
            return broken("bounds.queue_bytes_max", format!("at least {}", 4 * BYTES_MIN));
        }
        if self.bounds.in_flight_bytes_max < TRANSACTION_BYTES_MAX {
            return broken(
                "bounds.in_flight_bytes_max",
                format!("at least {TRANSACTION_BYTES_MAX}"),
            );
        }
        if self.bounds.stalled_ms < 1_000 {
            return broken("bounds.stalled_ms", "at least 1000".into());
        }
        if !(100..=60_000).contains(&self.bounds.heartbeat_ms) {
            return broken("bounds.heartbeat_ms", "100 to 60000".into());
        }
        Ok(self.kafka.check()?)
    }

    fn anchor(&mut self, base: &std::path::Path) {
        settings::anchor(base, &mut self.genesis);
        settings::anchor(base, &mut self.identity);
        self.modules
            .iter_mut()
            .for_each(|module| settings::anchor(base, module));
        if let Some(crls) = &mut self.crls {
            settings::anchor(base, crls);
        }
        if let Some(file) = &mut self.kafka.properties_file {
            settings::anchor(base, file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = r#"
genesis = "genesis.bin"
identity = "identity"
listen = "127.0.0.1:7050"
health = "127.0.0.1:7051"
[kafka]
brokers = ["127.0.0.1:9092"]
"#;

    fn check(more: &str, expected: Result<(), &str>) {
        check_text(&format!("{SMALLEST}{more}"), expected);
    }

    fn check_text(text: &str, expected: Result<(), &str>) {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("orderer.toml");
        std::fs::write(&file, text).expect("written");
        let loaded = settings::load::<Config>(&file);
        match (loaded, expected) {
            (Ok(config), Ok(())) => assert_eq!(config.genesis, directory.path().join("genesis.bin")),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (loaded, _) => panic!("{text}: {loaded:?}"),
        }
    }

    #[test]
    fn what_kafka_must_carry_is_checked_at_the_start() {
        check(
            "record_bytes_max = 1000000",
            Err("kafka.record_bytes_max: at least 7340032, not 1000000"),
        );
        check(
            "append_timeout_ms = 0",
            Err("kafka.append_timeout_ms: at least 1000, not 0"),
        );
    }

    #[test]
    fn a_process_does_not_linger_for_ever() {
        check_text(&format!("linger_on_end_ms = 60000{SMALLEST}"), Ok(()));
        check_text(
            &format!("linger_on_end_ms = 60001{SMALLEST}"),
            Err("linger_on_end_ms: at most 60000, not 60001"),
        );
    }

    #[test]
    fn everything_but_the_necessary_has_a_default() {
        check("", Ok(()));
        check("[batch]\nlinger_ms = 5\n[quota]\n[bounds]\nheartbeat_ms = 500", Ok(()));
    }

    #[test]
    fn values_out_of_range_are_named() {
        check("[batch]\nlinger_ms = 5000", Err("batch.linger_ms"));
        check("[batch]\ntransactions_max = 501", Err("batch.transactions_max"));
        check("[batch]\nbytes_max = 1000", Err("batch.bytes_max"));
        check("[quota]\npeer_burst_bytes = 1000", Err("quota.peer_burst_bytes"));
        check("[bounds]\nqueue_bytes_max = 1000", Err("bounds.queue_bytes_max"));
        check("[bounds]\nqueue = 1", Err("queue"));
        check("[batch]\nlinger = 1", Err("linger"));
    }
}
