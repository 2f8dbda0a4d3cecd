//! What the chart gives to whoever watches: boards, alerts, and the labels by which both find the processes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    helm::{chart, files, list, name, of_kind, read, root, text, texts},
    pods::{Pod, selects},
    rendered_with,
};

/// The mode in which all of it is switched on, and labels are given to what Prometheus' operator selects.
const WATCHED: &str = "ci/everything.yaml";

/// The one object of its kind, which the operator selects.
fn selected<'a>(objects: &'a [Value], kind: &'a str) -> &'a Value {
    let found: Vec<&Value> = of_kind(objects, kind).collect();
    assert_eq!(found.len(), 1, "one {kind}");
    assert_eq!(text(found[0], "/metadata/labels/release"), "prometheus", "{kind}");
    found[0]
}

#[test]
fn grafana_gets_every_board_as_it_is() {
    let Some(objects) = rendered_with(WATCHED) else { return };
    // What Grafana's sidecar looks for.
    let is_board = |map: &&Value| text(map, "/metadata/labels/grafana_dashboard") == "1";
    let maps: Vec<&Value> = of_kind(&objects, "ConfigMap").filter(is_board).collect();
    let given: BTreeMap<String, String> = maps.iter().flat_map(|map| texts(map, "/data")).collect();
    let mut written = BTreeMap::new();
    for path in files(&root().join("grafana/dashboards"), ".json") {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        written.insert(file, std::fs::read_to_string(&path).unwrap());
    }
    assert_eq!((maps.len(), written.len()), (6, 6));
    assert!(given.keys().eq(written.keys()), "{:?}", given.keys());
    for (file, board) in &written {
        assert!(given[file] == *board, "{file} is another one in the chart");
    }
}

#[test]
fn prometheus_gets_every_alert_as_it_is() {
    let Some(objects) = rendered_with(WATCHED) else { return };
    let rule = selected(&objects, "PrometheusRule");
    let written = &read(&chart().join("rules/medledger.yaml"))[0];
    let groups = list(written, "/groups");
    let alerts = groups.iter().flat_map(|group| list(group, "/rules"));
    let count = alerts.filter(|alert| !text(alert, "/alert").is_empty()).count();
    assert!(count > 30, "{count} alerts were read");
    let given = list(rule, "/spec/groups");
    for group in groups {
        let found = given.iter().find(|given| given["name"] == group["name"]);
        assert_eq!(found, Some(group));
    }
    assert_eq!(given.len(), groups.len());
}

#[test]
fn prometheus_finds_every_process_and_what_boards_call_it() {
    /// A pod's label, and what it is in the boards. `namespace`, `pod` and `container` are given by the operator.
    const LABELS: [(&str, &str); 2] = [
        ("app.kubernetes.io/component", "component"),
        ("medledger.io/organisation", "organisation"),
    ];
    let Some(objects) = rendered_with(WATCHED) else { return };
    let monitor = selected(&objects, "PodMonitor");
    let [endpoint] = list(monitor, "/spec/podMetricsEndpoints") else {
        panic!("one port is asked: {monitor}");
    };
    assert_eq!(
        (text(endpoint, "/port"), text(endpoint, "/path")),
        ("health", "/metrics")
    );
    for (label, target) in LABELS {
        let source = label.replace(['.', '/'], "_");
        let relabeling =
            json!({"sourceLabels": [format!("__meta_kubernetes_pod_label_{source}")], "targetLabel": target});
        let found = list(endpoint, "/relabelings").contains(&relabeling);
        assert!(found, "nobody says {target}: {endpoint}");
    }
    let selector = texts(monitor, "/spec/selector/matchLabels");
    let mut found = BTreeSet::new();
    for pod in objects.iter().filter_map(Pod::of).filter(Pod::stays) {
        if ["kafka", "tools"].contains(&pod.component().as_str()) {
            continue;
        }
        let (of, labels) = (name(pod.object), pod.labels());
        assert!(selects(&selector, &labels), "{of} is not asked");
        let is_health = |port: &Value| port["name"] == "health" && port["containerPort"].is_u64();
        let answers = pod
            .containers()
            .any(|container| list(container, "/ports").iter().any(is_health));
        assert!(answers, "{of} has no port of that name");
        for (label, _) in LABELS {
            assert!(
                labels.get(label).is_some_and(|value| !value.is_empty()),
                "{of}: {label}"
            );
        }
        found.insert(pod.component());
    }
    assert_eq!(found, ["orderer", "peer", "worker"].map(String::from).into());
}
