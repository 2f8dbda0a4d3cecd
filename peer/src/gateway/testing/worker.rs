//! A worker without WebAssembly: it needs its module, asks, answers, and dies when told to.
//!
//! The contract: arguments are `[subject, value]`.
//!
//! | function | does |
//! |---|---|
//! | `create`, `both` | writes `record`, refuses if it exists, emits `created` |
//! | `add` | adds 1 to `record`, `count` to the number of keys |
//! | `lock` | gives `record` a policy of its own: both organisations |
//! | `read`, `changes`, `all` | queries: the record, its history, everybody's records |
//! | `trap` | ends badly |

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use protocol::ledger;
use service::mux::CallError;
use service::rpc::{self, FromWorker, ToWorker, from_worker, question, to_worker};
use tokio::sync::Notify;

use crate::workers::{Conversation, Transport};

/// What a response holds of a worker that [`FakeWorker::differs`].
const WORKED_ELSEWHERE: &str = "\"elsewhere\"";

#[derive(Default)]
pub(crate) struct FakeWorker {
    pub down: AtomicBool,
    /// Every exchange breaks after it was opened, so often.
    pub dies: AtomicU32,
    pub busy: AtomicBool,
    /// Comes to other results than everybody else.
    pub differs: AtomicBool,
    pub opened: AtomicU32,
    has_module: AtomicBool,
    module_came: Notify,
}

impl FakeWorker {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

impl Transport for Arc<FakeWorker> {
    fn is_up(&self) -> bool {
        !self.down.load(Ordering::Relaxed)
    }

    fn open(&self, first: ToWorker) -> Result<Box<dyn Conversation>, CallError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let exchange = Exchange {
            worker: Arc::clone(self),
            said: Mutex::default(),
            call: Mutex::default(),
        };
        exchange.hear(first);
        Ok(Box::new(exchange))
    }

    fn send_alone(&self, message: ToWorker) -> Result<(), CallError> {
        if let Some(to_worker::Message::Module(module)) = message.message {
            assert_eq!(protocol::sha256(&module.component)[..], module.digest[..]);
            self.has_module.store(true, Ordering::Relaxed);
            self.module_came.notify_waiters();
        }
        Ok(())
    }
}

struct Exchange {
    worker: Arc<FakeWorker>,
    said: Mutex<VecDeque<from_worker::Message>>,
    /// The call that a question interrupted.
    call: Mutex<Option<rpc::Invocation>>,
}

#[async_trait]
impl Conversation for Exchange {
    fn send(&self, message: ToWorker) -> Result<(), CallError> {
        self.hear(message);
        Ok(())
    }

    async fn next(&mut self, wait: Duration) -> Result<FromWorker, CallError> {
        let dying = self
            .worker
            .dies
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if dying.is_ok() {
            return Err(CallError::Unknown("the worker died".to_owned()));
        }
        let needs = matches!(self.said.lock().front(), Some(from_worker::Message::NeedModule(_)));
        let message = self.said.lock().pop_front();
        if let (Some(message), true) = (message.clone(), needs) {
            return Ok(FromWorker {
                id: 0,
                message: Some(message),
            });
        }
        let failed = matches!(message, Some(from_worker::Message::Failed(_)));
        if !failed && !self.worker.has_module.load(Ordering::Relaxed) {
            let came = self.worker.module_came.notified();
            if tokio::time::timeout(wait, came).await.is_err() {
                return Err(CallError::Deadline { sent: true });
            }
        }
        match message {
            Some(message) => Ok(FromWorker {
                id: 0,
                message: Some(message),
            }),
            None => Err(CallError::Deadline { sent: true }),
        }
    }
}

impl Exchange {
    fn say(&self, message: from_worker::Message) {
        self.said.lock().push_back(message);
    }

    fn hear(&self, message: ToWorker) {
        if self.worker.busy.load(Ordering::Relaxed) {
            return self.fail("busy", "", "");
        }
        match message.message {
            Some(to_worker::Message::Route(route)) => {
                self.need_module(&route.digest);
                self.route(&route);
            }
            Some(to_worker::Message::Invoke(call)) => {
                self.need_module(&call.digest);
                self.invoke(call);
            }
            Some(to_worker::Message::Answer(answer)) => {
                let call = self.call.lock().take().expect("a question was asked");
                self.answered(&call, answer);
            }
            _ => panic!("not in an exchange"),
        }
    }

    fn need_module(&self, digest: &[u8]) {
        if !self.worker.has_module.load(Ordering::Relaxed) {
            self.say(from_worker::Message::NeedModule(rpc::NeedModule {
                digest: digest.to_vec(),
            }));
        }
    }

