//! The pod that the load runs in, made after the release's tools: the same image, keys and rights.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use service::{OnFailure, Tasks};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    sync::watch,
    time::Instant,
};

use super::cluster::{Cluster, MARK};
use crate::chaos::{judge::Verdict, load::Line};

pub const LOAD: &str = "load";
const HISTORY: &str = "/history/history.jsonl";
const NETWORK: &str = "/network";
const STARTED_WITHIN: Duration = Duration::from_secs(180);
const DELETED_WITHIN: Duration = Duration::from_secs(90);
/// A judgement waits for the slowest peer.
const JUDGED_WITHIN: Duration = Duration::from_secs(300);
const AGAIN: Duration = Duration::from_secs(1);

/// The load while it runs.
pub struct Load {
    cluster: Cluster,
    latest: watch::Receiver<Option<Line>>,
}

/// What the load offers.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub clients: u64,
    pub pause_ms: u64,
}

pub fn name(cluster: &Cluster) -> String {
    format!("{}-chaos", cluster.fullname)
}

/// The tools' pod with another command and a place for the history.
pub fn manifest(name: &str, deployment: &Value, offer: Offer) -> Result<Value> {
    let template = &deployment["spec"]["template"];
    let (mut metadata, mut spec) = (template["metadata"].clone(), template["spec"].clone());
    let containers = spec["containers"]
        .as_array_mut()
        .context("the tools' pod has no containers")?;
    let found = containers.iter().position(|container| container["name"] == "tools");
    let mut container = containers.swap_remove(found.context("the tools' pod has no container tools")?);
    let (clients, pause) = (offer.clients.to_string(), offer.pause_ms.to_string());
    container["command"] = json!(["medledger"]);
    container["args"] = json!([
        "chaos",
        "load",
        "--network",
        NETWORK,
        "--history",
        HISTORY,
        "--clients",
        clients,
        "--pause-ms",
        pause,
    ]);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
        container.as_object_mut().context("a container")?.remove(probe);
    }
    // It holds a whole history when it judges, and must not be what is slow.
    container["resources"] = json!({
        "requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"},
    });
    push(
        &mut container["volumeMounts"],
        json!({"name": "history", "mountPath": "/history"}),
    );
    push(&mut spec["volumes"], json!({"name": "history", "emptyDir": {}}));
    spec["containers"] = json!([container]);
    spec["restartPolicy"] = json!("Never");
    metadata["name"] = json!(name);
    // Its labels let it through wherever the tools are let through.
    metadata["labels"][MARK] = json!(LOAD);
    Ok(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}

impl Load {
    /// It writes at every gateway when this returns.
    pub async fn start(cluster: &Cluster, offer: Offer, tasks: &Tasks) -> Result<Load> {
        let name = name(cluster);
        let deployment = format!("deployment/{}-tools", cluster.fullname);
        let deployment = cluster.kubectl.get(&[&deployment]).await?;
        cluster.kubectl.apply(&manifest(&name, &deployment, offer)?).await?;
        let (sender, latest) = watch::channel(None);
        let (follower, token) = (cluster.clone(), tasks.token().clone());
        let follow = async move {
            token
                .run_until_cancelled_owned(follow(follower, sender))
                .await
                .unwrap_or(())
        };
        tasks.spawn("progress", OnFailure::StopProcess, follow);
        let load = Load {
            cluster: cluster.clone(),
            latest,
        };
        let begun = load.until(STARTED_WITHIN, |line| {
            !line.gateways.is_empty() && line.gateways.values().all(|counted| counted.acknowledged > 0)
        });
        match begun.await {
            Ok(_) => Ok(load),
            Err(error) => {
                // Whatever it says of itself; that there is nothing to say is no reason to hide the error.
                let said = cluster
                    .kubectl
                    .run(&["logs", "--tail", "5", &name])
                    .await
                    .unwrap_or_default();
                Err(error.context(format!("the load does not write at every gateway: {}", said.trim())))
            }
        }
    }

    /// Where it is, as it said a second ago.
    pub fn latest(&self) -> Line {
        self.latest.borrow().clone().unwrap_or_default()
    }

