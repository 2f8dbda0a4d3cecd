//! What is declared is what `docs/metrics.md` says, by Prometheus' conventions, and says nothing about a patient.
//! `UPDATE=1` writes the page.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use medledger_tests::metrics::{ROLES, Section, sections};
use metric::{Kind, LABELS, Metric};

fn declared() -> impl Iterator<Item = &'static dyn Metric> {
    sections().into_iter().flat_map(|section| section.group.iter().copied())
}

#[test]
fn every_metric_that_a_process_has_is_in_the_page() {
    let names: BTreeSet<&str> = declared().map(|metric| metric.about().name).collect();
    assert_eq!(names.len(), declared().count(), "each is declared once");
    for role in ROLES {
        for group in role.groups() {
            for metric in group {
                let name = metric.about().name;
                assert!(names.contains(name), "{name} of {role:?} is in no section");
            }
        }
    }
}

#[test]
fn names_labels_and_helps_follow_the_conventions() {
    let allowed: BTreeSet<&str> = LABELS.iter().map(|(label, _)| *label).collect();
    for metric in declared() {
        let about = metric.about();
        let name = about.name;
        assert!(name.starts_with("medledger_"), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            metric.kind() == Kind::Counter,
            "{name}: counters, and nothing else, end in _total"
        );
        for unit in ["_ms", "_millis", "_micros", "_minutes", "_kb", "_mb", "_percent"] {
            assert!(!name.contains(unit), "{name}: base units are seconds, bytes and ratios");
        }
        if metric.kind() == Kind::Histogram {
            let units = ["_seconds", "_bytes", "_items", "_transactions"];
            assert!(
                units.iter().any(|unit| name.ends_with(unit)),
                "{name}: the unit stands last"
            );
            assert!(
                about.buckets.is_sorted() && !about.buckets.is_empty(),
                "{name}: buckets ascend"
            );
        }
        for label in about.labels {
            assert!(
                allowed.contains(label),
                "{name}: {label} is no label of metric::LABELS; nothing about a patient may become one"
            );
        }
        if !about.known.is_empty() {
            assert_eq!(
                about.known.len(),
                about.labels.len(),
                "{name}: known values are of every label"
            );
        }
        let help = about.help;
        assert!(
            !help.is_empty() && !help.ends_with('.') && !help.contains('|'),
            "{name}: {help}"
        );
    }
}

/// The page, from the declarations alone.
fn page() -> String {
    let mut page = "# Metrics\n\n\
        Every process answers `GET /metrics` on its health port. This page is made of the declarations in the code \
        (`UPDATE=1 cargo test --release --workspace --test metrics`); a test holds it against them.\n\n\
        Counters that end in `_total` are read with `rate` or `increase`; of a histogram `NAME` there are `NAME_bucket`, \
        `NAME_sum` and `NAME_count`.\n"
        .to_owned();
    for Section { title, of, group } in sections() {
        let _ = write!(
            page,
            "\n## {title}\n{of}\n\n| name | type | labels | what it says |\n|---|---|---|---|\n"
        );
        for metric in group {
            let about = metric.about();
            row(&mut page, about.name, metric.kind(), about.labels, about.help);
        }
    }
    page.push_str("\n## The process itself\nOrderers, peers and workers.\n\n| name | type | labels | what it says |\n|---|---|---|---|\n");
    for (name, help, kind) in metric::process() {
        row(&mut page, &name, kind, &[], help.trim_end_matches('.'));
    }
    page.push_str("\n## Labels\n| label | its values |\n|---|---|\n");
    for (label, values) in LABELS {
        let _ = writeln!(page, "| `{label}` | {values} |");
    }
    page
}

fn row(page: &mut String, name: &str, kind: Kind, labels: &[&str], help: &str) {
    let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
    let _ = writeln!(page, "| `{name}` | {} | {} | {help} |", kind.word(), labels.join(", "));
}

#[test]
fn the_page_is_made_of_the_declarations() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &page).expect("docs/metrics.md is written");
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == page, "docs/metrics.md is old; UPDATE=1 writes it anew");
}
