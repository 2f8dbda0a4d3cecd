//! The organisation's workers: they run contracts, hold nothing, and may die at any moment.
//!
//! ```text
//! route / invoke ─→ least busy worker ─→ need_module? ─→ module
//!                        │            ─→ question?    ─→ View::answer (keys, range, history, list)
//!                        │ dead, busy └→ done | failed
//!                        └→ another one, a bounded number of times, within the deadline
//! ```
//! Who they are changes while the peer lives: see `discovery`.
//!
//! The peer is the one who knows what a call has read: a [`View`] answers every question and keeps
//! the record. A call that moves to another worker starts again with an empty record.

mod discovery;
mod failed;
mod link;
mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use protocol::Digest;
use service::health::{Check, Health};
use service::mux::CallError;
use service::resolve::Dns;
use service::rpc::{self, from_worker, to_worker};
use service::tls::Trust;
use service::{Code, OnFailure, Problem, Tasks};
use tokio::sync::watch;
use tokio::time::Instant;

use discovery::Discovery;
use link::{Answered, Link, ModuleSource};
pub use link::{Conversation, Transport};
use routes::Routes;

use crate::ledger::{Ledger, Tip};
use crate::metrics::{WORKER_RETRIES, WORKERS_UP};

/// Workers that one call is tried on. A call that kills its worker kills at most so many.
const ATTEMPTS_MAX: usize = 3;
/// How often it is looked who is connected.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// Compiling a large module on a busy machine.
const PRIME_TIMEOUT: Duration = Duration::from_secs(20);
/// So long a peer that starts is not ready while no worker is.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// When a call that found all workers busy may come back.
const BUSY_RETRY_AFTER: Duration = Duration::from_millis(100);

/// What a running call may ask, and the record of what it was told.
#[async_trait]
pub trait View: Send {
    /// The entries that the route named; forgets whatever was recorded before.
    fn begin(&mut self, keys: &[Vec<u8>]) -> Result<Vec<rpc::Entry>, Problem>;

    /// An error ends the call; a question that is not allowed is answered with a problem inside.
    async fn answer(&mut self, question: rpc::question::Question) -> Result<rpc::Answer, Problem>;
}

/// One call without its entries.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub digest: Digest,
    pub function: String,
    pub arguments: Vec<u8>,
    pub context: rpc::Context,
    /// Suffixes that the route named.
    pub keys: Vec<Vec<u8>>,
}

pub struct Workers {
    /// Replaced as a whole when a worker comes or goes.
    links: RwLock<Arc<[Arc<Link>]>>,
    /// Entries of the settings that lead nowhere at the moment, with the reason.
    unresolved: Mutex<Vec<String>>,
    modules: ModuleSource,
    turn: AtomicUsize,
    routes: Routes,
}

/// What the watch over the workers looks at.
struct Watched {
    tasks: Tasks,
    contracts: Arc<[Digest]>,
    /// Moves with every record of the control chain, modules among them.
    control: watch::Receiver<Option<Tip>>,
    check: Check,
    /// Whether the settings name any.
    expected: bool,
}

/// How an attempt on one worker ended without a result.
enum Ended {
    /// The worker is gone, full, or broke the rules of the exchange: another one may do it.
    Lost(String),
    Busy,
    /// The answer is the same everywhere.
    Final(Problem),
}

impl Workers {
    /// Connects to all workers that `entries`, each `host:port`, lead to, for as long as `tasks` live. Whoever connects
    /// is made to compile the channel's contracts as soon as the ledger has them, so that no client waits for it.
    pub fn start(
        tasks: &Tasks,
        trust: &Arc<Trust>,
        entries: &[String],
        ledger: &Arc<Ledger>,
        health: &Health,
    ) -> Result<Arc<Self>, service::tls::Error> {
        for entry in entries {
            // What is no address is an error of the start.
            trust.channel(&discovery::target(trust, entry))?;
        }
        let modules = Arc::clone(ledger);
        let workers = Self::over(Vec::new(), Arc::new(move |digest: &Digest| modules.module(digest)));
        let connect = discovery::over_tls(Arc::clone(trust));
        let discovery = Discovery::new(tasks, &workers, entries, Arc::new(Dns), connect);
        tasks.spawn("workers' addresses", OnFailure::StopProcess, discovery.run());
        let contracts = ledger.checker.channel.contracts.values();
        let watched = Watched {
            tasks: tasks.clone(),
            contracts: contracts.map(|contract| contract.digest).collect(),
            control: ledger.control.watch_tip(),
            check: health.check("workers"),
            expected: !entries.is_empty(),
        };
        tasks.spawn("workers", OnFailure::Log, Arc::clone(&workers).watch(watched));
        Ok(workers)
    }

