//! Sections and their entries, their bounds, and the rights to them.

mod support;

use medical_records::FUNCTIONS;
use sdk::Person;
use sdk::testing::{Ledger, person};
use serde_json::json;
use support::{NUMBER, created, get, patient, physician, refused, staff};

#[test]
fn every_section_is_added_to_changed_and_removed_from() {
    let sections = [
        (
            "Contact",
            "contacts",
            json!({"name": "Bravo", "relation": "partner", "phone": "+46 70 000 00 00"}),
        ),
        (
            "Caregiver",
            "caregivers",
            json!({"name": "Charlie", "facility": "Ward 7"}),
        ),
        (
            "Place",
            "places",
            json!({"name": "Field hospital", "from": "2024-01-31"}),
        ),
        (
            "Allergy",
            "allergies",
            json!({"substance": "penicillin", "severity": "severe"}),
        ),
        (
            "Condition",
            "conditions",
            json!({"information": "fracture", "doctor": "Delta", "media": ["sha256:00"]}),
        ),
        (
            "Medication",
            "medications",
            json!({"name": "paracetamol", "dose": "1 g"}),
        ),
        (
            "Treatment",
            "treatments",
            json!({"information": "splint", "prescriber": "Delta", "date": "2024-02-29"}),
        ),
        ("Note", "notes", json!({"information": "sleeps well"})),
    ];
    let mut ledger = created();
    let anna = physician();
    let mut version = 1;
    for (at, (name, section, entry)) in sections.iter().enumerate() {
        let id = at + 1;
        version += 1;
        let added = ledger.submit(&anna, &format!("add{name}"), json!([NUMBER, entry]));
        assert_eq!(added, Ok(json!({"id": id, "version": version})));
        let stored = &get(&mut ledger)[section][0];
        assert_eq!(stored["entry"], *entry);
        assert_eq!(stored["by"]["person"], "Anna");

        let change = format!("change{name}");
        let added_with = version;
        version += 1;
        assert_eq!(
            ledger.submit(&anna, &change, json!([NUMBER, id, added_with, entry])),
            Ok(json!({"version": version}))
        );
        let stale = json!([NUMBER, id, added_with, entry]);
        refused(
            &mut ledger,
            &anna,
            &change,
            stale,
            "version: was changed since it was read",
        );
        refused(
            &mut ledger,
            &anna,
            &change,
            json!([NUMBER, 99, 1, entry]),
            "id: is not an entry of this section",
        );

        let remove = format!("remove{name}");
        refused(
            &mut ledger,
            &anna,
            &remove,
            json!([NUMBER, id, added_with]),
            "version: was changed since it was read",
        );
        version += 1;
        assert_eq!(
            ledger.submit(&anna, &remove, json!([NUMBER, id, version - 1])),
            Ok(json!({"version": version}))
        );
        assert_eq!(get(&mut ledger).get(*section), None);
    }
    assert_eq!(ledger.misses, 0);
}

#[test]
fn an_end_is_not_before_its_beginning() {
    let mut ledger = created();
    let anna = physician();
    let before = [
        (
            "Place",
            json!({"name": "Ward 7", "from": "2024-02-01", "until": "2024-01-31"}),
            "until: is a day before from",
        ),
        (
            "Medication",
            json!({"name": "x", "from": "2024-02-01", "until": "2023-12-31"}),
            "until: is a day before from",
        ),
        (
            "Condition",
            json!({"information": "x", "since": "2024-02-01", "resolved": "2024-01-31"}),
            "resolved: is a day before since",
        ),
    ];
    for (name, entry, rule) in before {
        refused(&mut ledger, &anna, &format!("add{name}"), json!([NUMBER, entry]), rule);
    }
    let same_day = json!({"name": "Ward 7", "from": "2024-02-01", "until": "2024-02-01"});
    ledger
        .submit(&anna, "addPlace", json!([NUMBER, same_day]))
        .expect("a day long");
    let changed = json!([NUMBER, 1, 2, {"name": "Ward 7", "from": "2024-02-01", "until": "2024-01-31"}]);
    refused(
        &mut ledger,
        &anna,
        "changePlace",
        changed,
        "until: is a day before from",
    );
    let mut patient = patient();
    patient[0] = json!("010101-0001");
    patient[1]["places"] = json!([{"name": "Ward 7", "from": "2024-02-01", "until": "2024-01-31"}]);
    refused(
        &mut ledger,
        &anna,
        "createMedicalRecord",
        patient,
        "until: is a day before from",
    );
}

