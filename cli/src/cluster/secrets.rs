//! Which file of a network's directory is in which Secret.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

use crate::network::{
    layout::{Description, Layout, write_whole},
    plan::ATTESTER,
};

const LABEL: &str = "medledger.io/network";
/// Where each value belongs in the network's directory, by key.
const PATHS: &str = "medledger.io/paths";

/// How Secrets are called.
#[derive(Clone, Debug)]
pub struct Naming {
    pub prefix: String,
    /// By MSP id.
    pub slugs: BTreeMap<String, String>,
}

/// A label of a DNS name, as Kubernetes takes it.
pub fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=40).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

impl Naming {
    pub fn label(&self) -> String {
        format!("{LABEL}={}", self.prefix)
    }

    /// The Secret without which there is no network.
    pub fn network(&self) -> String {
        format!("{}-network", self.prefix)
    }

    fn of(&self, organisation: &str, kind: &str) -> Option<String> {
        Some(format!("{}-{}-{kind}", self.prefix, self.slugs.get(organisation)?))
    }

    /// Secret and key of a file; `None`: nobody in a cluster needs it.
    fn place(&self, path: &Path, description: &Description) -> Option<(String, String)> {
        let parts: Vec<&str> = path.components().map(part).collect::<Option<_>>()?;
        let network = |key: &str| Some((self.network(), key.to_owned()));
        let named = |kind: &str, key: &str| Some((format!("{}-{kind}", self.prefix), key.to_owned()));
        match parts[..] {
            ["network.json" | "genesis.bin"] => network(parts[0]),
            ["roots", file] => network(&format!("root.{file}")),
            ["channel.secret"] => named("channel-secret", "channel.secret"),
            ["modules", file] => named("modules", file),
            ["kafka", "authority", file] => named("kafka-ca", file),
            ["kafka", "broker.pem"] => named("kafka", "broker.pem"),
            // No secrets, and both sides' clients need the first.
            ["kafka", file] => named("kafka-trust", file),
            ["organisations", organisation, "ca", file] => Some((self.of(organisation, "ca")?, file.to_owned())),
            ["organisations", organisation, "identities", ATTESTER, file] => {
                Some((self.of(organisation, ATTESTER)?, file.to_owned()))
            }
            ["organisations", organisation, "identities", name, file] => {
                let identity = description.identities.iter();
                let mut identity = identity.filter(|i| i.organisation == organisation && i.name == name);
                let kind = match identity.next()?.role.as_str() {
                    role @ ("peer" | "orderer" | "worker") => role,
                    _ => "clients",
                };
                Some((self.of(organisation, kind)?, format!("{name}.{file}")))
            }
            ["processes", name, "guard"] => {
                let process = description.processes.iter().find(|process| process.name == name)?;
                Some((self.of(&process.organisation, ATTESTER)?, "guard".to_owned()))
            }
            _ => None,
        }
    }
}

fn part(component: Component<'_>) -> Option<&str> {
    match component {
        Component::Normal(part) => part.to_str(),
        _ => None,
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// In the network's directory.
    path: String,
    value: Vec<u8>,
}

/// Values by Secret and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    by_name: BTreeMap<String, BTreeMap<String, Entry>>,
}

impl Secrets {
    /// What a network's directory has for a cluster.
    pub fn collect(layout: &Layout, naming: &Naming) -> Result<Self> {
        let description = layout.read()?;
        let mut by_name: BTreeMap<String, BTreeMap<String, Entry>> = BTreeMap::new();
        for path in files(layout.root())? {
            let Some((secret, key)) = naming.place(&path, &description) else {
                continue;
            };
            let value = fs::read(layout.join(&path)).with_context(|| path.display().to_string())?;
            let path = path.to_string_lossy().into_owned();
            by_name.entry(secret).or_default().insert(key, Entry { path, value });
        }
        Ok(Secrets { by_name })
    }

    /// What the cluster has: Secrets as its API shows them.
    pub fn of(items: Vec<Value>) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        for item in items {
            let name = item["metadata"]["name"]
                .as_str()
                .context("a Secret without name")?
                .to_owned();
            let entries = entries(&item).with_context(|| format!("Secret {name}"))?;
            by_name.insert(name, entries);
        }
        Ok(Secrets { by_name })
    }

    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Writes everything to where it belongs.
    pub fn restore(&self, layout: &Layout) -> Result<()> {
        for entry in self.by_name.values().flat_map(BTreeMap::values) {
            let path = Path::new(&entry.path);
            ensure!(
                path.components().all(|component| part(component).is_some()),
                "{PATHS}: {:?} leaves the directory",
                entry.path
            );
            write_whole(&layout.join(path), &entry.value, true)?;
        }
        Ok(())
    }

    /// What some organisations need of it: theirs, without their authorities, and what all share.
    #[must_use]
    pub fn only(mut self, naming: &Naming, organisations: &[String]) -> Self {
        if organisations.is_empty() {
            return self;
        }
        let of = |organisation: &String, kind: &str| naming.of(organisation, kind).unwrap_or_default();
        for organisation in naming.slugs.keys() {
            let theirs = organisations.contains(organisation);
            for kind in ["ca", "peer", "orderer", "worker", "clients", ATTESTER] {
                if kind == "ca" || !theirs {
                    self.by_name.remove(&of(organisation, kind));
                }
            }
        }
        for kind in ["kafka", "kafka-ca"] {
            self.by_name.remove(&format!("{}-{kind}", naming.prefix));
        }
        self
    }

    /// As manifests, the network's own last.
    pub fn in_order<'a>(&'a self, naming: &'a Naming) -> impl Iterator<Item = Value> + 'a {
        let last = naming.network();
        let mut names: Vec<&String> = self.by_name.keys().collect();
        names.sort_by_key(|name| **name == last);
        names
            .into_iter()
            .map(move |name| manifest(name, &self.by_name[name], naming))
    }
}

