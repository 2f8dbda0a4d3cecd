//! Events as server-sent events. The id is height.index.number; a client that comes back with it in
//! `Last-Event-ID` (browsers do by themselves) goes on with the next one.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Extension, Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use service::{Caller, Problem, rpc};
use utoipa::{IntoParams, ToSchema};

use super::{bad_query, reply};
use crate::gateway::Gateway;
use crate::gateway::events::Numbered;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// 0 if absent.
    #[serde(default)]
    partition: u32,
    /// The first height; absent: from now on.
    from: Option<u64>,
    /// Only of this contract.
    contract: Option<String>,
}

/// The `data` of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventDocument {
    partition: u32,
    height: u64,
    index: u32,
    tx_id: String,
    contract: String,
    r#type: String,
    /// As JSON, if it is some.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

/// Events of VALID transactions, as they are committed here.
#[utoipa::path(
    get, path = "/v1/events",
    params(EventsQuery, ("Last-Event-ID" = Option<String>, Header, description = "resumes after this event")),
    responses(
        (status = 200, description = "A stream of events, each with an EventDocument as data",
         content_type = "text/event-stream", body = EventDocument),
        (status = "4XX", description = "Refused", body = reply::ProblemDocument),
    )
)]
pub(crate) async fn events(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Arc<Caller>>,
    headers: HeaderMap,
    query: Result<Query<EventsQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let opened = async {
        let Query(query) = query.map_err(|_| bad_query("partition, from, contract"))?;
        let last = match headers.get("last-event-id") {
            Some(id) => Some(id.to_str().ok().and_then(Place::parse).ok_or_else(bad_id)?),
            None => None,
        };
        let newest = gateway.ledger.tip(query.partition).map_or(0, |tip| tip.height + 1);
        let from_height = last.as_ref().map(|place| place.0).or(query.from).unwrap_or(newest);
        let contract = query.contract.unwrap_or_default();
        let request = rpc::EventsRequest {
            partition: query.partition,
            from_height,
            contract,
        };
        Ok::<_, Problem>((gateway.events(request, &caller).await?, last))
    };
    let (events, last) = match opened.await {
        Ok(opened) => opened,
        Err(problem) => return problem.into_response(),
    };
    let unseen = events.filter(move |event| {
        let seen = matches!((event, &last), (Ok(event), Some(last)) if Place::of(event) <= *last);
        std::future::ready(!seen)
    });
    let end = gateway.tasks.token().clone().cancelled_owned();
    let stream = unseen.map(|event| Ok::<_, Infallible>(encode(event))).take_until(end);
    Sse::new(stream).keep_alive(KeepAlive::default()).into_response()
}

fn encode(event: Result<Numbered, Problem>) -> Event {
    let encoded = match event {
        Ok(event) => {
            let id = Place::of(&event).to_string();
            Event::default().id(id).json_data(EventDocument::from(event.0))
        }
        // The last word of a stream that cannot go on.
        Err(problem) => Event::default().event("problem").json_data(problem.document()),
    };
    encoded.unwrap_or_else(|_| Event::default().comment("an event that is no JSON"))
}

impl From<rpc::EventsReply> for EventDocument {
    fn from(event: rpc::EventsReply) -> Self {
        let json = std::str::from_utf8(&event.payload)
            .ok()
            .and_then(|text| RawValue::from_string(text.to_owned()).ok());
        let payload_hex = (json.is_none() && !event.payload.is_empty()).then(|| hex::encode(&event.payload));
        EventDocument {
            partition: event.partition,
            height: event.height,
            index: event.index,
            tx_id: hex::encode(event.tx_id),
            contract: event.contract,
            r#type: event.r#type,
            payload: json,
            payload_hex,
        }
    }
}

/// Height, index, number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(pub u64, pub u32, pub u32);

impl Place {
    fn of((event, number): &Numbered) -> Self {
        Place(event.height, event.index, *number)
    }

    pub(super) fn parse(id: &str) -> Option<Self> {
        let mut parts = id.split('.');
        let place = Place(
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
        );
        parts.next().is_none().then_some(place)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

fn bad_id() -> Problem {
    Problem::invalid("Last-Event-ID", "is not the id of an event of this stream")
}
