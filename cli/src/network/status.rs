//! How a network is: each process's life, each peer's chains.

use std::time::Duration;

use serde::Serialize;
use service::rpc;

use crate::output::causes;

use super::{
    Network,
    layout::{Kind, Process},
    plan::ADMIN,
};

const ASK_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub channel: String,
    pub processes: Vec<ProcessStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ProcessStatus {
    pub name: String,
    pub kind: Kind,
    pub organisation: String,
    pub listen: String,
    pub health: String,
    pub pid: Option<i32>,
    /// What `/readyz` says; brokers have none.
    pub ready: bool,
    pub rss_bytes: u64,
    /// Of a peer that answers.
    pub log_reachable: Option<bool>,
    pub chains: Vec<ChainStatus>,
    pub peers_alive: Vec<String>,
    pub peers_away: Vec<String>,
    /// Why a peer did not answer.
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainStatus {
    /// `control` or a number.
    pub partition: String,
    pub blocks: u64,
    pub header: String,
    pub state_digest: String,
    pub attested_blocks: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stopped: String,
}

impl From<rpc::Chain> for ChainStatus {
    fn from(chain: rpc::Chain) -> Self {
        ChainStatus {
            partition: partition_name(chain.partition),
            blocks: chain.blocks,
            header: hex::encode(&chain.header),
            state_digest: hex::encode(&chain.state_digest),
            attested_blocks: chain.attested_blocks,
            stopped: chain.stopped,
        }
    }
}

pub fn partition_name(partition: u32) -> String {
    if partition == protocol::CONTROL {
        "control".to_owned()
    } else {
        partition.to_string()
    }
}

impl Network {
    pub async fn status(&self) -> Status {
        let asked = self
            .description
            .processes
            .iter()
            .map(|process| self.process_status(process));
        Status {
            channel: self.description.channel.clone(),
            processes: futures::future::join_all(asked).await,
        }
    }

    async fn process_status(&self, process: &Process) -> ProcessStatus {
        let running = self.running(&process.name);
        let mut status = ProcessStatus {
            name: process.name.clone(),
            kind: process.kind,
            organisation: process.organisation.clone(),
            listen: process.listen.clone(),
            health: process.health.clone(),
            pid: running.map(|running| running.pid),
            ready: false,
            rss_bytes: running
                .and_then(|running| running.usage())
                .map_or(0, |usage| usage.rss_bytes),
            log_reachable: None,
            chains: Vec::new(),
            peers_alive: Vec::new(),
            peers_away: Vec::new(),
            error: None,
        };
        if !self.may_answer(&process.name) {
            return status;
        }
        status.ready = match process.kind {
            Kind::Broker => tokio::net::TcpStream::connect(&process.listen).await.is_ok(),
            _ => matches!(super::ready::get(&process.health, "/readyz").await, Ok((200, _))),
        };
        if process.kind == Kind::Peer {
            match tokio::time::timeout(ASK_WITHIN, self.ask_peer(process)).await {
                Ok(Ok(reply)) => seen(&mut status, reply),
                Ok(Err(error)) => status.error = Some(causes(&error)),
                Err(_) => status.error = Some(format!("no answer within {ASK_WITHIN:?}")),
            }
        }
        status
    }

    /// The peer's own account, asked by its organisation's admin.
    pub async fn ask_peer(&self, process: &Process) -> anyhow::Result<rpc::NetworkReply> {
        let session = self.connect(&process.organisation, ADMIN, Some(&process.name))?;
        let reply = session.gateway().network(rpc::NetworkRequest {}).await;
        session.close();
        Ok(reply.map_err(service::Problem::from)?.into_inner())
    }
}

fn seen(status: &mut ProcessStatus, reply: rpc::NetworkReply) {
    status.log_reachable = Some(reply.log_reachable);
    status.chains = reply.chains.into_iter().map(ChainStatus::from).collect();
    for peer in reply.peers {
        let name = format!("{} {}", peer.organisation, peer.address);
        if peer.alive {
            status.peers_alive.push(name)
        } else {
            status.peers_away.push(name)
        }
    }
}