fn manifest(name: &str, entries: &BTreeMap<String, Entry>, naming: &Naming) -> Value {
    let data: BTreeMap<&String, String> = entries
        .iter()
        .map(|(key, entry)| (key, BASE64.encode(&entry.value)))
        .collect();
    let paths: BTreeMap<&String, &String> = entries.iter().map(|(key, entry)| (key, &entry.path)).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": name,
            "labels": {LABEL: naming.prefix, "app.kubernetes.io/part-of": "medledger"},
            "annotations": {PATHS: json!(paths).to_string()},
        },
        "data": data,
    })
}

fn entries(item: &Value) -> Result<BTreeMap<String, Entry>> {
    let paths = item["metadata"]["annotations"][PATHS].as_str();
    let paths: BTreeMap<String, String> = serde_json::from_str(paths.unwrap_or("{}")).context(PATHS)?;
    let mut entries = BTreeMap::new();
    for (key, path) in paths {
        // A guard that was moved to its volume is named and not there.
        let Some(value) = item["data"][&key].as_str() else {
            continue;
        };
        let value = BASE64.decode(value).with_context(|| format!("{key}: is not base64"))?;
        entries.insert(key, Entry { path, value });
    }
    Ok(entries)
}

/// All files below, relative to it.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let at = root.join(&folder);
        for entry in fs::read_dir(&at).with_context(|| at.display().to_string())? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            match entry.file_type()?.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::extend::tests::{founded, spec};

    fn naming() -> Naming {
        let slug = |name: String| (name.clone(), name.to_lowercase());
        Naming {
            prefix: "care".into(),
            slugs: spec().organisation_names().into_iter().map(slug).collect(),
        }
    }

    #[test]
    fn a_network_comes_back_from_its_secrets_as_it_was() {
        let (_directory, layout) = founded();
        let secrets = Secrets::collect(&layout, &naming()).expect("collected");
        let shown: Vec<Value> = secrets.in_order(&naming()).collect();
        assert_eq!(shown.last().expect("some")["metadata"]["name"], "care-network");
        let back = Secrets::of(shown).expect("understood");
        assert_eq!(back, secrets);
        let directory = tempfile::tempdir().expect("directory");
        let restored = Layout::new(&directory.path().join("again")).expect("layout");
        back.restore(&restored).expect("written");
        assert_eq!(Secrets::collect(&restored, &naming()).expect("collected"), secrets);
        assert_eq!(
            restored.read().expect("network.json"),
            layout.read().expect("network.json")
        );
    }

    #[tokio::test]
    async fn a_peer_elsewhere_may_be_asked() {
        let (_directory, layout) = founded();
        let at = crate::args::At {
            network: layout.root().to_owned(),
            who: "HospitalA/physician".parse().expect("somebody"),
            peer: None,
        };
        let session = at.connect().expect("no process is looked for on this machine");
        assert_eq!(session.peer.name, "peer0.HospitalA");
    }

    #[test]
    fn keys_go_to_those_who_use_them_and_to_nobody_else() {
        let (_directory, layout) = founded();
        let secrets = Secrets::collect(&layout, &naming()).expect("collected");
        let holding = |file: &str| -> Vec<&String> {
            let with = secrets
                .by_name
                .iter()
                .filter(|(_, keys)| keys.keys().any(|key| key.ends_with(file)));
            with.map(|(name, _)| name).collect()
        };
        assert_eq!(holding("channel.secret"), ["care-channel-secret"]);
        assert!(
            holding("root-key.pem").iter().all(|name| name.ends_with("-ca")),
            "authorities only"
        );
        assert_eq!(holding("guard").len(), 4, "one attester per organisation");
        assert!(secrets.by_name["care-hospitala-peer"].contains_key("peer1.key.pem"));
        assert!(secrets.by_name["care-hospitala-clients"].contains_key("nurse.cert.pem"));
        assert!(
            !secrets.by_name["care-network"]
                .keys()
                .any(|key| key.contains("key.pem"))
        );
        let ours = secrets.clone().only(&naming(), &["HospitalB".to_owned()]);
        let names: Vec<&str> = ours.by_name.keys().map(String::as_str).collect();
        assert!(names.contains(&"care-hospitalb-peer") && names.contains(&"care-channel-secret"));
        assert!(
            !names
                .iter()
                .any(|name| name.ends_with("-ca") || name.contains("hospitala")),
            "{names:?}"
        );
    }

    #[test]
    fn paths_stay_in_the_directory() {
        let evil = json!({"metadata": {"name": "x", "annotations": {PATHS: "{\"k\": \"../../etc/passwd\"}"}}, "data": {"k": ""}});
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(&directory.path().join("a")).expect("layout");
        let error = Secrets::of(vec![evil])
            .expect("understood")
            .restore(&layout)
            .expect_err("leaves");
        assert!(error.to_string().contains("leaves the directory"), "{error}");
    }
}
