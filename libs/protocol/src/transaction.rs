//! A transaction's checks that need no state: shared by the orderer's admission and `validate`.
//!
//! ```text
//! bytes ──decode──▶ Transaction ──Checker::check──▶ Checked { creator, endorsers | rejection }
//! ```
//! Checks are made in the order of [`Code`]; the first that fails gives the code.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use quick_cache::sync::Cache;

use crate::{
    canonical::{self, ascending},
    code::Code,
    genesis::{Channel, ContractView},
    hash::{Digest, digest, sha256},
    identity::{Certificate, Role, is_attribute_name, is_common_name},
    keys::{is_contract_name, is_function_name, is_under, key_prefix, partition_of},
    ledger::{self, Kind, OnBehalfOf, Proposal, Result as TxResult, Signature},
    limits::*,
    policy::{Policy, Principal},
    signature::{Purpose, Verifier},
};

/// Why a transaction is refused: the check, and the field that failed it. Never holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {field}: {}", code.rule())]
pub struct Rejection {
    pub code: Code,
    pub field: &'static str,
}

fn reject<T>(code: Code, field: &'static str) -> Result<T, Rejection> {
    Err(Rejection { code, field })
}

fn require(holds: bool, code: Code, field: &'static str) -> Result<(), Rejection> {
    if holds { Ok(()) } else { reject(code, field) }
}

/// A transaction that decoded, with its parts as they were signed.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub tx_id: Digest,
    /// H(transaction bytes)
    pub hash: Digest,
    pub proposal_bytes: Vec<u8>,
    pub result_bytes: Vec<u8>,
    pub proposal: Proposal,
    pub result: TxResult,
    pub client: Signature,
    pub endorsements: Vec<Signature>,
    pub partition_key: Digest,
    pub snapshot_header: Digest,
}

/// Decodes a proposal and checks its fields; used by gateway and endorser too.
pub fn decode_proposal(bytes: &[u8]) -> Result<Proposal, Rejection> {
    let bad = |field| Rejection {
        code: Code::BadEncoding,
        field,
    };
    let proposal: Proposal = canonical::decode(bytes).map_err(|_| bad("proposal"))?;
    let is32 = |bytes: &[u8], field| if bytes.len() == 32 { Ok(()) } else { Err(bad(field)) };
    is32(&proposal.channel, "proposal.channel")?;
    is32(&proposal.contract_digest, "proposal.contract_digest")?;
    is32(&proposal.partition_key, "proposal.partition_key")?;
    is32(&proposal.creator, "proposal.creator")?;
    is32(&proposal.arguments_commitment, "proposal.arguments_commitment")?;
    require(proposal.nonce.len() == 16, Code::BadEncoding, "proposal.nonce")?;
    require(
        is_contract_name(&proposal.contract),
        Code::BadEncoding,
        "proposal.contract",
    )?;
    require(
        is_function_name(&proposal.function),
        Code::BadEncoding,
        "proposal.function",
    )?;
    require(
        matches!(proposal.kind(), Kind::Submit | Kind::Query),
        Code::BadEncoding,
        "proposal.kind",
    )?;
    if let Some(person) = &proposal.on_behalf_of {
        is32(&person.certificate, "proposal.on_behalf_of.certificate")?;
        // What a certificate could not say, nobody is said to be.
        let named = is_common_name(&person.common_name);
        require(named, Code::BadEncoding, "proposal.on_behalf_of.common_name")?;
        let role = person.role.parse::<Role>().is_ok();
        require(role, Code::BadEncoding, "proposal.on_behalf_of.role")?;
        let names = person.attributes.iter().all(|a| is_attribute_name(&a.name));
        require(names, Code::BadEncoding, "proposal.on_behalf_of.attributes")?;
        let sorted = ascending(&person.attributes, |a| a.name.as_str());
        require(sorted, Code::BadEncoding, "proposal.on_behalf_of.attributes")?;
        let bytes: usize = person.attributes.iter().map(|a| a.name.len() + a.value.len()).sum();
        require(bytes <= 4096, Code::TooLarge, "proposal.on_behalf_of.attributes")?;
    }
    Ok(proposal)
}

