//! A privileged pod on every node that reaches into other pods' processes: signals, routes, full disks.
//!
//! All it does it does by busybox, and whatever it is told twice comes to the same. Processes are found by what
//! their cgroup is called: with the runtime's id of the container in it, or the pod's UID, whose dashes systemd's
//! driver writes as underscores.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    cluster::{Cluster, MARK, Pod},
    disk,
    kubectl::{Kubectl, items, text},
};

const READY_WITHIN: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_secs(1);
/// Filling a disk takes as long as the disk takes.
const DONE_WITHIN: Duration = Duration::from_secs(300);
const NAME: &str = "agent";
/// What fills a disk, so that healing finds it.
pub const FILLER: &str = "medledger-chaos.fill";

/// `pids WORD`: the processes whose cgroup is called by it.
const PIDS: &str = r#"
pids() {
  for directory in /proc/[0-9]*; do
    if grep -q -e "$1" "$directory/cgroup" 2>/dev/null; then echo "${directory#/proc/}"; fi
  done
}
"#;

#[derive(Clone, Debug)]
pub struct Agents {
    kubectl: Kubectl,
}

impl Agents {
    pub fn of(cluster: &Cluster) -> Agents {
        Agents {
            kubectl: Kubectl {
                namespace: format!("{}-{}-chaos-agents", cluster.kubectl.namespace, cluster.fullname),
            },
        }
    }

    /// One on every node, ready when this returns.
    pub async fn start(&self, image: &str) -> Result<()> {
        self.kubectl.apply(&namespace(&self.kubectl.namespace)).await?;
        self.kubectl.apply(&daemon_set(&self.kubectl.namespace, image)).await?;
        let timeout = format!("--timeout={}s", READY_WITHIN.as_secs());
        let args = ["rollout", "status", "daemonset/agent", &timeout];
        let started = self.kubectl.within(&args, READY_WITHIN + Duration::from_secs(10)).await;
        started.with_context(|| format!("the agents do not start; their image is {image}"))?;
        Ok(())
    }

    /// Whether they were started and not deleted: only then can they have done something.
    pub async fn exist(&self) -> Result<bool> {
        let namespace = self.kubectl.find(&["namespace", &self.kubectl.namespace]).await?;
        Ok(namespace.is_some())
    }

    /// Deletes them and their namespace.
    pub async fn delete(&self) -> Result<()> {
        let namespace = &self.kubectl.namespace;
        let args = ["delete", "namespace", namespace, "--ignore-not-found"];
        self.kubectl.within(&args, READY_WITHIN).await?;
        Ok(())
    }

    /// Names of those that run, and their nodes.
    pub async fn running(&self) -> Result<Vec<(String, String)>> {
        let listed = self.kubectl.get(&["pods", "--selector", "app=agent"]).await?;
        let running = items(&listed)
            .iter()
            .filter(|pod| text(pod, "/status/phase") == "Running");
        let named = running.map(|pod| {
            let (name, node) = (text(pod, "/metadata/name"), text(pod, "/spec/nodeName"));
            (name.to_owned(), node.to_owned())
        });
        Ok(named.collect())
    }

    pub async fn on(&self, node: &str) -> Result<String> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let running = self.running().await?;
            if let Some((name, _)) = running.into_iter().find(|(_, at)| at == node) {
                return Ok(name);
            }
            ensure!(Instant::now() < deadline, "no agent runs on {node}");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// A script on a node, after [`PIDS`].
    pub async fn script(&self, agent: &str, script: &str) -> Result<String> {
        let script = format!("{PIDS}{script}");
        self.kubectl
            .within(&["exec", agent, "--", "/bin/busybox", "sh", "-c", &script], DONE_WITHIN)
            .await
    }

    async fn in_pod(&self, pod: &Pod, script: &str) -> Result<String> {
        ensure!(!pod.container_id.is_empty(), "{} has no container yet", pod.name);
        let agent = self.on(&pod.node).await?;
        let script = format!(
            "found=$(pids {})\n[ -n \"$found\" ] || exit 3\nset -- $found\n{script}",
            pod.container_id
        );
        let done = self.script(&agent, &script).await;
        done.with_context(|| format!("{} on {}", pod.name, pod.node))
    }

    /// `signal` as `kill` has it: `KILL`, `STOP`, `CONT`.
    pub async fn signal(&self, pod: &Pod, signal: &str) -> Result<()> {
        // Those that ended with the first of them are not there any more.
        self.in_pod(pod, &format!("kill -{signal} $found 2>/dev/null; true"))
            .await?;
        Ok(())
    }

