//! Who may do what. A person's organisation vouches for his `practitioner_role` in the certificate.
//!
//! | practitioner_role | reads | names, address, contacts | clinical sections, encounters, site's items | beds | delete |
//! |---|---|---|---|---|---|
//! | `physician` | all | yes | yes | yes | yes |
//! | `nurse`, `paramedic` | all | yes | yes | yes | no |
//! | `registrar` | without clinical sections and encounters | yes | no | yes | no |
//! | none, or another | no | no | no | no | no |
//!
//! Encounters, beds and a site's items are stated for the facility of the certificate (`facility`), which must be of the person's own
//! organisation.
//!
//! Only `client` and `admin` certificates act at all: a peer or an orderer is not a person. Being an admin
//! of an organisation gives no medical right by itself. An attribute that a gateway asserts counts, and every
//! entry and change says that it was asserted.

use sdk::{Person, Rejection};

/// What a person is allowed, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Names, address, contacts.
    Demographic,
    /// The clinical sections too.
    Clinical,
    /// Deleting a record too.
    Physician,
}

/// The person's right, or what is wrong with his certificate.
pub fn of(person: &Person) -> Result<Right, Rejection> {
    if person.role != "client" && person.role != "admin" {
        return Err(Rejection::new(
            "role",
            "must be client or admin: other certificates do not act for a person",
        ));
    }
    match person.attribute("practitioner_role") {
        Some("physician") => Ok(Right::Physician),
        Some("nurse" | "paramedic") => Ok(Right::Clinical),
        Some("registrar") => Ok(Right::Demographic),
        Some(_) => Err(Rejection::new(
            "practitioner_role",
            "gives no right here: it must be physician, nurse, paramedic or registrar",
        )),
        None => Err(Rejection::new(
            "practitioner_role",
            "is missing in the certificate: it must be physician, nurse, paramedic or registrar",
        )),
    }
}

/// The person has at least this right.
pub fn check(person: &Person, needed: Right) -> Result<(), Rejection> {
    if of(person)? >= needed {
        return Ok(());
    }
    Err(Rejection::new(
        "practitioner_role",
        match needed {
            Right::Physician => "must be physician to delete a record",
            _ => "must be physician, nurse or paramedic to enter or change clinical information",
        },
    ))
}
