//! Networks made of bytes, for the tests of every crate: organisations with certificate authorities,
//! identities, a genesis, contracts, proposals, transactions and blocks, each part overridable.
//!
//! ```
//! use protocol::testing::TestNet;
//! let net = TestNet::new(&["HospitalA", "HospitalB"], 2);
//! let tx = net.tx("patient-1").write(b"record", b"{}").build();
//! let forged = net.tx("patient-1").result(|result| result.response_digest[0] ^= 1)
//!     .transaction(|tx| tx.endorsements.clear()).build();
//! let raw = net.block(tx.partition, &[&tx, &forged]);
//! # assert!(protocol::block::open(&net.checker(), tx.partition, &raw).fault.is_none());
//! ```
//! Keys are Ed25519 and everything follows from the seed, so the same calls in the same order give the
//! same bytes; with [`Keys::P256`] keys are random. Panics on misuse: it is for tests only.

mod pki;
mod transactions;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prost::Message;

pub use pki::{Issue, Keys, TestIdentity, TestOrganisation, serial_of};
pub use transactions::{TestTx, TxBuilder};

use crate::{
    control::{ControlChain, Genesis},
    genesis::{Channel, RULES_VERSION},
    hash::{Digest, Hasher, sha256},
    identity::Role,
    keys::ChannelSecret,
    ledger::{self, Block, BlockRecord, ControlRecord, GenesisBody, Marker, Module, control_record},
    limits::{HEIGHTS_IN_TIME_MAX, SNAPSHOT_AGE_MAX},
    signature::Purpose,
    transaction::Checker,
};

/// A contract of the test channel. The component need not be WebAssembly.
#[derive(Clone, Debug)]
pub struct TestContract {
    pub name: String,
    pub component: Vec<u8>,
    /// Empty: the channel's default.
    pub policy: String,
    /// (function, policy)
    pub functions: Vec<(String, String)>,
}

impl TestContract {
    pub fn digest(&self) -> Digest {
        sha256(&self.component)
    }
}

/// What a network is made from. `TestNet::with(Spec { partitions: 4, ..Spec::default() })`
#[derive(Clone, Debug)]
pub struct Spec {
    pub organisations: Vec<String>,
    pub partitions: u32,
    pub seed: u64,
    pub keys: Keys,
    pub channel_name: String,
    pub contracts: Vec<TestContract>,
    /// Empty: any member organisation's peer.
    pub endorsement_policy: String,
    /// Empty: any member organisation's admin.
    pub admin_policy: String,
    pub heights_in_time_max: u64,
    pub snapshot_age_max: u64,
    /// Serial numbers revoked in the genesis, by organisation. See [`serial_of`].
    pub revoked: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Default for Spec {
    fn default() -> Self {
        let contract = |name: &str, policy: &str, functions: &[(&str, &str)]| TestContract {
            name: name.to_owned(),
            component: format!("component of {name}").into_bytes(),
            policy: policy.to_owned(),
            functions: functions
                .iter()
                .map(|(name, policy)| ((*name).to_owned(), (*policy).to_owned()))
                .collect(),
        };
        Spec {
            organisations: vec!["HospitalA".to_owned(), "HospitalB".to_owned()],
            partitions: 2,
            seed: 1,
            keys: Keys::Ed25519,
            channel_name: "test".to_owned(),
            contracts: vec![contract("other", "", &[]), contract("records", "", &[])],
            endorsement_policy: String::new(),
            admin_policy: String::new(),
            heights_in_time_max: HEIGHTS_IN_TIME_MAX,
            snapshot_age_max: SNAPSHOT_AGE_MAX,
            revoked: BTreeMap::new(),
        }
    }
}

/// A channel with everybody's keys.
pub struct TestNet {
    pub channel: Arc<Channel>,
    pub organisations: Vec<TestOrganisation>,
    pub contracts: Vec<TestContract>,
    /// What `channel.secret` holds.
    pub secret_bytes: [u8; 32],
    pub secret: ChannelSecret,
    genesis: Vec<u8>,
    seed: u64,
    nonces: AtomicU64,
}

impl TestNet {
    pub fn new(organisations: &[&str], partitions: u32) -> Self {
        Self::seeded(1, organisations, partitions)
    }

