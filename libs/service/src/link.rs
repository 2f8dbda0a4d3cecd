//! The machinery under `mux` and `duplex`: one stream to one server, opened again whenever it breaks.
//!
//! ```text
//! enqueue ─→ queue (bounded in items and bytes) ─→ lists ─→ stream ─→ server
//!               waiting: id → where its replies go    ←── stream ←──────┘
//! ```
//! Whoever waits is told what is known: `Unsent` was surely not done, `Unknown` may have been.
//! While the server cannot be reached, calls are refused at once instead of queued.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use metric::Gauge;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::calls::ListCall;
use crate::metrics::calls::{BREAKS, QUEUE_BYTES, REFUSED, WAITING};
use crate::mux::{CallError, Config, Depth};
use crate::tasks::{OnFailure, Tasks};

/// A stream that lived shorter than this counts as a failed attempt.
const STREAM_LIFE_MIN: Duration = Duration::from_secs(1);
/// While the process ends, a stream without calls stays open this long for the next call of something accepted.
const DRAIN_QUIET: Duration = Duration::from_millis(500);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// Where replies go.
pub(crate) enum Sink<R> {
    Once(oneshot::Sender<Result<R, CallError>>),
    Exchange(mpsc::Sender<Result<R, CallError>>),
}

struct Waiting<R> {
    sink: Sink<R>,
    sent: bool,
}

struct Queued<I> {
    id: u64,
    item: I,
    bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// First attempt, or the first after a break: calls queue.
    Opening,
    Up,
    /// The last attempt failed: calls are refused with the reason.
    Down(String),
    Closed,
}

struct State<C: ListCall> {
    phase: Phase,
    queue: VecDeque<Queued<C::Item>>,
    queue_bytes: usize,
    /// Queued items whose caller gave up: never more than half of the queue.
    forgotten: usize,
    waiting: HashMap<u64, Waiting<C::Reply>>,
    id_next: u64,
}

pub(crate) struct Link<C: ListCall> {
    state: Mutex<State<C>>,
    work: Notify,
    config: Config,
    waiting_gauge: Gauge,
    bytes_gauge: Gauge,
}

impl<C: ListCall> Link<C> {
    pub(crate) fn start(tasks: &Tasks, channel: Channel, config: Config) -> Arc<Self> {
        let link = Arc::new(Self {
            state: Mutex::new(State {
                phase: Phase::Opening,
                queue: VecDeque::new(),
                queue_bytes: 0,
                forgotten: 0,
                waiting: HashMap::new(),
                id_next: 1,
            }),
            work: Notify::new(),
            config,
            waiting_gauge: WAITING.with_label_values(&[C::NAME]),
            bytes_gauge: QUEUE_BYTES.with_label_values(&[C::NAME]),
        });
        let token = tasks.token().clone();
        tasks.spawn(C::NAME, OnFailure::StopProcess, link.clone().drive(channel, token));
        link
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state.lock().phase == Phase::Up
    }

    pub(crate) fn depth(&self) -> Depth {
        let state = self.state.lock();
        Depth {
            items: state.waiting.len(),
            queue_bytes: state.queue_bytes,
        }
    }

    /// Queues an item and remembers where its replies go. Refuses at once when full or away.
    pub(crate) fn open(&self, item: C::Item, sink: Sink<C::Reply>) -> Result<u64, CallError> {
        let mut state = self.state.lock();
        if state.waiting.len() >= self.config.items_max {
            return Err(self.full());
        }
        let id = state.id_next;
        self.push(&mut state, id, item)?;
        state.id_next += 1;
        state.waiting.insert(id, Waiting { sink, sent: false });
        drop(state);
        self.waiting_gauge.inc();
        self.work.notify_one();
        Ok(id)
    }

