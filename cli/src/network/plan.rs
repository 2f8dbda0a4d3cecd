//! Which processes and identities a specification means, and on which ports.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};

use super::{
    layout::{Description, IdentityEntry, Kind, Layout, Process, directory_of},
    ports::Ports,
    spec::{Address, OrganisationSpec, Spec},
};

/// Names that every organisation has.
pub const ADMIN: &str = "admin";
pub const ATTESTER: &str = "attester";

/// Everything but what founding the channel adds: its id, and the contracts' digests.
pub fn describe(spec: &Spec) -> Result<Description> {
    spec.check()?;
    let mut processes = Vec::new();
    let mut places = match spec.addresses.is_empty() {
        true => Places::Here(Ports::reserve(spec.base_port, ports_needed(spec))?),
        false => Places::Elsewhere(spec.addresses.clone()),
    };
    let kafka = match &spec.kafka.external {
        Some(brokers) => brokers.clone(),
        None => brokers(spec, &mut places, &mut processes)?,
    };
    for (i, organisation) in spec.orderers.iter().enumerate() {
        // Numbered within its organisation: others may add orderers.
        let before = spec.orderers[..i].iter().filter(|other| *other == organisation).count();
        let identity = Layout::identity(organisation, &format!("orderer{before}"));
        let name = format!("orderer{i}");
        processes.push(process(name, Kind::Orderer, organisation, identity, &mut places)?);
    }
    for organisation in &spec.organisations {
        for (kind, count) in [(Kind::Worker, organisation.workers), (Kind::Peer, organisation.peers)] {
            for i in 0..count {
                let identity = Layout::identity(&organisation.msp_id, &format!("{kind}{i}"));
                let name = format!("{kind}{i}.{}", organisation.msp_id);
                let mut process = process(name, kind, &organisation.msp_id, identity, &mut places)?;
                process.attester = kind == Kind::Peer && i == 0;
                processes.push(process);
            }
        }
    }
    places.all_used()?;
    Ok(Description {
        channel: spec.channel.clone(),
        channel_id: String::new(),
        partitions: spec.partitions,
        kafka,
        remote: !spec.addresses.is_empty(),
        processes,
        identities: spec
            .organisations
            .iter()
            .flat_map(|organisation| identities(spec, organisation))
            .collect(),
        contracts: Vec::new(),
        spec: spec.clone(),
    })
}

/// Where processes get their addresses from.
enum Places {
    Here(Ports),
    /// Those that are not taken yet.
    Elsewhere(BTreeMap<String, Address>),
}

impl Places {
    fn of(&mut self, name: &str, kind: Kind) -> Result<Address> {
        let local = |ports: &mut Ports| anyhow::Ok(format!("127.0.0.1:{}", ports.take()?));
        match self {
            Places::Elsewhere(places) => places.remove(name).with_context(|| {
                format!("addresses.{name}: is missing; where processes are must be said of all or none")
            }),
            Places::Here(ports) => {
                let health = match kind {
                    Kind::Broker => String::new(),
                    _ => local(ports)?,
                };
                let listen = local(ports)?;
                if kind == Kind::Broker {
                    // Broker and controller, in turn.
                    ports.take()?;
                }
                Ok(Address {
                    listen,
                    health,
                    names: Vec::new(),
                })
            }
        }
    }

    fn all_used(&self) -> Result<()> {
        if let Places::Elsewhere(places) = self
            && let Some(name) = places.keys().next()
        {
            bail!("addresses.{name}: no process of this network is called so");
        }
        Ok(())
    }
}

fn process(
    name: String,
    kind: Kind,
    organisation: &str,
    identity: std::path::PathBuf,
    places: &mut Places,
) -> Result<Process> {
    let directory = directory_of(&name);
    let address = places.of(&name, kind)?;
    Ok(Process {
        kind,
        organisation: organisation.to_owned(),
        listen: address.listen,
        health: address.health,
        names: address.names,
        identity,
        pid_file: directory.join("pid"),
        log_file: directory.join("log"),
        name,
        attester: false,
    })
}

fn brokers(spec: &Spec, places: &mut Places, processes: &mut Vec<Process>) -> Result<String> {
    let mut addresses = Vec::new();
    for i in 0..spec.kafka.brokers {
        let mut broker = process(format!("kafka{i}"), Kind::Broker, "", Default::default(), places)?;
        let directory = super::brokers::directory_of(i);
        (broker.pid_file, broker.log_file) = (directory.join("kafka.pid"), directory.join("kafka.log"));
        addresses.push(broker.listen.clone());
        processes.push(broker);
    }
    Ok(addresses.join(","))
}

