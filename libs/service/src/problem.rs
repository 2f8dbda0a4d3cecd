//! Refusals and their stable words.
//!
//! A refusal is made once, where it happens, as a [`Problem`]; gRPC lists carry it as `rpc::Problem`,
//! unary calls as a `tonic::Status`, REST as an RFC 9457 document. The words in [`Code`] are part of
//! the interface: they are added to, never renamed. No detail holds arguments, keys, values, or
//! anything else about a patient.

use std::fmt;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use prost::Message as _;
use protocol::limits::ORGANISATIONS_MAX;
use serde::{Deserialize, Serialize};

use crate::rpc;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident, $word:literal, $http:literal, $grpc:ident, $title:literal;)+) => {
        /// The stable words of refusals.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// In the same order.
            pub const WORDS: &'static [&'static str] = &[$($word,)+];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str { match self { $(Code::$variant => $word,)+ } }

            pub fn parse(word: &str) -> Option<Code> { match word { $($word => Some(Code::$variant),)+ _ => None } }

            /// A short sentence for people.
            pub const fn title(self) -> &'static str { match self { $(Code::$variant => $title,)+ } }

            pub fn http_status(self) -> StatusCode {
                let number = match self { $(Code::$variant => $http,)+ };
                StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            pub const fn grpc_code(self) -> tonic::Code { match self { $(Code::$variant => tonic::Code::$grpc,)+ } }
        }
    };
}

