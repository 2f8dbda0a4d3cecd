//! Facilities: their beds, and what they report of themselves once a day. A facility's subject is `facility:NAME`.
//!
//! A facility's name is its organisation's MSP id, a dash, and what the organisation calls it: so nobody states for
//! another organisation's, whatever stands in his certificate. Who first made a statement owns its name for good.

use std::fmt;

use sdk::{Ctx, Person, Rejection};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::codes::CodeList;
use crate::record::Stamp;
use crate::records::{Changed, hex, stamp, unhex};
use crate::rights::{self, Right};
use crate::values::{Limit, checked};

/// The documents of a facility.
pub const BEDS: &str = "beds";
pub const SITE: &str = "site";

/// Kinds of beds of one facility.
const KINDS_MAX: usize = 16;

/// `HospitalA-1`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facility(String);

impl Facility {
    pub fn is_valid(text: &str) -> bool {
        text.len() <= 64
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.contains('-')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
    }

    pub fn subject(&self) -> String {
        format!("facility:{}", self.0)
    }
}

impl<'de> Deserialize<'de> for Facility {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(
            deserializer,
            "a facility as ORGANISATION-NAME, of at most 64 letters, digits, dots and dashes",
            Self::is_valid,
        )
        .map(Self)
    }
}

/// The facility that the person's certificate names.
pub fn own(person: &Person) -> Result<&str, Rejection> {
    let facility = person.attribute("facility").ok_or(Rejection::new(
        "facility",
        "is missing in the certificate: it says for which facility the person speaks",
    ))?;
    let of_organisation = facility
        .strip_prefix(person.organisation.as_str())
        .is_some_and(|name| name.len() > 1 && name.starts_with('-'));
    if of_organisation && Facility::is_valid(facility) {
        return Ok(facility);
    }
    Err(Rejection::new(
        "facility",
        "of the certificate must be ORGANISATION-NAME with the person's own organisation",
    ))
}

/// A kind of beds: `general`, `icu`, `isolation`, `maternity` … Which there are says the list of codes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Kind(String);

impl Kind {
    pub fn is_valid(text: &str) -> bool {
        (1..=32).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(
            deserializer,
            "a kind of beds of 1 to 32 small letters, digits and dashes, like icu",
            Self::is_valid,
        )
        .map(Self)
    }
}

/// A number of beds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Beds(u32);

const BEDS_MAX: u32 = 100_000;

impl<'de> Deserialize<'de> for Beds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl serde::de::Visitor<'_> for V {
            type Value = Beds;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a number of beds from 0 to 100000")
            }
            fn visit_u64<E: serde::de::Error>(self, beds: u64) -> Result<Beds, E> {
                match u32::try_from(beds) {
                    Ok(beds) if beds <= BEDS_MAX => Ok(Beds(beds)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Other("number"), &self)),
                }
            }
        }
        deserializer.deserialize_u32(V)
    }
}

/// Staffed and usable now, and how many of them are taken. More may be taken than are staffed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ward {
    pub kind: Kind,
    pub staffed: Beds,
    pub occupied: Beds,
}

/// What a facility says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Statement<T> {
    facility: String,
    organisation: String,
    version: u64,
    #[serde(flatten)]
    said: T,
    by: Stamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct Wards {
    beds: Vec<Ward>,
}

/// Codes of the list's sections of sites.
#[derive(Debug, Serialize, Deserialize)]
struct SiteItems {
    /// The list's version.
    codes: String,
    items: Vec<String>,
}

/// The event.
#[derive(Serialize)]
struct Stated<'s, T> {
    facility: &'s str,
    #[serde(flatten)]
    said: &'s T,
}

