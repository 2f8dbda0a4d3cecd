//! One call's host side: what the contract asks of the ledger, what it wants changed, and its bounds.

use std::collections::BTreeMap;
use std::time::Instant;

use protocol::ledger::{Event, KeyPolicy, Write};
use protocol::limits::{
    EVENT_PAYLOAD_BYTES_MAX, EVENT_TYPE_BYTES_MAX, EVENTS_MAX, KEY_SUFFIX_BYTES_MAX, POLICY_BYTES_MAX, VALUE_BYTES_MAX,
    WRITES_MAX,
};
use service::rpc::question::Question;
use service::rpc::{self, HistoryWanted, KeysWanted, ListWanted, RangeWanted};
use wasmtime::ResourceLimiter;

use crate::failure::{Code, Failure};
use crate::limits::{ANSWER_BYTES_MAX, Limits, OUTPUT_BYTES_MAX, OUTPUT_CALLS_MAX, PAGE_ROWS_MAX};
use crate::metrics;

pub mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "contract",
        imports: { default: trappable },
    });
}

use bindings::medledger::contract::ledger::{Change, Changes, Entry, Host, Listing, Page};

/// Who answers a call's questions and takes its end.
pub trait Peer: Send {
    /// Blocks until the answer is here, at most until the deadline.
    fn ask(&mut self, question: Question, deadline: Instant) -> Result<rpc::Answer, Failure>;
    /// Nobody waits for the end any more.
    fn is_gone(&self) -> bool {
        false
    }
    fn end(self: Box<Self>, outcome: Result<crate::Outcome, Failure>);
}

/// What a call may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Route,
    Query,
    Submit,
}

/// The data of one instance.
pub struct Guest {
    place: Place,
    limits: Limits,
    deadline: Instant,
    peer: Box<dyn Peer>,
    /// What the peer has said about keys; asked once each.
    known: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    policies: BTreeMap<Vec<u8>, String>,
    events: Vec<Event>,
    output_bytes: usize,
    output_calls: usize,
    questions: u32,
    memory_bytes: usize,
    table_elements: usize,
    /// Why the host ended the call.
    stop: Option<Failure>,
}

impl Guest {
    pub fn new(place: Place, limits: Limits, deadline: Instant, peer: Box<dyn Peer>) -> Self {
        Self {
            place,
            limits,
            deadline,
            peer,
            known: BTreeMap::new(),
            writes: BTreeMap::new(),
            policies: BTreeMap::new(),
            events: Vec::new(),
            output_bytes: 0,
            output_calls: 0,
            questions: 0,
            memory_bytes: 0,
            table_elements: 0,
            stop: None,
        }
    }

    /// The entries that came with the call.
    pub fn bring(&mut self, entries: Vec<rpc::Entry>) {
        self.known.extend(
            entries
                .into_iter()
                .map(|entry| (entry.key, entry.present.then_some(entry.value))),
        );
    }

    pub fn take_stop(&mut self) -> Option<Failure> {
        self.stop.take()
    }

    pub fn into_peer(self) -> Box<dyn Peer> {
        self.peer
    }

    pub fn done(&mut self, response: Vec<u8>) -> rpc::Done {
        let writes = std::mem::take(&mut self.writes).into_iter().map(|(key, value)| Write {
            key,
            delete: value.is_none(),
            value: value.unwrap_or_default(),
        });
        let policies = std::mem::take(&mut self.policies)
            .into_iter()
            .map(|(key, policy)| KeyPolicy { key, policy });
        rpc::Done {
            response,
            writes: writes.collect(),
            policies: policies.collect(),
            events: std::mem::take(&mut self.events),
            fuel: 0,
        }
    }

    /// Ends the call; the guest sees a trap.
    fn stop<T>(&mut self, failure: Failure) -> wasmtime::Result<T> {
        self.stop = Some(failure);
        Err(wasmtime::Error::msg("ended by the host"))
    }

    fn must<T>(&mut self, checked: Result<T, Failure>) -> wasmtime::Result<T> {
        match checked {
            Ok(value) => Ok(value),
            Err(failure) => self.stop(failure),
        }
    }

    fn may_read(&mut self) -> wasmtime::Result<()> {
        match self.place {
            Place::Route => self.stop(Failure::forbidden("a route may not ask the ledger")),
            Place::Query | Place::Submit => Ok(()),
        }
    }

