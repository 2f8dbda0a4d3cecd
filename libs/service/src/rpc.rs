//! The calls between roles: messages, clients and servers of `proto/rpc.proto`.
//!
//! Clients and servers are made by the functions here, because these set the message sizes. Clients and
//! workers take what the protocol allows (blocks, modules); other servers take lists only, which are far smaller,
//! because every stream of every caller may hold one half-received message. What a message may hold is counted before
//! it is decoded, see `bounded`.

mod bounded;

use protocol::limits::GRPC_MESSAGE_BYTES_MAX;
use tonic::transport::Channel;

pub use bounded::Codec;

#[allow(clippy::all)]
mod generated {
    tonic::include_proto!("medledger.rpc.v1");
}
pub use generated::*;

use gateway_client::GatewayClient;
use gateway_server::{Gateway, GatewayServer};
use orderer_client::OrdererClient;
use orderer_server::{Orderer, OrdererServer};
use peer_client::PeerClient;
use peer_server::{Peer, PeerServer};
use worker_client::WorkerClient;
use worker_server::{Worker, WorkerServer};

/// What every path of a service begins with, for `serve::Access`.
pub mod path {
    pub const GATEWAY: &str = "/medledger.rpc.v1.Gateway/";
    pub const PEER: &str = "/medledger.rpc.v1.Peer/";
    pub const ORDERER: &str = "/medledger.rpc.v1.Orderer/";
    pub const WORKER: &str = "/medledger.rpc.v1.Worker/";
}

/// What a server takes at once, if it is not a worker: `mux` sends lists of at most 1 MiB.
const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;
const _: () = assert!(LIST_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX);

macro_rules! ends {
    ($client:ident, $Client:ident, $server:ident, $Server:ident, $Trait:ident, $takes:ident) => {
        #[doc = concat!("A `", stringify!($Trait), "` at the other end of the channel.")]
        pub fn $client(channel: Channel) -> $Client<Channel> {
            $Client::new(channel)
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        }

        #[doc = concat!("Serves a `", stringify!($Trait), "`.")]
        pub fn $server<T: $Trait>(service: T) -> $Server<T> {
            $Server::new(service)
                .max_decoding_message_size($takes)
                .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        }
    };
}

ends!(
    gateway_client,
    GatewayClient,
    gateway_server,
    GatewayServer,
    Gateway,
    LIST_BYTES_MAX
);
ends!(peer_client, PeerClient, peer_server, PeerServer, Peer, LIST_BYTES_MAX);
ends!(
    orderer_client,
    OrdererClient,
    orderer_server,
    OrdererServer,
    Orderer,
    LIST_BYTES_MAX
);
ends!(
    worker_client,
    WorkerClient,
    worker_server,
    WorkerServer,
    Worker,
    GRPC_MESSAGE_BYTES_MAX
);
