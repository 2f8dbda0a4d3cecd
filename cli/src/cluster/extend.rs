//! What a specification asks for beyond the network that is there: identities of new processes and people, and new
//! certificates in place of those that end soon. What the genesis fixed stays, or the extension is refused.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use protocol::identity::Certificate;

use crate::{
    ca::Authority,
    network::{
        Spec, found,
        layout::{Description, Layout},
        plan::{self, ATTESTER},
        spec::KafkaSpec,
    },
};

/// A certificate with less left is replaced.
const RENEW_SECONDS: i64 = 60 * 86_400;

/// Says which identities were issued.
pub fn extend(spec: &Spec, layout: &Layout) -> Result<Vec<String>> {
    let old = layout.read()?;
    let differences = old.spec.differences(&fixed(spec, &old.spec));
    ensure!(
        differences.is_empty(),
        "the network was founded otherwise, and this cannot change afterwards: {}",
        differences.join("; ")
    );
    let description = Description {
        channel_id: old.channel_id,
        contracts: old.contracts,
        ..plan::describe(spec)?
    };
    remove_old(&description, layout)?;
    let mut issued = Vec::new();
    for organisation in spec.organisation_names() {
        let authority = Authority::open(&layout.authority(&organisation))?;
        issued.extend(found::issue_missing(&authority, &description, layout)?);
    }
    layout.write(&description)?;
    Ok(issued)
}

/// `asked`, with everything that may change as it was founded.
fn fixed(asked: &Spec, founded: &Spec) -> Spec {
    let mut spec = asked.clone();
    for organisation in &mut spec.organisations {
        let before = founded.organisations.iter().find(|o| o.msp_id == organisation.msp_id);
        if let Some(before) = before {
            *organisation = before.clone();
        }
    }
    spec.orderers = founded.orderers.clone();
    // Brokers' names are in their certificate, and how many there are in the setting of each.
    let certify = asked.kafka.certify.clone();
    spec.kafka = KafkaSpec {
        certify,
        ..founded.kafka.clone()
    };
    spec.addresses = founded.addresses.clone();
    spec.log = founded.log.clone();
    (spec.orderer, spec.peer, spec.worker) = (founded.orderer.clone(), founded.peer.clone(), founded.worker.clone());
    (spec.allow_unsafe_topics, spec.flush_every_record) = (founded.allow_unsafe_topics, founded.flush_every_record);
    spec
}

/// Identities that end soon. The attester's is named by the genesis: another one would sign nothing that counts.
fn remove_old(description: &Description, layout: &Layout) -> Result<()> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock")?
        .as_secs() as i64;
    for identity in description
        .identities
        .iter()
        .filter(|identity| identity.name != ATTESTER)
    {
        let directory = layout.join(&identity.directory);
        let Ok(pem) = fs::read(directory.join("cert.pem")) else {
            continue;
        };
        let certificate = Certificate::parse_pem(&pem).with_context(|| directory.display().to_string())?;
        if certificate.not_after - now < RENEW_SECONDS {
            fs::remove_dir_all(&directory).with_context(|| directory.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::network::{
        silent,
        spec::{Address, ContractSpec},
    };

    /// The default network, elsewhere.
    pub fn spec() -> Spec {
        let mut spec = Spec::default();
        // A component without content is one all the same: what is tested here does not run it.
        spec.contracts = vec![ContractSpec {
            wasm: component(),
            ..spec.contracts[0].clone()
        }];
        spec.kafka.external = Some("kafka-0.example:9092".into());
        spec.kafka.certify = vec!["kafka-0.example".into()];
        addressed(spec)
    }

    fn component() -> std::path::PathBuf {
        let file = std::env::temp_dir().join(format!("medledger-empty-{}.wasm", std::process::id()));
        fs::write(&file, b"\0asm\x0d\0\x01\0").expect("a component");
        file
    }

    fn addressed(mut spec: Spec) -> Spec {
        spec.addresses.clear();
        let here = Spec {
            kafka: Default::default(),
            ..spec.clone()
        };
        let mut names: Vec<String> = plan::describe(&here)
            .expect("plan")
            .processes
            .into_iter()
            .map(|p| p.name)
            .collect();
        names.retain(|name| !name.starts_with("kafka"));
        let place = |name: String| {
            let host = format!("{}.example", name.replace('.', "-").to_lowercase());
            let address = Address {
                listen: format!("{host}:7050"),
                health: format!("{host}:9050"),
                names: Vec::new(),
            };
            (name, address)
        };
        spec.addresses = names.into_iter().map(place).collect();
        spec
    }

    pub fn founded() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().expect("directory");
        let layout = Layout::new(&directory.path().join("network")).expect("layout");
        found::found(&spec(), &layout, &silent).expect("founded");
        (directory, layout)
    }

    #[test]
    fn new_processes_get_identities_and_nobody_loses_one() {
        let (_directory, layout) = founded();
        let before = fs::read(layout.join("organisations/HospitalB/identities/peer0/cert.pem")).expect("there");
        let mut asked = spec();
        asked.organisations[1].peers = 3;
        asked.orderers.push("HospitalA".into());
        let issued = extend(&addressed(asked), &layout).expect("extended");
        assert_eq!(issued, ["HospitalA/orderer0", "HospitalB/peer1", "HospitalB/peer2"]);
        let after = fs::read(layout.join("organisations/HospitalB/identities/peer0/cert.pem")).expect("there");
        assert_eq!(before, after);
        let pem = fs::read(layout.join("organisations/HospitalB/identities/peer2/cert.pem")).expect("there");
        assert_eq!(Certificate::parse_pem(&pem).expect("ours").common_name, "peer2");
        assert_eq!(
            layout.read().expect("described").processes.len(),
            spec().addresses.len() + 3
        );
        assert_eq!(
            extend(&layout.read().expect("described").spec, &layout).expect("again"),
            [] as [&str; 0]
        );
    }

    #[test]
    fn what_the_genesis_fixed_is_refused_by_name() {
        let (_directory, layout) = founded();
        let mut asked = spec();
        asked.partitions = 8;
        let error = extend(&asked, &layout).expect_err("partitions are fixed").to_string();
        assert!(error.contains("partitions: founded with 2, asked for 8"), "{error}");
        let mut asked = spec();
        asked.kafka.certify.push("kafka-1.example".into());
        let error = extend(&asked, &layout).expect_err("brokers are fixed").to_string();
        assert!(
            error.contains("kafka.certify.1: founded with null, asked for"),
            "{error}"
        );
        let mut asked = spec();
        asked.organisations.pop();
        asked.orderers.pop();
        let error = extend(&addressed(asked), &layout)
            .expect_err("members are fixed")
            .to_string();
        assert!(error.contains("organisations.3"), "{error}");
    }
}
