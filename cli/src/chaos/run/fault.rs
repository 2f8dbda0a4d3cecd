//! Each fault: how it is made. How it is undone is in `heal`, which needs to know nothing of what was made.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::time::Instant;

use super::{
    agent::Agents,
    cluster::{Cluster, Component, MARK, Pod},
    disk,
    experiments::{Fault, How, Which},
    heal,
    kubectl::{items, text},
    pod::{self, Load},
    recovery::{self, Before},
    volume,
};

/// How long faults last that do not pass by themselves.
const OUTAGE: Duration = Duration::from_secs(20);
const CUT: Duration = Duration::from_secs(30);
const FROZEN: Duration = Duration::from_secs(60);
/// Kubernetes takes 40 to 50 seconds to notice that a node is gone.
const DARK: Duration = Duration::from_secs(60);
/// A container that crashed often waits before it is started again.
const RESTARTED_WITHIN: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(500);
const DRAINED_WITHIN: Duration = Duration::from_secs(240);
const ROLLED_WITHIN: Duration = Duration::from_secs(300);
/// The chart's brokers look every ten seconds whether those lead that should.
const LEADS_AGAIN: Duration = Duration::from_secs(15);
const NO_SPARE: &str = "no organisation has a second peer";
/// Until a fault shows: the calls under way have ended.
const SHOWS: Duration = Duration::from_secs(10);

/// Everything that a fault is made with.
pub struct Scene<'a> {
    pub cluster: &'a Cluster,
    pub agents: &'a Agents,
    pub load: &'a Load,
    pub before: &'a Before,
}

/// How it went: what was hit, or why it cannot be tried here.
pub enum Made {
    /// `over`: when the fault was.
    Hit {
        what: String,
        over: Instant,
    },
    Skipped(String),
}

impl Made {
    fn now(what: String) -> Made {
        let over = Instant::now();
        Made::Hit { what, over }
    }
}

