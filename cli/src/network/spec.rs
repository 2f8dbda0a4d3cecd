//! What a network should be: organisations, orderers, contracts, policies, Kafka.
//!
//! [`Spec::default`] is the network of the demo: two hospitals, a relief organisation and a ministry,
//! five peers, two orderers, a worker per organisation, one broker. A file (TOML) or flags change parts.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use protocol::{
    identity::is_msp_id,
    limits::{HEIGHTS_IN_TIME_MAX, SNAPSHOT_AGE_MAX},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{brokers, differences};

/// Whose certificate may read reports: the name and the attribute.
pub const OFFICER: &str = "reporting_officer";
/// The contract of which most commands speak.
pub const RECORDS: &str = "medical-records";
/// The same component under `OutOf(2, …)`: what the measurements call 2-of-4.
pub const RECORDS_2_OF: &str = "medical-records-2of4";
/// The same component under `AND(…)` of everybody.
pub const RECORDS_ALL: &str = "medical-records-all";

/// [`Spec::default`] as a file, with a word on every field.
pub const EXPLAINED: &str = include_str!("spec.toml");

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    pub channel: String,
    pub partitions: u32,
    /// Empty: one peer of any organisation.
    pub endorsement_policy: String,
    /// Empty: more than half of the organisations' admins.
    pub admin_policy: String,
    pub organisations: Vec<OrganisationSpec>,
    /// The organisation of each orderer.
    pub orderers: Vec<String>,
    pub contracts: Vec<ContractSpec>,
    pub kafka: KafkaSpec,
    pub reporting: ReportingSpec,
    /// Accept topics that are replicated weakly; own brokers below three always do.
    pub allow_unsafe_topics: bool,
    pub flush_every_record: bool,
    pub heights_in_time_max: u64,
    pub snapshot_age_max: u64,
    /// Founded by `medledger demo`, which may replace it with another.
    pub demo: bool,
    /// First of a run of ports; absent: a free run is looked for.
    pub base_port: Option<u16>,
    /// Where every process is, by its name, if it is not on this machine.
    pub addresses: BTreeMap<String, Address>,
    /// `RUST_LOG` of all processes.
    pub log: String,
    /// Laid over the settings of every process of a kind.
    pub orderer: toml::Table,
    pub peer: toml::Table,
    pub worker: toml::Table,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganisationSpec {
    pub msp_id: String,
    /// The first is the organisation's attester.
    #[serde(default = "one")]
    pub peers: u32,
    #[serde(default = "one")]
    pub workers: u32,
    #[serde(default)]
    pub clients: Vec<ClientSpec>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSpec {
    pub name: String,
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Revoked by its organisation before the founding, so that the genesis says so.
    #[serde(default)]
    pub revoked: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractSpec {
    pub name: String,
    /// A core module or a component; a bare name is looked for among the built contracts.
    pub wasm: PathBuf,
    /// Empty: the channel's default.
    #[serde(default)]
    pub policy: String,
    #[serde(default)]
    pub functions: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSpec {
    /// A Kafka that runs already, `host:port,…`; absent: brokers of our own from the jars.
    pub external: Option<String>,
    /// 1 or 3.
    pub brokers: u32,
    /// Names that the external brokers serve under: they get certificates at the founding; empty: they have some.
    pub certify: Vec<String>,
    /// librdkafka properties by which the command line reads the log.
    pub properties: BTreeMap<String, String>,
}

/// Who counts what is published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReportingSpec {
    /// The first of its peers reports; empty: none does.
    pub organisation: String,
    /// `[reporting]` of that peer's settings.
    pub settings: toml::Table,
}

impl ReportingSpec {
    /// Periods that close while somebody waits for them; who reports within one is on time.
    pub fn set_periods(&mut self, period_s: i64, grace_s: i64) {
        for (field, seconds) in [("period_s", period_s), ("grace_s", grace_s), ("deadline_s", period_s)] {
            self.settings.insert(field.to_owned(), seconds.into());
        }
    }
}

/// Where a process is that is started elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// `host:port`; the host is in the process's certificate.
    pub listen: String,
    /// `host:port` of health and metrics.
    pub health: String,
    /// More names that the process serves under.
    #[serde(default)]
    pub names: Vec<String>,
}

fn one() -> u32 {
    1
}

impl Default for KafkaSpec {
    fn default() -> Self {
        KafkaSpec {
            external: None,
            brokers: 1,
            certify: Vec::new(),
            properties: BTreeMap::new(),
        }
    }
}

impl Default for ReportingSpec {
    /// Periods of a minute, so that something is seen; a ministry's last a day.
    fn default() -> Self {
        let settings = toml::toml! {
            period_s = 60
            grace_s = 5
            deadline_s = 50
            facilities = [
                { name = "HospitalA-1", area = "NORTH" },
                { name = "HospitalB-1", area = "SOUTH" },
                { name = "MinistryOfHealth-1", area = "NORTH" },
                { name = "ReliefOrg-1", area = "SOUTH" },
            ]
        };
        ReportingSpec {
            organisation: "MinistryOfHealth".to_owned(),
            settings,
        }
    }
}

impl ReportingSpec {
    /// Area by facility.
    pub fn areas(&self) -> Result<BTreeMap<String, String>> {
        let facilities = self.settings.get("facilities").and_then(toml::Value::as_array);
        let pair = |facility: &toml::Value| {
            let text = |field: &str| facility.get(field).and_then(toml::Value::as_str).map(str::to_owned);
            Some((text("name")?, text("area")?))
        };
        let areas: Option<BTreeMap<String, String>> = facilities.into_iter().flatten().map(pair).collect();
        areas.context("reporting.settings.facilities: must each have a name and an area")
    }
}

impl Default for Spec {
    fn default() -> Self {
        let organisations = vec![
            OrganisationSpec::hospital("HospitalA", 2),
            OrganisationSpec::hospital("HospitalB", 1),
            OrganisationSpec::ministry("MinistryOfHealth", 1),
            OrganisationSpec::hospital("ReliefOrg", 1),
        ];
        let names: Vec<String> = organisations.iter().map(|o| o.msp_id.clone()).collect();
        Spec {
            channel: "medical".into(),
            partitions: 2,
            endorsement_policy: String::new(),
            admin_policy: String::new(),
            contracts: ContractSpec::records(&names),
            organisations,
            orderers: vec!["MinistryOfHealth".into(), "ReliefOrg".into()],
            kafka: KafkaSpec::default(),
            reporting: ReportingSpec::default(),
            allow_unsafe_topics: false,
            flush_every_record: false,
            heights_in_time_max: HEIGHTS_IN_TIME_MAX,
            snapshot_age_max: SNAPSHOT_AGE_MAX,
            demo: false,
            base_port: None,
            addresses: BTreeMap::new(),
            log: "info".into(),
            orderer: toml::Table::new(),
            peer: toml::Table::new(),
            worker: toml::Table::new(),
        }
    }
}

impl OrganisationSpec {
    /// With a physician, a nurse and a registrar.
    pub fn hospital(msp_id: &str, peers: u32) -> Self {
        let client = |role: &str| ClientSpec {
            name: role.to_owned(),
            attributes: BTreeMap::from([
                ("facility".to_owned(), format!("{msp_id}-1")),
                ("practitioner_role".to_owned(), role.to_owned()),
            ]),
            revoked: false,
        };
        let clients = ["physician", "nurse", "registrar"].map(client).to_vec();
        OrganisationSpec {
            msp_id: msp_id.to_owned(),
            peers,
            workers: 1,
            clients,
        }
    }
}

impl OrganisationSpec {
    /// A hospital with one who reads reports.
    pub fn ministry(msp_id: &str, peers: u32) -> Self {
        let mut ministry = Self::hospital(msp_id, peers);
        ministry.clients.push(ClientSpec {
            name: OFFICER.to_owned(),
            attributes: BTreeMap::from([("practitioner_role".to_owned(), OFFICER.to_owned())]),
            revoked: false,
        });
        ministry
    }
}

impl ContractSpec {
    /// Medical records three times: any organisation, any two, all.
    pub fn records(organisations: &[String]) -> Vec<Self> {
        let contract = |name: &str, policy: String| ContractSpec {
            name: name.to_owned(),
            wasm: "medical-records.wasm".into(),
            policy,
            functions: BTreeMap::new(),
        };
        vec![
            contract(RECORDS, String::new()),
            contract(RECORDS_2_OF, out_of(2.min(organisations.len()), organisations, "peer")),
            contract(RECORDS_ALL, out_of(organisations.len(), organisations, "peer")),
        ]
    }

    /// The hostile contract that shows what a worker survives.
    pub fn misbehave() -> Self {
        ContractSpec {
            name: "misbehave".into(),
            wasm: "misbehave.wasm".into(),
            policy: String::new(),
            functions: BTreeMap::new(),
        }
    }
}

/// `count` of the organisations, each by an identity of `role`, in the policy language.
pub fn out_of(count: usize, organisations: &[String], role: &str) -> String {
    let leaves: Vec<String> = organisations.iter().map(|name| format!("'{name}.{role}'")).collect();
    let leaves = leaves.join(", ");
    match count {
        1 => format!("OR({leaves})"),
        n if n == organisations.len() => format!("AND({leaves})"),
        n => format!("OutOf({n}, {leaves})"),
    }
}

impl Spec {
    pub fn from_toml(text: &str) -> Result<Self> {
        let spec: Spec = toml::from_str(text).context("the specification of the network")?;
        spec.check()?;
        Ok(spec)
    }

    /// Of the file that `--spec` names.
    pub fn load(file: &Path) -> Result<Self> {
        fs::read_to_string(file)
            .map_err(anyhow::Error::from)
            .and_then(|text| Spec::from_toml(&text))
            .with_context(|| format!("--spec {}", file.display()))
    }

    pub fn organisation_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.organisations.iter().map(|o| o.msp_id.clone()).collect();
        names.sort();
        names
    }

    pub fn endorsement_policy(&self) -> String {
        match self.endorsement_policy.as_str() {
            "" => out_of(1, &self.organisation_names(), "peer"),
            policy => policy.to_owned(),
        }
    }

    pub fn admin_policy(&self) -> String {
        let names = self.organisation_names();
        match self.admin_policy.as_str() {
            "" => out_of(names.len() / 2 + 1, &names, "admin"),
            policy => policy.to_owned(),
        }
    }

    /// Sets a contract's policy, or one of its functions' (`contract` or `contract.function`).
    pub fn set_policy(&mut self, of: &str, policy: &str) -> Result<()> {
        let (name, function) = match of.split_once('.') {
            Some((name, function)) => (name, Some(function)),
            None => (of, None),
        };
        let contract = self.contracts.iter_mut().find(|contract| contract.name == name);
        let contract = contract.with_context(|| format!("no contract of this network is called {name:?}"))?;
        match function {
            Some(function) => drop(contract.functions.insert(function.to_owned(), policy.to_owned())),
            None => contract.policy = policy.to_owned(),
        }
        Ok(())
    }

    /// What would only fail later and less clearly. Policies and sizes are the genesis' to check.
    pub fn check(&self) -> Result<()> {
        let names = self.organisation_names();
        ensure!(!names.is_empty(), "organisations: must be one at least");
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("organisations: {:?} stands there twice", twice[0]);
        }
        for organisation in &self.organisations {
            let name = &organisation.msp_id;
            ensure!(
                is_msp_id(name),
                "organisations.msp_id: must be [A-Za-z0-9][A-Za-z0-9.-]{{0,63}}; {name:?} is not"
            );
            ensure!(
                organisation.peers >= 1,
                "organisations.{name}.peers: must be 1 at least"
            );
            ensure!(
                organisation.workers >= 1,
                "organisations.{name}.workers: must be 1 at least"
            );
        }
        ensure!(!self.orderers.is_empty(), "orderers: must be one at least");
        for orderer in &self.orderers {
            ensure!(
                names.contains(orderer),
                "orderers: {orderer:?} is no organisation of this network; it has {}",
                names.join(", ")
            );
        }
        let reporting = &self.reporting.organisation;
        ensure!(
            reporting.is_empty() || names.contains(reporting) || self.reporting == ReportingSpec::default(),
            "reporting.organisation: {reporting:?} is no organisation of this network; it has {}",
            names.join(", ")
        );
        self.reporting.areas()?;
        ensure!(!self.contracts.is_empty(), "contracts: must be one at least");
        let brokers = self.kafka.brokers;
        ensure!(
            matches!(brokers, 1 | 3),
            "kafka.brokers: must be 1 or 3; {brokers} is not"
        );
        if let Some(external) = &self.kafka.external {
            brokers::addresses(external).context("kafka.external")?;
        }
        ensure!(
            self.addresses.is_empty() || self.kafka.external.is_some(),
            "kafka.external: must be given where [addresses] are: nothing is started on this machine"
        );
        Ok(())
    }

    /// Where `asked` is another network than this one, field by field, with both values.
    pub fn differences(&self, asked: &Spec) -> Vec<String> {
        differences::between(&json!(self), &json!(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_written_in_the_policy_language() {
        let names = ["A", "B", "C"].map(String::from).to_vec();
        assert_eq!(out_of(1, &names, "peer"), "OR('A.peer', 'B.peer', 'C.peer')");
        assert_eq!(out_of(2, &names, "peer"), "OutOf(2, 'A.peer', 'B.peer', 'C.peer')");
        assert_eq!(out_of(3, &names, "admin"), "AND('A.admin', 'B.admin', 'C.admin')");
    }

    #[test]
    fn the_default_is_a_legal_network_and_survives_toml() {
        let spec = Spec::default();
        spec.check().expect("legal");
        let text = toml::to_string(&spec).expect("toml");
        assert_eq!(Spec::from_toml(&text).expect("back"), spec);
    }

    #[test]
    fn the_explained_default_is_the_default_and_explains_every_field() {
        let spec = Spec::from_toml(EXPLAINED).expect("legal");
        assert_eq!(spec.differences(&Spec::default()), Vec::<String>::new());
        let fields = json!(spec);
        for field in fields.as_object().expect("an object").keys() {
            let stands = |line: &str| line.trim_start_matches(['#', ' ', '[']).starts_with(field.as_str());
            assert!(EXPLAINED.lines().any(stands), "{field}");
        }
    }

    #[test]
    fn differences_name_the_field_and_both_values() {
        let founded = Spec::default();
        assert!(founded.differences(&founded.clone()).is_empty());
        let mut asked = founded.clone();
        asked.partitions = 4;
        asked.organisations[1].peers = 3;
        asked.contracts.push(ContractSpec::misbehave());
        let told = founded.differences(&asked);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told[0].starts_with("contracts.3: founded with null, asked for {"),
            "{told:?}"
        );
        assert_eq!(told[1], "organisations.1.peers: founded with 1, asked for 3");
        assert_eq!(told[2], "partitions: founded with 2, asked for 4");
    }

    #[test]
    fn parts_can_be_changed() {
        let mut spec = Spec::from_toml("partitions = 4\n[kafka]\nbrokers = 3").expect("legal");
        assert_eq!(
            (spec.partitions, spec.kafka.brokers, spec.organisations.len()),
            (4, 3, 4)
        );
        spec.set_policy("medical-records.deleteMedicalRecord", "AND('HospitalA.peer')")
            .expect("known");
        assert_eq!(spec.contracts[0].functions.len(), 1);
        assert!(spec.set_policy("unknown", "").is_err());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, says) in [
            ("orderers = ['Nobody']", "no organisation"),
            ("[kafka]\nbrokers = 2", "1 or 3; 2 is not"),
            ("[kafka]\nexternal = 'foo'", "kafka.external: must be HOST:PORT"),
            ("colour = 'red'", "colour"),
            ("[[organisations]]\nmsp_id = 'A'\npeers = 0", "1 at least"),
        ] {
            let error = format!("{:#}", Spec::from_toml(text).expect_err(text));
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
