//! A ledger in memory for a contract's own tests: no WASM, no peer, the rules of the world.
//!
//! It keeps what a contract can notice: reads see the snapshot and not the call's own writes, a query
//! cannot write, `history` and `list` are for queries, a rejected call changes nothing. A read of a
//! key that `route` did not name works (the peer would be asked) and is counted in [`Ledger::misses`].

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Attribute, Call, Change, Changes, Ctx, Function, Host, Listing, Page, Person, Rejection, Routed};

type State = BTreeMap<(String, Vec<u8>), Vec<u8>>;

pub struct Ledger {
    functions: &'static [Function],
    state: State,
    history: BTreeMap<(String, Vec<u8>), Vec<Change>>,
    height: u64,
    /// The client's clock; moves by a second per submitted call.
    pub time_ms: u64,
    /// Reads so far that `route` had not announced.
    pub misses: usize,
    /// (kind, payload) of all events so far.
    pub events: Vec<(String, Vec<u8>)>,
}

/// A client of an organisation, with attributes of its certificate.
pub fn person(organisation: &str, common_name: &str, attributes: &[(&str, &str)]) -> Person {
    let mut attributes: Vec<_> = attributes
        .iter()
        .map(|(name, value)| Attribute {
            name: name.to_string(),
            value: value.to_string(),
        })
        .collect();
    attributes.sort_by(|a, b| a.name.cmp(&b.name));
    Person {
        organisation: organisation.into(),
        common_name: common_name.into(),
        role: "client".into(),
        attributes,
        asserted: false,
    }
}

impl Ledger {
    pub fn new(functions: &'static [Function]) -> Self {
        Self {
            functions,
            state: State::new(),
            history: BTreeMap::new(),
            height: 0,
            time_ms: 1_700_000_000_000,
            misses: 0,
            events: Vec::new(),
        }
    }

    /// Runs and commits.
    pub fn submit(&mut self, person: &Person, function: &str, arguments: Value) -> Result<Value, Rejection> {
        let (routed, response, writes, events) = self.run(person, function, &arguments)?;
        assert!(!routed.query, "{function} is a query: it is evaluated, not submitted");
        self.height += 1;
        self.time_ms += 1000;
        let tx_id = self.tx_id();
        for (index, (key, value)) in writes.into_iter().enumerate() {
            let at = (routed.subject.clone(), key);
            self.history.entry(at.clone()).or_default().push(Change {
                tx_id: tx_id.clone(),
                partition: 0,
                height: self.height,
                index: index as u32,
                client_time_ms: self.time_ms - 1000,
                person: Person {
                    attributes: Vec::new(),
                    ..person.clone()
                },
                function: function.into(),
                value: value.clone(),
            });
            match value {
                Some(value) => self.state.insert(at, value),
                None => self.state.remove(&at),
            };
        }
        self.events.extend(events);
        Ok(response)
    }

    /// Runs and changes nothing.
    pub fn query(&mut self, person: &Person, function: &str, arguments: Value) -> Result<Value, Rejection> {
        let (routed, response, writes, _) = self.run(person, function, &arguments)?;
        assert!(routed.query && writes.is_empty(), "{function} is not a query");
        Ok(response)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.state.len()
    }

    pub fn is_empty(&self) -> bool {
        self.state.is_empty()
    }

    fn tx_id(&self) -> Vec<u8> {
        let mut tx_id = vec![0; 32];
        tx_id[..8].copy_from_slice(&self.height.to_be_bytes());
        tx_id
    }

    #[allow(clippy::type_complexity)]
    fn run(
        &mut self,
        person: &Person,
        function: &str,
        arguments: &Value,
    ) -> Result<
        (
            Routed,
            Value,
            BTreeMap<Vec<u8>, Option<Vec<u8>>>,
            Vec<(String, Vec<u8>)>,
        ),
        Rejection,
    > {
        let arguments = arguments.to_string();
        let routed = crate::route(self.functions, function, arguments.as_bytes())?;
        let mut tx_id = self.tx_id();
        tx_id[31] = 1;
        let call = Call {
            tx_id,
            query: routed.query,
            client_time_ms: self.time_ms,
            person: person.clone(),
        };
        let mut run = Run {
            ledger: self,
            routed: &routed,
            writes: BTreeMap::new(),
            events: Vec::new(),
            misses: 0,
        };
        let response = crate::invoke(
            run.ledger.functions,
            &mut Ctx::new(&call, &mut run),
            function,
            arguments.as_bytes(),
        );
        let (writes, events, misses) = (run.writes, run.events, run.misses);
        self.misses += misses;
        let response = serde_json::from_slice(&response?).expect("a response is JSON");
        Ok((routed, response, writes, events))
    }
}

/// One call's view.
struct Run<'l> {
    ledger: &'l Ledger,
    routed: &'l Routed,
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    events: Vec<(String, Vec<u8>)>,
    misses: usize,
}

impl Run<'_> {
    fn at(&self, key: &[u8]) -> (String, Vec<u8>) {
        (self.routed.subject.clone(), key.to_vec())
    }

    fn may_write(&self) {
        assert!(!self.routed.query, "a query may not write");
    }

    fn must_query(&self) {
        assert!(self.routed.query, "only a query may ask for history or a list");
    }
}

impl Host for Run<'_> {
    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        if !self.routed.keys.iter().any(|named| named == key) {
            self.misses += 1;
        }
        self.ledger.state.get(&self.at(key)).cloned()
    }

    fn get_range(&mut self, start: &[u8], end: &[u8], limit: u32) -> Page {
        let mut entries: Vec<_> = self
            .ledger
            .state
            .iter()
            .filter(|((subject, key), _)| {
                *subject == self.routed.subject && key.as_slice() >= start && (end.is_empty() || key.as_slice() < end)
            })
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        Page { entries, more }
    }

    fn history(&mut self, key: &[u8], skip: u32, limit: u32) -> Changes {
        self.must_query();
        let all = self
            .ledger
            .history
            .get(&self.at(key))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let changes: Vec<_> = all.iter().skip(skip as usize).take(limit as usize).cloned().collect();
        Changes {
            more: skip as usize + changes.len() < all.len(),
            changes,
        }
    }

    fn list(&mut self, suffix: &[u8], after: Option<&[u8]>, limit: u32) -> Listing {
        self.must_query();
        let mut found: Vec<_> = self
            .ledger
            .state
            .iter()
            .filter(|((subject, key), _)| key == suffix && after.is_none_or(|after| subject.as_bytes() > after))
            .collect();
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        Listing {
            next: found
                .last()
                .filter(|_| more)
                .map(|((subject, _), _)| subject.as_bytes().to_vec()),
            values: found.into_iter().map(|(_, value)| value.clone()).collect(),
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.may_write();
        self.writes.insert(key.to_vec(), Some(value.to_vec()));
    }

    fn delete(&mut self, key: &[u8]) {
        self.may_write();
        self.writes.insert(key.to_vec(), None);
    }

    fn set_policy(&mut self, _key: &[u8], _policy: &str) {
        self.may_write();
    }

    fn emit(&mut self, kind: &str, payload: &[u8]) {
        self.may_write();
        self.events.push((kind.into(), payload.to_vec()));
    }
}