impl Scene<'_> {
    /// Makes the fault and undoes it; a fault that passes by itself is only made.
    pub async fn make(&self, fault: Fault) -> Result<Made> {
        if let Some(why) = self.lacks(fault).await? {
            return Ok(Made::Skipped(why));
        }
        let hit = match fault {
            Fault::Kill(how, which) => return self.kill(how, which).await,
            Fault::EachBroker => self.each_broker().await?,
            Fault::Outage => self.outage().await?,
            Fault::PowerCut => return self.power_cut().await,
            Fault::Drain => self.drain().await?,
            Fault::Roll => self.roll().await?,
            Fault::Upgrade => return self.upgrade().await,
            Fault::LosePeerVolume => self.lose(self.spare_peer().await?).await?,
            Fault::LoseBrokerVolume => self.lose(last(self.cluster.of(Component::Kafka).await?)?).await?,
            Fault::CutOff => self.cut_off().await?,
            Fault::FullDisk => return self.full_disk().await,
            Fault::Freeze => self.freeze().await?,
        };
        Ok(Made::now(hit))
    }

    /// What this release is without.
    async fn lacks(&self, fault: Fault) -> Result<Option<String>> {
        let pods = self.cluster.pods().await?;
        let of = |kind: Component| pods.iter().filter(move |pod| pod.component == kind);
        if let Some(none) = fault.needs().into_iter().find(|kind| of(*kind).next().is_none()) {
            return Ok(Some(format!("the release has no pod of kind {}", none.word())));
        }
        let needs_spare = matches!(fault, Fault::LosePeerVolume | Fault::FullDisk);
        let is_without = needs_spare && spare(of(Component::Peer).cloned().collect()).is_none();
        Ok(is_without.then(|| NO_SPARE.to_owned()))
    }

    async fn kill(&self, how: How, which: Which) -> Result<Made> {
        let pods: Vec<Pod> = match which {
            Which::One(component) => self.cluster.of(component).await?.into_iter().take(1).collect(),
            Which::All(component) => self.cluster.of(component).await?,
            Which::OfOrganisation(component) => largest(self.cluster.of(component).await?),
        };
        let made = Made::now(names(&pods));
        match how {
            How::Delete => self.delete(&pods).await?,
            How::Crash => self.crash(&pods).await?,
        }
        Ok(made)
    }

    /// The containers are started again when this returns: before, a pod may still be called ready.
    async fn crash(&self, pods: &[Pod]) -> Result<()> {
        for pod in pods {
            self.agents.signal(pod, "KILL").await?;
        }
        for pod in pods {
            let another = async || {
                let now = self.cluster.named(&pod.name).await?;
                anyhow::Ok(!now.container_id.is_empty() && now.container_id != pod.container_id)
            };
            let what = format!("{} is started again", pod.name);
            until(&what, RESTARTED_WITHIN, LOOK_EVERY, another).await?;
        }
        Ok(())
    }

    async fn delete(&self, pods: &[Pod]) -> Result<()> {
        let names = pods.iter().map(|pod| pod.name.as_str());
        self.cluster.kubectl.delete_at_once(names, &[]).await
    }

    async fn each_broker(&self) -> Result<String> {
        let brokers = self.cluster.of(Component::Kafka).await?;
        for (number, broker) in brokers.iter().enumerate() {
            if number > 0 {
                // The one before leads again what is its own: so every leader is hit.
                tokio::time::sleep(LEADS_AGAIN).await;
            }
            let broker = self.cluster.named(&broker.name).await?;
            self.crash(&[broker]).await?;
            recovery::recovered(self.cluster, self.before, self.load).await?;
        }
        Ok(format!("one after the other: {}", names(&brokers)))
    }

    /// All but the first broker go and stay away; writes are refused by name meanwhile, reads go on.
    async fn outage(&self) -> Result<String> {
        let brokers = self.cluster.of(Component::Kafka).await?;
        let set = format!("statefulset/{}-kafka", self.cluster.fullname);
        let note = format!("{}={}", heal::REPLICAS, brokers.len());
        let kubectl = &self.cluster.kubectl;
        kubectl.run(&["annotate", "--overwrite", &set, &note]).await?;
        kubectl.run(&["scale", "--replicas", "1", &set]).await?;
        self.delete(&brokers[1..]).await?;
        tokio::time::sleep(SHOWS).await;
        let shown = self.load.now().await?;
        tokio::time::sleep(OUTAGE).await;
        let later = self.load.now().await?;
        heal::replicas(self.cluster).await?;
        let (reads, acknowledged) = (
            later.reads - shown.reads,
            later.all.acknowledged - shown.all.acknowledged,
        );
        let refused = grown(&shown.words, &later.words);
        ensure!(
            reads > 0,
            "no read was answered while brokers were away; refusals: {refused:?}"
        );
        ensure!(
            acknowledged == 0,
            "{acknowledged} changes were acknowledged while one broker was left of {}",
            brokers.len()
        );
        ensure!(
            refused.contains_key("log_unavailable"),
            "changes were not refused by log_unavailable while brokers were away: {refused:?}"
        );
        Ok(format!(
            "{}: {reads} reads answered, refused by {refused:?}",
            names(&brokers[1..])
        ))
    }

    async fn power_cut(&self) -> Result<Made> {
        let (Some(stop), Some(_)) = (heal::hook(heal::NODE_STOP), heal::hook(heal::NODE_START)) else {
            let why = format!("{} and {} are not set", heal::NODE_STOP, heal::NODE_START);
            return Ok(Made::Skipped(why));
        };
        let own = self.cluster.kubectl.get(&["pod", &pod::name(self.cluster)]).await?;
        let own = text(&own, "/spec/nodeName");
        let mut nodes: BTreeMap<String, usize> = BTreeMap::new();
        for pod in self.cluster.pods().await? {
            *nodes.entry(pod.node).or_default() += 1;
        }
        for node in control_planes(self.cluster).await? {
            nodes.remove(&node);
        }
        nodes.remove(own);
        let Some((node, pods)) = nodes.into_iter().max_by_key(|(_, pods)| *pods) else {
            return Ok(Made::Skipped(
                "no node but the load's and the control plane's has pods".to_owned(),
            ));
        };
        let note = format!("{MARK}=stopped");
        self.cluster
            .kubectl
            .run(&["annotate", "--overwrite", "node", &node, &note])
            .await?;
        heal::run_hook(&stop, &node, heal::NODE_WITHIN).await?;
        tokio::time::sleep(DARK).await;
        let made = Made::now(format!("{node} with {pods} pods, dark for {} s", DARK.as_secs()));
        heal::nodes(self.cluster).await?;
        Ok(made)
    }

    async fn drain(&self) -> Result<String> {
        let nodes: std::collections::BTreeSet<String> =
            self.cluster.pods().await?.into_iter().map(|pod| pod.node).collect();
        let selector = format!("--pod-selector={},{MARK}!={}", self.cluster.selector(), pod::LOAD);
        let timeout = format!("--timeout={}s", DRAINED_WITHIN.as_secs());
        let kubectl = &self.cluster.kubectl;
        for node in &nodes {
            let note = format!("{MARK}=drained");
            kubectl.run(&["annotate", "--overwrite", "node", node, &note]).await?;
            let args = [
                "drain",
                node,
                "--ignore-daemonsets",
                "--delete-emptydir-data",
                &selector,
                &timeout,
            ];
            kubectl.within(&args, DRAINED_WITHIN + Duration::from_secs(10)).await?;
            heal::nodes(self.cluster).await?;
            recovery::recovered(self.cluster, self.before, self.load).await?;
        }
        Ok(nodes.into_iter().collect::<Vec<_>>().join(", "))
    }

    async fn roll(&self) -> Result<String> {
        let kubectl = &self.cluster.kubectl;
        let selector = self.cluster.selector();
        let kinds = "statefulsets,deployments";
        let listed = kubectl.get(&[kinds, "--selector", &selector]).await?;
        let tools = format!("{}-tools", self.cluster.fullname);
        let mut rolled = Vec::new();
        for workload in items(&listed)
            .iter()
            .filter(|workload| text(workload, "/metadata/name") != tools)
        {
            let (kind, name) = (text(workload, "/kind"), text(workload, "/metadata/name"));
            let which = format!("{}/{name}", kind.to_lowercase());
            kubectl.run(&["rollout", "restart", &which]).await?;
            let timeout = format!("--timeout={}s", ROLLED_WITHIN.as_secs());
            let args = ["rollout", "status", &which, &timeout];
            kubectl.within(&args, ROLLED_WITHIN + Duration::from_secs(10)).await?;
            rolled.push(name.to_owned());
        }
        ensure!(!rolled.is_empty(), "release {} has no workloads", self.cluster.release);
        Ok(format!("{} workloads, one after the other", rolled.len()))
    }

    async fn upgrade(&self) -> Result<Made> {
        let (Some(upgrade), Some(_)) = (heal::hook(heal::UPGRADE), heal::hook(heal::ROLLBACK)) else {
            let why = format!("{} and {} are not set", heal::UPGRADE, heal::ROLLBACK);
            return Ok(Made::Skipped(why));
        };
        let there = self
            .every_pod_another(heal::to_version(self.cluster, &upgrade), None)
            .await;
        let back = async {
            ensure!(heal::back_to_version(self.cluster).await?, "it is no other version");
            Ok(())
        };
        let back = self.every_pod_another(back, Some(self.before)).await;
        Ok(Made::now(format!("{} s there, {} s back", there?, back?)))
    }

    /// Every pod is another one after it; how many seconds it took. Which there must be then says `expected`: none, as
    /// many as there are, since another version's chart may have other numbers.
    async fn every_pod_another(
        &self,
        change: impl Future<Output = Result<()>>,
        expected: Option<&Before>,
    ) -> Result<u64> {
        let begun = Instant::now();
        let before = self.cluster.pods().await?;
        change.await?;
        match expected {
            Some(expected) => recovery::recovered(self.cluster, expected, self.load).await?,
            None => recovery::recovered(self.cluster, &Before::look(self.cluster).await?, self.load).await?,
        }
        let after = self.cluster.pods().await?;
        let same = before.iter().filter(|old| after.iter().any(|new| new.uid == old.uid));
        let same: Vec<Pod> = same.cloned().collect();
        ensure!(same.is_empty(), "left as they were: {}", names(&same));
        Ok(begun.elapsed().as_secs())
    }

    async fn spare_peer(&self) -> Result<Pod> {
        spare(self.cluster.of(Component::Peer).await?).context(NO_SPARE)
    }

    async fn lose(&self, pod: Pod) -> Result<String> {
        volume::lose(self.cluster, &pod).await?;
        Ok(format!("{} and its volume", pod.name))
    }

    /// One that has an orderer too, if there is one.
    async fn cut_off(&self) -> Result<String> {
        let brokers = self.cluster.of(Component::Kafka).await?;
        let ips: Vec<String> = brokers.into_iter().map(|pod| pod.ip).collect();
        let orderers = self.cluster.of(Component::Orderer).await?;
        let organisation = &orderers.first().context("no orderer")?.organisation;
        let mut pods = self.cluster.pods().await?;
        let reads_the_log = |pod: &Pod| matches!(pod.component, Component::Peer | Component::Orderer);
        pods.retain(|pod| reads_the_log(pod) && pod.organisation == *organisation);
        for pod in &pods {
            self.agents.cut(pod, &ips).await?;
        }
        tokio::time::sleep(CUT).await;
        heal::by_agents(self.cluster, self.agents).await?;
        Ok(format!("{} for {} s", names(&pods), CUT.as_secs()))
    }

    /// The volume itself, if it has an end of its own; else a small disk in its place.
    async fn full_disk(&self) -> Result<Made> {
        let mut peer = self.spare_peer().await?;
        let (bytes, asked) = (
            self.agents.disk_bytes(&peer).await?,
            volume::bytes(self.cluster, &peer).await?,
        );
        let shared = bytes > asked * 2;
        if shared {
            if !disk::cover(self.cluster, self.agents, &peer).await? {
                let why = format!("the disk of {}'s volume is not its own", peer.name);
                return Ok(Made::Skipped(why));
            }
            recovery::recovered(self.cluster, self.before, self.load).await?;
            peer = self.cluster.named(&peer.name).await?;
            let bytes = self.agents.disk_bytes(&peer).await?;
            ensure!(
                bytes <= disk::SMALL_BYTES,
                "{} is on a disk of {bytes} bytes, not on a small one",
                peer.name
            );
        }
        self.agents.fill(&peer).await?;
        tokio::time::sleep(CUT).await;
        heal::by_agents(self.cluster, self.agents).await?;
        if shared {
            // That it goes on by itself is shown before it gets its own volume back.
            recovery::recovered(self.cluster, self.before, self.load).await?;
            disk::uncover(self.cluster, self.agents).await?;
        }
        let which = if shared {
            "a small disk in its place"
        } else {
            "its volume"
        };
        Ok(Made::now(format!("{}, {which}, for {} s", peer.name, CUT.as_secs())))
    }

    async fn freeze(&self) -> Result<String> {
        let orderers = self.cluster.of(Component::Orderer).await?;
        let orderer = orderers.first().context("no orderer")?;
        self.agents.signal(orderer, "STOP").await?;
        tokio::time::sleep(FROZEN).await;
        heal::by_agents(self.cluster, self.agents).await?;
        Ok(format!("{} for {} s", orderer.name, FROZEN.as_secs()))
    }
}

