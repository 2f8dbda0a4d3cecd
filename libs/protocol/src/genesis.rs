//! A channel as its genesis and config say it is: who belongs, which contracts, which policies.
//!
//! The channel's id is H(genesis body); the admins' signatures lie beside the body. Configs with a
//! sequence above 0 are recognised and refused: [`ConfigError::SequenceAhead`].

use std::collections::BTreeMap;

use prost::Message;

use crate::{
    canonical::{self, ascending},
    hash::{Digest, Hasher, sha256},
    identity::{Certificate, IdentityError, Members, Role},
    keys::is_contract_name,
    ledger::{Config, Genesis, GenesisBody, Module, Organisation, Signature},
    limits::{ADMIN_SIGNATURES_MAX, HEIGHTS_IN_TIME_MAX, MODULE_BYTES_MAX, ORGANISATIONS_MAX, PARTITIONS_MAX},
    policy::{Policy, PolicyError, Principal},
    signature::{Purpose, Verifier},
};

/// The validation rules this build knows. A genesis that names others is refused, clearly.
pub const RULES_VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("genesis: {0}")]
    Encoding(#[from] canonical::NotCanonical),
    #[error("config.{field}: {rule}")]
    Field { field: String, rule: String },
    #[error("config.{field}: {source}")]
    Policy { field: String, source: PolicyError },
    #[error("config.organisations: {0}")]
    Identity(#[from] IdentityError),
    #[error("config.sequence: {0} is not supported, only the genesis (sequence 0) is")]
    SequenceAhead(u64),
    #[error("config.rules_version: {0} is unknown here, this build knows {RULES_VERSION}")]
    Rules(u32),
    #[error("genesis.signatures: {0}")]
    Signatures(String),
    #[error("module: {0}")]
    Module(String),
}

fn field<T>(field: impl Into<String>, rule: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Field {
        field: field.into(),
        rule: rule.into(),
    })
}

/// A contract as the config in force defines it.
#[derive(Debug)]
pub struct ContractView {
    pub digest: Digest,
    policy: Option<Policy>,
    functions: BTreeMap<String, Policy>,
}

/// One config in force on one channel; immutable.
#[derive(Debug)]
pub struct Channel {
    pub id: Digest,
    pub config: Config,
    /// H(config bytes), domain-separated: the control chain's state digest.
    pub config_digest: Digest,
    pub members: Members,
    pub contracts: BTreeMap<String, ContractView>,
    pub admin_policy: Policy,
    attesters: BTreeMap<String, Certificate>,
    endorsement_policy: Policy,
}

impl Channel {
    /// From the bytes of a [`Genesis`], with everything about it checked.
    pub fn from_genesis(bytes: &[u8]) -> Result<Self, ConfigError> {
        let genesis: Genesis = canonical::decode(bytes)?;
        let body: GenesisBody = canonical::decode(&genesis.body)?;
        if body.nonce.len() != 32 {
            return field("nonce", "must be 32 bytes");
        }
        let Some(config) = body.config else {
            return field("config", "is missing");
        };
        if config.sequence != 0 {
            return Err(ConfigError::SequenceAhead(config.sequence));
        }
        let channel = Channel::new(sha256(&genesis.body), config)?;
        channel.check_admins(
            Purpose::Config,
            &genesis.body,
            &genesis.certificates,
            &genesis.signatures,
        )?;
        Ok(channel)
    }

    fn new(id: Digest, config: Config) -> Result<Self, ConfigError> {
        check_scalars(&config)?;
        let members = Members::new(&config.organisations)?;
        let mut attesters = BTreeMap::new();
        for organisation in &config.organisations {
            attesters.insert(organisation.msp_id.clone(), attester(organisation, &members)?);
        }
        let names: Vec<&str> = config.organisations.iter().map(|o| o.msp_id.as_str()).collect();
        let policy = |name: &str, text: &str| parse_policy(name, text, &names);
        let mut contracts = BTreeMap::new();
        for contract in &config.contracts {
            let at = format!("contracts.{}", contract.name);
            if !is_contract_name(&contract.name) {
                return field(at, "the name must be [a-z][a-z0-9-]*, 64 bytes at most");
            }
            let Some(digest) = crate::hash::digest(&contract.digest) else {
                return field(format!("{at}.digest"), "must be 32 bytes");
            };
            if !ascending(&contract.functions, |f| f.name.as_str()) {
                return field(format!("{at}.functions"), "must ascend by name");
            }
            let own = match contract.policy.as_str() {
                "" => None,
                text => Some(policy(&format!("{at}.policy"), text)?),
            };
            let functions = contract.functions.iter().map(|f| {
                Ok((
                    f.name.clone(),
                    policy(&format!("{at}.functions.{}", f.name), &f.policy)?,
                ))
            });
            let functions = functions.collect::<Result<_, ConfigError>>()?;
            contracts.insert(
                contract.name.clone(),
                ContractView {
                    digest,
                    policy: own,
                    functions,
                },
            );
        }
        Ok(Channel {
            id,
            config_digest: Hasher::new("medledger/config-digest/1")
                .bytes(&config.encode_to_vec())
                .finish(),
            admin_policy: policy("admin_policy", &config.admin_policy)?,
            endorsement_policy: policy("endorsement_policy", &config.endorsement_policy)?,
            contracts,
            attesters,
            members,
            config,
        })
    }

    pub fn name(&self) -> &str {
        &self.config.channel_name
    }

    pub fn partitions(&self) -> u32 {
        self.config.partitions
    }

