//! Reports for people.

use std::fmt::Write as _;

use peer::reporting::report::{AreaReport, Count, Report};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::Period;

/// What stands for a withheld number.
const WITHHELD: &str = "withheld";

fn time(unix_s: u64) -> String {
    let time = i64::try_from(unix_s)
        .ok()
        .and_then(|unix_s| OffsetDateTime::from_unix_timestamp(unix_s).ok());
    time.and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| unix_s.to_string())
}

pub fn list(periods: &[Period]) -> String {
    if periods.is_empty() {
        return "no period is published yet\n".to_owned();
    }
    let mut text = String::new();
    for period in periods {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{}  {} to {}  {} of {} facilities reported",
            period.period,
            time(period.start_s),
            time(period.end_s),
            period.facilities_reported,
            period.facilities_expected
        );
    }
    text
}

fn number(count: Option<u64>) -> String {
    count.map_or_else(|| WITHHELD.to_owned(), |count| count.to_string())
}

fn counts(counts: &[Count]) -> String {
    let told: Vec<String> = counts
        .iter()
        .map(|count| format!("{} {}", count.key, count.count))
        .collect();
    match told.is_empty() {
        true => WITHHELD.to_owned(),
        false => told.join(", "),
    }
}

pub fn report(report: &Report) -> String {
    let mut text = format!(
        "{} to {}; counts below {} are withheld, with others that would give them away\n\
         facilities: {} expected, {} reported, {} on time\n",
        time(report.start_s),
        time(report.end_s),
        report.threshold,
        report.facilities_expected,
        report.facilities_reported,
        report.facilities_on_time
    );
    for alert in &report.alerts {
        let _ = writeln!(text, "ALERT: item {} in {}", alert.item, alert.area);
    }
    for area in &report.areas {
        text.push_str(&of_area(area));
    }
    text.push_str("\nfacility              treated   reported  on time  beds available, at least, of staffed\n");
    for facility in &report.facilities {
        let beds = facility.beds.iter();
        let beds: Vec<String> = beds
            .map(|beds| format!("{} {} of {}", beds.kind, beds.available, beds.staffed))
            .collect();
        let yes = |yes: bool| if yes { "yes" } else { "no" };
        let _ = writeln!(
            text,
            "{:<20}  {:<8}  {:<8}  {:<7}  {}",
            facility.facility,
            number(facility.treated),
            yes(facility.reported),
            yes(facility.on_time),
            beds.join(", ")
        );
    }
    for facility in report.facilities.iter().filter(|facility| !facility.items.is_empty()) {
        let _ = writeln!(
            text,
            "{} reports items {}",
            facility.facility,
            facility.items.join(", ")
        );
    }
    text
}

fn of_area(area: &AreaReport) -> String {
    if area.treated.is_none() {
        return format!("\n{}: {WITHHELD}\n", area.area);
    }
    let mut text = format!(
        "\n{}: {} treated\n  triage: {}\n  outcomes: {}\n",
        area.area,
        number(area.treated),
        counts(&area.triage),
        counts(&area.outcomes)
    );
    for count in &area.items {
        let _ = writeln!(text, "  item {:<4} {:<7} {:>6}", count.item, count.age, count.count);
    }
    text
}
