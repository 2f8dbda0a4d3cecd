//! The contract's rules, natively: what the functions about records do, what they refuse and why.

mod support;

use medical_records::FUNCTIONS;
use sdk::Refusal;
use sdk::testing::Ledger;
use serde_json::{Value, json};
use support::{NUMBER, created, get, patient, physician, refused};

#[test]
fn create_then_get_under_both_names() {
    let mut ledger = created();
    let record = get(&mut ledger);
    assert_eq!(record["version"], 1);
    assert_eq!(record["personalNumber"], NUMBER);
    assert_eq!(record["created"]["organisation"], "HospitalA");
    assert_eq!(record["created"]["person"], "Anna");
    assert_eq!(record["created"]["practitionerRole"], "physician");
    assert_eq!(
        ledger.query(&physician(), "queryMedicalRecord", json!([NUMBER])),
        Ok(record)
    );
    assert_eq!(ledger.misses, 0, "every key was announced by the route");
    assert_eq!(
        ledger.events,
        [("record.created".to_owned(), b"{\"version\":1}".to_vec())]
    );
}

#[test]
fn create_refuses_to_overwrite() {
    let mut ledger = created();
    refused(
        &mut ledger,
        &physician(),
        "createMedicalRecord",
        patient(),
        "personalNumber: has a record already",
    );
}

#[test]
fn what_is_not_there_is_said() {
    let mut ledger = Ledger::new(FUNCTIONS);
    let none = "personalNumber: has no record";
    refused(&mut ledger, &physician(), "getMedicalRecord", json!([NUMBER]), none);
    refused(
        &mut ledger,
        &physician(),
        "updateMedicalRecord",
        json!([NUMBER, 1, {"address": "x"}]),
        none,
    );
    refused(
        &mut ledger,
        &physician(),
        "deleteMedicalRecord",
        json!([NUMBER, 1]),
        none,
    );
    refused(
        &mut ledger,
        &physician(),
        "addAllergy",
        json!([NUMBER, {"substance": "latex"}]),
        none,
    );
    refused(
        &mut ledger,
        &physician(),
        "getHistoryForRecord",
        json!([NUMBER]),
        "personalNumber: never had a record",
    );
}

#[test]
fn update_needs_the_version_that_was_seen() {
    let mut ledger = created();
    let updated = ledger.submit(
        &physician(),
        "updateMedicalRecord",
        json!([NUMBER, 1, {"lastName": "Provlund"}]),
    );
    assert_eq!(updated, Ok(json!({"version": 2})));
    let record = get(&mut ledger);
    assert_eq!(
        (&record["lastName"], &record["firstName"]),
        (&json!("Provlund"), &json!("Alfa"))
    );
    let stale = "version: was changed since it was read";
    refused(
        &mut ledger,
        &physician(),
        "updateMedicalRecord",
        json!([NUMBER, 1, {"lastName": "X"}]),
        stale,
    );
    refused(
        &mut ledger,
        &physician(),
        "deleteMedicalRecord",
        json!([NUMBER, 1]),
        stale,
    );
    refused(
        &mut ledger,
        &physician(),
        "updateMedicalRecord",
        json!([NUMBER, 2, {}]),
        "changes: names nothing",
    );
}

#[test]
fn a_later_create_goes_on_with_the_versions() {
    let mut ledger = created();
    assert_eq!(
        ledger.submit(&physician(), "deleteMedicalRecord", json!([NUMBER, 1])),
        Ok(json!({"version": 2}))
    );
    refused(
        &mut ledger,
        &physician(),
        "getMedicalRecord",
        json!([NUMBER]),
        "personalNumber: has no record",
    );
    assert_eq!(
        ledger.submit(&physician(), "createMedicalRecord", patient()),
        Ok(json!({"version": 3}))
    );
    // Who saw version 1 before the delete cannot change what is there now.
    let stale = "version: was changed since it was read";
    refused(
        &mut ledger,
        &physician(),
        "updateMedicalRecord",
        json!([NUMBER, 1, {"address": "x"}]),
        stale,
    );

    let history = ledger
        .query(&physician(), "getHistoryForRecord", json!([NUMBER]))
        .expect("a history");
    let changes = history["changes"].as_array().expect("changes");
    let functions: Vec<_> = changes
        .iter()
        .map(|change| change["function"].as_str().unwrap_or(""))
        .collect();
    assert_eq!(
        functions,
        ["createMedicalRecord", "deleteMedicalRecord", "createMedicalRecord"]
    );
    let deleted: Vec<_> = changes.iter().map(|change| change["deleted"] == true).collect();
    assert_eq!(deleted, [false, true, false]);
    assert_eq!(changes[1]["record"], Value::Null);
    let practitioners: Vec<_> = changes
        .iter()
        .map(|change| change["practitionerRole"].as_str())
        .collect();
    assert_eq!(practitioners, [Some("physician"), None, Some("physician")]);
    for change in changes {
        assert_eq!(
            (&change["organisation"], &change["person"], &change["role"]),
            (&json!("HospitalA"), &json!("Anna"), &json!("client"))
        );
        assert!(change["timeMs"].as_u64() > Some(1_600_000_000_000));
        assert_eq!(change["txId"].as_str().map(str::len), Some(64));
    }
}