    pub fn seeded(seed: u64, organisations: &[&str], partitions: u32) -> Self {
        let organisations = organisations.iter().map(|name| (*name).to_owned()).collect();
        Self::with(Spec {
            seed,
            organisations,
            partitions,
            ..Spec::default()
        })
    }

    /// Every organisation has `admin`, `peer0`, `peer1`, `orderer0`, `client0`, `client1` and `attester`.
    pub fn with(mut spec: Spec) -> Self {
        spec.organisations.sort();
        spec.contracts.sort_by(|a, b| a.name.cmp(&b.name));
        let organisations: Vec<TestOrganisation> = spec
            .organisations
            .iter()
            .map(|name| TestOrganisation::new(spec.seed, name, spec.keys))
            .collect();
        let secret_bytes = derive(spec.seed, "secret");
        let secret = ChannelSecret::new(&secret_bytes);
        let body = GenesisBody {
            nonce: derive(spec.seed, "nonce").to_vec(),
            config: Some(config(&spec, &organisations, &secret)),
        }
        .encode_to_vec();
        let id = sha256(&body);
        let admins: Vec<&TestIdentity> = organisations.iter().map(|o| o.identity("admin")).collect();
        let genesis = ledger::Genesis {
            certificates: admins.iter().map(|admin| admin.der().to_vec()).collect(),
            signatures: admins
                .iter()
                .map(|admin| admin.sign(Purpose::Config, &id, &body))
                .collect(),
            body,
        }
        .encode_to_vec();
        let channel = Channel::from_genesis(&genesis).expect("a valid genesis");
        TestNet {
            channel: Arc::new(channel),
            organisations,
            contracts: spec.contracts,
            secret_bytes,
            secret,
            genesis,
            seed: spec.seed,
            nonces: AtomicU64::new(0),
        }
    }

    /// The bytes of `genesis.bin`.
    pub fn genesis_bytes(&self) -> Vec<u8> {
        self.genesis.clone()
    }

    pub fn checker(&self) -> Checker {
        Checker::new(self.channel.clone())
    }

    pub fn organisation(&self, msp_id: &str) -> &TestOrganisation {
        let found = self
            .organisations
            .iter()
            .find(|organisation| organisation.msp_id == msp_id);
        found.unwrap_or_else(|| panic!("{msp_id} is no organisation of this network"))
    }

    /// `net.identity("HospitalA", "peer0")`
    pub fn identity(&self, msp_id: &str, name: &str) -> &TestIdentity {
        self.organisation(msp_id).identity(name)
    }

    pub fn contract(&self, name: &str) -> &TestContract {
        let found = self.contracts.iter().find(|contract| contract.name == name);
        found.unwrap_or_else(|| panic!("{name} is no contract of this network"))
    }

    /// The control record of the genesis.
    pub fn genesis_record(&self) -> Vec<u8> {
        let genesis = ledger::Genesis::decode(&self.genesis[..]).expect("own bytes");
        ControlRecord {
            content: Some(control_record::Content::Genesis(genesis)),
        }
        .encode_to_vec()
    }

    /// The control record of a configured contract's module.
    pub fn module_record(&self, contract: usize) -> Vec<u8> {
        let module = Module {
            component: self.contracts[contract].component.clone(),
            ..Module::default()
        };
        ControlRecord {
            content: Some(control_record::Content::Module(module)),
        }
        .encode_to_vec()
    }

    /// The control record of a module that all admins vouch for.
    pub fn signed_module_record(&self, component: &[u8]) -> Vec<u8> {
        let admins: Vec<&TestIdentity> = self.organisations.iter().map(|o| o.identity("admin")).collect();
        let digest = sha256(component);
        let module = Module {
            component: component.to_vec(),
            certificates: admins.iter().map(|admin| admin.der().to_vec()).collect(),
            signatures: admins
                .iter()
                .map(|admin| admin.sign(Purpose::Module, &self.channel.id, &digest))
                .collect(),
        };
        ControlRecord {
            content: Some(control_record::Content::Module(module)),
        }
        .encode_to_vec()
    }

