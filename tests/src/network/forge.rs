//! Transactions and records as no honest process makes them, out of a running network's own keys.
//!
//! A [`Draft`] starts as an honest endorsed transaction; a case changes any part of it, before or after
//! whoever should vouch for that part has signed. The same draft goes to an orderer's admission, and into the
//! log past it, signed by an orderer of the network as a dishonest one would.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ledger_log::Log as _;
use prost::Message as _;
use protocol::{
    Digest,
    keys::{ChannelSecret, partition_of},
    ledger::{Block, BlockRecord, Kind, Proposal, Result as TxResult, Signature, Transaction},
    sha256,
    signature::{Purpose, sign},
};
use service::{
    Identity, Problem,
    rpc::{self, BroadcastRequest, Call, EndorseRequest, broadcast_reply, endorse_reply},
};

use super::{PATIENCE, World, client::Client};

/// The one who signs, and as whom.
pub type Signer = Arc<Identity>;

/// A transaction in the making. What is changed here is signed again by [`Draft::build`].
#[derive(Clone)]
pub struct Draft {
    pub proposal: Proposal,
    pub result: TxResult,
    /// Whose key signs the proposal; the proposal itself names the creator.
    pub client: Signer,
    pub endorsers: Vec<Signer>,
    pub channel: Digest,
    /// Sent along beside those of client and endorsers.
    pub certificates: Vec<Vec<u8>>,
    pub client_purpose: Purpose,
    pub endorsement_purpose: Purpose,
    /// Whether the result is made to fit a changed proposal, as an endorser would.
    pub rebind: bool,
}

/// A transaction as it travels.
#[derive(Clone)]
pub struct Built {
    pub transaction: Transaction,
    pub certificates: Vec<Vec<u8>>,
    /// These bytes instead of the transaction's.
    pub raw: Option<Vec<u8>>,
}

impl Built {
    pub fn bytes(&self) -> Vec<u8> {
        self.raw.clone().unwrap_or_else(|| self.transaction.encode_to_vec())
    }

    pub fn tx_id(&self) -> Digest {
        sha256(&self.transaction.proposal)
    }

    pub fn request(&self) -> BroadcastRequest {
        BroadcastRequest {
            id: 0,
            transaction: self.bytes(),
            certificates: self.certificates.clone(),
        }
    }

    /// The partition of its key; the first, when that cannot be read any more.
    pub fn partition(&self, partitions: u32) -> u32 {
        let proposal = Proposal::decode(&self.transaction.proposal[..]).ok();
        let key = proposal.and_then(|proposal| protocol::hash::digest(&proposal.partition_key));
        key.map_or(0, |key| partition_of(&key, partitions))
    }
}

impl Draft {
    /// Signed by all, the result bound to the proposal as it is now.
    pub fn build(mut self) -> Built {
        let proposal = self.proposal.encode_to_vec();
        if self.rebind {
            self.result.tx_id = sha256(&proposal).to_vec();
        }
        let result = self.result.encode_to_vec();
        let mut client = signature(&self.client, self.client_purpose, &self.channel, &proposal);
        client.certificate.clone_from(&self.proposal.creator);
        let endorsements = self
            .endorsers
            .iter()
            .map(|endorser| signature(endorser, self.endorsement_purpose, &self.channel, &result));
        let mut certificates = BTreeMap::new();
        for identity in self.endorsers.iter().chain([&self.client]) {
            certificates.insert(identity.hash(), identity.certificate_der().to_vec());
        }
        for der in &self.certificates {
            certificates.insert(sha256(der), der.clone());
        }
        Built {
            transaction: Transaction {
                endorsements: endorsements.collect(),
                proposal,
                client: Some(client),
                result,
            },
            certificates: certificates.into_values().collect(),
            raw: None,
        }
    }
}

/// A batch of one.
pub fn signature(signer: &Identity, purpose: Purpose, channel: &Digest, content: &[u8]) -> Signature {
    let signed = sign(&signer.signing_key, &signer.hash(), purpose, channel, &[content]);
    signed.expect("a key signs").remove(0)
}

