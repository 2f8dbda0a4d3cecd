//! The chart in every mode, and the manifests beside it: rendered, held against Kubernetes' schemas and against what
//! every pod must have. A mode is a values file: `helm/medledger/ci/*.yaml` and `k8s/*/values.yaml`.

#[path = "charts/access.rs"]
mod access;
#[path = "charts/helm.rs"]
mod helm;
#[path = "charts/monitoring.rs"]
mod monitoring;
#[path = "charts/pods.rs"]
mod pods;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use helm::{chart, files, lint, list, name, of_kind, read, render, root, template, text, texts, validate};
use pods::{Pod, selects};
use protocol::{
    identity::{Certificate, Msp, Root},
    limits::{CONTROL_RECORD_BYTES_MAX, KAFKA_RECORD_BYTES_MAX},
};
use serde_json::{Value, json};

/// What Kafka's batch adds to a record, as `ledger-log` counts it.
const BATCH_OVERHEAD_BYTES: usize = 512;

fn modes() -> Vec<PathBuf> {
    let modes = files(&chart().join("ci"), ".yaml");
    assert!(modes.len() >= 6, "there are modes: {modes:?}");
    modes
        .into_iter()
        .chain(files(&root().join("k8s"), "values.yaml"))
        .collect()
}

/// Manifests beside the chart, by file.
fn beside() -> Vec<(PathBuf, Vec<Value>)> {
    let files = files(&root().join("k8s"), ".yaml");
    let manifests = files.into_iter().filter(|file| !file.ends_with("values.yaml"));
    let read: Vec<_> = manifests.map(|file| (file.clone(), read(&file))).collect();
    assert!(read.len() >= 10, "there are manifests beside the chart");
    read
}

fn beside_at(path: &str) -> Vec<Value> {
    read(&root().join("k8s").join(path))
}

/// Objects of every mode; nothing where helm is absent.
fn rendered() -> Vec<(PathBuf, Vec<Value>)> {
    static RENDERED: LazyLock<Vec<(PathBuf, Vec<Value>)>> = LazyLock::new(|| {
        let Some(helm) = helm::helm() else { return Vec::new() };
        let render = |mode: PathBuf| (mode.clone(), render(&helm, &[&mode], &[]));
        modes().into_iter().map(render).collect()
    });
    RENDERED.clone()
}

/// Objects of one mode; nothing where helm is absent.
fn rendered_with(mode: &str) -> Option<Vec<Value>> {
    let mut all = rendered().into_iter();
    let found = all.find(|(file, _)| file.ends_with(mode));
    assert!(found.is_some() || helm::helm().is_none(), "there is no mode {mode}");
    found.map(|(_, objects)| objects)
}

#[test]
fn every_mode_passes_helms_own_lint() {
    let Some(helm) = helm::helm() else { return };
    for mode in modes() {
        lint(&helm, &mode).unwrap_or_else(|error| panic!("{}: {error}", mode.display()));
    }
}

#[test]
fn every_mode_is_what_kubernetes_takes() {
    for (mode, objects) in rendered() {
        assert!(objects.len() > 5, "{} renders something", mode.display());
        validate(&objects).unwrap_or_else(|error| panic!("{}:\n{error}", mode.display()));
        let mut names = BTreeSet::new();
        for object in &objects {
            assert!(
                text(object, "/metadata/name").len() <= 63,
                "{}: the name is long",
                name(object)
            );
            assert!(
                names.insert(name(object)),
                "{}: twice in {}",
                name(object),
                mode.display()
            );
        }
    }
}

#[test]
fn what_stands_beside_the_chart_is_what_kubernetes_takes() {
    for (file, objects) in beside() {
        assert!(!objects.is_empty(), "{} has nothing", file.display());
        validate(&objects).unwrap_or_else(|error| panic!("{}:\n{error}", file.display()));
    }
}

