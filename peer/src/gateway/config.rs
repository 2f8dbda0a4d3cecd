//! What an operator may set of the gateway. Every field has a default and its unit in the name.

use std::time::Duration;

use protocol::limits::{
    ARGUMENTS_BYTES_MAX, BLOCKS_PER_SECOND_MAX, GRPC_MESSAGE_BYTES_MAX, HEIGHTS_IN_TIME_MAX, TRANSACTION_BYTES_MAX,
};
use serde::Deserialize;
use service::{quota, settings::Broken};

/// Byte quotas by mTLS identity, taken before anything else is done with a request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    pub client_bytes_per_second: u64,
    pub client_burst_bytes: u64,
    /// Of another peer that asks for endorsements.
    pub peer_bytes_per_second: u64,
    pub peer_burst_bytes: u64,
    /// Identities whose quota is remembered.
    pub identities_max: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Quotas {
            client_bytes_per_second: 32 * 1024 * 1024,
            client_burst_bytes: 32 * 1024 * 1024,
            peer_bytes_per_second: 64 * 1024 * 1024,
            peer_burst_bytes: 64 * 1024 * 1024,
            identities_max: 10_000,
        }
    }
}

impl Quotas {
    pub fn client(&self) -> quota::Config {
        self.bucket(self.client_bytes_per_second, self.client_burst_bytes)
    }

    pub fn peer(&self) -> quota::Config {
        self.bucket(self.peer_bytes_per_second, self.peer_burst_bytes)
    }

    fn bucket(&self, bytes_per_second: u64, burst_bytes: u64) -> quota::Config {
        // Less than one call would refuse it for ever.
        let burst_bytes = burst_bytes.max(4 * ARGUMENTS_BYTES_MAX as u64);
        quota::Config {
            bytes_per_second,
            burst_bytes,
            identities_max: self.identities_max,
        }
    }
}

/// Bounds of what is under way at once, and how long things may take.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Submits under way, and as many reads; more are refused at once. At 2,000 tx/s and 100 ms some
    /// 200 are under way: five times that keeps the pipeline full and the waiting below a second.
    pub in_flight_max: usize,
    pub in_flight_bytes_max: usize,
    /// While most take longer, fewer are let in: as many as are served in that time. Well above what an
    /// idle network takes, or little is let in for ever. 0: always `in_flight_max`.
    pub answer_target_ms: u64,
    /// Endorsements for other peers under way.
    pub endorsements_in_flight_max: usize,
    pub endorsements_in_flight_bytes_max: usize,
    /// When a refused caller should come back.
    pub retry_after_ms: u64,
    /// For a submit that names none.
    pub timeout_ms: u32,
    pub timeout_ms_max: u32,
    /// One endorsement, wherever it is made.
    pub endorse_timeout_ms: u64,
    /// One query.
    pub evaluate_timeout_ms: u64,
    /// How long an endorser waits for the named height.
    pub snapshot_wait_ms: u64,
    /// Endorsements of one proposal, the first included, before a conflict is the client's problem.
    pub endorsements_max: u32,
    /// How long an endorsed transaction waits for orderers that are full or without log.
    pub order_patience_ms: u64,
    /// How far ahead the gateway puts a height bound: a minute of blocks at the highest rate.
    pub height_bound_ahead: u64,
    /// Event and block streams open at once.
    pub streams_max: usize,
    /// Of those, one client's: each may hold a Kafka client of its own.
    pub streams_each_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            in_flight_max: 1_024,
            in_flight_bytes_max: 64 * 1024 * 1024,
            answer_target_ms: 500,
            endorsements_in_flight_max: 4_096,
            endorsements_in_flight_bytes_max: 64 * 1024 * 1024,
            retry_after_ms: 200,
            timeout_ms: 30_000,
            timeout_ms_max: 120_000,
            endorse_timeout_ms: 5_000,
            evaluate_timeout_ms: 10_000,
            snapshot_wait_ms: 500,
            endorsements_max: 6,
            order_patience_ms: 2_000,
            height_bound_ahead: u64::from(BLOCKS_PER_SECOND_MAX) * 60,
            streams_max: 256,
            streams_each_max: 16,
        }
    }
}

