//! What was begun and has not ended yet, and for how long the oldest of it is under way.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

#[derive(Debug, Default)]
pub struct UnderWay {
    next: u64,
    /// In the order of their beginnings.
    since: BTreeMap<u64, Instant>,
}

impl UnderWay {
    /// What [`UnderWay::end`] wants.
    pub fn begin(&mut self) -> u64 {
        self.next += 1;
        self.since.insert(self.next, Instant::now());
        self.next
    }

    pub fn end(&mut self, number: u64) {
        self.since.remove(&number);
    }

    /// `None`: nothing is.
    pub fn oldest(&self) -> Option<Duration> {
        self.since.values().next().map(Instant::elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_is_the_first_that_has_not_ended() {
        let second = Duration::from_secs(1);
        let mut under_way = UnderWay::default();
        assert_eq!(under_way.oldest(), None);
        let first = under_way.begin();
        tokio::time::sleep(second).await;
        let other = under_way.begin();
        tokio::time::sleep(second).await;
        assert_eq!(under_way.oldest(), Some(2 * second));
        under_way.end(first);
        assert_eq!(under_way.oldest(), Some(second));
        under_way.end(other);
        assert_eq!(under_way.oldest(), None);
    }
}
