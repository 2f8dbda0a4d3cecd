//! The server side of the streams of lists.
//!
//! ```text
//! stream ─→ lists of items ─→ handlers ─→ Answer::send ─→ ready replies ─→ lists ─→ stream
//!             │ full: refused at once                        │ slow reader: nothing more is read
//! ```
//! Every accepted item is answered exactly once: an [`Answer`] dropped unsent says `internal`. When the process
//! drains, what was accepted is finished, what still comes is refused, then the stream ends.

mod budget;
mod converse;
mod flow;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status, Streaming};

use crate::calls::ListCall;
use crate::identity::Caller;
use crate::tasks::{OnFailure, Tasks};

pub use crate::calls::{Broadcast, Endorse, Evaluate, Prepare, Status as StatusCall, Submit, Work};
pub use budget::Budget;
pub use converse::{Conversation, converse};
pub use flow::{Answer, ReplyStream};

use flow::{Flow, Reader};

/// Bounds of one stream.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Items accepted and not answered yet. More are refused at once.
    pub in_flight_items_max: usize,
    pub in_flight_bytes_max: usize,
    /// What all streams that share it may hold together: items under way, and replies that are not read.
    pub budget: Budget,
    /// Replies that the caller does not read; beyond it nothing more is read from the caller.
    pub ready_bytes_max: usize,
    pub list_items_max: usize,
    pub list_bytes_max: usize,
    /// Under load, at most one list of replies in this time: fewer, longer lists cost less.
    pub pace: Duration,
    /// This many items under way count as load.
    pub pace_from_items: usize,
    /// What a refused caller is told.
    pub retry_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight_items_max: 16_384,
            in_flight_bytes_max: 64 * 1024 * 1024,
            budget: Budget::of_process(),
            ready_bytes_max: 8 * 1024 * 1024,
            list_items_max: 512,
            list_bytes_max: 1024 * 1024,
            pace: Duration::from_millis(4),
            pace_from_items: 16,
            retry_after: Duration::from_millis(200),
        }
    }
}

/// An item and where its answer goes.
pub struct Asked<C: ListCall> {
    pub item: C::Item,
    pub answer: Answer<C>,
}

/// Serves a stream list by list: `handler` gets all items of a list at once and answers each when it can,
/// also long after it has returned.
pub fn serve_lists<C, H, F>(
    tasks: &Tasks,
    request: Request<Streaming<C::Items>>,
    limits: Limits,
    handler: H,
) -> Result<Response<ReplyStream<C>>, Status>
where
    C: ListCall,
    H: Fn(Vec<Asked<C>>, Arc<Caller>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let handlers = tasks.clone();
    serve(tasks, request, limits, move |flow, items, caller| {
        let asked: Vec<_> = items.into_iter().filter_map(|item| flow.accept(item)).collect();
        if !asked.is_empty() {
            handlers.spawn(C::NAME, OnFailure::Log, handler(asked, Arc::clone(caller)));
        }
    })
}

/// Serves a stream item by item, each as a task of its own; the reply's id is set here.
pub fn serve_each<C, H, F>(
    tasks: &Tasks,
    request: Request<Streaming<C::Items>>,
    limits: Limits,
    handler: H,
) -> Result<Response<ReplyStream<C>>, Status>
where
    C: ListCall,
    H: Fn(C::Item, Arc<Caller>) -> F + Send + Sync + 'static,
    F: Future<Output = C::Reply> + Send + 'static,
{
    let handlers = tasks.clone();
    serve(tasks, request, limits, move |flow, items, caller| {
        for Asked { item, answer } in items.into_iter().filter_map(|item| flow.accept(item)) {
            let handled = handler(item, Arc::clone(caller));
            handlers.spawn(C::NAME, OnFailure::Log, async move { answer.send(handled.await) });
        }
    })
}

/// Starts the reader of a stream. `take` gets each list as it comes; it runs on the reader and must be quick.
fn serve<C, T>(
    tasks: &Tasks,
    request: Request<Streaming<C::Items>>,
    limits: Limits,
    mut take: T,
) -> Result<Response<ReplyStream<C>>, Status>
where
    C: ListCall,
    T: FnMut(&Arc<Flow<C>>, Vec<C::Item>, &Arc<Caller>) + Send + 'static,
{
    let caller = Caller::of(request.extensions())?;
    let account = limits.budget.account(caller.account());
    let (flow, replies) = Flow::start(limits, account);
    let reader = Reader {
        flow,
        incoming: request.into_inner(),
        token: tasks.token().clone(),
    };
    let reading = reader.run(move |flow: &Arc<Flow<C>>, items: Vec<C::Item>| take(flow, items, &caller));
    tasks.spawn(C::NAME, OnFailure::Log, reading);
    Ok(Response::new(replies))
}
