//! What came of it, a row for each experiment: as text, as JSON, and as a table in a document.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::experiments::Experiment;
use crate::{
    bench::table::aligned,
    chaos::judge::{Verdict, verdict::Violation},
    network::layout::write_whole,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Came {
    Ok,
    Failed,
    Skipped,
}

#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub experiment: &'static str,
    pub result: Came,
    /// What was hit; why it was skipped; why it failed.
    pub detail: String,
    pub acknowledged: u64,
    pub lost: u64,
    pub doubled: u64,
    /// Seconds without any acknowledged change, of the worst single partition, and of the worst single gateway.
    pub gap_s: f64,
    pub partition_gap_s: f64,
    pub gateway_gap_s: f64,
    pub gap_max_s: Option<f64>,
    /// From the end of the fault until everything was as before.
    pub recovery_s: f64,
    pub violations: Vec<Violation>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub rows: Vec<Row>,
    /// Of the whole run.
    pub verdict: Option<Verdict>,
    pub ok: bool,
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

impl Row {
    /// Nothing was measured.
    pub fn without(experiment: &Experiment, result: Came, detail: String) -> Row {
        Row {
            experiment: experiment.name,
            result,
            detail,
            acknowledged: 0,
            lost: 0,
            doubled: 0,
            gap_s: 0.0,
            partition_gap_s: 0.0,
            gateway_gap_s: 0.0,
            gap_max_s: experiment.gap_max.map(|max| max.as_secs_f64()),
            recovery_s: 0.0,
            violations: Vec::new(),
        }
    }

    /// `before`: the verdict on the history up to this experiment.
    pub fn judged(experiment: &Experiment, detail: String, recovery_s: f64, before: &Verdict, now: &Verdict) -> Row {
        let mut row = Row {
            acknowledged: now.window.acknowledged,
            // Found now, in a history that also holds what came before.
            lost: now.lost.saturating_sub(before.lost),
            doubled: now.doubled.saturating_sub(before.doubled),
            gap_s: seconds(now.window.longest_ms),
            partition_gap_s: seconds(now.window.longest_of_a_partition_ms),
            gateway_gap_s: seconds(now.window.longest_of_a_gateway_ms),
            recovery_s: (recovery_s * 10.0).round() / 10.0,
            ..Row::without(experiment, Came::Ok, detail)
        };
        let new = now
            .violations
            .iter()
            .filter(|violation| !before.violations.contains(violation));
        row.violations = new.cloned().collect();
        let mut wrong = Vec::new();
        for (rule, count) in &now.broken {
            let more = count.saturating_sub(before.broken.get(rule).copied().unwrap_or(0));
            if more > 0 {
                wrong.push(format!("{more} × {rule}"));
            }
        }
        // One may have passed by itself meanwhile, so that the sums are equal.
        if wrong.is_empty() && !row.violations.is_empty() {
            wrong.push(format!("{} new violations", row.violations.len()));
        }
        // Never less than that of all. A gateway's own peer is away as long as it takes to start.
        if row.gap_max_s.is_some_and(|max| row.partition_gap_s >= max) {
            wrong.push(format!("one partition took nothing for {} s", row.partition_gap_s));
        }
        if row.acknowledged == 0 {
            wrong.push("nothing was acknowledged, so nothing is shown".to_owned());
        }
        if !wrong.is_empty() {
            row.failed(&wrong.join("; "));
        }
        row
    }

    pub fn failed(&mut self, why: &str) {
        self.result = Came::Failed;
        self.detail = format!("{why}; {}", self.detail);
    }

    /// What is said while the next one runs.
    pub fn line(&self) -> String {
        let cells = self.cells();
        let numbers = HEAD.iter().zip(&cells).skip(2).filter(|(_, cell)| !cell.is_empty());
        let numbers: Vec<String> = numbers.map(|(head, cell)| format!("{head} {cell}")).collect();
        format!("{}: {} ({}): {}", cells[0], cells[1], numbers.join(", "), self.detail)
    }

    fn cells(&self) -> Vec<String> {
        let (result, measured) = match self.result {
            Came::Ok => ("ok", true),
            Came::Failed => ("FAILED", self.acknowledged > 0),
            Came::Skipped => ("skipped", false),
        };
        let number = |text: String| if measured { text } else { String::new() };
        let limit = self.gap_max_s.map(|max| format!("{max:.0}")).unwrap_or_default();
        vec![
            self.experiment.to_owned(),
            result.to_owned(),
            number(self.acknowledged.to_string()),
            number(self.lost.to_string()),
            number(self.doubled.to_string()),
            number(format!("{:.1}", self.gap_s)),
            limit,
            number(format!("{:.1}", self.partition_gap_s)),
            number(format!("{:.1}", self.gateway_gap_s)),
            number(format!("{:.1}", self.recovery_s)),
        ]
    }
}

const HEAD: [&str; 10] = [
    "experiment",
    "result",
    "acknowledged",
    "lost",
    "doubled",
    "gap s",
    "limit s",
    "of a partition s",
    "of a gateway s",
    "recovery s",
];

impl Report {
    pub fn text(&self) -> String {
        let head = HEAD.map(String::from).to_vec();
        let lines: Vec<Vec<String>> = std::iter::once(head).chain(self.rows.iter().map(Row::cells)).collect();
        let mut text = aligned(&lines);
        for row in &self.rows {
            text.push_str(&format!("{}: {}\n", row.experiment, row.detail));
            for violation in &row.violations {
                text.push_str(&format!("  {violation}\n"));
            }
        }
        if let Some(verdict) = &self.verdict {
            text.push_str(&verdict.text());
        }
        text
    }

    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(HEAD.into_iter().chain(["what was hit"]).map(String::from).collect());
        text.push_str(&line(vec!["---".to_owned(); HEAD.len() + 1]));
        for row in &self.rows {
            let detail = row.detail.replace('|', "\\|").replace('\n', " ");
            text.push_str(&line(row.cells().into_iter().chain([detail]).collect()));
        }
        if let Some(verdict) = &self.verdict {
            let said = verdict.text();
            // The gap there is the last experiment's.
            let said = said.split("; longest").next().unwrap_or_default();
            text.push_str(&format!("\nThe whole run: {said}.\n"));
        }
        text
    }
}

