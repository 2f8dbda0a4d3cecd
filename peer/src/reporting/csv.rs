//! A report as CSV: one row a published number. Labels are codes and names of settings, none holds a comma or a quote.

use std::fmt::{Display, Write as _};

use super::report::Report;

/// `key` is triage, outcome, kind of bed or what is said of a facility.
const HEAD: &str = "period_start_s,period_end_s,table,area,facility,item,age,sex,key,value";

struct Rows {
    text: String,
    period: String,
}

impl Rows {
    /// Empty where a column says nothing.
    fn push(&mut self, table: &str, columns: [&str; 6], value: impl Display) {
        let columns = columns.join(",");
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{},{table},{columns},{value}", self.period);
    }
}

pub fn of(report: &Report) -> String {
    let mut rows = Rows {
        text: format!("{HEAD}\n"),
        period: format!("{},{}", report.start_s, report.end_s),
    };
    for (key, value) in [
        ("threshold", report.threshold),
        ("facilities_expected", report.facilities_expected),
        ("facilities_reported", report.facilities_reported),
        ("facilities_on_time", report.facilities_on_time),
        ("withheld_cells", report.withheld_cells),
    ] {
        rows.push("report", ["", "", "", "", "", key], value);
    }
    for area in &report.areas {
        let name = area.area.as_str();
        if let Some(treated) = area.treated {
            rows.push("treated", [name, "", "", "", "", ""], treated);
        }
        for count in &area.triage {
            rows.push("triage", [name, "", "", "", "", &count.key], count.count);
        }
        for count in &area.outcomes {
            rows.push("outcome", [name, "", "", "", "", &count.key], count.count);
        }
        for count in &area.items {
            rows.push("item", [name, "", &count.item, &count.age, "", ""], count.count);
        }
        for count in &area.matrix {
            rows.push(
                "matrix",
                [name, "", &count.item, &count.age, &count.sex, ""],
                count.count,
            );
        }
        if let Some(treated) = area.other_facilities {
            rows.push("treated", [name, "other", "", "", "", ""], treated);
        }
    }
    for facility in &report.facilities {
        let (area, name) = (facility.area.as_str(), facility.facility.as_str());
        if let Some(treated) = facility.treated {
            rows.push("treated", [area, name, "", "", "", ""], treated);
        }
        rows.push(
            "facility",
            [area, name, "", "", "", "reported"],
            u8::from(facility.reported),
        );
        rows.push(
            "facility",
            [area, name, "", "", "", "on_time"],
            u8::from(facility.on_time),
        );
        for beds in &facility.beds {
            for (state, count) in [
                ("staffed", beds.staffed),
                ("occupied", beds.occupied),
                ("available", beds.available),
            ] {
                rows.push(&format!("beds_{state}"), [area, name, "", "", "", &beds.kind], count);
            }
        }
        for item in &facility.items {
            rows.push("site", [area, name, item, "", "", ""], 1);
        }
    }
    for alert in &report.alerts {
        rows.push("alert", [&alert.area, "", &alert.item, "", "", ""], 1);
    }
    rows.text
}
