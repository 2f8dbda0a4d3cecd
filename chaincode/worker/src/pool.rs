//! The threads that run guests.
//!
//! ```text
//! submit ─→ queue (bounded in calls and bytes) ─→ running (bounded) ⇄ waiting for a peer's answer (bounded)
//! ```
//! There is a thread for every guest that may run and for every guest that may wait, so guests that wait never
//! keep others from running. A guest whose answer has come goes on at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use service::rpc::{self, question::Question};

use crate::engine::{Call, Engine, Module};
use crate::failure::{Code, Failure};
use crate::guest::Peer;
use crate::limits::Limits;
use crate::{Outcome, metrics};

/// Beside the guest's own stack: what the host needs on the same thread.
const HOST_STACK_BYTES: usize = 1024 * 1024;

/// A call, and who is told how it ended.
pub struct Job {
    pub module: Module,
    pub call: Call,
    pub peer: Box<dyn Peer>,
}

/// Its threads end when it is dropped, or told to, after the calls that are queued.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    engine: Arc<Engine>,
    state: Mutex<State>,
    work: Condvar,
    running_max: usize,
    waiting_max: usize,
    queue_items_max: usize,
    queue_bytes_max: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Job, usize)>,
    queue_bytes: usize,
    running: usize,
    waiting: usize,
    ending: bool,
}

/// Threads that a pool with these limits has, and so instances at the same time.
pub fn threads(limits: &Limits) -> usize {
    limits.running() + limits.waiting_max
}

impl Pool {
    pub fn start(engine: Arc<Engine>, limits: &Limits) -> std::io::Result<Self> {
        metrics::QUEUE_ITEMS_MAX.set(gauge(limits.queue_items_max));
        metrics::RUNNING_MAX.set(gauge(limits.running()));
        let shared = Arc::new(Shared {
            engine,
            state: Mutex::default(),
            work: Condvar::new(),
            running_max: limits.running(),
            waiting_max: limits.waiting_max,
            queue_items_max: limits.queue_items_max,
            queue_bytes_max: limits.queue_bytes_max,
        });
        let pool = Self {
            shared,
            threads: Mutex::default(),
        };
        for number in 0..threads(limits) {
            let shared = pool.shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("guest {number}"))
                .stack_size(limits.stack_bytes_max + HOST_STACK_BYTES)
                .spawn(move || shared.work())?;
            pool.threads.lock().push(thread);
        }
        Ok(pool)
    }

    /// Queues a call; when there is no room it ends at once as busy.
    pub fn submit(&self, job: Job) {
        let bytes = job.call.bytes();
        let mut state = self.shared.state.lock();
        let full = state.queue.len() >= self.shared.queue_items_max
            || (!state.queue.is_empty() && state.queue_bytes + bytes > self.shared.queue_bytes_max);
        if full || state.ending {
            drop(state);
            return refuse(job, Failure::new(Code::Busy, "the queue is full"));
        }
        state.queue_bytes += bytes;
        state.queue.push_back((job, bytes));
        state.report();
        let go = state.running < self.shared.running_max;
        drop(state);
        if go {
            self.shared.work.notify_one();
        }
    }

    /// Takes nothing more.
    pub fn end(&self) {
        self.shared.state.lock().ending = true;
        self.shared.work.notify_all();
    }

    /// Takes nothing more and blocks until all threads have ended. Not on a thread that guests wait for.
    pub fn end_and_wait(&self) {
        self.end();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
    }
}

fn refuse(job: Job, failure: Failure) {
    metrics::CALLS
        .with_label_values(&[job.call.kind(), failure.code.as_str()])
        .inc();
    job.peer.end(Err(failure));
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.end();
    }
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl State {
    fn report(&self) {
        metrics::QUEUE_ITEMS.set(gauge(self.queue.len()));
        metrics::QUEUE_BYTES.set(gauge(self.queue_bytes));
        metrics::RUNNING.set(gauge(self.running));
        metrics::WAITING.set(gauge(self.waiting));
    }
}

impl Shared {
    fn work(self: Arc<Self>) {
        let mut state = self.state.lock();
        loop {
            if state.running < self.running_max
                && let Some((job, bytes)) = state.queue.pop_front()
            {
                state.queue_bytes -= bytes;
                state.running += 1;
                state.report();
                drop(state);
                self.run(job);
                state = self.state.lock();
                state.running -= 1;
                state.report();
            } else if state.ending && state.queue.is_empty() {
                return;
            } else {
                self.work.wait(&mut state);
            }
        }
    }

    fn run(self: &Arc<Self>, job: Job) {
        if job.peer.is_gone() {
            return refuse(job, Failure::new(Code::Unanswered, "the peer has gone"));
        }
        let peer = Box::new(Waiting {
            shared: self.clone(),
            peer: job.peer,
        });
        let run = std::panic::AssertUnwindSafe(|| self.engine.call(&job.module, job.call, peer));
        match std::panic::catch_unwind(run) {
            Ok((outcome, peer)) => peer.end(outcome),
            // The peer was told when its side was dropped; the panic hook has said where.
            Err(_) => tracing::error!("running a call panicked"),
        }
    }

    /// Gives up the place among those that run, if there is one among those that wait.
    fn begin_wait(&self) -> Result<(), Failure> {
        let mut state = self.state.lock();
        if state.waiting >= self.waiting_max {
            return Err(Failure::new(Code::Busy, "too many calls wait for answers"));
        }
        state.waiting += 1;
        state.running -= 1;
        state.report();
        let go = !state.queue.is_empty();
        drop(state);
        if go {
            self.work.notify_one();
        }
        Ok(())
    }

    fn end_wait(&self) {
        let mut state = self.state.lock();
        state.waiting -= 1;
        // May be one too many for a moment: who was started first goes on first.
        state.running += 1;
        state.report();
    }
}

/// A peer whose guest gives way while it waits.
struct Waiting {
    shared: Arc<Shared>,
    peer: Box<dyn Peer>,
}

impl Peer for Waiting {
    fn ask(&mut self, question: Question, deadline: Instant) -> Result<rpc::Answer, Failure> {
        self.shared.begin_wait()?;
        let answer = self.peer.ask(question, deadline);
        self.shared.end_wait();
        answer
    }

    fn end(self: Box<Self>, outcome: Result<Outcome, Failure>) {
        self.peer.end(outcome);
    }
}
