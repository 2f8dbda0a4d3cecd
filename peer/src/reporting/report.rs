//! What is published of a period: only what [`super::suppress`] lets through. A report is made once and never changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    config::Rules,
    event::{ITEMS_MAX, Ward},
    suppress,
    tally::{AGES, Area, SEXES, TRIAGE, Tally},
};

/// A closed period. What is withheld is absent or null, and may be nothing or something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Its name: the start.
    pub period: u64,
    /// Unix seconds.
    pub start_s: u64,
    /// Unix seconds; the first that is not in it.
    pub end_s: u64,
    /// Counts below are withheld.
    pub threshold: u64,
    /// Version of the list of item codes.
    pub codes: String,
    pub facilities_expected: u64,
    pub facilities_reported: u64,
    pub facilities_on_time: u64,
    /// Cells of the tables of triage, facilities and items that are withheld, most of them because nothing happened.
    pub withheld_cells: u64,
    pub areas: Vec<AreaReport>,
    pub facilities: Vec<FacilityReport>,
    pub alerts: Vec<Alert>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AreaReport {
    pub area: String,
    /// People treated; null if withheld, and then all of the area is.
    pub treated: Option<u64>,
    pub triage: Vec<Count>,
    /// Outcomes that were stated in the period.
    pub outcomes: Vec<Count>,
    /// Of each item, below five years and from five on.
    pub items: Vec<ItemCount>,
    /// The items by age band and sex.
    pub matrix: Vec<MatrixCount>,
    /// Those that nobody expects, together.
    pub other_facilities: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Count {
    pub key: String,
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ItemCount {
    pub item: String,
    /// `under5` or `over5`.
    pub age: String,
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MatrixCount {
    pub item: String,
    /// `<1`, `1-4`, `5-17`, `18-64` or `65+`.
    pub age: String,
    /// `male`, `femaleNotPregnant` or `femalePregnant`.
    pub sex: String,
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FacilityReport {
    pub facility: String,
    pub area: String,
    /// Null if withheld.
    pub treated: Option<u64>,
    /// It stated its beds in the period.
    pub reported: bool,
    pub on_time: bool,
    /// As it stated them last.
    pub beds: Vec<BedCount>,
    /// Items of its community's risks and its constraints that it reported in the period.
    pub items: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BedCount {
    pub kind: String,
    /// Staffed and usable.
    pub staffed: u32,
    /// At least so many, in steps.
    pub occupied: u32,
    /// At least so many are staffed, usable and free.
    pub available: u32,
}

/// A condition one case of which is an alert. Presence only, never a count, and never withheld.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Alert {
    pub area: String,
    pub item: String,
}

/// Bands of [`AGES`] below five years.
const UNDER_5: usize = 2;
const HALVES: [&str; 2] = ["under5", "over5"];

/// The classes of one half that can have people in them: nobody is pregnant below five.
fn classes(half: usize) -> Vec<usize> {
    let class = |age: usize, sex: usize| age * SEXES.len() + sex;
    if half == 0 {
        (0..UNDER_5).flat_map(|age| [class(age, 0), class(age, 1)]).collect()
    } else {
        (class(UNDER_5, 0)..class(AGES.len(), 0)).collect()
    }
}

impl Report {
    pub fn new(rules: &Rules, period: u64, tally: &Tally, beds: &BTreeMap<String, Vec<Ward>>) -> Self {
        let start_ms = period * rules.period_ms;
        let mut report = Report {
            period: start_ms / 1_000,
            start_s: start_ms / 1_000,
            end_s: (start_ms + rules.period_ms) / 1_000,
            threshold: rules.threshold,
            codes: rules.codes.version.clone(),
            facilities_expected: rules.facilities.len() as u64,
            facilities_reported: 0,
            facilities_on_time: 0,
            withheld_cells: 0,
            areas: Vec::new(),
            facilities: Vec::new(),
            alerts: Vec::new(),
        };
        let nobody = Area::default();
        for (name, facilities) in rules.areas() {
            let area = tally.areas.get(&name).unwrap_or(&nobody);
            let told = area_report(rules, &name, &facilities, area);
            report.withheld_cells += told.withheld;
            for (facility, treated) in facilities.iter().zip(told.facilities) {
                if rules.facilities.contains_key(facility) {
                    let report_of = facility_report(rules, facility, start_ms, treated, tally, beds.get(facility));
                    report.facilities.push(report_of);
                }
            }
            report.areas.push(told.area);
            let alerts = rules.codes.items.iter().filter(|item| item.alert && !item.restricted);
            let stated = alerts.filter(|item| {
                let of_patients = area.items.get(&item.code);
                let mut sites = facilities.iter().filter_map(|facility| tally.sites.get(facility));
                of_patients.is_some_and(|counts| counts.iter().any(|n| *n > 0))
                    || sites.any(|items| items.contains(&item.code))
            });
            report.alerts.extend(stated.map(|item| Alert {
                area: name.clone(),
                item: item.code.clone(),
            }));
        }
        report.facilities_reported = report.facilities.iter().filter(|facility| facility.reported).count() as u64;
        report.facilities_on_time = report.facilities.iter().filter(|facility| facility.on_time).count() as u64;
        report
    }
}

fn facility_report(
    rules: &Rules,
    facility: &str,
    start_ms: u64,
    treated: Option<u64>,
    tally: &Tally,
    beds: Option<&Vec<Ward>>,
) -> FacilityReport {
    let statement = tally.statements.get(facility);
    let deadline_ms = start_ms + rules.deadline_ms;
    FacilityReport {
        facility: facility.to_owned(),
        area: rules.facilities[facility].clone(),
        treated,
        reported: statement.is_some(),
        on_time: statement.is_some_and(|statement| (start_ms..deadline_ms).contains(&statement.first_ms)),
        beds: beds.into_iter().flatten().map(|ward| bed_count(rules, ward)).collect(),
        items: site_items(rules, tally, facility),
    }
}

fn site_items(rules: &Rules, tally: &Tally, facility: &str) -> Vec<String> {
    let Some(stated) = tally.sites.get(facility) else {
        return Vec::new();
    };
    let told = rules.codes.of_sites().filter(|item| stated.contains(&item.code));
    told.map(|item| item.code.clone()).collect()
}

fn bed_count(rules: &Rules, ward: &Ward) -> BedCount {
    let (occupied, available) = suppress::beds(ward.staffed, ward.occupied, rules.beds_step);
    BedCount {
        kind: ward.kind.clone(),
        staffed: ward.staffed,
        occupied,
        available,
    }
}

struct Told {
    area: AreaReport,
    /// As the facilities were given.
    facilities: Vec<Option<u64>>,
    withheld: u64,
}

fn area_report(rules: &Rules, name: &str, facilities: &[String], area: &Area) -> Told {
    let threshold = rules.threshold;
    let counts: Vec<u64> = facilities
        .iter()
        .map(|facility| area.facilities.get(facility).copied().unwrap_or(0))
        .collect();
    let by_facility = suppress::family(&counts, &vec![false; counts.len()], threshold);
    let by_triage = suppress::family(&area.triage, &[false; TRIAGE.len()], threshold);
    let treated = by_triage.as_ref().map(|_| area.people);
    let by_facility = by_facility.unwrap_or_else(|| vec![None; facilities.len()]);
    let by_triage = by_triage.unwrap_or_else(|| vec![None; TRIAGE.len()]);
    let (items, cells) = items(rules, area, treated);
    let told = [&by_facility, &by_triage].map(|told| told.iter().flatten().count());
    let withheld = by_facility.len() + by_triage.len() + cells - told[0] - told[1] - items.len();
    Told {
        withheld: withheld as u64,
        area: AreaReport {
            area: name.to_owned(),
            treated,
            triage: named(TRIAGE, &by_triage),
            outcomes: outcomes(rules, area),
            matrix: matrix(rules, area, &items),
            items,
            other_facilities: by_facility.last().copied().flatten(),
        },
        facilities: by_facility,
    }
}

fn named<'k>(keys: impl IntoIterator<Item = &'k str>, told: &[Option<u64>]) -> Vec<Count> {
    let named = keys.into_iter().zip(told);
    named
        .filter_map(|(key, count)| {
            count.map(|count| Count {
                key: key.to_owned(),
                count,
            })
        })
        .collect()
}

fn outcomes(rules: &Rules, area: &Area) -> Vec<Count> {
    let outcomes: Vec<_> = rules.codes.outcomes().collect();
    let counts: Vec<u64> = outcomes
        .iter()
        .map(|item| area.outcomes.get(&item.code).copied().unwrap_or(0))
        .collect();
    let never: Vec<bool> = outcomes.iter().map(|item| item.restricted).collect();
    let told = suppress::family(&counts, &never, rules.threshold).unwrap_or_default();
    named(outcomes.iter().map(|item| item.code.as_str()), &told)
}

/// What is told, and of how many cells. Restricted items are no cells: nobody is told of them.
fn items(rules: &Rules, area: &Area, treated: Option<u64>) -> (Vec<ItemCount>, usize) {
    let (restricted, open): (Vec<_>, Vec<_>) = rules.codes.of_patients().partition(|item| item.restricted);
    let cells: Vec<(&str, usize)> = open
        .iter()
        .flat_map(|item| [(item.code.as_str(), 0), (item.code.as_str(), 1)])
        .collect();
    let Some(people) = treated else {
        return (Vec::new(), cells.len());
    };
    let counts: Vec<u64> = cells
        .iter()
        .map(|(item, half)| {
            let counts = area.items.get(*item);
            counts.map_or(0, |counts| classes(*half).iter().map(|class| counts[*class]).sum())
        })
        .collect();
    let told = suppress::cover(&counts, 2 * restricted.len() as u64, people, rules.threshold);
    let told = cells.iter().zip(told).filter_map(|((item, half), count)| {
        count.map(|count| ItemCount {
            item: (*item).to_owned(),
            age: HALVES[*half].to_owned(),
            count,
        })
    });
    (told.collect(), cells.len())
}

/// By age band and sex, of those items that may be divided.
fn matrix(rules: &Rules, area: &Area, items: &[ItemCount]) -> Vec<MatrixCount> {
    let told: Vec<(usize, u64)> = items.iter().map(|item| (half(item), item.count)).collect();
    let divisible = suppress::divisible(&told, area.people, ITEMS_MAX as u64);
    let divided = items.iter().zip(divisible).filter(|(_, divisible)| *divisible);
    divided.flat_map(|(item, _)| classes_of(rules, area, item)).collect()
}

fn half(item: &ItemCount) -> usize {
    usize::from(item.age == HALVES[1])
}

/// An item's people of one half, by age band and sex.
fn classes_of(rules: &Rules, area: &Area, item: &ItemCount) -> Vec<MatrixCount> {
    let classes = classes(half(item));
    let Some(all) = area.items.get(&item.item) else {
        return Vec::new();
    };
    let counts: Vec<u64> = classes.iter().map(|class| all[*class]).collect();
    let told = suppress::family(&counts, &vec![false; counts.len()], rules.threshold).unwrap_or_default();
    let told = classes.into_iter().zip(told);
    told.filter_map(|(class, count)| {
        count.map(|count| MatrixCount {
            item: item.item.clone(),
            age: AGES[class / SEXES.len()].to_owned(),
            sex: SEXES[class % SEXES.len()].to_owned(),
            count,
        })
    })
    .collect()
}
