//! The settings file of each process. Paths in it are relative to it.

use toml::{Table, Value};

use super::{
    layout::{Description, Kind, Process},
    spec::Spec,
};

/// From a process's folder to the network's directory.
const UP: &str = "../..";

/// The settings of a process that is ours; brokers have their own.
pub fn settings(process: &Process, description: &Description) -> Table {
    let mut table = common(process);
    match process.kind {
        Kind::Orderer => orderer(&mut table, description),
        Kind::Worker => worker(&mut table, description),
        Kind::Peer => peer(&mut table, process, description),
        Kind::Broker => {}
    }
    table
}

fn common(process: &Process) -> Table {
    let mut table = Table::new();
    put(&mut table, "identity", format!("{UP}/{}", process.identity.display()));
    put(&mut table, "crls", format!("{UP}/crls"));
    put(&mut table, "listen", process.listen.clone());
    put(&mut table, "health", process.health.clone());
    table
}

/// Knows by the genesis who its organisation's peers are and who is revoked, and nothing else of the ledger.
fn worker(table: &mut Table, description: &Description) {
    put(table, "genesis", format!("{UP}/genesis.bin"));
    overlay(table, &description.spec.worker);
}

fn orderer(table: &mut Table, description: &Description) {
    let spec = &description.spec;
    put(table, "genesis", format!("{UP}/genesis.bin"));
    let mut modules: Vec<String> = description
        .contracts
        .iter()
        .map(|c| format!("{UP}/modules/{}.wasm", c.digest))
        .collect();
    modules.sort();
    modules.dedup();
    put(table, "modules", modules);
    // One broker cannot keep the design's settings of replication; three can.
    put(
        table,
        "allow_unsafe_topics",
        spec.allow_unsafe_topics || replicas_are_few(spec),
    );
    put(table, "flush_every_record", spec.flush_every_record);
    put(table, "kafka", kafka(description));
    overlay(table, &spec.orderer);
}

fn peer(table: &mut Table, process: &Process, description: &Description) {
    put(table, "genesis", format!("{UP}/genesis.bin"));
    put(table, "secret", format!("{UP}/channel.secret"));
    put(table, "data", "data".to_owned());
    let of = |kind: Kind, organisation: Option<&str>| -> Vec<String> {
        let processes = description.processes.iter();
        let wanted = processes.filter(|p| p.kind == kind && organisation.is_none_or(|o| p.organisation == o));
        wanted.map(|p| p.listen.clone()).collect()
    };
    put(table, "workers", of(Kind::Worker, Some(&process.organisation)));
    put(table, "orderers", of(Kind::Orderer, None));
    put(table, "kafka", kafka(description));
    let others = description
        .processes
        .iter()
        .filter(|p| p.kind == Kind::Peer && p.name != process.name);
    let others: Vec<Value> = others
        .map(|other| {
            let mut entry = Table::new();
            put(&mut entry, "organisation", other.organisation.clone());
            put(&mut entry, "address", other.listen.clone());
            Value::Table(entry)
        })
        .collect();
    if !others.is_empty() {
        put(table, "peers", others);
    }
    if process.attester {
        let mut attester = Table::new();
        put(
            &mut attester,
            "identity",
            format!("{UP}/organisations/{}/identities/attester", process.organisation),
        );
        put(&mut attester, "guard", "guard".to_owned());
        put(table, "attester", attester);
    }
    let reporting = &description.spec.reporting;
    let mut peers = description.processes.iter().filter(|p| p.kind == Kind::Peer);
    let reports = peers.find(|p| p.organisation == reporting.organisation);
    if reports.is_some_and(|first| first.name == process.name) {
        put(table, "reporting", reporting.settings.clone());
    }
    overlay(table, &description.spec.peer);
}

fn kafka(description: &Description) -> Table {
    let mut kafka = Table::new();
    let brokers: Vec<String> = description.kafka.split(',').map(str::to_owned).collect();
    put(&mut kafka, "brokers", brokers);
    kafka
}

pub fn replicas_are_few(spec: &Spec) -> bool {
    spec.kafka.external.is_none() && spec.kafka.brokers < 3
}

fn put(table: &mut Table, key: &str, value: impl Into<Value>) {
    table.insert(key.to_owned(), value.into());
}

/// Lays `over` over `table`, table by table.
fn overlay(table: &mut Table, over: &Table) {
    for (key, value) in over {
        match (table.get_mut(key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            _ => drop(table.insert(key.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::plan;

    fn described() -> Description {
        let peer = toml::from_str("[kafka.properties]\n'security.protocol' = 'plaintext'").expect("toml");
        let spec = Spec {
            peer,
            ..Spec::default()
        };
        plan::describe(&spec).expect("plan")
    }

    #[test]
    fn peers_know_their_workers_the_orderers_and_each_other() {
        let description = described();
        let peer = description
            .processes
            .iter()
            .find(|p| p.name == "peer0.HospitalA")
            .expect("planned");
        let table = settings(peer, &description);
        assert_eq!(table["workers"].as_array().expect("list").len(), 1);
        assert_eq!(table["orderers"].as_array().expect("list").len(), 2);
        assert_eq!(table["peers"].as_array().expect("list").len(), 4);
        assert!(table.contains_key("attester"));
        let kafka = table["kafka"].as_table().expect("table");
        assert!(
            kafka.contains_key("brokers") && kafka.contains_key("properties"),
            "an overlay keeps the rest"
        );
        let second = description
            .processes
            .iter()
            .find(|p| p.name == "peer1.HospitalA")
            .expect("planned");
        assert!(
            !settings(second, &description).contains_key("attester"),
            "one attester per organisation"
        );
    }

    #[test]
    fn one_peer_reports_by_settings_that_it_takes() {
        let mut description = described();
        let reports = |description: &Description| -> Vec<String> {
            let peers = description.processes.iter().filter(|p| p.kind == Kind::Peer);
            let reporting = peers.filter(|peer| settings(peer, description).contains_key("reporting"));
            reporting.map(|peer| peer.name.clone()).collect()
        };
        assert_eq!(reports(&description), ["peer0.MinistryOfHealth"]);
        let table = Value::Table(description.spec.reporting.settings.clone());
        let config: peer::reporting::ReportingConfig = table.try_into().expect("settings of a peer");
        config.check().expect("legal");
        description.spec.reporting.organisation = String::new();
        assert!(reports(&description).is_empty());
    }

    #[test]
    fn workers_know_whom_the_genesis_revokes() {
        let description = described();
        let mut processes = description.processes.iter();
        let worker = processes.find(|p| p.kind == Kind::Worker).expect("planned");
        let table = settings(worker, &description);
        assert_eq!(table["genesis"], Value::String(format!("{UP}/genesis.bin")));
        assert!(!table.contains_key("roots"), "the genesis has them");
    }

    #[test]
    fn weak_topics_are_allowed_with_one_broker_only() {
        let mut description = described();
        let orderer = description
            .processes
            .iter()
            .find(|p| p.kind == Kind::Orderer)
            .expect("planned")
            .clone();
        assert_eq!(
            settings(&orderer, &description)["allow_unsafe_topics"],
            Value::Boolean(true)
        );
        description.spec.kafka.brokers = 3;
        assert_eq!(
            settings(&orderer, &description)["allow_unsafe_topics"],
            Value::Boolean(false)
        );
    }
}