    /// Where the genesis stands if it is the first control record.
    pub fn genesis_place(&self) -> Genesis {
        let mut chain = ControlChain::new(self.channel.clone());
        chain.push(&self.genesis_record());
        chain.genesis().expect("just pushed")
    }

    /// What an orderer appends first to a data partition.
    pub fn marker_block(&self, partition: u32) -> Vec<u8> {
        self.marker_block_of(partition, self.genesis_place().marker())
    }

    pub fn marker_block_of(&self, partition: u32, marker: Marker) -> Vec<u8> {
        self.sign_block(
            self.orderer(),
            &Block {
                marker: Some(marker),
                ..self.empty_block(partition)
            },
        )
    }

    /// A block of these transactions, signed by the first organisation's orderer.
    pub fn block(&self, partition: u32, transactions: &[&TestTx]) -> Vec<u8> {
        let certificates: BTreeMap<Digest, Vec<u8>> = transactions
            .iter()
            .flat_map(|tx| &tx.certificates)
            .map(|der| (sha256(der), der.clone()))
            .collect();
        let block = Block {
            certificates: certificates.into_values().collect(),
            transactions: transactions.iter().map(|tx| tx.bytes.clone()).collect(),
            ..self.empty_block(partition)
        };
        self.sign_block(self.orderer(), &block)
    }

    /// A heartbeat, and what other blocks are made from.
    pub fn empty_block(&self, partition: u32) -> Block {
        Block {
            channel: self.channel.id.to_vec(),
            partition,
            ..Block::default()
        }
    }

    /// The raw record of any block, signed by anyone.
    pub fn sign_block(&self, signer: &TestIdentity, block: &Block) -> Vec<u8> {
        let block = block.encode_to_vec();
        let signature = Some(signer.sign(Purpose::Block, &self.channel.id, &block));
        BlockRecord {
            block,
            certificate: signer.der().to_vec(),
            signature,
        }
        .encode_to_vec()
    }

    /// An attestation of any header by an organisation's attester.
    pub fn attestation(&self, msp_id: &str, partition: u32, height: u64, header: &Digest) -> ledger::Attestation {
        let content = ledger::AttestationContent {
            channel: self.channel.id.to_vec(),
            epoch: 0,
            partition,
            height,
            header: header.to_vec(),
        }
        .encode_to_vec();
        let attester = self.identity(msp_id, "attester");
        let signature = Some(attester.sign(Purpose::Attestation, &self.channel.id, &content));
        ledger::Attestation { content, signature }
    }

    /// A transaction about a subject; by default function `create` of contract `records`, created by
    /// the first organisation's `client0` and endorsed by its `peer0`.
    pub fn tx(&self, subject: &str) -> TxBuilder<'_> {
        TxBuilder::new(self, subject)
    }

    fn orderer(&self) -> &TestIdentity {
        self.organisations[0].identity("orderer0")
    }

    /// 32 bytes that no other call on this network gives.
    fn fresh(&self) -> Digest {
        derive(
            self.seed,
            &format!("fresh {}", self.nonces.fetch_add(1, Ordering::Relaxed)),
        )
    }
}

/// Bytes that follow from the seed.
pub(crate) fn derive(seed: u64, label: &str) -> Digest {
    Hasher::new("medledger/testing")
        .u64(seed)
        .bytes(label.as_bytes())
        .finish()
}

fn config(spec: &Spec, organisations: &[TestOrganisation], secret: &ChannelSecret) -> ledger::Config {
    let any = |role: Role| {
        let leaves: Vec<String> = organisations.iter().map(|o| format!("'{}.{role}'", o.msp_id)).collect();
        format!("OR({})", leaves.join(", "))
    };
    let or_any = |text: &str, role| if text.is_empty() { any(role) } else { text.to_owned() };
    ledger::Config {
        sequence: 0,
        previous: Vec::new(),
        channel_name: spec.channel_name.clone(),
        rules_version: RULES_VERSION,
        partitions: spec.partitions,
        secret_hash: secret.hash().to_vec(),
        heights_in_time_max: spec.heights_in_time_max,
        snapshot_age_max: spec.snapshot_age_max,
        organisations: organisations
            .iter()
            .map(|organisation| {
                let mut revoked = spec.revoked.get(&organisation.msp_id).cloned().unwrap_or_default();
                revoked.sort();
                ledger::Organisation {
                    msp_id: organisation.msp_id.clone(),
                    root_certificate: organisation.root_der().to_vec(),
                    revoked,
                    attester: organisation.identity("attester").der().to_vec(),
                }
            })
            .collect(),
        contracts: spec.contracts.iter().map(contract).collect(),
        endorsement_policy: or_any(&spec.endorsement_policy, Role::Peer),
        admin_policy: or_any(&spec.admin_policy, Role::Admin),
    }
}