    pub async fn until(&self, within: Duration, wanted: impl Fn(&Line) -> bool) -> Result<Line> {
        let mut latest = self.latest.clone();
        let reached = latest.wait_for(|line| line.as_ref().is_some_and(&wanted));
        match tokio::time::timeout(within, reached).await {
            Ok(Ok(line)) => Ok(line.clone().unwrap_or_default()),
            Ok(Err(_)) => bail!("nobody follows the load any more"),
            Err(_) => {
                let last = serde_json::to_string(&self.latest())?;
                bail!("not within {within:?}; the load's last word: {last}")
            }
        }
    }

    /// A line that was written after this was called.
    pub async fn now(&self) -> Result<Line> {
        let seen = self.latest().at_ms;
        // Two lines on: the next may have been under way already.
        self.until(JUDGED_WITHIN, |line| line.at_ms > seen + 1_000).await
    }

    /// Judges the history so far; the stretch between the two times for its gaps.
    pub async fn judge(&self, from_ms: u64, to_ms: u64) -> Result<Verdict> {
        let (name, from, to) = (name(&self.cluster), from_ms.to_string(), to_ms.to_string());
        let args = [
            "exec",
            &name,
            "--",
            "medledger",
            "--output",
            "json",
            "chaos",
            "judge",
            "--network",
            NETWORK,
            "--history",
            HISTORY,
            "--from-ms",
            &from,
            "--to-ms",
            &to,
        ];
        let deadline = Instant::now() + JUDGED_WITHIN;
        loop {
            let said = self.cluster.kubectl.say(&args, None, JUDGED_WITHIN).await?;
            // A judgement against the system ends with an error, too.
            if let Ok(verdict) = serde_json::from_str(&said.stdout) {
                return Ok(verdict);
            }
            ensure!(
                Instant::now() < deadline,
                "no judgement within {JUDGED_WITHIN:?}: {}",
                said.stderr
            );
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Hands on every line of progress; a log that breaks is followed again.
async fn follow(cluster: Cluster, sender: watch::Sender<Option<Line>>) {
    let name = name(&cluster);
    loop {
        if let Ok(mut child) = cluster.kubectl.start(&["logs", "--follow", "--tail", "1", &name])
            && let Some(out) = child.stdout.take()
        {
            let mut lines = BufReader::new(out).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(line) = serde_json::from_str(&line) {
                    sender.send_replace(Some(line));
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Ends the load of this or of an earlier run.
pub async fn delete(cluster: &Cluster) -> Result<()> {
    let name = name(cluster);
    let args = ["delete", "pod", &name, "--ignore-not-found", "--grace-period", "5"];
    cluster.kubectl.within(&args, DELETED_WITHIN).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_the_tools_pod_with_another_command() {
        let deployment = json!({"spec": {"template": {
            "metadata": {"labels": {"app.kubernetes.io/component": "tools"}},
            "spec": {"serviceAccountName": "tools", "volumes": [{"name": "network", "secret": {}}], "containers": [
                {"name": "tools", "image": "tools:1", "args": ["idle"], "livenessProbe": {},
                    "volumeMounts": [{"name": "network", "mountPath": "/network"}]},
            ]},
        }}});
        let offer = Offer {
            clients: 3,
            pause_ms: 50,
        };
        let pod = manifest("medledger-chaos", &deployment, offer).expect("a pod");
        assert_eq!(pod["metadata"]["name"], "medledger-chaos");
        assert_eq!(
            pod["metadata"]["labels"],
            json!({"app.kubernetes.io/component": "tools", MARK: "load"})
        );
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["image"], "tools:1");
        assert_eq!(container["command"], json!(["medledger"]));
        assert!(container.get("livenessProbe").is_none());
        assert_eq!(container["volumeMounts"].as_array().map(Vec::len), Some(2));
        assert_eq!(pod["spec"]["volumes"].as_array().map(Vec::len), Some(2));
        assert_eq!(pod["spec"]["serviceAccountName"], "tools");
        let args: Vec<&str> = container["args"]
            .as_array()
            .expect("args")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let line = [&["medledger"][..], &args].concat();
        <crate::args::Cli as clap::Parser>::try_parse_from(line).expect("its own command line");
    }
}
