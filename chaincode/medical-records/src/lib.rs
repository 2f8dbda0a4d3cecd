//! The contract for medical records: who may say what about a patient, and how it is changed.
//!
//! A record is one JSON document per patient under the key `record`. Its subject is the personal number.
//!
//! ```text
//! createMedicalRecord ─▶ version 1 ─ add… change… remove… updateMedicalRecord ─▶ version n ─ deleteMedicalRecord
//!                          ▲                                                                      │ (history stays)
//!                          └────────── a later create goes on at version n + 2 ◀──────────────────┘
//! ```
//!
//! - Create refuses to overwrite. Update and delete name the version that the caller saw; changing or removing
//!   an entry names that entry's version. So nobody undoes what he has not seen. Adding an entry needs no
//!   version: additions do not contradict each other.
//! - A delete takes the document away and leaves its last version under `closed`, so that versions of one
//!   patient never repeat and an old client cannot change a newer record.
//! - Rights are in [`rights`], shapes of what is stored in [`record`], of values in [`values`].
//! - There is no `initLedger`: a transaction is about one patient, so sample records are made one by one, with
//!   `createMedicalRecord`, by whoever wants them (`medledger demo` does).
//! - Encounters ([`encounter`]) lie beside the record, each under a key of its own; what a facility says of its beds and
//!   of itself ([`facility`]) under the facility as subject. Item codes are versioned data ([`codes`]).
//! - Events of encounters and facilities carry what a report counts. The others name what happened and the version, never whom it happened to.

pub mod codes;
pub mod encounter;
mod entries;
pub mod facility;
pub mod record;
mod records;
pub mod rights;
pub mod values;

use encounter::{EncounterId, NewEncounter, add_encounter, encounters, set_outcome};
use entries::{add, change, remove};
use facility::{BEDS, Facility, SITE, Ward, all_beds, beds, set_beds, set_site, site};
use record::{
    Allergy, Caregiver, Condition, Contact, EntryId, Medication, NewRecord, Note, Place, RecordChanges, Treatment,
};
use records::{create, delete, get, history, list, update};
use values::{Limit, PersonalNumber};

/// The document.
pub const RECORD: &str = "record";
/// The last version of a deleted document.
pub const CLOSED: &str = "closed";

