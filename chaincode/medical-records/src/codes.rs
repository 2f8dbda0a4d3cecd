//! Lists of item codes and of kinds of beds: data, not code. A country changes items, so a list has a version and every
//! encounter names the version that it was coded by; older lists stay, so that older encounters stay readable.

use sdk::Rejection;
use serde::Deserialize;

/// All lists, the newest last.
const LISTS: &[&str] = &[include_str!("../codes/who-emt-mds-1.json")];

/// Items an encounter may have.
pub const ITEMS_MAX: usize = 12;
/// Items a site may report of itself.
const SITE_ITEMS_MAX: usize = 32;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeList {
    pub version: String,
    pub beds: Vec<Beds>,
    pub items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    pub code: String,
    pub name: String,
    pub section: String,
    /// For a line list of few readers; in no published count.
    #[serde(default)]
    pub restricted: bool,
    /// One case is an alert by itself.
    #[serde(default)]
    pub alert: bool,
}

/// A kind of beds that a facility may state: a closed list, so that nobody's condition becomes a label.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beds {
    pub kind: String,
    pub name: String,
}

/// What patients end with.
const OUTCOME: &str = "outcome";
/// What a site reports of itself and not of a patient.
const OF_SITES: [&str; 3] = ["immediate", "community-risk", "constraint"];

impl CodeList {
    pub fn all() -> impl Iterator<Item = CodeList> {
        LISTS
            .iter()
            .map(|list| serde_json::from_str(list).expect("a list of codes is one: a test reads them all"))
    }

    /// The list of that version; the newest if none is named.
    pub fn of(version: Option<&str>) -> Result<Self, Rejection> {
        let mut lists = Self::all();
        match version {
            None => lists.last(),
            Some(version) => lists.find(|list| list.version == version),
        }
        .ok_or(Rejection::new(
            "codes",
            "must be the version of a list of item codes that the contract has",
        ))
    }

    fn section(&self, code: &str) -> Option<&str> {
        let item = self.items.iter().find(|item| item.code == code)?;
        Some(&item.section)
    }

    pub fn check_items(&self, items: &[String]) -> Result<(), Rejection> {
        if items.is_empty() || items.len() > ITEMS_MAX {
            return Err(Rejection::new("items", "must be 1 to 12 item codes"));
        }
        for (at, item) in items.iter().enumerate() {
            match self.section(item) {
                None => return Err(Rejection::new("items", "must be codes of the list that codes names")),
                Some(OUTCOME) => return Err(Rejection::new("items", "must not be outcomes: outcome is for those")),
                Some(section) if OF_SITES.contains(&section) => {
                    return Err(Rejection::new("items", "must be of a patient, not of a site"));
                }
                Some(_) => {}
            }
            check_first(items, at)?;
        }
        Ok(())
    }

    /// None is a statement too: nothing to report.
    pub fn check_site(&self, items: &[String]) -> Result<(), Rejection> {
        if items.len() > SITE_ITEMS_MAX {
            return Err(Rejection::new("items", "must be at most 32 item codes"));
        }
        for (at, item) in items.iter().enumerate() {
            if !self.section(item).is_some_and(|section| OF_SITES.contains(&section)) {
                return Err(Rejection::new(
                    "items",
                    "must be of a site, by the list that codes names: immediate, community-risk or constraint",
                ));
            }
            check_first(items, at)?;
        }
        Ok(())
    }

    pub fn is_restricted(&self, code: &str) -> bool {
        self.items.iter().any(|item| item.code == code && item.restricted)
    }

    pub fn check_beds<'k>(&self, mut kinds: impl Iterator<Item = &'k str>) -> Result<(), Rejection> {
        if kinds.all(|kind| self.beds.iter().any(|known| known.kind == kind)) {
            return Ok(());
        }
        Err(Rejection::new(
            "beds",
            "must be kinds of the newest list of codes, as general, icu, isolation; other is for all others",
        ))
    }

    pub fn check_outcome(&self, outcome: &str) -> Result<(), Rejection> {
        match self.section(outcome) {
            Some(OUTCOME) => Ok(()),
            _ => Err(Rejection::new(
                "outcome",
                "must be an outcome's code of the list that the encounter names",
            )),
        }
    }
}

/// The item there was not named before.
fn check_first(items: &[String], at: usize) -> Result<(), Rejection> {
    if items[..at].contains(&items[at]) {
        return Err(Rejection::new("items", "must not name an item twice"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::facility::Kind;

    #[test]
    fn every_list_is_sound_and_versions_and_codes_are_unique() {
        let mut versions = BTreeSet::new();
        for list in CodeList::all() {
            let codes: BTreeSet<&str> = list.items.iter().map(|item| item.code.as_str()).collect();
            assert_eq!(codes.len(), list.items.len(), "{}", list.version);
            let kinds: BTreeSet<&str> = list.beds.iter().map(|beds| beds.kind.as_str()).collect();
            assert_eq!(kinds.len(), list.beds.len(), "{}", list.version);
            assert!(kinds.contains("other") && kinds.iter().all(|kind| Kind::is_valid(kind)));
            for code in codes {
                let short = (1..=8).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
                assert!(short, "{code}");
            }
            assert!(versions.insert(list.version));
        }
    }

    #[test]
    fn an_encounter_takes_what_is_of_a_patient() {
        let list = CodeList::of(None).expect("the newest");
        let items = |codes: &[&str]| list.check_items(&codes.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(items(&["9", "44", "28"]), Ok(()));
        for wrong in [&[][..], &["9", "9"], &["3"], &["40"], &["57"], &["9"; 13]] {
            assert!(items(wrong).is_err(), "{wrong:?}");
        }
        assert!(list.check_outcome("40").is_ok() && list.check_outcome("9").is_err());
        assert!(CodeList::of(Some("who-emt-mds-1")).is_ok() && CodeList::of(Some("none")).is_err());
    }
}
