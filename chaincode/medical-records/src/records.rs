//! The functions about a whole record.

use std::fmt::Write;

use sdk::{Change, Ctx, Rejection};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::entries::push;
use crate::record::{Closed, NewRecord, RECORD_BYTES_MAX, Record, RecordChanges, Stamp};
use crate::rights::{self, Right};
use crate::values::{Limit, PersonalNumber};
use crate::{CLOSED, RECORD};

/// The answer to a change.
#[derive(Serialize)]
pub struct Changed {
    pub version: u64,
}

pub fn stamp(ctx: &Ctx) -> Stamp {
    let person = ctx.person();
    Stamp {
        time_ms: ctx.time_ms(),
        organisation: person.organisation.clone(),
        person: person.common_name.clone(),
        practitioner_role: person.attribute("practitioner_role").unwrap_or_default().to_owned(),
        asserted: person.asserted,
    }
}

fn none() -> Rejection {
    Rejection::new("personalNumber", "has no record")
}

pub fn load(ctx: &mut Ctx) -> Result<Record, Rejection> {
    ctx.get(RECORD).ok_or_else(none)
}

/// Stores a record whose version the caller has moved on.
pub fn save(ctx: &mut Ctx, mut record: Record, event: &str) -> Result<Changed, Rejection> {
    record.updated = stamp(ctx);
    let changed = Changed {
        version: record.version,
    };
    let bytes = sdk::response(&record);
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(Rejection::new("record", "would be larger than 96 KiB"));
    }
    ctx.put_bytes(RECORD, &bytes);
    ctx.emit(event, &changed);
    Ok(changed)
}

fn seen(record: &Record, version: u64) -> Result<(), Rejection> {
    if record.version == version {
        return Ok(());
    }
    Err(Rejection::new(
        "version",
        "is not the record's present one: it was changed since it was read",
    ))
}

pub fn create(ctx: &mut Ctx, number: PersonalNumber, new: NewRecord) -> Result<Changed, Rejection> {
    rights::check(ctx.person(), Right::Demographic)?;
    if ctx.get_bytes(RECORD).is_some() {
        return Err(Rejection::new("personalNumber", "has a record already"));
    }
    let last = ctx.get::<Closed>(CLOSED).map_or(0, |closed| closed.version);
    let by = stamp(ctx);
    // Each by its name: a section that is added later does not compile before it has its place here.
    let NewRecord {
        first_name,
        last_name,
        gender,
        birth_date,
        address,
        contacts,
        caregivers,
        places,
        allergies,
        conditions,
        medications,
        treatments,
        notes,
    } = new;
    let mut record = Record {
        personal_number: number.into(),
        version: last + 1,
        first_name,
        last_name,
        gender,
        birth_date,
        address,
        contacts: Vec::new(),
        caregivers: Vec::new(),
        places: Vec::new(),
        allergies: Vec::new(),
        conditions: Vec::new(),
        medications: Vec::new(),
        treatments: Vec::new(),
        notes: Vec::new(),
        next_id: 1,
        created: by.clone(),
        updated: by,
    };
    macro_rules! push_all {
        ($($section:ident)*) => { $(for entry in $section { push(ctx, &mut record, entry)?; })* };
    }
    push_all!(contacts caregivers places allergies conditions medications treatments notes);
    save(ctx, record, "record.created")
}

pub fn get(ctx: &mut Ctx, _number: PersonalNumber) -> Result<Box<RawValue>, Rejection> {
    let right = rights::of(ctx.person())?;
    let bytes = ctx.get_bytes(RECORD).ok_or_else(none)?;
    Ok(shown(bytes, right))
}

/// What the person may see of a stored record. It is JSON already: to most it is handed on as it is.
fn shown(bytes: Vec<u8>, right: Right) -> Box<RawValue> {
    let bytes = if right >= Right::Clinical {
        bytes
    } else {
        let record: Record = serde_json::from_slice(&bytes).expect("a record is a record");
        sdk::response(&record.demographic())
    };
    let text = String::from_utf8(bytes).expect("a record is UTF-8");
    RawValue::from_string(text).expect("a record is JSON")
}

