//! Undoing whatever faults there can be, found by their marks in the cluster: after an experiment, after an
//! interrupted run, and before the next one.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    agent::{Agents, healing},
    cluster::{Cluster, MARK},
    disk,
    fault::until,
    kubectl::{items, text},
    pod, volume,
};

/// What stops and starts a node: commands that get the node's name as their last argument.
pub const NODE_STOP: &str = "CHAOS_NODE_STOP";
pub const NODE_START: &str = "CHAOS_NODE_START";
/// What makes the release another version, and what goes back: commands that get its name as their last argument.
pub const UPGRADE: &str = "CHAOS_UPGRADE";
pub const ROLLBACK: &str = "CHAOS_ROLLBACK";
/// On the release's tools while it is, or was interrupted on the way to, another version.
const ANOTHER_VERSION: &str = "medledger.io/chaos-upgrade";
/// How many replicas a scaled-down set had.
pub const REPLICAS: &str = "medledger.io/chaos-replicas";

pub const NODE_WITHIN: Duration = Duration::from_secs(180);
const UPGRADED_WITHIN: Duration = Duration::from_secs(600);
const NODE_READY_WITHIN: Duration = Duration::from_secs(240);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Everything; `say` hears what was found.
pub async fn all(cluster: &Cluster, say: &dyn Fn(&str)) -> Result<()> {
    let agents = Agents::of(cluster);
    faults(cluster, &agents, say).await?;
    pod::delete(cluster).await?;
    agents.delete().await
}

/// Everything but the load and the agents.
pub async fn faults(cluster: &Cluster, agents: &Agents, say: &dyn Fn(&str)) -> Result<()> {
    for node in nodes(cluster).await? {
        say(&format!("{node} is back"));
    }
    if back_to_version(cluster).await? {
        say("the release is the version again that it was");
    }
    for set in replicas(cluster).await? {
        say(&format!("{set} has its replicas again"));
    }
    by_agents(cluster, agents).await?;
    disk::uncover(cluster, agents).await?;
    for claim in volume::finish(cluster).await? {
        say(&format!("{claim}, which was being lost, is lost"));
    }
    Ok(())
}

/// Drained nodes take pods again, stopped ones are started; their names.
pub async fn nodes(cluster: &Cluster) -> Result<Vec<String>> {
    let listed = cluster.kubectl.get(&["nodes"]).await?;
    let mut healed = Vec::new();
    for node in items(&listed) {
        let (name, done) = (
            text(node, "/metadata/name"),
            node["metadata"]["annotations"][MARK].as_str(),
        );
        match done {
            None => continue,
            Some("stopped") => {
                let start =
                    hook(NODE_START).with_context(|| format!("{name} was stopped, and {NODE_START} is not set"))?;
                run_hook(&start, name, NODE_WITHIN).await?;
                let ready = async || node_ready(cluster, name).await;
                until(&format!("{name} is ready"), NODE_READY_WITHIN, LOOK_EVERY, ready).await?;
            }
            Some(_) => {
                cluster.kubectl.run(&["uncordon", name]).await?;
            }
        }
        cluster
            .kubectl
            .run(&["annotate", "node", name, &format!("{MARK}-")])
            .await?;
        healed.push(name.to_owned());
    }
    Ok(healed)
}

async fn node_ready(cluster: &Cluster, name: &str) -> Result<bool> {
    let node = cluster.kubectl.get(&["node", name]).await?;
    let conditions = node["status"]["conditions"].as_array();
    let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    Ok(conditions.is_some_and(|all| all.iter().any(is_ready)))
}

/// The release becomes another version, by a hook; marked before, so that whoever heals goes back.
pub async fn to_version(cluster: &Cluster, upgrade: &str) -> Result<()> {
    let note = format!("{ANOTHER_VERSION}=under-way");
    let tools = cluster.tools();
    cluster.kubectl.run(&["annotate", "--overwrite", &tools, &note]).await?;
    run_hook(upgrade, &cluster.release, UPGRADED_WITHIN).await
}

/// Whether it was another version, and is no longer.
pub async fn back_to_version(cluster: &Cluster) -> Result<bool> {
    let tools = cluster.tools();
    let found = cluster.kubectl.get(&[&tools]).await?;
    if found["metadata"]["annotations"][ANOTHER_VERSION].is_null() {
        return Ok(false);
    }
    let back = hook(ROLLBACK).with_context(|| format!("the release is another version, and {ROLLBACK} is not set"))?;
    run_hook(&back, &cluster.release, UPGRADED_WITHIN).await?;
    let note = format!("{ANOTHER_VERSION}-");
    cluster.kubectl.run(&["annotate", &tools, &note]).await?;
    Ok(true)
}

/// Scaled-down sets get back what they had; their names.
pub async fn replicas(cluster: &Cluster) -> Result<Vec<String>> {
    let listed = cluster
        .kubectl
        .get(&["statefulsets", "--selector", &cluster.selector()])
        .await?;
    let mut healed = Vec::new();
    for set in items(&listed) {
        let Some(replicas) = set["metadata"]["annotations"][REPLICAS].as_str() else {
            continue;
        };
        let name = text(set, "/metadata/name");
        let which = format!("statefulset/{name}");
        cluster.kubectl.run(&["scale", "--replicas", replicas, &which]).await?;
        cluster
            .kubectl
            .run(&["annotate", &which, &format!("{REPLICAS}-")])
            .await?;
        healed.push(name.to_owned());
    }
    Ok(healed)
}

/// On every node with a pod of the release: stopped processes go on, routes and fillers go.
pub async fn by_agents(cluster: &Cluster, agents: &Agents) -> Result<()> {
    if !agents.exist().await? {
        return Ok(());
    }
    let pods = cluster.pods().await?;
    let nodes: BTreeSet<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
    for node in nodes.into_iter().filter(|node| !node.is_empty()) {
        let here: Vec<_> = pods.iter().filter(|pod| pod.node == node).collect();
        let agent = agents.on(node).await?;
        agents
            .script(&agent, &healing(&here))
            .await
            .with_context(|| format!("healing on {node}"))?;
    }
    Ok(())
}

pub fn hook(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|command| !command.trim().is_empty())
}

/// A command with one more argument, `of`.
pub async fn run_hook(command: &str, of: &str, within: Duration) -> Result<()> {
    // In the shell's place, so that it ends with its caller.
    let mut child = tokio::process::Command::new("sh");
    child.args(["-c", &format!("exec env {command} \"$1\""), "sh", of]);
    child
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let doing = || format!("{command} {of}");
    let ended = tokio::time::timeout(within, child.output()).await;
    let ended = ended
        .with_context(|| format!("{}: not within {within:?}", doing()))?
        .with_context(doing)?;
    let stderr = String::from_utf8_lossy(&ended.stderr);
    ensure!(
        ended.status.success(),
        "{}: {}: {}",
        doing(),
        ended.status,
        stderr.trim()
    );
    Ok(())
}
