//! Telling clients again which brokers there are.
//!
//! librdkafka (since 2.10) forgets every broker that the last answer to a question of metadata did not list. After an
//! outage of the others a client knows one broker and no more, and looks for a new leader nowhere when that one
//! dies; from a broker that is just beginning it can even learn that there are none, and is deaf for ever
//! (confluentinc/librdkafka#5301). So whenever there are doubts, each client hears the configured ones again.

use std::{
    ffi::CString,
    time::{Duration, Instant},
};

use rdkafka::{ClientContext, client::Client};

use super::KafkaSettings;

/// Between reminders while doubts go on, doubling from the first to the last: librdkafka keeps every list that it was ever
/// given, some 200 bytes, until the client ends.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_secs(10);
/// After so long without doubts the next ones are others.
const CALM: Duration = Duration::from_secs(5);

/// The configured brokers, as librdkafka wants them.
pub(crate) struct Brokers(CString);

impl Brokers {
    /// A name with a zero byte in it has not got past librdkafka's own reading of the same list.
    pub fn new(settings: &KafkaSettings) -> Brokers {
        Brokers(CString::new(settings.brokers.join(",")).unwrap_or_default())
    }

    /// Those that the client knows already stay as they are; beside one that it learned of stands a second entry (a thread, no
    /// connection) until the next answer of metadata, which removes entries that were not learned.
    pub fn remind<C: ClientContext>(&self, client: &Client<C>) {
        // SAFETY: a client that lives as long as the borrow, and a C string that librdkafka copies.
        unsafe { rdkafka::bindings::rd_kafka_brokers_add(client.native_ptr(), self.0.as_ptr()) };
    }
}

/// When to remind.
pub(crate) struct Pace {
    pause: Duration,
    doubted: Option<Instant>,
    reminded: Option<Instant>,
}

impl Pace {
    pub fn new() -> Pace {
        Pace {
            pause: PAUSE_FIRST,
            doubted: None,
            reminded: None,
        }
    }

    /// Somebody has doubts now: whether this is a time for it.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let lasts = |since: Option<Instant>, time| since.is_some_and(|since| now.duration_since(since) < time);
        let is_new = !lasts(self.doubted.replace(now), CALM);
        if is_new {
            self.pause = PAUSE_FIRST;
        }
        if lasts(self.reminded, self.pause) {
            return false;
        }
        if !is_new {
            self.pause = (self.pause * 2).min(PAUSE_LAST);
        }
        self.reminded = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_grow_rare_and_begin_anew_after_calm() {
        let begin = Instant::now();
        let mut pace = Pace::new();
        let mut reminded = |from: u64, to: u64| -> Vec<u64> {
            (from..to)
                .filter(|second| pace.is_due(begin + Duration::from_secs(*second)))
                .collect()
        };
        assert_eq!(reminded(0, 70), [0, 1, 3, 7, 15, 25, 35, 45, 55, 65]);
        assert_eq!(reminded(76, 82), [76, 77, 79], "other doubts");
        let day = reminded(200, 86_600).len();
        assert!(day < 9_000, "bounded: {day} in a day of doubts");
    }
}
