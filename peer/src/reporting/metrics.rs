//! The last published period for Prometheus. Few labels, after suppression; what is withheld is absent, never 0.

use super::report::Report;

metric::declare! {
    /// Start of the last published period, seconds since 1970
    START: Gauge = "medledger_report_period_start_seconds";
    /// End of the last published period, seconds since 1970
    END: Gauge = "medledger_report_period_end_seconds";
    /// Periods published, counted from the ledger's beginning
    PERIODS: Counter = "medledger_report_periods_total";
    /// Encounters with an item in the last published period; absent if withheld
    ENCOUNTERS: Gauges = "medledger_report_encounters" by ["area", "item", "age"];
    /// People by triage category in the last published period; absent if withheld
    TRIAGE: Gauges = "medledger_report_triage" by ["area", "triage"];
    /// People treated in the last published period; absent if withheld
    TREATED: Gauges = "medledger_report_treated" by ["facility"];
    /// People treated in the last published period, in facilities that are expected and others; absent if withheld
    AREA_TREATED: Gauges = "medledger_report_area_treated" by ["area"];
    /// Cells withheld in the last published period, those among them in which nothing happened
    WITHHELD: Gauge = "medledger_report_suppressed_cells";
    /// Beds as each facility stated them last, at the end of the last published period: staffed, and at least how many are occupied and available
    BEDS: Gauges = "medledger_report_beds" by ["facility", "kind", "state"];
    /// 1: the facility stated its beds in the last published period
    REPORTED: Gauges = "medledger_report_facility_reported" by ["facility"];
    /// 1: it did so before the deadline
    ON_TIME: Gauges = "medledger_report_facility_on_time" by ["facility"];
    /// 1: the facility reported this risk to its community, or this constraint of its own, in the last published period
    SITE: Gauges = "medledger_report_site" by ["facility", "item"];
    /// Facilities that are expected to report
    EXPECTED: Gauge = "medledger_report_facilities_expected";
    /// 1: what is an alert by itself, a condition or what a site reports at once, was stated in the last published period
    ALERT: Gauges = "medledger_report_alert" by ["area", "item"];
}

/// Before the first period there is this much to say.
pub fn declare(expected: usize) {
    EXPECTED.set(gauge(expected as u64));
    metric::register(DECLARED);
}

pub fn published(periods: u64, newest: Option<&Report>) {
    PERIODS.inc_by(periods);
    if let Some(report) = newest {
        show(report);
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn show(report: &Report) {
    START.set(gauge(report.start_s));
    END.set(gauge(report.end_s));
    WITHHELD.set(gauge(report.withheld_cells));
    EXPECTED.set(gauge(report.facilities_expected));
    for family in [
        &*ENCOUNTERS,
        &TRIAGE,
        &TREATED,
        &AREA_TREATED,
        &BEDS,
        &REPORTED,
        &ON_TIME,
        &SITE,
        &ALERT,
    ] {
        family.reset();
    }
    for area in &report.areas {
        if let Some(treated) = area.treated {
            AREA_TREATED.with_label_values(&[&area.area]).set(gauge(treated));
        }
        for count in &area.items {
            let labels = [area.area.as_str(), &count.item, &count.age];
            ENCOUNTERS.with_label_values(&labels).set(gauge(count.count));
        }
        for count in &area.triage {
            TRIAGE
                .with_label_values(&[area.area.as_str(), &count.key])
                .set(gauge(count.count));
        }
    }
    for facility in &report.facilities {
        let name = facility.facility.as_str();
        if let Some(treated) = facility.treated {
            TREATED.with_label_values(&[name]).set(gauge(treated));
        }
        for item in &facility.items {
            SITE.with_label_values(&[name, item]).set(1);
        }
        REPORTED.with_label_values(&[name]).set(i64::from(facility.reported));
        ON_TIME.with_label_values(&[name]).set(i64::from(facility.on_time));
        for beds in &facility.beds {
            for (state, count) in [
                ("staffed", beds.staffed),
                ("occupied", beds.occupied),
                ("available", beds.available),
            ] {
                BEDS.with_label_values(&[name, &beds.kind, state]).set(i64::from(count));
            }
        }
    }
    for alert in &report.alerts {
        ALERT.with_label_values(&[&alert.area, &alert.item]).set(1);
    }
}
