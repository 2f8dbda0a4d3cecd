//! One worker: its stream, how much it has to do, and the modules that it was sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use protocol::Digest;
use service::duplex::{Duplex, Exchange};
use service::lists::Work;
use service::mux::CallError;
use service::rpc::{self, FromWorker, ToWorker, from_worker, to_worker};
use service::{Code, Problem, Tasks};
use tokio::time::Instant;

use super::{Ended, failed};
use crate::metrics::{WORKER_CALLS, WORKER_MODULES};

/// A module that was sent a moment ago is on its way; later it is sent again: the worker may be a new one.
const MODULE_PATIENCE: Duration = Duration::from_secs(1);

/// A stream of conversations with one worker.
pub trait Transport: Send + Sync {
    fn is_up(&self) -> bool;
    fn open(&self, first: ToWorker) -> Result<Box<dyn Conversation>, CallError>;
    fn send_alone(&self, message: ToWorker) -> Result<(), CallError>;
}

/// One of them.
#[async_trait]
pub trait Conversation: Send {
    fn send(&self, message: ToWorker) -> Result<(), CallError>;
    async fn next(&mut self, wait: Duration) -> Result<FromWorker, CallError>;
}

impl Transport for Duplex<Work> {
    fn is_up(&self) -> bool {
        Duplex::is_up(self)
    }

    fn open(&self, first: ToWorker) -> Result<Box<dyn Conversation>, CallError> {
        Ok(Box::new(Duplex::open(self, first)?))
    }

    fn send_alone(&self, message: ToWorker) -> Result<(), CallError> {
        Duplex::send_alone(self, message)
    }
}

#[async_trait]
impl Conversation for Exchange<Work> {
    fn send(&self, message: ToWorker) -> Result<(), CallError> {
        Exchange::send(self, message)
    }

    async fn next(&mut self, wait: Duration) -> Result<FromWorker, CallError> {
        Exchange::next(self, wait).await
    }
}

pub(crate) type ModuleSource = Arc<dyn Fn(&Digest) -> Option<Arc<Vec<u8>>> + Send + Sync>;

/// How an attempt ended, before it is counted.
pub(super) enum Answered {
    Lost(String),
    Busy,
    /// The worker's word.
    Failed(rpc::Failed),
    Final(Problem),
}

impl Answered {
    pub(super) fn ended(self, call: &'static str) -> Ended {
        let (word, ended) = match self {
            Answered::Lost(why) => ("lost", Ended::Lost(why)),
            Answered::Busy => ("busy", Ended::Busy),
            Answered::Failed(failed) => failed::ended(failed),
            Answered::Final(problem) => (problem.code.as_str(), Ended::Final(problem)),
        };
        count(call, word);
        ended
    }
}

pub(super) fn count(call: &'static str, outcome: &str) {
    WORKER_CALLS.with_label_values(&[call, outcome]).inc();
}

/// What a message means that is not the one that was waited for.
pub(super) fn answered(message: from_worker::Message) -> Answered {
    match message {
        from_worker::Message::Failed(failed) => Answered::Failed(failed),
        _ => Answered::Lost("the worker said something that has no place here".to_owned()),
    }
}

/// The genesis names every module, so one that is not here has not been read yet.
pub(super) fn missing() -> Problem {
    let detail = "the contract's module has not come from the log yet";
    Problem::new(Code::LogUnavailable, detail).with_retry_after(MODULE_PATIENCE)
}

pub(super) struct Link {
    transport: Box<dyn Transport>,
    /// The transport's own.
    tasks: Tasks,
    since: Instant,
    modules: ModuleSource,
    /// When each module was last sent; as many as the channel has contracts.
    sent: Mutex<HashMap<Digest, Instant>>,
    calls: AtomicUsize,
    /// Compiled everything since it connected.
    primed: AtomicBool,
    priming: AtomicBool,
}

