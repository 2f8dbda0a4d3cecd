//! Two organisations, their identities on disk, and an orderer and a worker that do as tests want.

#![allow(dead_code)] // each test file uses its part

use std::fs::Permissions;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::identity::Role;
use protocol::testing::{Keys, TestIdentity, TestOrganisation};
use service::calls::Broadcast;
use service::health::Health;
use service::identity::{Identity, load_roots};
use service::lists::{self, Limits, ReplyStream};
use service::rpc::{self, BroadcastReply, BroadcastRequest, BroadcastRequests, Problem};
use service::serve::{Access, Config};
use service::tls::{Target, Trust};
use service::{Caller, Tasks};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

pub const SECOND: Duration = Duration::from_secs(1);

/// Two member organisations, `HospitalA` and `ReliefOrg`, and `Stranger`, which is none.
pub struct World {
    pub hospital: TestOrganisation,
    pub relief: TestOrganisation,
    pub stranger: TestOrganisation,
    pub directory: TempDir,
}

impl World {
    pub fn new(keys: Keys) -> Self {
        let world = Self {
            hospital: TestOrganisation::new(1, "HospitalA", keys),
            relief: TestOrganisation::new(1, "ReliefOrg", keys),
            stranger: TestOrganisation::new(1, "Stranger", keys),
            directory: tempfile::tempdir().expect("temporary directory"),
        };
        let roots = world.path("roots");
        std::fs::create_dir(&roots).expect("create");
        std::fs::create_dir(world.path("crls")).expect("create");
        for organisation in [&world.hospital, &world.relief] {
            let file = roots.join(format!("{}.pem", organisation.msp_id));
            std::fs::write(file, organisation.root_pem()).expect("write");
        }
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn identity(&self, identity: &TestIdentity) -> Arc<Identity> {
        let directory = tempfile::tempdir_in(self.directory.path()).expect("temporary directory");
        identity.write(directory.path()).expect("write");
        Arc::new(Identity::load(directory.path()).expect("an identity"))
    }

    /// Serves the relief organisation's orderer.
    pub async fn orderer<F>(
        &self,
        limits: Limits,
        handler: impl Fn(BroadcastRequest) -> F + Send + Sync + 'static,
    ) -> Running
    where
        F: Future<Output = BroadcastReply> + Send + 'static,
    {
        orderer(self.trust(self.relief.identity("orderer0"), None), limits, handler).await
    }

    /// Trusts the members, with the lists in `crls` if wanted.
    pub fn trust(&self, identity: &TestIdentity, crls: Option<&Path>) -> Arc<Trust> {
        let members = load_roots(&self.path("roots")).expect("roots");
        Trust::load(self.identity(identity), members, crls.map(Path::to_owned)).expect("trust")
    }

    /// Trusts the members and, whoever it is, itself: so that it gets as far as the handshake.
    pub fn trust_of_anyone(&self, organisation: &TestOrganisation, identity: &TestIdentity) -> Arc<Trust> {
        let roots = tempfile::tempdir_in(self.directory.path()).expect("temporary directory");
        for known in [&self.hospital, &self.relief, organisation] {
            std::fs::write(roots.path().join(format!("{}.pem", known.msp_id)), known.root_pem()).expect("write");
        }
        let members = load_roots(roots.path()).expect("roots");
        Trust::load(self.identity(identity), members, None).expect("trust")
    }
}

type Handler = Arc<dyn Fn(BroadcastRequest) -> futures::future::BoxFuture<'static, BroadcastReply> + Send + Sync>;

/// An orderer whose replies are the test's.
pub struct TestOrderer {
    tasks: Tasks,
    limits: Limits,
    handler: Handler,
}

#[tonic::async_trait]
impl rpc::orderer_server::Orderer for TestOrderer {
    async fn broadcast(&self, request: Request<BroadcastRequest>) -> Result<Response<BroadcastReply>, Status> {
        let caller = Caller::of(request.extensions())?;
        let problem = Problem {
            detail: caller.common_name.clone(),
            ..Default::default()
        };
        let outcome = rpc::broadcast_reply::Outcome::Problem(problem);
        Ok(Response::new(BroadcastReply {
            id: request.get_ref().id,
            outcome: Some(outcome),
        }))
    }

    type BroadcastListsStream = ReplyStream<Broadcast>;

    async fn broadcast_lists(
        &self,
        request: Request<Streaming<BroadcastRequests>>,
    ) -> Result<Response<Self::BroadcastListsStream>, Status> {
        let handler = self.handler.clone();
        lists::serve_each::<Broadcast, _, _>(&self.tasks, request, self.limits.clone(), move |item, _| handler(item))
    }
}

/// A running server with its own tasks.
pub struct Running {
    pub tasks: Tasks,
    pub address: SocketAddr,
}

impl Running {
    pub fn target(&self) -> Target {
        Target::new(format!("localhost:{}", self.address.port()), Role::Orderer, None)
    }

