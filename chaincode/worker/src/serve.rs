//! The gRPC shell: conversations with peers of the own organisation, joined to modules, pool and engine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use protocol::Digest;
use protocol::genesis::Channel;
use protocol::identity::{Members, Role};
use service::calls::Work;
use service::health::{self, Health};
use service::identity::{Identity, load_roots};
use service::lists::{Conversation, Limits as StreamLimits, ReplyStream, converse};
use service::rpc::question::Question;
use service::rpc::{self, FromWorker, from_worker, to_worker};
use service::serve::{Access, grpc};
use service::tls::Trust;
use service::{OnFailure, Tasks, renewal};
use tonic::{Request, Response, Status, Streaming};

use crate::config::Config;
use crate::engine::{Call, Engine};
use crate::failure::{Code, Failure};
use crate::guest::Peer;
use crate::modules::Modules;
use crate::pool::{self, Job, Pool};
use crate::{Outcome, metrics};

/// How often a revocation list is looked at.
const CRL_INTERVAL: Duration = Duration::from_secs(5);

/// Where it listens.
pub struct Handle {
    pub listen: SocketAddr,
    pub health: SocketAddr,
}

/// Starts everything; it ends with `tasks`.
pub async fn start(config: &Config, tasks: &Tasks, health: &Health) -> anyhow::Result<Handle> {
    service::metrics::start(Role::Worker.word(), &metrics::all());
    let identity = Arc::new(Identity::load_as(Role::Worker, &config.identity)?);
    let own = identity.msp_id().to_owned();
    let trust = Trust::load(identity, members(config)?, config.crls.clone())?;
    trust.watch(tasks, health, CRL_INTERVAL);
    let spread = Duration::from_millis(config.renewal_spread_ms);
    renewal::watch(tasks, health, &trust, config.identity.clone(), spread);
    let ready = health.check("engine");
    let service = Service::new(config, tasks).context("the engine does not start")?;

    service.end_with(tasks);
    let health_address = health::serve(tasks, health.clone(), config.health)
        .await
        .context("health address")?;
    let listener = service::serve::bind(config.listen).await.context("listen address")?;
    let listen = listener.local_addr()?;
    let access = Access::new().allow(rpc::path::WORKER, move |caller| {
        caller.role == Role::Peer && caller.msp_id == own
    });
    let routes = grpc(rpc::worker_server(service));
    service::serve::serve(
        tasks,
        listener,
        trust,
        routes,
        access,
        service::serve::Config::default(),
    )?;
    ready.ok();
    tracing::info!(%listen, health = %health_address, "worker serves");
    Ok(Handle {
        listen,
        health: health_address,
    })
}

/// Organisations, and what the genesis revokes of theirs if it is given.
fn members(config: &Config) -> anyhow::Result<Members> {
    if let Some(file) = &config.genesis {
        let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        let channel = Channel::from_genesis(&bytes).with_context(|| file.display().to_string())?;
        return Ok(channel.members);
    }
    let roots = config.roots.as_ref().context("neither genesis nor roots")?;
    Ok(load_roots(roots)?)
}

#[derive(Clone)]
struct Service {
    tasks: Tasks,
    modules: Arc<Modules>,
    pool: Arc<Pool>,
    module_wait: Duration,
    queue: StreamLimits,
}

impl Service {
    fn new(config: &Config, tasks: &Tasks) -> anyhow::Result<Self> {
        let limits = &config.limits;
        let engine = Arc::new(Engine::new(limits, pool::threads(limits))?);
        Ok(Self {
            tasks: tasks.clone(),
            modules: Arc::new(Modules::new(engine.clone(), limits.modules_max)),
            pool: Arc::new(Pool::start(engine, limits)?),
            module_wait: Duration::from_millis(limits.module_ms_max),
            queue: StreamLimits {
                in_flight_items_max: limits.queue_items_max + pool::threads(limits),
                in_flight_bytes_max: limits.queue_bytes_max,
                ..StreamLimits::default()
            },
        })
    }

    /// When everything ends, the guests' threads do, and are waited for.
    fn end_with(&self, tasks: &Tasks) {
        let (pool, all) = (self.pool.clone(), tasks.clone());
        tasks.spawn("guests", OnFailure::Log, async move {
            all.token().cancelled().await;
            all.spawn_blocking("guests' end", OnFailure::Log, move || pool.end_and_wait());
        });
    }

