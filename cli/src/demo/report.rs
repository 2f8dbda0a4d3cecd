//! The demo's steps: what, whether, how long, what was seen.

use std::time::Instant;

use anyhow::Result;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::{
    bench::table::{Row, aligned, render},
    output::causes,
    progress,
};

#[derive(Serialize)]
pub struct Report {
    pub steps: Vec<Step>,
    pub idle_create_ms_p50: Option<f64>,
    pub load: Vec<Row>,
    #[serde(skip)]
    bar: ProgressBar,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    pub step: String,
    pub ok: bool,
    pub seconds: f64,
    pub detail: String,
}

impl Report {
    pub fn new(bar: ProgressBar) -> Self {
        Report {
            steps: Vec::new(),
            idle_create_ms_p50: None,
            load: Vec::new(),
            bar,
        }
    }

    /// Runs a step; its text is the detail, its error is the detail of a failed step.
    pub async fn step<T>(
        &mut self,
        step: impl Into<String>,
        work: impl Future<Output = Result<(String, T)>>,
    ) -> Option<T> {
        let step = step.into();
        self.bar.set_message(step.clone());
        let started = Instant::now();
        let outcome = work.await;
        let seconds = (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        let (ok, detail, value) = match outcome {
            Ok((detail, value)) => (true, detail, Some(value)),
            Err(error) => (false, causes(&error), None),
        };
        let sign = if ok { "ok  " } else { "FAIL" };
        progress::say(&self.bar, &format!("{sign} {seconds:>7.2} s  {step}: {detail}"));
        self.steps.push(Step {
            step,
            ok,
            seconds,
            detail,
        });
        value
    }

    pub fn failed(&self) -> usize {
        self.steps.iter().filter(|step| !step.ok).count()
    }

    pub fn text(&self) -> String {
        let mut lines = vec![["step", "", "seconds", "detail"].map(String::from).to_vec()];
        for step in &self.steps {
            let sign = if step.ok { "ok" } else { "FAILED" };
            lines.push(vec![step.step.clone(), sign.to_owned(), format!("{:.2}", step.seconds)]);
        }
        let mut table = String::new();
        // Details are sentences: they follow the columns as they are.
        for (line, step) in aligned(&lines).lines().skip(1).zip(&self.steps) {
            table.push_str(&format!("{line}  {}\n", step.detail));
        }
        let mut text = table;
        if let Some(p50) = self.idle_create_ms_p50 {
            text.push_str(&format!("\nidle: one create is committed in {p50:.1} ms (p50)\n"));
        }
        if !self.load.is_empty() {
            text.push_str(&format!("\n{}", render(&self.load)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_step_is_told_and_does_not_stop_the_next() {
        let mut report = Report::new(ProgressBar::hidden());
        assert_eq!(report.step("one", async { Ok(("seen".to_owned(), 1)) }).await, Some(1));
        assert_eq!(
            report
                .step("two", async { anyhow::bail!("no {}", "way") as Result<(String, ())> })
                .await,
            None
        );
        assert_eq!((report.steps.len(), report.failed()), (2, 1));
        let json = serde_json::to_value(&report).expect("json");
        assert_eq!(json["steps"][1]["ok"], false);
        assert_eq!(json["steps"][1]["detail"], "no way");
        assert!(json["steps"][0]["seconds"].is_number() && json["idle_create_ms_p50"].is_null());
        assert!(report.text().contains("FAILED"));
    }
}
