//! The list of item codes that a report counts by: the contract's, or another of the same form.

use std::path::Path;

use serde::Deserialize;
use service::settings::Broken;

use super::{
    config::{OTHER, is_label},
    event::KINDS_MAX,
};

/// The contract's newest.
const LIST: &str = include_str!("../../../chaincode/medical-records/codes/who-emt-mds-1.json");

const ITEMS_MAX: usize = 500;

const IMMEDIATE: &str = "immediate";
/// Of a place and not of a person.
const OF_SITES: [&str; 2] = ["community-risk", "constraint"];

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeList {
    pub version: String,
    /// What beds are told by; those of any other kind are told together.
    pub beds: Vec<Beds>,
    pub items: Vec<Item>,
}

/// A kind of beds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beds {
    pub kind: String,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    pub code: String,
    pub name: String,
    pub section: String,
    #[serde(default)]
    pub restricted: bool,
    #[serde(default)]
    pub alert: bool,
}

impl CodeList {
    pub fn own() -> Self {
        serde_json::from_str(LIST).expect("the contract's list: a test reads it")
    }

    pub fn load(file: &Path) -> Result<Self, Broken> {
        let broken = |rule: String| Broken::new("reporting.codes", rule);
        let text = std::fs::read_to_string(file).map_err(|error| broken(format!("cannot be read: {error}")))?;
        let list: CodeList = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        if list.items.is_empty() || list.items.len() > ITEMS_MAX {
            return Err(broken("must have 1 to 500 items".to_owned()));
        }
        if list.beds.len() > KINDS_MAX || !list.beds.iter().all(|beds| is_label(&beds.kind)) {
            return Err(broken(
                "must have at most 16 kinds of beds, of 1 to 64 letters, digits, dots and dashes".to_owned(),
            ));
        }
        Ok(list)
    }

    /// What encounters are counted by.
    pub fn of_patients(&self) -> impl Iterator<Item = &Item> {
        let is_other = |section: &str| section == "outcome" || section == IMMEDIATE || OF_SITES.contains(&section);
        self.items.iter().filter(move |item| !is_other(&item.section))
    }

    /// What sites are told to have reported of themselves.
    pub fn of_sites(&self) -> impl Iterator<Item = &Item> {
        let open = self.items.iter().filter(|item| !item.restricted);
        open.filter(|item| OF_SITES.contains(&item.section.as_str()))
    }

    /// What a site reports at once: it may be of one person, so it is told as an alert of the area, or not at all.
    pub fn immediate(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.section == IMMEDIATE)
    }

    /// What beds of that kind are told as.
    pub fn kind_of_beds(&self, kind: &str) -> &str {
        let known = self.beds.iter().find(|beds| beds.kind == kind);
        known.map_or(OTHER, |beds| &beds.kind)
    }

    pub fn outcomes(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.section == "outcome")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_list_is_one() {
        let list = CodeList::own();
        let restricted: Vec<&str> = list
            .items
            .iter()
            .filter(|item| item.restricted)
            .map(|item| item.code.as_str())
            .collect();
        assert_eq!(restricted, ["28", "31", "42", "43", "47", "48", "49", "50", "51", "53"]);
        assert_eq!(list.outcomes().count(), 8);
        assert!(list.of_patients().all(|item| item.code != "40" && item.code != "57"));
        let sites: Vec<&str> = list.of_sites().map(|item| item.code.as_str()).collect();
        assert_eq!(sites, ["56", "57", "58", "59", "60", "61", "62", "63", "64", "65"]);
        assert!(list.immediate().all(|item| item.alert != item.restricted));
    }
}
