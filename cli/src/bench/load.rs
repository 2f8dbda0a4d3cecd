//! The open loop: calls leave on a fixed schedule, whatever becomes of those before them.
//!
//! Latency counts from the scheduled time, so a system that falls behind cannot hide it by slowing
//! its client down.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use indicatif::ProgressBar;
use service::{
    OnFailure,
    rpc::{Call, Finality},
};
use tokio::{sync::Semaphore, time::Instant};

use super::tally::{Outcome, Tally, Timing};
use crate::client::Client;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    Create,
    Read,
}

impl Operation {
    /// The thesis's word.
    pub fn word(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::Read => "query",
        }
    }
}

pub struct Schedule {
    pub operation: Operation,
    pub rate: f64,
    pub count: u64,
    /// A call that has not ended by then is of unknown outcome.
    pub within: Duration,
}

type Calls<'a> = &'a (dyn Fn(u64) -> Call + Sync);

/// Time for the first list to open its stream before the schedule starts.
const HEAD_START: Duration = Duration::from_millis(50);

/// Offers `calls(0..count)` on schedule, over the clients in turn, and waits for every end.
pub async fn run(clients: &[Arc<Client>], schedule: &Schedule, calls: Calls<'_>, bar: &ProgressBar) -> Tally {
    let tallies: Vec<Arc<Mutex<Tally>>> = clients.iter().map(|_| Arc::default()).collect();
    let start = Instant::now() + HEAD_START;
    let at = |index: u64| start + Duration::from_secs_f64(index as f64 / schedule.rate);
    let open = Arc::new(Semaphore::new(0));
    for index in 0..schedule.count {
        if at(index) > Instant::now() {
            bar.set_position(index);
            // The timer's millisecond makes several calls due at once under high rates.
            tokio::time::sleep_until(at(index)).await;
        }
        let which = (index % clients.len() as u64) as usize;
        let (client, tally, open) = (clients[which].clone(), tallies[which].clone(), open.clone());
        let (call, operation, within, scheduled) = (calls(index), schedule.operation, schedule.within, at(index));
        let tasks = clients[which].session.tasks.clone();
        tasks.spawn("call", OnFailure::Log, async move {
            let called = Instant::now();
            let outcome = one(&client, operation, call, within).await;
            let now = Instant::now();
            let timing = Timing {
                since_scheduled: now - scheduled,
                since_called: now - called,
                since_start: now - start,
            };
            tally
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add(outcome, timing);
            open.add_permits(1);
        });
    }
    // Every call ends by its deadline; the rest is the time for a starved machine to notice.
    let all = u32::try_from(schedule.count).unwrap_or(u32::MAX);
    let patience = schedule.within + Duration::from_secs(30);
    let _ = tokio::time::timeout(patience, open.acquire_many(all)).await;
    bar.set_position(schedule.count);
    let mut total = Tally::default();
    for tally in tallies {
        total.merge(std::mem::take(
            &mut *tally.lock().unwrap_or_else(PoisonError::into_inner),
        ));
    }
    total
}

async fn one(client: &Client, operation: Operation, call: Call, within: Duration) -> Outcome {
    match operation {
        Operation::Create => {
            let (signed, end) = client.send(call, Finality::Committed, within).await;
            Outcome::of_submit(signed.map(|signed| signed.tx_id), end)
        }
        Operation::Read => Outcome::of_read(client.evaluate(call, within).await),
    }
}

/// As many at once as `at_once`, as fast as they go; a refused call is made again after a pause.
/// `each` hears how many are done.
pub async fn fill(
    clients: &[Arc<Client>],
    count: u64,
    at_once: usize,
    within: Duration,
    calls: Calls<'_>,
    each: &(dyn Fn(u64) + Sync),
) -> Tally {
    use futures::{StreamExt as _, stream};
    let start = Instant::now();
    let mut total = Tally::default();
    let mut ends = stream::iter(0..count)
        .map(|index| {
            let client = clients[(index % clients.len() as u64) as usize].clone();
            let call = calls(index);
            async move {
                let called = Instant::now();
                let outcome = persistently(&client, &call, within).await;
                (outcome, called.elapsed())
            }
        })
        .buffer_unordered(at_once);
    while let Some((outcome, took)) = ends.next().await {
        total.add(
            outcome,
            Timing {
                since_scheduled: took,
                since_called: took,
                since_start: start.elapsed(),
            },
        );
        each(total.ended());
    }
    total
}

const PAUSE: Duration = Duration::from_millis(200);

async fn persistently(client: &Client, call: &Call, within: Duration) -> Outcome {
    let deadline = Instant::now() + within;
    loop {
        let outcome = one(client, Operation::Create, call.clone(), within).await;
        if !matches!(outcome, Outcome::Refused { .. }) || Instant::now() >= deadline {
            return outcome;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