const BEGIN: &str = "<!-- chaos:table -->";
const END: &str = "<!-- /chaos:table -->";

/// Puts the table into a document, between its marks.
pub fn write(file: &Path, table: &str) -> Result<()> {
    let named = || file.display().to_string();
    let document = std::fs::read_to_string(file).with_context(named)?;
    let filled = filled(&document, table).with_context(|| format!("{}: has no {BEGIN} … {END}", named()))?;
    write_whole(file, filled.as_bytes(), false)
}

fn filled(document: &str, table: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::{
        judge::ops::Gaps,
        run::experiments::{ALL, Experiment},
    };

    fn experiment(name: &str) -> &'static Experiment {
        ALL.iter().find(|experiment| experiment.name == name).expect("there")
    }

    fn verdict(acknowledged: u64, longest_ms: u64, lost: u64) -> Verdict {
        let mut verdict = Verdict {
            lost,
            window: Gaps {
                acknowledged,
                longest_ms: longest_ms / 2,
                longest_of_a_partition_ms: longest_ms,
                longest_of_a_gateway_ms: 2 * longest_ms,
            },
            ..Verdict::default()
        };
        if lost > 0 {
            verdict.broken.insert("lost".into(), lost);
        }
        verdict
    }

    fn row(before: &Verdict, now: &Verdict) -> Row {
        Row::judged(experiment("pod-peer"), "x".into(), 2.0, before, now)
    }

    #[test]
    fn a_gap_over_the_limit_or_a_broken_rule_fails() {
        let fine = verdict(10, 2_900, 0);
        assert_eq!(row(&fine, &fine).result, Came::Ok);
        assert_eq!(row(&fine, &verdict(10, 3_000, 0)).result, Came::Failed);
        assert_eq!(row(&fine, &verdict(0, 100, 0)).result, Came::Failed);
        let lost = row(&fine, &verdict(10, 100, 1));
        assert_eq!((lost.result, lost.lost), (Came::Failed, 1));
        assert!(lost.detail.contains("1 × lost"), "{}", lost.detail);
        // What an earlier experiment broke is not this one's.
        let later = row(&verdict(10, 100, 1), &verdict(10, 100, 1));
        assert_eq!((later.result, later.lost), (Came::Ok, 0));
        let unlimited = Row::judged(experiment("drain"), String::new(), 0.0, &fine, &verdict(10, 90_000, 0));
        assert_eq!(unlimited.result, Came::Ok);
    }

    #[test]
    fn the_table_goes_between_its_marks() {
        let report = Report {
            rows: vec![row(&verdict(1, 0, 0), &verdict(10, 1_500, 0))],
            ..Report::default()
        };
        let table = report.markdown();
        assert!(
            table.contains("| pod-peer | ok | 10 | 0 | 0 | 0.8 | 3 | 1.5 | 3.0 |"),
            "{table}"
        );
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let once = filled(&document, &table).expect("marks");
        assert!(
            once.starts_with("a\n") && once.ends_with("\nb\n") && !once.contains("old"),
            "{once}"
        );
        assert_eq!(filled(&once, &table).as_deref(), Some(once.as_str()));
        assert_eq!(filled("no marks", &table), None);
        assert!(report.text().contains("pod-peer"));
    }
}
