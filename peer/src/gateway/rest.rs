//! The verbs as REST and JSON, for people, scripts and browsers with a client certificate.
//!
//! | | |
//! |---|---|
//! | `POST /v1/submit` | a call, or a signed proposal; waits for `ordered`, `committed` or `attested` |
//! | `POST /v1/evaluate` | a query |
//! | `POST /v1/prepare` | what a client needs to sign |
//! | `GET /v1/transactions/{tx_id}` | what became of it |
//! | `GET /v1/events` | server-sent events; `Last-Event-ID` resumes |
//! | `GET /v1/blocks/{partition}/{height}` | a committed block |
//! | `GET /v1/network` | who and how high |
//! | `GET /v1/reports`, `GET /v1/reports/{period}` | published periods |
//! | `GET /openapi.json` | this, for machines |
//!
//! Refusals are RFC 9457 documents. Who a request is about stands only ever in bodies: URLs end up in logs.

pub(crate) mod body;
pub(crate) mod reply;
pub(crate) mod reports;
pub(crate) mod sse;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::{Extension, Path, Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use protocol::{CONTROL, hash};
use serde::Deserialize;
use service::rpc::{self, Finality};
use service::{Caller, Code, Problem};

use super::Gateway;
use super::network::NETWORK_BYTES;
use body::{CallBody, SubmitBody, Wait};
use reply::{BlockDocument, EvaluateDocument, NetworkDocument, PlanDocument, StatusDocument, SubmitDocument};

type Shared = State<Arc<Gateway>>;
type Known = Extension<Arc<Caller>>;

pub(super) fn routes(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/v1/submit", post(submit))
        .route("/v1/evaluate", post(evaluate))
        .route("/v1/prepare", post(prepare))
        .route("/v1/transactions/{tx_id}", get(transaction))
        .route("/v1/events", get(sse::events))
        .route("/v1/blocks/{partition}/{height}", get(block))
        .route("/v1/network", get(network))
        .route("/v1/reports", get(reports::list))
        .route("/v1/reports/{period}", get(reports::show))
        .route("/openapi.json", get(async || Json(super::openapi::document())))
        .route(
            "/v1/{*unknown}",
            axum::routing::any(async || Problem::new(Code::NotFound, "no such path")),
        )
        .method_not_allowed_fallback(async || reply::MethodNotAllowed)
        .with_state(gateway)
}

/// Submits a transaction and waits for the finality asked for.
#[utoipa::path(
    post, path = "/v1/submit", request_body = SubmitBody,
    responses(
        (status = 200, description = "The finality asked for is reached", body = SubmitDocument),
        (status = 202, description = "Less than asked for is reached so far", body = SubmitDocument),
        (status = "4XX", description = "Refused", body = reply::ProblemDocument),
        (status = 429, description = "Too much at once; Retry-After says when to come back", body = reply::ProblemDocument),
        (status = 503, description = "Somebody who is needed is away", body = reply::ProblemDocument),
        (status = 504, description = "The outcome is not known: ask with the tx_id", body = reply::ProblemDocument),
    )
)]
pub(crate) async fn submit(State(gateway): Shared, Extension(caller): Known, request: Request) -> Response {
    let bytes = match body::read(request).await {
        Ok(bytes) => bytes,
        Err(problem) => return problem.into_response(),
    };
    // Quota and gate before a byte of it is parsed.
    let place = match gateway.admit("submit", &caller, bytes.len()) {
        Ok(place) => place,
        Err(problem) => return problem.into_response(),
    };
    let request = match body::parse::<SubmitBody>(&bytes).and_then(SubmitBody::into_request) {
        Ok(request) => request,
        Err(problem) => return problem.into_response(),
    };
    let asked = request.wait();
    let reply = gateway.submitted(request, &caller, place).await;
    match reply.outcome {
        Some(rpc::submit_reply::Outcome::Submission(submission)) => {
            let reached = submission.reached();
            let status = if reached as i32 >= asked as i32 {
                StatusCode::OK
            } else {
                StatusCode::ACCEPTED
            };
            (status, Json(SubmitDocument::new(&reply.tx_id, submission))).into_response()
        }
        Some(rpc::submit_reply::Outcome::Problem(problem)) => reply::problem(problem.into(), &reply.tx_id),
        None => Problem::internal("a submit without outcome").into_response(),
    }
}

