//! Which processes and identities a specification means, and on which ports.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{
    layout::{Description, IdentityEntry, Kind, Layout, Process, directory_of},
    ports::Ports,
    spec::{OrganisationSpec, Spec},
};

/// Names that every organisation has.
pub const ADMIN: &str = "admin";
pub const ATTESTER: &str = "attester";

/// Everything but what founding the channel adds: its id, and the contracts' digests.
pub fn describe(spec: &Spec) -> Result<Description> {
    spec.check()?;
    let mut processes = Vec::new();
    let mut ports = Ports::reserve(spec.base_port, ports_needed(spec))?;
    let kafka = match &spec.kafka.external {
        Some(brokers) => brokers.clone(),
        None => brokers(spec, &mut ports, &mut processes)?,
    };
    for (i, organisation) in spec.orderers.iter().enumerate() {
        let name = format!("orderer{i}");
        let identity = Layout::identity(organisation, &name);
        processes.push(process(name, Kind::Orderer, organisation, identity, &mut ports)?);
    }
    for organisation in &spec.organisations {
        for (kind, count) in [(Kind::Worker, organisation.workers), (Kind::Peer, organisation.peers)] {
            for i in 0..count {
                let identity = Layout::identity(&organisation.msp_id, &format!("{kind}{i}"));
                let name = format!("{kind}{i}.{}", organisation.msp_id);
                let mut process = process(name, kind, &organisation.msp_id, identity, &mut ports)?;
                process.attester = kind == Kind::Peer && i == 0;
                processes.push(process);
            }
        }
    }
    Ok(Description {
        channel: spec.channel.clone(),
        channel_id: String::new(),
        partitions: spec.partitions,
        kafka,
        remote: false,
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

fn process(
    name: String,
    kind: Kind,
    organisation: &str,
    identity: std::path::PathBuf,
    ports: &mut Ports,
) -> Result<Process> {
    let directory = directory_of(&name);
    let health = if kind == Kind::Broker {
        String::new()
    } else {
        format!("127.0.0.1:{}", ports.take()?)
    };
    Ok(Process {
        kind,
        organisation: organisation.to_owned(),
        listen: format!("127.0.0.1:{}", ports.take()?),
        health,
        identity,
        pid_file: directory.join("pid"),
        log_file: directory.join("log"),
        name,
        attester: false,
    })
}

fn brokers(spec: &Spec, ports: &mut Ports, processes: &mut Vec<Process>) -> Result<String> {
    let mut addresses = Vec::new();
    for i in 0..spec.kafka.brokers {
        let mut broker = process(format!("kafka{i}"), Kind::Broker, "", Default::default(), ports)?;
        // Broker and controller, in turn.
        ports.take()?;
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
    let orderers = spec
        .orderers
        .iter()
        .enumerate()
        .filter(|(_, of)| **of == organisation.msp_id);
    entries.extend(orderers.map(|(i, _)| entry(format!("orderer{i}"), "orderer", &none)));
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
}