codes! {
    /// A field is missing, malformed or breaks a rule; `field` names it.
    InvalidArgument, "invalid_argument", 400, InvalidArgument, "The request breaks a rule";
    /// Bytes that are not the canonical encoding of what they should be.
    BadEncoding, "bad_encoding", 400, InvalidArgument, "The message is not in its canonical encoding";
    /// The proposal names another channel or epoch.
    WrongChannel, "wrong_channel", 400, InvalidArgument, "This is not the channel of the request";
    /// Partition or partition key do not fit the subject.
    WrongPartition, "wrong_partition", 400, InvalidArgument, "Partition and partition key do not fit the subject";
    /// A query was submitted as a transaction, or a change was evaluated as a query.
    WrongKind, "wrong_kind", 400, InvalidArgument, "A query cannot be ordered, a change cannot be evaluated";
    /// The arguments are not those that the client committed to.
    ArgumentsChanged, "arguments_changed", 400, InvalidArgument, "The arguments are not those that were signed";
    /// No certificate, or none that a member organisation vouches for.
    Unauthenticated, "unauthenticated", 401, Unauthenticated, "A member's certificate is needed";
    /// A signature does not hold.
    BadSignature, "bad_signature", 401, Unauthenticated, "A signature does not hold";
    /// The certificate is expired or not yet valid.
    CertificateExpired, "certificate_expired", 401, Unauthenticated, "The certificate is outside its validity";
    /// The certificate was revoked by its organisation.
    Revoked, "revoked", 401, Unauthenticated, "The certificate is revoked";
    /// This identity may not do this.
    PermissionDenied, "permission_denied", 403, PermissionDenied, "This identity may not do this";
    /// There is no such thing.
    NotFound, "not_found", 404, NotFound, "There is no such thing";
    /// The channel has no such contract.
    UnknownContract, "unknown_contract", 404, NotFound, "The channel has no such contract";
    /// The contract has no such function.
    UnknownFunction, "unknown_function", 404, NotFound, "The contract has no such function";
    /// The proposal names another version of the contract than the active one.
    ContractChanged, "contract_changed", 409, FailedPrecondition, "Another version of the contract is active";
    /// Somebody else changed what the transaction read, and endorsing it again did not help in time.
    MvccConflict, "mvcc_conflict", 409, Aborted, "Somebody else changed what was read";
    /// The transaction was ordered and judged invalid; `detail` is the validation code.
    TransactionInvalid, "transaction_invalid", 409, Aborted, "The transaction was ordered and judged invalid";
    /// The same proposal is already VALID or under way.
    Duplicate, "duplicate", 409, AlreadyExists, "This transaction is already known";
    /// The proposal's height bound has passed or is too far away, or its clock is.
    Expired, "expired", 409, FailedPrecondition, "The proposal is not in time";
    /// Larger than a limit; `field` names what.
    TooLarge, "too_large", 413, InvalidArgument, "Larger than the limit";
    /// The contract's own no: `field` and `detail` say which rule.
    ContractRejected, "contract_rejected", 422, FailedPrecondition, "The contract rejected the call";
    /// The contract could not read its arguments.
    BadArguments, "bad_arguments", 422, InvalidArgument, "The contract could not read its arguments";
    /// The contract used up its fuel.
    FuelExhausted, "fuel_exhausted", 422, FailedPrecondition, "The contract used up its fuel";
    /// The contract wanted more memory or stack than it may have.
    MemoryExceeded, "memory_exceeded", 422, FailedPrecondition, "The contract wanted too much memory";
    /// The contract's response, writes or events are too large.
    OutputTooLarge, "output_too_large", 422, FailedPrecondition, "The contract's output is too large";
    /// The contract trapped.
    Trapped, "trapped", 422, FailedPrecondition, "The contract trapped";
    /// The contract took too long.
    TimedOut, "timed_out", 422, FailedPrecondition, "The contract took too long";
    /// The contract's module cannot be used.
    ModuleInvalid, "module_invalid", 422, FailedPrecondition, "The contract's module cannot be used";
    /// Endorsers disagree about the result.
    EndorsementMismatch, "endorsement_mismatch", 409, Aborted, "Endorsers disagree about the result";
    /// A quota or a queue is full. Nothing was done; `retry_after` says when to come back.
    ResourceExhausted, "resource_exhausted", 429, ResourceExhausted, "Too much at once";
    /// A bug, ours. Nothing about it is said to the caller; the log has it.
    Internal, "internal", 500, Internal, "Something went wrong here";
    /// This answer cannot be had here.
    Unimplemented, "unimplemented", 501, Unimplemented, "This is not offered";
    /// The one who could answer is away or ending. Nothing was done.
    Unavailable, "unavailable", 503, Unavailable, "Whoever could answer is away";
    /// The ordered log is away. Nothing was done.
    LogUnavailable, "log_unavailable", 503, Unavailable, "The ordered log is away";
    /// No worker could run the contract.
    WorkerUnavailable, "worker_unavailable", 503, Unavailable, "No worker could run the contract";
    /// This partition stands still here; `detail` says why.
    PartitionStopped, "partition_stopped", 503, Unavailable, "This partition stands still here";
    /// Organisations without which the policy cannot be met are away; `missing` names them.
    PolicyUnsatisfiable, "policy_unsatisfiable", 503, Unavailable, "The policy cannot be met now";
    /// The endorser has no snapshot at that height; `height` is its own.
    SnapshotUnavailable, "snapshot_unavailable", 503, Unavailable, "No snapshot at that height";
    /// It was sent on and no answer came: it may have happened. Ask for the status by tx_id, or retry under the same.
    UnknownOutcome, "unknown_outcome", 504, DeadlineExceeded, "The outcome is not known";
    /// No answer in time, and nothing has been done.
    DeadlineExceeded, "deadline_exceeded", 504, DeadlineExceeded, "No answer in time";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: Code,
    /// Never holds arguments or anything about a patient.
    pub detail: String,
    /// The field that breaks a rule; empty if there is none.
    pub field: String,
    pub retry_after: Option<Duration>,
    /// Organisations without which the policy cannot be met.
    pub missing: Vec<String>,
    /// The answering peer's height, where a snapshot was not to be had.
    pub height: u64,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            field: String::new(),
            retry_after: None,
            missing: Vec::new(),
            height: 0,
        }
    }

    /// `field` breaks the rule that `detail` states.
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, detail).with_field(field)
    }

    pub fn exhausted(retry_after: Duration, detail: impl Into<String>) -> Self {
        Self::new(Code::ResourceExhausted, detail).with_retry_after(retry_after)
    }

    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, detail)
    }

    pub fn denied(detail: impl Into<String>) -> Self {
        Self::new(Code::PermissionDenied, detail)
    }

    /// A bug here: the cause goes to the log, the caller learns nothing of it.
    pub fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!(%cause, "internal error");
        Self::new(Code::Internal, "")
    }

    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    pub fn with_missing(mut self, organisations: impl IntoIterator<Item = String>) -> Self {
        self.missing = organisations.into_iter().collect();
        self
    }

    pub fn with_height(mut self, height: u64) -> Self {
        self.height = height;
        self
    }

    /// The RFC 9457 document.
    pub fn document(&self) -> Document {
        Document {
            r#type: format!("/problems/{}", self.code),
            title: self.code.title().to_owned(),
            status: self.code.http_status().as_u16(),
            code: self.code.as_str().to_owned(),
            detail: self.detail.clone(),
            field: self.field.clone(),
            retry_after_ms: self.retry_after.map_or(0, millis),
            missing: self.missing.clone(),
            height: self.height,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.field.is_empty() {
            write!(f, " [{}]", self.field)?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if !self.missing.is_empty() {
            write!(f, " (missing: {})", self.missing.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// A refusal as REST shows it (RFC 9457), content type `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    pub r#type: String,
    pub title: String,
    pub status: u16,
    pub code: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub retry_after_ms: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub height: u64,
}

fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}

fn is_zero_u64(n: &u64) -> bool {
    *n == 0
}

/// At least 1: on the wire 0 means "do not come back".
fn millis(delay: Duration) -> u32 {
    u32::try_from(delay.as_millis()).unwrap_or(u32::MAX).max(1)
}

impl From<Problem> for rpc::Problem {
    fn from(problem: Problem) -> Self {
        Self {
            code: problem.code.as_str().to_owned(),
            detail: problem.detail,
            field: problem.field,
            retry_after_ms: problem.retry_after.map_or(0, millis),
            missing: problem.missing,
            height: problem.height,
        }
    }
}

/// What another process says of a problem goes into our own words, logs and answers: it is kept short.
const WORDS_MAX: usize = 1_024;

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(WORDS_MAX));
    text
}

impl From<rpc::Problem> for Problem {
    /// A word that this version does not know counts as `internal` and is kept in the detail.
    fn from(mut problem: rpc::Problem) -> Self {
        let known = Code::parse(&problem.code);
        let detail = match known {
            Some(_) => problem.detail,
            None => format!("{}: {}", cut(problem.code), problem.detail),
        };
        problem.missing.truncate(ORGANISATIONS_MAX);
        problem.missing = problem.missing.into_iter().map(cut).collect();
        Self {
            code: known.unwrap_or(Code::Internal),
            detail: cut(detail),
            field: cut(problem.field),
            retry_after: (problem.retry_after_ms > 0).then(|| Duration::from_millis(problem.retry_after_ms.into())),
            missing: problem.missing,
            height: problem.height,
        }
    }
}

impl From<Document> for Problem {
    fn from(document: Document) -> Self {
        rpc::Problem {
            code: document.code,
            detail: document.detail,
            field: document.field,
            retry_after_ms: document.retry_after_ms,
            missing: document.missing,
            height: document.height,
        }
        .into()
    }
}

impl From<Problem> for tonic::Status {
    /// The whole problem rides in the status's details, as an encoded `rpc::Problem`.
    fn from(problem: Problem) -> Self {
        let message = problem.to_string();
        let code = problem.code.grpc_code();
        let details = rpc::Problem::from(problem).encode_to_vec();
        tonic::Status::with_details(code, message, details.into())
    }
}

impl From<tonic::Status> for Problem {
    fn from(status: tonic::Status) -> Self {
        if !status.details().is_empty()
            && let Ok(problem) = rpc::Problem::decode(status.details())
            && Code::parse(&problem.code).is_some()
        {
            return problem.into();
        }
        if was_not_taken(&status) {
            return Problem::unavailable("the server ended before it took the request");
        }
        let code = match status.code() {
            tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Code::InvalidArgument,
            tonic::Code::Unauthenticated => Code::Unauthenticated,
            tonic::Code::PermissionDenied => Code::PermissionDenied,
            tonic::Code::NotFound => Code::NotFound,
            tonic::Code::ResourceExhausted => Code::ResourceExhausted,
            tonic::Code::Unimplemented => Code::Unimplemented,
            tonic::Code::Unavailable => Code::Unavailable,
            // Whether it was done is not known in all of these.
            tonic::Code::DeadlineExceeded | tonic::Code::Cancelled | tonic::Code::Unknown => Code::UnknownOutcome,
            _ => Code::Internal,
        };
        Problem::new(code, status.message())
    }
}

/// The server said goodbye on the connection before the request was written to it, or named an earlier one as the last
/// that it has taken.
fn was_not_taken(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        // Hyper cancels nothing that it has begun to write.
        let unwritten = error.downcast_ref().is_some_and(hyper::Error::is_canceled);
        let beyond_the_last = error.downcast_ref().is_some_and(|error: &h2::Error| {
            error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
        });
        if unwritten || beyond_the_last {
            return true;
        }
        cause = error.source();
    }
    false
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.document()).unwrap_or_default();
        let mut response = (self.code.http_status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(delay) = self.retry_after {
            // Whole seconds only, rounded up; the document has milliseconds.
            let seconds = u64::from(millis(delay)).div_ceil(1000);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_parse_back() {
        for &code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(code));
        }
    }

    #[test]
    fn survives_every_wire() {
        for &code in Code::ALL {
            let problem = Problem::new(code, "why")
                .with_field("patient.name")
                .with_retry_after(Duration::from_millis(250))
                .with_missing(["HospitalB".to_owned()])
                .with_height(7);
            assert_eq!(Problem::from(rpc::Problem::from(problem.clone())), problem);
            assert_eq!(Problem::from(tonic::Status::from(problem.clone())), problem);
            assert_eq!(Problem::from(problem.document()), problem);
        }
    }

    #[test]
    fn too_much_is_429_with_retry_after() {
        let response = Problem::exhausted(Duration::from_millis(1200), "quota").into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn an_unknown_word_is_internal() {
        let problem = Problem::from(rpc::Problem {
            code: "new_word".into(),
            ..Default::default()
        });
        assert_eq!(problem.code, Code::Internal);
    }
}
