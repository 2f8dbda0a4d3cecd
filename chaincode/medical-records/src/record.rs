//! What is stored, and what callers send. JSON with camelCase names.

use std::fmt;
use std::marker::PhantomData;

use sdk::Rejection;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::values::{Date, Text};

/// Entries that a section may have.
pub const SECTION_ENTRIES_MAX: usize = 100;
/// Bytes that a stored record may have; below what the ledger takes as one value.
pub const RECORD_BYTES_MAX: usize = 96 * 1024;

/// The document under the key `record`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub personal_number: String,
    /// Counts every change of the document; callers name the one they saw.
    pub version: u64,
    pub first_name: Text<100>,
    pub last_name: Text<100>,
    pub gender: Gender,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub birth_date: Option<Date>,
    pub address: Text<200>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<Entry<Contact>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caregivers: Vec<Entry<Caregiver>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Entry<Place>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allergies: Vec<Entry<Allergy>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Entry<Condition>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub medications: Vec<Entry<Medication>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub treatments: Vec<Entry<Treatment>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Entry<Note>>,
    /// The next entry's id; ids of one record never repeat.
    pub next_id: u32,
    pub created: Stamp,
    pub updated: Stamp,
}

impl Record {
    /// What a registrar sees of it.
    pub fn demographic(mut self) -> Self {
        fn hide<S: Section>(entries: &mut Vec<Entry<S>>) {
            if S::CLINICAL {
                entries.clear();
            }
        }
        // Each by its name: a section that is added later does not compile before it is looked at here.
        let Record {
            personal_number: _,
            version: _,
            first_name: _,
            last_name: _,
            gender: _,
            birth_date: _,
            address: _,
            contacts,
            caregivers,
            places,
            allergies,
            conditions,
            medications,
            treatments,
            notes,
            next_id: _,
            created: _,
            updated: _,
        } = &mut self;
        hide(contacts);
        hide(caregivers);
        hide(places);
        hide(allergies);
        hide(conditions);
        hide(medications);
        hide(treatments);
        hide(notes);
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gender {
    Female,
    Male,
    Other,
    Unknown,
}

/// Who and when: evidence that travels with what was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stamp {
    /// The client's clock, Unix milliseconds; endorsers checked it.
    pub time_ms: u64,
    pub organisation: String,
    pub person: String,
    pub practitioner_role: String,
    /// A gateway said so, the person did not sign.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asserted: bool,
}

/// One line of a section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry<T> {
    pub id: u32,
    /// The record's version that this entry came or was last changed with.
    pub version: u64,
    pub entry: T,
    pub by: Stamp,
}

/// A list of the record whose lines have functions of their own.
pub trait Section: Sized {
    const NAME: &'static str;
    /// Needs a clinical role to write, and to read.
    const CLINICAL: bool;
    fn of(record: &mut Record) -> &mut Vec<Entry<Self>>;
    /// What no single field can say: an end is not before its beginning.
    fn check(&self) -> Result<(), Rejection>;
}

