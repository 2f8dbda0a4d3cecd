//! An orderer: puts transactions of members into blocks, and blocks into the log.
//!
//! ```text
//!  peers ═ gRPC ═▶ broadcast ─▶ admission ─▶ partition: batcher (pure) ─▶ writer ─▶ log
//!                     ▲      quota, room,       │ one task per partition     │
//!                     │      then checks        └─ marker, heartbeats        │
//!                     └───────── receipt: partition, height, index ──────────┘
//! ```
//! It keeps no state and elects nobody: several orderers append to the same partitions, and the log's order is the
//! order. It can alter nothing, since clients and endorsers have signed. Everything between arrival and
//! answer is bounded in bytes; beyond it the answer is `resource_exhausted`, at once. A missing
//! acknowledgement is `unknown_outcome`, never a failure. When the process ends, what was admitted is
//! sealed, appended and answered.

pub mod admission;
pub mod batcher;
mod broadcast;
pub mod config;
mod control;
mod metrics;
mod partition;
pub mod room;
mod run;
mod stillness;
mod ticket;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ledger_log::{Log, topics::Topics};
use protocol::{
    control::Genesis,
    genesis::{Channel, ConfigError},
    ledger::Receipt,
    transaction::Checker,
};
use rayon::prelude::*;
use service::{
    Caller, Identity, OnFailure, Role, Tasks,
    health::{Check, Health},
    problem::{Code, Problem},
    rpc::BroadcastRequest,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use admission::{Admission, Admitted, Revoked};
use batcher::{Entry, Limits};
use config::{Bounds, Quotas};
use control::Bootstrap;
use partition::{Partition, Queue};
use room::Held;
use ticket::{Ticket, unknown_outcome};
use writer::Writer;

pub use broadcast::Broadcast;
pub use run::run;
pub use ticket::Answer;

/// Until markers are acknowledged, and while ending.
const CLOSED_RETRY: Duration = Duration::from_millis(500);
/// Of a list, so many are checked one after another: those under one signed root find it verified.
const CHECK_RUN: usize = 16;
/// How often the log's health is looked at.
const HEALTH_PERIOD: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("genesis: {0}")]
    Genesis(#[from] ConfigError),
    #[error("the identity is a {0}, an orderer's is needed")]
    Role(Role),
    #[error("the identity is of no member of the channel: {0}")]
    Stranger(protocol::identity::IdentityError),
    #[error(transparent)]
    Control(#[from] control::Error),
    #[error("threads for checks: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// What an orderer is made of.
pub struct Parts {
    /// The bytes of `ledger.Genesis`.
    pub genesis: Vec<u8>,
    /// Components that the genesis names.
    pub modules: Vec<Vec<u8>>,
    pub identity: Arc<Identity>,
    pub log: Arc<dyn Log>,
    pub revoked: Revoked,
    pub limits: Limits,
    pub quotas: Quotas,
    pub bounds: Bounds,
    pub allow_unsafe_topics: bool,
    pub flush_every_record: bool,
}

impl Parts {
    /// With defaults for everything that has one, and no revocation lists.
    pub fn new(genesis: Vec<u8>, identity: Arc<Identity>, log: Arc<dyn Log>) -> Self {
        Parts {
            genesis,
            modules: Vec::new(),
            identity,
            log,
            revoked: Arc::new(|_| false),
            limits: Limits::default(),
            quotas: Quotas::default(),
            bounds: Bounds::default(),
            allow_unsafe_topics: false,
            flush_every_record: false,
        }
    }
}

/// A running orderer. Clones are the same one.
#[derive(Clone)]
pub struct Orderer {
    shared: Arc<Shared>,
}

struct Shared {
    admission: Arc<Admission>,
    queues: Vec<Queue>,
    /// `None`: checks run where they are called.
    pool: Option<rayon::ThreadPool>,
    open: AtomicBool,
    token: CancellationToken,
    log: Arc<dyn Log>,
}

impl Orderer {
    /// Starts the tasks; admission opens when the control chain is prepared and every partition has its marker.
    pub fn start(tasks: &Tasks, health: &Health, parts: Parts) -> Result<Self, Error> {
        metrics::declare();
        let channel = Arc::new(Channel::from_genesis(&parts.genesis)?);
        let certificate = &parts.identity.certificate;
        if certificate.role != Role::Orderer {
            return Err(Error::Role(certificate.role));
        }
        channel.members.verify(certificate).map_err(Error::Stranger)?;
        let mut bootstrap = Bootstrap::new(channel.clone(), &parts.genesis, parts.modules)?;
        bootstrap.allow_unsafe_topics = parts.allow_unsafe_topics;
        bootstrap.flush_every_record = parts.flush_every_record;
        let checker = Checker::new(channel.clone());
        let admission = Arc::new(Admission::new(
            checker,
            &parts.quotas,
            parts.bounds.queue_bytes_max,
            parts.revoked,
        ));
        let retry = Duration::from_millis(parts.bounds.append_retry_ms);
        let who = parts.identity.hash()[0];
        let writer = Arc::new(Writer::start(
            tasks,
            parts.log.clone(),
            parts.identity,
            channel.id,
            retry,
        ));
        let topics = Topics::of_channel(&channel);
        let (partitions, queues): (Vec<_>, Vec<_>) = (0..channel.partitions())
            .map(|partition| {
                let settings = partition_settings(parts.limits, &parts.bounds);
                Partition::new(
                    channel.id,
                    topics.of(partition),
                    who,
                    settings,
                    writer.clone(),
                    admission.clone(),
                )
            })
            .unzip();
        let pool = pool(parts.bounds.check_threads)?;
        let (open, token) = (AtomicBool::new(false), tasks.token().clone());
        let orderer = Orderer {
            shared: Arc::new(Shared {
                admission,
                queues,
                pool,
                open,
                token,
                log: parts.log.clone(),
            }),
        };
        let check = health.check("log");
        let start = Start {
            orderer: orderer.clone(),
            bootstrap,
            topics,
            log: parts.log,
            check,
            partitions,
        };
        tasks.spawn("orderer", OnFailure::StopProcess, start.run(tasks.clone()));
        Ok(orderer)
    }

    /// Whether admission is open.
    pub fn is_open(&self) -> bool {
        self.shared.open.load(Ordering::Acquire) && !self.shared.token.is_cancelled()
    }

    /// Bytes between arrival and answer.
    pub fn queue_bytes(&self) -> usize {
        self.shared.admission.room().used()
    }

    /// Takes a list in. Every item is answered exactly once: now if it is refused, else when the log has it.
    pub fn offer(&self, caller: &Caller, items: Vec<(BroadcastRequest, Answer)>) {
        let since = Instant::now();
        let mut entered = Vec::with_capacity(items.len());
        for (request, answer) in items {
            match self.enter(caller, &request) {
                Ok(held) => entered.push((request, answer, held)),
                Err(problem) => refuse(answer, problem),
            }
        }
        if entered.is_empty() {
            return;
        }
        let orderer = self.clone();
        let judge = move |parallel| {
            orderer.judge(entered, parallel);
            metrics::CHECK_SECONDS.observe(since.elapsed().as_secs_f64());
        };
        // What waits here for a thread holds its room already.
        match &self.shared.pool {
            Some(pool) => pool.spawn(move || judge(true)),
            None => judge(false),
        }
    }

    /// A list of one.
    pub async fn broadcast(&self, caller: &Caller, request: BroadcastRequest) -> Result<Receipt, Problem> {
        let (sender, result) = oneshot::channel();
        let answer: Answer = Box::new(move |result| {
            let _ = sender.send(result); // the caller may have gone
        });
        self.offer(caller, vec![(request, answer)]);
        result
            .await
            .unwrap_or_else(|_| Err(unknown_outcome("the orderer gave no answer")))
    }

    fn enter(&self, caller: &Caller, request: &BroadcastRequest) -> Result<Held, Problem> {
        if self.shared.token.is_cancelled() {
            return Err(Problem::unavailable("the orderer is ending").with_retry_after(CLOSED_RETRY));
        }
        if !self.is_open() {
            return Err(Problem::unavailable("the orderer is starting").with_retry_after(CLOSED_RETRY));
        }
        if !self.shared.log.reachable() {
            // Said now rather than after the append's deadline: nothing was sent, nothing is unknown.
            let problem = Problem::new(Code::LogUnavailable, "the log does not answer, nothing was ordered");
            return Err(problem.with_retry_after(CLOSED_RETRY));
        }
        self.shared.admission.enter(caller, request)
    }

    /// Checks all, then puts those that pass into the queues, in the list's order.
    fn judge(&self, entered: Vec<(BroadcastRequest, Answer, Held)>, parallel: bool) {
        let now_ms = service::time::unix_ms();
        let check = |(request, answer, held): (BroadcastRequest, Answer, Held)| {
            (self.shared.admission.check(request, now_ms), answer, held)
        };
        let checked: Vec<_> = match parallel && entered.len() > CHECK_RUN {
            true => entered.into_par_iter().with_min_len(CHECK_RUN).map(check).collect(),
            false => entered.into_iter().map(check).collect(),
        };
        for (verdict, answer, held) in checked {
            match verdict {
                Ok(admitted) => self.queue(admitted, answer, held),
                Err(problem) => refuse(answer, problem),
            }
        }
    }

    fn queue(&self, admitted: Admitted, answer: Answer, held: Held) {
        let Admitted {
            partition,
            tx_id,
            transaction,
            certificates,
        } = admitted;
        metrics::ADMITTED.with_label_values(&[held.organisation()]).inc();
        metrics::ADMITTED_BYTES
            .with_label_values(&[held.organisation()])
            .inc_by(transaction.len() as u64);
        let tag = Ticket::new(tx_id, answer, held);
        if let Some(queue) = self.shared.queues.get(partition as usize) {
            // While ending nobody listens: the ticket then says so itself.
            let _ = queue.send(Entry {
                transaction,
                certificates,
                tag,
            });
        }
    }
}

fn refuse(answer: Answer, problem: Problem) {
    metrics::REFUSED.with_label_values(&[problem.code.as_str()]).inc();
    answer(Err(problem));
}

fn partition_settings(limits: Limits, bounds: &Bounds) -> partition::Settings {
    partition::Settings {
        limits,
        in_flight_bytes_max: bounds.in_flight_bytes_max,
        patience: Duration::from_millis(bounds.append_retry_ms),
        drain: Duration::from_millis(bounds.drain_ms),
        heartbeat: Duration::from_millis(bounds.heartbeat_ms),
    }
}

fn pool(threads: usize) -> Result<Option<rayon::ThreadPool>, rayon::ThreadPoolBuildError> {
    if threads == 0 {
        return Ok(None);
    }
    // A panic drops the list's answers, which then say `internal`; the thread goes on.
    let builder = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("check-{i}"));
    builder
        .panic_handler(|_| tracing::error!("a check panicked"))
        .build()
        .map(Some)
}

/// What happens before admission opens, and watching the log after.
struct Start {
    orderer: Orderer,
    bootstrap: Bootstrap,
    topics: Topics,
    log: Arc<dyn Log>,
    check: Check,
    partitions: Vec<Partition>,
}

impl Start {
    async fn run(self, tasks: Tasks) -> Result<(), Error> {
        let token = tasks.token().clone();
        let prepared = tokio::select! {
            prepared = self.bootstrap.run(&self.log, &self.topics, &self.check) => prepared?,
            () = token.cancelled() => return Ok(()),
        };
        let Start {
            orderer,
            log,
            check,
            partitions,
            ..
        } = self;
        if !mark(&tasks, prepared, partitions).await {
            return Ok(());
        }
        orderer.shared.open.store(true, Ordering::Release);
        tracing::info!(control_height = prepared.height, "open");
        loop {
            match log.reachable() {
                true => check.ok(),
                false => check.degraded("the log cannot be reached"),
            }
            tokio::select! {
                () = sleep(HEALTH_PERIOD) => {}
                () = token.cancelled() => return Ok(()),
            }
        }
    }
}

/// Runs the partitions; ends when all have their markers. `false`: the process ends before.
async fn mark(tasks: &Tasks, genesis: Genesis, partitions: Vec<Partition>) -> bool {
    let mut marked = Vec::with_capacity(partitions.len());
    for mut partition in partitions {
        let (done, wait) = oneshot::channel();
        let token = tasks.token().clone();
        marked.push(wait);
        tasks.spawn("partition", OnFailure::StopProcess, async move {
            if partition.start(genesis, &token).await {
                let _ = done.send(()); // may have ended already
                partition.run(token).await;
            }
        });
    }
    futures::future::join_all(marked).await.iter().all(Result::is_ok)
}