/// Asks a question of the newest state here.
#[utoipa::path(
    post, path = "/v1/evaluate", request_body = CallBody,
    responses(
        (status = 200, description = "The contract's answer", body = EvaluateDocument),
        (status = "4XX", description = "Refused", body = reply::ProblemDocument),
        (status = "5XX", description = "Not answered", body = reply::ProblemDocument),
    )
)]
pub(crate) async fn evaluate(State(gateway): Shared, Extension(caller): Known, request: Request) -> Response {
    let answered = async {
        let bytes = body::read(request).await?;
        let place = gateway.admit("evaluate", &caller, bytes.len())?;
        let intent = body::parse::<CallBody>(&bytes)?.into_evaluate()?;
        gateway.evaluated(Some(intent), &caller, place).await
    };
    match answered.await {
        Ok(response) => Json(EvaluateDocument::new(response)).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// What a client needs to sign a proposal itself.
#[utoipa::path(
    post, path = "/v1/prepare", request_body = CallBody,
    responses(
        (status = 200, description = "Partition key, digest and heights", body = PlanDocument),
        (status = "4XX", description = "Refused", body = reply::ProblemDocument),
        (status = "5XX", description = "Not answered", body = reply::ProblemDocument),
    )
)]
pub(crate) async fn prepare(State(gateway): Shared, Extension(caller): Known, request: Request) -> Response {
    let prepared = async {
        let bytes = body::read(request).await?;
        let _place = gateway.admit("prepare", &caller, bytes.len())?;
        let call = body::parse::<CallBody>(&bytes)?.into_call()?;
        gateway.prepared(Some(call), &caller).await
    };
    match prepared.await {
        Ok(plan) => Json(PlanDocument::from(plan)).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// How long to wait for a transaction, and for what.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitQuery {
    /// Nothing: the answer comes at once.
    wait: Option<Wait>,
    timeout_ms: Option<u32>,
}

/// What became of a transaction.
#[utoipa::path(
    get, path = "/v1/transactions/{tx_id}",
    params(("tx_id" = String, Path, description = "64 hexadecimal digits"), WaitQuery),
    responses(
        (status = 200, description = "Judged here", body = StatusDocument),
        (status = 404, description = "Not judged here yet", body = reply::ProblemDocument),
        (status = "4XX", description = "Refused", body = reply::ProblemDocument),
    )
)]
pub(crate) async fn transaction(
    State(gateway): Shared,
    Extension(caller): Known,
    Path(tx_id): Path<String>,
    query: Result<Query<WaitQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let found = async {
        let Query(query) = query.map_err(|_| bad_query("wait, timeout_ms"))?;
        let id = hex::decode(&tx_id).ok().and_then(|bytes| hash::digest(&bytes));
        let id = id.ok_or_else(|| Problem::invalid("tx_id", "must be 64 hexadecimal digits"))?;
        let _place = gateway.admit("status", &caller, tx_id.len())?;
        let wait = query.wait.map_or(Finality::Unspecified, Finality::from);
        let timeout_ms = query.timeout_ms.unwrap_or(0);
        let request = rpc::StatusRequest {
            id: 0,
            tx_id: id.to_vec(),
            wait: wait.into(),
            timeout_ms,
        };
        let status = gateway.status_of(request).await?;
        if status.found {
            Ok(status)
        } else {
            Err(Problem::new(Code::NotFound, "not judged here yet").with_field("tx_id"))
        }
    };
    match found.await {
        Ok(status) => Json(StatusDocument::new(tx_id, status)).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// A committed block as it was judged here.
#[utoipa::path(
    get, path = "/v1/blocks/{partition}/{height}",
    params(
        ("partition" = String, Path, description = "a number, or `control`"),
        ("height" = String, Path, description = "a number, or `newest`"),
    ),
    responses(
        (status = 200, description = "The block", body = BlockDocument),
        (status = 404, description = "Not committed here", body = reply::ProblemDocument),
    )
)]
pub(crate) async fn block(
    State(gateway): Shared,
    Extension(caller): Known,
    Path((partition, height)): Path<(String, String)>,
) -> Response {
    let found = || {
        let _place = gateway.admit("blocks", &caller, 0)?;
        let partition = match partition.as_str() {
            "control" => CONTROL,
            number => number
                .parse()
                .map_err(|_| Problem::invalid("partition", "must be a number, or control"))?,
        };
        let height = match height.as_str() {
            "newest" => gateway.ledger.tip(partition).map_or(0, |tip| tip.height),
            number => number
                .parse()
                .map_err(|_| Problem::invalid("height", "must be a number, or newest"))?,
        };
        gateway.block(partition, height)
    };
    match found() {
        Ok(block) => Json(BlockDocument::from(block)).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// Who this peer is, how high its chains are, and which other peers answer.
#[utoipa::path(
    get, path = "/v1/network",
    responses((status = 200, description = "The network as this peer sees it", body = NetworkDocument))
)]
pub(crate) async fn network(State(gateway): Shared, Extension(caller): Known) -> Response {
    match gateway.admit("network", &caller, NETWORK_BYTES) {
        Ok(_place) => Json(NetworkDocument::from(gateway.network())).into_response(),
        Err(problem) => problem.into_response(),
    }
}

pub(crate) fn bad_query(known: &str) -> Problem {
    Problem::invalid(
        "query",
        format!("has a parameter that is unknown or malformed; there are {known}"),
    )
}