macro_rules! section {
    ($(#[$doc:meta])* $type:ident in $field:ident, clinical = $clinical:literal $(, $first:ident before $last:ident)?, { $($(#[$attribute:meta])* $name:ident : $kind:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $type { $($(#[$attribute])* pub $name: $kind),+ }

        impl Section for $type {
            const NAME: &'static str = stringify!($field);
            const CLINICAL: bool = $clinical;
            fn of(record: &mut Record) -> &mut Vec<Entry<Self>> {
                &mut record.$field
            }
            fn check(&self) -> Result<(), Rejection> {
                $(if let (Some(first), Some(last)) = (&self.$first, &self.$last)
                    && last < first
                {
                    return Err(Rejection::new(stringify!($last), concat!("is a day before ", stringify!($first))));
                })?
                Ok(())
            }
        }
    };
}

section! {
    /// Whom to call.
    Contact in contacts, clinical = false, {
        name: Text<100>,
        #[serde(skip_serializing_if = "Option::is_none")]
        relation: Option<Text<40>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        phone: Option<Text<40>>,
    }
}
section! {
    /// Who is responsible for the patient's care.
    Caregiver in caregivers, clinical = true, {
        name: Text<100>,
        #[serde(skip_serializing_if = "Option::is_none")]
        facility: Option<Text<100>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        role: Option<Text<40>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        phone: Option<Text<40>>,
    }
}
section! {
    /// Where the patient is or was: a ward, a shelter, a field hospital.
    Place in places, clinical = true, from before until, {
        name: Text<100>,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<Date>,
        #[serde(skip_serializing_if = "Option::is_none")]
        until: Option<Date>,
    }
}
section! {
    Allergy in allergies, clinical = true, {
        substance: Text<100>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reaction: Option<Text<200>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        severity: Option<Severity>,
    }
}
section! {
    /// A diagnosis. `media` are references (addresses or hashes), never the pictures themselves.
    Condition in conditions, clinical = true, since before resolved, {
        information: Text<1000>,
        #[serde(skip_serializing_if = "Option::is_none")]
        doctor: Option<Text<100>>,
        #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "few")]
        media: Vec<Text<200>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<Date>,
        #[serde(skip_serializing_if = "Option::is_none")]
        resolved: Option<Date>,
    }
}
section! {
    Medication in medications, clinical = true, from before until, {
        name: Text<100>,
        #[serde(skip_serializing_if = "Option::is_none")]
        dose: Option<Text<100>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        prescriber: Option<Text<100>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<Date>,
        #[serde(skip_serializing_if = "Option::is_none")]
        until: Option<Date>,
    }
}
section! {
    Treatment in treatments, clinical = true, {
        information: Text<1000>,
        #[serde(skip_serializing_if = "Option::is_none")]
        prescriber: Option<Text<100>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        date: Option<Date>,
    }
}
section! {
    /// Clinical information in words.
    Note in notes, clinical = true, {
        information: Text<1000>,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Mild,
    Moderate,
    Severe,
}

/// References that one condition may have.
const MEDIA_MAX: usize = 20;

/// A visitor, so that the error is the list's own and names it.
fn few<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Text<200>>, D::Error> {
    struct V;
    impl<'de> Visitor<'de> for V {
        type Value = Vec<Text<200>>;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("at most 20 references")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = seq.next_element()? {
                if all.len() == MEDIA_MAX {
                    return Err(A::Error::invalid_length(MEDIA_MAX + 1, &self));
                }
                all.push(one);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_seq(V)
}

/// `createMedicalRecord`: the sections may come along, under the rights that they need.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewRecord {
    pub first_name: Text<100>,
    pub last_name: Text<100>,
    pub gender: Gender,
    pub birth_date: Option<Date>,
    pub address: Text<200>,
    #[serde(default)]
    pub contacts: Vec<Contact>,
    #[serde(default)]
    pub caregivers: Vec<Caregiver>,
    #[serde(default)]
    pub places: Vec<Place>,
    #[serde(default)]
    pub allergies: Vec<Allergy>,
    #[serde(default)]
    pub conditions: Vec<Condition>,
    #[serde(default)]
    pub medications: Vec<Medication>,
    #[serde(default)]
    pub treatments: Vec<Treatment>,
    #[serde(default)]
    pub notes: Vec<Note>,
}

/// `updateMedicalRecord`: what is absent stays.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordChanges {
    pub first_name: Option<Text<100>>,
    pub last_name: Option<Text<100>>,
    pub gender: Option<Gender>,
    pub birth_date: Option<Date>,
    pub address: Option<Text<200>>,
}

/// An entry's id that knows its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryId<S>(pub u32, PhantomData<S>);

impl<'de, S> Deserialize<'de> for EntryId<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(|id| Self(id, PhantomData))
    }
}

/// What `deleteMedicalRecord` leaves under the key `closed`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Closed {
    /// The deletion's own version.
    pub version: u64,
}