    fn fail(&self, code: &str, detail: &str, field: &str) {
        let (code, detail, field) = (code.to_owned(), detail.to_owned(), field.to_owned());
        self.say(from_worker::Message::Failed(rpc::Failed { code, detail, field }));
    }

    fn route(&self, route: &rpc::Route) {
        let Some(subject) = arguments(&route.arguments).first().cloned() else {
            return self.fail("bad_arguments", "is missing", "subject");
        };
        let (subject, keys, query) = match route.function.as_str() {
            "create" | "both" | "add" | "lock" => (subject, vec![b"record".to_vec()], false),
            "trap" | "count" => (subject, vec![], false),
            "read" => (subject, vec![b"record".to_vec()], true),
            "changes" => (subject, vec![], true),
            "all" => (String::new(), vec![], true),
            _ => return self.fail("unknown_function", "", "function"),
        };
        self.say(from_worker::Message::Routed(rpc::Routed { subject, keys, query }));
    }

    fn invoke(&self, call: rpc::Invocation) {
        let record = call
            .entries
            .first()
            .filter(|entry| entry.present)
            .map(|entry| entry.value.clone());
        let value = arguments(&call.arguments)
            .get(1)
            .cloned()
            .unwrap_or_else(|| "1".to_owned())
            .into_bytes();
        match call.function.as_str() {
            "create" | "both" if record.is_some() => self.fail("rejected", "exists already", "subject"),
            "create" | "both" => self.done(b"true", &[(b"record", &value)], "created"),
            "add" => {
                let before: u64 = record
                    .and_then(|text| String::from_utf8(text).ok()?.parse().ok())
                    .unwrap_or(0);
                let after = (before + 1).to_string();
                self.done(after.as_bytes(), &[(b"record", after.as_bytes())], "");
            }
            "lock" => {
                let policy = "AND('HospitalA.peer', 'HospitalB.peer')".to_owned();
                self.say(from_worker::Message::Done(rpc::Done {
                    response: b"true".to_vec(),
                    policies: vec![ledger::KeyPolicy {
                        key: b"record".to_vec(),
                        policy,
                    }],
                    ..Default::default()
                }));
            }
            "read" => self.done(record.as_deref().unwrap_or(b"null"), &[], ""),
            "trap" => self.fail("trapped", "unreachable", ""),
            "count" => self.ask(call, question::Question::Range(rpc::RangeWanted::default())),
            "changes" => {
                let key = b"record".to_vec();
                self.ask(
                    call,
                    question::Question::History(rpc::HistoryWanted {
                        key,
                        skip: 0,
                        limit: 10,
                    }),
                );
            }
            "all" => {
                let wanted = rpc::ListWanted {
                    suffix: b"record".to_vec(),
                    after: vec![],
                    limit: 10,
                };
                self.ask(call, question::Question::List(wanted));
            }
            other => panic!("{other} was not routed"),
        }
    }

    fn ask(&self, call: rpc::Invocation, question: question::Question) {
        *self.call.lock() = Some(call);
        self.say(from_worker::Message::Question(rpc::Question {
            question: Some(question),
        }));
    }

    fn answered(&self, call: &rpc::Invocation, answer: rpc::Answer) {
        let count = answer.entries.len().to_string();
        match call.function.as_str() {
            "count" => self.done(count.as_bytes(), &[(b"count", count.as_bytes())], ""),
            "changes" => self.done(answer.changes.len().to_string().as_bytes(), &[], ""),
            _ => self.done(count.as_bytes(), &[], ""),
        }
    }

    fn done(&self, response: &[u8], writes: &[(&[u8], &[u8])], event: &str) {
        let response = if self.worker.differs.load(Ordering::Relaxed) {
            WORKED_ELSEWHERE.as_bytes()
        } else {
            response
        };
        let write = |(key, value): &(&[u8], &[u8])| ledger::Write {
            key: key.to_vec(),
            delete: false,
            value: value.to_vec(),
        };
        let event = ledger::Event {
            r#type: event.to_owned(),
            payload: b"{}".to_vec(),
        };
        self.say(from_worker::Message::Done(rpc::Done {
            response: response.to_vec(),
            writes: writes.iter().map(write).collect(),
            events: if event.r#type.is_empty() {
                Vec::new()
            } else {
                vec![event]
            },
            ..Default::default()
        }));
    }
}

/// Strings of a JSON array.
fn arguments(bytes: &[u8]) -> Vec<String> {
    serde_json::from_slice(bytes).unwrap_or_default()
}
