//! What REST accepts: strict JSON, with the offending field named and never a value repeated.

use std::time::Duration;

use axum::extract::Request;
use bytes::Bytes;
use http::HeaderMap;
use protocol::ledger::Signature;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use service::rpc::{self, Finality, evaluate_request, submit_request};
use service::{Code, Problem};
use utoipa::ToSchema;

use crate::gateway::config::REST_BODY_BYTES_MAX;

/// A body that trickles in holds a connection and nothing else, but not for ever.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a field's name that a client made up, so much is repeated.
const NAME_CHARS_MAX: usize = 64;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wait {
    /// The orderer's receipt.
    Ordered,
    /// Judged by this peer.
    Committed,
    /// A quorum of organisations signed the header or a later one.
    Attested,
}

impl From<Wait> for Finality {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Ordered => Finality::Ordered,
            Wait::Committed => Finality::Committed,
            Wait::Attested => Finality::Attested,
        }
    }
}

/// A transaction: either `contract`, `function` and `arguments`, signed by the gateway on the caller's
/// behalf, or `signed`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubmitBody {
    #[schema(example = "medical-records")]
    contract: Option<String>,
    function: Option<String>,
    /// The function's parameters, a JSON array.
    #[schema(value_type = Option<Vec<Object>>)]
    arguments: Option<Box<RawValue>>,
    signed: Option<SignedBody>,
    /// `committed` if absent.
    wait: Option<Wait>,
    /// At most two minutes; 30 seconds if absent.
    timeout_ms: Option<u32>,
}

/// A query: either `contract`, `function` and `arguments`, or `signed`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallBody {
    #[schema(example = "medical-records")]
    contract: Option<String>,
    function: Option<String>,
    /// The function's parameters, a JSON array.
    #[schema(value_type = Option<Vec<Object>>)]
    arguments: Option<Box<RawValue>>,
    signed: Option<SignedBody>,
}

/// A proposal that the client signed. All bytes are hexadecimal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignedBody {
    /// The encoded `Proposal`.
    proposal: String,
    signature: SignatureBody,
    /// The creator's certificate, DER.
    certificate: String,
    /// 32 bytes.
    salt: String,
    /// The very bytes that the commitment is over.
    arguments: String,
}

/// One leaf's share of a signature over a Merkle root. For a single proposal: size 1, index 0, no path.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignatureBody {
    #[serde(default = "one")]
    size: u64,
    #[serde(default)]
    index: u64,
    #[serde(default)]
    path: Vec<String>,
    /// SHA-256 of the certificate.
    certificate: String,
    /// 64 bytes.
    signature: String,
}

fn one() -> u64 {
    1
}

impl SubmitBody {
    pub(crate) fn into_request(self) -> Result<rpc::SubmitRequest, Problem> {
        let intent = match call_or_signed(self.contract, self.function, self.arguments, self.signed)? {
            Either::Call(call) => submit_request::Intent::Call(call),
            Either::Signed(signed) => submit_request::Intent::Signed(signed),
        };
        Ok(rpc::SubmitRequest {
            id: 0,
            intent: Some(intent),
            wait: self.wait.map_or(Finality::Committed, Finality::from).into(),
            timeout_ms: self.timeout_ms.unwrap_or(0),
        })
    }
}

impl CallBody {
    pub(crate) fn into_evaluate(self) -> Result<evaluate_request::Intent, Problem> {
        Ok(
            match call_or_signed(self.contract, self.function, self.arguments, self.signed)? {
                Either::Call(call) => evaluate_request::Intent::Call(call),
                Either::Signed(signed) => evaluate_request::Intent::Signed(signed),
            },
        )
    }

    pub(crate) fn into_call(self) -> Result<rpc::Call, Problem> {
        match call_or_signed(self.contract, self.function, self.arguments, self.signed)? {
            Either::Call(call) => Ok(call),
            Either::Signed(_) => Err(Problem::invalid(
                "signed",
                "has no place here: prepare comes before signing",
            )),
        }
    }
}

enum Either {
    Call(rpc::Call),
    Signed(rpc::SignedProposal),
}

fn call_or_signed(
    contract: Option<String>,
    function: Option<String>,
    arguments: Option<Box<RawValue>>,
    signed: Option<SignedBody>,
) -> Result<Either, Problem> {
    if let Some(signed) = signed {
        let both = [
            ("contract", contract.is_some()),
            ("function", function.is_some()),
            ("arguments", arguments.is_some()),
        ];
        return match both.into_iter().find(|(_, present)| *present) {
            Some((field, _)) => Err(Problem::invalid(field, "stands in the signed proposal, not beside it")),
            None => signed.into_proposal().map(Either::Signed),
        };
    }
    let missing = |field| Problem::invalid(field, "is missing");
    let arguments = match arguments {
        // The bytes as they came: numbers keep their digits.
        Some(raw) if raw.get().trim_start().starts_with('[') => raw.get().as_bytes().to_vec(),
        Some(_) => return Err(Problem::invalid("arguments", "must be a JSON array")),
        None => return Err(missing("arguments")),
    };
    Ok(Either::Call(rpc::Call {
        contract: contract.ok_or_else(|| missing("contract"))?,
        function: function.ok_or_else(|| missing("function"))?,
        arguments,
    }))
}

