//! Encounters, and what facilities state: who may state what, that a change names what it changes, and that events say nothing of anybody.

mod support;

use medical_records::FUNCTIONS;
use proptest::prelude::*;
use sdk::testing::{Ledger, person};
use serde_json::{Value, json};
use support::{NUMBER, physician, refused, staff};

fn encounter() -> Value {
    json!({"area": "SE-AB", "triage": "yellow", "items": ["9", "44"], "age": "1-4", "sex": "male"})
}

fn with(field: &str, value: Value) -> Value {
    let mut encounter = encounter();
    encounter[field] = value;
    json!([NUMBER, encounter])
}

fn event(ledger: &Ledger, at: usize) -> (String, Value) {
    let (kind, payload) = &ledger.events[at];
    (kind.clone(), serde_json::from_slice(payload).expect("JSON"))
}

#[test]
fn an_encounter_is_added_gets_an_outcome_and_is_listed() {
    let mut ledger = Ledger::new(FUNCTIONS);
    let added = ledger
        .submit(&physician(), "addEncounter", json!([NUMBER, encounter()]))
        .expect("added");
    let id = added["id"].clone();
    let stated_ms = ledger.time_ms;
    let changed = ledger.submit(&physician(), "setOutcome", json!([NUMBER, id, 1, "36"]));
    assert_eq!(changed, Ok(json!({"version": 2})));
    let changed = ledger.submit(&staff("nurse"), "setOutcome", json!([NUMBER, id, 2, "39"]));
    assert_eq!(changed, Ok(json!({"version": 3})));
    let shown = ledger
        .query(&physician(), "getEncounters", json!([NUMBER]))
        .expect("listed");
    let shown = &shown["encounters"][0];
    assert_eq!((&shown["id"], &shown["version"]), (&id, &json!(3)));
    assert_eq!(
        (&shown["facility"], &shown["codes"], &shown["outcome"]),
        (&json!("HospitalA-1"), &json!("who-emt-mds-1"), &json!("39"))
    );
    assert_eq!(ledger.misses, 0, "every key was announced by the route");

    let cell = json!({
        "codes": "who-emt-mds-1", "facility": "HospitalA-1", "area": "SE-AB", "triage": "yellow",
        "items": ["9", "44"], "age": "1-4", "sex": "male",
    });
    assert_eq!(event(&ledger, 0), ("encounter.added".to_owned(), cell.clone()));
    let mut first = cell.clone();
    first["outcome"] = json!("36");
    assert_eq!(event(&ledger, 1), ("encounter.outcome".to_owned(), first));
    let mut second = cell;
    second["outcome"] = json!("39");
    second["formerOutcome"] = json!("36");
    second["formerTimeMs"] = json!(stated_ms);
    assert_eq!(event(&ledger, 2), ("encounter.outcome".to_owned(), second));
}