#[test]
fn the_validator_finds_what_is_wrong() {
    let service = |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": spec});
    assert_eq!(validate(&[service(json!({"ports": [{"port": 1}]}))]), Ok(()));
    for (wrong, says) in [
        (service(json!({"ports": [{"port": "one"}]})), "ports"),
        (service(json!({"prots": []})), "prots"),
        (
            json!({"apiVersion": "apps/v2", "kind": "Deployment", "metadata": {"name": "x"}}),
            "Deployment",
        ),
        (
            json!({"apiVersion": "kafka.strimzi.io/v0", "kind": "Kafka", "metadata": {"name": "x"}}),
            "Kafka",
        ),
    ] {
        let error = validate(std::slice::from_ref(&wrong)).expect_err("is wrong");
        assert!(error.contains(says), "{wrong}: {error}");
    }
    let twice = std::panic::catch_unwind(|| helm::documents("a: 1\na: 2\n"));
    assert!(twice.is_err(), "a key that stands twice is an error");
}

#[test]
fn pods_have_no_rights_and_little_room() {
    let manifests = rendered().into_iter().chain(beside());
    let mut pods = 0;
    for (file, objects) in manifests {
        let found: Vec<String> = objects
            .iter()
            .filter_map(Pod::of)
            .inspect(|_| pods += 1)
            .flat_map(|pod| pod.complaints())
            .collect();
        assert!(found.is_empty(), "{}:\n{}", file.display(), found.join("\n"));
    }
    assert!(pods > 1);
    // Finds something in a pod that has nothing.
    let bare = json!({"kind": "Deployment", "metadata": {"name": "x"}, "spec": {"template": {"spec": {"containers": [{"image": "a:latest"}]}}}});
    let complaints = Pod::of(&bare).expect("a pod").complaints().join("\n");
    for what in [
        "runAsNonRoot",
        "seccomp",
        "capabilities",
        "readOnlyRoot",
        "memory",
        "latest",
        "readinessProbe",
        "topology",
    ] {
        assert!(complaints.contains(what), "{what} is missed:\n{complaints}");
    }
}

#[test]
fn who_has_company_is_not_drained_at_once() {
    for (mode, objects) in rendered() {
        for pod in objects.iter().filter_map(Pod::of).filter(Pod::several) {
            let budget = of_kind(&objects, "PodDisruptionBudget")
                .find(|budget| selects(&texts(budget, "/spec/selector/matchLabels"), &pod.labels()));
            assert!(
                budget.is_some(),
                "{}: {} has no PodDisruptionBudget",
                mode.display(),
                name(pod.object)
            );
        }
    }
}

#[test]
fn whoever_listens_is_behind_a_network_policy() {
    for (mode, objects) in rendered() {
        for pod in objects
            .iter()
            .filter_map(Pod::of)
            .filter(|pod| pod.stays() && pod.component() != "tools")
        {
            let policy = of_kind(&objects, "NetworkPolicy").find(|policy| {
                list(policy, "/spec/policyTypes").iter().any(|kind| kind == "Ingress")
                    && selects(&texts(policy, "/spec/podSelector/matchLabels"), &pod.labels())
            });
            assert!(
                policy.is_some(),
                "{}: anybody reaches {}",
                mode.display(),
                name(pod.object)
            );
        }
    }
}

#[test]
fn a_workload_finds_its_own_pods_and_nobody_elses() {
    for (mode, objects) in rendered() {
        let pods: Vec<Pod> = objects.iter().filter_map(Pod::of).filter(Pod::stays).collect();
        for owner in &pods {
            let selector = texts(owner.object, "/spec/selector/matchLabels");
            let found: Vec<String> = pods
                .iter()
                .filter(|pod| selects(&selector, &pod.labels()))
                .map(|pod| name(pod.object))
                .collect();
            assert_eq!(found, [name(owner.object)], "{}: {selector:?}", mode.display());
        }
        for pod in &pods {
            for volume in list(pod.template, "/spec/volumes") {
                let map = text(volume, "/configMap/name");
                let there = map.is_empty() || of_kind(&objects, "ConfigMap").any(|o| text(o, "/metadata/name") == map);
                assert!(
                    there,
                    "{}: {} mounts {map}, which nobody makes",
                    mode.display(),
                    name(pod.object)
                );
            }
        }
    }
}

#[test]
fn config_maps_hold_no_secrets() {
    for (file, objects) in rendered().into_iter().chain(beside()) {
        for map in of_kind(&objects, "ConfigMap") {
            for (key, value) in texts(map, "/data") {
                for word in ["PRIVATE KEY", "password", "passwd", "sasl.jaas"] {
                    let says = key.contains(word) || value.contains(word);
                    assert!(!says, "{}: {}: {key} says {word}", file.display(), name(map));
                }
            }
        }
        let secret = of_kind(&objects, "Secret").next().map(name);
        assert_eq!(
            secret,
            None,
            "{}: keys are made by the founding, never rendered",
            file.display()
        );
    }
}

