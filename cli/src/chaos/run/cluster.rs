//! One release in its namespace: its pods, as far as faults and recovery are about them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::kubectl::{Kubectl, items, text};

pub const COMPONENT: &str = "app.kubernetes.io/component";
pub const ORGANISATION: &str = "medledger.io/organisation";
/// On everything that chaos made or changed, with what it did: whatever a killed run leaves is found by it.
pub const MARK: &str = "medledger.io/chaos";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    Kafka,
    Orderer,
    Peer,
    Worker,
}

impl Component {
    pub const ALL: [Component; 4] = [Component::Kafka, Component::Orderer, Component::Peer, Component::Worker];

    pub fn word(self) -> &'static str {
        match self {
            Component::Kafka => "kafka",
            Component::Orderer => "orderer",
            Component::Peer => "peer",
            Component::Worker => "worker",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    pub node: String,
    pub ip: String,
    pub component: Component,
    pub organisation: String,
    pub ready: bool,
    /// Of its main container, as the runtime knows it; empty before it started.
    pub container_id: String,
    /// Where its main container has the volume `data`; empty without.
    pub data: String,
}

#[derive(Clone, Debug)]
pub struct Cluster {
    pub kubectl: Kubectl,
    pub release: String,
    /// What the release's objects are called by.
    pub fullname: String,
}

impl Cluster {
    /// The release must have its tools, whose pod the load is made after.
    pub async fn find(namespace: &str, release: &str) -> Result<Self> {
        let kubectl = Kubectl {
            namespace: namespace.to_owned(),
        };
        let selector = format!("{COMPONENT}=tools,app.kubernetes.io/instance={release}");
        let found = kubectl.get(&["deployments", "--selector", &selector]).await?;
        let name = items(&found).first().map(|tools| text(tools, "/metadata/name"));
        let fullname = name.and_then(|name| name.strip_suffix("-tools"));
        let fullname = fullname.with_context(|| {
            format!(
                "namespace {namespace} has no release {release} with tools.enabled; NAMESPACE and RELEASE say which"
            )
        })?;
        Ok(Cluster {
            release: release.to_owned(),
            fullname: fullname.to_owned(),
            kubectl,
        })
    }

    /// As kubectl takes it.
    pub fn tools(&self) -> String {
        format!("deployment/{}-tools", self.fullname)
    }

    pub fn selector(&self) -> String {
        format!("app.kubernetes.io/instance={}", self.release)
    }

    /// The pods that faults are about, by name; those that are going away are not among them.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let listed = self.kubectl.get(&["pods", "--selector", &self.selector()]).await?;
        let mut pods: Vec<Pod> = items(&listed).iter().filter_map(pod).collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(pods)
    }

    pub async fn of(&self, component: Component) -> Result<Vec<Pod>> {
        let mut pods = self.pods().await?;
        pods.retain(|pod| pod.component == component);
        let kind = component.word();
        ensure!(!pods.is_empty(), "release {} has no pod of kind {kind}", self.release);
        Ok(pods)
    }

    pub async fn named(&self, name: &str) -> Result<Pod> {
        let pods = self.pods().await?;
        let found = pods.into_iter().find(|pod| pod.name == name);
        found.with_context(|| format!("there is no pod {name}"))
    }
}

fn pod(value: &Value) -> Option<Pod> {
    if value.pointer("/metadata/deletionTimestamp").is_some() || text(value, "/status/phase") == "Succeeded" {
        return None;
    }
    let label = |name: &str| value["metadata"]["labels"][name].as_str().unwrap_or_default();
    if !label(MARK).is_empty() {
        return None;
    }
    let component = Component::ALL
        .into_iter()
        .find(|component| component.word() == label(COMPONENT))?;
    let conditions = value.pointer("/status/conditions").and_then(Value::as_array);
    let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    let statuses = value.pointer("/status/containerStatuses").and_then(Value::as_array);
    let main = statuses.and_then(|all| all.iter().find(|status| status["name"] == component.word()));
    let id = main.map_or("", |status| text(status, "/containerID"));
    let containers = value.pointer("/spec/containers").and_then(Value::as_array);
    let main = containers.and_then(|all| all.iter().find(|container| container["name"] == component.word()));
    let mounts = main.and_then(|container| container["volumeMounts"].as_array());
    let data = mounts.and_then(|mounts| mounts.iter().find(|mount| mount["name"] == "data"));
    Some(Pod {
        name: text(value, "/metadata/name").to_owned(),
        uid: text(value, "/metadata/uid").to_owned(),
        node: text(value, "/spec/nodeName").to_owned(),
        ip: text(value, "/status/podIP").to_owned(),
        component,
        organisation: label(ORGANISATION).to_owned(),
        ready: conditions.is_some_and(|all| all.iter().any(is_ready)),
        // `containerd://…`
        container_id: id.rsplit('/').next().unwrap_or_default().to_owned(),
        data: data.map_or("", |mount| text(mount, "/mountPath")).to_owned(),
    })
}

