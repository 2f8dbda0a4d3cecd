//! What is under way on one stream: items accepted, replies ready, and both ends of the stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::task::AtomicWaker;
use metric::{Counter, Gauge};
use parking_lot::Mutex;
use prost::Message;
use protocol::limits::ITEM_OVERHEAD_BYTES;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::budget::{Account, Share};
use super::{Asked, Limits};
use crate::calls::ListCall;
use crate::metrics::{SERVE_IN_FLIGHT, SERVE_ITEMS};
use crate::problem::{Code, Problem};

/// While draining: how long a stream stays open after its last answer, to refuse what was already on its way.
const LINGER: Duration = Duration::from_millis(50);

pub(super) struct Flow<C: ListCall> {
    state: Mutex<State<C>>,
    /// The reply stream waits for something to be ready, or for the end.
    readable: AtomicWaker,
    /// The reader waits for room, or for the last answer.
    room: Notify,
    limits: Limits,
    /// What is held for the caller, on all its streams.
    account: Arc<Account>,
    in_flight: Gauge,
    accepted: Counter,
    refused: Counter,
}

/// A reply that waits for its caller to read, with its bytes.
struct Ready<C: ListCall> {
    reply: C::Reply,
    bytes: usize,
    share: Option<Share>,
}

struct State<C: ListCall> {
    ready: VecDeque<Ready<C>>,
    ready_bytes: usize,
    in_flight_items: usize,
    in_flight_bytes: usize,
    reading: bool,
    draining: bool,
    /// Why nothing more is read, if the caller broke a rule of the stream: its last word, after all answers.
    refusal: Option<Status>,
    /// The caller does not listen any more.
    gone: bool,
}

impl<C: ListCall> Flow<C> {
    pub(super) fn start(limits: Limits, account: Arc<Account>) -> (Arc<Self>, ReplyStream<C>) {
        let flow = Arc::new(Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                ready_bytes: 0,
                in_flight_items: 0,
                in_flight_bytes: 0,
                reading: true,
                draining: false,
                refusal: None,
                gone: false,
            }),
            readable: AtomicWaker::new(),
            room: Notify::new(),
            limits,
            account,
            in_flight: SERVE_IN_FLIGHT.with_label_values(&[C::NAME]),
            accepted: SERVE_ITEMS.with_label_values(&[C::NAME, "accepted"]),
            refused: SERVE_ITEMS.with_label_values(&[C::NAME, "refused"]),
        });
        let replies = ReplyStream {
            flow: flow.clone(),
            last: None,
            pause: None,
            sending: Vec::new(),
        };
        (flow, replies)
    }

    /// Takes an item in, or refuses it at once.
    pub(super) fn accept(self: &Arc<Self>, item: C::Item) -> Option<Asked<C>> {
        let (id, bytes) = (C::item_id(&item), item.encoded_len() + ITEM_OVERHEAD_BYTES);
        let mut state = self.state.lock();
        let over = state.in_flight_items >= self.limits.in_flight_items_max
            || (state.in_flight_items > 0 && state.in_flight_bytes + bytes > self.limits.in_flight_bytes_max);
        let problem = if state.draining {
            Problem::unavailable("ending")
        } else if over {
            Problem::exhausted(self.limits.retry_after, "too many requests under way on this stream")
        } else if let Some(share) = self.account.take(bytes) {
            state.in_flight_items += 1;
            state.in_flight_bytes += bytes;
            drop(state);
            self.in_flight.inc();
            self.accepted.inc();
            return Some(Asked {
                item,
                answer: Answer {
                    flow: self.clone(),
                    id,
                    bytes,
                    share: Some(share),
                },
            });
        } else {
            Problem::exhausted(self.limits.retry_after, "too many requests under way here")
        };
        drop(state);
        self.refuse(id, problem);
        None
    }

    /// A refusal is held for the caller too. Without room even for that the stream ends: it is not read.
    pub(super) fn refuse(&self, id: u64, problem: Problem) {
        self.refused.inc();
        let reply = C::refuse(problem);
        match self.account.take(held(&reply)) {
            Some(share) => self.push(id, reply, Some(share)),
            None => {
                let problem = Problem::exhausted(self.limits.retry_after, "replies on this stream are not read");
                self.state.lock().refusal.get_or_insert(problem.into());
            }
        }
    }

    /// `share` goes on to hold the reply. Without one it is for a caller who is trusted to read.
    fn push(&self, id: u64, mut reply: C::Reply, mut share: Option<Share>) {
        C::set_reply_id(&mut reply, id);
        let mut bytes = reply.encoded_len();
        if share.as_mut().is_some_and(|share| !share.resize(held(&reply))) {
            let detail = "done or not, there is no room for the reply: others have not been read";
            reply = C::refuse(Problem::new(Code::UnknownOutcome, detail));
            C::set_reply_id(&mut reply, id);
            bytes = reply.encoded_len();
        }
        let mut state = self.state.lock();
        if !state.gone {
            state.ready_bytes += bytes;
            state.ready.push_back(Ready { reply, bytes, share });
        }
        drop(state);
        self.readable.wake();
    }

    fn release(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.in_flight_items -= 1;
        state.in_flight_bytes -= bytes;
        let idle = state.in_flight_items == 0;
        drop(state);
        self.in_flight.dec();
        if idle {
            self.room.notify_one();
            self.readable.wake();
        }
    }

    fn has_room(&self) -> bool {
        let state = self.state.lock();
        state.gone
            || (state.ready_bytes < self.limits.ready_bytes_max
                && state.ready.len() < self.limits.in_flight_items_max.max(1))
    }

    fn is_refused(&self) -> bool {
        self.state.lock().refusal.is_some()
    }

    fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.in_flight_items == 0 || state.gone
    }
}