pub fn update(
    ctx: &mut Ctx,
    _number: PersonalNumber,
    version: u64,
    changes: RecordChanges,
) -> Result<Changed, Rejection> {
    rights::check(ctx.person(), Right::Demographic)?;
    let mut record = load(ctx)?;
    seen(&record, version)?;
    let mut changed = false;
    macro_rules! take {
        ($($field:ident)*) => { $(if let Some(value) = changes.$field { record.$field = value; changed = true; })* };
    }
    take!(first_name last_name gender address);
    if changes.birth_date.is_some() {
        record.birth_date = changes.birth_date;
        changed = true;
    }
    if !changed {
        return Err(Rejection::new("changes", "names nothing to change"));
    }
    record.version += 1;
    save(ctx, record, "record.updated")
}

pub fn delete(ctx: &mut Ctx, _number: PersonalNumber, version: u64) -> Result<Changed, Rejection> {
    rights::check(ctx.person(), Right::Physician)?;
    let record = load(ctx)?;
    seen(&record, version)?;
    let closed = Closed {
        version: record.version + 1,
    };
    ctx.delete(RECORD);
    ctx.put(CLOSED, &closed);
    let changed = Changed {
        version: closed.version,
    };
    ctx.emit("record.deleted", &changed);
    Ok(changed)
}

/// One change, as evidence: who, what, when, and the record as it then was.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HistoryEntry {
    tx_id: String,
    partition: u32,
    height: u64,
    index: u32,
    time_ms: u64,
    organisation: String,
    person: String,
    role: String,
    /// As the record says; none where it was deleted, which only physicians may.
    #[serde(skip_serializing_if = "Option::is_none")]
    practitioner_role: Option<String>,
    asserted: bool,
    function: String,
    deleted: bool,
    /// None where it was deleted.
    record: Option<Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    changes: Vec<HistoryEntry>,
    /// The `skip` of the next page; none at the end.
    next: Option<u32>,
}

pub fn history(
    ctx: &mut Ctx,
    _number: PersonalNumber,
    skip: Option<u32>,
    limit: Option<Limit<50>>,
) -> Result<History, Rejection> {
    let right = rights::of(ctx.person())?;
    let (skip, limit) = (skip.unwrap_or(0), limit.map_or(20, |limit| limit.0));
    let page = ctx.history(RECORD, skip, limit);
    if page.changes.is_empty() && skip == 0 {
        return Err(Rejection::new("personalNumber", "never had a record"));
    }
    let next = page.more.then(|| skip.saturating_add(page.changes.len() as u32));
    Ok(History {
        changes: page.changes.into_iter().map(|change| entry(change, right)).collect(),
        next,
    })
}

/// The part of a record that says who changed it last.
#[derive(Deserialize)]
struct Touched {
    updated: Stamp,
}

fn entry(change: Change, right: Right) -> HistoryEntry {
    let touched = change.value.as_deref().map(serde_json::from_slice::<Touched>);
    let practitioner_role = touched
        .and_then(Result::ok)
        .map(|touched| touched.updated.practitioner_role);
    let record = change.value.map(|bytes| shown(bytes, right));
    HistoryEntry {
        tx_id: hex(&change.tx_id),
        partition: change.partition,
        height: change.height,
        index: change.index,
        time_ms: change.client_time_ms,
        organisation: change.person.organisation,
        person: change.person.common_name,
        role: change.person.role,
        practitioner_role,
        asserted: change.person.asserted,
        function: change.function,
        deleted: record.is_none(),
        record,
    }
}

/// A record in a list.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    personal_number: String,
    first_name: String,
    last_name: String,
    gender: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    birth_date: Option<String>,
    version: u64,
    updated: Stamp,
}

#[derive(Serialize)]
pub struct Summaries {
    records: Vec<Summary>,
    /// The `after` of the next page; none at the end.
    next: Option<String>,
}

pub fn list(ctx: &mut Ctx, after: Option<String>, limit: Option<Limit<100>>) -> Result<Summaries, Rejection> {
    rights::of(ctx.person())?;
    let after = match after {
        Some(after) => Some(unhex(&after).ok_or(Rejection::new("after", "must be the next of an earlier page"))?),
        None => None,
    };
    let page = ctx.list(RECORD, after.as_deref(), limit.map_or(50, |limit| limit.0));
    let records = page
        .values
        .iter()
        // One endorser may have invented a value under an OR policy; it must not hide the others' records.
        .filter_map(|value| serde_json::from_slice(value).ok())
        .collect();
    Ok(Summaries {
        records,
        next: page.next.map(|next| hex(&next)),
    })
}

pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || text.len() > 1024 || !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}
