//! Who this peer is, how high its chains are, and which other peers answer.

use service::rpc;

use super::Gateway;

/// What asking is charged with: the answer names every chain and every peer.
pub(super) const NETWORK_BYTES: usize = 4 * 1024;

impl Gateway {
    pub(super) fn network(&self) -> rpc::NetworkReply {
        rpc::NetworkReply {
            channel: self.ledger.checker.channel.id.to_vec(),
            organisation: self.identity.msp_id().to_owned(),
            peer: self.identity.certificate.common_name.clone(),
            chains: self.ledger.chains(),
            peers: self.peers.seen(),
            log_reachable: self.ledger.log_reachable(),
        }
    }
}