/// Decodes a transaction and checks the form of every field.
pub fn decode(bytes: &[u8]) -> Result<Transaction, Rejection> {
    let bad = |field| Rejection {
        code: Code::BadEncoding,
        field,
    };
    require(bytes.len() <= TRANSACTION_BYTES_MAX, Code::TooLarge, "transaction")?;
    let message: ledger::Transaction = canonical::decode(bytes).map_err(|_| bad("transaction"))?;
    let proposal = decode_proposal(&message.proposal)?;
    let result: TxResult = canonical::decode(&message.result).map_err(|_| bad("result"))?;
    check_result(&result)?;
    let client = message.client.ok_or(bad("client"))?;
    require(
        client.certificate == proposal.creator,
        Code::BadEncoding,
        "client.certificate",
    )?;
    let endorsements = message.endorsements;
    require(endorsements.len() <= ENDORSEMENTS_MAX, Code::TooLarge, "endorsements")?;
    // A second one by the same certificate counts for nothing and would cost as much as the first.
    let mut seen = HashSet::with_capacity(endorsements.len());
    let once = endorsements
        .iter()
        .all(|endorsement| seen.insert(&endorsement.certificate));
    require(once, Code::BadEncoding, "endorsements.certificate")?;
    Ok(Transaction {
        tx_id: sha256(&message.proposal),
        hash: sha256(bytes),
        partition_key: digest(&proposal.partition_key).ok_or(bad("proposal.partition_key"))?,
        snapshot_header: digest(&result.snapshot_header).ok_or(bad("result.snapshot_header"))?,
        proposal_bytes: message.proposal,
        result_bytes: message.result,
        proposal,
        result,
        client,
        endorsements,
    })
}

/// The form of what endorsers sign; an endorser holds what a contract gave against it before it signs.
pub fn check_result(result: &TxResult) -> Result<(), Rejection> {
    let sizes = [
        (result.tx_id.len(), "result.tx_id"),
        (result.contract_digest.len(), "result.contract_digest"),
        (result.snapshot_header.len(), "result.snapshot_header"),
        (result.response_digest.len(), "result.response_digest"),
    ];
    for (bytes, field) in sizes {
        require(bytes == 32, Code::BadEncoding, field)?;
    }
    require(result.reads.len() <= READS_MAX, Code::TooLarge, "result.reads")?;
    require(result.ranges.len() <= RANGES_MAX, Code::TooLarge, "result.ranges")?;
    require(result.writes.len() <= WRITES_MAX, Code::TooLarge, "result.writes")?;
    require(result.policies.len() <= WRITES_MAX, Code::TooLarge, "result.policies")?;
    require(result.events.len() <= EVENTS_MAX, Code::TooLarge, "result.events")?;
    let sorted = |holds, field| require(holds, Code::BadEncoding, field);
    sorted(ascending(&result.reads, |r| &r.key[..]), "result.reads")?;
    sorted(ascending(&result.writes, |w| &w.key[..]), "result.writes")?;
    sorted(ascending(&result.policies, |p| &p.key[..]), "result.policies")?;
    let entries: usize = result.ranges.iter().map(|range| range.entries.len()).sum();
    require(entries <= RANGE_ENTRIES_MAX, Code::TooLarge, "result.ranges.entries")?;
    for range in &result.ranges {
        sorted(range.start < range.end, "result.ranges.end")?;
        sorted(ascending(&range.entries, |r| &r.key[..]), "result.ranges.entries")?;
        let inside = |read: &ledger::Read| range.start <= read.key && read.key < range.end && read.version.is_some();
        sorted(range.entries.iter().all(inside), "result.ranges.entries")?;
    }
    for write in &result.writes {
        require(
            write.value.len() <= VALUE_BYTES_MAX,
            Code::TooLarge,
            "result.writes.value",
        )?;
        sorted(!write.delete || write.value.is_empty(), "result.writes.value")?;
    }
    for policy in &result.policies {
        let parses = policy.policy.is_empty() || Policy::parse(&policy.policy).is_ok();
        sorted(parses, "result.policies.policy")?;
    }
    for event in &result.events {
        require(
            event.r#type.len() <= EVENT_TYPE_BYTES_MAX,
            Code::TooLarge,
            "result.events.type",
        )?;
        require(
            event.payload.len() <= EVENT_PAYLOAD_BYTES_MAX,
            Code::TooLarge,
            "result.events.payload",
        )?;
    }
    Ok(())
}

/// Who acts: the person of the proposal, whether they signed or a gateway speaks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub organisation: String,
    pub common_name: String,
    pub role: String,
    pub attributes: Vec<ledger::Attribute>,
    pub asserted: bool,
}

impl Actor {
    pub fn of(creator: &Certificate, on_behalf_of: Option<&OnBehalfOf>) -> Actor {
        let organisation = creator.msp_id.clone();
        match on_behalf_of {
            Some(person) => Actor {
                organisation,
                common_name: person.common_name.clone(),
                role: person.role.clone(),
                attributes: person.attributes.clone(),
                asserted: true,
            },
            None => Actor {
                organisation,
                common_name: creator.common_name.clone(),
                role: creator.role.to_string(),
                attributes: creator
                    .attributes
                    .iter()
                    .map(|(name, value)| ledger::Attribute {
                        name: name.clone(),
                        value: value.clone(),
                    })
                    .collect(),
                asserted: false,
            },
        }
    }
}