    /// Over these, until [`Workers::replace`].
    pub(crate) fn over(transports: Vec<Box<dyn Transport>>, modules: ModuleSource) -> Arc<Self> {
        let links = transports
            .into_iter()
            .map(|transport| Arc::new(Link::new(transport, Arc::clone(&modules), Tasks::new())));
        Arc::new(Workers {
            links: RwLock::new(links.collect()),
            unresolved: Mutex::default(),
            modules,
            turn: AtomicUsize::new(0),
            routes: Routes::new(),
        })
    }

    /// Those of this moment.
    fn links(&self) -> Arc<[Arc<Link>]> {
        Arc::clone(&self.links.read())
    }

    /// Other workers from now on. A call that is under way keeps its own.
    fn replace(&self, links: Arc<[Arc<Link>]>) {
        *self.links.write() = links;
    }

    pub fn any_up(&self) -> bool {
        self.links().iter().any(|link| link.is_up())
    }

    fn has_module(&self, digest: &Digest) -> bool {
        (self.modules)(digest).is_some()
    }

    /// Primes workers as they come, once the modules are here, and says how many there are.
    async fn watch(self: Arc<Self>, mut watched: Watched) {
        let began = Instant::now();
        let token = watched.tasks.token().clone();
        loop {
            let known = watched.contracts.iter().all(|digest| self.has_module(digest));
            for link in self.links().iter() {
                if known && link.wants_priming() {
                    let (link, contracts) = (Arc::clone(link), Arc::clone(&watched.contracts));
                    watched.tasks.spawn("prime a worker", OnFailure::Log, async move {
                        link.prime(&contracts, Instant::now() + PRIME_TIMEOUT).await;
                    });
                }
            }
            self.report(&watched, began);
            tokio::select! {
                () = token.cancelled() => return,
                // A module may have come. The sender lives as long as the ledger.
                Ok(()) = watched.control.changed() => {}
                () = tokio::time::sleep(WATCH_EVERY) => {}
            }
        }
    }

    fn report(&self, watched: &Watched, began: Instant) {
        let (links, check) = (self.links(), &watched.check);
        let ready = links.iter().filter(|link| link.is_primed()).count();
        // One that has just come is not missed yet.
        let missed = |link: &Arc<Link>| !link.is_primed() && link.since().elapsed() >= START_PATIENCE;
        WORKERS_UP.set(ready as i64);
        let mut reasons = self.unresolved.lock().clone();
        match (ready, links.len()) {
            // A peer without workers still serves what needs none; at the start they are waited for.
            (0, _) if watched.expected && began.elapsed() < START_PATIENCE => return,
            (0, all) => reasons.insert(0, format!("none of {all} workers is ready: nothing is endorsed here")),
            (ready, all) if links.iter().any(missed) => {
                reasons.insert(0, format!("{ready} of {all} workers are ready"))
            }
            _ => {}
        }
        match reasons.is_empty() {
            true => check.ok(),
            false => check.degraded(reasons.join("; ")),
        }
    }

    /// Whom the call is about and what it will read: by the same module the same for the same arguments.
    pub async fn route(
        &self,
        digest: &Digest,
        function: &str,
        arguments: &[u8],
        deadline: Instant,
    ) -> Result<rpc::Routed, Problem> {
        let known = routes::call(digest, function, arguments);
        if let Some(routed) = self.routes.get(&known) {
            return Ok(routed);
        }
        let call = RouteCall {
            digest,
            function,
            arguments,
        };
        let routed = self.attempts("route", deadline, call).await?;
        self.routes
            .put(known, routes::function(digest, function), routed.clone());
        Ok(routed)
    }

    /// Whether the function only reads, if it has been called here before.
    pub fn only_reads(&self, digest: &Digest, function: &str) -> Option<bool> {
        self.routes.only_reads(&routes::function(digest, function))
    }

    /// Runs the call; `view` answers what it asks and holds the record of its reads afterwards.
    pub async fn invoke(
        &self,
        call: &Invocation,
        view: &mut dyn View,
        deadline: Instant,
    ) -> Result<rpc::Done, Problem> {
        self.attempts("invoke", deadline, InvokeCall { call, view }).await
    }

