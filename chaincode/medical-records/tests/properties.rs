//! For any sequence of calls: versions only grow, nothing is overwritten unseen, a refusal changes nothing,
//! and arguments of any shape are refused with words that hold none of them.

use medical_records::{FUNCTIONS, values::PersonalNumber};
use proptest::prelude::*;
use sdk::testing::{Ledger, person};
use serde_json::{Value, json};

const NUMBER: &str = "940220-1234";

#[derive(Clone, Debug)]
enum Step {
    Create,
    /// Off the present version by so much.
    Update(i64),
    Delete(i64),
    Add,
    Remove(u32, i64),
}

fn step() -> impl Strategy<Value = Step> {
    let off = prop_oneof![4 => Just(0i64), 1 => -2i64..3];
    prop_oneof![
        Just(Step::Create),
        off.clone().prop_map(Step::Update),
        off.clone().prop_map(Step::Delete),
        Just(Step::Add),
        (0u32..6, off).prop_map(|(id, off)| Step::Remove(id, off)),
    ]
}

#[derive(Default)]
struct Model {
    exists: bool,
    version: u64,
    next_id: u32,
    entries: Vec<(u32, u64)>,
}

fn near(version: u64, off: i64) -> u64 {
    version.saturating_add_signed(off)
}

impl Model {
    /// The call, and whether it should succeed.
    fn apply(&mut self, step: &Step) -> (&'static str, Value, bool) {
        match *step {
            Step::Create => {
                let record = json!({"firstName": "A", "lastName": "B", "gender": "other", "address": "C"});
                let allowed = !self.exists;
                if allowed {
                    *self = Model {
                        exists: true,
                        version: self.version + 1,
                        next_id: 1,
                        entries: Vec::new(),
                    };
                }
                ("createMedicalRecord", json!([NUMBER, record]), allowed)
            }
            Step::Update(off) => {
                let seen = near(self.version, off);
                let allowed = self.exists && seen == self.version;
                self.version += u64::from(allowed);
                ("updateMedicalRecord", json!([NUMBER, seen, {"address": "D"}]), allowed)
            }
            Step::Delete(off) => {
                let seen = near(self.version, off);
                let allowed = self.exists && seen == self.version;
                self.version += u64::from(allowed);
                self.exists &= !allowed;
                ("deleteMedicalRecord", json!([NUMBER, seen]), allowed)
            }
            Step::Add => {
                if self.exists {
                    self.version += 1;
                    self.entries.push((self.next_id, self.version));
                    self.next_id += 1;
                }
                ("addAllergy", json!([NUMBER, {"substance": "latex"}]), self.exists)
            }
            Step::Remove(id, off) => {
                let found = self.entries.iter().position(|(known, _)| *known == id);
                let seen = near(found.map_or(1, |at| self.entries[at].1), off);
                let allowed = self.exists && found.is_some_and(|at| self.entries[at].1 == seen);
                if let (true, Some(at)) = (allowed, found) {
                    self.entries.remove(at);
                    self.version += 1;
                }
                ("removeAllergy", json!([NUMBER, id, seen]), allowed)
            }
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(json!(NUMBER)),
        "Zz[a-z\"\\\\]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        let key = prop_oneof![
            Just("firstName"),
            Just("notes"),
            Just("information"),
            Just("version"),
            Just("Zzkey")
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..5)
                .prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_contract_is_its_model(steps in prop::collection::vec(step(), 1..40)) {
        let mut ledger = Ledger::new(FUNCTIONS);
        let mut model = Model::default();
        let anna = person("HospitalA", "Anna", &[("practitioner_role", "physician")]);
        for step in &steps {
            let (function, arguments, allowed) = model.apply(step);
            let outcome = ledger.submit(&anna, function, arguments);
            prop_assert_eq!(outcome.is_ok(), allowed, "{:?}: {:?}", step, outcome);
            if let Ok(answer) = outcome {
                prop_assert_eq!(&answer["version"], &json!(model.version));
            }
            let record = ledger.query(&anna, "getMedicalRecord", json!([NUMBER])).ok();
            prop_assert_eq!(record.is_some(), model.exists);
            if let Some(record) = record {
                prop_assert_eq!(&record["version"], &json!(model.version));
                let stored = record["allergies"].as_array().cloned().unwrap_or_default();
                let stored: Vec<_> = stored.iter().map(|entry| (entry["id"].clone(), entry["version"].clone())).collect();
                let expected: Vec<_> = model.entries.iter().map(|(id, version)| (json!(id), json!(version))).collect();
                prop_assert_eq!(stored, expected);
            }
        }
        prop_assert_eq!(ledger.misses, 0);
    }

    #[test]
    fn any_arguments_are_taken_or_refused_without_their_words(function in 0..FUNCTIONS.len(), arguments in any_json()) {
        let function = &FUNCTIONS[function];
        if let Err(rejection) = (function.route)(arguments.to_string().as_bytes()) {
            prop_assert!(!rejection.field().is_empty() && !rejection.reason().is_empty());
            let said = rejection.to_string();
            prop_assert!(!said.contains("Zz"), "{}", said);
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let outcome = sdk::route(FUNCTIONS, "createMedicalRecord", &bytes);
        prop_assert!(outcome.is_err());
    }

    #[test]
    fn a_personal_number_of_a_real_date_is_taken(year in 0u32..100, month in 1u32..13, day in 1u32..29, serial in 0u32..10_000) {
        let number = format!("{:02}{:02}{:02}-{:04}", year, month, day, serial);
        prop_assert!(PersonalNumber::is_valid(&number));
    }
}
