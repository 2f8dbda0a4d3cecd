//! A process that is asked to end while others go on calling it: what they see leads to a retry elsewhere, nothing else.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use protocol::testing::Keys;
use service::health::{self, Health};
use service::lists::{Broadcast, Limits};
use service::mux::{self, Mux};
use service::serve::Config;
use service::{Code, OnFailure, Problem, Tasks};
use support::{Running, SECOND, World, echo, get, orderer_in, problem, request, until, whoami};
use tokio::time::{Instant, sleep};

const LINGER: Duration = Duration::from_millis(400);

async fn start(world: &World, tasks: Tasks) -> Running {
    let trust = world.trust(world.relief.identity("orderer0"), None);
    let anywhere = "127.0.0.1:0".parse().expect("address");
    orderer_in(
        tasks,
        trust,
        Limits::default(),
        Config::default(),
        anywhere,
        |item| async {
            sleep(Duration::from_millis(3)).await;
            echo(item).await
        },
    )
    .await
}

/// Callers without a pause, each of which wants every call done by one of the two.
struct Callers {
    tasks: Tasks,
    done: Arc<AtomicUsize>,
    elsewhere: Arc<AtomicUsize>,
}

impl Callers {
    fn start<F>(count: usize, call: impl Fn(usize) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let callers = Callers {
            tasks: Tasks::new(),
            done: Arc::default(),
            elsewhere: Arc::default(),
        };
        for _ in 0..count {
            let (call, token) = (call.clone(), callers.tasks.token().clone());
            let (done, elsewhere) = (callers.done.clone(), callers.elsewhere.clone());
            callers.tasks.spawn("caller", OnFailure::StopProcess, async move {
                while !token.is_cancelled() {
                    // First the one that ends.
                    if !call(0).await {
                        elsewhere.fetch_add(1, Ordering::Relaxed);
                        assert!(call(1).await, "the other one does it");
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        callers
    }

    async fn more(&self) {
        let before = self.done.load(Ordering::Relaxed);
        until("calls are done", || self.done.load(Ordering::Relaxed) > before + 200).await;
    }

    /// No caller saw anything else than a call that was done or surely not done.
    async fn end(self) {
        assert!(self.elsewhere.load(Ordering::Relaxed) > 0, "somebody had to try again");
        self.tasks.cancel();
        self.tasks.wait(5 * SECOND).await.expect("no caller failed");
    }
}

/// Asked to end, it is not ready at once and serves on; then it ends in time, however much it is called.
async fn end_under_load(running: Running, callers: &Callers, ready: std::net::SocketAddr) {
    let leaves = Instant::now();
    running.tasks.leave();
    assert!(get(ready, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(get(ready, "/livez").await.starts_with("HTTP/1.1 200"));
    let refused = callers.elsewhere.load(Ordering::Relaxed);
    sleep(LINGER / 4).await;
    assert_eq!(
        refused,
        callers.elsewhere.load(Ordering::Relaxed),
        "it serves while it lingers"
    );
    running.tasks.wait(5 * SECOND).await.expect("ends");
    let took = leaves.elapsed();
    assert!(took >= LINGER && took < LINGER + 2 * SECOND, "{took:?}");
}

async fn check(world: &World, call: impl AsyncFn(&[Running; 2]) -> Callers) {
    let lingering = Tasks::lingering(LINGER);
    let ready = health::serve(&lingering, Health::new(), "127.0.0.1:0".parse().expect("address"))
        .await
        .expect("serve");
    let servers = [start(world, lingering).await, start(world, Tasks::new()).await];
    let callers = call(&servers).await;
    callers.more().await;
    let [ending, other] = servers;
    end_under_load(ending, &callers, ready).await;
    callers.more().await;
    callers.end().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_on_a_stream_are_done_or_surely_not() {
    let world = World::new(Keys::P256);
    for _ in 0..3 {
        let trust = world.trust(world.hospital.identity("peer0"), None);
        check(&world, async |servers: &[Running; 2]| {
            let tasks = Tasks::new();
            let muxes = [0, 1].map(|at| {
                let channel = trust.channel(&servers[at].target()).expect("channel");
                Mux::<Broadcast>::start(&tasks, channel, mux::Config::default())
            });
            Callers::start(32, move |at| {
                let mux = muxes[at].clone();
                async move {
                    match mux.call(request("x"), 5 * SECOND).await {
                        Ok(reply) => match problem(reply) {
                            refused if refused.code == "unavailable" => false,
                            answer => {
                                assert_eq!(answer.detail, "x");
                                true
                            }
                        },
                        Err(error) => {
                            assert!(error.surely_undone(), "{error}");
                            false
                        }
                    }
                }
            })
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_calls_are_done_or_the_server_is_unavailable() {
    let world = World::new(Keys::P256);
    for fresh in [false, true] {
        let trust = world.trust(world.hospital.identity("peer0"), None);
        check(&world, async |servers: &[Running; 2]| {
            let targets = [servers[0].target(), servers[1].target()];
            let channels = [0, 1].map(|at| trust.channel(&targets[at]).expect("channel"));
            let trust = trust.clone();
            Callers::start(8, move |at| {
                let channel = match fresh {
                    true => trust.channel(&targets[at]).expect("channel"),
                    false => channels[at].clone(),
                };
                async move {
                    match whoami(channel).await {
                        Ok(name) => {
                            assert_eq!(name, "peer0");
                            true
                        }
                        Err(status) => {
                            let said = format!("{status:?}");
                            assert_eq!(Problem::from(status).code, Code::Unavailable, "{said}");
                            false
                        }
                    }
                }
            })
        })
        .await;
    }
}

#[tokio::test]
async fn readiness_ends_with_the_first_signal_and_the_process_later() {
    let tasks = Tasks::lingering(LINGER);
    let left = Arc::new(AtomicBool::new(false));
    tasks.end_on_signals().expect("signals");
    let (seen, token) = (left.clone(), tasks.token().clone());
    tasks.spawn("work", OnFailure::Log, async move {
        token.cancelled().await;
        seen.store(true, Ordering::Relaxed);
    });
    let began = Instant::now();
    // To this process; the handler is in place.
    let killed = std::process::Command::new("kill")
        .args(["-TERM", &std::process::id().to_string()])
        .status()
        .expect("kill");
    assert!(killed.success());
    until("the signal has come", || tasks.is_leaving()).await;
    assert!(!tasks.is_cancelled() && !left.load(Ordering::Relaxed));
    tasks.wait(SECOND).await.expect("ends");
    assert!(began.elapsed() >= LINGER && left.load(Ordering::Relaxed));
}
