//! Transactions whose every part a test can change, before or after it is signed.

use prost::Message;

use super::{TestIdentity, TestNet};
use crate::{
    hash::{Digest, sha256},
    keys::{arguments_commitment, key_prefix, partition_of, response_digest, state_key},
    ledger::{
        Event, KeyPolicy, Kind, OnBehalfOf, Proposal, RangeRead, Read, Result as TxResult, Signature, Transaction,
        Version, Write,
    },
    signature::Purpose,
};

/// Client time of test proposals: 2026-01-01.
const CLIENT_TIME_MS: u64 = 1_767_225_600_000;

/// A transaction as it travels, and what it was made from.
#[derive(Clone, Debug)]
pub struct TestTx {
    /// ledger.Transaction
    pub bytes: Vec<u8>,
    /// DER: creator's and endorsers', ascending by hash, each once.
    pub certificates: Vec<Vec<u8>>,
    pub tx_id: Digest,
    pub partition: u32,
    pub partition_key: Digest,
    pub proposal: Proposal,
    pub proposal_bytes: Vec<u8>,
    pub client_signature: Signature,
    pub result: TxResult,
    pub salt: [u8; 32],
    pub arguments: Vec<u8>,
    pub response: Vec<u8>,
}

type Change<T> = Box<dyn FnOnce(&mut T)>;

/// Made by [`TestNet::tx`]; `build` signs.
pub struct TxBuilder<'a> {
    net: &'a TestNet,
    contract: String,
    function: String,
    partition_key: Digest,
    client: TestIdentity,
    client_signer: Option<TestIdentity>,
    endorsers: Vec<TestIdentity>,
    on_behalf_of: Option<OnBehalfOf>,
    arguments: Vec<u8>,
    response: Vec<u8>,
    subject: String,
    height_bound: u64,
    snapshot: (u64, Digest),
    reads: Vec<(Vec<u8>, Option<Version>)>,
    ranges: Vec<RangeRead>,
    writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    policies: Vec<(Vec<u8>, String)>,
    events: Vec<Event>,
    same_intent: Option<TestTx>,
    change_proposal: Vec<Change<Proposal>>,
    change_result: Vec<Change<TxResult>>,
    change_transaction: Vec<Change<Transaction>>,
}

impl<'a> TxBuilder<'a> {
    pub(super) fn new(net: &'a TestNet, subject: &str) -> Self {
        let first = &net.organisations[0];
        TxBuilder {
            net,
            contract: "records".to_owned(),
            function: "create".to_owned(),
            partition_key: [0; 32],
            client: first.identity("client0").clone(),
            client_signer: None,
            endorsers: vec![first.identity("peer0").clone()],
            on_behalf_of: None,
            arguments: b"[]".to_vec(),
            response: b"null".to_vec(),
            subject: subject.to_owned(),
            height_bound: 1_000,
            snapshot: (0, [0; 32]),
            reads: Vec::new(),
            ranges: Vec::new(),
            writes: Vec::new(),
            policies: Vec::new(),
            events: Vec::new(),
            same_intent: None,
            change_proposal: Vec::new(),
            change_result: Vec::new(),
            change_transaction: Vec::new(),
        }
    }

    pub fn contract(mut self, name: &str) -> Self {
        self.contract = name.to_owned();
        self
    }

    pub fn function(mut self, name: &str) -> Self {
        self.function = name.to_owned();
        self
    }

    /// Who creates and signs the proposal.
    pub fn client(mut self, client: &TestIdentity) -> Self {
        self.client = client.clone();
        self
    }

    /// Somebody else signs in the creator's name: a forgery.
    pub fn signed_by(mut self, signer: &TestIdentity) -> Self {
        self.client_signer = Some(signer.clone());
        self
    }

    /// In this order.
    pub fn endorsers(mut self, endorsers: &[&TestIdentity]) -> Self {
        self.endorsers = endorsers.iter().map(|endorser| (*endorser).clone()).collect();
        self
    }