/// What a reply is charged for while it waits: it is more in memory than on the wire.
fn held(reply: &impl Message) -> usize {
    reply.encoded_len() + ITEM_OVERHEAD_BYTES
}

/// Where the answer to one item goes.
pub struct Answer<C: ListCall> {
    flow: Arc<Flow<C>>,
    id: u64,
    /// What it counts for among those under way on this stream.
    bytes: usize,
    /// None once it is sent.
    share: Option<Share>,
}

impl<C: ListCall> Answer<C> {
    /// Answers (the id is set here).
    pub fn send(mut self, reply: C::Reply) {
        let share = self.share.take();
        self.flow.push(self.id, reply, share);
    }

    /// Says no.
    pub fn refuse(self, problem: Problem) {
        self.send(C::refuse(problem));
    }

    /// Has the caller gone away? Then nobody reads the answer.
    pub fn is_abandoned(&self) -> bool {
        self.flow.state.lock().gone
    }

    /// Says something that is not the last word.
    pub(super) fn say(&self, reply: C::Reply) {
        self.flow.push(self.id, reply, None);
    }
}

impl<C: ListCall> Drop for Answer<C> {
    fn drop(&mut self) {
        if let Some(share) = self.share.take() {
            let refusal = C::refuse(Problem::new(Code::Internal, ""));
            self.flow.push(self.id, refusal, Some(share));
        }
        self.flow.release(self.bytes);
    }
}

/// The replies of one stream, in lists of whatever is ready.
pub struct ReplyStream<C: ListCall> {
    flow: Arc<Flow<C>>,
    last: Option<Instant>,
    pause: Option<Pin<Box<Sleep>>>,
    /// Of the list that was handed over last: until the next one is asked for, it may not have left.
    sending: Vec<Share>,
}

impl<C: ListCall> ReplyStream<C> {
    /// Under load, whether the last list was a moment ago.
    fn poll_pace(&mut self, context: &mut Context<'_>, busy: bool) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
            return Poll::Ready(());
        }
        match self.last.map(|last| last + self.flow.limits.pace) {
            Some(next) if busy && next > Instant::now() => {
                let pause = self.pause.insert(Box::pin(tokio::time::sleep_until(next)));
                pause.as_mut().poll(context)
            }
            _ => Poll::Ready(()),
        }
    }

    fn take(&mut self) -> Option<C::Replies> {
        let limits = &self.flow.limits;
        let mut state = self.flow.state.lock();
        let mut replies = Vec::with_capacity(state.ready.len().min(limits.list_items_max));
        let mut bytes = 0;
        while let Some(next) = state.ready.front() {
            let fits = replies.is_empty() || bytes + next.bytes <= limits.list_bytes_max;
            if replies.len() >= limits.list_items_max || !fits {
                break;
            }
            let Some(next) = state.ready.pop_front() else {
                break;
            };
            state.ready_bytes -= next.bytes;
            bytes += next.bytes;
            replies.push(next.reply);
            self.sending.extend(next.share);
        }
        (!replies.is_empty()).then(|| C::reply_list(replies))
    }
}

