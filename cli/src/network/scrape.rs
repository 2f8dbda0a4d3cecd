//! `medledger network prometheus`: where Prometheus finds a network's processes, with the labels that the chart's
//! PodMonitor gives them in Kubernetes, so that rules and dashboards are the same in both.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::{
    DEFAULT_DIRECTORY,
    layout::{Description, Layout},
};

/// The alert rules in a checkout.
pub const RULES: &str = "helm/medledger/rules/medledger.yaml";

#[derive(Debug, Args)]
pub struct PrometheusArgs {
    /// Directory of the network
    #[arg(long, value_name = "DIR", env = "MEDLEDGER_NETWORK", default_value = DEFAULT_DIRECTORY)]
    network: PathBuf,
    /// Files of rules; may be repeated (default: those of this checkout, if this is one)
    #[arg(long, value_name = "FILE")]
    rules: Vec<PathBuf>,
    /// Seconds between two scrapes
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=300))]
    every: u32,
}

/// What Prometheus reads, as YAML or as JSON.
#[derive(Debug, Serialize)]
pub struct Config {
    global: Global,
    rule_files: Vec<PathBuf>,
    scrape_configs: [Job; 1],
}

#[derive(Debug, Serialize)]
struct Global {
    scrape_interval: String,
    evaluation_interval: String,
}

#[derive(Debug, Serialize)]
struct Job {
    job_name: &'static str,
    static_configs: Vec<Target>,
}

#[derive(Debug, Serialize)]
struct Target {
    targets: [String; 1],
    labels: BTreeMap<&'static str, String>,
}

pub fn run(args: &PrometheusArgs) -> Result<Config> {
    let description = Layout::new(&args.network)?.read()?;
    let here = Path::new(RULES);
    let rules = match &args.rules[..] {
        [] if here.exists() => vec![here.to_owned()],
        given => given.to_owned(),
    };
    // Prometheus takes relative ones from where its settings lie.
    let absolute = rules.iter().map(|file| {
        let found = file.canonicalize();
        found.with_context(|| format!("--rules {}", file.display()))
    });
    Ok(Config::new(&description, absolute.collect::<Result<_>>()?, args.every))
}

impl Config {
    pub fn new(description: &Description, rule_files: Vec<PathBuf>, every_s: u32) -> Self {
        let every = format!("{every_s}s");
        // A broker has no health port.
        let asked = description
            .processes
            .iter()
            .filter(|process| !process.health.is_empty());
        let targets = asked.map(|process| Target {
            targets: [process.health.clone()],
            labels: BTreeMap::from([
                ("namespace", description.channel.clone()),
                ("pod", process.name.clone()),
                ("container", process.kind.word().to_owned()),
                ("component", process.kind.word().to_owned()),
                ("organisation", process.organisation.clone()),
            ]),
        });
        Config {
            global: Global {
                scrape_interval: every.clone(),
                evaluation_interval: every,
            },
            rule_files,
            scrape_configs: [Job {
                job_name: "medledger",
                static_configs: targets.collect(),
            }],
        }
    }

    pub fn yaml(&self) -> String {
        let mut text = format!(
            "global:\n  scrape_interval: {}\n  evaluation_interval: {}\n",
            self.global.scrape_interval, self.global.evaluation_interval
        );
        if !self.rule_files.is_empty() {
            text.push_str("rule_files:\n");
        }
        for file in &self.rule_files {
            let _ = writeln!(text, "  - {}", quoted(&file.to_string_lossy()));
        }
        text.push_str("scrape_configs:\n");
        for job in &self.scrape_configs {
            let _ = writeln!(text, "  - job_name: {}\n    static_configs:", job.job_name);
            for Target { targets, labels } in &job.static_configs {
                let _ = writeln!(text, "      - targets: [{}]", quoted(&targets[0]));
                let labels: Vec<String> = labels
                    .iter()
                    .map(|(label, value)| format!("{label}: {}", quoted(value)))
                    .collect();
                let _ = writeln!(text, "        labels: {{{}}}", labels.join(", "));
            }
        }
        text
    }
}

/// A JSON string is a YAML string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{plan, spec::Spec};

    #[test]
    fn every_process_of_ours_is_asked_and_labelled_as_in_kubernetes() {
        let description = plan::describe(&Spec::default()).expect("a network");
        let config = Config::new(&description, vec!["/rules/a \"b\".yaml".into()], 7);
        let yaml = config.yaml();
        assert!(yaml.starts_with("global:\n  scrape_interval: 7s\n"), "{yaml}");
        assert!(
            yaml.contains("rule_files:\n  - \"/rules/a \\\"b\\\".yaml\"\n"),
            "{yaml}"
        );
        let ours = description
            .processes
            .iter()
            .filter(|process| !process.health.is_empty());
        assert_eq!(yaml.matches("- targets: [").count(), ours.count());
        let peer = description
            .processes
            .iter()
            .find(|process| process.name == "peer0.HospitalA");
        let entry = format!(
            "      - targets: [\"{}\"]\n        labels: {{component: \"peer\", container: \"peer\", \
             namespace: \"medical\", organisation: \"HospitalA\", pod: \"peer0.HospitalA\"}}\n",
            peer.expect("a peer").health
        );
        assert!(yaml.contains(&entry), "{entry} is not in\n{yaml}");
        let json = serde_json::to_value(&config).expect("JSON");
        assert_eq!(json["scrape_configs"][0]["job_name"], "medledger");
    }
}
