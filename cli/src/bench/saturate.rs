//! The highest rate that lasts, and what happens at several times that.

use anyhow::Result;
use serde::Serialize;

use super::{
    Bench, Policy,
    load::Operation,
    table::{Row, render},
};

const STEP_S: f64 = 8.0;
const START: f64 = 800.0;
const GROWTH: f64 = 1.35;
const STEPS_MAX: usize = 14;
const REFINEMENTS: usize = 2;
const OVERLOAD_S: f64 = 15.0;
/// A rate lasts if nearly all of it was done, and in time.
const DONE_MIN: f64 = 0.995;
const P99_MS_MAX: f64 = 1500.0;

#[derive(Debug, Serialize)]
pub struct Saturation {
    pub sustained_tx_s: f64,
    pub steps: Vec<Row>,
    pub overload: Option<Row>,
}

impl Saturation {
    pub fn ok(&self) -> bool {
        self.steps.iter().chain(&self.overload).all(Row::ok)
    }

    pub fn text(&self) -> String {
        let mut rows = self.steps.clone();
        rows.extend(self.overload.clone());
        let mut text = render(&rows);
        text.push_str(&format!("sustained: {:.0} tx/s\n", self.sustained_tx_s));
        if let Some(row) = &self.overload {
            text.push_str(&format!(
                "offered {:.0} tx/s: {:.0} tx/s done, {} refused (p99 {:.0} ms), {} MB before, {} MB after\n",
                row.rate, row.goodput, row.refused, row.refusal.p99_ms, row.cost.rss_mb_before, row.cost.rss_mb_after
            ));
        }
        text
    }
}

fn lasts(row: &Row) -> bool {
    row.success as f64 >= DONE_MIN * row.offered as f64 && row.latency.p99_ms <= P99_MS_MAX
}

pub async fn run(bench: &mut Bench<'_>, policy: Policy, overload: f64) -> Result<Saturation> {
    let mut steps = Vec::new();
    let (mut best, mut worst) = (0.0, f64::INFINITY);
    let mut rate = START;
    for _ in 0..STEPS_MAX {
        let row = step(bench, policy, rate, STEP_S).await?;
        let lasted = lasts(&row);
        steps.push(row);
        if !lasted {
            worst = rate;
            break;
        }
        best = rate;
        rate = (rate * GROWTH).round();
    }
    for _ in 0..REFINEMENTS {
        if best == 0.0 || worst.is_infinite() {
            break;
        }
        let rate = ((best + worst) / 2.0).round();
        let row = step(bench, policy, rate, STEP_S).await?;
        if lasts(&row) {
            best = rate
        } else {
            worst = rate
        }
        steps.push(row);
    }
    let offered = best.max(START) * overload;
    let overload = if overload > 0.0 {
        Some(step(bench, policy, offered, OVERLOAD_S).await?)
    } else {
        None
    };
    Ok(Saturation {
        sustained_tx_s: best,
        steps,
        overload,
    })
}

async fn step(bench: &mut Bench<'_>, policy: Policy, rate: f64, seconds: f64) -> Result<Row> {
    let count = (rate * seconds) as u64;
    let first = bench.fresh(count);
    bench.measure(Operation::Create, policy, rate, count, first, 0).await
}
