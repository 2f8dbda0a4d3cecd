//! Conversations over one stream of lists: the peer's side of the worker.
//!
//! An [`Exchange`] has an id of its own; either side may speak several times. `lists::converse` is
//! the other end. When the stream breaks, every open exchange ends with an error.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::calls::ListCall;
use crate::link::{Link, Sink};
use crate::mux::{CallError, Config, Depth};
use crate::tasks::Tasks;

/// Messages of the server that an exchange holds unread; more end it.
const UNREAD_MAX: usize = 16;

/// One stream to one server. Clones share it.
pub struct Duplex<C: ListCall> {
    link: Arc<Link<C>>,
}

impl<C: ListCall> Clone for Duplex<C> {
    fn clone(&self) -> Self {
        Self {
            link: self.link.clone(),
        }
    }
}

impl<C: ListCall> Duplex<C> {
    /// Opens the stream, and again whenever it breaks, until `tasks` end.
    pub fn start(tasks: &Tasks, channel: Channel, config: Config) -> Self {
        Self {
            link: Link::start(tasks, channel, config),
        }
    }

    /// Begins an exchange with its first message. Dropping the exchange ends it on this side.
    pub fn open(&self, first: C::Item) -> Result<Exchange<C>, CallError> {
        let (sender, replies) = mpsc::channel(UNREAD_MAX);
        let id = self.link.open(first, Sink::Exchange(sender))?;
        Ok(Exchange {
            link: self.link.clone(),
            id,
            replies,
        })
    }

    /// Sends a message that belongs to no exchange (id 0). Lost if the stream breaks.
    pub fn send_alone(&self, item: C::Item) -> Result<(), CallError> {
        self.link.send(0, item)
    }

    /// Is the stream open?
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    pub fn depth(&self) -> Depth {
        self.link.depth()
    }
}

/// One conversation.
pub struct Exchange<C: ListCall> {
    link: Arc<Link<C>>,
    id: u64,
    replies: mpsc::Receiver<Result<C::Reply, CallError>>,
}

impl<C: ListCall> Exchange<C> {
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Says something more (the id is set here).
    pub fn send(&self, item: C::Item) -> Result<(), CallError> {
        self.link.send(self.id, item)
    }

    /// The next message of the server.
    pub async fn next(&mut self, deadline: Duration) -> Result<C::Reply, CallError> {
        match tokio::time::timeout(deadline, self.replies.recv()).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(CallError::Unknown("the exchange is over".to_owned())),
            Err(_) => Err(CallError::Deadline { sent: true }),
        }
    }
}

impl<C: ListCall> Drop for Exchange<C> {
    fn drop(&mut self) {
        self.link.forget(self.id);
    }
}