impl World {
    pub fn identity(&self, organisation: &str, name: &str) -> Signer {
        self.network
            .identity(organisation, name)
            .unwrap_or_else(|error| panic!("{organisation} {name}: {error:#}"))
    }

    pub fn channel_id(&self) -> Digest {
        self.network.channel.id
    }

    /// What the peers hold in a file and Kafka never sees.
    pub fn secret(&self) -> ChannelSecret {
        let bytes = std::fs::read(self.network.layout.secret()).expect("the channel secret");
        ChannelSecret::new(&bytes.try_into().expect("32 bytes"))
    }

    /// An honest transaction of this client, endorsed at its gateway and not submitted.
    pub async fn draft(&self, client: &Client, call: Call) -> Draft {
        let signed = client.sign(call, Kind::Submit, PATIENCE).await.expect("a plan");
        let request = EndorseRequest {
            id: 0,
            proposal: Some(signed.proposal.clone()),
            snapshot_height: 0,
        };
        let reply = client
            .session
            .gateway()
            .endorse(request)
            .await
            .expect("an answer")
            .into_inner();
        let endorsement = match reply.outcome {
            Some(endorse_reply::Outcome::Endorsement(endorsement)) => endorsement,
            other => panic!("{}: endorse: {other:?}", client.peer()),
        };
        let peer = self.process(client.peer());
        Draft {
            proposal: Proposal::decode(&signed.proposal.proposal[..]).expect("a proposal"),
            result: TxResult::decode(&endorsement.result[..]).expect("a result"),
            client: client.session.identity.clone(),
            endorsers: vec![self.identity(&peer.organisation, peer.name.split('.').next().expect("a name"))],
            channel: self.channel_id(),
            certificates: vec![client.session.identity.certificate_der().to_vec()],
            client_purpose: Purpose::Proposal,
            endorsement_purpose: Purpose::Endorsement,
            rebind: true,
        }
    }

    /// What an orderer of the network would append for these.
    pub fn sealed(&self, partition: u32, transactions: &[&Built]) -> Block {
        let mut certificates = BTreeMap::new();
        for der in transactions.iter().flat_map(|built| &built.certificates) {
            certificates.insert(sha256(der), der.clone());
        }
        Block {
            channel: self.channel_id().to_vec(),
            epoch: 0,
            partition,
            certificates: certificates.into_values().collect(),
            transactions: transactions.iter().map(|built| built.bytes()).collect(),
            marker: None,
        }
    }

    /// An orderer's identity of this network: what a dishonest orderer has.
    pub fn orderer(&self) -> Signer {
        let process = self.network.process("orderer0").expect("an orderer");
        self.identity(&process.organisation, "orderer0")
    }

    pub fn record(&self, signer: &Identity, block: &Block) -> BlockRecord {
        let block = block.encode_to_vec();
        let signature = Some(signature(signer, Purpose::Block, &self.channel_id(), &block));
        BlockRecord {
            block,
            certificate: signer.certificate_der().to_vec(),
            signature,
        }
    }

    /// Puts any bytes into a data partition, past every orderer; its height.
    pub async fn inject(&self, partition: u32, raw: Vec<u8>) -> u64 {
        self.log()
            .append(&self.topic(partition), raw.into())
            .await
            .expect("Kafka takes it")
    }

    /// Puts transactions into a partition under an orderer's signature; the block's height.
    pub async fn inject_block(&self, partition: u32, transactions: &[&Built]) -> u64 {
        let record = self.record(&self.orderer(), &self.sealed(partition, transactions));
        self.inject(partition, record.encode_to_vec()).await
    }
}

/// An orderer as a peer of a member sees it.
pub struct AtOrderer(pub rpc::orderer_client::OrdererClient<tonic::transport::Channel>);

impl AtOrderer {
    pub async fn broadcast(&mut self, request: BroadcastRequest) -> Result<(), Problem> {
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_secs(30));
        match self
            .0
            .broadcast(request)
            .await
            .map_err(Problem::from)?
            .into_inner()
            .outcome
        {
            Some(broadcast_reply::Outcome::Receipt(_)) => Ok(()),
            Some(broadcast_reply::Outcome::Problem(problem)) => Err(problem.into()),
            None => panic!("an orderer's reply is empty"),
        }
    }
}