    /// Queues one more item of an exchange that is under way; id 0 belongs to none.
    pub(crate) fn send(&self, id: u64, item: C::Item) -> Result<(), CallError> {
        let mut state = self.state.lock();
        if id != 0 && !state.waiting.contains_key(&id) {
            return Err(CallError::Unknown("the exchange is over".to_owned()));
        }
        if state.queue.len() >= self.config.items_max {
            return Err(self.full());
        }
        self.push(&mut state, id, item)?;
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    fn push(&self, state: &mut State<C>, id: u64, mut item: C::Item) -> Result<(), CallError> {
        match &state.phase {
            Phase::Opening | Phase::Up => {}
            Phase::Down(reason) => return Err(CallError::Unsent(reason.clone())),
            Phase::Closed => return Err(CallError::Closed),
        }
        C::set_item_id(&mut item, id);
        let bytes = item.encoded_len();
        // An empty queue takes anything, so that no size is refused for ever.
        if state.queue_bytes > 0 && state.queue_bytes + bytes > self.config.queue_bytes_max {
            return Err(self.full());
        }
        state.queue_bytes += bytes;
        self.bytes_gauge.add(bytes as i64);
        state.queue.push_back(Queued { id, item, bytes });
        Ok(())
    }

    fn full(&self) -> CallError {
        REFUSED.with_label_values(&[C::NAME]).inc();
        CallError::Full {
            retry_after: self.config.retry_after,
        }
    }

    /// Nobody waits any more. Was it sent? None: its reply had come.
    pub(crate) fn forget(&self, id: u64) -> Option<bool> {
        let mut state = self.state.lock();
        let waiting = state.waiting.remove(&id)?;
        self.waiting_gauge.dec();
        if !waiting.sent {
            // While a stream takes nothing, those who give up would fill the queue for those who come.
            state.forgotten += 1;
            if 2 * state.forgotten > state.queue.len() {
                self.prune(&mut state, true);
            }
        }
        Some(waiting.sent)
    }

    async fn drive(self: Arc<Self>, channel: Channel, token: CancellationToken) {
        let mut backoff = BACKOFF_MIN;
        while !token.is_cancelled() {
            let reason = match self.open_stream(&channel, &token).await {
                Ok((lists, replies)) => {
                    let began = Instant::now();
                    self.state.lock().phase = Phase::Up;
                    let reason = self.run(lists, replies, &token).await;
                    self.broke(&reason);
                    if began.elapsed() >= STREAM_LIFE_MIN && !token.is_cancelled() {
                        backoff = BACKOFF_MIN;
                        continue;
                    }
                    reason
                }
                Err(reason) => reason,
            };
            if token.is_cancelled() {
                break;
            }
            tracing::debug!(call = C::NAME, reason, "away");
            self.down(reason);
            tokio::select! {
                () = tokio::time::sleep(jittered(backoff)) => {}
                () = token.cancelled() => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        self.close();
    }

    #[allow(clippy::type_complexity)]
    async fn open_stream(
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

    /// Sends and receives until the stream breaks; returns why.
    async fn run(
        &self,
        lists: mpsc::Sender<C::Items>,
        mut replies: tonic::Streaming<C::Replies>,
        token: &CancellationToken,
    ) -> String {
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
                    Ok(None) => return "the server ended the stream".to_owned(),
                    Err(status) => return describe(&status),
                },
                () = &mut drained => return "ending".to_owned(),
            }
        }
    }

    /// The server takes no more lists: what it has answered still comes, then why it ended.
    async fn last_words(&self, replies: &mut tonic::Streaming<C::Replies>) -> String {
        let until = Instant::now() + self.config.drain_deadline;
        loop {
            match tokio::time::timeout_at(until, replies.message()).await {
                Ok(Ok(Some(list))) => self.deliver(C::replies(list)),
                Ok(Ok(None)) => return "the server ended the stream".to_owned(),
                Ok(Err(status)) => return describe(&status),
                Err(_) => return "the stream was closed".to_owned(),
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

    fn deliver(&self, replies: Vec<C::Reply>) {
        let mut state = self.state.lock();
        for reply in replies {
            let id = C::reply_id(&reply);
            // A reply that nobody waits for came after its deadline.
            let Some(waiting) = state.waiting.get(&id) else {
                continue;
            };
            if let Sink::Exchange(sender) = &waiting.sink {
                // A server that says more than an exchange can hold has broken it.
                if sender.try_send(Ok(reply)).is_err() {
                    state.waiting.remove(&id);
                    self.waiting_gauge.dec();
                }
                continue;
            }
            if let Some(Waiting {
                sink: Sink::Once(sender),
                ..
            }) = state.waiting.remove(&id)
            {
                self.waiting_gauge.dec();
                let _ = sender.send(Ok(reply));
            }
        }
    }

    /// What was sent may have been done; what still waits here goes over the next stream.
    fn broke(&self, reason: &str) {
        tracing::debug!(call = C::NAME, reason, "stream broke");
        BREAKS.with_label_values(&[C::NAME]).inc();
        let mut state = self.state.lock();
        state.phase = Phase::Opening;
        for (_, waiting) in state.waiting.extract_if(|_, waiting| waiting.sent) {
            self.waiting_gauge.dec();
            waiting.sink.fail(CallError::Unknown(reason.to_owned()));
        }
        self.prune(&mut state, false);
    }

    /// The server is away: nobody waits in vain.
    fn down(&self, reason: String) {
        let mut state = self.state.lock();
        self.fail_all(&mut state, |sent| match sent {
            true => CallError::Unknown(reason.clone()),
            false => CallError::Unsent(reason.clone()),
        });
        state.phase = Phase::Down(reason);
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Closed;
        self.fail_all(&mut state, |sent| match sent {
            true => CallError::Unknown("ending".to_owned()),
            false => CallError::Closed,
        });
    }

    fn fail_all(&self, state: &mut State<C>, error: impl Fn(bool) -> CallError) {
        for (_, waiting) in state.waiting.drain() {
            self.waiting_gauge.dec();
            let error = error(waiting.sent);
            waiting.sink.fail(error);
        }
        self.prune(state, false);
    }

    /// Drops queued items that nobody waits for; those that belong to no exchange are lost with the stream only.
    fn prune(&self, state: &mut State<C>, stream_goes_on: bool) {
        let State {
            queue,
            waiting,
            queue_bytes,
            forgotten,
            ..
        } = state;
        *forgotten = 0;
        queue.retain(|queued| {
            let alone = stream_goes_on && queued.id == 0;
            let keep = alone || waiting.contains_key(&queued.id);
            if !keep {
                *queue_bytes -= queued.bytes;
                self.bytes_gauge.sub(queued.bytes as i64);
            }
            keep
        });
    }
}

impl<R> Sink<R> {
    fn fail(self, error: CallError) {
        match self {
            Sink::Once(sender) => {
                let _ = sender.send(Err(error));
            }
            // Full: the waiter sees the closed channel behind the replies that it has not read.
            Sink::Exchange(sender) => {
                let _ = sender.try_send(Err(error));
            }
        }
    }
}

/// Half to all of it, so that many do not come back at the same moment.
fn jittered(delay: Duration) -> Duration {
    let mut random = [0; 1];
    // Without randomness the whole delay is as good.
    let share = aws_lc_rs::rand::fill(&mut random).map_or(255, |()| u32::from(random[0]));
    delay / 2 + delay * share / 510
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