fn contract(contract: &TestContract) -> ledger::Contract {
    let mut functions: Vec<ledger::FunctionPolicy> = contract
        .functions
        .iter()
        .map(|(name, policy)| ledger::FunctionPolicy {
            name: name.clone(),
            policy: policy.clone(),
        })
        .collect();
    functions.sort_by(|a, b| a.name.cmp(&b.name));
    ledger::Contract {
        name: contract.name.clone(),
        digest: contract.digest().to_vec(),
        policy: contract.policy.clone(),
        functions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{block, code::Code, transaction};

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let make = |seed| {
            let net = TestNet::seeded(seed, &["HospitalA", "HospitalB"], 2);
            let tx = net.tx("patient-1").write(b"record", b"{}").build();
            (net.genesis_bytes(), net.block(tx.partition, &[&tx]))
        };
        assert_eq!(make(3), make(3));
        assert_ne!(make(3), make(4));
    }

    #[test]
    fn transactions_pass_every_check_without_state() {
        for keys in [Keys::Ed25519, Keys::P256] {
            let net = TestNet::with(Spec {
                keys,
                ..Spec::default()
            });
            let checker = net.checker();
            let tx = net
                .tx("patient-1")
                .write(b"record", b"{}")
                .read(b"record", None)
                .event("created", b"x")
                .build();
            let opened = block::open(&checker, tx.partition, &net.block(tx.partition, &[&tx]));
            assert_eq!(opened.fault, None);
            let decoded = transaction::decode(&opened.transactions[0]).expect("canonical");
            let checked = checker
                .check(&decoded, &opened.certificates, Some(tx.partition))
                .expect("sound");
            checker
                .check_policy(&decoded, &checked.endorsers.expect("endorsed"))
                .expect("enough");
            assert_eq!(decoded.tx_id, tx.tx_id);
        }
    }

    #[test]
    fn parts_can_be_overridden() {
        let net = TestNet::new(&["HospitalA", "HospitalB"], 2);
        let tx = net
            .tx("patient-1")
            .proposal(|proposal| proposal.kind = ledger::Kind::Query.into())
            .build();
        let decoded = transaction::decode(&tx.bytes).expect("canonical");
        let table = transaction::Table::new(tx.certificates.iter().map(Vec::as_slice));
        let rejection = net.checker().check(&decoded, &table, None).expect_err("a query");
        assert_eq!(rejection.code, Code::NotSubmit);
    }

    #[test]
    fn revoked_in_the_genesis_is_no_member() {
        let serial = pki::serial_of(1, "HospitalA", "client0");
        let revoked = BTreeMap::from([("HospitalA".to_owned(), vec![serial])]);
        let net = TestNet::with(Spec {
            revoked,
            ..Spec::default()
        });
        let check = |name| {
            net.checker()
                .certificates
                .check(&net.channel, net.identity("HospitalA", name).der())
        };
        assert!(check("client0").is_none());
        assert!(check("client1").is_some());
    }

    #[test]
    fn revocation_lists_name_serials() {
        let net = TestNet::new(&["HospitalA", "HospitalB"], 1);
        let organisation = net.organisation("HospitalA");
        let client = organisation.identity("client0");
        let crl = net.channel.members.crl(&organisation.crl(&[client])).expect("a list");
        assert!(crl.revokes(&client.certificate));
        assert!(!crl.revokes(&organisation.identity("client1").certificate));
    }
}
