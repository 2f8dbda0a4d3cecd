//! A client's connection to a peer of its organisation, and what it signs with.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use protocol::{Digest, genesis::Channel};
use service::{
    Identity, Role, Tasks,
    calls::ListCall,
    mux::{self, Mux},
    rpc::{self, gateway_client::GatewayClient},
    signer::{self, BatchSigner},
    tls::{Target, Trust},
};

use crate::network::layout::Process;

pub struct Session {
    pub channel: Arc<Channel>,
    pub identity: Arc<Identity>,
    pub peer: Process,
    pub tasks: Tasks,
    pub trust: Arc<Trust>,
    connection: tonic::transport::Channel,
}

impl Session {
    /// Connects when first used.
    pub fn open(channel: Arc<Channel>, identity: Arc<Identity>, peer: &Process) -> Result<Session> {
        let trust = Trust::load(identity.clone(), channel.members.clone(), None)
            .with_context(|| format!("{} as {:?}", peer.name, identity))?;
        let target = Target::new(peer.listen.clone(), Role::Peer, Some(&peer.organisation));
        let connection = trust.channel(&target)?;
        Ok(Session {
            channel,
            identity,
            peer: peer.clone(),
            tasks: Tasks::new(),
            trust,
            connection,
        })
    }

    pub fn gateway(&self) -> GatewayClient<tonic::transport::Channel> {
        rpc::gateway_client(self.connection.clone())
    }

    /// A stream of lists over a connection of its own, so that a flood of one kind of calls leaves
    /// the others alone.
    pub fn mux<C: ListCall>(&self, config: mux::Config) -> Result<Mux<C>> {
        let target = Target::new(self.peer.listen.clone(), Role::Peer, Some(&self.peer.organisation));
        Ok(Mux::start(&self.tasks, self.trust.channel(&target)?, config))
    }

    pub fn signer(&self) -> BatchSigner {
        BatchSigner::start(
            &self.tasks,
            self.identity.clone(),
            self.channel.id,
            signer::Config::default(),
        )
    }

    pub fn channel_id(&self) -> &Digest {
        &self.channel.id
    }

    /// Asks this session's background tasks to end; they hold nothing that must be waited for.
    pub fn close(&self) {
        self.tasks.cancel();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close();
    }
}

/// For unary calls that may wait for a commit.
pub fn deadline<T>(mut request: tonic::Request<T>, within: Duration) -> tonic::Request<T> {
    request.set_timeout(within);
    request
}
