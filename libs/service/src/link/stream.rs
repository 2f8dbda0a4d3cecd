//! One stream of a link, from its opening to its end.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::Link;
use crate::calls::ListCall;

/// While the process ends, a stream without calls stays open this long for the next call of something accepted.
const DRAIN_QUIET: Duration = Duration::from_millis(500);

/// Why a stream is over.
pub(super) struct Over {
    pub(super) reason: String,
    /// By the server's own word, after its last answer: `lists` takes nothing that it does not answer.
    pub(super) in_order: bool,
}

impl Over {
    fn in_order() -> Self {
        Over {
            reason: "the server ended the stream".to_owned(),
            in_order: true,
        }
    }

    fn broken(reason: String) -> Self {
        Over {
            reason,
            in_order: false,
        }
    }
}

impl<C: ListCall> Link<C> {
    #[allow(clippy::type_complexity)]
    pub(super) async fn open_stream(
        &self,
        channel: &Channel,
        token: &CancellationToken,
    ) -> Result<(mpsc::Sender<C::Items>, tonic::Streaming<C::Replies>), String> {
        // One list on its way, the next one grows behind it.
        let (sender, receiver) = mpsc::channel(1);
        let opening = C::open(channel.clone(), ReceiverStream::new(receiver));
        tokio::select! {
            () = token.cancelled() => Err("ending".to_owned()),
            opened = tokio::time::timeout(self.config.open_deadline, opening) => match opened {
                Ok(Ok(replies)) => Ok((sender, replies)),
                Ok(Err(status)) => Err(describe(&status)),
                Err(_) => Err("no answer to the opening of the stream".to_owned()),
            },
        }
    }

    /// Sends and receives until the stream is over.
    pub(super) async fn run(
        &self,
        lists: mpsc::Sender<C::Items>,
        mut replies: tonic::Streaming<C::Replies>,
        token: &CancellationToken,
    ) -> Over {
        let mut last = None;
        let drained = self.drained(token);
        tokio::pin!(drained);
        loop {
            tokio::select! {
                ready = self.ready(&lists, last) => {
                    let Ok(permit) = ready else { return self.last_words(&mut replies).await };
                    let items = self.take_list();
                    if !items.is_empty() {
                        permit.send(C::item_list(items));
                        last = Some(Instant::now());
                    }
                }
                received = replies.message() => match received {
                    Ok(Some(list)) => self.deliver(C::replies(list)),
                    Ok(None) => return Over::in_order(),
                    Err(status) => return Over::broken(describe(&status)),
                },
                () = &mut drained => return Over::broken("ending".to_owned()),
            }
        }
    }

    /// The server takes no more lists: what it has answered still comes, then why it ended.
    async fn last_words(&self, replies: &mut tonic::Streaming<C::Replies>) -> Over {
        let until = Instant::now() + self.config.drain_deadline;
        loop {
            match tokio::time::timeout_at(until, replies.message()).await {
                Ok(Ok(Some(list))) => self.deliver(C::replies(list)),
                Ok(Ok(None)) => return Over::in_order(),
                Ok(Err(status)) => return Over::broken(describe(&status)),
                Err(_) => return Over::broken("the stream was closed".to_owned()),
            }
        }
    }

    /// The process ends, and what it has accepted makes no more calls: nobody has waited here for a while.
    async fn drained(&self, token: &CancellationToken) {
        token.cancelled().await;
        let (began, mut quiet_since) = (Instant::now(), Instant::now());
        while quiet_since.elapsed() < DRAIN_QUIET && began.elapsed() < self.config.drain_deadline {
            tokio::time::sleep(DRAIN_QUIET / 10).await;
            if !self.state.lock().waiting.is_empty() {
                quiet_since = Instant::now();
            }
        }
    }

    /// Something is queued, the stream has room, and under load the last list is a moment ago.
    async fn ready<'a>(
        &self,
        lists: &'a mpsc::Sender<C::Items>,
        last: Option<Instant>,
    ) -> Result<mpsc::Permit<'a, C::Items>, mpsc::error::SendError<()>> {
        while self.state.lock().queue.is_empty() {
            self.work.notified().await;
        }
        if let Some(last) = last {
            let next = last + self.config.pace;
            if self.state.lock().waiting.len() >= self.config.pace_from_items && next > Instant::now() {
                tokio::time::sleep_until(next).await;
            }
        }
        lists.reserve().await
    }

    fn take_list(&self) -> Vec<C::Item> {
        let mut state = self.state.lock();
        let mut items = Vec::with_capacity(state.queue.len().min(self.config.list_items_max));
        let mut bytes = 0;
        while let Some(front) = state.queue.front() {
            let fits = items.is_empty() || bytes + front.bytes <= self.config.list_bytes_max;
            if items.len() >= self.config.list_items_max || !fits {
                break;
            }
            let Some(queued) = state.queue.pop_front() else { break };
            state.queue_bytes -= queued.bytes;
            self.bytes_gauge.sub(queued.bytes as i64);
            if queued.id != 0 {
                // Whoever gave up before it was sent: nothing is asked.
                let Some(waiting) = state.waiting.get_mut(&queued.id) else {
                    state.forgotten = state.forgotten.saturating_sub(1);
                    continue;
                };
                waiting.sent = true;
            }
            bytes += queued.bytes;
            items.push(queued.item);
        }
        items
    }
}

/// The status in one line; its message may be empty or name the transport's reason in its source.
fn describe(status: &tonic::Status) -> String {
    let mut text = match status.message() {
        "" => format!("{:?}", status.code()),
        message => message.to_owned(),
    };
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