    /// `client` is then a gateway's identity, a peer's.
    pub fn on_behalf_of(mut self, person: OnBehalfOf) -> Self {
        self.on_behalf_of = Some(person);
        self
    }

    pub fn arguments(mut self, arguments: &[u8]) -> Self {
        self.arguments = arguments.to_vec();
        self
    }

    pub fn response(mut self, response: &[u8]) -> Self {
        self.response = response.to_vec();
        self
    }

    pub fn height_bound(mut self, height: u64) -> Self {
        self.height_bound = height;
        self
    }

    /// The height and header that endorsers saw.
    pub fn snapshot(mut self, height: u64, header: &Digest) -> Self {
        self.snapshot = (height, *header);
        self
    }

    /// `suffix` is under the transaction's partition key, here and below.
    pub fn read(mut self, suffix: &[u8], version: Option<Version>) -> Self {
        self.reads.push((suffix.to_vec(), version));
        self
    }

    /// From `start` to `end`; an empty end is the end of the partition key.
    pub fn range(mut self, start: &[u8], end: &[u8], entries: &[(&[u8], Version)]) -> Self {
        let full = |suffix: &[u8]| self.key(suffix);
        let end = match end {
            [] => crate::keys::prefix_end(&key_prefix(&self.contract, &self.key_of_subject())),
            end => full(end),
        };
        let entries = entries.iter().map(|(suffix, version)| Read {
            key: full(suffix),
            version: Some(*version),
        });
        let range = RangeRead {
            start: full(start),
            end,
            entries: entries.collect(),
        };
        self.ranges.push(range);
        self
    }

    pub fn write(mut self, suffix: &[u8], value: &[u8]) -> Self {
        self.writes.push((suffix.to_vec(), Some(value.to_vec())));
        self
    }

    pub fn delete(mut self, suffix: &[u8]) -> Self {
        self.writes.push((suffix.to_vec(), None));
        self
    }

    pub fn policy(mut self, suffix: &[u8], policy: &str) -> Self {
        self.policies.push((suffix.to_vec(), policy.to_owned()));
        self
    }

    pub fn event(mut self, r#type: &str, payload: &[u8]) -> Self {
        self.events.push(Event {
            r#type: r#type.to_owned(),
            payload: payload.to_vec(),
        });
        self
    }

    /// The same signed proposal as `tx`, with a result of its own: an endorsement after a conflict.
    pub fn again(mut self, tx: &TestTx) -> Self {
        self.same_intent = Some(tx.clone());
        self
    }

    /// Changes the proposal before it is signed.
    pub fn proposal(mut self, change: impl FnOnce(&mut Proposal) + 'static) -> Self {
        self.change_proposal.push(Box::new(change));
        self
    }

    /// Changes the result before it is endorsed.
    pub fn result(mut self, change: impl FnOnce(&mut TxResult) + 'static) -> Self {
        self.change_result.push(Box::new(change));
        self
    }

    /// Changes the transaction after everything is signed.
    pub fn transaction(mut self, change: impl FnOnce(&mut Transaction) + 'static) -> Self {
        self.change_transaction.push(Box::new(change));
        self
    }

    fn key_of_subject(&self) -> Digest {
        self.net.secret.partition_key(&self.contract, &self.subject)
    }

    fn key(&self, suffix: &[u8]) -> Vec<u8> {
        state_key(&self.contract, &self.key_of_subject(), suffix)
    }

