//! Encounters of a patient with a facility: what the daily reports of field hospitals are counted from.
//!
//! An encounter is a key of its own under the patient's subject, so a record's document does not grow with them, and
//! adding one reads nothing that another changes. It needs no record: who comes in first is treated first.
//! The facility is that of the person's certificate, never of the call.
//!
//! Every change emits what a count needs and nothing else: no patient, no text, nobody's name.

use std::fmt::Write as _;

use sdk::{Ctx, Rejection};
use serde::{Deserialize, Serialize};

use crate::codes::CodeList;
use crate::facility;
use crate::record::Stamp;
use crate::records::{Changed, hex, stamp, unhex};
use crate::rights::{self, Right};
use crate::values::{Area, Limit, PersonalNumber};

/// Before an encounter's id: `encounter/` and after it the first key that is none.
const PREFIX: &str = "encounter/";
const END: &str = "encounter0";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Triage {
    Red,
    Yellow,
    Green,
    Black,
}

/// Age bands of the minimum data set, in years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Age {
    #[serde(rename = "<1")]
    Infant,
    #[serde(rename = "1-4")]
    Young,
    #[serde(rename = "5-17")]
    School,
    #[serde(rename = "18-64")]
    Adult,
    #[serde(rename = "65+")]
    Old,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sex {
    Male,
    FemaleNotPregnant,
    FemalePregnant,
}

/// What a caller says of one.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewEncounter {
    pub area: Area,
    pub triage: Triage,
    pub items: Vec<String>,
    pub age: Age,
    pub sex: Sex,
    pub outcome: Option<String>,
    /// Version of the list of codes; the newest if it is not named.
    pub codes: Option<String>,
}

/// What is counted: the same in the state and in events.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cell {
    pub codes: String,
    pub facility: String,
    pub area: Area,
    pub triage: Triage,
    pub items: Vec<String>,
    pub age: Age,
    pub sex: Sex,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// The document under `encounter/ID`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encounter {
    id: String,
    /// Counts the changes of its outcome.
    version: u64,
    #[serde(flatten)]
    cell: Cell,
    by: Stamp,
    /// Who stated the outcome, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome_by: Option<Stamp>,
}

/// The event of a changed outcome: the cell as it is now, and what a reader has to take back.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutcomeChanged<'e> {
    #[serde(flatten)]
    cell: &'e Cell,
    #[serde(skip_serializing_if = "Option::is_none")]
    former_outcome: Option<String>,
    /// When the former one was stated, Unix milliseconds: which of a reader's periods holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    former_time_ms: Option<u64>,
}

#[derive(Serialize)]
pub struct Added {
    pub id: String,
    pub version: u64,
}

/// An encounter's place among those of its patient: 13 digits of time, a dash, 16 digits of the transaction.
#[derive(Clone, Debug)]
pub struct EncounterId(String);

impl EncounterId {
    fn new(ctx: &Ctx) -> Self {
        let mut id = format!("{:013}-", ctx.time_ms());
        for byte in ctx.tx_id().iter().take(8) {
            // Writing to a String does not fail.
            let _ = write!(id, "{byte:02x}");
        }
        EncounterId(id)
    }

    pub fn is_valid(text: &str) -> bool {
        let bytes = text.as_bytes();
        bytes.len() == 30
            && bytes[13] == b'-'
            && bytes[..13].iter().all(u8::is_ascii_digit)
            && bytes[14..]
                .iter()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
    }

    pub fn key(&self) -> String {
        format!("{PREFIX}{}", self.0)
    }
}

impl<'de> Deserialize<'de> for EncounterId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::values::checked(
            deserializer,
            "the id of an encounter, as it was answered",
            Self::is_valid,
        )
        .map(Self)
    }
}

pub fn add_encounter(ctx: &mut Ctx, _number: PersonalNumber, new: NewEncounter) -> Result<Added, Rejection> {
    rights::check(ctx.person(), Right::Clinical)?;
    let facility = facility::own(ctx.person())?;
    let list = CodeList::of(new.codes.as_deref())?;
    list.check_items(&new.items)?;
    if let Some(outcome) = &new.outcome {
        list.check_outcome(outcome)?;
    }
    if new.sex == Sex::FemalePregnant && matches!(new.age, Age::Infant | Age::Young) {
        return Err(Rejection::new("sex", "must not be femalePregnant below five years"));
    }
    let id = EncounterId::new(ctx);
    let by = stamp(ctx);
    let encounter = Encounter {
        id: id.0.clone(),
        version: 1,
        outcome_by: new.outcome.is_some().then(|| by.clone()),
        cell: Cell {
            codes: list.version,
            facility: facility.to_owned(),
            area: new.area,
            triage: new.triage,
            items: new.items,
            age: new.age,
            sex: new.sex,
            outcome: new.outcome,
        },
        by,
    };
    ctx.put(id.key(), &encounter);
    ctx.emit("encounter.added", &encounter.cell);
    Ok(Added { id: id.0, version: 1 })
}

pub fn set_outcome(
    ctx: &mut Ctx,
    _number: PersonalNumber,
    id: EncounterId,
    version: u64,
    outcome: String,
) -> Result<Changed, Rejection> {
    rights::check(ctx.person(), Right::Clinical)?;
    let mut encounter: Encounter = ctx
        .get(id.key())
        .ok_or(Rejection::new("id", "is not an encounter of this patient"))?;
    if encounter.version != version {
        return Err(Rejection::new(
            "version",
            "is not the encounter's present one: it was changed since it was read",
        ));
    }
    CodeList::of(Some(&encounter.cell.codes))?.check_outcome(&outcome)?;
    if encounter.cell.outcome.as_ref() == Some(&outcome) {
        return Err(Rejection::new("outcome", "is the encounter's present one"));
    }
    let former_outcome = encounter.cell.outcome.replace(outcome);
    let former_time_ms = encounter.outcome_by.replace(stamp(ctx)).map(|by| by.time_ms);
    encounter.version += 1;
    ctx.put(id.key(), &encounter);
    ctx.emit(
        "encounter.outcome",
        &OutcomeChanged {
            cell: &encounter.cell,
            former_outcome,
            former_time_ms,
        },
    );
    Ok(Changed {
        version: encounter.version,
    })
}

#[derive(Serialize)]
pub struct Encounters {
    encounters: Vec<Encounter>,
    /// The `after` of the next page; none at the end.
    next: Option<String>,
}

/// Oldest first.
pub fn encounters(
    ctx: &mut Ctx,
    _number: PersonalNumber,
    after: Option<String>,
    limit: Option<Limit<100>>,
) -> Result<Encounters, Rejection> {
    rights::check(ctx.person(), Right::Clinical)?;
    let start = match after {
        // The key itself was on the page before.
        Some(after) => [
            unhex(&after).ok_or(Rejection::new("after", "must be the next of an earlier page"))?,
            vec![0],
        ]
        .concat(),
        None => PREFIX.into(),
    };
    if !start.starts_with(PREFIX.as_bytes()) {
        return Err(Rejection::new("after", "must be the next of an earlier page"));
    }
    let page = ctx.range(&start, END, limit.map_or(50, |limit| limit.0));
    let last = page.entries.last().filter(|_| page.more);
    Ok(Encounters {
        next: last.map(|(key, _)| hex(key)),
        encounters: page
            .entries
            .iter()
            .filter_map(|(_, value)| serde_json::from_slice(value).ok())
            .collect(),
    })
}