#[test]
fn a_section_has_an_end() {
    let mut ledger = created();
    for _ in 0..100 {
        ledger
            .submit(&physician(), "addNote", json!([NUMBER, {"information": "x"}]))
            .expect("room");
    }
    let one_more = json!([NUMBER, {"information": "x"}]);
    refused(
        &mut ledger,
        &physician(),
        "addNote",
        one_more,
        "notes: has 100 entries already",
    );
}

#[test]
fn a_record_has_a_largest_size() {
    let mut ledger = created();
    let long = json!([NUMBER, {"information": "ö".repeat(1000)}]);
    let mut added = 0;
    while ledger.submit(&physician(), "addNote", long.clone()).is_ok() {
        added += 1;
    }
    assert!((30..60).contains(&added), "{added}");
    refused(&mut ledger, &physician(), "addNote", long, "record: would be larger");
}

#[test]
fn rights_follow_the_practitioner_role() {
    let mut ledger = created();
    ledger
        .submit(&physician(), "addAllergy", json!([NUMBER, {"substance": "latex"}]))
        .expect("added");
    let nobody = person("HospitalA", "Eve", &[]);
    let missing = "practitioner_role: is missing in the certificate";
    refused(&mut ledger, &nobody, "getMedicalRecord", json!([NUMBER]), missing);
    refused(&mut ledger, &nobody, "createMedicalRecord", patient(), missing);
    refused(&mut ledger, &nobody, "getHistoryForRecord", json!([NUMBER]), missing);
    refused(&mut ledger, &nobody, "queryAllRecords", json!([]), missing);
    let cleaner = staff("Secret cleaner");
    refused(
        &mut ledger,
        &cleaner,
        "getMedicalRecord",
        json!([NUMBER]),
        "practitioner_role: gives no right here",
    );
    let peer = Person {
        role: "peer".into(),
        ..physician()
    };
    refused(
        &mut ledger,
        &peer,
        "getMedicalRecord",
        json!([NUMBER]),
        "role: must be client or admin",
    );

    let registrar = staff("registrar");
    let clinical = "practitioner_role: to enter or change clinical information";
    refused(
        &mut ledger,
        &registrar,
        "addAllergy",
        json!([NUMBER, {"substance": "x"}]),
        clinical,
    );
    let with_note = json!(["010101-0001", {"firstName": "A", "lastName": "B", "gender": "other", "address": "C",
        "notes": [{"information": "x"}]}]);
    refused(
        &mut ledger,
        &registrar,
        "createMedicalRecord",
        with_note.clone(),
        clinical,
    );
    ledger
        .submit(&staff("paramedic"), "createMedicalRecord", with_note)
        .expect("a paramedic may");
    let update = json!([NUMBER, 2, {"address": "Sample Lane 2"}]);
    ledger
        .submit(&registrar, "updateMedicalRecord", update)
        .expect("a registrar may");
    let seen = ledger
        .query(&registrar, "getMedicalRecord", json!([NUMBER]))
        .expect("a record");
    assert_eq!(
        (seen.get("allergies"), &seen["address"]),
        (None, &json!("Sample Lane 2"))
    );
    let history = ledger
        .query(&registrar, "getHistoryForRecord", json!([NUMBER]))
        .expect("a history");
    assert!(!history.to_string().contains("latex"));

    for role in ["nurse", "paramedic", "registrar"] {
        let rule = "practitioner_role: must be physician to delete";
        refused(
            &mut ledger,
            &staff(role),
            "deleteMedicalRecord",
            json!([NUMBER, 3]),
            rule,
        );
    }
    ledger
        .submit(&physician(), "deleteMedicalRecord", json!([NUMBER, 3]))
        .expect("a physician may");
}

#[test]
fn what_a_gateway_asserts_is_marked() {
    let mut ledger = Ledger::new(FUNCTIONS);
    let asserted = Person {
        asserted: true,
        ..physician()
    };
    ledger
        .submit(&asserted, "createMedicalRecord", patient())
        .expect("created");
    assert_eq!(get(&mut ledger)["created"]["asserted"], true);
    let history = ledger
        .query(&physician(), "getHistoryForRecord", json!([NUMBER]))
        .expect("a history");
    assert_eq!(history["changes"][0]["asserted"], true);
}
