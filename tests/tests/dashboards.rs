//! The dashboards are what is written of them, every panel says what it shows, and asks for what exists.
//! `UPDATE=1` writes the JSON. Whether the queries find data: `network_dashboards.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use medledger_tests::boards::{
    Query, Selector, boards, by, dashboards, found, panels, queries, ranges, selectors, substituted,
};
use serde_json::Value;

/// What a value may be measured in; Grafana's words, or a suffix.
const UNITS: &[&str] = &[
    "none",
    "short",
    "s",
    "bytes",
    "Bps",
    "percentunit",
    "reqps",
    "dateTimeAsIso",
];
/// Labels of whatever is scraped: the chart's PodMonitor and `medledger network prometheus` give them.
const TARGET: &[&str] = &[
    "namespace",
    "pod",
    "container",
    "component",
    "organisation",
    "instance",
    "job",
];
/// Metrics that Prometheus and the library of metrics give by themselves.
const FOREIGN: &[&str] = &[
    "up",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

fn text<'a>(value: &'a Value, what: &str) -> &'a str {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| panic!("{what} is missing"))
}

fn metrics(expr: &str) -> Vec<Selector> {
    selectors(expr, &["medledger_", "process_", "up"])
        .into_iter()
        .filter(|selector| selector.metric != "up" || !selector.matchers.is_empty())
        .collect()
}

fn all_queries() -> Vec<Query> {
    let all: Vec<Query> = boards().iter().flat_map(queries).collect();
    assert!(all.len() > 100, "{} queries were read", all.len());
    all
}

#[test]
fn the_json_is_what_is_written() {
    let made = dashboards();
    if std::env::var_os("UPDATE").is_some() {
        for file in found().keys().filter(|file| !made.contains_key(*file)) {
            fs::remove_file(file).expect("an old dashboard is removed");
        }
        for (file, text) in &made {
            fs::write(file, text).expect("a dashboard is written");
        }
    }
    let found = found();
    assert_eq!(found.keys().collect::<Vec<_>>(), made.keys().collect::<Vec<_>>());
    for (file, text) in made {
        assert!(
            found[&file] == text,
            "{} is old; UPDATE=1 writes it anew",
            file.display()
        );
    }
}

#[test]
fn boards_and_panels_are_told_apart() {
    let (mut uids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for board in boards() {
        let uid = text(&board["uid"], "a uid").to_owned();
        let title = text(&board["title"], &uid);
        assert!(titles.insert(title.to_owned()), "two boards are called {title}");
        assert!(uid.len() <= 40, "Grafana cuts {uid}");
        text(&board["description"], &uid);
        let (mut ids, mut panel_titles) = (BTreeSet::new(), BTreeSet::new());
        for panel in board["panels"].as_array().expect("panels") {
            let title = text(&panel["title"], &uid);
            assert!(
                ids.insert(panel["id"].as_u64().expect("an id")),
                "{uid}: {title} has an id twice"
            );
            if panel["type"] == "row" {
                continue;
            }
            assert!(
                panel_titles.insert(title.to_owned()),
                "{uid}: two panels are called {title}"
            );
        }
        assert!(uids.insert(uid.clone()), "{uid} is there twice");
    }
    assert_eq!(uids.len(), 6);
}

#[test]
fn panels_lie_beside_each_other() {
    for board in boards() {
        let mut taken: BTreeMap<(u64, u64), &str> = BTreeMap::new();
        for panel in board["panels"].as_array().expect("panels") {
            let title = text(&panel["title"], "a title");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|at| panel["gridPos"][at].as_u64().expect("a place"));
            assert!(
                w > 0 && h > 0 && x + w <= 24,
                "{title} lies at {x}, {y} and is {w} wide"
            );
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                let other = taken.insert(cell, title);
                assert_eq!(other, None, "{title} lies on another panel");
            }
        }
    }
}

