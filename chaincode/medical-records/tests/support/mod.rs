//! People, a patient, and what it means that a call is refused.

#![allow(dead_code)] // each test file uses its part

use medical_records::FUNCTIONS;
use sdk::Person;
use sdk::testing::{Ledger, person};
use serde_json::{Value, json};

pub const NUMBER: &str = "940220-1234";

pub fn staff(role: &str) -> Person {
    person(
        "HospitalA",
        "Anna",
        &[("facility", "HospitalA-1"), ("practitioner_role", role)],
    )
}

pub fn physician() -> Person {
    staff("physician")
}

pub fn patient() -> Value {
    json!([NUMBER, {"firstName": "Alfa", "lastName": "Testsson", "gender": "female", "address": "Example Street 1"}])
}

pub fn created() -> Ledger {
    let mut ledger = Ledger::new(FUNCTIONS);
    assert_eq!(
        ledger.submit(&physician(), "createMedicalRecord", patient()),
        Ok(json!({"version": 1}))
    );
    ledger
}

pub fn get(ledger: &mut Ledger) -> Value {
    ledger
        .query(&physician(), "getMedicalRecord", json!([NUMBER]))
        .expect("a record")
}

/// The call is refused and nothing has changed. `expected`: "field: a part of the rule".
#[track_caller]
pub fn refused(ledger: &mut Ledger, who: &Person, function: &str, arguments: Value, expected: &str) {
    let before = ledger.len();
    let is_query = function.starts_with("get") || function.starts_with("query");
    let outcome = if is_query {
        ledger.query(who, function, arguments)
    } else {
        ledger.submit(who, function, arguments)
    };
    let rejection = outcome.expect_err("refused");
    let (field, rule) = expected.split_once(": ").expect("field: rule");
    assert_eq!(rejection.field(), field, "{rejection}");
    assert!(rejection.reason().contains(rule), "{rejection}");
    assert!(!rejection.to_string().contains("Secret"), "{rejection}");
    assert_eq!(ledger.len(), before);
}
