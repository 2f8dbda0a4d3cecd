//! How far behind the log this peer is, and whether it has come to where the log ended when it began.
//!
//! Until then it is alive and not ready, and answers no query: what it would answer is old. While Kafka is away nobody
//! knows where the log ends; then what was committed before is served, if there is anything. Once ready it stays so: a
//! peer that falls behind later is slow, and taking it out of service would put its load on others.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::join_all;
use service::{
    Tasks,
    health::{Check, State},
};
use tokio::time::Instant;

use crate::{ledger::Ledger, metrics::ledger as metrics};

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The log is asked for its ends so often, once this peer has caught up.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long a log that does not answer is waited for before what is here is served: a node that has just come back finds
/// nobody for some seconds.
const LOG_PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn watch(tasks: Tasks, check: Check, ledger: Arc<Ledger>) {
    let began = Instant::now();
    let mut ends = vec![None; ledger.chains.len()];
    let mut state = State::Starting;
    while state != State::Ok {
        // Asked until it answers once for each.
        if ends.contains(&None) {
            for (first, now) in ends.iter_mut().zip(ask(&ledger).await) {
                *first = first.or(now);
            }
        }
        let away = began.elapsed() >= LOG_PATIENCE && !ledger.log_reachable();
        state = next(&state, &progress(&ledger, &ends), away);
        ledger.replaying.store(state == State::Starting, Ordering::Relaxed);
        check.set(state.clone());
        if pause(&tasks, LOOK_EVERY).await {
            return;
        }
    }
    while !pause(&tasks, ASK_EVERY).await {
        ask(&ledger).await;
    }
}

/// `true`: the process ends.
async fn pause(tasks: &Tasks, pause: Duration) -> bool {
    tokio::time::timeout(pause, tasks.token().cancelled()).await.is_ok()
}

/// Where each partition ends in the log, as far as it says; what is committed here is held against it.
async fn ask(ledger: &Ledger) -> Vec<Option<u64>> {
    let asked = ledger.chains.iter().map(|chain| async {
        let (_, end) = ledger.log.bounds(&ledger.topics.of(chain.partition)).await.ok()?;
        let committed = chain.tip().map_or(0, |tip| tip.height + 1);
        metrics::behind(chain.partition, end.saturating_sub(committed));
        Some(end)
    });
    join_all(asked).await
}

/// Of one partition.
struct Progress {
    /// Blocks committed here.
    blocks: u64,
    /// Where the log ended when it was first asked.
    end: Option<u64>,
    stopped: bool,
}

fn progress(ledger: &Ledger, ends: &[Option<u64>]) -> Vec<Progress> {
    let of = |(chain, end): (&Arc<crate::committer::chain::Chain>, &Option<u64>)| Progress {
        blocks: chain.tip().map_or(0, |tip| tip.height + 1),
        end: *end,
        stopped: chain.stopped().is_some(),
    };
    ledger.chains.iter().zip(ends).map(of).collect()
}

/// A partition that stands still will not come any further; whether that is bad is another check's to say.
fn next(before: &State, partitions: &[Progress], away: bool) -> State {
    let has_come = |partition: &Progress| {
        let blocks = partition.blocks;
        partition.stopped || (blocks > 0 && partition.end.is_some_and(|end| blocks >= end))
    };
    let has_something = partitions
        .iter()
        .all(|partition| partition.blocks > 0 || partition.stopped);
    if partitions.iter().all(has_come) {
        State::Ok
    } else if matches!(before, State::Degraded { .. }) || (away && has_something) {
        State::Degraded {
            reason: "where the log ends was not known at the start; what was committed before is served".to_owned(),
        }
    } else {
        State::Starting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &State, partitions: &[(u64, Option<u64>, bool)], away: bool, expected: &str) {
        let partitions: Vec<Progress> = partitions
            .iter()
            .map(|&(blocks, end, stopped)| Progress { blocks, end, stopped })
            .collect();
        let found = match next(before, &partitions, away) {
            State::Starting => "starting",
            State::Ok => "ok",
            State::Degraded { .. } => "degraded",
            State::Failed { .. } => "failed",
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn ready_when_it_has_come_to_where_the_log_ended() {
        let start = State::Starting;
        check(&start, &[(3, Some(9), false)], false, "starting");
        check(&start, &[(9, Some(9), false)], false, "ok");
        check(&start, &[(12, Some(9), false), (1, Some(2), false)], false, "starting");
        check(&start, &[(12, Some(9), false), (1, Some(2), true)], false, "ok");
        // Nobody has begun this channel yet.
        check(&start, &[(0, Some(0), false)], false, "starting");
    }

    #[test]
    fn without_kafka_what_is_here_is_served() {
        let start = State::Starting;
        check(&start, &[(3, None, false)], false, "starting");
        check(&start, &[(3, None, false)], true, "degraded");
        check(&start, &[(3, None, false), (0, None, false)], true, "starting");
        // Ready once, it stays so while it catches up.
        let degraded = State::Degraded { reason: String::new() };
        check(&degraded, &[(3, Some(9), false)], false, "degraded");
        check(&degraded, &[(9, Some(9), false)], false, "ok");
    }
}
