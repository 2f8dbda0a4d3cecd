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

use super::gate::Permit;
use super::network::NETWORK_BYTES;
use super::{Gateway, evaluate, prepare, status};

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

/// Admits the items of a list and answers each when its answer is there. Admission is done before this
/// returns, in the stream's own reader: a refusal waits for no task and for nobody's work.
fn answer_all<C, P, F>(
    tasks: Tasks,
    items: Vec<Asked<C>>,
    admit: impl Fn(&C::Item) -> Result<P, Problem>,
    handle: impl Fn(C::Item, P) -> F + Send + 'static,
) -> impl Future<Output = ()> + Send
where
    C: ListCall,
    P: Send + 'static,
    F: Future<Output = C::Reply> + Send + 'static,
{
    let mut admitted = Vec::with_capacity(items.len());
    for Asked { item, answer } in items {
        match admit(&item) {
            Ok(place) => admitted.push((item, place, answer)),
            Err(problem) => answer.send(C::refuse(problem)),
        }
    }
    async move {
        let mut admitted = admitted.into_iter().peekable();
        while admitted.peek().is_some() {
            let mut under_way: FuturesUnordered<_> = admitted
                .by_ref()
                .take(ITEMS_PER_TASK)
                .map(|(item, place, answer)| {
                    let handled = handle(item, place);
                    async move { answer.send(handled.await) }
                })
                .collect();
            let last = admitted.peek().is_none();
            let work = async move { while under_way.next().await.is_some() {} };
            if last {
                work.await;
            } else {
                tasks.spawn(C::NAME, OnFailure::Log, work);
            }
        }
    }
}

/// `$handle`: what is done with an item that has a place.
macro_rules! lists {
    ($self:ident, $call:ident, $request:ident, $verb:literal, $handle:expr) => {{
        let gateway = Arc::clone(&$self.0);
        lists::serve_lists::<lists::$call, _, _>(
            &$self.0.tasks,
            $request,
            lists::Limits::default(),
            move |items, caller: Arc<Caller>| {
                let (admitting, asking) = (Arc::clone(&gateway), Arc::clone(&caller));
                let admit =
                    move |item: &<lists::$call as ListCall>::Item| admitting.admit($verb, &asking, item.encoded_len());
                let gateway = Arc::clone(&gateway);
                answer_all(gateway.tasks.clone(), items, admit, move |item, place| {
                    $handle(Arc::clone(&gateway), Arc::clone(&caller), item, place)
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
        let handle = |gateway: Arc<Gateway>, caller: Arc<Caller>, item: rpc::PrepareRequest, place: Permit| async move {
            let _place = place;
            prepare::reply(gateway.prepared(item.call, &caller).await)
        };
        lists!(self, Prepare, request, "prepare", handle)
    }

    type EvaluateListsStream = ReplyStream<lists::Evaluate>;

    async fn evaluate_lists(
        &self,
        request: Request<Streaming<rpc::EvaluateRequests>>,
    ) -> Result<Response<Self::EvaluateListsStream>, Status> {
        let handle = |gateway: Arc<Gateway>, caller: Arc<Caller>, item: rpc::EvaluateRequest, place| async move {
            evaluate::reply(gateway.evaluated(item.intent, &caller, place).await)
        };
        lists!(self, Evaluate, request, "evaluate", handle)
    }

    type SubmitListsStream = ReplyStream<lists::Submit>;

    async fn submit_lists(
        &self,
        request: Request<Streaming<rpc::SubmitRequests>>,
    ) -> Result<Response<Self::SubmitListsStream>, Status> {
        let handle = |gateway: Arc<Gateway>, caller: Arc<Caller>, item, place| async move {
            gateway.submitted(item, &caller, place).await
        };
        lists!(self, Submit, request, "submit", handle)
    }

    type StatusListsStream = ReplyStream<lists::StatusCall>;

    async fn status_lists(
        &self,
        request: Request<Streaming<rpc::StatusRequests>>,
    ) -> Result<Response<Self::StatusListsStream>, Status> {
        let handle = |gateway: Arc<Gateway>, _: Arc<Caller>, item, place: Permit| async move {
            let _place = place;
            status::reply(gateway.status_of(item).await)
        };
        lists!(self, StatusCall, request, "status", handle)
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

    async fn network(&self, request: Request<rpc::NetworkRequest>) -> Result<Response<rpc::NetworkReply>, Status> {
        let caller = Caller::of(request.extensions())?;
        let _place = self.0.admit("network", &caller, NETWORK_BYTES)?;
        Ok(Response::new(self.0.network()))
    }
}
