//! From the log to closed periods. Pure: the only clock is the transactions' own.
//!
//! ```text
//! partition 0  ──tx──tx──tx──▶ clock 0, open periods ─┐
//! partition 1  ──tx──tx──────▶ clock 1, open periods ─┴─ closed in all: merged, published, gone
//! ```
//! A partition's clock is the greatest time that a client gave in it. A period is closed in a partition once that
//! clock is past its end by the grace; it is published once it is closed in all. What comes later with an earlier time
//! is counted in the oldest period that is open in its partition. So what a period holds is decided by each
//! partition's log alone, whichever is read faster and however often: what was published is never changed.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    config::Rules,
    event::{Event, Ward},
    report::Report,
    tally::Tally,
};

pub struct Fold {
    rules: Arc<Rules>,
    partitions: Vec<Partition>,
    /// Periods below are published.
    published: Option<u64>,
    /// What each facility stated last, up to the published.
    beds: BTreeMap<String, Vec<Ward>>,
}

#[derive(Default)]
struct Partition {
    clock_ms: Option<u64>,
    /// The period of its first transaction.
    first: u64,
    tallies: BTreeMap<u64, Tally>,
}

/// What [`Fold::apply`] closed.
#[derive(Debug, Default)]
pub struct Closed {
    /// How many periods; long stretches without any statement are counted here and have no reports.
    pub periods: u64,
    pub reports: Vec<Report>,
}

impl Fold {
    pub fn new(rules: Arc<Rules>, partitions: u32) -> Self {
        Fold {
            rules,
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            published: None,
            beds: BTreeMap::new(),
        }
    }

    /// A VALID transaction, the next of its partition, with the events that the report reads.
    pub fn apply(&mut self, partition: u32, time_ms: u64, events: &[Event]) -> Closed {
        let rules = &self.rules;
        let Some(partition) = self.partitions.get_mut(partition as usize) else {
            return Closed::default();
        };
        if partition.clock_ms.is_none() {
            partition.first = time_ms / rules.period_ms;
        }
        partition.clock_ms = partition.clock_ms.max(Some(time_ms));
        for event in events {
            partition.count(rules, time_ms, event);
        }
        self.publish()
    }

    fn publish(&mut self) -> Closed {
        let closed = self.partitions.iter().map(|partition| partition.closed(&self.rules));
        let Some(closed) = closed.min().flatten() else {
            return Closed::default();
        };
        let first = self.partitions.iter().map(|partition| partition.first).min();
        let from = self.published.or(first).unwrap_or(0).max(self.rules.since);
        if closed <= from {
            return Closed::default();
        }
        // After a long stillness only so many empty periods are told as are kept.
        let kept = closed.saturating_sub(self.rules.keep as u64).max(from);
        let mut periods: BTreeMap<u64, Tally> = (kept..closed).map(|period| (period, Tally::default())).collect();
        for partition in &mut self.partitions {
            let open = partition.tallies.split_off(&closed);
            for (period, tally) in std::mem::replace(&mut partition.tallies, open) {
                periods.entry(period).or_default().merge(tally);
            }
        }
        self.published = Some(closed);
        let mut reports = Vec::new();
        for (period, tally) in periods {
            for (facility, statement) in &tally.statements {
                self.beds.insert(facility.clone(), statement.beds.clone());
            }
            reports.push(Report::new(&self.rules, period, &tally, &self.beds));
        }
        Closed {
            periods: closed - from,
            reports,
        }
    }
}

impl Partition {
    /// Periods below are closed here; `None` before the first transaction.
    fn closed(&self, rules: &Rules) -> Option<u64> {
        Some(self.clock_ms?.saturating_sub(rules.grace_ms) / rules.period_ms)
    }

    fn count(&mut self, rules: &Rules, time_ms: u64, event: &Event) {
        let closed = self.closed(rules).unwrap_or(0);
        let period = (time_ms / rules.period_ms).max(closed);
        if period < rules.since {
            return;
        }
        match event {
            Event::Encounter(cell) => {
                let tally = self.tallies.entry(period).or_default();
                tally.encounter(rules, cell);
                if let Some(outcome) = &cell.outcome {
                    tally.outcome(rules, cell, outcome);
                }
            }
            Event::Outcome(changed) => {
                // One that is published stays: the change counts as an outcome of its own period.
                let former = changed.former_time_ms.map(|time_ms| time_ms / rules.period_ms);
                if let (Some(outcome), Some(former)) = (&changed.former_outcome, former)
                    && let Some(tally) = self.tallies.get_mut(&former).filter(|_| former >= closed)
                {
                    tally.take_back(rules, &changed.cell, outcome);
                }
                if let Some(outcome) = &changed.cell.outcome {
                    self.tallies
                        .entry(period)
                        .or_default()
                        .outcome(rules, &changed.cell, outcome);
                }
            }
            Event::Beds(beds) => self.tallies.entry(period).or_default().beds(rules, time_ms, beds),
            Event::Site(site) => self.tallies.entry(period).or_default().site(rules, site),
        }
    }
}