sdk::contract! {
    /// Opens a record. Answer: `{"version"}`.
    submit "createMedicalRecord" => create(personal_number: PersonalNumber, record: NewRecord),
        subject = personal_number, reads = [RECORD, CLOSED];
    /// The record with its version; without clinical sections for a registrar.
    query "getMedicalRecord" => get(personal_number: PersonalNumber),
        subject = personal_number, reads = [RECORD];
    /// The same under the name that the reference system also had.
    query "queryMedicalRecord" => get(personal_number: PersonalNumber),
        subject = personal_number, reads = [RECORD];
    /// Changes names, gender, birth date or address. Answer: `{"version"}`.
    submit "updateMedicalRecord" => update(personal_number: PersonalNumber, version: u64, changes: RecordChanges),
        subject = personal_number, reads = [RECORD];
    /// Takes the record away; its history stays.
    submit "deleteMedicalRecord" => delete(personal_number: PersonalNumber, version: u64),
        subject = personal_number, reads = [RECORD];
    /// Who did what and when, oldest first, paged by `skip` and `limit`.
    query "getHistoryForRecord" => history(personal_number: PersonalNumber, skip: Option<u32>, limit: Option<Limit<50>>),
        subject = personal_number, reads = [];
    /// Summaries of all records, paged by `after` (the `next` of the page before) and `limit`.
    query "queryAllRecords" => list(after: Option<String>, limit: Option<Limit<100>>),
        subject = "", reads = [];

    submit "addContact" => add(personal_number: PersonalNumber, entry: Contact),
        subject = personal_number, reads = [RECORD];
    submit "changeContact" => change(personal_number: PersonalNumber, id: u32, version: u64, entry: Contact),
        subject = personal_number, reads = [RECORD];
    submit "removeContact" => remove(personal_number: PersonalNumber, id: EntryId<Contact>, version: u64),
        subject = personal_number, reads = [RECORD];

    submit "addCaregiver" => add(personal_number: PersonalNumber, entry: Caregiver),
        subject = personal_number, reads = [RECORD];
    submit "changeCaregiver" => change(personal_number: PersonalNumber, id: u32, version: u64, entry: Caregiver),
        subject = personal_number, reads = [RECORD];
    submit "removeCaregiver" => remove(personal_number: PersonalNumber, id: EntryId<Caregiver>, version: u64),
        subject = personal_number, reads = [RECORD];

    submit "addPlace" => add(personal_number: PersonalNumber, entry: Place),
        subject = personal_number, reads = [RECORD];
    submit "changePlace" => change(personal_number: PersonalNumber, id: u32, version: u64, entry: Place),
        subject = personal_number, reads = [RECORD];
    submit "removePlace" => remove(personal_number: PersonalNumber, id: EntryId<Place>, version: u64),
        subject = personal_number, reads = [RECORD];

    submit "addAllergy" => add(personal_number: PersonalNumber, entry: Allergy),
        subject = personal_number, reads = [RECORD];
    submit "changeAllergy" => change(personal_number: PersonalNumber, id: u32, version: u64, entry: Allergy),
        subject = personal_number, reads = [RECORD];
    submit "removeAllergy" => remove(personal_number: PersonalNumber, id: EntryId<Allergy>, version: u64),
        subject = personal_number, reads = [RECORD];

    submit "addCondition" => add(personal_number: PersonalNumber, entry: Condition),
        subject = personal_number, reads = [RECORD];
    submit "changeCondition" => change(personal_number: PersonalNumber, id: u32, version: u64, entry: Condition),
        subject = personal_number, reads = [RECORD];
    submit "removeCondition" => remove(personal_number: PersonalNumber, id: EntryId<Condition>, version: u64),
        subject = personal_number, reads = [RECORD];

    submit "addMedication" => add(personal_number: PersonalNumber, entry: Medication),
        subject = personal_number, reads = [RECORD];
    submit "changeMedication" => change(personal_number: PersonalNumber, id: u32, version: u64, entry: Medication),
        subject = personal_number, reads = [RECORD];
    submit "removeMedication" => remove(personal_number: PersonalNumber, id: EntryId<Medication>, version: u64),
        subject = personal_number, reads = [RECORD];

    submit "addTreatment" => add(personal_number: PersonalNumber, entry: Treatment),
        subject = personal_number, reads = [RECORD];
    submit "changeTreatment" => change(personal_number: PersonalNumber, id: u32, version: u64, entry: Treatment),
        subject = personal_number, reads = [RECORD];
    submit "removeTreatment" => remove(personal_number: PersonalNumber, id: EntryId<Treatment>, version: u64),
        subject = personal_number, reads = [RECORD];

    submit "addNote" => add(personal_number: PersonalNumber, entry: Note),
        subject = personal_number, reads = [RECORD];
    submit "changeNote" => change(personal_number: PersonalNumber, id: u32, version: u64, entry: Note),
        subject = personal_number, reads = [RECORD];
    submit "removeNote" => remove(personal_number: PersonalNumber, id: EntryId<Note>, version: u64),
        subject = personal_number, reads = [RECORD];

    /// One treatment of a patient at the caller's facility. Answer: `{"id", "version"}`.
    submit "addEncounter" => add_encounter(personal_number: PersonalNumber, encounter: NewEncounter),
        subject = personal_number, reads = [];
    /// States or changes its outcome. Answer: `{"version"}`.
    submit "setOutcome" => set_outcome(
        personal_number: PersonalNumber, id: EncounterId, version: u64, outcome: String
    ), subject = personal_number, reads = [id.key()];
    /// A patient's encounters, oldest first, paged by `after` and `limit`.
    query "getEncounters" => encounters(
        personal_number: PersonalNumber, after: Option<String>, limit: Option<Limit<100>>
    ), subject = personal_number, reads = [];

    /// The beds of the caller's facility, all kinds at once; version 0 the first time. Answer: `{"version"}`.
    submit "setBeds" => set_beds(facility: Facility, version: u64, beds: Vec<Ward>),
        subject = facility.subject(), reads = [BEDS];
    /// What a facility stated last.
    query "getBeds" => beds(facility: Facility),
        subject = facility.subject(), reads = [BEDS];
    /// What every facility stated last, paged by `after` and `limit`.
    query "queryAllBeds" => all_beds(after: Option<String>, limit: Option<Limit<100>>),
        subject = "", reads = [];

    /// What the caller's facility lacks, fears and reports at once, all of it; version 0 the first time. Answer: `{"version"}`.
    submit "setSiteItems" => set_site(facility: Facility, version: u64, codes: Option<String>, items: Vec<String>),
        subject = facility.subject(), reads = [SITE];
    /// What a facility reported of itself last; version 0 if never.
    query "getSiteItems" => site(facility: Facility),
        subject = facility.subject(), reads = [SITE];
}