    /// Whatever the pod sends to these addresses is lost.
    pub async fn cut(&self, pod: &Pod, ips: &[String]) -> Result<()> {
        let adds = ips
            .iter()
            .map(|ip| format!("nsenter -t $1 -n /bin/busybox ip route add blackhole {ip} 2>/dev/null"));
        let adds: Vec<String> = adds.collect();
        // It is there already: the same to us. That it is there is what is checked.
        let count = ips.len();
        let check = format!("[ $(nsenter -t $1 -n /bin/busybox ip route | grep -c ^blackhole) -ge {count} ]");
        self.in_pod(pod, &format!("{}\n{check}", adds.join("\n"))).await?;
        Ok(())
    }

    /// Bytes of the file system that holds the pod's data.
    pub async fn disk_bytes(&self, pod: &Pod) -> Result<u64> {
        let said = self
            .in_pod(pod, &format!("stat -f -c '%S %b' /proc/$1/root{}", pod.data))
            .await?;
        let numbers: Vec<u64> = said.split_whitespace().flat_map(str::parse).collect();
        match numbers[..] {
            [size, blocks] => Ok(size * blocks),
            _ => bail!("stat says no size: {said}"),
        }
    }

    /// Leaves no room on the pod's volume.
    pub async fn fill(&self, pod: &Pod) -> Result<()> {
        let file = format!("/proc/$1/root{}/{FILLER}", pod.data);
        // Whoever owns the directory could make a link of that name, which would lead to the node's own files.
        // At once where the file system can, and the rest by writing it.
        let script = format!(
            "[ -e {file} ] || [ -L {file} ] && exit 5\n\
             free() {{ stat -f -c '%S %a' /proc/$1/root{} | {{ read size blocks; echo $((size * blocks)); }}; }}\n\
             fallocate -l $(free $1) {file} 2>/dev/null\n\
             dd if=/dev/zero bs=64k >> {file} 2>/dev/null\n\
             [ $(free $1) -lt 4194304 ]",
            pod.data
        );
        self.in_pod(pod, &script).await?;
        Ok(())
    }
}

/// Undoes in these pods whatever an agent can have done: processes go on, routes and fillers go.
pub fn healing(pods: &[&Pod]) -> String {
    // An interrupted filling goes on where it was begun: it would make its file anew.
    let mut script = format!(
        "for directory in /proc/[0-9]*; do\n  case \"$(readlink $directory/fd/1)\" in *{FILLER}) \
         kill -KILL ${{directory#/proc/}} 2>/dev/null ;; esac\ndone\n"
    );
    for pod in pods {
        let data = match pod.data.is_empty() {
            true => String::new(),
            false => format!("  rm -f /proc/$pid/root{}/{FILLER}\n", pod.data),
        };
        let underscored = pod.uid.replace('-', "_");
        script.push_str(&format!(
            "for pid in $(pids '{}\\|{underscored}'); do\n  kill -CONT $pid 2>/dev/null\n{data}  \
             nsenter -t $pid -n /bin/busybox ip route 2>/dev/null | grep ^blackhole | while read kind to rest; do\n    \
             nsenter -t $pid -n /bin/busybox ip route del blackhole $to 2>/dev/null\n  done\ndone\n",
            pod.uid
        ));
    }
    script.push_str("true\n");
    script
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {
        MARK: "agents",
        "pod-security.kubernetes.io/enforce": "privileged",
        "pod-security.kubernetes.io/warn": "privileged",
        "pod-security.kubernetes.io/audit": "privileged",
    }}})
}

fn daemon_set(namespace: &str, image: &str) -> Value {
    let labels = json!({"app": NAME});
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": NAME, "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "hostPID": true,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            // Where pods that are shot at may be, there is an agent.
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": NAME, "image": image, "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/busybox", "sh", "-c", "trap exit TERM; while :; do sleep 3600 & wait $!; done"],
                "securityContext": {"privileged": true, "runAsUser": 0},
                // What it writes to a small disk of memory counts as its own.
                "resources": {
                    "requests": {"cpu": "10m", "memory": "16Mi"},
                    "limits": {"memory": format!("{}Mi", (disk::SMALL_BYTES >> 20) + 64)},
                },
            }],
        }}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::run::cluster::Component;

    #[test]
    fn healing_finds_a_pod_under_both_spellings_of_its_uid() {
        let pod = Pod {
            name: "p".into(),
            uid: "1a-2b".into(),
            node: "n".into(),
            ip: String::new(),
            component: Component::Peer,
            organisation: String::new(),
            ready: true,
            container_id: String::new(),
            data: "/data".into(),
        };
        let script = healing(&[&pod]);
        assert!(script.contains(r"'1a-2b\|1a_2b'"), "{script}");
        assert!(
            script.contains("rm -f /proc/$pid/root/data/medledger-chaos.fill"),
            "{script}"
        );
    }
}
