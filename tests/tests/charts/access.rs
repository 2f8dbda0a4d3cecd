//! Who may do what on the bundled brokers: the rules as the rendered script gives them.

use std::collections::BTreeSet;

use crate::{
    helm::{name, of_kind, text},
    rendered_with,
};

/// Each call of `allow` in a script without continued lines: its options, with what follows them.
fn calls(script: &str) -> Vec<Vec<(&str, &str)>> {
    let calls = script
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("allow "));
    calls
        .map(|call| {
            let words: Vec<&str> = call.split_whitespace().collect();
            let pairs = words.chunks(2);
            pairs
                .map(|pair| (pair[0], pair.get(1).copied().unwrap_or_default()))
                .collect()
        })
        .collect()
}

/// What follows an option, each time that it is there.
fn given<'a>(call: &[(&'a str, &'a str)], option: &str) -> Vec<&'a str> {
    call.iter()
        .filter(|(name, _)| *name == option)
        .map(|(_, value)| *value)
        .collect()
}

#[test]
fn orderers_write_the_log_and_peers_attest_and_nobody_has_transactions() {
    let Some(objects) = rendered_with("ci/bundled.yaml") else {
        return;
    };
    let access = of_kind(&objects, "ConfigMap").find(|map| name(map).ends_with("-kafka-access"));
    let script = text(access.expect("rules for the brokers"), "/data/access.sh").replace("\\\n", " ");
    assert_eq!(
        script.matches("kafka-acls").count(),
        1,
        "whatever is allowed is a call of `allow`"
    );
    let mut writers = BTreeSet::new();
    for call in calls(&script) {
        // So nobody is given a TransactionalId, a group or the cluster.
        let options = ["--allow-principal", "--operation", "--resource-pattern-type", "--topic"];
        for (option, value) in &call {
            assert!(
                options.contains(option),
                "{option} {value}: more than topics is allowed"
            );
        }
        // Without one, all of them are allowed.
        let operations = given(&call, "--operation");
        let known = ["Create", "Describe", "DescribeConfigs", "Read", "Write"];
        assert!(
            !operations.is_empty() && operations.iter().all(|operation| known.contains(operation)),
            "{call:?}"
        );
        if operations.contains(&"Write") {
            let patterns = given(&call, "--resource-pattern-type");
            assert!(patterns.is_empty(), "{call:?}: who writes is told each topic");
            for principal in given(&call, "--allow-principal") {
                writers.extend(given(&call, "--topic").into_iter().map(|topic| (principal, topic)));
            }
        }
    }
    let expected = [
        ("User:orderer", "medledger.medical.control"),
        ("User:orderer", "medledger.medical.tx"),
        ("User:peer", "medledger.medical.attest"),
    ];
    assert_eq!(writers, BTreeSet::from(expected));
}