#[test]
fn who_is_told_of_a_file_with_passwords_has_it() {
    let Some(objects) = rendered_with("ci/passwords.yaml") else {
        return;
    };
    let told: Vec<_> = of_kind(&objects, "ConfigMap")
        .flat_map(|map| texts(map, "/data"))
        .filter(|(_, text)| text.contains(r#""properties_file" = "/kafka/client.properties""#))
        .map(|(key, _)| key)
        .collect();
    assert!(told.len() >= 7, "two orderers and five peers: {told:?}");
    let tools = of_kind(&objects, "Deployment").find(|object| name(object).ends_with("-tools"));
    let tools = tools.expect("a pod that verifies");
    let env = list(tools, "/spec/template/spec/containers/0/env");
    let file = json!({"name": "MEDLEDGER_KAFKA_PROPERTIES_FILE", "value": "/kafka/client.properties"});
    assert!(env.contains(&file), "{env:?}");
    for set in of_kind(&objects, "StatefulSet").chain([tools]) {
        let mut paths = Vec::new();
        let volumes = list(set, "/spec/template/spec/volumes");
        let kafka = volumes.iter().find(|volume| volume["name"] == "kafka");
        having(kafka.expect("a volume"), "path", &mut paths);
        let has = |path: &str| paths.iter().any(|item| item["path"] == path);
        assert!(has("client.properties"), "{} has no password", name(set));
        assert!(!has("cert.pem"), "{} has a certificate that nobody gave", name(set));
    }
}

#[test]
fn rendering_twice_gives_the_same() {
    let Some(helm) = helm::helm() else { return };
    for mode in modes() {
        let render = || template(&helm, &[&mode], &[]).unwrap();
        assert_eq!(render(), render(), "{}: something is random", mode.display());
    }
}

#[test]
fn every_image_is_the_values() {
    let Some(helm) = helm::helm() else { return };
    let digest = format!("sha256:{}", "0a".repeat(32));
    let tags = [
        "image.registry=registry.example/ours",
        "image.tag=7.8.9",
        "kafka.bundled.image.repository=registry.example/ours/kafka",
        "kafka.bundled.image.tag=7.8.9",
    ];
    let mut by_digest: Vec<String> = ["orderer", "peer", "worker", "tools"]
        .map(|role| format!("image.digests.{role}={digest}"))
        .into();
    by_digest.push(format!("kafka.bundled.image.digest={digest}"));
    let digests: Vec<&str> = tags.into_iter().chain(by_digest.iter().map(String::as_str)).collect();
    for (sets, ending) in [(&tags[..], ":7.8.9"), (&digests[..], &*format!("@{digest}"))] {
        for mode in modes() {
            let objects = render(&helm, &[&mode], sets);
            for container in objects.iter().filter_map(Pod::of).flat_map(|pod| pod.containers()) {
                let image = text(container, "/image");
                let ours = image.starts_with("registry.example/ours/") && image.ends_with(ending);
                assert!(ours, "{}: {image} with {sets:?}", mode.display());
            }
        }
    }
}

#[test]
fn bad_values_are_refused_by_the_name_of_their_field() {
    let Some(helm) = helm::helm() else { return };
    for (set, field) in [
        ("certificates.mode=none", "/certificates/mode"),
        ("certificates.secretPrefix=Care_1", "/certificates/secretPrefix"),
        ("channel.name=Medical", "/channel/name"),
        ("channel.partitions=0", "/channel/partitions"),
        ("image.digests.peer=sha256:12", "/image/digests/peer"),
        ("image.tag=latest", "/image/tag"),
        ("kafak.mode=bundled", "kafak"),
        ("kafka.bundled.clusterId=short", "/kafka/bundled/clusterId"),
        ("kafka.bundled.replicas=2", "/kafka/bundled/replicas"),
        ("kafka.mode=external", "/kafka/brokers"),
        ("kafka.mode=rabbit", "/kafka/mode"),
        (
            "kafka.properties.sasl\\.password=guessed",
            "kafka.properties.sasl.password",
        ),
        (
            "kafka.properties.ssl\\.key\\.pem=guessed",
            "kafka.properties.ssl.key.pem",
        ),
        (
            "kafka.properties.ssl\\.ca\\.pem=two\nlines",
            "kafka.properties.ssl.ca.pem",
        ),
        (
            "orderer.settings.kafka.properties.sasl\\.password=guessed",
            "kafka.properties.sasl.password",
        ),
        (
            "kafka.users.peer.properties=client.properties",
            "kafka.users.peer.secret",
        ),
        ("organisations.hospital-a.mspId=a b", "/organisations/hospital-a/mspId"),
        (
            "organisations.hospital-a.peers.replicas=-1",
            "/organisations/hospital-a/peers/replicas",
        ),
        (
            "organisations.hospital-b.mspId=HospitalA",
            "organisations.hospital-b.mspId",
        ),
        ("organisations.Hospital_A.mspId=X", "Hospital_A"),
        ("peer.persistence.size=lots", "/peer/persistence/size"),
        ("terminationGracePeriodSeconds=5", "/terminationGracePeriodSeconds"),
        (
            "topologySpread.whenUnsatisfiable=Perhaps",
            "/topologySpread/whenUnsatisfiable",
        ),
        ("worker.autoscaling.mode=maybe", "/worker/autoscaling/mode"),
        (
            "organisations.ministry.orderers.replicas=0,organisations.relief-org.orderers.replicas=0",
            "orderers.replicas",
        ),
    ] {
        let Err(error) = template(&helm, &[], &[set]) else {
            panic!("{set} is taken");
        };
        assert!(error.contains(field), "{set}: {error}");
    }
}

/// The rules of `libs/protocol/src/identity` that cert-manager would break by its defaults.
fn keeps_the_profile(certificate: &Value) {
    let of = name(certificate);
    let subject: BTreeSet<String> = certificate["spec"]["subject"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        subject,
        ["organizationalUnits", "organizations"].map(String::from).into(),
        "{of}"
    );
    for one in [
        "/spec/subject/organizations",
        "/spec/subject/organizationalUnits",
        "/spec/dnsNames",
    ] {
        assert!(!list(certificate, one).is_empty(), "{of}: {one}");
    }
    assert_eq!(list(certificate, "/spec/subject/organizations").len(), 1, "{of}");
    let role = list(certificate, "/spec/subject/organizationalUnits");
    assert!(
        matches!(role, [role] if ["orderer", "peer", "worker"].iter().any(|r| role == r)),
        "{of}: {role:?}"
    );
    assert!(!text(certificate, "/spec/commonName").is_empty(), "{of}");
    let key = &certificate["spec"]["privateKey"];
    let allowed = key["algorithm"] == "Ed25519" || (key["algorithm"] == "ECDSA" && key["size"] == 256);
    assert!(allowed && key["encoding"] == "PKCS8", "{of}: {key}");
    let usages: BTreeSet<&str> = list(certificate, "/spec/usages")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(
        usages,
        ["client auth", "digital signature", "server auth"].into(),
        "{of}"
    );
    assert!(certificate["spec"]["isCA"].is_null(), "{of}");
}

#[test]
fn cert_managers_certificates_keep_the_profile() {
    let issuers = beside_at("cert-manager/issuers.yaml");
    keeps_the_profile(&beside_at("cert-manager/certificate.yaml")[0]);
    let Some(helm) = helm::helm() else { return };
    let objects = render(&helm, &[&root().join("k8s/cert-manager/values.yaml")], &[]);
    let certificates: Vec<&Value> = of_kind(&objects, "Certificate").collect();
    assert!(certificates.len() >= 11, "one for each process: {}", certificates.len());
    for certificate in &certificates {
        keeps_the_profile(certificate);
        let issuer = text(certificate, "/spec/issuerRef/name");
        let known = issuers.iter().any(|object| text(object, "/metadata/name") == issuer);
        assert!(known, "{}: no Issuer {issuer}", name(certificate));
    }
    // Whoever mounts one finds one.
    let made: BTreeSet<&str> = certificates.iter().map(|c| text(c, "/spec/secretName")).collect();
    let mut mounted = 0;
    for pod in objects.iter().filter_map(Pod::of) {
        for source in list(pod.template, "/spec/volumes")
            .iter()
            .flat_map(|v| list(v, "/projected/sources"))
        {
            let secret = text(source, "/secret/name");
            if secret.ends_with("-tls") {
                mounted += 1;
                assert!(made.contains(secret), "{}: nobody makes {secret}", name(pod.object));
            }
        }
    }
    assert_eq!(mounted, certificates.len(), "each is some process's");
}

/// `charts/leaf.pem` was signed by Go's `crypto/x509`, from a template as cert-manager's authority makes it of the
/// chart's Certificate, with the root that `medledger ca init` made.
#[test]
fn what_cert_managers_library_signs_is_a_members() {
    let pem = |file: &str| std::fs::read(root().join("tests/tests/charts").join(file)).unwrap();
    let root = Root::parse_pem(&pem("root.pem")).expect("a root");
    let leaf = Certificate::parse_pem(&pem("leaf.pem")).expect("the profile");
    assert_eq!((&*leaf.msp_id, &*leaf.common_name), ("HospitalA", "peer0"));
    let msp_id = root.msp_id.clone();
    let revoked = BTreeSet::new();
    assert_eq!(Msp { msp_id, root, revoked }.verify(&leaf), Ok(()));
}

#[test]
fn strimzis_kafka_is_what_the_ledger_demands() {
    let users = beside_at("strimzi/users.yaml");
    let values = &read(&root().join("k8s/strimzi/values.yaml"))[0];
    for role in ["orderer", "peer", "tools"] {
        let secret = text(values, &format!("/kafka/users/{role}/secret"));
        let user = users.iter().find(|user| text(user, "/metadata/name") == secret);
        let acls = list(
            user.unwrap_or_else(|| panic!("no user {secret}")),
            "/spec/authorization/acls",
        );
        let writes: Vec<&str> = acls
            .iter()
            .filter(|acl| list(acl, "/operations").iter().any(|o| o == "Write" || o == "All"))
            .map(|acl| text(acl, "/resource/name"))
            .collect();
        let expected: &[&str] = match role {
            "orderer" => &["medledger.medical.tx", "medledger.medical.control"],
            "peer" => &["medledger.medical.attest"],
            _ => &[],
        };
        assert_eq!(writes, expected, "{role}");
        assert!(
            acls.iter().all(|acl| acl["resource"]["type"] == "topic"),
            "{role}: no transactions, no groups"
        );
    }
    let topics = beside_at("strimzi/topics.yaml");
    assert_eq!(topics.len(), 3);
    for topic in &topics {
        let of = name(topic);
        let record = if of.ends_with(".control") {
            CONTROL_RECORD_BYTES_MAX
        } else {
            KAFKA_RECORD_BYTES_MAX
        };
        let config = &topic["spec"]["config"];
        assert_eq!(config["max.message.bytes"], record + BATCH_OVERHEAD_BYTES, "{of}");
        assert_eq!(topic["spec"]["replicas"], 3, "{of}");
        for (setting, required) in [
            ("min.insync.replicas", json!(2)),
            ("unclean.leader.election.enable", json!(false)),
            ("cleanup.policy", json!("delete")),
            ("retention.ms", json!(-1)),
            ("retention.bytes", json!(-1)),
            ("compression.type", json!("uncompressed")),
        ] {
            assert_eq!(config[setting], required, "{of}: {setting}");
        }
    }
    for file in ["strimzi/kafka.yaml", "zones/kafka.yaml"] {
        let objects = beside_at(file);
        let kafka = of_kind(&objects, "Kafka").next().expect("a Kafka");
        assert_eq!(kafka["spec"]["kafka"]["authorization"]["type"], "simple", "{file}");
        let listeners = list(kafka, "/spec/kafka/listeners");
        let closed = |l: &Value| l["tls"] == true && l["authentication"]["type"] == "tls";
        assert!(
            !listeners.is_empty() && listeners.iter().all(closed),
            "{file}: only TLS with certificates"
        );
        let controllers: u64 = of_kind(&objects, "KafkaNodePool")
            .filter(|pool| list(pool, "/spec/roles").iter().any(|role| role == "controller"))
            .map(|pool| pool["spec"]["replicas"].as_u64().unwrap())
            .sum();
        assert_eq!(
            controllers % 2,
            1,
            "{file}: an even number of controllers has no better majority"
        );
    }
}

/// All objects in `value`, at any depth, that have `key`.
fn having<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            if map.contains_key(key) {
                found.push(value);
            }
            map.values().for_each(|inner| having(inner, key, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| having(inner, key, found)),
        _ => {}
    }
}

#[test]
fn faults_and_backups_hit_what_the_chart_makes() {
    let Some(helm) = helm::helm() else { return };
    let objects = render(&helm, &[], &[]);
    let pods: Vec<Pod> = objects.iter().filter_map(Pod::of).filter(Pod::stays).collect();
    let mut checked = 0;
    for file in files(&root().join("k8s/chaos-mesh"), ".yaml") {
        for fault in read(&file) {
            let mut faults = Vec::new();
            having(&fault, "selector", &mut faults);
            for fault in faults {
                let labels = texts(fault, "/selector/labelSelectors");
                assert_eq!(
                    fault["selector"]["namespaces"],
                    json!(["medledger"]),
                    "{}",
                    file.display()
                );
                let hit: Vec<&Pod> = pods.iter().filter(|pod| selects(&labels, &pod.labels())).collect();
                assert!(
                    !labels.is_empty() && !hit.is_empty(),
                    "{}: {labels:?} hits nobody",
                    file.display()
                );
                for container in list(fault, "/containerNames").iter().filter_map(Value::as_str) {
                    let volume = text(fault, "/volumePath");
                    for pod in &hit {
                        let mounts = pod.mounts(container);
                        let mounts = mounts.unwrap_or_else(|| panic!("{}: no container {container}", name(pod.object)));
                        assert!(
                            volume.is_empty() || mounts.contains(&volume),
                            "{}: {volume}",
                            name(pod.object)
                        );
                    }
                }
                checked += 1;
            }
        }
    }
    assert!(checked >= 15, "{checked} selectors");
    let claims: BTreeSet<String> = of_kind(&objects, "StatefulSet")
        .flat_map(|set| {
            let count = set["spec"]["replicas"].as_u64().unwrap();
            let templates = list(set, "/spec/volumeClaimTemplates").iter();
            templates.flat_map(move |claim| {
                (0..count)
                    .map(move |i| format!("{}-{}-{i}", text(claim, "/metadata/name"), text(set, "/metadata/name")))
            })
        })
        .collect();
    let backup = beside_at("backup/peer.yaml");
    let snapshots = of_kind(&backup, "ConfigMap").flat_map(|map| texts(map, "/data").into_values());
    let mut saved = BTreeSet::new();
    for snapshot in snapshots.flat_map(|text| helm::documents(&text)) {
        validate(std::slice::from_ref(&snapshot)).unwrap();
        let claim = text(&snapshot, "/spec/source/persistentVolumeClaimName").to_owned();
        assert!(claims.contains(&claim), "{claim} is none of the chart's: {claims:?}");
        assert!(!claim.starts_with("guard-"), "a guard never comes back from a copy");
        saved.insert(text(&snapshot, "/metadata/name").to_owned());
    }
    assert_eq!(saved.len(), 2, "one is whole while the other is made");
}

#[test]
fn backup_and_chaos_have_one_busybox() {
    let images = |file: &str| -> BTreeSet<String> {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let found = text.match_indices("docker.io/library/busybox").map(|(at, _)| {
            let end = text[at..].find(['"', '}']).unwrap();
            text[at..at + end].to_owned()
        });
        found.collect()
    };
    let of_chaos = images("cli/src/chaos/run.rs");
    assert_eq!(of_chaos.len(), 1, "{of_chaos:?}");
    assert_eq!(images("k8s/backup/network"), of_chaos);
}

#[test]
fn scripts_are_read_by_their_shell() {
    let tracked = std::process::Command::new("git")
        .args(["ls-files"])
        .current_dir(root())
        .output()
        .unwrap();
    let tracked = String::from_utf8(tracked.stdout).unwrap();
    let is_script = |file: &PathBuf| {
        let begin = std::fs::read(file).unwrap_or_default();
        begin.starts_with(b"#!")
            && begin
                .split(|byte| *byte == b'\n')
                .next()
                .is_some_and(|line| line.ends_with(b"sh"))
    };
    let scripts: Vec<PathBuf> = tracked
        .lines()
        .map(|file| root().join(file))
        .filter(is_script)
        .collect();
    assert!(scripts.len() > 10, "{scripts:?}");
    for script in scripts {
        let check = std::process::Command::new("bash")
            .arg("-n")
            .arg::<&Path>(&script)
            .output()
            .unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    }
}
