//! The contract's events as the report reads them. One endorser may have invented an event under a policy of one:
//! what is not as the contract writes it is no event.

use serde::Deserialize;

/// Kinds of beds of one statement.
pub const KINDS_MAX: usize = 16;
pub(super) const ITEMS_MAX: usize = 12;
const BEDS_MAX: u32 = 100_000;
/// Items of one statement of a site.
const SITE_ITEMS_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Encounter(Cell),
    Outcome(OutcomeChanged),
    Beds(Beds),
    Site(Site),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Triage {
    Red,
    Yellow,
    Green,
    Black,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sex {
    Male,
    FemaleNotPregnant,
    FemalePregnant,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Cell {
    pub codes: String,
    pub facility: String,
    pub area: String,
    pub triage: Triage,
    pub items: Vec<String>,
    pub age: Age,
    pub sex: Sex,
    pub outcome: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutcomeChanged {
    #[serde(flatten)]
    pub cell: Cell,
    pub former_outcome: Option<String>,
    pub former_time_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Beds {
    pub facility: String,
    pub beds: Vec<Ward>,
}

/// What a site reports of itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Site {
    pub codes: String,
    pub facility: String,
    pub items: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ward {
    pub kind: String,
    pub staffed: u32,
    pub occupied: u32,
}

impl Event {
    pub fn read(kind: &str, payload: &[u8]) -> Option<Event> {
        match kind {
            "encounter.added" => {
                let cell: Cell = serde_json::from_slice(payload).ok()?;
                cell.is_sound().then_some(Event::Encounter(cell))
            }
            "encounter.outcome" => {
                let changed: OutcomeChanged = serde_json::from_slice(payload).ok()?;
                changed.cell.is_sound().then_some(Event::Outcome(changed))
            }
            "beds.stated" => {
                let beds: Beds = serde_json::from_slice(payload).ok()?;
                beds.is_sound().then_some(Event::Beds(beds))
            }
            "site.stated" => {
                let site: Site = serde_json::from_slice(payload).ok()?;
                (site.items.len() <= SITE_ITEMS_MAX).then_some(Event::Site(site))
            }
            _ => None,
        }
    }
}

impl Cell {
    fn is_sound(&self) -> bool {
        let once = (1..self.items.len()).all(|at| !self.items[..at].contains(&self.items[at]));
        let possible = self.sex != Sex::FemalePregnant || !matches!(self.age, Age::Infant | Age::Young);
        (1..=ITEMS_MAX).contains(&self.items.len()) && once && possible
    }
}

impl Beds {
    fn is_sound(&self) -> bool {
        let once = (1..self.beds.len()).all(|at| self.beds[..at].iter().all(|ward| ward.kind != self.beds[at].kind));
        (1..=KINDS_MAX).contains(&self.beds.len()) && once && self.beds.iter().all(Ward::is_sound)
    }
}

impl Ward {
    fn is_sound(&self) -> bool {
        let named = (1..=32).contains(&self.kind.len())
            && self
                .kind
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        named && self.staffed <= BEDS_MAX && self.occupied <= BEDS_MAX
    }
}
