//! What a measurement saw: latencies in a histogram, ends by kind, and every tx_id that must be
//! accounted for afterwards.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use protocol::{Digest, code};
use serde::Serialize;
use service::{Code, Problem};

use crate::client::End;

/// Latencies are kept to three digits, up to ten minutes.
const HIGHEST_US: u64 = 600_000_000;

/// How one call ended, as far as it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Judged VALID by the asked peer; queries: answered.
    Done { tx_id: Option<Digest> },
    /// Too much at once: surely not done. The tx_id of what was signed, if it came so far.
    Refused { tx_id: Option<Digest> },
    /// An answer that says no, by its stable word: surely not done.
    Failed { word: String, tx_id: Option<Digest> },
    /// Ordered or not, nobody said. To be asked for by its tx_id.
    Unknown { tx_id: Digest },
}

impl Outcome {
    /// `tx_id`: of what was signed; `None`: it did not come so far.
    pub fn of_submit(tx_id: Option<Digest>, end: End) -> Self {
        match (end, tx_id) {
            (End::Done(done), _) if done.code == code::Code::Valid.word() => Outcome::Done { tx_id },
            // In the log, and not judged in time.
            (End::Done(done), Some(tx_id)) if done.code.is_empty() => Outcome::Unknown { tx_id },
            (End::Done(done), _) => Outcome::Failed { word: done.code, tx_id },
            (End::Unknown(_), Some(tx_id)) => Outcome::Unknown { tx_id },
            // Not believed: a copy of it may still be under way.
            (End::Refused(problem), Some(tx_id)) if matches!(problem.code, Code::DeadlineExceeded | Code::Internal) => {
                Outcome::Unknown { tx_id }
            }
            (End::Refused(problem) | End::Invalid(problem), _) => Self::refused(problem, tx_id),
            (End::Unknown(why), None) => Outcome::Failed { word: why, tx_id },
        }
    }

    pub fn of_read(answer: Result<Vec<u8>, Problem>) -> Self {
        match answer {
            Ok(_) => Outcome::Done { tx_id: None },
            Err(problem) => Self::refused(problem, None),
        }
    }

    fn refused(problem: Problem, tx_id: Option<Digest>) -> Self {
        match problem.code {
            Code::ResourceExhausted => Outcome::Refused { tx_id },
            code => Outcome::Failed {
                word: code.as_str().to_owned(),
                tx_id,
            },
        }
    }
}

pub struct Tally {
    /// Of what was done, µs from the scheduled time.
    latency: Histogram<u64>,
    /// Of refusals, µs from the time the call was really made.
    refusal: Histogram<u64>,
    pub done: u64,
    pub refused: u64,
    pub failed: BTreeMap<String, u64>,
    pub acknowledged: Vec<Digest>,
    /// Signed, and then refused or failed: must not be VALID anywhere.
    pub undone: Vec<Digest>,
    pub unknown: Vec<Digest>,
    last_done: Duration,
}

impl Default for Tally {
    fn default() -> Self {
        // The bounds are constants that HdrHistogram accepts.
        let histogram = || Histogram::new_with_bounds(1, HIGHEST_US, 3).expect("legal bounds");
        Tally {
            latency: histogram(),
            refusal: histogram(),
            done: 0,
            refused: 0,
            failed: BTreeMap::new(),
            acknowledged: Vec::new(),
            undone: Vec::new(),
            unknown: Vec::new(),
            last_done: Duration::ZERO,
        }
    }
}

/// When a call ended, in the three ways that matter.
pub struct Timing {
    pub since_scheduled: Duration,
    pub since_called: Duration,
    pub since_start: Duration,
}

impl Tally {
    pub fn add(&mut self, outcome: Outcome, timing: Timing) {
        match outcome {
            Outcome::Done { tx_id } => {
                self.done += 1;
                self.latency.saturating_record(micros(timing.since_scheduled));
                self.last_done = self.last_done.max(timing.since_start);
                self.acknowledged.extend(tx_id);
            }
            Outcome::Refused { tx_id } => {
                self.refused += 1;
                self.undone.extend(tx_id);
                self.refusal.saturating_record(micros(timing.since_called));
            }
            Outcome::Failed { word, tx_id } => {
                *self.failed.entry(word).or_default() += 1;
                self.undone.extend(tx_id);
            }
            Outcome::Unknown { tx_id } => self.unknown.push(tx_id),
        }
    }