/// Pods of these kinds whose container is not the one that it was, by name.
pub fn replaced(before: &[Pod], after: &[Pod], kinds: &[Component]) -> Vec<String> {
    let asked = before.iter().filter(|pod| kinds.contains(&pod.component));
    let is_there = |pod: &Pod| after.iter().any(|now| now.container_id == pod.container_id);
    asked.filter(|pod| !is_there(pod)).map(|pod| pod.name.clone()).collect()
}

/// How many pods of each kind and organisation there are: what must be there again after a fault.
pub fn census(pods: &[Pod]) -> BTreeMap<(Component, String), usize> {
    let mut census = BTreeMap::new();
    for pod in pods {
        *census.entry((pod.component, pod.organisation.clone())).or_default() += 1;
    }
    census
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value() -> Value {
        json!({
            "metadata": {"name": "medledger-hospital-a-peer-0", "uid": "u-1", "labels": {
                COMPONENT: "peer", ORGANISATION: "hospital-a", "app.kubernetes.io/instance": "medledger",
            }},
            "spec": {"nodeName": "node1", "containers": [
                {"name": "helper"},
                {"name": "peer", "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "data", "mountPath": "/data"}]},
            ]},
            "status": {"phase": "Running", "podIP": "10.0.0.7",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "helper", "containerID": "containerd://no"},
                    {"name": "peer", "containerID": "containerd://abc"}]},
        })
    }

    #[test]
    fn a_pod_is_read_from_what_kubectl_says() {
        let read = pod(&value()).expect("a peer");
        let expected = Pod {
            name: "medledger-hospital-a-peer-0".into(),
            uid: "u-1".into(),
            node: "node1".into(),
            ip: "10.0.0.7".into(),
            component: Component::Peer,
            organisation: "hospital-a".into(),
            ready: true,
            container_id: "abc".into(),
            data: "/data".into(),
        };
        assert_eq!(read, expected);
        assert_eq!(
            census(&[read.clone(), read])[&(Component::Peer, "hospital-a".to_owned())],
            2
        );
    }

    #[test]
    fn who_restarted_or_was_replaced_is_named() {
        let peer = pod(&value()).expect("a peer");
        let mut again = peer.clone();
        again.container_id = "def".into();
        let kinds = [Component::Peer];
        let (before, after) = ([peer], [again]);
        assert!(replaced(&before, &before, &kinds).is_empty());
        assert_eq!(replaced(&before, &after, &kinds), ["medledger-hospital-a-peer-0"]);
        assert!(replaced(&before, &after, &[Component::Orderer]).is_empty());
    }

    #[test]
    fn what_is_going_away_and_what_is_ours_is_no_target() {
        let mut going = value();
        going["metadata"]["deletionTimestamp"] = json!("2000-01-01T00:00:00Z");
        assert_eq!(pod(&going), None);
        let mut ours = value();
        ours["metadata"]["labels"][MARK] = json!("load");
        assert_eq!(pod(&ours), None);
        let mut tools = value();
        tools["metadata"]["labels"][COMPONENT] = json!("tools");
        assert_eq!(pod(&tools), None);
        let mut starting = value();
        starting["status"]["conditions"][0]["status"] = json!("False");
        assert!(!pod(&starting).expect("a peer").ready);
    }
}