fn ports_needed(spec: &Spec) -> u16 {
    let brokers = if spec.kafka.external.is_some() {
        0
    } else {
        spec.kafka.brokers
    };
    let ours: u32 = spec.organisations.iter().map(|o| o.peers + o.workers).sum();
    // The controllers' listeners of the brokers, and two for each of our own.
    u16::try_from(2 * brokers + 2 * (ours + spec.orderers.len() as u32)).unwrap_or(u16::MAX)
}

fn identities(spec: &Spec, organisation: &OrganisationSpec) -> Vec<IdentityEntry> {
    let entry = |name: String, role: &str, attributes: &BTreeMap<String, String>| IdentityEntry {
        organisation: organisation.msp_id.clone(),
        directory: Layout::identity(&organisation.msp_id, &name),
        name,
        role: role.to_owned(),
        attributes: attributes.clone(),
    };
    let none = BTreeMap::new();
    let mut entries = vec![
        entry(ADMIN.to_owned(), "admin", &none),
        entry(ATTESTER.to_owned(), "peer", &none),
    ];
    entries.extend((0..organisation.peers).map(|i| entry(format!("peer{i}"), "peer", &none)));
    entries.extend((0..organisation.workers).map(|i| entry(format!("worker{i}"), "worker", &none)));
    let orderers = spec.orderers.iter().filter(|of| **of == organisation.msp_id);
    entries.extend((0..orderers.count()).map(|i| entry(format!("orderer{i}"), "orderer", &none)));
    entries.extend(
        organisation
            .clients
            .iter()
            .map(|c| entry(c.name.clone(), "client", &c.attributes)),
    );
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_has_five_peers_two_orderers_and_a_worker_each() {
        let description = describe(&Spec::default()).expect("plan");
        let count = |kind| description.processes.iter().filter(|p| p.kind == kind).count();
        assert_eq!(
            [Kind::Broker, Kind::Orderer, Kind::Worker, Kind::Peer].map(count),
            [1, 2, 4, 5]
        );
        let mut addresses: Vec<&str> = description
            .processes
            .iter()
            .flat_map(|p| [p.listen.as_str(), &p.health])
            .filter(|a| !a.is_empty())
            .collect();
        let all = addresses.len();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), all, "every address once");
        for process in description.processes.iter().filter(|p| p.kind != Kind::Broker) {
            assert!(
                description.identities.iter().any(|i| i.directory == process.identity),
                "{}",
                process.name
            );
        }
    }

    #[test]
    fn an_external_kafka_has_no_processes_here() {
        let mut spec = Spec::default();
        spec.kafka.external = Some("kafka:9092".into());
        let description = describe(&spec).expect("plan");
        assert_eq!(description.kafka, "kafka:9092");
        assert!(description.processes.iter().all(|p| p.kind != Kind::Broker));
    }

    #[test]
    fn where_processes_are_is_said_of_all_or_none() {
        let mut spec = Spec::default();
        spec.kafka.external = Some("kafka:9092".into());
        let names: Vec<String> = describe(&spec)
            .expect("here")
            .processes
            .into_iter()
            .map(|p| p.name)
            .collect();
        let place = |name: &String| Address {
            listen: format!("{name}.example:7050"),
            health: format!("{name}.example:9050"),
            names: vec!["other.example".into()],
        };
        spec.addresses = names.iter().map(|name| (name.clone(), place(name))).collect();
        let description = describe(&spec).expect("elsewhere");
        assert!(description.remote);
        let peer = description
            .processes
            .iter()
            .find(|p| p.name == "peer1.HospitalA")
            .expect("planned");
        assert_eq!(
            (peer.listen.as_str(), peer.host()),
            ("peer1.HospitalA.example:7050", "peer1.HospitalA.example")
        );
        let one = spec.addresses.remove("orderer1").expect("there");
        let error = describe(&spec).expect_err("one is missing").to_string();
        assert!(error.contains("addresses.orderer1"), "{error}");
        spec.addresses.insert("orderer1".into(), one.clone());
        spec.addresses.insert("orderer7".into(), one);
        let error = describe(&spec).expect_err("one too many").to_string();
        assert!(error.contains("addresses.orderer7"), "{error}");
    }

    #[test]
    fn orderers_are_numbered_within_their_organisation() {
        let mut spec = Spec::default();
        spec.orderers.push("ReliefOrg".into());
        let description = describe(&spec).expect("plan");
        let of = |name: &str| {
            description
                .processes
                .iter()
                .find(|p| p.name == name)
                .expect("planned")
                .identity
                .clone()
        };
        assert_eq!(of("orderer1"), Layout::identity("ReliefOrg", "orderer0"));
        assert_eq!(of("orderer2"), Layout::identity("ReliefOrg", "orderer1"));
    }
}