/// `version`: the one that the caller saw; 0 where nothing was stated yet.
pub fn set_beds(ctx: &mut Ctx, facility: Facility, version: u64, beds: Vec<Ward>) -> Result<Changed, Rejection> {
    rights::of(ctx.person())?;
    own_facility(ctx, &facility)?;
    if beds.is_empty() || beds.len() > KINDS_MAX {
        return Err(Rejection::new("beds", "must be 1 to 16 kinds"));
    }
    if (1..beds.len()).any(|at| beds[..at].iter().any(|ward| ward.kind == beds[at].kind)) {
        return Err(Rejection::new("beds", "must not name a kind twice"));
    }
    CodeList::of(None)?.check_beds(beds.iter().map(|ward| ward.kind.0.as_str()))?;
    let wards = Wards { beds };
    ctx.emit(
        "beds.stated",
        &Stated {
            facility: &facility.0,
            said: &wards,
        },
    );
    state(ctx, BEDS, facility, version, wards)
}

/// As [`set_beds`]. An item that is restricted is kept and is in no event: reports do not need it.
pub fn set_site(
    ctx: &mut Ctx,
    facility: Facility,
    version: u64,
    codes: Option<String>,
    items: Vec<String>,
) -> Result<Changed, Rejection> {
    rights::check(ctx.person(), Right::Clinical)?;
    own_facility(ctx, &facility)?;
    let list = CodeList::of(codes.as_deref())?;
    list.check_site(&items)?;
    let told = SiteItems {
        codes: list.version.clone(),
        items: items.iter().filter(|item| !list.is_restricted(item)).cloned().collect(),
    };
    ctx.emit(
        "site.stated",
        &Stated {
            facility: &facility.0,
            said: &told,
        },
    );
    let codes = list.version;
    state(ctx, SITE, facility, version, SiteItems { codes, items })
}

fn own_facility(ctx: &Ctx, facility: &Facility) -> Result<(), Rejection> {
    if own(ctx.person())? == facility.0 {
        return Ok(());
    }
    Err(Rejection::new("facility", "must be the one of the certificate"))
}

/// The next version of a facility's statement, for its owner who saw the present one.
fn state<T: Serialize + DeserializeOwned>(
    ctx: &mut Ctx,
    document: &str,
    facility: Facility,
    version: u64,
    said: T,
) -> Result<Changed, Rejection> {
    let former: Option<Statement<T>> = ctx.get(document);
    if former
        .as_ref()
        .is_some_and(|former| former.organisation != ctx.person().organisation)
    {
        return Err(Rejection::new("facility", "is another organisation's"));
    }
    if former.map_or(0, |former| former.version) != version {
        return Err(Rejection::new(
            "version",
            "is not the statement's present one: it was changed since it was read",
        ));
    }
    let statement = Statement {
        facility: facility.0,
        organisation: ctx.person().organisation.clone(),
        version: version + 1,
        said,
        by: stamp(ctx),
    };
    ctx.put(document, &statement);
    Ok(Changed {
        version: statement.version,
    })
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Shown(serde_json::Value);

pub fn beds(ctx: &mut Ctx, _facility: Facility) -> Result<Shown, Rejection> {
    rights::of(ctx.person())?;
    ctx.get(BEDS)
        .map(Shown)
        .ok_or(Rejection::new("facility", "never stated its beds"))
}

/// Version 0, as the first statement names it, where nothing was stated.
pub fn site(ctx: &mut Ctx, _facility: Facility) -> Result<Shown, Rejection> {
    rights::check(ctx.person(), Right::Clinical)?;
    Ok(Shown(
        ctx.get(SITE).unwrap_or_else(|| json!({"version": 0, "items": []})),
    ))
}

#[derive(Serialize)]
pub struct Statements {
    beds: Vec<Statement<Wards>>,
    /// The `after` of the next page; none at the end.
    next: Option<String>,
}

pub fn all_beds(ctx: &mut Ctx, after: Option<String>, limit: Option<Limit<100>>) -> Result<Statements, Rejection> {
    rights::of(ctx.person())?;
    let after = match after {
        Some(after) => Some(unhex(&after).ok_or(Rejection::new("after", "must be the next of an earlier page"))?),
        None => None,
    };
    let page = ctx.list(BEDS, after.as_deref(), limit.map_or(50, |limit| limit.0));
    Ok(Statements {
        beds: page
            .values
            .iter()
            .filter_map(|value| serde_json::from_slice(value).ok())
            .collect(),
        next: page.next.map(|next| hex(&next)),
    })
}