    /// Function over contract over channel default.
    pub fn policy<'a>(&'a self, contract: &'a ContractView, function: &str) -> &'a Policy {
        contract
            .functions
            .get(function)
            .or(contract.policy.as_ref())
            .unwrap_or(&self.endorsement_policy)
    }

    /// The one certificate whose attestations count for an organisation.
    pub fn attester(&self, msp_id: &str) -> Option<&Certificate> {
        self.attesters.get(msp_id)
    }

    pub fn organisations(&self) -> impl Iterator<Item = &str> {
        self.attesters.keys().map(String::as_str)
    }

    /// Signatures of so many organisations make a header `attested`: ⌊2n/3⌋ + 1.
    pub fn quorum(&self) -> usize {
        2 * self.attesters.len() / 3 + 1
    }

    /// Whether a module belongs to a contract in force, or admins vouch for it.
    pub fn check_module(&self, module: &Module) -> Result<Digest, ConfigError> {
        if module.component.len() > MODULE_BYTES_MAX {
            return Err(ConfigError::Module(format!("is over {MODULE_BYTES_MAX} bytes")));
        }
        let digest = sha256(&module.component);
        if !self.contracts.values().any(|contract| contract.digest == digest) {
            self.check_admins(Purpose::Module, &digest, &module.certificates, &module.signatures)?;
        }
        Ok(digest)
    }

    /// Whether admins' signatures over `content` satisfy the admin policy.
    pub fn check_admins(
        &self,
        purpose: Purpose,
        content: &[u8],
        certificates: &[Vec<u8>],
        signatures: &[Signature],
    ) -> Result<(), ConfigError> {
        let refuse = |why: String| Err(ConfigError::Signatures(why));
        // Before anything is hashed: what follows is work for everyone, whoever sent it.
        if certificates.len().max(signatures.len()) > ADMIN_SIGNATURES_MAX {
            return refuse(format!("are over {ADMIN_SIGNATURES_MAX}"));
        }
        let mut by_hash: BTreeMap<Digest, &[u8]> = certificates.iter().map(|der| (sha256(der), &der[..])).collect();
        let verifier = Verifier::new(1);
        let mut principals = Vec::new();
        for (i, signature) in signatures.iter().enumerate() {
            // Taken out, so that each signs once.
            let Some(der) = crate::hash::digest(&signature.certificate).and_then(|hash| by_hash.remove(&hash)) else {
                return refuse(format!("[{i}]: its certificate is missing, or has signed already"));
            };
            let certificate = match Certificate::parse(der) {
                Ok(certificate) => certificate,
                Err(error) => return refuse(format!("[{i}]: {error}")),
            };
            if let Err(error) = self.members.verify(&certificate) {
                return refuse(format!("[{i}]: {error}"));
            }
            if let Err(error) = verifier.verify(&certificate.public_key, purpose, &self.id, content, signature) {
                return refuse(format!("[{i}]: {error}"));
            }
            if certificate.role == Role::Admin {
                principals.push(Principal::from(&certificate));
            }
        }
        if self.admin_policy.evaluate(&principals) {
            Ok(())
        } else {
            refuse(format!("do not satisfy the admin policy {}", self.admin_policy))
        }
    }
}

fn check_scalars(config: &Config) -> Result<(), ConfigError> {
    if config.rules_version != RULES_VERSION {
        return Err(ConfigError::Rules(config.rules_version));
    }
    if config.sequence == 0 && !config.previous.is_empty() {
        return field("previous", "must be empty in the genesis");
    }
    if !is_contract_name(&config.channel_name) {
        return field("channel_name", "must be [a-z][a-z0-9-]*, 64 bytes at most");
    }
    if !(1..=PARTITIONS_MAX).contains(&config.partitions) {
        return field("partitions", format!("must be 1 to {PARTITIONS_MAX}"));
    }
    if config.secret_hash.len() != 32 {
        return field("secret_hash", "must be 32 bytes");
    }
    if !(2..=HEIGHTS_IN_TIME_MAX).contains(&config.heights_in_time_max) {
        return field("heights_in_time_max", format!("must be 2 to {HEIGHTS_IN_TIME_MAX}"));
    }
    if !(1..config.heights_in_time_max).contains(&config.snapshot_age_max) {
        return field("snapshot_age_max", "must be at least 1 and below heights_in_time_max");
    }
    if !(1..=ORGANISATIONS_MAX).contains(&config.organisations.len()) {
        return field("organisations", format!("must be 1 to {ORGANISATIONS_MAX}"));
    }
    if !ascending(&config.organisations, |o| o.msp_id.as_str()) {
        return field("organisations", "must ascend by msp_id");
    }
    if !ascending(&config.contracts, |c| c.name.as_str()) {
        return field("contracts", "must ascend by name");
    }
    Ok(())
}

fn attester(organisation: &Organisation, members: &Members) -> Result<Certificate, ConfigError> {
    let at = format!("organisations.{}.attester", organisation.msp_id);
    let certificate = Certificate::parse(&organisation.attester)?;
    members.verify(&certificate)?;
    if certificate.msp_id != organisation.msp_id || certificate.role != Role::Peer {
        return field(at, "must be a peer of the organisation");
    }
    Ok(certificate)
}

fn parse_policy(name: &str, text: &str, members: &[&str]) -> Result<Policy, ConfigError> {
    let at = |source| ConfigError::Policy {
        field: name.to_owned(),
        source,
    };
    let policy = Policy::parse(text).map_err(at)?;
    policy.check_members(members).map_err(at)?;
    if policy.evaluate(&[]) {
        return field(name, "must need at least one endorsement");
    }
    Ok(policy)
}