async fn control_planes(cluster: &Cluster) -> Result<Vec<String>> {
    let selector = "node-role.kubernetes.io/control-plane";
    let listed = cluster.kubectl.get(&["nodes", "--selector", selector]).await?;
    let names = items(&listed)
        .iter()
        .map(|node| text(node, "/metadata/name").to_owned());
    Ok(names.collect())
}

/// The pods of the organisation that has most; of several the first by name.
fn largest(pods: Vec<Pod>) -> Vec<Pod> {
    let mut by: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
    for pod in pods {
        by.entry(pod.organisation.clone()).or_default().push(pod);
    }
    // Of equals `max_by_key` takes the last.
    by.into_values().rev().max_by_key(Vec::len).unwrap_or_default()
}

/// A peer that does not sign for its organisation and is not its only one: the last of the largest.
fn spare(peers: Vec<Pod>) -> Option<Pod> {
    let mut peers = largest(peers);
    if peers.len() > 1 { peers.pop() } else { None }
}

fn last(mut pods: Vec<Pod>) -> Result<Pod> {
    pods.pop().context("there is no such pod")
}

fn names(pods: &[Pod]) -> String {
    pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn grown(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let more = after
        .iter()
        .map(|(word, count)| (word.clone(), count - before.get(word).unwrap_or(&0)));
    more.filter(|(_, more)| *more > 0).collect()
}

/// Until something is so; for waits that are no recovery.
pub async fn until(
    what: &str,
    within: Duration,
    every: Duration,
    mut asked: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + within;
    while !asked().await? {
        ensure!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(every).await;
    }
    Ok(())
}
