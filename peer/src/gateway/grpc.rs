//! The verbs as gRPC: streams of lists for programs, unary calls around them for people.

use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{FuturesUnordered, Stream, StreamExt as _};
use prost::Message as _;
use service::calls::ListCall;
use service::lists::{self, Asked, ReplyStream};
use service::rpc::{self, gateway_server};
use service::{Caller, OnFailure, Problem, Tasks};
use tonic::{Request, Response, Status, Streaming};

use super::Gateway;

/// Items of a list that share a task: they wait for the same worker, signer and log, and what they
/// compute between is short.
const ITEMS_PER_TASK: usize = 64;

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
pub struct GatewayService(pub(super) Arc<Gateway>);

impl GatewayService {
    /// Ends with the process, so that draining does not wait for clients that listen.
    fn until_end<T: 'static>(&self, stream: impl Stream<Item = Result<T, Problem>> + Send + 'static) -> Replies<T> {
        let token = self.0.tasks.token().clone();
        Box::pin(
            stream
                .map(|item| item.map_err(Status::from))
                .take_until(token.cancelled_owned()),
        )
    }
}

/// Answers every item of a list when its answer is there.
async fn answer_all<C, F>(tasks: Tasks, items: Vec<Asked<C>>, handle: impl Fn(C::Item) -> F + Clone + Send + 'static)
where
    C: ListCall,
    F: Future<Output = C::Reply> + Send + 'static,
{
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let handle = handle.clone();
        let mut under_way: FuturesUnordered<_> = items
            .by_ref()
            .take(ITEMS_PER_TASK)
            .map(|Asked { item, answer }| {
                let handled = handle(item);
                async move { answer.send(handled.await) }
            })
            .collect();
        let last = items.peek().is_none();
        let work = async move { while under_way.next().await.is_some() {} };
        if last {
            work.await;
        } else {
            tasks.spawn(C::NAME, OnFailure::Log, work);
        }
    }
}

macro_rules! lists {
    ($self:ident, $call:ident, $request:ident, $verb:ident) => {{
        let gateway = Arc::clone(&$self.0);
        lists::serve_lists::<lists::$call, _, _>(
            &$self.0.tasks,
            $request,
            lists::Limits::default(),
            move |items, caller: Arc<Caller>| {
                let (gateway, tasks) = (Arc::clone(&gateway), gateway.tasks.clone());
                answer_all(tasks, items, move |item| {
                    let (gateway, caller) = (Arc::clone(&gateway), Arc::clone(&caller));
                    async move { gateway.$verb(item, &caller).await }
                })
            },
        )
    }};
}

#[tonic::async_trait]
impl gateway_server::Gateway for GatewayService {
    async fn prepare(&self, request: Request<rpc::PrepareRequest>) -> Result<Response<rpc::PrepareReply>, Status> {
        let caller = Caller::of(request.extensions())?;
        Ok(Response::new(self.0.prepare(request.into_inner(), &caller).await))
    }

    async fn evaluate(&self, request: Request<rpc::EvaluateRequest>) -> Result<Response<rpc::EvaluateReply>, Status> {
        let caller = Caller::of(request.extensions())?;
        Ok(Response::new(self.0.evaluate(request.into_inner(), &caller).await))
    }

    async fn endorse(&self, request: Request<rpc::EndorseRequest>) -> Result<Response<rpc::EndorseReply>, Status> {
        let caller = Caller::of(request.extensions())?;
        let request = request.into_inner();
        let _place = self.0.admit("endorse", &caller, request.encoded_len())?;
        Ok(Response::new(self.0.endorse_alone(request).await))
    }

    async fn submit(&self, request: Request<rpc::SubmitRequest>) -> Result<Response<rpc::SubmitReply>, Status> {
        let caller = Caller::of(request.extensions())?;
        Ok(Response::new(self.0.submit(request.into_inner(), &caller).await))
    }

    async fn status(&self, request: Request<rpc::StatusRequest>) -> Result<Response<rpc::StatusReply>, Status> {
        let caller = Caller::of(request.extensions())?;
        Ok(Response::new(self.0.status(request.into_inner(), &caller).await))
    }

    type PrepareListsStream = ReplyStream<lists::Prepare>;

    async fn prepare_lists(
        &self,
        request: Request<Streaming<rpc::PrepareRequests>>,
    ) -> Result<Response<Self::PrepareListsStream>, Status> {
        lists!(self, Prepare, request, prepare)
    }

    type EvaluateListsStream = ReplyStream<lists::Evaluate>;

    async fn evaluate_lists(
        &self,
        request: Request<Streaming<rpc::EvaluateRequests>>,
    ) -> Result<Response<Self::EvaluateListsStream>, Status> {
        lists!(self, Evaluate, request, evaluate)
    }

    type SubmitListsStream = ReplyStream<lists::Submit>;

    async fn submit_lists(
        &self,
        request: Request<Streaming<rpc::SubmitRequests>>,
    ) -> Result<Response<Self::SubmitListsStream>, Status> {
        lists!(self, Submit, request, submit)
    }

    type StatusListsStream = ReplyStream<lists::StatusCall>;

    async fn status_lists(
        &self,
        request: Request<Streaming<rpc::StatusRequests>>,
    ) -> Result<Response<Self::StatusListsStream>, Status> {
        lists!(self, StatusCall, request, status)
    }

    type EventsStream = Replies<rpc::EventsReply>;

    async fn events(&self, request: Request<rpc::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let caller = Caller::of(request.extensions())?;
        let events = self.0.events(request.into_inner(), &caller).await?;
        Ok(Response::new(
            self.until_end(events.map(|event| event.map(|(event, _)| event))),
        ))
    }

    type BlocksStream = Replies<rpc::BlockReply>;

    async fn blocks(&self, request: Request<rpc::BlocksRequest>) -> Result<Response<Self::BlocksStream>, Status> {
        let caller = Caller::of(request.extensions())?;
        let blocks = self.0.blocks(request.into_inner(), &caller).await?;
        Ok(Response::new(self.until_end(blocks)))
    }

    async fn network(&self, _: Request<rpc::NetworkRequest>) -> Result<Response<rpc::NetworkReply>, Status> {
        Ok(Response::new(self.0.network()))
    }
}
