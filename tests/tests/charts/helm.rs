//! Helm, a YAML reader and Kubernetes' schemas, as the checks of charts use them.

use std::{
    collections::BTreeMap,
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use serde_json::Value;

/// What the schemas have, and what `helm template` is told: without a cluster it assumes an old one.
const KUBERNETES: &str = "1.34";

/// Kinds that operators bring along; Kubernetes' own schemas have none of them.
const CUSTOM: &[&str] = &[
    "cert-manager.io/v1 Certificate",
    "cert-manager.io/v1 Issuer",
    "chaos-mesh.org/v1alpha1 IOChaos",
    "chaos-mesh.org/v1alpha1 NetworkChaos",
    "chaos-mesh.org/v1alpha1 PodChaos",
    "chaos-mesh.org/v1alpha1 Schedule",
    "chaos-mesh.org/v1alpha1 TimeChaos",
    "chaos-mesh.org/v1alpha1 Workflow",
    "kafka.strimzi.io/v1 Kafka",
    "kafka.strimzi.io/v1 KafkaNodePool",
    "kafka.strimzi.io/v1 KafkaTopic",
    "kafka.strimzi.io/v1 KafkaUser",
    "keda.sh/v1alpha1 ScaledObject",
    "kind.x-k8s.io/v1alpha4 Cluster",
    "monitoring.coreos.com/v1 PodMonitor",
    "monitoring.coreos.com/v1 PrometheusRule",
    "snapshot.storage.k8s.io/v1 VolumeSnapshot",
    "snapshot.storage.k8s.io/v1 VolumeSnapshotClass",
    "snapshot.storage.k8s.io/v1 VolumeSnapshotContent",
];

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

pub fn chart() -> PathBuf {
    root().join("helm/medledger")
}

/// Files below `folder` whose name ends so, in order.
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Helm in PATH, or the one that the `kube` tool built. Without one nothing of the chart can be checked, and that is
/// said past the harness, which shows nothing of a test that passes.
pub fn helm() -> Option<PathBuf> {
    static HELM: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let kube = env::var_os("KUBE_HOME").map_or_else(|| home.join(".cache/kube"), PathBuf::from);
        let path = env::var_os("PATH").unwrap_or_default();
        let mut places: Vec<PathBuf> = env::split_paths(&path).collect();
        places.push(kube.join("bin"));
        let found = places
            .into_iter()
            .map(|place| place.join("helm"))
            .find(|file| file.is_file());
        if found.is_none() {
            let says = "\nNOT CHECKED: the chart. No helm in PATH nor in $KUBE_HOME/bin; install Helm 3\n\n";
            let _ = std::io::stderr().write_all(says.as_bytes());
        }
        found
    });
    HELM.clone()
}

fn run(command: &mut Command, input: &str) -> Result<String, String> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output().unwrap()
    });
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

/// `helm template` as text, or what helm says against it.
pub fn template(helm: &Path, values: &[&Path], sets: &[&str]) -> Result<String, String> {
    let mut command = Command::new(helm);
    command.args(["template", "medledger"]).arg(chart());
    command.args(["--namespace", "medledger", "--kube-version", KUBERNETES]);
    for file in values {
        command.arg("--values").arg(file);
    }
    for set in sets {
        command.args(["--set", set]);
    }
    run(&mut command, "")
}

pub fn lint(helm: &Path, values: &Path) -> Result<String, String> {
    let mut command = Command::new(helm);
    command.arg("lint").arg(chart()).args(["--strict", "--quiet"]);
    command.args(["--kube-version", KUBERNETES]).arg("--values").arg(values);
    run(&mut command, "")
}

pub fn render(helm: &Path, values: &[&Path], sets: &[&str]) -> Vec<Value> {
    let text = template(helm, values, sets).unwrap_or_else(|error| panic!("{values:?} {sets:?}: {error}"));
    documents(&text)
}

/// Python with a YAML reader and Kubernetes' schemas, fetched once.
fn python() -> &'static Path {
    static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
        let bin =
            run(&mut Command::new(root().join("tools/kubernetes-validate")), "").unwrap_or_else(|e| panic!("{e}"));
        Path::new(bin.trim()).join("python")
    });
    &PYTHON
}

/// The documents of a YAML stream; keys that stand twice are an error, which most readers hide.
pub fn documents(text: &str) -> Vec<Value> {
    const READ: &str = "
import json, sys, yaml
class Loader(yaml.CSafeLoader): pass
def mapping(loader, node):
    keys = [loader.construct_object(key) for key, _ in node.value if key.tag != 'tag:yaml.org,2002:merge']
    twice = {key for key in keys if keys.count(key) > 1}
    if twice: raise SystemExit(f'{node.start_mark}: twice: {twice}')
    return loader.construct_mapping(node, deep=True)
Loader.add_constructor('tag:yaml.org,2002:map', mapping)
json.dump([d for d in yaml.load_all(sys.stdin, Loader) if d is not None], sys.stdout)
";
    let json = run(Command::new(python()).args(["-c", READ]), text).unwrap_or_else(|error| panic!("{error}"));
    serde_json::from_str(&json).unwrap()
}

pub fn read(file: &Path) -> Vec<Value> {
    documents(&std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
}

/// What Kubernetes' schemas say against objects, unknown fields included; custom kinds must be in the list.
pub fn validate(objects: &[Value]) -> Result<(), String> {
    const VALIDATE: &str = "
import functools, json, sys, kubernetes_validate as k
# It reads all definitions anew for each object.
k.utils.schema_contents = functools.cache(k.utils.schema_contents)
for o in json.load(sys.stdin):
    try: k.validate(o, sys.argv[1], strict=True)
    except k.ValidationError as e: print(o['kind'], o['metadata']['name'], '.'.join(str(p) for p in e.path), e.message)
    except k.SchemaNotFoundError as e: print(e.message)
";
    let own: Vec<&Value> = objects
        .iter()
        .filter(|object| {
            !CUSTOM.contains(&format!("{} {}", text(object, "/apiVersion"), text(object, "/kind")).as_str())
        })
        .collect();
    let input = serde_json::to_string(&own).unwrap();
    let says = run(Command::new(python()).args(["-c", VALIDATE, KUBERNETES]), &input)?;
    if says.is_empty() { Ok(()) } else { Err(says) }
}

/// The text at a JSON pointer; empty where there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a JSON pointer; empty where there is none.
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The map of texts at a JSON pointer.
pub fn texts(value: &Value, pointer: &str) -> BTreeMap<String, String> {
    let map = value.pointer(pointer).and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// Kind and name, for messages.
pub fn name(object: &Value) -> String {
    format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"))
}

pub fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| text(object, "/kind") == kind)
}