    pub fn merge(&mut self, other: Tally) {
        // Both have the same bounds.
        self.latency += other.latency;
        self.refusal += other.refusal;
        self.done += other.done;
        self.refused += other.refused;
        for (word, count) in other.failed {
            *self.failed.entry(word).or_default() += count;
        }
        self.acknowledged.extend(other.acknowledged);
        self.undone.extend(other.undone);
        self.unknown.extend(other.unknown);
        self.last_done = self.last_done.max(other.last_done);
    }

    pub fn failed_count(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Everything that ended.
    pub fn ended(&self) -> u64 {
        self.done + self.refused + self.failed_count() + self.unknown.len() as u64
    }

    /// What was done per second, from the start to the last that was done.
    pub fn goodput(&self) -> f64 {
        if self.last_done.is_zero() {
            0.0
        } else {
            self.done as f64 / self.last_done.as_secs_f64()
        }
    }

    pub fn latency(&self) -> Latency {
        Latency::of(&self.latency)
    }

    pub fn refusal(&self) -> Latency {
        Latency::of(&self.refusal)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Latency::default();
        }
        let ms = |us: u64| us as f64 / 1000.0;
        Latency {
            mean_ms: (histogram.mean() / 10.0).round() / 100.0,
            p50_ms: ms(histogram.value_at_quantile(0.50)),
            p95_ms: ms(histogram.value_at_quantile(0.95)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            max_ms: ms(histogram.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use service::rpc::Submission;

    fn timing(ms: u64) -> Timing {
        let time = Duration::from_millis(ms);
        Timing {
            since_scheduled: time,
            since_called: time,
            since_start: Duration::from_secs(1),
        }
    }

    #[test]
    fn every_end_is_counted_apart() {
        let mut tally = Tally::default();
        for ms in 1..=100 {
            tally.add(Outcome::Done { tx_id: Some([1; 32]) }, timing(ms));
        }
        tally.add(Outcome::Refused { tx_id: Some([3; 32]) }, timing(2));
        tally.add(
            Outcome::Failed {
                word: "trapped".into(),
                tx_id: None,
            },
            timing(2),
        );
        tally.add(Outcome::Unknown { tx_id: [2; 32] }, timing(2));
        assert_eq!(
            (tally.done, tally.refused, tally.failed_count(), tally.unknown.len()),
            (100, 1, 1, 1)
        );
        assert_eq!(
            (tally.ended(), tally.acknowledged.len(), tally.undone.len()),
            (103, 100, 1)
        );
        assert!((tally.goodput() - 100.0).abs() < 1e-9);
        let latency = tally.latency();
        assert!(
            (latency.p50_ms - 50.0).abs() < 0.1 && (latency.max_ms - 100.0).abs() < 0.1,
            "{latency:?}"
        );
        let mut both = Tally::default();
        both.merge(tally);
        assert_eq!(both.ended(), 103);
    }

    #[test]
    fn only_what_is_surely_undone_counts_as_undone() {
        let tx_id = Some([1; 32]);
        let unknown = Outcome::Unknown { tx_id: [1; 32] };
        let done = |code: &str| {
            End::Done(Submission {
                code: code.to_owned(),
                ..Submission::default()
            })
        };
        let refused = |code| End::Refused(Problem::new(code, ""));
        assert_eq!(Outcome::of_submit(tx_id, done("VALID")), Outcome::Done { tx_id });
        assert_eq!(Outcome::of_submit(tx_id, done("")), unknown);
        assert_eq!(Outcome::of_submit(tx_id, End::Unknown(String::new())), unknown);
        assert_eq!(Outcome::of_submit(tx_id, refused(Code::DeadlineExceeded)), unknown);
        assert_eq!(
            Outcome::of_submit(tx_id, refused(Code::ResourceExhausted)),
            Outcome::Refused { tx_id }
        );
        let word = |outcome| match outcome {
            Outcome::Failed { word, .. } => word,
            other => format!("{other:?}"),
        };
        assert_eq!(
            word(Outcome::of_submit(None, refused(Code::DeadlineExceeded))),
            "deadline_exceeded"
        );
        assert_eq!(word(Outcome::of_read(Err(Problem::unavailable("")))), "unavailable");
        let lost = End::Invalid(Problem::new(Code::MvccConflict, ""));
        assert_eq!(word(Outcome::of_submit(tx_id, lost)), "mvcc_conflict");
    }

    #[test]
    fn nothing_is_no_latency() {
        assert_eq!(Tally::default().latency(), Latency::default());
        assert_eq!(Tally::default().goodput(), 0.0);
    }
}
