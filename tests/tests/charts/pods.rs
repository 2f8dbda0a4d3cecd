//! Pods that manifests make, and what every one of them must have.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::helm::{list, name, text, texts};

/// A pod as an object describes it.
pub struct Pod<'a> {
    pub object: &'a Value,
    /// With `metadata` and `spec`.
    pub template: &'a Value,
}

impl<'a> Pod<'a> {
    pub fn of(object: &'a Value) -> Option<Self> {
        let template = match text(object, "/kind") {
            "Pod" => Some(object),
            "Deployment" | "StatefulSet" | "Job" | "DaemonSet" => object.pointer("/spec/template"),
            "CronJob" => object.pointer("/spec/jobTemplate/spec/template"),
            _ => None,
        }?;
        Some(Pod { object, template })
    }

    pub fn labels(&self) -> BTreeMap<String, String> {
        texts(self.template, "/metadata/labels")
    }

    pub fn component(&self) -> String {
        let mut labels = self.labels();
        labels.remove("app.kubernetes.io/component").unwrap_or_default()
    }

    pub fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        list(self.template, "/spec/initContainers")
            .iter()
            .chain(list(self.template, "/spec/containers"))
    }

    /// Runs until it is told to end.
    pub fn stays(&self) -> bool {
        ["Deployment", "StatefulSet"].contains(&text(self.object, "/kind"))
    }

    /// More than one at a time, by number or by an autoscaler.
    pub fn several(&self) -> bool {
        let replicas = self
            .object
            .pointer("/spec/replicas")
            .map(|count| count.as_u64().unwrap_or(0));
        self.stays() && replicas != Some(1)
    }

    /// Everything that is not as it must be.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                complaints.push(format!("{}: {what}", name(self.object)));
            }
        };
        let spec = &self.template["spec"];
        let security = &spec["securityContext"];
        must(security["runAsNonRoot"] == true, "runAsNonRoot is not true");
        must(
            security["runAsUser"].as_u64().is_some_and(|user| user > 0),
            "runAsUser is root or not said",
        );
        must(
            security["seccompProfile"]["type"] == "RuntimeDefault",
            "the seccomp profile is not RuntimeDefault",
        );
        for shared in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
            must(spec[shared].is_null() || spec[shared] == false, shared);
        }
        for volume in list(spec, "/volumes") {
            must(volume["hostPath"].is_null(), "a hostPath volume");
        }
        // The founding writes Secrets, a backup makes snapshots; a peer's guard has its token as a volume of its own.
        let asks_kubernetes =
            ["founding"].contains(&self.component().as_str()) || text(self.object, "/kind") == "CronJob";
        must(
            spec["automountServiceAccountToken"] == asks_kubernetes,
            "automountServiceAccountToken is not what it should be",
        );
        for container in self.containers() {
            let of = |what: &str| format!("{}: {what}", text(container, "/name"));
            let security = &container["securityContext"];
            must(
                security["allowPrivilegeEscalation"] == false,
                &of("allowPrivilegeEscalation is not false"),
            );
            must(
                security["readOnlyRootFilesystem"] == true,
                &of("readOnlyRootFilesystem is not true"),
            );
            must(
                list(security, "/capabilities/drop")
                    .iter()
                    .any(|capability| capability == "ALL"),
                &of("capabilities are not all dropped"),
            );
            must(security["capabilities"]["add"].is_null(), &of("capabilities are added"));
            for resource in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
                let said = container["resources"].pointer(resource).is_some();
                must(said, &of(&format!("resources{resource} is not set")));
            }
            let image = text(container, "/image");
            let (_, last) = image.rsplit_once('/').unwrap_or(("", image));
            let tagged = last
                .split_once(':')
                .is_some_and(|(_, tag)| !tag.is_empty() && tag != "latest");
            must(
                tagged || image.contains("@sha256:"),
                &of("the image has no tag, or latest"),
            );
        }
        if self.stays() {
            let rules = list(spec, "/topologySpreadConstraints");
            must(!rules.is_empty(), "no topologySpreadConstraints");
            // What the API refuses at an install, and merges at an upgrade.
            let keys: std::collections::BTreeSet<String> = rules
                .iter()
                .map(|rule| format!("{} {}", rule["topologyKey"], rule["whenUnsatisfiable"]))
                .collect();
            must(keys.len() == rules.len(), "two topologySpreadConstraints of one key");
            // The tools' pod does nothing by itself: nothing can be asked.
            for container in list(spec, "/containers").iter().filter(|_| self.component() != "tools") {
                for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                    must(!container[probe].is_null(), probe);
                }
                if self.component() != "kafka" {
                    let path = |probe: &str| text(container, &format!("/{probe}/httpGet/path"));
                    let port = |probe: &str| text(container, &format!("/{probe}/httpGet/port"));
                    must(
                        path("livenessProbe") == "/livez",
                        "liveness asks more than whether it lives",
                    );
                    must(path("readinessProbe") == "/readyz", "readiness is not /readyz");
                    must(
                        port("livenessProbe") == "health" && port("readinessProbe") == "health",
                        "probes' port",
                    );
                }
            }
        }
        complaints
    }

    /// Where a container's volumes are.
    pub fn mounts(&self, container: &str) -> Option<Vec<&'a str>> {
        let container = self.containers().find(|c| text(c, "/name") == container)?;
        Some(
            list(container, "/volumeMounts")
                .iter()
                .map(|m| text(m, "/mountPath"))
                .collect(),
        )
    }
}

/// Whether a selector's labels are among a pod's.
pub fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
