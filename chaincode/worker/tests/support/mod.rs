//! The real contracts as components, and a peer in memory that answers from a map.

#![allow(dead_code)] // each test file uses its part

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use service::rpc::question::Question;
use service::rpc::{self, Answer, Entry};
use worker::{Call, Engine, Failure, Job, Limits, Outcome, Peer, Pool};

pub const SECOND: Duration = Duration::from_secs(1);

/// `medical-records` or `misbehave`: from `MEDLEDGER_CONTRACTS` (a directory of components), or built here.
pub fn component(name: &'static str) -> Vec<u8> {
    static COMPONENTS: LazyLock<Mutex<HashMap<&'static str, Vec<u8>>>> = LazyLock::new(Mutex::default);
    COMPONENTS.lock().entry(name).or_insert_with(|| load(name)).clone()
}

fn load(name: &str) -> Vec<u8> {
    if let Some(directory) = std::env::var_os("MEDLEDGER_CONTRACTS") {
        let file = PathBuf::from(directory).join(format!("{name}.wasm"));
        return std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    static CORE: LazyLock<PathBuf> = LazyLock::new(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build.sh");
        let output = Command::new(script).output().expect("chaincode/build.sh runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .last()
                .expect("a directory"),
        )
    });
    let file = CORE.join(format!("{}.wasm", name.replace('-', "_")));
    worker::package(&std::fs::read(file).expect("built")).expect("a component")
}

/// Small limits, so that tests end soon.
pub fn limits() -> Limits {
    Limits {
        call_ms_max: 500,
        running_max: 4,
        waiting_max: 8,
        ..Limits::default()
    }
}

pub type Outcomes = Receiver<Result<Outcome, Failure>>;

/// A peer that answers keys from a map.
pub struct Scripted {
    pub state: Arc<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// What each question costs.
    pub pause: Duration,
    pub asked: Arc<Mutex<Vec<Question>>>,
    /// Is told of every question when it comes.
    pub waits: Option<Sender<()>>,
    pub sender: Sender<Result<Outcome, Failure>>,
}

impl Scripted {
    pub fn new() -> (Self, Outcomes) {
        let (sender, receiver) = channel();
        let scripted = Self {
            state: Arc::default(),
            pause: Duration::ZERO,
            asked: Arc::default(),
            waits: None,
            sender,
        };
        (scripted, receiver)
    }
}

impl Peer for Scripted {
    fn ask(&mut self, question: Question, deadline: Instant) -> Result<Answer, Failure> {
        self.asked.lock().push(question.clone());
        if let Some(waits) = &self.waits {
            let _ = waits.send(());
        }
        // Nobody ends this pause early.
        let (_open, never) = channel::<()>();
        let _ = never.recv_timeout(self.pause.min(deadline.saturating_duration_since(Instant::now())));
        let Question::Keys(wanted) = question else {
            return Ok(Answer::default());
        };
        let entries = wanted.keys.into_iter().map(|key| {
            let value = self.state.get(&key).cloned();
            Entry {
                key,
                present: value.is_some(),
                value: value.unwrap_or_default(),
            }
        });
        Ok(Answer {
            entries: entries.collect(),
            ..Answer::default()
        })
    }

    fn end(self: Box<Self>, outcome: Result<Outcome, Failure>) {
        let _ = self.sender.send(outcome);
    }
}

/// An engine and a contract in it.
pub struct Bench {
    pub engine: Arc<Engine>,
    pub module: worker::engine::Module,
    pub pool: Pool,
}

impl Bench {
    pub fn new(contract: &'static str, limits: &Limits) -> Self {
        let engine = Arc::new(Engine::new(limits, limits.running() + limits.waiting_max + 4).expect("an engine"));
        let module = engine.compile(&component(contract)).expect("a contract");
        let pool = Pool::start(engine.clone(), limits).expect("threads");
        Self { engine, module, pool }
    }

    /// On this thread.
    pub fn run(&self, call: Call) -> Result<Outcome, Failure> {
        self.engine.call(&self.module, call, Box::new(Scripted::new().0)).0
    }

    /// In the pool.
    pub fn submit(&self, call: Call) -> Outcomes {
        let (peer, outcomes) = Scripted::new();
        self.submit_with(call, peer);
        outcomes
    }

    pub fn submit_with(&self, call: Call, peer: Scripted) {
        self.pool.submit(Job {
            module: self.module.clone(),
            call,
            peer: Box::new(peer),
        });
    }
}

pub fn ended(outcomes: &Outcomes) -> Result<Outcome, Failure> {
    outcomes.recv_timeout(10 * SECOND).expect("it ends")
}

pub fn route(function: &str, arguments: &str) -> Call {
    Call::Route {
        function: function.into(),
        arguments: arguments.into(),
    }
}

/// By a physician of HospitalA.
pub fn invoke(function: &str, arguments: &str, query: bool, entries: &[(&str, &str)]) -> Call {
    let entries = entries.iter().map(|(key, value)| Entry {
        key: key.as_bytes().to_vec(),
        present: !value.is_empty(),
        value: value.as_bytes().to_vec(),
    });
    Call::Invoke {
        function: function.into(),
        arguments: arguments.into(),
        context: context(query),
        entries: entries.collect(),
    }
}

pub fn context(query: bool) -> rpc::Context {
    let attribute = |name: &str, value: &str| protocol::ledger::Attribute {
        name: name.into(),
        value: value.into(),
    };
    rpc::Context {
        tx_id: vec![7; 32],
        query,
        client_time_ms: 1_700_000_000_000,
        organisation: "HospitalA".into(),
        common_name: "Anna".into(),
        role: "client".into(),
        attributes: vec![
            attribute("facility", "HospitalA-1"),
            attribute("practitioner_role", "physician"),
        ],
        asserted: false,
    }
}

pub fn done(outcome: Result<Outcome, Failure>) -> rpc::Done {
    match outcome {
        Ok(Outcome::Done(done)) => done,
        other => panic!("not done: {other:?}"),
    }
}
