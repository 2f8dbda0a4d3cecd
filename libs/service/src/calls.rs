//! The calls that travel in lists: for each of the protocol's bidirectional streams, what an item is,
//! where its id is, and how it is refused. `mux` and `duplex` are their client side, `lists` the server's.

use futures::future::BoxFuture;
use prost::Message;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::problem::Problem;
use crate::rpc;

/// One bidirectional stream of lists.
pub trait ListCall: Send + Sync + 'static {
    /// For metrics and logs.
    const NAME: &'static str;
    type Item: Message + Send + 'static;
    type Reply: Message + Send + 'static;
    /// What the client sends: a list of items.
    type Items: Message + Default + Send + 'static;
    /// What the server sends: a list of replies.
    type Replies: Message + Default + Send + 'static;

    fn items(list: Self::Items) -> Vec<Self::Item>;
    fn item_list(items: Vec<Self::Item>) -> Self::Items;
    fn replies(list: Self::Replies) -> Vec<Self::Reply>;
    fn reply_list(replies: Vec<Self::Reply>) -> Self::Replies;

    fn item_id(item: &Self::Item) -> u64;
    fn set_item_id(item: &mut Self::Item, id: u64);
    fn reply_id(reply: &Self::Reply) -> u64;
    fn set_reply_id(reply: &mut Self::Reply, id: u64);

    /// The reply that says no.
    fn refuse(problem: Problem) -> Self::Reply;

    /// Does this item begin an exchange? Only conversations have items that do not.
    fn opens(_item: &Self::Item) -> bool {
        true
    }

    /// Opens the stream.
    fn open(
        channel: Channel,
        lists: ReceiverStream<Self::Items>,
    ) -> BoxFuture<'static, Result<Streaming<Self::Replies>, tonic::Status>>;
}

macro_rules! list_call {
    (
        $(#[doc = $doc:literal])+ $call:ident, $name:literal, $client:ident . $method:ident,
        $Item:ident, $Items:ident, $Reply:ident, $Replies:ident,
        refuse: $refuse:expr $(, opens: $opens:expr)?
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug)]
        pub enum $call {}

        impl ListCall for $call {
            const NAME: &'static str = $name;
            type Item = rpc::$Item;
            type Reply = rpc::$Reply;
            type Items = rpc::$Items;
            type Replies = rpc::$Replies;

            fn items(list: Self::Items) -> Vec<Self::Item> { list.items }
            fn item_list(items: Vec<Self::Item>) -> Self::Items { rpc::$Items { items } }
            fn replies(list: Self::Replies) -> Vec<Self::Reply> { list.items }
            fn reply_list(items: Vec<Self::Reply>) -> Self::Replies { rpc::$Replies { items } }
            fn item_id(item: &Self::Item) -> u64 { item.id }
            fn set_item_id(item: &mut Self::Item, id: u64) { item.id = id; }
            fn reply_id(reply: &Self::Reply) -> u64 { reply.id }
            fn set_reply_id(reply: &mut Self::Reply, id: u64) { reply.id = id; }

            fn refuse(problem: Problem) -> Self::Reply {
                let refuse: fn(Problem) -> Self::Reply = $refuse;
                refuse(problem)
            }

            $(fn opens(item: &Self::Item) -> bool {
                let opens: fn(&Self::Item) -> bool = $opens;
                opens(item)
            })?

            fn open(
                channel: Channel,
                lists: ReceiverStream<Self::Items>,
            ) -> BoxFuture<'static, Result<Streaming<Self::Replies>, tonic::Status>> {
                Box::pin(async move {
                    let mut client = rpc::$client(channel);
                    Ok(client.$method(lists).await?.into_inner())
                })
            }
        }
    };
}

list_call!(
    /// Client → gateway: what a client needs to sign.
    Prepare, "prepare", gateway_client.prepare_lists,
    PrepareRequest, PrepareRequests, PrepareReply, PrepareReplies,
    refuse: |problem| rpc::PrepareReply {
        outcome: Some(rpc::prepare_reply::Outcome::Problem(problem.into())), ..Default::default()
    }
);
list_call!(
    /// Client → gateway: queries.
    Evaluate, "evaluate", gateway_client.evaluate_lists,
    EvaluateRequest, EvaluateRequests, EvaluateReply, EvaluateReplies,
    refuse: |problem| rpc::EvaluateReply {
        outcome: Some(rpc::evaluate_reply::Outcome::Problem(problem.into())), ..Default::default()
    }
);
list_call!(
    /// Client → gateway: transactions.
    Submit, "submit", gateway_client.submit_lists,
    SubmitRequest, SubmitRequests, SubmitReply, SubmitReplies,
    refuse: |problem| rpc::SubmitReply {
        outcome: Some(rpc::submit_reply::Outcome::Problem(problem.into())), ..Default::default()
    }
);
list_call!(
    /// Client → gateway: what became of a transaction.
    Status, "status", gateway_client.status_lists,
    StatusRequest, StatusRequests, StatusReply, StatusReplies,
    refuse: |problem| rpc::StatusReply {
        outcome: Some(rpc::status_reply::Outcome::Problem(problem.into())), ..Default::default()
    }
);
list_call!(
    /// Gateway → endorser.
    Endorse, "endorse", peer_client.endorse_lists,
    EndorseRequest, EndorseRequests, EndorseReply, EndorseReplies,
    refuse: |problem| rpc::EndorseReply {
        outcome: Some(rpc::endorse_reply::Outcome::Problem(problem.into())), ..Default::default()
    }
);
list_call!(
    /// Gateway → orderer.
    Broadcast, "broadcast", orderer_client.broadcast_lists,
    BroadcastRequest, BroadcastRequests, BroadcastReply, BroadcastReplies,
    refuse: |problem| rpc::BroadcastReply {
        outcome: Some(rpc::broadcast_reply::Outcome::Problem(problem.into())), ..Default::default()
    }
);
list_call!(
    /// Peer → worker: conversations, see `duplex` and `lists::converse`.
    Work, "work", worker_client.invoke,
    ToWorker, ToWorkerList, FromWorker, FromWorkerList,
    refuse: |problem| rpc::FromWorker {
        message: Some(rpc::from_worker::Message::Failed(rpc::Failed {
            // Full is the machine's word `busy`; whatever else is refused keeps its own.
            code: match problem.code {
                crate::problem::Code::ResourceExhausted => "busy".to_owned(),
                code => code.as_str().to_owned(),
            },
            detail: problem.detail,
            field: problem.field,
        })),
        ..Default::default()
    },
    opens: |item| matches!(item.message, Some(rpc::to_worker::Message::Route(_) | rpc::to_worker::Message::Invoke(_)))
);