    /// A module has come: compiled beside the reader, if somebody waits for it.
    fn take_module(&self, module: rpc::Module) {
        let Some(digest) = protocol::hash::digest(&module.digest) else {
            return;
        };
        if !self.modules.expects(&digest) {
            return;
        }
        let modules = self.modules.clone();
        self.tasks.spawn_blocking("compile", OnFailure::Log, move || {
            match modules.add(digest, &module.component) {
                Ok(()) => tracing::info!(
                    digest = hex::encode(digest),
                    bytes = module.component.len(),
                    "module compiled"
                ),
                Err(failure) => tracing::warn!(digest = hex::encode(digest), %failure, "module refused"),
            }
        });
    }

    async fn handle(self, mut conversation: Conversation<Work>) {
        let (digest, call) = match open(conversation.first.message.take()) {
            Ok(opened) => opened,
            Err(failure) => return end(conversation, Err(failure)),
        };
        let want = || {
            let need = rpc::NeedModule {
                digest: digest.to_vec(),
            };
            conversation.say(message(from_worker::Message::NeedModule(need)));
        };
        let module = match self.modules.wait(&digest, self.module_wait, want).await {
            Ok(module) => module,
            Err(failure) => {
                metrics::CALLS
                    .with_label_values(&[call.kind(), failure.code.as_str()])
                    .inc();
                return end(conversation, Err(failure));
            }
        };
        let peer = Box::new(Remote {
            conversation,
            runtime: tokio::runtime::Handle::current(),
        });
        self.pool.submit(Job { module, call, peer });
    }
}

#[tonic::async_trait]
impl rpc::worker_server::Worker for Service {
    type InvokeStream = ReplyStream<Work>;

    async fn invoke(
        &self,
        request: Request<Streaming<rpc::ToWorkerList>>,
    ) -> Result<Response<ReplyStream<Work>>, Status> {
        let (service, modules) = (self.clone(), self.clone());
        let handler = move |conversation| service.clone().handle(conversation);
        converse::<Work, _, _, _>(&self.tasks, request, self.queue.clone(), handler, move |alone| {
            if let Some(to_worker::Message::Module(module)) = alone.message {
                modules.take_module(module);
            }
        })
    }
}

/// What an exchange is opened with.
fn open(first: Option<to_worker::Message>) -> Result<(Digest, Call), Failure> {
    let (digest, call) = match first {
        Some(to_worker::Message::Route(route)) => (
            route.digest,
            Call::Route {
                function: route.function,
                arguments: route.arguments,
            },
        ),
        Some(to_worker::Message::Invoke(invocation)) => {
            let call = Call::Invoke {
                function: invocation.function,
                arguments: invocation.arguments,
                context: invocation.context.unwrap_or_default(),
                entries: invocation.entries,
            };
            (invocation.digest, call)
        }
        _ => {
            return Err(Failure::new(
                Code::BadArguments,
                "an exchange begins with route or invoke",
            ));
        }
    };
    let digest = protocol::hash::digest(&digest).ok_or(Failure::new(Code::ModuleInvalid, "a digest has 32 bytes"))?;
    Ok((digest, call))
}

fn message(message: from_worker::Message) -> FromWorker {
    FromWorker {
        message: Some(message),
        ..FromWorker::default()
    }
}

fn end(conversation: Conversation<Work>, outcome: Result<Outcome, Failure>) {
    conversation.end(message(match outcome {
        Ok(Outcome::Routed(routed)) => from_worker::Message::Routed(routed),
        Ok(Outcome::Done(done)) => from_worker::Message::Done(done),
        Err(failure) => from_worker::Message::Failed(failure.into()),
    }));
}

/// The peer at the other end of a conversation, asked from a guest's thread.
struct Remote {
    conversation: Conversation<Work>,
    runtime: tokio::runtime::Handle,
}

impl Peer for Remote {
    fn ask(&mut self, question: Question, deadline: Instant) -> Result<rpc::Answer, Failure> {
        let question = rpc::Question {
            question: Some(question),
        };
        self.conversation.say(message(from_worker::Message::Question(question)));
        let wait = deadline.saturating_duration_since(Instant::now());
        let next = self.runtime.block_on(self.conversation.next(wait));
        match next.and_then(|item| item.message) {
            Some(to_worker::Message::Answer(answer)) => Ok(answer),
            Some(_) => Err(Failure::new(
                Code::Unanswered,
                "the peer said something else than an answer",
            )),
            None if Instant::now() >= deadline => Err(Failure::timed_out()),
            None => Err(Failure::new(Code::Unanswered, "the peer has gone")),
        }
    }

    fn is_gone(&self) -> bool {
        self.conversation.is_abandoned()
    }

    fn end(self: Box<Self>, outcome: Result<Outcome, Failure>) {
        end(self.conversation, outcome);
    }
}