    pub async fn stop(self) {
        self.tasks.cancel();
        self.tasks.wait(5 * SECOND).await.expect("ends in time");
    }
}

/// Serves an orderer that is open to peers.
pub async fn orderer<F>(
    trust: Arc<Trust>,
    limits: Limits,
    handler: impl Fn(BroadcastRequest) -> F + Send + Sync + 'static,
) -> Running
where
    F: Future<Output = BroadcastReply> + Send + 'static,
{
    orderer_at(
        trust,
        limits,
        Config::default(),
        "127.0.0.1:0".parse().expect("address"),
        handler,
    )
    .await
}

pub async fn orderer_at<F>(
    trust: Arc<Trust>,
    limits: Limits,
    config: Config,
    address: SocketAddr,
    handler: impl Fn(BroadcastRequest) -> F + Send + Sync + 'static,
) -> Running
where
    F: Future<Output = BroadcastReply> + Send + 'static,
{
    orderer_in(Tasks::new(), trust, limits, config, address, handler).await
}

pub async fn orderer_in<F>(
    tasks: Tasks,
    trust: Arc<Trust>,
    limits: Limits,
    config: Config,
    address: SocketAddr,
    handler: impl Fn(BroadcastRequest) -> F + Send + Sync + 'static,
) -> Running
where
    F: Future<Output = BroadcastReply> + Send + 'static,
{
    let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
    let service = rpc::orderer_server(TestOrderer {
        tasks: tasks.clone(),
        limits,
        handler,
    });
    let rest = axum::Router::new().route("/v1/hello", axum::routing::get(async || "hello"));
    let routes = service::serve::grpc(service).merge(rest);
    let access = Access::new()
        .allow(rpc::path::ORDERER, |caller| caller.role == Role::Peer)
        .allow("/v1/", |caller| caller.role == Role::Client);
    trust.watch(&tasks, &Health::new(), Duration::from_millis(20));
    let listener = service::serve::bind(address).await.expect("bind");
    let address = listener.local_addr().expect("address");
    service::serve::serve(&tasks, listener, trust, routes, access, config).expect("serve");
    Running { tasks, address }
}

/// Answers with the bytes that were sent.
pub async fn echo(request: BroadcastRequest) -> BroadcastReply {
    let detail = String::from_utf8(request.transaction).expect("text");
    let problem = Problem {
        detail,
        ..Default::default()
    };
    BroadcastReply {
        outcome: Some(rpc::broadcast_reply::Outcome::Problem(problem)),
        ..Default::default()
    }
}

pub fn request(text: &str) -> BroadcastRequest {
    BroadcastRequest {
        transaction: text.as_bytes().to_vec(),
        ..Default::default()
    }
}

pub fn text(reply: BroadcastReply) -> String {
    problem(reply).detail
}

pub fn problem(reply: BroadcastReply) -> Problem {
    match reply.outcome {
        Some(rpc::broadcast_reply::Outcome::Problem(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

/// One unary call: who does the server think is calling?
pub async fn whoami(channel: Channel) -> Result<String, Status> {
    let reply = rpc::orderer_client(channel)
        .broadcast(BroadcastRequest::default())
        .await?;
    Ok(text(reply.into_inner()))
}

/// Waits until `condition` holds, at most five seconds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in time: {what}");
}

/// One request on the health port.
pub async fn get(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connect");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer
}

/// A directory as Kubernetes mounts a Secret or a ConfigMap: the files are links through `..data` into a directory of
/// their version, `..data` is swapped at once, and nobody but owner and group may read.
pub struct Mounted {
    pub directory: PathBuf,
    version: u32,
}

impl Mounted {
    pub fn new(directory: PathBuf, files: &[(&str, Vec<u8>)]) -> Self {
        std::fs::create_dir_all(&directory).expect("create");
        let mut mounted = Mounted { directory, version: 0 };
        mounted.swap(files);
        mounted
    }

    pub fn swap(&mut self, files: &[(&str, Vec<u8>)]) {
        use std::os::unix::fs::symlink;
        let name = |version| format!("..2026_11_27_12_00_00.{version}");
        let before = self.directory.join(name(self.version));
        self.version += 1;
        let now = self.directory.join(name(self.version));
        std::fs::create_dir(&now).expect("create");
        for (file, bytes) in files {
            std::fs::write(now.join(file), bytes).expect("write");
            std::fs::set_permissions(now.join(file), Permissions::from_mode(0o440)).expect("mode");
            let link = self.directory.join(file);
            if link.symlink_metadata().is_err() {
                symlink(Path::new("..data").join(file), link).expect("link");
            }
        }
        let swapped = self.directory.join("..data_tmp");
        symlink(name(self.version), &swapped).expect("link");
        std::fs::rename(swapped, self.directory.join("..data")).expect("swap");
        if before.exists() {
            std::fs::remove_dir_all(before).expect("remove");
        }
    }
}

/// An identity's files.
pub fn pair(identity: &TestIdentity) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("cert.pem", identity.certificate_pem().into_bytes()),
        ("key.pem", identity.key_pem().into_bytes()),
    ]
}
