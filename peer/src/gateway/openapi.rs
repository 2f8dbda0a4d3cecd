//! The REST interface for machines.

use utoipa::OpenApi;

use super::rest::{self, body, reply, reports, sse};
use crate::reporting::report;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Medledger gateway",
        description = "Medical records on a permissioned ledger. Every request needs a client certificate of the \
                       peer's own organisation. Refusals are RFC 9457 documents.",
    ),
    paths(
        rest::submit,
        rest::evaluate,
        rest::prepare,
        rest::transaction,
        sse::events,
        rest::block,
        rest::network,
        reports::list,
        reports::show,
    ),
    components(schemas(
        body::SubmitBody,
        body::CallBody,
        body::SignedBody,
        body::SignatureBody,
        body::Wait,
        reply::SubmitDocument,
        reply::EvaluateDocument,
        reply::ResponseDocument,
        reply::PlanDocument,
        reply::StatusDocument,
        reply::BlockDocument,
        reply::BlockTxDocument,
        reply::NetworkDocument,
        reply::ChainDocument,
        reply::PeerDocument,
        reply::ProblemDocument,
        sse::EventDocument,
        reports::PeriodDocument,
        report::Report,
        report::AreaReport,
        report::FacilityReport,
        report::Alert,
    ))
)]
struct Api;

pub fn document() -> utoipa::openapi::OpenApi {
    Api::openapi()
}
