//! A small disk under a peer whose volume is a directory on the node's own disk, which nobody may fill: memory is
//! mounted over the directory, the peer begins again on it from the log, and gets its directory back afterwards.

use anyhow::{Context as _, Result, ensure};

use super::{
    agent::Agents,
    cluster::{Cluster, MARK, Pod},
    kubectl::{IGNORE_NOT_FOUND, items, text},
    volume::{claim, pod_of},
};

/// What a peer's whole ledger fits into, and is soon filled.
pub const SMALL_BYTES: u64 = 512 << 20;
/// What the claim of a volume is marked with, over which something is mounted.
const COVERED: &str = "covered";
/// How the mount is called, so that it is found.
const SOURCE: &str = "medledger-chaos";

/// The directory that is the claim's volume; `None` if it is something else.
async fn directory(cluster: &Cluster, claim: &str) -> Result<Option<String>> {
    let claim = cluster.kubectl.get(&["pvc", claim]).await?;
    let volume = cluster.kubectl.get(&["pv", text(&claim, "/spec/volumeName")]).await?;
    let paths = ["/spec/hostPath/path", "/spec/local/path"].map(|path| text(&volume, path));
    Ok(paths.into_iter().find(|path| !path.is_empty()).map(str::to_owned))
}

/// Runs in the mount namespace that the node's volumes are mounted in.
fn on_the_node(command: &str) -> String {
    format!("PATH=/usr/sbin:/usr/bin:/sbin:/bin nsenter -t $(pidof kubelet | cut -d ' ' -f 1) -m {command}")
}

/// The peer's pod is deleted and comes back on a small disk. `false`: its volume is no directory of a node.
pub async fn cover(cluster: &Cluster, agents: &Agents, pod: &Pod) -> Result<bool> {
    let claim = claim(pod);
    let Some(path) = directory(cluster, &claim).await? else {
        return Ok(false);
    };
    let note = format!("{MARK}={COVERED}");
    cluster
        .kubectl
        .run(&["annotate", "--overwrite", "pvc", &claim, &note])
        .await?;
    let mount = format!("mount -t tmpfs -o size={SMALL_BYTES},mode=0777 {SOURCE} {path}");
    let agent = agents.on(&pod.node).await?;
    let done = agents.script(&agent, &on_the_node(&mount)).await;
    done.with_context(|| format!("mounting over {path} on {}", pod.node))?;
    delete(cluster, &pod.name).await?;
    Ok(true)
}

/// Whatever is covered is uncovered, and its pod begins again on what was there.
pub async fn uncover(cluster: &Cluster, agents: &Agents) -> Result<()> {
    let listed = cluster.kubectl.get(&["pvc"]).await?;
    let covered = items(&listed)
        .iter()
        .filter(|claim| claim["metadata"]["annotations"][MARK] == COVERED);
    for covered in covered {
        let claim = text(covered, "/metadata/name");
        let path = directory(cluster, claim)
            .await?
            .context("a covered volume is a directory")?;
        let running = agents.running().await?;
        ensure!(
            !running.is_empty(),
            "{path} is covered, and no agent runs that could uncover it"
        );
        // On the node where it is; elsewhere there is nothing to do.
        let unmount = on_the_node(&format!("umount -l {path}"));
        let script = format!(
            "if grep -q '^{SOURCE} {path} ' /proc/$(pidof kubelet | cut -d ' ' -f 1)/mounts; then {unmount}; fi"
        );
        for (agent, _) in running {
            agents.script(&agent, &script).await?;
        }
        delete(cluster, pod_of(claim)).await?;
        cluster
            .kubectl
            .run(&["annotate", "pvc", claim, &format!("{MARK}-")])
            .await?;
    }
    Ok(())
}

async fn delete(cluster: &Cluster, pod: &str) -> Result<()> {
    cluster.kubectl.delete_at_once([pod], &[IGNORE_NOT_FOUND]).await
}