    fn may_query(&mut self) -> wasmtime::Result<()> {
        match self.place {
            Place::Query => Ok(()),
            Place::Route => self.stop(Failure::forbidden("a route may not ask the ledger")),
            Place::Submit => self.stop(Failure::forbidden("only a query may ask for history or a list")),
        }
    }

    /// Counts what a call puts out before it is kept.
    fn may_put_out(&mut self, bytes: usize) -> wasmtime::Result<()> {
        if self.place != Place::Submit {
            return self.stop(Failure::forbidden("a query or a route may not change the ledger"));
        }
        self.output_calls += 1;
        self.output_bytes = self.output_bytes.saturating_add(bytes);
        if self.output_bytes > OUTPUT_BYTES_MAX {
            return self.stop(Failure::too_large(
                "writes, policies and events are larger than a transaction may be",
            ));
        }
        if self.output_calls > OUTPUT_CALLS_MAX {
            return self.stop(Failure::too_large("more changes than a transaction may have"));
        }
        Ok(())
    }

    fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> wasmtime::Result<()> {
        self.may_put_out(key.len() + value.as_ref().map_or(0, Vec::len))?;
        self.must(check_key(&key))?;
        if value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
            return self.stop(Failure::too_large("a value is larger than one may be"));
        }
        self.writes.insert(key, value);
        if self.writes.len() > WRITES_MAX {
            return self.stop(Failure::too_large("more writes than a transaction may have"));
        }
        Ok(())
    }

    fn ask(&mut self, kind: &'static str, question: Question) -> wasmtime::Result<rpc::Answer> {
        self.questions += 1;
        if self.questions > self.limits.questions_max {
            return self.stop(Failure::new(Code::QuestionsExceeded, "the call asked more than it may"));
        }
        metrics::QUESTIONS.with_label_values(&[kind]).inc();
        let answer = self.peer.ask(question, self.deadline);
        let answer = self.must(answer.and_then(checked_answer))?;
        if Instant::now() >= self.deadline {
            return self.stop(Failure::timed_out());
        }
        Ok(answer)
    }
}

/// The rule for suffixes.
pub fn check_key(key: &[u8]) -> Result<(), Failure> {
    match key.len() {
        0 => Err(Failure::forbidden("a key may not be empty")),
        1..=KEY_SUFFIX_BYTES_MAX => Ok(()),
        _ => Err(Failure::too_large("a key is longer than one may be")),
    }
}

fn checked_answer(answer: rpc::Answer) -> Result<rpc::Answer, Failure> {
    if let Some(problem) = answer.problem {
        // The peer's own words about the question, like a cursor that is none; they hold no values.
        return Err(match problem.code.as_str() {
            "invalid_argument" => Failure {
                code: Code::Rejected,
                detail: problem.detail.into(),
                field: problem.field,
            },
            _ => Failure::new(Code::Unanswered, "the peer cannot answer"),
        });
    }
    let entries: usize = answer
        .entries
        .iter()
        .map(|entry| entry.key.len() + entry.value.len())
        .sum();
    let changes: usize = answer.changes.iter().map(|change| change.value.len() + 128).sum();
    if entries + changes > ANSWER_BYTES_MAX {
        return Err(Failure::new(
            Code::MemoryExceeded,
            "an answer is larger than one may be: ask for smaller pages",
        ));
    }
    Ok(answer)
}

impl bindings::medledger::contract::types::Host for Guest {}

impl Host for Guest {
    fn get(&mut self, key: Vec<u8>) -> wasmtime::Result<Option<Vec<u8>>> {
        self.may_read()?;
        if let Some(value) = self.known.get(&key) {
            return Ok(value.clone());
        }
        self.must(check_key(&key))?;
        let answer = self.ask(
            "keys",
            Question::Keys(KeysWanted {
                keys: vec![key.clone()],
            }),
        )?;
        let entry = answer.entries.into_iter().find(|entry| entry.key == key);
        let Some(entry) = entry else {
            return self.stop(Failure::new(Code::Unanswered, "the peer answered another question"));
        };
        let value = entry.present.then_some(entry.value);
        self.known.insert(key, value.clone());
        Ok(value)
    }

