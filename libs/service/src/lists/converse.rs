//! Conversations: exchanges of several messages under one id, as the worker has them with its peer.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::flow::{Answer, ReplyStream};
use super::{Asked, Limits, serve};
use crate::calls::ListCall;
use crate::identity::Caller;
use crate::problem::Problem;
use crate::tasks::{OnFailure, Tasks};

/// Messages of the caller that a conversation holds unread; more are dropped, and its caller waits in vain.
const UNREAD_MAX: usize = 16;

type Inboxes<C> = Arc<Mutex<HashMap<u64, mpsc::Sender<<C as ListCall>::Item>>>>;

/// One exchange, opened by the caller. Dropped without [`Conversation::end`], it ends with `internal`.
pub struct Conversation<C: ListCall> {
    /// What the caller opened it with.
    pub first: C::Item,
    pub caller: Arc<Caller>,
    inbox: Inbox<C>,
    answer: Answer<C>,
}

/// Leaves the table when it is dropped.
struct Inbox<C: ListCall> {
    id: u64,
    receiver: mpsc::Receiver<C::Item>,
    inboxes: Inboxes<C>,
}

impl<C: ListCall> Drop for Inbox<C> {
    fn drop(&mut self) {
        self.inboxes.lock().remove(&self.id);
    }
}

impl<C: ListCall> Conversation<C> {
    /// Says something that is not the last word (the id is set here).
    pub fn say(&self, reply: C::Reply) {
        self.answer.say(reply);
    }

    /// What the caller says next; None: nothing in time.
    pub async fn next(&mut self, deadline: Duration) -> Option<C::Item> {
        tokio::time::timeout(deadline, self.inbox.receiver.recv())
            .await
            .ok()
            .flatten()
    }

    /// The last word (the id is set here).
    pub fn end(self, reply: C::Reply) {
        let Self { answer, inbox, .. } = self;
        // The id is free before the caller can know that it is.
        drop(inbox);
        answer.send(reply);
    }

    /// Has the caller gone away? Then the work is for nobody.
    pub fn is_abandoned(&self) -> bool {
        self.answer.is_abandoned()
    }
}

/// Serves a stream of conversations, each as a task of its own. `alone` gets the messages with id 0 that belong
/// to none; it runs on the reader and must be quick.
pub fn converse<C, H, F, A>(
    tasks: &Tasks,
    request: Request<Streaming<C::Items>>,
    limits: Limits,
    handler: H,
    mut alone: A,
) -> Result<Response<ReplyStream<C>>, Status>
where
    C: ListCall,
    H: Fn(Conversation<C>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
    A: FnMut(C::Item) + Send + 'static,
{
    let inboxes: Inboxes<C> = Arc::default();
    let handlers = tasks.clone();
    serve(tasks, request, limits, move |flow, items, caller| {
        for item in items {
            let id = C::item_id(&item);
            if id == 0 {
                alone(item);
                continue;
            }
            if !C::opens(&item) {
                // One that is over, or one whose caller says too much: it is not waited for.
                if let Some(inbox) = inboxes.lock().get(&id) {
                    let _ = inbox.try_send(item);
                }
                continue;
            }
            let is_under_way = inboxes.lock().contains_key(&id);
            if is_under_way {
                // Two would share one inbox, and the first to end would take it from the other.
                flow.refuse(id, Problem::invalid("id", "is under way"));
            } else if let Some(Asked { item: first, answer }) = flow.accept(item) {
                let (sender, receiver) = mpsc::channel(UNREAD_MAX);
                inboxes.lock().insert(id, sender);
                let inbox = Inbox {
                    id,
                    receiver,
                    inboxes: inboxes.clone(),
                };
                let conversation = Conversation {
                    first,
                    caller: Arc::clone(caller),
                    inbox,
                    answer,
                };
                handlers.spawn(C::NAME, OnFailure::Log, handler(conversation));
            }
        }
    })
}
