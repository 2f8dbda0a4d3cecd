//! What was counted in one period. Nothing of it is shown: [`super::report`] makes of it what may be.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    config::Rules,
    event::{Beds, Cell, Site, Ward},
};

/// Age bands times sexes.
pub const CLASSES: usize = 15;
pub const AGES: [&str; 5] = ["<1", "1-4", "5-17", "18-64", "65+"];
pub const SEXES: [&str; 3] = ["male", "femaleNotPregnant", "femalePregnant"];
/// In the order in which they are withheld for another's sake.
pub const TRIAGE: [&str; 4] = ["green", "yellow", "black", "red"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub areas: BTreeMap<String, Area>,
    /// By facility: only those that are expected.
    pub statements: BTreeMap<String, Statement>,
    /// Items that such a facility reported of itself, at any time of the period.
    pub sites: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Area {
    pub people: u64,
    pub facilities: BTreeMap<String, u64>,
    /// As [`TRIAGE`].
    pub triage: [u64; 4],
    /// By item, as [`AGES`] times [`SEXES`].
    pub items: BTreeMap<String, [u64; CLASSES]>,
    /// Outcomes that were stated in the period, of encounters of any.
    pub outcomes: BTreeMap<String, u64>,
}

/// A facility's in one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub first_ms: u64,
    /// The last.
    pub beds: Vec<Ward>,
}

impl Tally {
    pub fn encounter(&mut self, rules: &Rules, cell: &Cell) {
        let (name, facility) = rules.place(&cell.facility, &cell.area);
        let area = self.areas.entry(name).or_default();
        area.people += 1;
        *area.facilities.entry(facility).or_default() += 1;
        area.triage[triage_place(cell)] += 1;
        // Of another version of the list a code may mean something else: counted as a person only.
        if cell.codes != rules.codes.version {
            return;
        }
        let class = cell.age as usize * SEXES.len() + cell.sex as usize;
        for item in rules.codes.of_patients().filter(|item| cell.items.contains(&item.code)) {
            area.items.entry(item.code.clone()).or_default()[class] += 1;
        }
    }

    pub fn outcome(&mut self, rules: &Rules, cell: &Cell, outcome: &str) {
        if let Some(count) = self.outcome_cell(rules, cell, outcome) {
            *count += 1;
        }
    }

    pub fn take_back(&mut self, rules: &Rules, cell: &Cell, outcome: &str) {
        if let Some(count) = self.outcome_cell(rules, cell, outcome) {
            *count = count.saturating_sub(1);
        }
    }

    fn outcome_cell(&mut self, rules: &Rules, cell: &Cell, outcome: &str) -> Option<&mut u64> {
        let known = cell.codes == rules.codes.version && rules.codes.outcomes().any(|item| item.code == outcome);
        if !known {
            return None;
        }
        let (area, _) = rules.place(&cell.facility, &cell.area);
        let area = self.areas.entry(area).or_default();
        Some(area.outcomes.entry(outcome.to_owned()).or_default())
    }

    pub fn beds(&mut self, rules: &Rules, time_ms: u64, beds: &Beds) {
        if !rules.facilities.contains_key(&beds.facility) {
            return;
        }
        let statement = self.statements.entry(beds.facility.clone()).or_insert(Statement {
            first_ms: time_ms,
            beds: Vec::new(),
        });
        statement.first_ms = statement.first_ms.min(time_ms);
        statement.beds = by_kind(rules, &beds.beds);
    }

    pub fn site(&mut self, rules: &Rules, site: &Site) {
        if site.codes != rules.codes.version || !rules.facilities.contains_key(&site.facility) {
            return;
        }
        let known = rules.codes.of_sites().chain(rules.codes.immediate());
        let stated = known.filter(|item| site.items.contains(&item.code));
        let items = self.sites.entry(site.facility.clone()).or_default();
        items.extend(stated.map(|item| item.code.clone()));
    }

    /// Adds what another partition counted in the same period. A facility's statements are all in one partition.
    pub fn merge(&mut self, other: Tally) {
        for (name, from) in other.areas {
            let area = self.areas.entry(name).or_default();
            area.people += from.people;
            for (facility, count) in from.facilities {
                *area.facilities.entry(facility).or_default() += count;
            }
            for (to, from) in area.triage.iter_mut().zip(from.triage) {
                *to += from;
            }
            for (item, counts) in from.items {
                for (to, from) in area.items.entry(item).or_default().iter_mut().zip(counts) {
                    *to += from;
                }
            }
            for (outcome, count) in from.outcomes {
                *area.outcomes.entry(outcome).or_default() += count;
            }
        }
        self.statements.extend(other.statements);
        self.sites.extend(other.sites);
    }
}

/// As the list of codes divides them: kinds that it does not have are one.
fn by_kind(rules: &Rules, wards: &[Ward]) -> Vec<Ward> {
    let mut kinds: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for ward in wards {
        let (staffed, occupied) = kinds.entry(rules.codes.kind_of_beds(&ward.kind)).or_default();
        *staffed += ward.staffed;
        *occupied += ward.occupied;
    }
    let wards = kinds.into_iter().map(|(kind, (staffed, occupied))| Ward {
        kind: kind.to_owned(),
        staffed,
        occupied,
    });
    wards.collect()
}

fn triage_place(cell: &Cell) -> usize {
    use super::event::Triage;
    match cell.triage {
        Triage::Green => 0,
        Triage::Yellow => 1,
        Triage::Black => 2,
        Triage::Red => 3,
    }
}
