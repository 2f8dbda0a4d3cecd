//! `[reporting]` of a peer's settings, and what the fold makes of it.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use service::settings::Broken;

use super::{
    codes::CodeList,
    suppress::{BEDS_STEP_MIN, THRESHOLD_MIN},
};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportingConfig {
    /// Whose events are counted.
    #[serde(default = "contract")]
    pub contract: String,
    /// Length of a period. Periods begin at multiples of it since 1970, in UTC.
    #[serde(default = "day_s")]
    pub period_s: u64,
    /// How long after its end a period waits for encounters whose clients' clocks are behind.
    #[serde(default = "grace_s")]
    pub grace_s: u64,
    /// A facility is on time if it stated its beds so long after a period's start, or sooner.
    #[serde(default = "deadline_s")]
    pub deadline_s: u64,
    /// Counts below are withheld.
    #[serde(default = "threshold")]
    pub threshold: u64,
    /// Occupied beds are told in steps of so many.
    #[serde(default = "beds_step")]
    pub beds_step: u32,
    /// Unix time; encounters of periods before it are not counted.
    #[serde(default)]
    pub since_s: u64,
    /// Published periods that are kept.
    #[serde(default = "keep")]
    pub keep: usize,
    /// Items one case of which is an alert; absent: those that the list of codes says.
    pub alert_items: Option<Vec<String>>,
    /// A list of item codes and kinds of beds, JSON; absent: that of the contract.
    pub codes: Option<PathBuf>,
    pub facilities: Vec<FacilityConfig>,
}

/// A facility that is expected to report.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FacilityConfig {
    pub name: String,
    /// First-level area. It holds for the facility's encounters too, whatever they say.
    pub area: String,
}

fn contract() -> String {
    "medical-records".to_owned()
}

fn day_s() -> u64 {
    24 * 60 * 60
}

/// What endorsers allow a client's clock to be off.
fn grace_s() -> u64 {
    15 * 60
}

/// 20:00, when teams send their daily report.
fn deadline_s() -> u64 {
    20 * 60 * 60
}

fn threshold() -> u64 {
    10
}

fn beds_step() -> u32 {
    5
}

/// A year of days, and a month.
fn keep() -> usize {
    400
}

const FACILITIES_MAX: usize = 1_000;
const KEEP_MAX: usize = 10_000;

pub fn is_label(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

impl ReportingConfig {
    pub fn check(&self) -> Result<(), Broken> {
        let broken = |field: &str, rule: &str| Err(Broken::new(format!("reporting.{field}"), rule));
        if self.period_s == 0 || self.period_s > 366 * day_s() {
            return broken("period_s", "must be 1 second to 366 days");
        }
        if self.grace_s > 7 * day_s() {
            return broken("grace_s", "must be at most 7 days");
        }
        if self.threshold < THRESHOLD_MIN || self.threshold > 1_000 {
            return broken(
                "threshold",
                "must be 3 to 1000: below 3 a withheld count could only be 1",
            );
        }
        if !(BEDS_STEP_MIN..=1_000).contains(&self.beds_step) {
            return broken("beds_step", "must be 3 to 1000: in each bed lies one person");
        }
        if self.keep == 0 || self.keep > KEEP_MAX {
            return broken("keep", "must be 1 to 10000");
        }
        if self.facilities.is_empty() || self.facilities.len() > FACILITIES_MAX {
            return broken("facilities", "must be 1 to 1000");
        }
        let mut names = std::collections::BTreeSet::new();
        for facility in &self.facilities {
            if !is_label(&facility.name) || !is_label(&facility.area) {
                return broken(
                    "facilities",
                    "must have names and areas of 1 to 64 letters, digits, dots and dashes",
                );
            }
            if facility.area == OTHER || !names.insert(&facility.name) {
                return broken("facilities", "must not name a facility twice, nor an area other");
            }
        }
        Ok(())
    }
}

/// What only both together show.
pub fn check_codes(config: &ReportingConfig, codes: &CodeList) -> Result<(), Broken> {
    let broken = |field: &str, rule: &str| Err(Broken::new(format!("reporting.{field}"), rule));
    if !codes.of_patients().any(|item| item.restricted) {
        return broken(
            "codes",
            "must have a restricted item: what nobody is told of is what the others' sums hide behind",
        );
    }
    let open = |code: &String| {
        let mut alerts = codes.of_patients().chain(codes.immediate()).chain(codes.of_sites());
        alerts.any(|item| item.code == *code && !item.restricted)
    };
    if !config.alert_items.iter().flatten().all(open) {
        return broken(
            "alert_items",
            "must be codes of the list's that are no outcomes and not restricted",
        );
    }
    Ok(())
}

/// Where the areas are that nobody configured.
pub const OTHER: &str = "other";

/// What the fold and the reports go by.
#[derive(Debug)]
pub struct Rules {
    pub contract: String,
    pub period_ms: u64,
    pub grace_ms: u64,
    pub deadline_ms: u64,
    pub threshold: u64,
    pub beds_step: u32,
    pub since: u64,
    pub keep: usize,
    pub codes: CodeList,
    /// Area by facility.
    pub facilities: BTreeMap<String, String>,
}

impl Rules {
    pub fn new(config: &ReportingConfig, mut codes: CodeList) -> Self {
        if let Some(alerts) = &config.alert_items {
            for item in &mut codes.items {
                item.alert = alerts.contains(&item.code);
            }
        }
        let period_ms = config.period_s * 1_000;
        Rules {
            contract: config.contract.clone(),
            period_ms,
            grace_ms: config.grace_s * 1_000,
            deadline_ms: config.deadline_s * 1_000,
            threshold: config.threshold,
            beds_step: config.beds_step,
            since: (config.since_s * 1_000).div_ceil(period_ms),
            keep: config.keep,
            codes,
            facilities: config
                .facilities
                .iter()
                .map(|facility| (facility.name.clone(), facility.area.clone()))
                .collect(),
        }
    }

    /// Of everything that divides people into counts: other rules have another one.
    pub fn fingerprint(&self) -> String {
        /// Changed with what `tally` and `suppress` make of the same rules.
        const MADE_BY: u32 = 3;
        let dividing = (
            MADE_BY,
            &self.contract,
            (self.period_ms, self.grace_ms, self.threshold, self.beds_step),
            &self.codes,
            &self.facilities,
        );
        hex::encode(protocol::sha256(format!("{dividing:?}").as_bytes()))
    }

    /// Labels that everything is counted under: a bounded number, whatever is stated.
    pub fn place(&self, facility: &str, area: &str) -> (String, String) {
        if let Some(area) = self.facilities.get(facility) {
            return (area.clone(), facility.to_owned());
        }
        let known = self.facilities.values().any(|known| known == area);
        let area = if known { area } else { OTHER };
        (area.to_owned(), format!("{OTHER}.{area}"))
    }

    /// All areas there are, with their facilities and the one for those not expected.
    pub fn areas(&self) -> BTreeMap<String, Vec<String>> {
        let mut areas: BTreeMap<String, Vec<String>> = BTreeMap::from([(OTHER.to_owned(), Vec::new())]);
        for (facility, area) in &self.facilities {
            areas.entry(area.clone()).or_default().push(facility.clone());
        }
        for (area, facilities) in &mut areas {
            facilities.push(format!("{OTHER}.{area}"));
        }
        areas
    }
}
