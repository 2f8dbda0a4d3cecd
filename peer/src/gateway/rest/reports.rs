//! Published periods, for who reports for the organisation.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use http::header;
use serde::{Deserialize, Serialize};
use service::{Caller, Code, Problem};
use utoipa::ToSchema;

use super::{Known, Shared, bad_query, reply};
use crate::gateway::Gateway;
use crate::reporting::{Reports, csv, report::Report};

/// What asking is charged with.
const LIST_BYTES: usize = 16 * 1024;
const REPORT_BYTES: usize = 64 * 1024;

/// The attribute of the certificate, and what it must say.
const ATTRIBUTE: &str = "practitioner_role";
const OFFICER: &str = "reporting_officer";

/// A published period in the list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PeriodDocument {
    /// Its name in `/v1/reports/{period}`.
    pub period: u64,
    /// Unix seconds.
    pub start_s: u64,
    pub end_s: u64,
    pub facilities_expected: u64,
    pub facilities_reported: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[default]
    Json,
    Csv,
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FormatQuery {
    /// `json` if it is absent.
    format: Option<Format>,
}

/// Published periods, oldest first. For clients and admins with the attribute `practitioner_role = reporting_officer`.
#[utoipa::path(
    get, path = "/v1/reports",
    responses(
        (status = 200, description = "The periods that are kept", body = [PeriodDocument]),
        (status = 403, description = "The certificate does not say reporting_officer", body = reply::ProblemDocument),
        (status = 404, description = "This peer does not report", body = reply::ProblemDocument),
    )
)]
pub(crate) async fn list(State(gateway): Shared, Extension(caller): Known) -> Response {
    let listed = || {
        let _place = gateway.admit("reports", &caller, LIST_BYTES)?;
        let reports = allowed(&gateway, &caller)?.list();
        Ok::<_, Problem>(
            reports
                .iter()
                .map(|report| PeriodDocument::from(&**report))
                .collect::<Vec<_>>(),
        )
    };
    match listed() {
        Ok(periods) => Json(periods).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// All that is published of a period, as JSON or CSV. For those who may list them.
#[utoipa::path(
    get, path = "/v1/reports/{period}",
    params(("period" = String, Path, description = "of the list, or `newest`"), FormatQuery),
    responses(
        (status = 200, description = "The report; of `format=csv` one row a number", body = Report),
        (status = 403, description = "The certificate does not say reporting_officer", body = reply::ProblemDocument),
        (status = 404, description = "No such period, or this peer does not report", body = reply::ProblemDocument),
    )
)]
pub(crate) async fn show(
    State(gateway): Shared,
    Extension(caller): Known,
    Path(period): Path<String>,
    query: Result<Query<FormatQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let found = || {
        let Query(query) = query.map_err(|_| bad_query("format"))?;
        let _place = gateway.admit("reports", &caller, REPORT_BYTES)?;
        let reports = allowed(&gateway, &caller)?;
        let report = match period.as_str() {
            "newest" => reports.list().pop(),
            period => {
                let period = period.parse();
                let period =
                    period.map_err(|_| Problem::invalid("period", "must be a number of the list, or newest"))?;
                reports.get(period)
            }
        };
        let report = report.ok_or_else(|| Problem::new(Code::NotFound, "not published here").with_field("period"))?;
        Ok::<_, Problem>((report, query.format.unwrap_or_default()))
    };
    match found() {
        Ok((report, Format::Json)) => Json(&*report).into_response(),
        Ok((report, Format::Csv)) => {
            let kind = [(header::CONTENT_TYPE, "text/csv; charset=utf-8")];
            (kind, csv::of(&report)).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

/// That the caller is of the organisation, and a client or an admin, is seen to before.
fn allowed<'g>(gateway: &'g Gateway, caller: &Caller) -> Result<&'g Arc<Reports>, Problem> {
    if caller.attributes.get(ATTRIBUTE).is_none_or(|role| role != OFFICER) {
        return Err(Problem::denied(
            "practitioner_role of the certificate must be reporting_officer",
        ));
    }
    let reports = gateway.reports.as_ref();
    reports.ok_or_else(|| Problem::new(Code::NotFound, "this peer does not report"))
}

impl From<&Report> for PeriodDocument {
    fn from(report: &Report) -> Self {
        PeriodDocument {
            period: report.period,
            start_s: report.start_s,
            end_s: report.end_s,
            facilities_expected: report.facilities_expected,
            facilities_reported: report.facilities_reported,
        }
    }
}