    fn get_range(&mut self, start: Vec<u8>, end: Vec<u8>, limit: u32) -> wasmtime::Result<Page> {
        self.may_read()?;
        if start.len() > KEY_SUFFIX_BYTES_MAX || end.len() > KEY_SUFFIX_BYTES_MAX {
            return self.stop(Failure::too_large("a key is longer than one may be"));
        }
        let wanted = RangeWanted {
            start,
            end,
            limit: limit.clamp(1, PAGE_ROWS_MAX),
        };
        let answer = self.ask("range", Question::Range(wanted))?;
        let entries = answer.entries.into_iter().map(|entry| Entry {
            key: entry.key,
            value: entry.value,
        });
        Ok(Page {
            entries: entries.collect(),
            more: answer.more,
        })
    }

    fn history(&mut self, key: Vec<u8>, skip: u32, limit: u32) -> wasmtime::Result<Changes> {
        self.may_query()?;
        self.must(check_key(&key))?;
        let wanted = HistoryWanted {
            key,
            skip,
            limit: limit.clamp(1, PAGE_ROWS_MAX),
        };
        let answer = self.ask("history", Question::History(wanted))?;
        Ok(Changes {
            changes: answer.changes.into_iter().map(change).collect(),
            more: answer.more,
        })
    }

    fn list(&mut self, suffix: Vec<u8>, after: Option<Vec<u8>>, limit: u32) -> wasmtime::Result<Listing> {
        self.may_query()?;
        self.must(check_key(&suffix))?;
        let wanted = ListWanted {
            suffix,
            after: after.unwrap_or_default(),
            limit: limit.clamp(1, PAGE_ROWS_MAX),
        };
        let answer = self.ask("list", Question::List(wanted))?;
        let values = answer.entries.into_iter().map(|entry| entry.value).collect();
        Ok(Listing {
            values,
            next: (answer.more && !answer.next.is_empty()).then_some(answer.next),
        })
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> wasmtime::Result<()> {
        self.write(key, Some(value))
    }

    fn delete(&mut self, key: Vec<u8>) -> wasmtime::Result<()> {
        self.write(key, None)
    }

    fn set_policy(&mut self, key: Vec<u8>, policy: String) -> wasmtime::Result<()> {
        self.may_put_out(key.len() + policy.len())?;
        self.must(check_key(&key))?;
        if policy.len() > POLICY_BYTES_MAX {
            return self.stop(Failure::too_large("a policy is longer than one may be"));
        }
        self.policies.insert(key, policy);
        if self.policies.len() > WRITES_MAX {
            return self.stop(Failure::too_large("more policies than a transaction may have"));
        }
        Ok(())
    }

    fn emit(&mut self, kind: String, payload: Vec<u8>) -> wasmtime::Result<()> {
        self.may_put_out(kind.len() + payload.len())?;
        if kind.len() > EVENT_TYPE_BYTES_MAX || payload.len() > EVENT_PAYLOAD_BYTES_MAX {
            return self.stop(Failure::too_large("an event is larger than one may be"));
        }
        self.events.push(Event { r#type: kind, payload });
        if self.events.len() > EVENTS_MAX {
            return self.stop(Failure::too_large("more events than a transaction may have"));
        }
        Ok(())
    }
}

fn change(change: rpc::Change) -> Change {
    Change {
        tx_id: change.tx_id,
        partition: change.partition,
        height: change.height,
        index: change.index,
        client_time_ms: change.client_time_ms,
        organisation: change.organisation,
        common_name: change.common_name,
        role: change.role,
        asserted: change.asserted,
        function: change.function,
        value: (!change.delete).then_some(change.value),
    }
}

/// Growth past a limit ends the call: a contract that saw it fail could answer differently on another machine.
impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.memory_bytes += desired.saturating_sub(current);
        if self.memory_bytes > self.limits.memory_bytes_max {
            return self.stop(Failure::new(
                Code::MemoryExceeded,
                "the call wanted more memory than it may have",
            ));
        }
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.stop(Failure::new(
            Code::MemoryExceeded,
            "the call wanted more memory than there is",
        ))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.table_elements += desired.saturating_sub(current);
        if self.table_elements > self.limits.table_elements_max {
            return self.stop(Failure::new(
                Code::MemoryExceeded,
                "the call wanted larger tables than it may have",
            ));
        }
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.stop(Failure::new(
            Code::MemoryExceeded,
            "the call wanted larger tables than there are",
        ))
    }
}
