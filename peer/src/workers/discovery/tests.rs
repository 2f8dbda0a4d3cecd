//! Workers that come, go, and come back elsewhere; with workers in memory, and with some behind TLS.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use protocol::testing::{Issue, Keys, TestOrganisation};
use protocol::{Digest, sha256};
use service::health::Health;
use service::identity::{Identity, load_roots};
use service::lists::{Conversation, Limits, ReplyStream, Work, converse};
use service::rpc::{self, FromWorker, from_worker, to_worker};
use service::serve::{self, Access, Config};
use service::{Code, Problem};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::endorser::record::Record;
use crate::endorser::record::tests::Memory;
use crate::gateway::testing::FakeWorker;
use crate::workers::{Invocation, Watched};

const SECOND: Duration = Duration::from_secs(1);

/// DNS as a test wants it.
#[derive(Default)]
struct Told(Mutex<Vec<SocketAddr>>);

impl Told {
    /// None: the name has no address.
    fn say(&self, places: &[&str]) {
        *self.0.lock() = places.iter().map(|place| at(place)).collect();
    }
}

impl Resolve for Told {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let places = self.0.lock().clone();
        Box::pin(std::future::ready(match places.is_empty() {
            true => Err(io::Error::other("no such name")),
            false => Ok(places),
        }))
    }
}

fn at(place: &str) -> SocketAddr {
    place.parse().expect("an address")
}

fn pool() -> Arc<Workers> {
    let modules = |digest: &Digest| (*digest == sha256(b"component")).then(|| Arc::new(b"component".to_vec()));
    Workers::over(Vec::new(), Arc::new(modules))
}

/// Everybody that was connected to, and tasks that have ended.
#[derive(Default)]
struct Seen {
    workers: Mutex<BTreeMap<SocketAddr, Arc<FakeWorker>>>,
    ended: Mutex<Vec<SocketAddr>>,
}

impl Seen {
    fn connect(self: &Arc<Self>) -> Connect {
        let seen = Arc::clone(self);
        Box::new(move |tasks, _, address| {
            let worker = FakeWorker::new();
            assert!(seen.workers.lock().insert(address, worker.clone()).is_none(), "once");
            let (token, seen) = (tasks.token().clone(), Arc::clone(&seen));
            tasks.spawn("a link's task", OnFailure::Log, async move {
                token.cancelled().await;
                seen.ended.lock().push(address);
            });
            Ok(Box::new(worker))
        })
    }

    fn connected(&self) -> Vec<SocketAddr> {
        self.workers.lock().keys().copied().collect()
    }
}

fn discover(tasks: &Tasks, pool: &Arc<Workers>, told: &Arc<Told>, connect: Connect) {
    let entries = ["worker.example:7071".to_owned()];
    let discovery = Discovery::new(tasks, pool, &entries, told.clone(), connect);
    tasks.spawn("workers' addresses", OnFailure::StopProcess, discovery.run());
}

fn watch_over(tasks: &Tasks, pool: &Arc<Workers>, health: &Health) -> watch::Sender<Option<crate::ledger::Tip>> {
    let (sender, control) = watch::channel(None);
    let watched = Watched {
        tasks: tasks.clone(),
        contracts: Arc::new([sha256(b"component")]),
        control,
        check: health.check("workers"),
        expected: true,
    };
    tasks.spawn("workers", OnFailure::Log, Arc::clone(pool).watch(watched));
    sender
}

fn shown(health: &Health) -> String {
    format!("{:?}", health.checks()["workers"])
}

async fn call(pool: &Workers, function: &str, within: Duration) -> Result<rpc::Done, Problem> {
    let call = Invocation {
        digest: sha256(b"component"),
        function: function.to_owned(),
        arguments: br#"["one"]"#.to_vec(),
        context: rpc::Context::default(),
        keys: vec![b"record".to_vec()],
    };
    let mut record = Record::new(Arc::new(Memory::default()), b"p/".to_vec());
    pool.invoke(&call, &mut record, Instant::now() + within).await
}