#[test]
fn every_panel_says_what_it_shows() {
    for board in boards() {
        let uid = &board["uid"];
        for panel in panels(&board) {
            let title = format!("{uid}: {}", text(&panel["title"], "a title"));
            let about = text(&panel["description"], &title);
            assert!(about.len() > 15 && about.ends_with('.'), "{title}: {about}");
            let defaults = &panel["fieldConfig"]["defaults"];
            let unit = text(&defaults["unit"], &title);
            let known = UNITS.contains(&unit) || unit.strip_prefix("suffix: ").is_some_and(|word| !word.is_empty());
            assert!(known, "{title}: nobody knows the unit {unit}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            let targets = panel["targets"].as_array().expect("targets");
            assert!(!targets.is_empty(), "{title} asks nothing");
            for target in targets {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
                assert_ne!(target["instant"], target["range"], "{title}");
            }
            let legends: BTreeSet<&str> = targets
                .iter()
                .filter_map(|target| target["legendFormat"].as_str())
                .collect();
            assert_eq!(
                legends.len(),
                targets.len(),
                "{title}: each query has a legend of its own"
            );
            let one_value = panel["type"] == "stat" && targets.len() == 1;
            assert!(one_value || !legends.contains(""), "{title}: a query has no legend");
        }
    }
}

/// A legend's labels are among those that the query keeps.
#[test]
fn legends_name_labels_that_are_there() {
    for Query {
        panel, expr, legend, ..
    } in all_queries()
    {
        let kept = by(&expr).unwrap_or_default();
        for label in legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
            assert!(kept.iter().any(|kept| kept == label), "{panel}: {legend} of {expr}");
        }
        // And what tells two lines apart is in their names.
        let named = |label: &String| label == "le" || legend.contains(&format!("{{{{{label}}}}}"));
        assert!(
            !legend.contains("{{") || kept.iter().all(named),
            "{panel}: {legend} of {expr}"
        );
    }
}

#[test]
fn variables_are_defined_and_used() {
    for board in boards() {
        let uid = &board["uid"];
        let variables = board["templating"]["list"].as_array().expect("variables");
        let asked: Vec<String> = queries(&board).into_iter().map(|query| query.expr).collect();
        let mut defined = BTreeSet::from(["datasource", "__rate_interval", "__range"]);
        for variable in variables {
            let name = text(&variable["name"], "a variable");
            text(&variable["label"], name);
            defined.insert(name);
            if name != "datasource" {
                assert_eq!(variable["datasource"]["uid"], "${datasource}", "{uid}: {name}");
                let used = asked.iter().any(|expr| expr.contains(&format!("${name}")));
                assert!(used, "{uid}: nobody uses {name}");
                let query = text(&variable["query"]["query"], name);
                assert!(query.starts_with("label_values(medledger_"), "{uid}: {query}");
            }
        }
        assert_eq!(variables[0]["name"], "datasource", "{uid}");
        for expr in asked {
            for rest in expr.split('$').skip(1) {
                let end = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(rest.len());
                assert!(
                    defined.contains(&rest[..end]),
                    "{uid}: {} is not defined: {expr}",
                    &rest[..end]
                );
            }
        }
    }
}

/// A range that is shorter than two scrapes finds nothing, a longer one hides what a zoom should show.
#[test]
fn rates_are_over_a_range_that_fits() {
    for Query {
        panel, expr, instant, ..
    } in all_queries()
    {
        for range in ranges(&expr) {
            let of_all_shown = instant && range == "$__range" && expr.contains("increase(");
            assert!(
                range == "$__rate_interval" || of_all_shown,
                "{panel}: [{range}] in {expr}"
            );
        }
        for Selector { metric, .. } in metrics(&expr) {
            if metric.ends_with("_total") || metric.ends_with("_count") || metric.ends_with("_sum") {
                let counted = ["rate(", "increase("]
                    .iter()
                    .any(|how| expr.contains(&format!("{how}{metric}")));
                assert!(counted, "{panel}: {metric} only counts up; {expr}");
            }
        }
    }
}

#[test]
fn every_selector_is_of_the_chosen_network() {
    for Query { panel, expr, .. } in all_queries() {
        let found = metrics(&expr);
        assert!(!found.is_empty(), "{panel} asks for nothing: {expr}");
        for selector in found {
            let of = |label: &str, value: &str| {
                let matchers = selector.matchers.iter().filter(|(name, ..)| name == label);
                matchers
                    .map(|(_, operator, found)| operator == "=~" && found == value)
                    .collect::<Vec<_>>()
            };
            assert_eq!(of("namespace", "$namespace"), [true], "{panel}: {selector:?}");
            let organisation = of("organisation", "$organisation");
            assert!(organisation.iter().all(|chosen| *chosen), "{panel}: {selector:?}");
        }
    }
}