/// A call that this worker has to do.
pub(super) struct Busy<'a>(&'a Link);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    pub(super) fn new(transport: Box<dyn Transport>, modules: ModuleSource, tasks: Tasks) -> Self {
        Link {
            transport,
            tasks,
            since: Instant::now(),
            modules,
            sent: Mutex::default(),
            calls: AtomicUsize::new(0),
            primed: AtomicBool::new(false),
            priming: AtomicBool::new(false),
        }
    }

    /// For a worker that is none any more: what is under way on it is finished, then its tasks end.
    pub(super) fn end(&self) {
        self.tasks.cancel();
    }

    /// By [`Link::end`], with the process, or because the transport failed for good.
    pub(super) fn has_ended(&self) -> bool {
        self.tasks.is_cancelled()
    }

    /// When it was made.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn is_up(&self) -> bool {
        self.transport.is_up()
    }

    /// Connected, and every contract is compiled.
    pub(super) fn is_primed(&self) -> bool {
        self.is_up() && self.primed.load(Ordering::Relaxed)
    }

    /// Whether it has connected and nobody primes it yet; whoever is told so must do it.
    pub(super) fn wants_priming(&self) -> bool {
        if !self.is_up() {
            // It comes back as a new one.
            self.primed.store(false, Ordering::Relaxed);
            return false;
        }
        !self.primed.load(Ordering::Relaxed) && !self.priming.swap(true, Ordering::Relaxed)
    }

    pub(super) fn primed(&self, primed: bool) {
        self.primed.store(primed, Ordering::Relaxed);
        self.priming.store(false, Ordering::Relaxed);
    }

    pub(super) fn has_module(&self, digest: &Digest) -> bool {
        (self.modules)(digest).is_some()
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self) -> Busy<'_> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Busy(self)
    }

    /// A worker that lacks the module asks for it in one exchange at a time and waits long: it is not
    /// asked before it can be given.
    pub(super) fn open(&self, digest: &Digest, first: ToWorker) -> Result<Box<dyn Conversation>, Answered> {
        if !self.has_module(digest) {
            return Err(Answered::Final(missing()));
        }
        Ok(self.transport.open(first)?)
    }

    /// The worker's next word in this exchange, after whatever modules it wanted first.
    pub(super) async fn next(
        &self,
        exchange: &mut dyn Conversation,
        deadline: Instant,
    ) -> Result<from_worker::Message, Answered> {
        let mut wanted: Option<Digest> = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = if wanted.is_some() {
                left.min(MODULE_PATIENCE)
            } else {
                left
            };
            match exchange.next(wait).await {
                Ok(FromWorker {
                    message: Some(from_worker::Message::NeedModule(need)),
                    ..
                }) => {
                    let digest = protocol::hash::digest(&need.digest);
                    let digest = digest.ok_or_else(|| Answered::Lost("a module without digest".to_owned()))?;
                    self.send_module(&digest)?;
                    wanted = Some(digest);
                }
                Ok(FromWorker {
                    message: Some(message), ..
                }) => return Ok(message),
                Ok(FromWorker { message: None, .. }) => return Err(Answered::Lost("an empty message".to_owned())),
                Err(CallError::Deadline { .. }) if Instant::now() < deadline => {
                    if let Some(digest) = &wanted {
                        self.send_module(digest)?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send_module(&self, digest: &Digest) -> Result<(), Answered> {
        let component = (self.modules)(digest).ok_or_else(|| Answered::Final(missing()))?;
        // Held until it is queued: two at once would send it twice, and one that finds no room has not sent it.
        let mut sent = self.sent.lock();
        let now = Instant::now();
        let at = sent.get(digest);
        if at.is_some_and(|at| now.duration_since(*at) < MODULE_PATIENCE) {
            return Ok(());
        }
        let module = rpc::Module {
            digest: digest.to_vec(),
            component: component.to_vec(),
        };
        self.transport.send_alone(ToWorker {
            id: 0,
            message: Some(to_worker::Message::Module(module)),
        })?;
        sent.insert(*digest, now);
        WORKER_MODULES.inc();
        Ok(())
    }
}