impl Limits {
    /// Nothing that may be under way, and no wait, is 0: whoever meant none at all would serve nobody.
    pub(crate) fn check(&self) -> Result<(), Broken> {
        let bytes_min = TRANSACTION_BYTES_MAX as u64;
        let rules = [
            ("in_flight_max", self.in_flight_max as u64, 1),
            ("in_flight_bytes_max", self.in_flight_bytes_max as u64, bytes_min),
            ("endorsements_in_flight_max", self.endorsements_in_flight_max as u64, 1),
            (
                "endorsements_in_flight_bytes_max",
                self.endorsements_in_flight_bytes_max as u64,
                bytes_min,
            ),
            ("retry_after_ms", self.retry_after_ms, 1),
            ("timeout_ms", self.timeout_ms.into(), 1),
            ("timeout_ms_max", self.timeout_ms_max.into(), self.timeout_ms.into()),
            ("endorse_timeout_ms", self.endorse_timeout_ms, 1),
            ("evaluate_timeout_ms", self.evaluate_timeout_ms, 1),
            ("endorsements_max", self.endorsements_max.into(), 1),
            ("streams_max", self.streams_max as u64, 1),
            ("streams_each_max", self.streams_each_max as u64, 1),
        ];
        match rules.iter().find(|(_, value, least)| value < least) {
            Some((field, value, least)) => Err(Broken::new(
                format!("limits.{field}"),
                format!("at least {least}, not {value}"),
            )),
            None => Ok(()),
        }
    }

    pub fn retry_after(&self) -> Duration {
        Duration::from_millis(self.retry_after_ms)
    }

    pub fn answer_target(&self) -> Option<Duration> {
        (self.answer_target_ms > 0).then(|| Duration::from_millis(self.answer_target_ms))
    }

    pub fn endorse_timeout(&self) -> Duration {
        Duration::from_millis(self.endorse_timeout_ms)
    }

    pub fn evaluate_timeout(&self) -> Duration {
        Duration::from_millis(self.evaluate_timeout_ms)
    }

    pub fn snapshot_wait(&self) -> Duration {
        Duration::from_millis(self.snapshot_wait_ms)
    }

    /// What a client asked for, within bounds; 0 is the default.
    pub fn timeout(&self, asked_ms: u32) -> Duration {
        let ms = if asked_ms == 0 { self.timeout_ms } else { asked_ms };
        Duration::from_millis(ms.min(self.timeout_ms_max).into())
    }

    /// Where a proposal's bound is put, seen from `height`, under the channel's L.
    pub fn height_bound(&self, height: u64, heights_in_time_max: u64) -> u64 {
        height
            + self
                .height_bound_ahead
                .clamp(1, heights_in_time_max.min(HEIGHTS_IN_TIME_MAX) - 1)
    }
}

/// The largest request by REST: arguments, and a signed proposal in hexadecimal beside them.
pub const REST_BODY_BYTES_MAX: usize = ARGUMENTS_BYTES_MAX * 3 + 64 * 1024;
const _: () = assert!(REST_BODY_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_ahead_and_in_time() {
        let limits = Limits::default();
        assert_eq!(limits.height_bound(10, 65_536), 6_010);
        assert_eq!(limits.height_bound(10, 100), 109);
    }

    #[test]
    fn unknown_settings_are_refused() {
        assert!(toml_like("{\"in_flight_max\": 1}").is_ok());
        assert!(toml_like("{\"in_flight\": 1}").is_err());
    }

    #[test]
    fn a_limit_that_would_serve_nobody_is_refused_by_name() {
        assert_eq!(Limits::default().check(), Ok(()));
        let nobody = toml_like("{\"endorse_timeout_ms\": 0}").expect("parses").check();
        assert_eq!(
            nobody,
            Err(Broken::new("limits.endorse_timeout_ms", "at least 1, not 0"))
        );
        let short = toml_like("{\"timeout_ms_max\": 10}").expect("parses").check();
        assert_eq!(
            short,
            Err(Broken::new("limits.timeout_ms_max", "at least 30000, not 10"))
        );
    }

    fn toml_like(json: &str) -> Result<Limits, serde_json::Error> {
        serde_json::from_str(json)
    }
}