/// Labels by metric, as `docs/metrics.md` has them.
fn declared() -> BTreeMap<String, BTreeSet<String>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = fs::read_to_string(page).expect("docs/metrics.md");
    // Below that labels are explained.
    let page = page.split("\n## Labels").next().unwrap_or_default();
    let mut declared = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, kind, labels, ..] = cells[..] else {
            continue;
        };
        let labels: BTreeSet<String> = labels
            .split(',')
            .map(|label| label.trim().trim_matches('`').to_owned())
            .filter(|label| !label.is_empty())
            .collect();
        let name = name.trim_matches('`');
        match kind {
            "histogram" => {
                for part in ["bucket", "sum", "count"] {
                    declared.insert(format!("{name}_{part}"), labels.clone());
                }
            }
            _ => {
                declared.insert(name.to_owned(), labels);
            }
        }
    }
    assert!(declared.len() > 50, "{} metrics were read", declared.len());
    declared
}

#[test]
fn the_boards_ask_for_metrics_and_labels_that_exist() {
    let declared = declared();
    for Query { panel, expr, .. } in all_queries() {
        let mut known: BTreeSet<&str> = TARGET.iter().copied().chain(["le"]).collect();
        for Selector { metric, matchers } in metrics(&expr) {
            if FOREIGN.contains(&metric.as_str()) {
                continue;
            }
            let labels = declared.get(&metric);
            let labels = labels.unwrap_or_else(|| panic!("{panel} asks for {metric}, which nobody declares"));
            for (label, ..) in &matchers {
                let has = labels.contains(label) || TARGET.contains(&label.as_str());
                assert!(has, "{panel}: {metric} has no {label}");
            }
            known.extend(labels.iter().map(String::as_str));
        }
        for label in by(&expr).unwrap_or_default() {
            assert!(
                known.contains(label.as_str()),
                "{panel}: no metric of it has {label}: {expr}"
            );
        }
    }
}

/// Every metric that is declared is on a board, or stands here.
#[test]
fn no_metric_is_shown_nowhere() {
    const NOWHERE: &[&str] = &[
        // A version is read where it is asked for, and fuel beside calls; the others are details of those that are shown.
        "medledger_build_info",
        "medledger_attester_signed_height",
        "medledger_log_append_in_flight_bytes",
        "medledger_orderer_in_flight_bytes",
        "medledger_report_periods_total",
        "medledger_serve_in_flight",
        "medledger_signer_batch_items_bucket",
        "medledger_worker_queue_bytes",
    ];
    let shown: BTreeSet<String> = all_queries()
        .iter()
        .flat_map(|query| metrics(&query.expr))
        .map(|found| found.metric)
        .collect();
    for metric in declared().keys() {
        let of_histogram = metric.ends_with("_sum") || metric.ends_with("_count");
        let of_process = metric.starts_with("process_");
        let left_out = NOWHERE.contains(&metric.as_str());
        assert!(
            shown.contains(metric) != left_out || of_histogram || of_process,
            "{metric}: either on a board or in this list"
        );
    }
}

/// promtool parses each query, as the rule that it could be.
#[test]
fn prometheus_understands_every_query() {
    let rules: Vec<Value> = all_queries()
        .iter()
        .map(|query| serde_json::json!({"record": "dashboards:query", "expr": substituted(&query.expr, "medical", 60)}))
        .collect();
    let count = rules.len();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let groups = serde_json::json!({"groups": [{"name": "dashboards", "rules": rules}]});
    fs::write(file.path(), groups.to_string()).expect("rules");
    let check = Command::new("promtool")
        .args(["check", "rules", "--lint=none"])
        .arg(file.path())
        .output();
    let check = check.expect("promtool runs; `make prepare` installs it with Prometheus");
    let said = [&check.stdout[..], &check.stderr[..]]
        .map(String::from_utf8_lossy)
        .concat();
    assert!(
        check.status.success() && said.contains(&format!("{count} rules found")),
        "{said}"
    );
}
