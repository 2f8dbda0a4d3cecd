//! The last published period for Prometheus. Few labels, after suppression; what is withheld is absent, never 0.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntGauge, IntGaugeVec, register_int_counter, register_int_gauge, register_int_gauge_vec};

use super::report::Report;

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ident = $register:ident($metric:literal $(, $extra:expr)*);)+) => {
        $($(#[doc = $doc])+ static $name: LazyLock<$type> = LazyLock::new(|| {
            $register!($metric, concat!($($doc,)+).trim_ascii() $(, $extra)*).expect("declared once")
        });)+
    };
}

metrics! {
    /// Start of the last published period, Unix seconds
    START: IntGauge = register_int_gauge("medledger_report_period_start_seconds");
    /// End of the last published period, Unix seconds
    END: IntGauge = register_int_gauge("medledger_report_period_end_seconds");
    /// Periods published, counted from the ledger's beginning
    PERIODS: IntCounter = register_int_counter("medledger_report_periods_total");
    /// Encounters with an item in the last published period, by first-level area and age below or from five years
    ENCOUNTERS: IntGaugeVec = register_int_gauge_vec("medledger_report_encounters", &["area", "item", "age"]);
    /// People by triage category in the last published period
    TRIAGE: IntGaugeVec = register_int_gauge_vec("medledger_report_triage", &["area", "triage"]);
    /// People treated in the last published period
    TREATED: IntGaugeVec = register_int_gauge_vec("medledger_report_treated", &["facility"]);
    /// Cells withheld in the last published period, empty ones among them
    WITHHELD: IntGauge = register_int_gauge("medledger_report_suppressed_cells");
    /// Beds as each facility stated them last, at the end of the last published period
    BEDS: IntGaugeVec = register_int_gauge_vec("medledger_report_beds", &["facility", "kind", "state"]);
    /// 1: the facility stated its beds in the last published period
    REPORTED: IntGaugeVec = register_int_gauge_vec("medledger_report_facility_reported", &["facility"]);
    /// 1: it did so before the deadline
    ON_TIME: IntGaugeVec = register_int_gauge_vec("medledger_report_facility_on_time", &["facility"]);
    /// Facilities that are expected to report
    EXPECTED: IntGauge = register_int_gauge("medledger_report_facilities_expected");
    /// 1: a condition that is an alert by itself was stated in the last published period
    ALERT: IntGaugeVec = register_int_gauge_vec("medledger_report_alert", &["area", "item"]);
}

/// Before the first period there is this much to say.
pub fn declare(expected: usize) {
    EXPECTED.set(gauge(expected as u64));
    LazyLock::force(&PERIODS);
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
    for family in [&*ENCOUNTERS, &TRIAGE, &TREATED, &BEDS, &REPORTED, &ON_TIME, &ALERT] {
        family.reset();
    }
    for area in &report.areas {
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