#[tokio::test(start_paused = true)]
async fn links_follow_the_addresses_of_the_name() {
    let (tasks, pool, told, seen, health) = (
        Tasks::new(),
        pool(),
        Arc::new(Told::default()),
        Arc::new(Seen::default()),
        Health::new(),
    );
    discover(&tasks, &pool, &told, seen.connect());
    let _control = watch_over(&tasks, &pool, &health);
    let settled = || sleep(RESOLVE_EVERY + SECOND);

    // Started before its workers: it waits, then says what is missing.
    settled().await;
    assert_eq!(shown(&health), "Starting");
    sleep(20 * SECOND).await;
    let reason = shown(&health);
    assert!(
        reason.contains("worker.example:7071: no such name") && reason.contains("none of 0"),
        "{reason}"
    );
    let problem = call(&pool, "create", SECOND).await.expect_err("none");
    assert_eq!(problem.code, Code::WorkerUnavailable);

    let [one, two, three] = ["10.0.0.1:7071", "10.0.0.2:7071", "10.0.0.3:7071"];
    told.say(&[one, two]);
    settled().await;
    assert_eq!(pool.links().len(), 2);
    assert!(pool.links().iter().all(|link| link.is_primed()), "new ones are primed");
    assert_eq!(shown(&health), "Ok");
    call(&pool, "create", SECOND).await.expect("done");

    // A name that cannot be asked for changes nothing but the health.
    told.say(&[]);
    settled().await;
    assert_eq!((pool.links().len(), seen.ended.lock().len()), (2, 0));
    assert!(shown(&health).contains("no such name"), "{}", shown(&health));
    call(&pool, "create", SECOND).await.expect("done");

    told.say(&[three, two]);
    settled().await;
    assert_eq!(pool.links().len(), 2);
    assert_eq!(seen.connected(), [one, two, three].map(at), "who stays keeps its link");
    assert_eq!(
        *seen.ended.lock(),
        [at(one)],
        "and whose address has gone ends its tasks"
    );
    assert_eq!(shown(&health), "Ok");
    let before = seen.workers.lock()[&at(one)].opened.load(Ordering::Relaxed);
    for _ in 0..20 {
        call(&pool, "create", SECOND).await.expect("done");
    }
    let after = seen.workers.lock()[&at(one)].opened.load(Ordering::Relaxed);
    assert_eq!(after, before, "no more calls for it");

    // One that has just come is not missed before it had its time.
    seen.workers.lock()[&at(three)].down.store(true, Ordering::Relaxed);
    settled().await;
    assert_eq!(shown(&health), "Ok");
    sleep(20 * SECOND).await;
    assert!(
        shown(&health).contains("1 of 2 workers are ready"),
        "{}",
        shown(&health)
    );

    tasks.cancel();
    tasks.wait(SECOND).await.expect("ends");
    assert_eq!(seen.ended.lock().len(), 3, "the links' tasks are waited for");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_failed_for_good_is_made_anew() {
    let (tasks, pool, told) = (Tasks::new(), pool(), Arc::new(Told::default()));
    let count = Arc::new(AtomicUsize::new(0));
    let made = count.clone();
    let connect: Connect = Box::new(move |tasks, _, _| {
        if made.fetch_add(1, Ordering::Relaxed) == 0 {
            tasks.spawn("a link's task", OnFailure::StopProcess, async {
                Err::<(), _>("defect")
            });
        }
        Ok(Box::new(FakeWorker::new()))
    });
    told.say(&["10.0.0.1:7071"]);
    discover(&tasks, &pool, &told, connect);
    sleep(10 * RESOLVE_EVERY).await;
    assert_eq!(count.load(Ordering::Relaxed), 2);
    assert!(!tasks.is_cancelled(), "the others go on");
}

#[test]
fn a_worker_with_addresses_of_both_families_is_one() {
    let both = ["[fd00::1]:7071", "10.0.0.1:7071", "10.0.0.1:7071"].map(at);
    assert_eq!(places(both.to_vec()), BTreeSet::from([at("10.0.0.1:7071")]));
    let six = ["[fd00::1]:7071", "[fd00::2]:7071"].map(at);
    assert_eq!(places(six.to_vec()), BTreeSet::from(six));
    let many = (0..1000).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
    assert_eq!(places(many.collect()).len(), ADDRESSES_MAX);
}

/// A worker behind TLS: says who it is, `slow` only when it is let.
struct Server {
    tasks: Tasks,
    address: SocketAddr,
    under_way: Arc<AtomicUsize>,
    go: Arc<Notify>,
}

struct Served {
    tasks: Tasks,
    name: &'static str,
    under_way: Arc<AtomicUsize>,
    go: Arc<Notify>,
}

#[async_trait]
impl rpc::worker_server::Worker for Served {
    type InvokeStream = ReplyStream<Work>;

    async fn invoke(
        &self,
        request: Request<Streaming<rpc::ToWorkerList>>,
    ) -> Result<Response<Self::InvokeStream>, Status> {
        let (name, under_way, go) = (self.name, self.under_way.clone(), self.go.clone());
        let handle = move |mut conversation: Conversation<Work>| {
            let (under_way, go) = (under_way.clone(), go.clone());
            async move {
                let Some(to_worker::Message::Invoke(call)) = conversation.first.message.take() else {
                    return;
                };
                under_way.fetch_add(1, Ordering::Relaxed);
                if call.function == "slow" {
                    go.notified().await;
                }
                under_way.fetch_sub(1, Ordering::Relaxed);
                let response = name.as_bytes().to_vec();
                conversation.end(FromWorker {
                    message: Some(from_worker::Message::Done(rpc::Done {
                        response,
                        ..Default::default()
                    })),
                    ..Default::default()
                });
            }
        };
        converse::<Work, _, _, _>(&self.tasks, request, Limits::default(), handle, |_| {})
    }
}

struct Network {
    organisation: TestOrganisation,
    directory: tempfile::TempDir,
}

impl Network {
    fn new() -> Self {
        let network = Network {
            organisation: TestOrganisation::new(1, "HospitalA", Keys::P256),
            directory: tempfile::tempdir().expect("a directory"),
        };
        let root = network.directory.path().join("root.pem");
        std::fs::write(root, network.organisation.root_pem()).expect("written");
        network
    }

    fn trust(&self, role: Role, name: &str) -> Arc<Trust> {
        let issue = Issue {
            names: vec!["worker.example".to_owned()],
            ..Issue::default()
        };
        let directory = self.directory.path().join(name);
        self.organisation
            .issue(role, name, issue)
            .write(&directory)
            .expect("written");
        let identity = Arc::new(Identity::load(&directory).expect("an identity"));
        Trust::load(identity, load_roots(self.directory.path()).expect("roots"), None).expect("trust")
    }

    async fn worker(&self, name: &'static str) -> Server {
        let (tasks, under_way, go) = (Tasks::new(), Arc::default(), Arc::new(Notify::new()));
        let served = Served {
            tasks: tasks.clone(),
            name,
            under_way: Arc::clone(&under_way),
            go: Arc::clone(&go),
        };
        let listener = serve::bind(at("127.0.0.1:0")).await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let access = Access::new().allow(rpc::path::WORKER, |caller| caller.role == Role::Peer);
        let routes = serve::grpc(rpc::worker_server(served));
        // A killed one says nothing more.
        let config = Config {
            drain_deadline: Duration::ZERO,
            ..Config::default()
        };
        serve::serve(&tasks, listener, self.trust(Role::Worker, name), routes, access, config).expect("serves");
        Server {
            tasks,
            address,
            under_way,
            go,
        }
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let held = async {
        while !condition() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(4 * RESOLVE_EVERY, held).await.expect(what);
}

#[tokio::test]
async fn a_call_on_a_worker_that_goes_ends_well_or_is_made_on_another() {
    let network = Network::new();
    let [a, b, c] = [
        network.worker("a").await,
        network.worker("b").await,
        network.worker("c").await,
    ];
    let (tasks, pool, told) = (Tasks::new(), pool(), Arc::new(Told::default()));
    let only = |server: &Server| told.say(&[&server.address.to_string()]);
    let known = || pool.links();
    let slow = || call(&pool, "slow", 20 * SECOND);
    only(&a);
    // The name that the certificates are for leads nowhere; it is its addresses that are connected to.
    discover(&tasks, &pool, &told, over_tls(network.trust(Role::Peer, "peer0")));
    until("a is connected", || pool.any_up()).await;

    // Gone from DNS, not yet from the world: it is let finish.
    let (first, began) = (known(), || a.under_way.load(Ordering::Relaxed) == 1);
    let goes = async {
        until("a works", began).await;
        only(&b);
        until("b is connected", || {
            !Arc::ptr_eq(&known()[0], &first[0]) && pool.any_up()
        })
        .await;
        let quick = call(&pool, "quick", SECOND).await.expect("done");
        assert_eq!(quick.response, b"b");
        a.go.notify_one();
    };
    let (done, ()) = tokio::join!(slow(), goes);
    assert_eq!(done.expect("done").response, b"a");

    // Gone from DNS and killed: whoever waited is served by another.
    let second = known();
    let killed = async {
        until("b works", || b.under_way.load(Ordering::Relaxed) == 1).await;
        only(&c);
        until("c is connected", || {
            !Arc::ptr_eq(&known()[0], &second[0]) && pool.any_up()
        })
        .await;
        b.tasks.cancel();
        until("c works", || c.under_way.load(Ordering::Relaxed) == 1).await;
        c.go.notify_one();
    };
    let (done, ()) = tokio::join!(slow(), killed);
    assert_eq!(done.expect("done").response, b"c");

    tasks.cancel();
    tasks.wait(5 * SECOND).await.expect("every link's tasks have ended");
}
