//! The machinery under `mux` and `duplex`: one stream to one server, opened again whenever it breaks.
//!
//! ```text
//! enqueue ─→ queue (bounded in items and bytes) ─→ lists ─→ stream ─→ server
//!               waiting: id → where its replies go    ←── stream ←──────┘
//! ```
//! What one stream does is in `stream`. Whoever waits is told what is known: `Unsent` was surely not done,
//! `Unknown` may have been. While the server cannot be reached, calls are refused at once instead of queued.

mod stream;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use metric::Gauge;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::calls::ListCall;
use crate::metrics::calls::{BREAKS, QUEUE_BYTES, REFUSED, WAITING};
use crate::mux::{CallError, Config, Depth};
use crate::tasks::{OnFailure, Tasks};

use stream::Over;

/// A stream that lived shorter than this counts as a failed attempt.
const STREAM_LIFE_MIN: Duration = Duration::from_secs(1);
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
                    let over = self.run(lists, replies, &token).await;
                    self.broke(&over);
                    if began.elapsed() >= STREAM_LIFE_MIN && !token.is_cancelled() {
                        backoff = BACKOFF_MIN;
                        continue;
                    }
                    over.reason
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

    /// What was sent may have been done, unless the stream ended in order: then what has no answer was never taken.
    /// What still waits here goes over the next stream.
    fn broke(&self, over: &Over) {
        let Over { reason, in_order } = over;
        tracing::debug!(call = C::NAME, reason, in_order, "stream broke");
        BREAKS.with_label_values(&[C::NAME]).inc();
        let mut state = self.state.lock();
        state.phase = Phase::Opening;
        for (_, waiting) in state.waiting.extract_if(|_, waiting| waiting.sent) {
            self.waiting_gauge.dec();
            waiting.sink.fail(match in_order {
                true => CallError::Unsent(reason.clone()),
                false => CallError::Unknown(reason.clone()),
            });
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