/// Certificates by hash, parsed and checked against the members of one config; bounded.
pub struct Certificates(Cache<Digest, Arc<Certificate>>);

impl Certificates {
    pub fn new(capacity: usize) -> Self {
        Certificates(Cache::new(capacity))
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One that was checked not long ago.
    pub fn known(&self, hash: &Digest) -> Option<Arc<Certificate>> {
        self.0.get(hash)
    }

    /// `None`: not in the profile, of no member, or revoked on the ledger.
    pub fn check(&self, channel: &Channel, der: &[u8]) -> Option<Arc<Certificate>> {
        self.check_hashed(channel, sha256(der), der)
    }

    fn check_hashed(&self, channel: &Channel, hash: Digest, der: &[u8]) -> Option<Arc<Certificate>> {
        if let Some(known) = self.0.get(&hash) {
            return Some(known);
        }
        let certificate = Certificate::parse(der).ok()?;
        channel.members.verify(&certificate).ok()?;
        let certificate = Arc::new(certificate);
        self.0.insert(hash, Arc::clone(&certificate));
        Some(certificate)
    }
}

/// Certificates (DER) that a block or a request brought along, by hash. One is parsed and checked when
/// a transaction cites it: any number of others costs nothing.
#[derive(Default)]
pub struct Table<'a>(HashMap<Digest, Cow<'a, [u8]>>);

impl<'a> Table<'a> {
    pub fn new(ders: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Table(ders.into_iter().map(|der| (sha256(der), Cow::from(der))).collect())
    }

    pub fn owned(ders: impl IntoIterator<Item = (Digest, Vec<u8>)>) -> Table<'static> {
        Table(ders.into_iter().map(|(hash, der)| (hash, Cow::from(der))).collect())
    }

    pub fn der(&self, hash: &[u8]) -> Option<&[u8]> {
        self.0.get(&digest(hash)?).map(|der| &**der)
    }
}

/// What the checks without state found of one transaction.
#[derive(Clone, Debug)]
pub struct Checked {
    pub creator: Arc<Certificate>,
    /// In the transaction's order; an error keeps its place in the order of the checks.
    pub endorsers: Result<Vec<Principal>, Rejection>,
}

/// Checks transactions of one channel under one config; remembers what it verified. `Sync`.
pub struct Checker {
    pub channel: Arc<Channel>,
    pub verifier: Verifier,
    pub certificates: Certificates,
}

impl Checker {
    pub fn new(channel: Arc<Channel>) -> Self {
        Checker {
            channel,
            verifier: Verifier::new(16 * 1024),
            certificates: Certificates::new(4 * 1024),
        }
    }

    /// The certificate with this hash, if it was brought along and a member issued it.
    pub fn lookup(&self, table: &Table<'_>, hash: &[u8]) -> Option<Arc<Certificate>> {
        let der = table.der(hash)?;
        self.certificates.check_hashed(&self.channel, digest(hash)?, der)
    }

    /// A client's intent: channel, creator, rights, signature. Kind is the caller's to judge.
    pub fn check_proposal(
        &self,
        bytes: &[u8],
        proposal: &Proposal,
        signature: &Signature,
        table: &Table<'_>,
    ) -> Result<Arc<Certificate>, Rejection> {
        require(
            proposal.channel == self.channel.id,
            Code::WrongChannel,
            "proposal.channel",
        )?;
        require(proposal.epoch == 0, Code::WrongChannel, "proposal.epoch")?;
        let creator = self.lookup(table, &proposal.creator).ok_or(Rejection {
            code: Code::UnknownCreator,
            field: "proposal.creator",
        })?;
        let may = match creator.role {
            Role::Client | Role::Admin => proposal.on_behalf_of.is_none(),
            Role::Peer => proposal.on_behalf_of.is_some(),
            Role::Orderer | Role::Worker => false,
        };
        require(may, Code::CreatorRole, "proposal.creator")?;
        self.verifier
            .verify(
                &creator.public_key,
                Purpose::Proposal,
                &self.channel.id,
                bytes,
                signature,
            )
            .map_err(|_| Rejection {
                code: Code::BadClientSignature,
                field: "client",
            })?;
        Ok(creator)
    }

