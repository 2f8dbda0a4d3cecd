//! Whether the cluster answers, for health and metrics: the last word of whoever spoke to it last,
//! and a question of its own when nobody did for a while. Also where librdkafka's logs go.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rdkafka::{ClientContext, Statistics, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError};
use tokio::sync::Notify;

use super::{Clients, leaders::Unrest, reason, remind::Pace};
use crate::metrics::{ERRORS, REACHABLE};

/// Silence after which the cluster is asked whether it is there.
const QUIET: Duration = Duration::from_secs(1);

const NOT_ASKED: u8 = 0;
const UP: u8 = 1;
const AWAY: u8 = 2;

pub(crate) struct Link {
    since: Instant,
    /// Milliseconds after `since`, plus one; 0 is never.
    answered_ms: AtomicU64,
    state: AtomicU8,
    doubted: Notify,
}

impl Link {
    pub fn new() -> Link {
        Link {
            since: Instant::now(),
            answered_ms: AtomicU64::new(0),
            state: AtomicU8::new(NOT_ASKED),
            doubted: Notify::new(),
        }
    }

    pub fn reachable(&self) -> bool {
        self.state.load(Relaxed) == UP
    }

    fn now_ms(&self) -> u64 {
        self.since.elapsed().as_millis() as u64 + 1
    }

    /// Kafka answered just now.
    pub fn answered(&self) {
        self.answered_ms.store(self.now_ms(), Relaxed);
        if self.state.swap(UP, Relaxed) != UP {
            REACHABLE.set(1);
            tracing::info!("Kafka answers");
        }
    }

    /// Something failed that says nothing certain about the whole cluster: ask it soon.
    pub fn doubt(&self, during: &'static str) {
        self.failed(during);
        self.wonder();
    }

    /// Something takes long that is no failure yet: ask the cluster soon.
    pub fn wonder(&self) {
        self.doubted.notify_one();
    }

    pub fn failed(&self, during: &'static str) {
        ERRORS.with_label_values(&[during]).inc();
    }

    fn away(&self, asked_ms: u64, reason: &str) {
        if self.answered_ms.load(Relaxed) > asked_ms {
            return; // somebody heard from it meanwhile
        }
        if self.state.swap(AWAY, Relaxed) != AWAY {
            REACHABLE.set(0);
            tracing::warn!(reason, "Kafka does not answer; retrying");
        }
    }
}

/// Asks the cluster when nobody heard from it for a second, or somebody has doubts; then every client is reminded of the
/// brokers, and readers are told of new leaders. Ends with the log.
pub(crate) async fn probe(link: Arc<Link>, clients: Weak<Clients>) {
    let mut doubted = true;
    let mut pace = Pace::new();
    let mut unrest = Unrest::default();
    loop {
        // Held for a moment only: the last one to hold them waits for their end.
        let Some(held) = clients.upgrade() else { return };
        let (asker, readers) = (held.asker.clone(), held.readers.clone());
        asker.listen();
        let asked_ms = link.now_ms();
        let quiet = asked_ms.saturating_sub(link.answered_ms.load(Relaxed)) >= QUIET.as_millis() as u64;
        let was_away = !link.reachable();
        let in_doubt = doubted || was_away;
        if doubted {
            unrest.doubt(Instant::now());
        }
        if in_doubt && pace.is_due(Instant::now()) {
            held.remind();
        }
        drop(held);
        // Who reads nothing need not know at once who leads.
        let is_restless = |unrest: &Unrest| unrest.lasts(Instant::now()) && !readers.is_idle();
        if in_doubt || quiet || is_restless(&unrest) {
            match asker.ask().await {
                Ok(leaders) => {
                    link.answered();
                    if readers.follow(&leaders).await || was_away {
                        unrest.begin(Instant::now());
                    }
                }
                Err(error) => {
                    link.failed("probe");
                    link.away(asked_ms, &reason(&error));
                }
            }
        }
        let pause = match (is_restless(&unrest), link.reachable()) {
            (true, _) => QUIET / 10,
            (false, true) => QUIET,
            (false, false) => QUIET / 4,
        };
        drop((asker, readers));
        doubted = tokio::time::timeout(pause, link.doubted.notified()).await.is_ok();
        if doubted {
            // Errors come in crowds; one question answers them all.
            tokio::time::sleep(QUIET / 10).await;
        }
    }
}

/// librdkafka's side channel: its logs go to `tracing`, its errors make us ask.
#[derive(Clone)]
pub(crate) struct Context {
    pub link: Arc<Link>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // A broker that goes away is no news for people: Link says once that the log is away.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::warn!(target: "librdkafka", facility, "{message}")
            }
            _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn stats(&self, _: Statistics) {}

    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, _: &str) {
        tracing::debug!(error = %reason(&error), "Kafka client");
        self.link.doubt("connection");
    }
}

impl ConsumerContext for Context {}