    pub fn build(mut self) -> TestTx {
        self.partition_key = self.key_of_subject();
        let salt = self.same_intent.as_ref().map_or_else(|| self.net.fresh(), |tx| tx.salt);
        let (proposal, proposal_bytes, client_signature) = self.intent(&salt);
        let tx_id = sha256(&proposal_bytes);
        let result = self.outcome(&salt, &tx_id);
        let result_bytes = result.encode_to_vec();
        let channel = self.net.channel.id;
        let mut transaction = Transaction {
            proposal: proposal_bytes.clone(),
            client: Some(client_signature.clone()),
            endorsements: self
                .endorsers
                .iter()
                .map(|endorser| endorser.sign(Purpose::Endorsement, &channel, &result_bytes))
                .collect(),
            result: result_bytes,
        };
        for change in self.change_transaction.drain(..) {
            change(&mut transaction);
        }
        let mut certificates: Vec<&TestIdentity> = self.endorsers.iter().chain([&self.client]).collect();
        certificates.sort_by_key(|identity| identity.hash());
        certificates.dedup_by_key(|identity| identity.hash());
        TestTx {
            bytes: transaction.encode_to_vec(),
            certificates: certificates.iter().map(|identity| identity.der().to_vec()).collect(),
            tx_id,
            partition: partition_of(&self.partition_key, self.net.channel.partitions()),
            partition_key: self.partition_key,
            proposal,
            proposal_bytes,
            client_signature,
            result,
            salt,
            arguments: self.arguments,
            response: self.response,
        }
    }

    fn intent(&mut self, salt: &[u8; 32]) -> (Proposal, Vec<u8>, Signature) {
        if let Some(tx) = &self.same_intent {
            return (
                tx.proposal.clone(),
                tx.proposal_bytes.clone(),
                tx.client_signature.clone(),
            );
        }
        let mut proposal = Proposal {
            channel: self.net.channel.id.to_vec(),
            epoch: 0,
            contract: self.contract.clone(),
            contract_digest: self.net.contract(&self.contract).digest().to_vec(),
            function: self.function.clone(),
            partition_key: self.partition_key.to_vec(),
            creator: self.client.hash().to_vec(),
            on_behalf_of: self.on_behalf_of.take(),
            kind: Kind::Submit.into(),
            nonce: self.net.fresh()[..16].to_vec(),
            client_time_ms: CLIENT_TIME_MS,
            height_bound: self.height_bound,
            arguments_commitment: arguments_commitment(salt, &self.arguments).to_vec(),
        };
        for change in self.change_proposal.drain(..) {
            change(&mut proposal);
        }
        let bytes = proposal.encode_to_vec();
        let signer = self.client_signer.as_ref().unwrap_or(&self.client);
        let mut signature = signer.sign(Purpose::Proposal, &self.net.channel.id, &bytes);
        signature.certificate = proposal.creator.clone();
        (proposal, bytes, signature)
    }

    fn outcome(&mut self, salt: &[u8; 32], tx_id: &Digest) -> TxResult {
        let mut result = TxResult {
            tx_id: tx_id.to_vec(),
            contract_digest: self.net.contract(&self.contract).digest().to_vec(),
            snapshot_height: self.snapshot.0,
            snapshot_header: self.snapshot.1.to_vec(),
            reads: self
                .reads
                .iter()
                .map(|(s, version)| Read {
                    key: self.key(s),
                    version: *version,
                })
                .collect(),
            ranges: std::mem::take(&mut self.ranges),
            writes: self
                .writes
                .iter()
                .map(|(suffix, value)| Write {
                    key: self.key(suffix),
                    delete: value.is_none(),
                    value: value.clone().unwrap_or_default(),
                })
                .collect(),
            policies: self
                .policies
                .iter()
                .map(|(suffix, policy)| KeyPolicy {
                    key: self.key(suffix),
                    policy: policy.clone(),
                })
                .collect(),
            response_digest: response_digest(salt, &self.response).to_vec(),
            events: std::mem::take(&mut self.events),
        };
        result.reads.sort_by(|a, b| a.key.cmp(&b.key));
        result.writes.sort_by(|a, b| a.key.cmp(&b.key));
        result.policies.sort_by(|a, b| a.key.cmp(&b.key));
        for change in self.change_result.drain(..) {
            change(&mut result);
        }
        result
    }
}
