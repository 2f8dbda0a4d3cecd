//! Documents in, documents out, over the real router.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use futures::StreamExt as _;
use http::{Method, Request, Response, header};
use protocol::ledger::Kind;
use serde_json::{Value, json};
use service::Caller;
use tower::ServiceExt as _;

use super::sse::Place;
use super::*;
use crate::gateway::config::{Limits, Quotas};
use crate::gateway::testing::{Mood, Rig};
use crate::reporting::{Reports, event::Event};

async fn send(rig: &Rig, method: Method, path: &str, body: impl Into<Body>) -> Response<Body> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .body(body.into())
        .expect("a request");
    answer(rig, request).await
}

async fn answer(rig: &Rig, mut request: Request<Body>) -> Response<Body> {
    request.extensions_mut().insert(Arc::new(rig.caller()) as Arc<Caller>);
    routes(Arc::clone(&rig.gateway))
        .oneshot(request)
        .await
        .expect("a response")
}

async fn post(rig: &Rig, path: &str, body: &str) -> (u16, Value) {
    read(send(rig, Method::POST, path, body.to_owned()).await).await
}

#[tokio::test]
async fn a_page_of_another_origin_writes_in_nobodys_name() {
    let rig = Rig::new().await;
    let json = ("content-type", "application/json");
    for (headers, status) in [
        (vec![], 400),
        (vec![("content-type", "text/plain")], 400),
        (vec![json, ("sec-fetch-site", "cross-site")], 403),
        (vec![json, ("sec-fetch-site", "same-site")], 403),
        (vec![json, ("sec-fetch-site", "same-origin")], 200),
    ] {
        let mut request = Request::post("/v1/submit");
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(create("one"))).expect("a request");
        let answered = answer(&rig, request).await.status().as_u16();
        assert_eq!(answered, status, "{headers:?}");
    }
}

async fn fetch(rig: &Rig, path: &str) -> (u16, Value) {
    read(send(rig, Method::GET, path, Body::empty()).await).await
}

async fn read(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let kind = response.headers()[header::CONTENT_TYPE]
        .to_str()
        .expect("text")
        .to_owned();
    assert_eq!(kind == "application/problem+json", status >= 400, "{status} {kind}");
    let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    (status, serde_json::from_slice(&bytes).expect("JSON"))
}

fn create(subject: &str) -> String {
    json!({ "contract": "records", "function": "create", "arguments": [subject, "first"] }).to_string()
}

#[tokio::test]
async fn a_record_is_made_read_and_found() {
    let rig = Rig::new().await;
    let (status, done) = post(&rig, "/v1/submit", &create("one")).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(
        (&done["reached"], &done["code"], &done["response"]),
        (&json!("committed"), &json!("VALID"), &json!(true))
    );
    let tx_id = done["tx_id"].as_str().expect("a tx_id");
    let (status, found) = fetch(&rig, &format!("/v1/transactions/{tx_id}?wait=committed&timeout_ms=100")).await;
    assert_eq!(
        (status, &found["code"], &found["height"]),
        (200, &json!("VALID"), &done["height"])
    );
    let query = json!({ "contract": "records", "function": "read", "arguments": ["one"] }).to_string();
    let (status, answer) = post(&rig, "/v1/evaluate", &query).await;
    assert_eq!(status, 200);
    assert_eq!(answer["response_hex"], hex::encode("first"), "no JSON, so hexadecimal");
    let (status, block) = fetch(&rig, &format!("/v1/blocks/{}/newest", done["partition"])).await;
    assert_eq!((status, &block["transactions"][0]["tx_id"]), (200, &json!(tx_id)));
    let (_, network) = fetch(&rig, "/v1/network").await;
    assert_eq!(
        (&network["organisation"], network["chains"].as_array().map(Vec::len)),
        (&json!("HospitalA"), Some(3))
    );
    let (status, plan) = post(&rig, "/v1/prepare", &create("one")).await;
    assert_eq!((status, plan["partition_key"].as_str().map(str::len)), (200, Some(64)));
}

