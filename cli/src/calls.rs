//! Calls of the contract for medical records: names of functions, arguments as JSON arrays.

use serde_json::{Value, json};
use service::rpc::Call;

use crate::patients::Patient;

pub fn call(contract: &str, function: &str, arguments: &Value) -> Call {
    Call {
        contract: contract.to_owned(),
        function: function.to_owned(),
        arguments: arguments.to_string().into_bytes(),
    }
}

pub fn create(contract: &str, patient: &Patient) -> Call {
    call(
        contract,
        "createMedicalRecord",
        &json!([patient.personal_number, patient.record]),
    )
}

pub fn create_from(contract: &str, number: &str, record: &Value) -> Call {
    call(contract, "createMedicalRecord", &json!([number, record]))
}

pub fn get(contract: &str, number: &str) -> Call {
    call(contract, "getMedicalRecord", &json!([number]))
}

/// `version`: the one that the caller saw.
pub fn update(contract: &str, number: &str, version: u64, changes: &Value) -> Call {
    call(contract, "updateMedicalRecord", &json!([number, version, changes]))
}

pub fn delete(contract: &str, number: &str, version: u64) -> Call {
    call(contract, "deleteMedicalRecord", &json!([number, version]))
}

pub fn history(contract: &str, number: &str, skip: u32, limit: Option<u32>) -> Call {
    call(contract, "getHistoryForRecord", &json!([number, skip, limit]))
}

pub fn list(contract: &str, after: Option<&str>, limit: Option<u32>) -> Call {
    call(contract, "queryAllRecords", &json!([after, limit]))
}

pub fn add_encounter(contract: &str, number: &str, encounter: &Value) -> Call {
    call(contract, "addEncounter", &json!([number, encounter]))
}

/// `version`: the one that the caller saw.
pub fn set_outcome(contract: &str, number: &str, id: &str, version: u64, outcome: &str) -> Call {
    call(contract, "setOutcome", &json!([number, id, version, outcome]))
}

pub fn encounters(contract: &str, number: &str, after: Option<&str>, limit: Option<u32>) -> Call {
    call(contract, "getEncounters", &json!([number, after, limit]))
}

/// `version`: the one that the caller saw; 0 the first time.
pub fn set_beds(contract: &str, facility: &str, version: u64, beds: &Value) -> Call {
    call(contract, "setBeds", &json!([facility, version, beds]))
}

/// `version`: as in [`set_beds`]; `codes`: the list's version, the newest if none.
pub fn set_site_items(contract: &str, facility: &str, version: u64, codes: Option<&str>, items: &[String]) -> Call {
    call(contract, "setSiteItems", &json!([facility, version, codes, items]))
}

pub fn site_items(contract: &str, facility: &str) -> Call {
    call(contract, "getSiteItems", &json!([facility]))
}

pub fn beds(contract: &str, facility: &str) -> Call {
    call(contract, "getBeds", &json!([facility]))
}

pub fn all_beds(contract: &str, after: Option<&str>, limit: Option<u32>) -> Call {
    call(contract, "queryAllBeds", &json!([after, limit]))
}
