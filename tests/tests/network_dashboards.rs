//! Every panel's query finds data: a real network under load and kills, scraped by a real Prometheus with the settings
//! that users get.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use medledger_cli::{
    calls,
    network::{Spec, layout::Kind, scrape::RULES, spec::RECORDS},
    report::sample,
};
use medledger_tests::{
    boards::{Query, boards, queries, substituted},
    network::{
        PATIENCE, World,
        load::{Load, Offer},
        scrape::Prometheus,
        small,
    },
};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was killed and came back is counted from zero, and is not missed by any board.
const KILLED: [&str; 3] = ["orderer0", "worker0.HospitalA", "peer0.HospitalA"];

fn spec() -> Spec {
    let mut spec = small();
    // So that reads and writes go on while one of them is away.
    spec.organisations[0].workers = 2;
    // Periods that close while the test waits, and are long enough for counts that are published.
    spec.reporting.set_periods(10, 1);
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_finds_data_on_a_network_under_load_and_kills() {
    let world = World::up(&spec()).await;
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(RULES);
    let prometheus = Prometheus::start(
        &world.network.description,
        rules.exists().then_some(rules).into_iter().collect(),
    )
    .await;
    let asked = world
        .network
        .description
        .processes
        .iter()
        .filter(|process| process.kind != Kind::Broker);
    let asked = asked.count();
    prometheus.reaches_all(asked).await;

    let peers = world.peers();
    let offer = Offer {
        at_once: 2,
        pause: Duration::from_millis(20),
        ..Offer::default()
    };
    let load = Load::start(&world, &peers, offer);
    load.goes_on(&peers, 20, "before anything is killed").await;
    for name in KILLED {
        world.kill(name).await;
        world.start(name).await;
        load.goes_on(&peers, 10, &format!("after {name} came back")).await;
    }
    prometheus.reaches_all(asked).await;
    for peer in &peers {
        let client = world.client(peer, "physician");
        client
            .evaluate(calls::list(RECORDS, None, None), PATIENCE)
            .await
            .expect("an answer");
    }
    load.stop().await;
    // Nothing comes after it, so that the newest closed period stays one in which much was stated.
    let encounters = sample::Load {
        contract: RECORDS.to_owned(),
        count: 900,
        over: Duration::from_secs(25),
        silent: 1,
        seed: 1,
    };
    sample::send(&world.network, &encounters).await.expect("the encounters");
    check(&prometheus, &world.network.description.channel).await;
    assert!(prometheus.alerts_loaded().await > 30, "the rules were loaded");
    world.check_logs(&[]);
}

/// Asks what each panel asks until it has an answer with a number, and each variable for its values.
async fn check(prometheus: &Prometheus, namespace: &str) {
    let all = boards();
    let mut open: Vec<Query> = all.iter().flat_map(queries).collect();
    assert!(open.len() > 100, "{} queries", open.len());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut without = Vec::new();
        for query in open {
            let expr = substituted(&query.expr, namespace, prometheus.age_s());
            if !prometheus.has_number(&expr, query.instant).await {
                without.push(query);
            }
        }
        open = without;
        if open.is_empty() {
            break;
        }
        let first: Vec<String> = open
            .iter()
            .map(|query| format!("{}: {}: {}", query.board, query.panel, query.expr))
            .collect();
        assert!(Instant::now() < deadline, "these find nothing: {first:#?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    variables(prometheus, &all, namespace).await;
}

async fn variables(prometheus: &Prometheus, boards: &[serde_json::Value], namespace: &str) {
    let mut seen = BTreeSet::new();
    for board in boards {
        for variable in board["templating"]["list"].as_array().expect("variables") {
            // label_values(SELECTOR, LABEL)
            let Some(query) = variable["query"]["query"].as_str() else {
                continue;
            };
            let inner = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'));
            let (selector, label) = inner
                .and_then(|inner| inner.rsplit_once(", "))
                .expect("a selector and a label");
            let values = prometheus
                .label_values(label, &substituted(selector, namespace, 1))
                .await;
            assert!(!values.is_empty(), "{query} has no values");
            seen.insert(label.to_owned());
        }
    }
    assert!(seen.contains("namespace") && seen.contains("organisation"), "{seen:?}");
}
