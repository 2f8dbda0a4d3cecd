//! An orderer: puts transactions of members into blocks, and blocks into the log.
//!
//! ```text
//!  peers ═ gRPC ═▶ broadcast ─▶ intake: admission ─▶ partition: batcher (pure) ─▶ writer ─▶ log
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
mod bootstrap;
mod broadcast;
pub mod config;
mod intake;
pub mod metrics;
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
    transaction::Checker,
};
use service::{
    Identity, OnFailure, Role, Tasks,
    health::{Check, Health},
};
use tokio::{sync::oneshot, time::sleep};
use tokio_util::sync::CancellationToken;

use admission::{Admission, Revoked};
use batcher::Limits;
use bootstrap::Bootstrap;
use config::{Bounds, Quotas};
use partition::{Partition, Queue};
use writer::Writer;

pub use broadcast::Broadcast;
pub use run::run;
pub use ticket::Answer;

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
    Control(#[from] bootstrap::Error),
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
        metrics::known(&channel, &parts.bounds);
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
        let check = health.check(ledger_log::NAME);
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
}

fn partition_settings(limits: Limits, bounds: &Bounds) -> partition::Settings {
    partition::Settings {
        limits,
        in_flight_bytes_max: bounds.in_flight_bytes_max,
        patience: Duration::from_millis(bounds.append_retry_ms),
        stalled: Duration::from_millis(bounds.stalled_ms),
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
        metrics::OPEN.set(1);
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
