//! The gRPC verb: a stream of lists from every gateway, and a unary call for small programs.

use std::sync::Arc;

use protocol::ledger::Receipt;
use service::{
    Caller, Tasks,
    lists::{self, Asked},
    problem::Problem,
    rpc::{self, BroadcastReply, BroadcastRequest, BroadcastRequests, broadcast_reply::Outcome},
};
use tonic::{Request, Response, Status, Streaming};

use crate::{Orderer, ticket::Answer};

/// The orderer as gRPC shows it.
pub struct Broadcast {
    orderer: Orderer,
    tasks: Tasks,
}

impl Broadcast {
    pub fn new(orderer: Orderer, tasks: Tasks) -> Self {
        Broadcast { orderer, tasks }
    }
}

fn reply(id: u64, result: Result<Receipt, Problem>) -> BroadcastReply {
    let outcome = match result {
        Ok(receipt) => Outcome::Receipt(receipt),
        Err(problem) => Outcome::Problem(problem.into()),
    };
    BroadcastReply {
        id,
        outcome: Some(outcome),
    }
}

#[tonic::async_trait]
impl rpc::orderer_server::Orderer for Broadcast {
    type BroadcastListsStream = lists::ReplyStream<lists::Broadcast>;

    async fn broadcast(&self, request: Request<BroadcastRequest>) -> Result<Response<BroadcastReply>, Status> {
        let caller = Caller::of(request.extensions())?;
        let request = request.into_inner();
        let id = request.id;
        let result = self.orderer.broadcast(&caller, request).await;
        Ok(Response::new(reply(id, result)))
    }

    async fn broadcast_lists(
        &self,
        request: Request<Streaming<BroadcastRequests>>,
    ) -> Result<Response<Self::BroadcastListsStream>, Status> {
        let orderer = self.orderer.clone();
        let handle = move |items: Vec<Asked<lists::Broadcast>>, caller: Arc<Caller>| {
            let orderer = orderer.clone();
            async move {
                let items = items.into_iter().map(|Asked { item, answer }| {
                    let answer: Answer = Box::new(move |result| answer.send(reply(0, result)));
                    (item, answer)
                });
                orderer.offer(&caller, items.collect());
            }
        };
        lists::serve_lists::<lists::Broadcast, _, _>(&self.tasks, request, lists::Limits::default(), handle)
    }
}