impl SignedBody {
    fn into_proposal(self) -> Result<rpc::SignedProposal, Problem> {
        let path = self
            .signature
            .path
            .iter()
            .map(|hash| bytes("signed.signature.path", hash));
        let signature = Signature {
            certificate: bytes("signed.signature.certificate", &self.signature.certificate)?,
            size: self.signature.size,
            index: self.signature.index,
            path: path.collect::<Result<_, _>>()?,
            signature: bytes("signed.signature.signature", &self.signature.signature)?,
        };
        Ok(rpc::SignedProposal {
            proposal: bytes("signed.proposal", &self.proposal)?,
            signature: Some(signature),
            certificate: bytes("signed.certificate", &self.certificate)?,
            salt: bytes("signed.salt", &self.salt)?,
            arguments: bytes("signed.arguments", &self.arguments)?,
        })
    }
}

fn bytes(field: &str, text: &str) -> Result<Vec<u8>, Problem> {
    hex::decode(text).map_err(|_| Problem::invalid(field, "must be hexadecimal"))
}

/// The whole body, bounded in size and time.
pub(crate) async fn read(request: Request) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(
            Code::TooLarge,
            format!("a body has at most {REST_BODY_BYTES_MAX} bytes"),
        )
        .with_field("body")
    };
    is_meant(request.headers())?;
    // Said before it is sent, where the client says how much it will send.
    let length = request.headers().get(http::header::CONTENT_LENGTH);
    let length = length
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<usize>().ok());
    if length.is_some_and(|length| length > REST_BODY_BYTES_MAX) {
        return Err(too_large());
    }
    let reading = axum::body::to_bytes(request.into_body(), REST_BODY_BYTES_MAX);
    match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(Problem::invalid("body", "did not come in time")),
    }
}

/// A browser lends a person's certificate to whatever page asks it to send something here. A page of another origin
/// cannot send JSON unless it is allowed to, which it never is, and a browser of today says where a request comes from.
fn is_meant(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let kind = text("content-type").and_then(|kind| kind.split(';').next());
    if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Problem::invalid("Content-Type", "must be application/json"));
    }
    match text("sec-fetch-site") {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) => Err(Problem::denied("a page of another origin asked for this")),
    }
}

/// Strict JSON. A refusal names the field and the rule, and of values nothing.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Serde takes an array for a struct as well: fields without names.
    if bytes.trim_ascii_start().first().is_some_and(|first| *first == b'[') {
        return Err(Problem::invalid("body", "must be a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        // Only a refused body pays for finding out where.
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let path = match serde_path_to_error::deserialize::<_, T>(&mut json) {
            Err(error) => error.path().to_string(),
            Ok(_) => ".".to_owned(),
        };
        explain(&error, &path)
    })
}

fn explain(error: &serde_json::Error, path: &str) -> Problem {
    let message = error.to_string();
    let quoted = |prefix: &str| {
        let rest = message.strip_prefix(prefix)?;
        rest.split('`').next().map(|name| {
            name.chars()
                .filter(|c| !c.is_control())
                .take(NAME_CHARS_MAX)
                .collect::<String>()
        })
    };
    let within = |name: String| match path {
        "." | "" => name,
        path if path.ends_with(&name) => path.to_owned(),
        path => format!("{path}.{name}"),
    };
    if !error.is_data() {
        return Problem::invalid(
            "body",
            format!("is no JSON: line {}, column {}", error.line(), error.column()),
        );
    }
    if let Some(name) = quoted("unknown field `") {
        return Problem::invalid(within(name), "is unknown");
    }
    if let Some(name) = quoted("missing field `") {
        return Problem::invalid(within(name), "is missing");
    }
    if let Some(name) = quoted("duplicate field `") {
        return Problem::invalid(within(name), "stands there twice");
    }
    let field = if matches!(path, "." | "") { "body" } else { path };
    // Of serde's messages only the part that comes from the type: the rest may repeat a value.
    let rule = message
        .rsplit_once("expected ")
        .map_or("does not fit", |(_, rule)| rule);
    let rule = rule.split(" at line ").next().unwrap_or(rule);
    Problem::invalid(field, format!("must be {rule}"))
}