#[tokio::test]
async fn a_signed_proposal_in_hexadecimal() {
    let rig = Rig::new().await;
    let signed = rig.signed(("create", "one", r#"["one"]"#), Kind::Submit, |_| {});
    let signature = signed.signature.expect("signed");
    let body = json!({ "wait": "ordered", "signed": {
        "proposal": hex::encode(&signed.proposal), "certificate": hex::encode(&signed.certificate),
        "salt": hex::encode(&signed.salt), "arguments": hex::encode(&signed.arguments),
        "signature": { "certificate": hex::encode(&signature.certificate), "signature": hex::encode(&signature.signature) },
    }});
    let (status, done) = post(&rig, "/v1/submit", &body.to_string()).await;
    assert_eq!((status, &done["reached"]), (200, &json!("ordered")));
    assert_eq!(done["tx_id"], hex::encode(protocol::sha256(&signed.proposal)));
}

#[tokio::test]
async fn less_than_asked_for_is_202() {
    let rig = Rig::new().await;
    let body = r#"{"contract":"records","function":"create","arguments":["one"],"wait":"attested","timeout_ms":200}"#;
    let (status, done) = post(&rig, "/v1/submit", body).await;
    assert_eq!((status, &done["reached"]), (202, &json!("committed")));
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_named_and_never_repeated() {
    let rig = Rig::new().await;
    let cases = [
        (r#"{"contract":"#, "body"),
        (r#"[1]"#, "body"),
        (
            r#"{"contract":"records","function":"create","arguments":[],"surname":"Secret"}"#,
            "surname",
        ),
        (r#"{"contract":"records","function":"create"}"#, "arguments"),
        (r#"{"function":"create","arguments":[]}"#, "contract"),
        (r#"{"contract":"records","arguments":[]}"#, "function"),
        (
            r#"{"contract":"records","function":"create","arguments":"Secret"}"#,
            "arguments",
        ),
        (
            r#"{"contract":"records","function":"create","arguments":[],"timeout_ms":"Secret"}"#,
            "timeout_ms",
        ),
        (
            r#"{"contract":"records","function":"create","arguments":[],"wait":"Secret"}"#,
            "wait",
        ),
        (r#"{"contract":"records","contract":"Secret"}"#, "contract"),
        (r#"{"signed":{"proposal":"00"}}"#, "signed.signature"),
        (r#"{"signed":{"proposal":"00","surname":"Secret"}}"#, "signed.surname"),
    ];
    for (body, field) in cases {
        let (status, problem) = post(&rig, "/v1/submit", body).await;
        assert_eq!((status, &problem["field"]), (400, &json!(field)), "{body}: {problem}");
        assert!(!problem.to_string().contains("Secret"), "{problem}");
    }
}

#[tokio::test]
async fn refusals_are_documents_with_the_right_status() {
    let rig = Rig::new().await;
    post(&rig, "/v1/submit", &create("one")).await;
    let (status, problem) = post(&rig, "/v1/submit", &create("one")).await;
    assert_eq!(
        (status, &problem["code"], &problem["field"]),
        (422, &json!("contract_rejected"), &json!("subject"))
    );
    assert_eq!(problem["status"], json!(422));
    assert_eq!(problem["type"], json!("/problems/contract_rejected"));
    let large = " ".repeat(crate::gateway::config::REST_BODY_BYTES_MAX + 1);
    assert_eq!(post(&rig, "/v1/submit", &large).await.0, 413);
    assert_eq!(fetch(&rig, "/v1/nothing").await.0, 404);
    assert_eq!(fetch(&rig, "/v1/submit").await.0, 405);
    assert_eq!(fetch(&rig, "/v1/transactions/xyz").await.0, 400);
    assert_eq!(
        fetch(&rig, &format!("/v1/transactions/{}", "00".repeat(32))).await.0,
        404
    );
    assert_eq!(
        fetch(&rig, &format!("/v1/transactions/{}?wit=1", "00".repeat(32)))
            .await
            .0,
        400
    );
    assert_eq!(fetch(&rig, "/v1/blocks/0/99").await.0, 404);
    assert_eq!(fetch(&rig, "/v1/blocks/9/0").await.0, 404);
    assert_eq!(fetch(&rig, "/v1/blocks/x/0").await.0, 400);
    assert_eq!(fetch(&rig, "/v1/events?partition=7").await.0, 404);
    assert_eq!(fetch(&rig, "/v1/events?from=99").await.0, 400);
}

#[tokio::test]
async fn missing_organisations_are_named() {
    let rig = Rig::new().await;
    rig.b_seen.alive.store(false, std::sync::atomic::Ordering::Relaxed);
    let body = json!({ "contract": "records", "function": "both", "arguments": ["one"] }).to_string();
    let (status, problem) = post(&rig, "/v1/submit", &body).await;
    assert_eq!((status, &problem["missing"]), (503, &json!(["HospitalB"])));
}

#[tokio::test]
async fn an_unknown_outcome_is_504_with_its_tx_id() {
    let rig = Rig::new().await;
    rig.orderer.expect(&vec![Mood::LosesAll; 9]);
    let body = r#"{"contract":"records","function":"create","arguments":["one"],"timeout_ms":300}"#;
    let (status, problem) = post(&rig, "/v1/submit", body).await;
    assert_eq!((status, &problem["code"]), (504, &json!("unknown_outcome")));
    assert_eq!(problem["tx_id"].as_str().map(str::len), Some(64));
}

#[tokio::test]
async fn too_much_is_429_with_retry_after() {
    let quotas = Quotas {
        client_bytes_per_second: 1,
        client_burst_bytes: 1,
        ..Quotas::default()
    };
    let rig = Rig::with(Limits::default(), quotas).await;
    // Refused by its size before it is parsed: it is no JSON at all.
    let garbage = "x".repeat(200_000);
    assert_eq!(post(&rig, "/v1/submit", &garbage).await.0, 400);
    let response = send(&rig, Method::POST, "/v1/submit", garbage).await;
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    let (status, problem) = read(response).await;
    assert_eq!((status, &problem["code"]), (429, &json!("resource_exhausted")));
}

/// The first `count` events.
async fn events(rig: &Rig, path: &str, last: Option<&str>, count: usize) -> Vec<(String, Value)> {
    let mut request = Request::builder().uri(path);
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    let mut request = request.body(Body::empty()).expect("a request");
    request.extensions_mut().insert(Arc::new(rig.caller()) as Arc<Caller>);
    let response = routes(Arc::clone(&rig.gateway))
        .oneshot(request)
        .await
        .expect("a response");
    assert_eq!(response.status(), 200);
    let mut stream = response.into_body().into_data_stream();
    let mut text = String::new();
    while text.matches("\n\n").count() < count {
        let piece = tokio::time::timeout(Duration::from_secs(5), stream.next())
            .await
            .expect("in time");
        text.push_str(std::str::from_utf8(&piece.expect("more").expect("no error")).expect("text"));
    }
    let field = |event: &str, name: &str| {
        event
            .lines()
            .find_map(|line| line.strip_prefix(name).map(|rest| rest.trim().to_owned()))
            .expect("a field")
    };
    let events = text.split("\n\n").filter(|event| !event.is_empty());
    events
        .map(|event| {
            (
                field(event, "id:"),
                serde_json::from_str(&field(event, "data:")).expect("JSON"),
            )
        })
        .collect()
}

#[tokio::test]
async fn events_come_in_order_and_resume_after_the_last_one_seen() {
    let rig = Rig::new().await;
    let mut partitions = std::collections::BTreeMap::<u64, u64>::new();
    let mut last = 0;
    for i in 0..8 {
        let (_, done) = post(&rig, "/v1/submit", &create(&format!("p{i}"))).await;
        last = done["partition"].as_u64().expect("a partition");
        *partitions.entry(last).or_default() += 1;
    }
    let count = partitions[&last] as usize;
    let all = events(&rig, &format!("/v1/events?partition={last}&from=0"), None, count).await;
    assert_eq!(all.len(), count);
    assert!(
        all.iter()
            .all(|(_, event)| event["type"] == json!("created") && event["payload"] == json!({}))
    );
    let path = format!("/v1/events?partition={last}&contract=records");
    let rest = events(&rig, &path, Some(&all[0].0), count - 1).await;
    assert_eq!(rest, all[1..]);
}

#[test]
fn a_place_leads_back() {
    let place = Place(7, 3, 1);
    assert_eq!(Place::parse(&place.to_string()), Some(place));
    for bad in ["", "1", "1.2", "1.2.3.4", "a.b.c", "-1.0.0"] {
        assert_eq!(Place::parse(bad), None, "{bad}");
    }
}

#[tokio::test]
async fn the_document_lists_every_route() {
    let rig = Rig::new().await;
    let (status, document) = fetch(&rig, "/openapi.json").await;
    assert_eq!(status, 200);
    let listed: Vec<(&String, Vec<&String>)> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .map(|(path, methods)| (path, methods.as_object().expect("methods").keys().collect()))
        .collect();
    let routes = [
        ("/v1/blocks/{partition}/{height}", "get"),
        ("/v1/evaluate", "post"),
        ("/v1/events", "get"),
        ("/v1/network", "get"),
        ("/v1/prepare", "post"),
        ("/v1/reports", "get"),
        ("/v1/reports/{period}", "get"),
        ("/v1/submit", "post"),
        ("/v1/transactions/{tx_id}", "get"),
    ];
    assert_eq!(listed.len(), routes.len());
    for ((path, methods), (known, method)) in listed.into_iter().zip(routes) {
        assert_eq!((path.as_str(), methods), (known, vec![&method.to_owned()]));
    }
    // The source of the router and the document cannot drift apart unseen.
    let source = include_str!("../rest.rs");
    let routed = source.matches(".route(").count();
    assert_eq!(
        routed,
        routes.len() + 2,
        "all but /openapi.json and the catch-all are in the document"
    );
}

/// A peer that reports, with one period published: 12 people treated.
async fn reporting() -> Rig {
    let facilities = json!([{ "name": "A-1", "area": "NORTH" }]);
    let config = json!({ "period_s": 100, "grace_s": 0, "threshold": 10, "facilities": facilities });
    let config = serde_json::from_value(config).expect("settings");
    let directory = tempfile::tempdir().expect("a directory");
    let reports = Reports::open(&config, 1, &directory.path().join("reporting.json"));
    let reports = Arc::new(reports.expect("the contract's codes"));
    let encounter = json!({
        "codes": "who-emt-mds-1", "facility": "A-1", "area": "NORTH", "triage": "green", "items": ["9"],
        "age": "18-64", "sex": "male",
    });
    let event = Event::read("encounter.added", encounter.to_string().as_bytes()).expect("an event");
    reports.apply(0, 1_000_000, &vec![event; 12]).expect("counted");
    reports.apply(0, 1_100_000, &[]).expect("published");
    Rig::reporting(Limits::default(), Quotas::default(), Some(reports)).await
}

/// As a client whose certificate says so of his work.
async fn fetch_as(rig: &Rig, work: &str, path: &str) -> Response<Body> {
    let mut certificate = rig.net.identity("HospitalA", "client0").certificate.clone();
    let work = ("practitioner_role".to_owned(), work.to_owned());
    certificate.attributes.extend([work]);
    let mut request = Request::get(path).body(Body::empty()).expect("a request");
    request.extensions_mut().insert(Arc::new(Caller::new(certificate)));
    let answered = routes(Arc::clone(&rig.gateway)).oneshot(request).await;
    answered.expect("a response")
}

#[tokio::test]
async fn reports_are_for_who_reports() {
    let rig = reporting().await;
    let (status, periods) = read(fetch_as(&rig, "reporting_officer", "/v1/reports").await).await;
    let period = json!({
        "period": 1000, "start_s": 1000, "end_s": 1100, "facilities_expected": 1, "facilities_reported": 0,
    });
    assert_eq!((status, periods), (200, json!([period])));
    for path in ["/v1/reports/1000", "/v1/reports/newest", "/v1/reports/1000?format=json"] {
        let (status, report) = read(fetch_as(&rig, "reporting_officer", path).await).await;
        assert_eq!((status, &report["areas"][0]["treated"]), (200, &json!(12)), "{path}");
    }
    let table = fetch_as(&rig, "reporting_officer", "/v1/reports/1000?format=csv").await;
    assert_eq!(table.headers()[header::CONTENT_TYPE], "text/csv; charset=utf-8");
    let table = to_bytes(table.into_body(), usize::MAX).await.expect("a body");
    let table = String::from_utf8(table.to_vec()).expect("text");
    assert!(table.contains("\n1000,1100,treated,NORTH,A-1,,,,,12\n"), "{table}");

    for (work, path, status, field) in [
        ("physician", "/v1/reports", 403, json!(null)),
        ("physician", "/v1/reports/1000", 403, json!(null)),
        ("reporting_officer", "/v1/reports/1100", 404, json!("period")),
        ("reporting_officer", "/v1/reports/today", 400, json!("period")),
        ("reporting_officer", "/v1/reports/1000?format=xml", 400, json!("query")),
    ] {
        let (answered, problem) = read(fetch_as(&rig, work, path).await).await;
        assert_eq!(
            (answered, &problem["field"]),
            (status, &field),
            "{work} {path}: {problem}"
        );
    }
    let others = Rig::new().await;
    let (status, _) = read(fetch_as(&others, "reporting_officer", "/v1/reports").await).await;
    assert_eq!(status, 404, "this peer does not report");
}
