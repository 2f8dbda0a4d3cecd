//! What must stay absent, held by a test that names the better way.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Files that git tracks or would track, relative to the root.
fn files(ending: &str) -> Vec<PathBuf> {
    let out = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    let text = String::from_utf8(out.stdout).unwrap();
    let files: Vec<PathBuf> = text
        .lines()
        .filter(|f| f.ends_with(ending))
        .map(PathBuf::from)
        .filter(|f| root().join(f).exists())
        .collect();
    assert!(!files.is_empty(), "there are files ending in {ending}");
    files
}

fn read(file: &Path) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// Whether `word` stands in `text` as a word of its own, not within another.
fn says(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(part)
    })
}

#[test]
fn only_one_place_says_each_of_these() {
    let owners = [
        ("rocksdb::", &["peer/src/state/"][..]),
        ("rdkafka::", &["libs/ledger-log/"]),
        ("wasmtime::", &["chaincode/worker/"]),
        ("prometheus::", &["libs/metric/"]),
        // The log's one task, which asks whether Kafka is there, ends with the log.
        ("tokio::spawn(", &["libs/service/src/", "libs/ledger-log/src/kafka.rs"]),
    ];
    let mut found = [0; 5];
    for file in files(".rs") {
        let text = read(&file);
        for (i, (word, owners)) in owners.iter().enumerate() {
            if file.ends_with("tests/tests/tidy.rs") || !says(&text, word) {
                continue;
            }
            let in_tests = *word == "tokio::spawn(" && is_test(&file, &text, word);
            assert!(
                owners.iter().any(|owner| file.starts_with(owner)) || in_tests,
                "{} says {word}; it belongs into {owners:?}, use what that offers",
                file.display()
            );
            found[i] += 1;
        }
    }
    assert!(
        found.iter().all(|n| *n > 0),
        "each word is said somewhere, else this test finds nothing: {found:?}"
    );
}

/// What begins a file's own tests; `mod tests;` at its top only names another file.
const TESTS_BELOW: &str = "#[cfg(test)]\nmod tests {";

/// In a folder of tests or examples, or among the file's own tests.
fn is_test(file: &Path, text: &str, word: &str) -> bool {
    let folder = file
        .components()
        .any(|c| ["tests", "examples", "benches"].iter().any(|t| c.as_os_str() == *t));
    let own = text.find(TESTS_BELOW).is_some_and(|at| !says(&text[..at], word));
    folder || own || file.file_name().is_some_and(|n| n == "tests.rs")
}

#[test]
fn crates_reach_only_what_they_may() {
    let forbidden = [
        (
            "medledger-protocol",
            &["tokio", "rdkafka", "rocksdb", "tonic", "hyper", "wasmtime"][..],
        ),
        ("medledger-worker", &["rdkafka", "rocksdb"][..]),
        ("medledger-orderer", &["rocksdb", "wasmtime"][..]),
        ("medledger-peer", &["wasmtime"][..]),
        ("medledger-ledger-log", &["rocksdb", "wasmtime", "tonic"][..]),
        ("medledger-service", &["rdkafka", "rocksdb", "wasmtime"][..]),
    ];
    for (package, crates) in forbidden {
        let out = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--edges",
                "normal",
                "--prefix",
                "none",
                "--package",
                package,
            ])
            .current_dir(root())
            .output()
            .expect("cargo tree");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let tree = String::from_utf8(out.stdout).unwrap();
        assert!(tree.lines().count() > 3, "{package} has dependencies");
        for name in crates {
            let reached = tree.lines().any(|line| line.split(' ').next() == Some(name));
            assert!(
                !reached,
                "{package} reaches {name}; ARCHITECTURE.md says why it must not"
            );
        }
    }
}

#[test]
fn what_decides_reads_no_clock() {
    let pure = files(".rs").into_iter().filter(|f| {
        let decides = [
            "committer/prepare.rs",
            "committer/validate.rs",
            "committer/view.rs",
            "submit/judge.rs",
        ];
        let orders = ["orderer/src/batcher.rs", "orderer/src/stillness.rs"];
        let reports = ["event.rs", "fold.rs", "tally.rs", "suppress.rs", "report.rs", "csv.rs"];
        f.starts_with("libs/protocol/src")
            || decides.iter().chain(&orders).any(|end| f.ends_with(end))
            || (f.starts_with("peer/src/reporting") && reports.iter().any(|end| f.ends_with(end)))
    });
    let mut count = 0;
    for file in pure.filter(|f| !f.starts_with("libs/protocol/src/testing") && !f.ends_with("src/testing.rs")) {
        let text = read(&file);
        let text = text.split(TESTS_BELOW).next().unwrap_or_default();
        for clock in [
            "SystemTime::now",
            "Instant::now",
            "OffsetDateTime::now",
            "std::fs::",
            "std::net::",
        ] {
            assert!(
                !text.contains(clock),
                "{} says {clock}; take it as an argument",
                file.display()
            );
        }
        count += 1;
    }
    assert!(count > 10);
}

#[test]
fn files_are_read_in_one_sitting() {
    for file in files(".rs") {
        let lines = read(&file).lines().count();
        // A table of cases is read case by case.
        let most = if file.starts_with("tests/tests") { 700 } else { 500 };
        assert!(
            lines <= most,
            "{} has {lines} lines; what does it hide?",
            file.display()
        );
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for file in files(".rs") {
        let text = read(&file);
        assert!(
            text.starts_with("//!"),
            "{} starts without a module comment",
            file.display()
        );
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for file in files(".md") {
        let text = read(&file);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = root().join(&file).parent().unwrap().join(target);
            assert!(
                path.exists(),
                "{} links to {target}, which is not there",
                file.display()
            );
        }
    }
}

#[test]
fn no_test_is_switched_off_and_nothing_is_left_to_do() {
    for file in files(".rs").into_iter().filter(|f| !f.ends_with("tests/tests/tidy.rs")) {
        let text = read(&file);
        for word in ["#[ignore", "todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX"] {
            assert!(!text.contains(word), "{} says {word}", file.display());
        }
    }
}

#[test]
fn every_dependency_is_used_by_the_crate_that_names_it() {
    for file in files("Cargo.toml").into_iter().filter(|f| f != Path::new("Cargo.toml")) {
        let folder = file.parent().unwrap();
        let sources: String = files(".rs")
            .into_iter()
            .filter(|f| f.starts_with(folder))
            .map(|f| read(&f))
            .collect();
        let manifest = read(&file);
        let names = manifest.lines().filter_map(|line| {
            let (name, _) = line.split_once(['.', ' '])?;
            line.contains("workspace = true").then_some(name)
        });
        for name in names.filter(|n| !["version", "edition", "rust-version", "license", "publish"].contains(n)) {
            // Named by the code that is generated; or by nothing, for the reason that stands beside it.
            let excused = ["workspace", "prost", "tonic-prost"].contains(&name)
                || (name == "proptest" && file.starts_with("tests"));
            if excused {
                continue;
            }
            let ident = name.replace('-', "_");
            let used = says(&sources, &format!("{ident}::"))
                || says(&sources, &format!("use {ident}"))
                || says(&sources, &format!("{ident} as "))
                || says(&sources, &format!("extern crate {ident}"));
            assert!(
                used,
                "{} names {name}, nothing in {} uses it",
                file.display(),
                folder.display()
            );
        }
    }
}
