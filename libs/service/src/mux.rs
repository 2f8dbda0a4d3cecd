//! Many calls over one stream of lists: the client side of the calls between roles.
//!
//! [`Mux::call`] looks like a unary call and costs a few microseconds: whatever is waiting goes into
//! one list. One item alone is sent at once. See `link` for what happens when the stream breaks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tonic::transport::Channel;

use crate::calls::ListCall;
use crate::link::{Link, Sink};
use crate::problem::{Code, Problem};
use crate::tasks::Tasks;

/// Bounds of one stream.
#[derive(Clone, Debug)]
pub struct Config {
    /// Calls that wait for their reply, queued or sent.
    pub items_max: usize,
    /// Bytes that wait to be sent.
    pub queue_bytes_max: usize,
    pub list_items_max: usize,
    pub list_bytes_max: usize,
    /// Under load, at most one list in this time: fewer, longer lists cost less.
    pub pace: Duration,
    /// This many calls under way count as load.
    pub pace_from_items: usize,
    pub open_deadline: Duration,
    /// While the process ends, calls are still made and finished for at most this long.
    pub drain_deadline: Duration,
    /// What a refused caller is told.
    pub retry_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            items_max: 16_384,
            queue_bytes_max: 32 * 1024 * 1024,
            list_items_max: 512,
            list_bytes_max: 1024 * 1024,
            pace: Duration::from_millis(4),
            pace_from_items: 16,
            open_deadline: Duration::from_secs(5),
            drain_deadline: Duration::from_secs(10),
            retry_after: Duration::from_millis(200),
        }
    }
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The queue is full. Surely not done.
    #[error("the queue is full")]
    Full { retry_after: Duration },
    /// The server is away, or ended the stream without taking it. Surely not done.
    #[error("not sent: {0}")]
    Unsent(String),
    /// It was sent and the stream broke. It may have been done.
    #[error("sent, no reply: {0}")]
    Unknown(String),
    /// No reply in time. If `sent`, it may have been done or may be done later.
    #[error("no reply in time")]
    Deadline { sent: bool },
    /// This process is ending. Surely not done.
    #[error("ending")]
    Closed,
}

impl CallError {
    /// The same may be tried elsewhere without being done twice.
    pub fn surely_undone(&self) -> bool {
        match self {
            CallError::Full { .. } | CallError::Unsent(_) | CallError::Closed => true,
            CallError::Unknown(_) => false,
            CallError::Deadline { sent } => !sent,
        }
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let detail = error.to_string();
        match error {
            CallError::Full { retry_after } => Problem::exhausted(retry_after, detail),
            CallError::Unsent(_) | CallError::Closed => Problem::unavailable(detail),
            CallError::Unknown(_) | CallError::Deadline { sent: true } => Problem::new(Code::UnknownOutcome, detail),
            CallError::Deadline { sent: false } => Problem::new(Code::DeadlineExceeded, detail),
        }
    }
}

/// How much is waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Calls queued or sent.
    pub items: usize,
    pub queue_bytes: usize,
}

/// One stream of lists to one server. Clones share it.
pub struct Mux<C: ListCall> {
    link: Arc<Link<C>>,
}

impl<C: ListCall> Clone for Mux<C> {
    fn clone(&self) -> Self {
        Self {
            link: self.link.clone(),
        }
    }
}

impl<C: ListCall> Mux<C> {
    /// Opens the stream, and again whenever it breaks, until `tasks` end and no call is under way.
    pub fn start(tasks: &Tasks, channel: Channel, config: Config) -> Self {
        Self {
            link: Link::start(tasks, channel, config),
        }
    }

    /// Sends `item` (its id is set here) and waits for its reply.
    pub async fn call(&self, item: C::Item, deadline: Duration) -> Result<C::Reply, CallError> {
        let (sender, mut receiver) = oneshot::channel();
        let id = self.link.open(item, Sink::Once(sender))?;
        // Also when the caller goes away in the middle.
        let _forget = Forget { link: &self.link, id };
        match tokio::time::timeout(deadline, &mut receiver).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(CallError::Unknown("the stream is gone".to_owned())),
            Err(_) => match self.link.forget(id) {
                Some(sent) => Err(CallError::Deadline { sent }),
                // Its outcome came at the same moment.
                None => receiver.try_recv().unwrap_or(Err(CallError::Deadline { sent: true })),
            },
        }
    }

    /// Is the stream open?
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    pub fn depth(&self) -> Depth {
        self.link.depth()
    }
}

struct Forget<'a, C: ListCall> {
    link: &'a Link<C>,
    id: u64,
}

impl<C: ListCall> Drop for Forget<'_, C> {
    fn drop(&mut self) {
        self.link.forget(self.id);
    }
}
