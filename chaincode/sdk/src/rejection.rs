//! A contract's "no". It is logged and shown, so it cannot be built from values at run time.

use std::borrow::Cow;
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    UnknownFunction,
    /// The arguments are not a JSON array of what the function takes.
    BadArguments,
    /// A rule of the contract.
    Rejected,
}

/// Which field breaks which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    kind: Refusal,
    field: String,
    reason: Cow<'static, str>,
}

impl Rejection {
    /// `field` as the caller knows it (`person.birthDate`), `rule` as a sentence without a subject ("is at most 100").
    pub fn new(field: &'static str, rule: &'static str) -> Self {
        Self {
            kind: Refusal::Rejected,
            field: field.into(),
            reason: rule.into(),
        }
    }

    pub(crate) fn unknown_function() -> Self {
        Self {
            kind: Refusal::UnknownFunction,
            field: "function".into(),
            reason: "is not a function of this contract".into(),
        }
    }

    /// Only for this crate: field and reason are made of parameter names and types, see `arguments`.
    pub(crate) fn bad_arguments(field: String, reason: Cow<'static, str>) -> Self {
        Self {
            kind: Refusal::BadArguments,
            field,
            reason,
        }
    }

    /// The same rule, one level down: `name` becomes `contact.name`.
    pub fn inside(mut self, parent: &'static str) -> Self {
        self.field = if self.field.is_empty() {
            parent.into()
        } else {
            format!("{parent}.{}", self.field)
        };
        self
    }

    pub fn kind(&self) -> Refusal {
        self.kind
    }

    pub fn field(&self) -> &str {
        &self.field
    }

    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// For the exports of the world.
    pub fn into_parts(self) -> (Refusal, String, String) {
        (self.kind, self.field, self.reason.into_owned())
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl std::error::Error for Rejection {}