#[test]
fn encounters_are_listed_page_by_page_oldest_first() {
    let mut ledger = Ledger::new(FUNCTIONS);
    for _ in 0..5 {
        ledger
            .submit(&physician(), "addEncounter", json!([NUMBER, encounter()]))
            .expect("added");
    }
    let (mut after, mut ids) = (Value::Null, Vec::new());
    loop {
        let page = ledger
            .query(&physician(), "getEncounters", json!([NUMBER, after, 2]))
            .expect("a page");
        ids.extend(
            page["encounters"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|encounter| encounter["id"].as_str().expect("an id").to_owned()),
        );
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(ids.len(), 5);
    assert!(ids.is_sorted());
    let foreign = json!([NUMBER, "7265636f7264"]);
    refused(&mut ledger, &physician(), "getEncounters", foreign, "after: next");
}

#[test]
fn an_encounter_that_breaks_a_rule_is_refused_by_field() {
    let mut ledger = Ledger::new(FUNCTIONS);
    for (field, value, expected) in [
        ("area", json!("Secret area"), "encounter.area: an area's code"),
        ("triage", json!("blue"), "encounter.triage: "),
        ("items", json!([]), "items: 1 to 12"),
        ("items", json!(["9", "9"]), "items: twice"),
        ("items", json!(["Secret"]), "items: codes of the list"),
        ("items", json!(["40"]), "items: outcome is for those"),
        ("items", json!(["57"]), "items: not of a site"),
        ("age", json!("5"), "encounter.age: "),
        ("sex", json!("femalePregnant"), "sex: below five years"),
        ("outcome", json!("9"), "outcome: an outcome's code"),
        ("codes", json!("Secret"), "codes: version of a list"),
        ("facility", json!("HospitalB-1"), "encounter: expected one of"),
    ] {
        refused(&mut ledger, &physician(), "addEncounter", with(field, value), expected);
    }
    let role = "practitioner_role: must be physician, nurse or paramedic";
    let call = json!([NUMBER, encounter()]);
    refused(&mut ledger, &staff("registrar"), "addEncounter", call.clone(), role);
    refused(&mut ledger, &staff("registrar"), "getEncounters", json!([NUMBER]), role);
    for facility in ["HospitalB-1", "HospitalA", "HospitalA-", "HospitalA-Sec ret"] {
        let attributes = [("facility", facility), ("practitioner_role", "nurse")];
        let who = person("HospitalA", "Anna", &attributes);
        refused(
            &mut ledger,
            &who,
            "addEncounter",
            call.clone(),
            "facility: own organisation",
        );
    }
    let who = person("HospitalA", "Anna", &[("practitioner_role", "nurse")]);
    refused(
        &mut ledger,
        &who,
        "addEncounter",
        call,
        "facility: is missing in the certificate",
    );
}

#[test]
fn an_outcome_names_the_version_that_was_seen() {
    let mut ledger = Ledger::new(FUNCTIONS);
    let added = ledger
        .submit(&physician(), "addEncounter", with("outcome", json!("40")))
        .expect("added");
    let mut no = |arguments, expected| refused(&mut ledger, &physician(), "setOutcome", arguments, expected);
    let id = &added["id"];
    no(json!([NUMBER, id, 2, "36"]), "version: changed since");
    no(json!([NUMBER, id, 1, "40"]), "outcome: present one");
    no(json!([NUMBER, id, 1, "9"]), "outcome: an outcome's code");
    no(
        json!(["940221-1234", id, 1, "36"]),
        "id: not an encounter of this patient",
    );
    no(json!([NUMBER, "Secret", 1, "36"]), "id: the id of an encounter");
}

fn beds(staffed: u32) -> Value {
    json!([{"kind": "general", "staffed": staffed, "occupied": 3}, {"kind": "icu", "staffed": 2, "occupied": 4}])
}

#[test]
fn beds_are_stated_by_their_facility_and_no_one_else() {
    let mut ledger = Ledger::new(FUNCTIONS);
    let registrar = staff("registrar");
    let call = json!(["HospitalA-1", 0, beds(10)]);
    assert_eq!(
        ledger.submit(&registrar, "setBeds", call.clone()),
        Ok(json!({"version": 1}))
    );
    refused(&mut ledger, &registrar, "setBeds", call, "version: changed since");
    let again = json!(["HospitalA-1", 1, beds(12)]);
    assert_eq!(ledger.submit(&registrar, "setBeds", again), Ok(json!({"version": 2})));
    let stated = json!({"facility": "HospitalA-1", "beds": beds(12)});
    assert_eq!(event(&ledger, 1), ("beds.stated".to_owned(), stated));

    let other = person(
        "HospitalB",
        "Bo",
        &[("facility", "HospitalA-1"), ("practitioner_role", "registrar")],
    );
    let call = json!(["HospitalA-1", 2, beds(1)]);
    refused(&mut ledger, &other, "setBeds", call, "facility: own organisation");
    let call = json!(["HospitalA-2", 0, beds(1)]);
    refused(
        &mut ledger,
        &registrar,
        "setBeds",
        call,
        "facility: the one of the certificate",
    );
    for (beds, expected) in [
        (json!([]), "beds: 1 to 16 kinds"),
        (json!([beds(1)[0], beds(1)[0]]), "beds: twice"),
        (
            json!([{"kind": "Secret", "staffed": 1, "occupied": 1}]),
            "beds[0].kind: a kind of beds",
        ),
        (
            json!([{"kind": "room-of-one-person", "staffed": 1, "occupied": 1}]),
            "beds: kinds of the newest list of codes",
        ),
        (
            json!([{"kind": "icu", "staffed": 100_001, "occupied": 1}]),
            "beds[0].staffed: a number of beds",
        ),
    ] {
        refused(
            &mut ledger,
            &registrar,
            "setBeds",
            json!(["HospitalA-1", 2, beds]),
            expected,
        );
    }
    let shown = ledger.query(&other, "getBeds", json!(["HospitalA-1"])).expect("stated");
    assert_eq!(
        (&shown["version"], &shown["beds"][0]["staffed"]),
        (&json!(2), &json!(12))
    );
    let all = ledger.query(&other, "queryAllBeds", json!([])).expect("a list");
    assert_eq!(all["beds"].as_array().map(Vec::len), Some(1));
    refused(
        &mut ledger,
        &other,
        "getBeds",
        json!(["HospitalB-1"]),
        "facility: never stated",
    );
    assert_eq!(ledger.misses, 0);
}

#[test]
fn a_site_reports_of_itself_and_what_is_restricted_is_in_no_event() {
    let mut ledger = Ledger::new(FUNCTIONS);
    let nothing = ledger.query(&physician(), "getSiteItems", json!(["HospitalA-1"]));
    assert_eq!(nothing, Ok(json!({"version": 0, "items": []})));
    let call = json!(["HospitalA-1", 0, null, ["51", "54", "62"]]);
    let stated = ledger.submit(&physician(), "setSiteItems", call.clone());
    assert_eq!(stated, Ok(json!({"version": 1})));
    refused(
        &mut ledger,
        &physician(),
        "setSiteItems",
        call,
        "version: changed since",
    );
    let told = json!({"codes": "who-emt-mds-1", "facility": "HospitalA-1", "items": ["54", "62"]});
    assert_eq!(event(&ledger, 0), ("site.stated".to_owned(), told));
    let nothing = ledger.submit(&staff("nurse"), "setSiteItems", json!(["HospitalA-1", 1, null, []]));
    assert_eq!(nothing, Ok(json!({"version": 2})));

    let call = |facility: &str, items: &[&str]| json!([facility, 2, null, items]);
    for (items, expected) in [
        (&["62", "62"][..], "items: twice"),
        (&["9"], "items: of a site"),
        (&["36"], "items: of a site"),
        (&["Secret"], "items: of a site"),
        (&["62"; 33], "items: at most 32"),
    ] {
        let call = call("HospitalA-1", items);
        refused(&mut ledger, &physician(), "setSiteItems", call, expected);
    }
    let codes = json!(["HospitalA-1", 2, "Secret", []]);
    refused(
        &mut ledger,
        &physician(),
        "setSiteItems",
        codes,
        "codes: version of a list",
    );
    let elsewhere = call("HospitalA-2", &["62"]);
    refused(
        &mut ledger,
        &physician(),
        "setSiteItems",
        elsewhere,
        "facility: the one of the certificate",
    );
    let role = "practitioner_role: must be physician, nurse or paramedic";
    refused(
        &mut ledger,
        &staff("registrar"),
        "setSiteItems",
        call("HospitalA-1", &["62"]),
        role,
    );
    refused(
        &mut ledger,
        &staff("registrar"),
        "getSiteItems",
        json!(["HospitalA-1"]),
        role,
    );
    let other = person(
        "HospitalB",
        "Bo",
        &[("facility", "HospitalB-1"), ("practitioner_role", "nurse")],
    );
    let shown = ledger
        .query(&other, "getSiteItems", json!(["HospitalA-1"]))
        .expect("stated");
    assert_eq!((&shown["version"], &shown["items"]), (&json!(2), &json!([])));
    assert_eq!(ledger.misses, 0, "every key was announced by the route");
}

#[test]
fn a_name_with_two_possible_owners_stays_with_the_first() {
    let mut ledger = Ledger::new(FUNCTIONS);
    let of = |organisation| {
        person(
            organisation,
            "Eva",
            &[("facility", "A-B-1"), ("practitioner_role", "registrar")],
        )
    };
    let call = |version: u64| json!(["A-B-1", version, beds(1)]);
    ledger.submit(&of("A-B"), "setBeds", call(0)).expect("its own");
    refused(
        &mut ledger,
        &of("A"),
        "setBeds",
        call(1),
        "facility: another organisation's",
    );
}

proptest! {
    /// Whatever is said: an encounter's events hold the fields that are counted, and no number of a patient.
    #[test]
    fn events_name_nobody(
        triage in prop::sample::select(vec!["red", "yellow", "green", "black"]),
        age in prop::sample::select(vec!["<1", "1-4", "5-17", "18-64", "65+"]),
        item in prop::sample::select(vec!["4", "9", "28", "49"]),
        outcomes in prop::collection::vec(prop::sample::select(vec!["36", "37", "40", "42"]), 0..4),
    ) {
        let mut ledger = Ledger::new(FUNCTIONS);
        let said = json!({"area": "SE-AB", "triage": triage, "items": [item], "age": age, "sex": "femaleNotPregnant"});
        let added = ledger.submit(&physician(), "addEncounter", json!([NUMBER, said])).expect("added");
        let mut version = 1;
        for outcome in outcomes {
            let call = json!([NUMBER, added["id"], version, outcome]);
            version += u64::from(ledger.submit(&physician(), "setOutcome", call).is_ok());
        }
        prop_assert_eq!(ledger.events.len() as u64, version);
        let counted = [
            "codes", "facility", "area", "triage", "items", "age", "sex", "outcome", "formerOutcome", "formerTimeMs",
        ];
        for at in 0..ledger.events.len() {
            let (_, payload) = event(&ledger, at);
            for field in payload.as_object().expect("an object").keys() {
                prop_assert!(counted.contains(&field.as_str()), "{}", field);
            }
            let text = payload.to_string();
            prop_assert!(!text.contains(NUMBER) && !text.contains("Anna"));
        }
    }
}
