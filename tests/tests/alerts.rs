//! The alert rules: Prometheus takes them, each fires when it should and not otherwise, asks only for metrics that exist,
//! and has a page that says what to do.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use medledger_tests::metrics::sections;
use metric::Kind;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rules() -> PathBuf {
    root().join("helm/medledger/rules/medledger.yaml")
}

/// The cases, a file for each group.
fn cases() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("helm/medledger/rules/tests")).expect("the folder of the rules' tests");
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() > 5, "{files:?}");
    files
}

fn promtool(arguments: &[&str], files: &[PathBuf]) -> Output {
    let run = Command::new("promtool").args(arguments).args(files).output();
    run.expect("promtool runs; `make prepare` installs it with Prometheus")
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]]
        .map(String::from_utf8_lossy)
        .concat()
}

struct Alert {
    name: String,
    expr: String,
    /// Everything else that is said of it.
    rest: String,
}

/// Their file is written in one way, so that no YAML parser is needed to read it.
fn alerts() -> Vec<Alert> {
    let text = fs::read_to_string(rules()).expect("the rules");
    let alerts: Vec<Alert> = text
        .split("      - alert: ")
        .skip(1)
        .map(|alert| {
            let (name, rest) = alert.split_once('\n').expect("more than a name");
            let rest = rest
                .strip_prefix("        expr: |\n")
                .expect("expr comes next, as a block");
            let is_expr = |line: &&str| line.starts_with("          ");
            let expr: Vec<&str> = rest.lines().take_while(is_expr).collect();
            Alert {
                name: name.to_owned(),
                rest: rest.lines().skip(expr.len()).collect::<Vec<_>>().join("\n"),
                expr: expr.join("\n"),
            }
        })
        .collect();
    assert!(alerts.len() > 30, "{} alerts were read", alerts.len());
    alerts
}

#[test]
fn prometheus_takes_the_rules() {
    let checked = promtool(&["check", "rules"], &[rules()]);
    let text = said(&checked);
    assert!(checked.status.success(), "{text}");
    let all = format!("{} rules found", alerts().len());
    assert!(text.contains(&all), "{all}? {text}");
}

#[test]
fn every_alert_fires_when_it_should_and_not_otherwise() {
    let tested = promtool(&["test", "rules"], &cases());
    assert!(tested.status.success(), "{}", said(&tested));

    let texts: String = cases()
        .iter()
        .map(|file| fs::read_to_string(file).expect("cases"))
        .collect();
    for Alert { name, .. } in alerts() {
        for case in ["fires", "is silent"] {
            assert!(
                texts.contains(&format!("  - name: {name} {case}\n")),
                "there is no case in which {name} {case}"
            );
        }
        let expected = format!("- labels: '{{alertname=\"{name}\"}}'");
        assert_eq!(
            texts.matches(&expected).count(),
            1,
            "{name} is expected in its own case alone"
        );
    }
    let count = texts.matches("  - name: ").count();
    assert_eq!(count, 2 * alerts().len(), "no case is of an alert that is gone");
}

/// promtool is content with a file of rules that is not there. The cases are not.
#[test]
fn the_cases_fail_without_the_rules() {
    let without = tempfile::tempdir().expect("a directory");
    fs::create_dir(without.path().join("tests")).expect("a folder");
    fs::write(without.path().join("medledger.yaml"), "groups: []\n").expect("rules without any");
    for file in cases() {
        let text = fs::read_to_string(&file).expect("cases");
        assert!(
            text.contains("\nrule_files: [../medledger.yaml]\n"),
            "{}",
            file.display()
        );
        let copy = without.path().join("tests").join(file.file_name().expect("a name"));
        fs::write(&copy, text).expect("a copy");
        let tested = promtool(&["test", "rules"], &[copy]);
        assert!(!tested.status.success(), "{} tests nothing", file.display());
    }
}

#[test]
fn every_alert_has_its_page_and_its_words() {
    let mut pages: BTreeSet<String> = fs::read_dir(root().join("docs/runbooks"))
        .expect("docs/runbooks")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    for Alert { name, rest, .. } in alerts() {
        let page = format!("{name}.md");
        assert!(pages.remove(&page), "docs/runbooks has no {page}");
        assert!(
            rest.contains(&format!("runbook_url: docs/runbooks/{page}")),
            "{name} leads elsewhere"
        );
        for word in ["severity: ", "audience: ", "summary: '", "description: '"] {
            assert!(rest.contains(word), "{name} has no {word}");
        }
        let text = fs::read_to_string(root().join("docs/runbooks").join(&page)).expect("a page");
        for part in ["## What it means", "## What to look at", "## What to do"] {
            assert!(text.contains(part), "{page} does not say: {part}");
        }
    }
    assert!(pages.is_empty(), "pages of alerts that are gone: {pages:?}");
}

/// Whatever is scraped from others: Prometheus itself, kubelet, kube-state-metrics.
const FOREIGN: &[&str] = &[
    "up",
    "kube_pod_container_status_restarts_total",
    "kube_statefulset_replicas",
    "kube_statefulset_status_replicas_ready",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
];

/// Words of an expression that are metrics: those of ours by their name, others by what follows them.
fn metrics_in(expr: &str) -> BTreeSet<&str> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = expr.char_indices().filter(|&(at, c)| {
        let before = expr[..at].chars().next_back();
        (c.is_ascii_alphabetic() || c == '_') && !before.is_some_and(|c| part(c) || c == '"')
    });
    let words = starts.map(|(at, _)| {
        let length = expr[at..].find(|c| !part(c)).unwrap_or(expr.len() - at);
        (&expr[at..at + length], expr[at + length..].chars().next())
    });
    words
        .filter(|(word, next)| word.starts_with("medledger_") || matches!(next, Some('{' | '[')))
        .map(|(word, _)| word)
        .collect()
}

#[test]
fn the_rules_ask_for_metrics_that_exist() {
    let mut declared = BTreeSet::new();
    for metric in sections().into_iter().flat_map(|section| section.group) {
        let name = metric.about().name;
        match metric.kind() {
            Kind::Histogram => declared.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}"))),
            _ => declared.extend([name.to_owned()]),
        }
    }
    let mut asked = 0;
    for Alert { name, expr, .. } in alerts() {
        let metrics = metrics_in(&expr);
        assert!(!metrics.is_empty(), "{name} asks for nothing: {expr}");
        for metric in metrics {
            let exists = declared.contains(metric) || FOREIGN.contains(&metric);
            assert!(exists, "{name} asks for {metric}, which nobody declares");
            asked += 1;
        }
    }
    assert!(asked > 40);
}

#[test]
fn metrics_are_found_in_an_expression() {
    let expr = r#"sum by (le) (rate(medledger_a_bucket{reason="up{x"}[5m])) / on (pod) up{a="b"} > time() - other[1h]"#;
    assert_eq!(metrics_in(expr), BTreeSet::from(["medledger_a_bucket", "other", "up"]));
}
