//! Compiled modules by digest: a bounded cache, and those that are on their way.
//!
//! A digest is asked for by the first call that needs it, and again after a moment if nothing came. Bytes that do
//! not hash to what they claim to be change nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use protocol::Digest;
use protocol::limits::MODULE_BYTES_MAX;
use tokio::sync::watch;

use crate::engine::{Engine, Module};
use crate::failure::{Code, Failure};
use crate::metrics;

/// After so long without an answer the next call asks again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Modules asked for at the same time; a peer names digests of the control chain, which are few.
const AWAITED_MAX: usize = 64;

/// What is known of a digest.
#[derive(Clone)]
pub enum State {
    Ready(Module),
    Invalid(Failure),
    /// Ask the peer for it.
    Wanted,
    /// Somebody has asked, or it is being compiled.
    Coming,
    /// Too many others are on their way.
    Full,
}

pub struct Modules {
    table: Mutex<Table>,
    kept_max: usize,
    changed: watch::Sender<()>,
    engine: Arc<Engine>,
    /// One compilation at a time: it takes a core and a lot of memory.
    compiling: Mutex<()>,
}

#[derive(Default)]
struct Table {
    kept: HashMap<Digest, Kept>,
    awaited: HashMap<Digest, Awaited>,
    clock: u64,
}

struct Kept {
    outcome: Result<Module, Failure>,
    used: u64,
}

enum Awaited {
    Asked(Instant),
    Compiling,
}

impl Modules {
    pub fn new(engine: Arc<Engine>, kept_max: usize) -> Self {
        Self {
            table: Mutex::default(),
            kept_max,
            changed: watch::Sender::new(()),
            engine,
            compiling: Mutex::new(()),
        }
    }

    pub fn get(&self, digest: &Digest) -> State {
        let mut table = self.table.lock();
        table.clock += 1;
        let clock = table.clock;
        if let Some(kept) = table.kept.get_mut(digest) {
            kept.used = clock;
            return match &kept.outcome {
                Ok(module) => State::Ready(module.clone()),
                Err(failure) => State::Invalid(failure.clone()),
            };
        }
        match table.awaited.get(digest) {
            Some(Awaited::Compiling) => return State::Coming,
            Some(Awaited::Asked(at)) if at.elapsed() < ASK_AGAIN => return State::Coming,
            Some(Awaited::Asked(_)) => {}
            None if table.awaited.len() >= AWAITED_MAX => {
                table.awaited.retain(|_, awaited| match awaited {
                    Awaited::Asked(at) => at.elapsed() < ASK_AGAIN,
                    Awaited::Compiling => true,
                });
                if table.awaited.len() >= AWAITED_MAX {
                    return State::Full;
                }
            }
            None => {}
        }
        table.awaited.insert(*digest, Awaited::Asked(Instant::now()));
        State::Wanted
    }

    /// Waits until it is ready; `want` asks the peer for it.
    pub async fn wait(&self, digest: &Digest, deadline: Duration, want: impl Fn()) -> Result<Module, Failure> {
        let mut changed = self.changed.subscribe();
        let until = tokio::time::Instant::now() + deadline;
        loop {
            changed.borrow_and_update();
            match self.get(digest) {
                State::Ready(module) => return Ok(module),
                State::Invalid(failure) => return Err(failure),
                State::Full => return Err(Failure::new(Code::Busy, "too many modules are on their way")),
                State::Wanted => want(),
                State::Coming => {}
            }
            let look_again = until.min(tokio::time::Instant::now() + ASK_AGAIN);
            let _ = tokio::time::timeout_at(look_again, changed.changed()).await;
            if tokio::time::Instant::now() >= until {
                return Err(Failure::new(Code::Unanswered, "the module did not come in time"));
            }
        }
    }

    /// Is this what somebody waits for? Then it is to be [`add`](Self::add)ed, once.
    pub fn expects(&self, digest: &Digest) -> bool {
        let mut table = self.table.lock();
        match table.awaited.get_mut(digest) {
            Some(awaited @ Awaited::Asked(_)) => {
                *awaited = Awaited::Compiling;
                true
            }
            _ => false,
        }
    }

    /// Compiles, which blocks. The digest must be of these bytes.
    pub fn add(&self, digest: Digest, component: &[u8]) -> Result<(), Failure> {
        if protocol::sha256(component) != digest {
            // Not remembered: the right bytes may still come, and are asked for again after a moment.
            self.table.lock().awaited.insert(digest, Awaited::Asked(Instant::now()));
            return Err(Failure::new(Code::ModuleInvalid, "its bytes do not hash to its digest"));
        }
        let outcome = if component.len() > MODULE_BYTES_MAX {
            Err(Failure::new(Code::ModuleInvalid, "it is larger than a module may be"))
        } else {
            let _one = self.compiling.lock();
            self.engine.compile(component)
        };
        let result = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
        let mut table = self.table.lock();
        table.awaited.remove(&digest);
        table.clock += 1;
        let used = table.clock;
        table.kept.insert(digest, Kept { outcome, used });
        while table.kept.len() > self.kept_max {
            let oldest = table
                .kept
                .iter()
                .min_by_key(|(_, kept)| kept.used)
                .map(|(digest, _)| *digest);
            oldest.map(|oldest| table.kept.remove(&oldest));
        }
        metrics::MODULES.set(i64::try_from(table.kept.len()).unwrap_or(i64::MAX));
        drop(table);
        self.changed.send_replace(());
        result
    }
}
