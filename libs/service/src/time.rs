//! The wall clock, in the one form that the formats use.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970. A clock before that is 0.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Seconds since 1970, as certificates count.
pub fn unix_s() -> i64 {
    (unix_ms() / 1000) as i64
}
