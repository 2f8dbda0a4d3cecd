//! Adding, changing and removing an entry of a section.

use sdk::{Ctx, Rejection};
use serde::Serialize;

use crate::record::{Entry, EntryId, Record, SECTION_ENTRIES_MAX, Section};
use crate::records::{Changed, load, save};
use crate::rights::{self, Right};
use crate::values::PersonalNumber;

/// The answer to an addition: where the entry is found again.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Added {
    pub id: u32,
    pub version: u64,
}

fn may_write<S: Section>(ctx: &Ctx) -> Result<(), Rejection> {
    rights::check(
        ctx.person(),
        if S::CLINICAL {
            Right::Clinical
        } else {
            Right::Demographic
        },
    )
}

/// Puts an entry into its section, if the person may. Also used by create, before the record has been stored.
pub fn push<S: Section>(ctx: &Ctx, record: &mut Record, entry: S) -> Result<u32, Rejection> {
    may_write::<S>(ctx)?;
    let (id, version, by) = (record.next_id, record.version, crate::records::stamp(ctx));
    entry.check()?;
    let section = S::of(record);
    if section.len() >= SECTION_ENTRIES_MAX {
        return Err(Rejection::new(S::NAME, "has 100 entries already, which is the most"));
    }
    section.push(Entry { id, version, entry, by });
    record.next_id += 1;
    Ok(id)
}

pub fn add<S: Section>(ctx: &mut Ctx, _number: PersonalNumber, entry: S) -> Result<Added, Rejection> {
    may_write::<S>(ctx)?;
    let mut record = load(ctx)?;
    record.version += 1;
    let id = push(ctx, &mut record, entry)?;
    let Changed { version } = save(ctx, record, "entry.added")?;
    Ok(Added { id, version })
}

fn find<S: Section>(record: &mut Record, id: u32, version: u64) -> Result<usize, Rejection> {
    let section = S::of(record);
    let at = section
        .iter()
        .position(|entry| entry.id == id)
        .ok_or(Rejection::new("id", "is not an entry of this section"))?;
    if section[at].version != version {
        return Err(Rejection::new(
            "version",
            "is not the entry's present one: it was changed since it was read",
        ));
    }
    Ok(at)
}

pub fn change<S: Section>(
    ctx: &mut Ctx,
    _number: PersonalNumber,
    id: u32,
    version: u64,
    entry: S,
) -> Result<Changed, Rejection> {
    may_write::<S>(ctx)?;
    let mut record = load(ctx)?;
    let at = find::<S>(&mut record, id, version)?;
    entry.check()?;
    record.version += 1;
    let (version, by) = (record.version, crate::records::stamp(ctx));
    S::of(&mut record)[at] = Entry { id, version, entry, by };
    save(ctx, record, "entry.changed")
}

pub fn remove<S: Section>(
    ctx: &mut Ctx,
    _number: PersonalNumber,
    id: EntryId<S>,
    version: u64,
) -> Result<Changed, Rejection> {
    may_write::<S>(ctx)?;
    let mut record = load(ctx)?;
    let at = find::<S>(&mut record, id.0, version)?;
    S::of(&mut record).remove(at);
    record.version += 1;
    save(ctx, record, "entry.removed")
}