#[test]
fn every_bad_argument_names_its_field() {
    let mut ledger = created();
    let anna = physician();
    let mut check = |function: &str, arguments: Value, expected: &str| {
        refused(&mut ledger, &anna, function, arguments, expected);
    };
    let with = |field: &str, value: Value| {
        let mut patient = patient();
        patient[1][field] = value;
        patient
    };
    check(
        "createMedicalRecord",
        json!(["940231-1234", patient()[1]]),
        "personalNumber: YYMMDD-NNNN",
    );
    check("createMedicalRecord", json!([NUMBER]), "record: is missing");
    check(
        "createMedicalRecord",
        json!([NUMBER, {"firstName": "A"}]),
        "record.lastName: is missing",
    );
    check(
        "createMedicalRecord",
        with("gender", json!("Secret")),
        "record.gender: expected one of",
    );
    check(
        "createMedicalRecord",
        with("firstName", json!(" ")),
        "record.firstName: a text of 1 to 100 characters",
    );
    check(
        "createMedicalRecord",
        with("lastName", json!("Secret".repeat(20))),
        "record.lastName: 1 to 100",
    );
    check(
        "createMedicalRecord",
        with("birthDate", json!("2023-02-29")),
        "record.birthDate: a date that exists",
    );
    check(
        "createMedicalRecord",
        with("Secret", json!(1)),
        "record: expected one of",
    );
    check(
        "createMedicalRecord",
        with("notes", json!([{"information": "x"}, {}])),
        "record.notes[1].information: is missing",
    );
    check(
        "addAllergy",
        json!([NUMBER, {"substance": "x", "severity": "Secret"}]),
        "entry.severity: expected one of",
    );
    check(
        "addCondition",
        json!([NUMBER, {"information": "x", "media": vec!["y"; 21]}]),
        "entry.media: at most 20",
    );
    check(
        "updateMedicalRecord",
        json!([NUMBER, "Secret", {}]),
        "version: expected u64",
    );
    check(
        "updateMedicalRecord",
        json!([NUMBER, 1, {"version": 7}]),
        "changes: expected one of",
    );
    check(
        "getHistoryForRecord",
        json!([NUMBER, 0, 51]),
        "limit: a number from 1 to 50",
    );
    check("queryAllRecords", json!([null, 0]), "limit: a number from 1 to 100");
    check(
        "queryAllRecords",
        json!(["Secret"]),
        "after: must be the next of an earlier page",
    );
    check("getMedicalRecord", json!([NUMBER, "Secret"]), "arguments: more values");
    let unknown = ledger.query(&anna, "initLedger", json!([])).expect_err("unknown");
    assert_eq!(unknown.kind(), Refusal::UnknownFunction);
}

#[test]
fn lists_and_histories_come_in_pages() {
    let mut ledger = Ledger::new(FUNCTIONS);
    for number in 0..25 {
        let arguments = json!([format!("940220-{number:04}"), patient()[1]]);
        ledger
            .submit(&physician(), "createMedicalRecord", arguments)
            .expect("created");
    }
    let (mut after, mut seen, mut pages) = (Value::Null, Vec::new(), 0);
    loop {
        let page = ledger
            .query(&physician(), "queryAllRecords", json!([after, 10]))
            .expect("a page");
        let records = page["records"].as_array().expect("records");
        assert!(records.len() <= 10);
        seen.extend(
            records
                .iter()
                .map(|record| record["personalNumber"].as_str().unwrap_or("").to_owned()),
        );
        pages += 1;
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!((seen.len(), pages), (25, 3));
    assert!(seen.is_sorted());

    let number = "940220-0003";
    for version in 1..30 {
        let arguments = json!([number, version, {"address": format!("Sample Lane {version}")}]);
        ledger
            .submit(&physician(), "updateMedicalRecord", arguments)
            .expect("updated");
    }
    let first = ledger
        .query(&physician(), "getHistoryForRecord", json!([number]))
        .expect("a page");
    assert_eq!(
        (first["changes"].as_array().map(Vec::len), &first["next"]),
        (Some(20), &json!(20))
    );
    let second = ledger
        .query(&physician(), "getHistoryForRecord", json!([number, 20]))
        .expect("a page");
    assert_eq!(
        (second["changes"].as_array().map(Vec::len), &second["next"]),
        (Some(10), &Value::Null)
    );
}
