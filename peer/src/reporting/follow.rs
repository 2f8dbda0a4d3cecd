//! Reads what is committed here, from the genesis on, and keeps the newest published periods in memory.
//!
//! A report is derived: at a start everything is folded again, and comes out the same.

use std::{collections::VecDeque, io, path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use protocol::{block, code::Code, sha256, transaction};
use service::{OnFailure, Tasks, health::Health, settings::Broken};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    ReportingConfig, codes::CodeList, config::Rules, event::Event, fold::Fold, kept::Kept, metrics, report::Report,
};
use crate::{
    committer::follow::{Follow, Followed},
    ledger::Ledger,
};

/// How long one look for the next record or block waits; then it is looked whether the chain still moves.
const LOOK: Duration = Duration::from_secs(1);

/// The published periods.
pub struct Reports {
    rules: Arc<Rules>,
    state: Mutex<State>,
}

struct State {
    fold: Fold,
    /// Oldest first.
    published: VecDeque<Arc<Report>>,
    kept: Kept,
}

impl Reports {
    /// `kept`: a file that outlives the process, and its data.
    pub fn open(config: &ReportingConfig, partitions: u32, kept: &Path) -> Result<Self, Broken> {
        let codes = match &config.codes {
            Some(file) => CodeList::load(file)?,
            None => CodeList::own(),
        };
        super::config::check_codes(config, &codes)?;
        let mut rules = Rules::new(config, codes);
        let broken = |error: io::Error| Broken::new("reporting", format!("{}: {error}", kept.display()));
        let kept = Kept::open(kept, rules.fingerprint()).map_err(broken)?;
        let since = kept.since_ms().div_ceil(rules.period_ms);
        if since > rules.since {
            tracing::warn!(
                since_ms = kept.since_ms(),
                "other rules were published until then: these count from there on"
            );
            rules.since = since;
        }
        let rules = Arc::new(rules);
        let fold = Fold::new(Arc::clone(&rules), partitions);
        Ok(Reports {
            rules,
            state: Mutex::new(State {
                fold,
                published: VecDeque::new(),
                kept,
            }),
        })
    }

    /// Oldest first.
    pub fn list(&self) -> Vec<Arc<Report>> {
        self.state.lock().published.iter().cloned().collect()
    }

    pub fn get(&self, period: u64) -> Option<Arc<Report>> {
        let state = self.state.lock();
        state.published.iter().find(|report| report.period == period).cloned()
    }

    /// A VALID transaction, the next of its partition.
    pub fn apply(&self, partition: u32, time_ms: u64, events: &[Event]) -> io::Result<()> {
        let mut state = self.state.lock();
        let closed = state.fold.apply(partition, time_ms, events);
        let Some(newest) = closed.reports.last() else {
            return Ok(());
        };
        state.kept.publish(newest.end_s * 1_000)?;
        state.published.extend(closed.reports.into_iter().map(Arc::new));
        let old = state.published.len().saturating_sub(self.rules.keep);
        state.published.drain(..old);
        metrics::published(closed.periods, state.published.back().map(Arc::as_ref));
        Ok(())
    }
}

/// Follows every partition.
pub fn start(tasks: &Tasks, health: &Health, ledger: &Arc<Ledger>, reports: &Arc<Reports>) {
    metrics::declare(reports.rules.facilities.len());
    let check = health.check("reporting");
    check.ok();
    for partition in 0..ledger.checker.channel.partitions() {
        let (ledger, reports, token) = (Arc::clone(ledger), Arc::clone(reports), tasks.token().clone());
        let check = check.clone();
        // Without it records are kept and read as before; the report stands still and says so.
        tasks.spawn("reporting", OnFailure::Log, async move {
            let followed = follow(&ledger, &reports, partition, &token).await;
            followed.inspect_err(|why| check.degraded(format!("partition {partition} is not followed: {why}")))
        });
    }
}

async fn follow(ledger: &Ledger, reports: &Reports, partition: u32, token: &CancellationToken) -> Result<(), String> {
    let mut follow = Follow::new(Arc::clone(&ledger.log), ledger.topics.of(partition), 0);
    let began = Instant::now();
    let mut behind = true;
    loop {
        let followed = tokio::select! {
            () = token.cancelled() => return Ok(()),
            followed = follow.next(LOOK) => followed.map_err(|stop| stop.to_string())?,
        };
        let Followed::Records(records) = followed else {
            continue;
        };
        for record in records {
            let height = record.offset;
            while !ledger.reached(partition, height, Instant::now() + LOOK).await {
                if let Some(stop) = ledger.stopped(partition) {
                    return Err(stop.to_string());
                }
                if token.is_cancelled() {
                    return Ok(());
                }
            }
            fold(ledger, reports, partition, height, &record.value)?;
            if behind && ledger.tip(partition).is_some_and(|tip| tip.height == height) {
                behind = false;
                let took_ms = began.elapsed().as_millis();
                tracing::info!(partition, blocks = height + 1, took_ms, "the report has caught up");
            }
        }
        // All that was read may have been there already.
        tokio::task::yield_now().await;
    }
}

/// What is VALID in a committed block, in its order.
fn fold(ledger: &Ledger, reports: &Reports, partition: u32, height: u64, raw: &[u8]) -> Result<(), String> {
    let block = ledger
        .block(partition, height)
        .ok_or("a committed block cannot be read")?;
    if block.transactions.iter().all(|(_, code)| *code != Code::Valid) {
        return Ok(());
    }
    if sha256(raw) != block.header.record_hash {
        return Err(format!(
            "the log's record at height {height} is not the one committed here"
        ));
    }
    let opened = block::open(&ledger.checker, partition, raw);
    for (bytes, (_, code)) in opened.transactions.iter().zip(&block.transactions) {
        if *code != Code::Valid {
            continue;
        }
        let Ok(tx) = transaction::decode(bytes) else { continue };
        let mut events = Vec::new();
        if tx.proposal.contract == reports.rules.contract {
            events.extend(
                tx.result
                    .events
                    .iter()
                    .filter_map(|event| Event::read(&event.r#type, &event.payload)),
            );
        }
        reports
            .apply(partition, tx.proposal.client_time_ms, &events)
            .map_err(|error| format!("what is published cannot be kept: {error}"))?;
    }
    Ok(())
}
