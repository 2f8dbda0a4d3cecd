//! Synthetic patients: the same seed and index give the same one on every machine.
//!
//! Nobody real: given names come from the spelling alphabet, family names say that they are examples.

use rand::{Rng as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// The seed of everything that is generated unless told otherwise.
pub const SEED: u64 = 2018;

/// The one of the walk-through; the generator never makes it.
pub const EXAMPLE: &str = "940220-1234";

/// Personal numbers that differ: 100 years of days, 9,999 serials.
pub const PATIENTS_MAX: u64 = DAYS * 9_999;
const DAYS: u64 = 36_525;

const GIVEN: &[&str] = &[
    "Alfa", "Bravo", "Charlie", "Delta", "Echo", "Foxtrot", "Golf", "Hotel", "India", "Juliett", "Kilo", "Lima",
    "Mike", "November", "Oscar", "Papa", "Quebec", "Romeo", "Sierra", "Tango", "Uniform", "Victor", "Whiskey", "Xray",
    "Yankee", "Zulu",
];
const FAMILY: &[&str] = &[
    "Testsson",
    "Exempelberg",
    "Provlund",
    "Samplemark",
    "Fiktivstrom",
    "Mockdal",
    "Demoholm",
    "Trialgren",
];
const STREETS: &[&str] = &["Example Street", "Sample Lane", "Test Road", "Fiction Square"];
const GENDERS: &[&str] = &["female", "male", "other"];
const RELATIONS: &[&str] = &["partner", "parent", "sibling", "friend"];
const ALLERGIES: &[&str] = &["penicillin", "peanuts", "latex", "pollen", "shellfish"];

/// As the contract takes it: the number, and the record beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patient {
    pub personal_number: String,
    pub record: Record,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub first_name: String,
    pub last_name: String,
    pub gender: String,
    pub birth_date: String,
    pub address: String,
    pub contacts: Vec<Contact>,
    pub allergies: Vec<Allergy>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contact {
    pub name: String,
    pub relation: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Allergy {
    pub substance: String,
}

/// The patient of that index; personal numbers differ for indexes below [`PATIENTS_MAX`].
pub fn patient(seed: u64, index: u64) -> Patient {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(index);
    let mut one = |of: &[&str]| of.choose(&mut random).copied().unwrap_or_default().to_owned();
    let (first_name, last_name, gender) = (one(GIVEN), one(FAMILY), one(GENDERS));
    let contact = Contact {
        name: format!("{} {last_name}", one(GIVEN)),
        relation: one(RELATIONS),
    };
    let (street, substance) = (one(STREETS), one(ALLERGIES));
    let allergies = if random.random_bool(0.3) {
        vec![Allergy { substance }]
    } else {
        Vec::new()
    };
    let (year, month, day) = date(index % DAYS);
    Patient {
        personal_number: personal_number(index),
        record: Record {
            first_name,
            last_name,
            gender,
            birth_date: format!("{year}-{month:02}-{day:02}"),
            address: format!("{street} {}, Testville", random.random_range(1..200)),
            contacts: vec![contact],
            allergies,
        },
    }
}

/// `YYMMDD-NNNN`: the day walks through a century from 1925 on, then the serial grows.
pub fn personal_number(index: u64) -> String {
    let (day, serial) = (index % DAYS, 1 + index / DAYS % 9_999);
    let (year, month, day) = date(day);
    let number = format!("{:02}{month:02}{day:02}-{serial:04}", year % 100);
    // Serial 0 is free for the one index that would meet the example.
    if number == EXAMPLE {
        format!("{:02}{month:02}{day:02}-0000", year % 100)
    } else {
        number
    }
}

/// The date so many days after 1 January 1925.
fn date(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1925;
    loop {
        let leap = year % 4 == 0;
        let length = if leap { 366 } else { 365 };
        if days >= length {
            days -= length;
            year += 1;
            continue;
        }
        let february = if leap { 29 } else { 28 };
        for (month, length) in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
            .into_iter()
            .enumerate()
        {
            if days < length {
                return (year, month as u64 + 1, days + 1);
            }
            days -= length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_same_seed_gives_the_same_patients() {
        let all = |seed| (0..50).map(|index| patient(seed, index)).collect::<Vec<_>>();
        assert_eq!(all(SEED), all(SEED));
        assert_ne!(all(SEED), all(SEED + 1));
        // Pinned: another platform, another release, the same patients.
        assert_eq!(patient(SEED, 0).personal_number, "250101-0001");
        let records: Vec<Record> = all(SEED).into_iter().map(|patient| patient.record).collect();
        let text = serde_json::to_string(&records).expect("json");
        assert_eq!(&hex::encode(protocol::sha256(text.as_bytes()))[..16], PINNED);
    }

    const PINNED: &str = "b56071fe0f9516a6";

    #[test]
    fn personal_numbers_differ_and_are_dates() {
        let numbers: Vec<String> = (0..120_000).map(personal_number).collect();
        assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len());
        for number in &numbers {
            assert_eq!((number.len(), &number[6..7]), (11, "-"));
            assert!((1..=12).contains(&number[2..4].parse::<u32>().expect("month")));
            assert!((1..=31).contains(&number[4..6].parse::<u32>().expect("day")));
        }
        assert_eq!(personal_number(DAYS - 1), "241231-0001");
    }

    #[test]
    fn the_example_is_never_made() {
        let day = (0..DAYS)
            .find(|day| personal_number(*day).starts_with("940220"))
            .expect("a day of the century");
        let numbers: Vec<String> = (0..9_999).map(|serial| personal_number(day + serial * DAYS)).collect();
        assert!(!numbers.iter().any(|number| number == EXAMPLE));
        assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len());
    }
}