impl<C: ListCall> Stream for ReplyStream<C> {
    type Item = Result<C::Replies, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.sending.clear();
        this.flow.readable.register(context.waker());
        let (ready, busy, over) = {
            let mut state = this.flow.state.lock();
            let over = !state.reading && state.in_flight_items == 0;
            if over && state.ready.is_empty() {
                return Poll::Ready(state.refusal.take().map(Err));
            }
            let busy = state.ready.len() + state.in_flight_items >= this.flow.limits.pace_from_items;
            (state.ready.len(), busy, over)
        };
        if ready == 0 {
            return Poll::Pending;
        }
        let full = ready >= this.flow.limits.list_items_max;
        if !over && !full && this.poll_pace(context, busy).is_pending() {
            return Poll::Pending;
        }
        let list = this.take();
        this.flow.room.notify_one();
        this.last = Some(Instant::now());
        list.map_or(Poll::Pending, |list| Poll::Ready(Some(Ok(list))))
    }
}

impl<C: ListCall> Drop for ReplyStream<C> {
    fn drop(&mut self) {
        let mut state = self.flow.state.lock();
        state.gone = true;
        state.ready.clear();
        state.ready_bytes = 0;
        drop(state);
        self.flow.room.notify_one();
    }
}

/// Reads the lists of one stream.
pub(super) struct Reader<C: ListCall> {
    pub(super) flow: Arc<Flow<C>>,
    pub(super) incoming: Streaming<C::Items>,
    pub(super) token: CancellationToken,
}

impl<C: ListCall> Reader<C> {
    /// Ends when the caller has ended or gone, or when the process drains.
    pub(super) async fn run(mut self, mut handle: impl FnMut(&Arc<Flow<C>>, Vec<C::Item>)) {
        let _end = End {
            flow: self.flow.clone(),
        };
        let mut draining = false;
        let mut ends = None;
        loop {
            let received = tokio::select! {
                received = self.incoming.message() => received,
                () = self.token.cancelled(), if !draining => {
                    draining = true;
                    self.flow.state.lock().draining = true;
                    continue;
                }
                () = drained(&self.flow, &mut ends), if draining => return,
                () = gone(&self.flow), if !draining => return,
            };
            match received {
                Ok(Some(list)) => handle(&self.flow, C::items(list)),
                Ok(None) => return,
                // Too many items or bytes, no message: the caller is told. One whose connection broke does not hear it.
                Err(status) => {
                    tracing::debug!(call = C::NAME, %status, "stream broke");
                    self.flow.state.lock().refusal = Some(status);
                    return;
                }
            }
            if self.flow.is_refused() {
                return;
            }
            while !self.flow.has_room() {
                self.flow.room.notified().await;
            }
        }
    }
}

/// Everything accepted was answered a moment ago. Whoever goes on sending meanwhile is refused, and does not hold up
/// the end: a stream that ends in order has taken nothing that it has not answered.
async fn drained<C: ListCall>(flow: &Flow<C>, ends: &mut Option<Instant>) {
    while !flow.is_idle() {
        flow.room.notified().await;
    }
    let ends = *ends.get_or_insert_with(|| Instant::now() + LINGER);
    tokio::time::sleep_until(ends).await;
}

async fn gone<C: ListCall>(flow: &Flow<C>) {
    while !flow.state.lock().gone {
        flow.room.notified().await;
    }
}

struct End<C: ListCall> {
    flow: Arc<Flow<C>>,
}

impl<C: ListCall> Drop for End<C> {
    fn drop(&mut self) {
        self.flow.state.lock().reading = false;
        self.flow.readable.wake();
    }
}