    async fn attempts<C: OnWorker>(
        &self,
        call: &'static str,
        deadline: Instant,
        mut what: C,
    ) -> Result<C::Answer, Problem> {
        if !self.has_module(what.digest()) {
            return Err(link::missing());
        }
        let mut avoid: Vec<Arc<Link>> = Vec::new();
        let mut last = Ended::Lost("none is connected".to_owned());
        for number in 0..ATTEMPTS_MAX {
            let Some(link) = self.pick(&avoid) else { break };
            if number > 0 {
                WORKER_RETRIES.inc();
            }
            let outcome = {
                let _busy = link.begin();
                what.attempt(&link, deadline).await
            };
            last = match outcome {
                Ok(value) => {
                    link::count(call, "ok");
                    return Ok(value);
                }
                Err(answered) => answered.ended(call),
            };
            match last {
                Ended::Final(problem) => return Err(problem),
                Ended::Lost(_) if Instant::now() >= deadline => break,
                Ended::Lost(_) | Ended::Busy => avoid.push(link),
            }
        }
        Err(match last {
            Ended::Final(problem) => problem,
            Ended::Busy => Problem::exhausted(BUSY_RETRY_AFTER, "all workers are busy"),
            Ended::Lost(_) if Instant::now() >= deadline => {
                Problem::new(Code::WorkerUnavailable, "no worker answered in time")
            }
            Ended::Lost(why) => Problem::new(Code::WorkerUnavailable, why),
        })
    }

    /// The connected worker with the least to do; one that failed this call only if there is no other.
    fn pick(&self, avoid: &[Arc<Link>]) -> Option<Arc<Link>> {
        let links = self.links();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = links.len();
        let order = (0..count).map(|i| &links[(turn + i) % count]);
        let least_busy = order.filter(|link| link.is_up()).min_by_key(|link| {
            let failures = avoid.iter().filter(|failed| Arc::ptr_eq(failed, link)).count();
            (failures, !link.is_primed(), link.calls())
        });
        least_busy.cloned()
    }
}

/// One call, as it is made on one worker, and on another one from the start.
#[async_trait]
trait OnWorker: Send {
    type Answer: Send;
    /// The contract's.
    fn digest(&self) -> &Digest;
    async fn attempt(&mut self, link: &Link, deadline: Instant) -> Result<Self::Answer, Answered>;
}

struct RouteCall<'a> {
    digest: &'a Digest,
    function: &'a str,
    arguments: &'a [u8],
}

#[async_trait]
impl OnWorker for RouteCall<'_> {
    type Answer = rpc::Routed;

    fn digest(&self) -> &Digest {
        self.digest
    }

    async fn attempt(&mut self, link: &Link, deadline: Instant) -> Result<rpc::Routed, Answered> {
        let mut exchange = link.open(
            self.digest,
            rpc::ToWorker {
                id: 0,
                message: Some(to_worker::Message::Route(rpc::Route {
                    digest: self.digest.to_vec(),
                    function: self.function.to_owned(),
                    arguments: self.arguments.to_vec(),
                })),
            },
        )?;
        match link.next(&mut *exchange, deadline).await? {
            from_worker::Message::Routed(routed) => Ok(routed),
            message => Err(link::answered(message)),
        }
    }
}

impl Link {
    /// Asks for the route of a function that no contract has: whatever the answer, the module is compiled.
    async fn prime(&self, contracts: &[Digest], deadline: Instant) {
        let mut primed = true;
        for digest in contracts {
            let mut call = RouteCall {
                digest,
                function: "prime",
                arguments: b"[]",
            };
            let ended = match call.attempt(self, deadline).await {
                Ok(_) => continue,
                Err(answered) => answered.ended("prime"),
            };
            primed &= matches!(ended, Ended::Final(_)) && self.has_module(digest);
        }
        self.primed(primed);
    }
}

struct InvokeCall<'a> {
    call: &'a Invocation,
    view: &'a mut dyn View,
}

#[async_trait]
impl OnWorker for InvokeCall<'_> {
    type Answer = rpc::Done;

    fn digest(&self) -> &Digest {
        &self.call.digest
    }

    async fn attempt(&mut self, link: &Link, deadline: Instant) -> Result<rpc::Done, Answered> {
        let entries = self.view.begin(&self.call.keys).map_err(Answered::Final)?;
        let mut exchange = link.open(
            &self.call.digest,
            rpc::ToWorker {
                id: 0,
                message: Some(to_worker::Message::Invoke(rpc::Invocation {
                    digest: self.call.digest.to_vec(),
                    function: self.call.function.clone(),
                    arguments: self.call.arguments.clone(),
                    context: Some(self.call.context.clone()),
                    entries,
                })),
            },
        )?;
        loop {
            match link.next(&mut *exchange, deadline).await? {
                from_worker::Message::Done(done) => return Ok(done),
                from_worker::Message::Question(rpc::Question {
                    question: Some(question),
                }) => {
                    let answer = self.view.answer(question).await.map_err(Answered::Final)?;
                    exchange.send(rpc::ToWorker {
                        id: 0,
                        message: Some(to_worker::Message::Answer(answer)),
                    })?;
                }
                message => return Err(link::answered(message)),
            }
        }
    }
}

impl From<CallError> for Answered {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Full { .. } => Answered::Busy,
            error => Answered::Lost(error.to_string()),
        }
    }
}