    /// Everything that can be judged without state and height. `partition`: where it stands, if it does.
    pub fn check(&self, tx: &Transaction, table: &Table<'_>, partition: Option<u32>) -> Result<Checked, Rejection> {
        let channel = &self.channel;
        require(
            tx.proposal.channel == channel.id,
            Code::WrongChannel,
            "proposal.channel",
        )?;
        require(tx.proposal.epoch == 0, Code::WrongChannel, "proposal.epoch")?;
        require(tx.proposal.kind() == Kind::Submit, Code::NotSubmit, "proposal.kind")?;
        let creator = self.check_proposal(&tx.proposal_bytes, &tx.proposal, &tx.client, table)?;
        let contract = self.contract(tx)?;
        require(
            tx.proposal.contract_digest == contract.digest,
            Code::ContractDigest,
            "proposal.contract_digest",
        )?;
        require(
            tx.result.contract_digest == contract.digest,
            Code::ContractDigest,
            "result.contract_digest",
        )?;
        require(tx.result.tx_id == tx.tx_id, Code::ResultMismatch, "result.tx_id")?;
        let fits = partition.is_none_or(|p| p == partition_of(&tx.partition_key, channel.partitions()));
        require(fits, Code::WrongPartition, "proposal.partition_key")?;
        check_keys(tx)?;
        Ok(Checked {
            creator,
            endorsers: self.check_endorsements(tx, table).and_then(|endorsers| {
                self.check_key_policies(&tx.result)?;
                Ok(endorsers)
            }),
        })
    }

    fn contract(&self, tx: &Transaction) -> Result<&ContractView, Rejection> {
        let found = self.channel.contracts.get(&tx.proposal.contract);
        found.ok_or(Rejection {
            code: Code::UnknownContract,
            field: "proposal.contract",
        })
    }

    fn check_endorsements(&self, tx: &Transaction, table: &Table<'_>) -> Result<Vec<Principal>, Rejection> {
        let mut principals = Vec::with_capacity(tx.endorsements.len());
        for signature in &tx.endorsements {
            let endorser = self
                .lookup(table, &signature.certificate)
                .filter(|c| c.role == Role::Peer);
            let endorser = endorser.ok_or(Rejection {
                code: Code::UnknownEndorser,
                field: "endorsements.certificate",
            })?;
            self.verifier
                .verify(
                    &endorser.public_key,
                    Purpose::Endorsement,
                    &self.channel.id,
                    &tx.result_bytes,
                    signature,
                )
                .map_err(|_| Rejection {
                    code: Code::BadEndorsement,
                    field: "endorsements",
                })?;
            principals.push(Principal::from(&*endorser));
        }
        Ok(principals)
    }

    /// Nobody may lock a key for ever: its new policy names members only, and one transaction's
    /// endorsements, which are by peers, can satisfy it.
    pub fn check_key_policies(&self, result: &TxResult) -> Result<(), Rejection> {
        let is_member = |msp_id: &str| self.channel.members.get(msp_id).is_some();
        let opens = |text: &str| {
            Policy::parse(text).is_ok_and(|policy| {
                policy.organisations().into_iter().all(is_member) && policy.can_be_endorsed(ENDORSEMENTS_MAX)
            })
        };
        let mut set = result.policies.iter().filter(|policy| !policy.policy.is_empty());
        require(
            set.all(|policy| opens(&policy.policy)),
            Code::PolicyNotSatisfied,
            "result.policies.policy",
        )
    }

    /// The policy of function, contract or channel; policies of keys are state.
    pub fn check_policy(&self, tx: &Transaction, endorsers: &[Principal]) -> Result<(), Rejection> {
        let policy = self.channel.policy(self.contract(tx)?, &tx.proposal.function);
        require(policy.evaluate(endorsers), Code::PolicyNotSatisfied, "endorsements")
    }
}

fn check_keys(tx: &Transaction) -> Result<(), Rejection> {
    let prefix = key_prefix(&tx.proposal.contract, &tx.partition_key);
    let inside = |key: &[u8], field| require(is_under(key, &prefix), Code::KeyOutside, field);
    for read in &tx.result.reads {
        inside(&read.key, "result.reads.key")?;
    }
    for range in &tx.result.ranges {
        inside(&range.start, "result.ranges.start")?;
        let end = range.end == crate::keys::prefix_end(&prefix) || is_under(&range.end, &prefix);
        require(end, Code::KeyOutside, "result.ranges.end")?;
    }
    for write in &tx.result.writes {
        inside(&write.key, "result.writes.key")?;
    }
    for policy in &tx.result.policies {
        inside(&policy.key, "result.policies.key")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
