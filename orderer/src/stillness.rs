//! When an idle partition is due for a heartbeat. Pure: the caller brings the time and the end offset.
//!
//! Heights must move with time, and one empty block a second does it, whichever orderer appends it. Each
//! waits a little longer than a second, by an amount of its own, and starts again when the end has moved.

use std::time::Duration;

/// Orderers' waits differ by up to this part of the period.
const SPREAD: u32 = 4;

pub struct Stillness {
    wait: Duration,
    end: Option<u64>,
    since: Duration,
}

impl Stillness {
    /// `who` spreads orderers out: any byte of their own.
    pub fn new(now: Duration, period: Duration, who: u8) -> Self {
        let own = period / SPREAD * u32::from(who) / 256;
        Stillness {
            wait: period + own,
            end: None,
            since: now,
        }
    }

    /// The partition ends at `end` now. Whether it has stood still for long enough.
    pub fn observe(&mut self, now: Duration, end: u64) -> bool {
        if self.end.is_none_or(|known| known < end) {
            self.end = Some(end);
            self.since = now;
        }
        self.end == Some(end) && now >= self.due()
    }

    /// Nothing can be said now: ask again after another wait.
    pub fn postpone(&mut self, now: Duration) {
        self.since = now;
    }

    /// When to look at the end offset next.
    pub fn due(&self) -> Duration {
        self.since + self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn due_only_after_a_second_without_movement() {
        let mut still = Stillness::new(ms(0), SECOND, 0);
        assert!(!still.observe(ms(1000), 5), "seen for the first time");
        assert_eq!(still.due(), ms(2000));
        assert!(!still.observe(ms(1500), 5));
        assert!(still.observe(ms(2000), 5));
        assert!(!still.observe(ms(2000), 6), "it moved");
        assert_eq!(still.due(), ms(3000));
    }

    #[test]
    fn an_old_observation_changes_nothing() {
        let mut still = Stillness::new(ms(0), SECOND, 0);
        still.observe(ms(10), 7);
        assert!(!still.observe(ms(2000), 6));
        assert_eq!(still.due(), ms(1010));
    }

    #[test]
    fn of_several_orderers_one_beats() {
        let mut orderers: Vec<Stillness> = [3, 90, 200].map(|who| Stillness::new(ms(0), SECOND, who)).into();
        let (mut end, mut beats) = (1, Vec::new());
        for now in (0..20_000).map(ms) {
            for orderer in &mut orderers {
                if now >= orderer.due() && orderer.observe(now, end) {
                    end += 1;
                    beats.push(now);
                    orderer.observe(now, end);
                }
            }
        }
        assert!((15..=20).contains(&beats.len()), "{beats:?}");
        assert!(beats.windows(2).all(|pair| pair[1] - pair[0] >= SECOND));
    }
}
