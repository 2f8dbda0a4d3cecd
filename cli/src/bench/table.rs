//! Measurements in the shape of the thesis's table 2, beside the thesis's figures.
//!
//! Source: Arabaci, "Blockchain consensus mechanisms", UPTEC STS 18028, 2018, table 2 (Fabric 1.1, 5,000
//! requests each).

use serde::Serialize;

use super::{
    check::Verdict,
    load::Operation,
    tally::{Latency, Tally},
    usage::Cost,
};

/// One row of the thesis.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reference {
    pub operation: Operation,
    pub rate: u32,
    pub success: u32,
    pub failed: u32,
    pub latency_s: f64,
    pub throughput: u32,
}

const fn reference(operation: Operation, rate: u32, failed: u32, latency_s: f64, throughput: u32) -> Reference {
    Reference {
        operation,
        rate,
        success: 5000 - failed,
        failed,
        latency_s,
        throughput,
    }
}

pub const THESIS: &[Reference] = &[
    reference(Operation::Create, 100, 0, 1.06, 99),
    reference(Operation::Create, 200, 0, 10.89, 163),
    reference(Operation::Create, 300, 0, 15.63, 164),
    reference(Operation::Create, 400, 0, 21.54, 161),
    reference(Operation::Create, 500, 0, 18.29, 177),
    reference(Operation::Create, 700, 25, 23.21, 152),
    reference(Operation::Read, 100, 0, 0.03, 100),
    reference(Operation::Read, 200, 0, 0.01, 200),
    reference(Operation::Read, 300, 0, 0.04, 300),
    reference(Operation::Read, 400, 0, 1.71, 379),
    reference(Operation::Read, 500, 0, 4.65, 381),
];

pub fn thesis(operation: Operation, rate: f64) -> Option<Reference> {
    THESIS
        .iter()
        .copied()
        .find(|row| row.operation == operation && f64::from(row.rate) == rate)
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub operation: Operation,
    pub policy: String,
    pub contract: String,
    pub rate: f64,
    pub offered: u64,
    pub success: u64,
    pub refused: u64,
    pub failed: u64,
    pub failed_by_word: std::collections::BTreeMap<String, u64>,
    pub unknown: u64,
    pub goodput: f64,
    pub latency: Latency,
    /// How fast refusals came.
    pub refusal: Latency,
    pub cost: Cost,
    pub verdict: Option<Verdict>,
    pub thesis: Option<Reference>,
}

impl Row {
    pub fn new(operation: Operation, policy: &str, contract: &str, rate: f64, offered: u64, tally: &Tally) -> Row {
        Row {
            operation,
            policy: policy.to_owned(),
            contract: contract.to_owned(),
            rate,
            offered,
            success: tally.done,
            refused: tally.refused,
            failed: tally.failed_count(),
            failed_by_word: tally.failed.clone(),
            unknown: tally.unknown.len() as u64,
            goodput: (tally.goodput() * 10.0).round() / 10.0,
            latency: tally.latency(),
            refusal: tally.refusal(),
            cost: Cost::default(),
            verdict: None,
            thesis: thesis(operation, rate),
        }
    }

    /// Nothing acknowledged was lost or doubled, and every peer agrees.
    pub fn ok(&self) -> bool {
        self.verdict.as_ref().is_none_or(Verdict::ok)
    }

    pub fn ended(&self) -> u64 {
        self.success + self.refused + self.failed + self.unknown
    }
}

const HEAD: [&str; 13] = [
    "type",
    "policy",
    "sent tx/s",
    "success",
    "refused",
    "failed",
    "lost",
    "avg ms",
    "p50",
    "p95",
    "p99",
    "max",
    "tx/s",
];

/// The measurements beside the thesis's.
pub fn render(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(String::from).to_vec()];
    lines[0].extend(["CPU µs/tx", "thesis: failed", "avg ms", "tx/s"].map(String::from));
    for row in rows {
        let lost = row
            .verdict
            .as_ref()
            .map_or("-".into(), |verdict| verdict.lost.to_string());
        let ms = |ms: f64| {
            if ms < 100.0 {
                format!("{ms:.1}")
            } else {
                format!("{ms:.0}")
            }
        };
        let mut line = vec![
            row.operation.word().to_owned(),
            row.policy.clone(),
            format!("{:.0}", row.rate),
            row.success.to_string(),
            row.refused.to_string(),
            (row.failed + row.unknown).to_string(),
            lost,
            ms(row.latency.mean_ms),
            ms(row.latency.p50_ms),
            ms(row.latency.p95_ms),
            ms(row.latency.p99_ms),
            ms(row.latency.max_ms),
            format!("{:.0}", row.goodput),
            format!("{:.0}", row.cost.cpu_us_per_call),
        ];
        line.extend(match row.thesis {
            Some(thesis) => [
                thesis.failed.to_string(),
                format!("{:.0}", thesis.latency_s * 1000.0),
                thesis.throughput.to_string(),
            ],
            None => ["", "", ""].map(String::from),
        });
        lines.push(line);
    }
    aligned(&lines)
}

/// Columns as wide as their widest cell; the first two to the left, numbers to the right.
pub fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < 2 {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thesis_is_beside_its_own_rates() {
        let row = Row::new(
            Operation::Create,
            "1-of-any",
            "medical-records",
            700.0,
            5000,
            &Tally::default(),
        );
        assert_eq!(
            row.thesis.map(|thesis| (thesis.failed, thesis.success)),
            Some((25, 4975))
        );
        assert!(
            Row::new(Operation::Create, "", "", 750.0, 1, &Tally::default())
                .thesis
                .is_none()
        );
    }

    #[test]
    fn the_table_has_the_thesiss_columns() {
        let row = Row::new(
            Operation::Read,
            "1-of-any",
            "medical-records",
            400.0,
            5000,
            &Tally::default(),
        );
        let text = render(&[row]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        for head in [
            "type",
            "sent tx/s",
            "success",
            "failed",
            "avg ms",
            "p99",
            "thesis: failed",
        ] {
            assert!(lines[0].contains(head), "{head}");
        }
        assert!(
            lines[1].starts_with("query") && lines[1].contains("1710") && lines[1].ends_with("379"),
            "{}",
            lines[1]
        );
    }
}
