//! Quotas in bytes per identity: token buckets, answered at once, with the time to wait.
//!
//! The number of identities that are remembered is bounded: those at rest are forgotten (their bucket
//! is full, so nothing is lost); if too many are active at once, the newcomers share one bucket.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{RateLimiter, state::InMemoryState, state::NotKeyed};
use serde::Deserialize;

use crate::problem::Problem;

/// A cell of the bucket. Coarser than a byte, so that a high rate does not round to nothing.
const CELL_BYTES: u64 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub bytes_per_second: u64,
    /// What may come at once after a rest. At least the largest single request.
    pub burst_bytes: u64,
    #[serde(default = "identities_max_default")]
    pub identities_max: usize,
}

fn identities_max_default() -> usize {
    10_000
}

/// Byte token buckets keyed by identity.
pub struct Quota<K: Hash + Eq + Clone> {
    name: &'static str,
    identities_max: usize,
    burst_bytes: u64,
    buckets: RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock>,
    strangers: RateLimiter<NotKeyed, InMemoryState, DefaultClock>,
    clock: DefaultClock,
}

impl<K: Hash + Eq + Clone> Quota<K> {
    /// `name` appears in refusals ("quota of this client").
    pub fn new(name: &'static str, config: Config) -> Self {
        let cells = |bytes: u64| {
            let cells = u32::try_from(bytes.div_ceil(CELL_BYTES)).unwrap_or(u32::MAX);
            NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN)
        };
        let rate = governor::Quota::per_second(cells(config.bytes_per_second)).allow_burst(cells(config.burst_bytes));
        Self {
            name,
            identities_max: config.identities_max.max(1),
            burst_bytes: config.burst_bytes,
            buckets: RateLimiter::keyed(rate),
            strangers: RateLimiter::direct(rate),
            clock: DefaultClock::default(),
        }
    }

    /// Takes `bytes` out of the bucket of `key`, or says after which time it would work.
    pub fn check(&self, key: &K, bytes: usize) -> Result<(), Exceeded> {
        let cells = u32::try_from((bytes as u64).div_ceil(CELL_BYTES)).unwrap_or(u32::MAX);
        let cells = NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN);
        if self.buckets.len() >= self.identities_max {
            self.buckets.retain_recent();
        }
        let verdict = if self.buckets.len() >= self.identities_max {
            self.strangers.check_n(cells)
        } else {
            self.buckets.check_key_n(key, cells)
        };
        match verdict {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => {
                let retry_after = not_until.wait_time_from(self.clock.now()).max(Duration::from_millis(1));
                Err(Exceeded {
                    quota: self.name,
                    retry_after: Some(retry_after),
                    burst_bytes: self.burst_bytes,
                })
            }
            Err(_) => Err(Exceeded {
                quota: self.name,
                retry_after: None,
                burst_bytes: self.burst_bytes,
            }),
        }
    }

    /// How many identities are remembered, for a metric.
    pub fn identities(&self) -> usize {
        self.buckets.len()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the byte quota of this {quota} is used up")]
pub struct Exceeded {
    pub quota: &'static str,
    /// None: larger than the whole bucket, it will never work.
    pub retry_after: Option<Duration>,
    burst_bytes: u64,
}

impl From<Exceeded> for Problem {
    fn from(exceeded: Exceeded) -> Self {
        match exceeded.retry_after {
            Some(delay) => Problem::exhausted(delay, exceeded.to_string()),
            None => Problem::new(
                crate::problem::Code::TooLarge,
                format!(
                    "at most {} bytes at once for one {}",
                    exceeded.burst_bytes, exceeded.quota
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(identities_max: usize) -> Quota<u32> {
        Quota::new(
            "client",
            Config {
                bytes_per_second: 64_000,
                burst_bytes: 6_400,
                identities_max,
            },
        )
    }

    #[test]
    fn each_identity_has_its_own_bucket() {
        let quota = quota(10);
        assert_eq!(quota.check(&1, 6_400), Ok(()));
        let delay = quota
            .check(&1, 3_200)
            .expect_err("empty")
            .retry_after
            .expect("will work");
        assert!(
            delay > Duration::from_millis(20) && delay <= Duration::from_millis(51),
            "{delay:?}"
        );
        assert_eq!(quota.check(&2, 6_400), Ok(()));
    }

    #[test]
    fn larger_than_the_bucket_never_works() {
        let exceeded = quota(10).check(&1, 6_401).expect_err("too large");
        assert_eq!(exceeded.retry_after, None);
        assert_eq!(Problem::from(exceeded).code, crate::problem::Code::TooLarge);
    }

    #[test]
    fn the_number_of_identities_is_bounded() {
        let quota = quota(10);
        for key in 0..1_000 {
            let _ = quota.check(&key, 6_400);
        }
        assert!(quota.identities() <= 10);
    }
}
