//! What a function of a contract is given: who calls, and the ledger.

use serde::{Serialize, de::DeserializeOwned};

/// Who acts. Checked by the peer, except what `asserted` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// MSP id.
    pub organisation: String,
    pub common_name: String,
    /// `admin`, `peer`, `orderer` or `client`.
    pub role: String,
    pub attributes: Vec<Attribute>,
    /// A gateway says so; the person did not sign.
    pub asserted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    pub name: String,
    pub value: String,
}

impl Person {
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|attribute| attribute.name == name)
            .map(|attribute| attribute.value.as_str())
    }
}

/// The call itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    pub tx_id: Vec<u8>,
    pub query: bool,
    /// The client's clock, Unix milliseconds.
    pub client_time_ms: u64,
    pub person: Person,
}

/// `more`: the range goes on after the last entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    pub more: bool,
}

/// `next`: where the list goes on; none at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub values: Vec<Vec<u8>>,
    pub next: Option<Vec<u8>>,
}

/// One change of a key; `value` is none where it was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub tx_id: Vec<u8>,
    pub partition: u32,
    pub height: u64,
    pub index: u32,
    pub client_time_ms: u64,
    pub person: Person,
    pub function: String,
    pub value: Option<Vec<u8>>,
}

/// Oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub changes: Vec<Change>,
    pub more: bool,
}

/// The ledger as the world shows it. Two implementations: the worker's, and [`crate::testing`]'s.
pub trait Host {
    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>>;
    fn get_range(&mut self, start: &[u8], end: &[u8], limit: u32) -> Page;
    fn history(&mut self, key: &[u8], skip: u32, limit: u32) -> Changes;
    fn list(&mut self, suffix: &[u8], after: Option<&[u8]>, limit: u32) -> Listing;
    fn put(&mut self, key: &[u8], value: &[u8]);
    fn delete(&mut self, key: &[u8]);
    fn set_policy(&mut self, key: &[u8], policy: &str);
    fn emit(&mut self, kind: &str, payload: &[u8]);
}

/// The first parameter of every function.
pub struct Ctx<'a> {
    call: &'a Call,
    host: &'a mut dyn Host,
}

impl<'a> Ctx<'a> {
    pub fn new(call: &'a Call, host: &'a mut dyn Host) -> Self {
        Self { call, host }
    }

    /// Who acts.
    pub fn person(&self) -> &'a Person {
        &self.call.person
    }

    /// When, by the client's clock; Unix milliseconds.
    pub fn time_ms(&self) -> u64 {
        self.call.client_time_ms
    }

    pub fn tx_id(&self) -> &'a [u8] {
        &self.call.tx_id
    }

    /// The value at the snapshot, not what this call wrote. A value that is not a `T` traps: the contract wrote it.
    pub fn get<T: DeserializeOwned>(&mut self, key: impl AsRef<[u8]>) -> Option<T> {
        self.get_bytes(key)
            .map(|bytes| serde_json::from_slice(&bytes).expect("a value is of the type that was put"))
    }

    pub fn get_bytes(&mut self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        self.host.get(key.as_ref())
    }

    /// Keys of [start, end) of this subject; an empty end means to the last.
    pub fn range(&mut self, start: impl AsRef<[u8]>, end: impl AsRef<[u8]>, limit: u32) -> Page {
        self.host.get_range(start.as_ref(), end.as_ref(), limit)
    }

    /// Queries only.
    pub fn history(&mut self, key: impl AsRef<[u8]>, skip: u32, limit: u32) -> Changes {
        self.host.history(key.as_ref(), skip, limit)
    }

    /// Queries only: one suffix of every subject.
    pub fn list(&mut self, suffix: impl AsRef<[u8]>, after: Option<&[u8]>, limit: u32) -> Listing {
        self.host.list(suffix.as_ref(), after, limit)
    }

    pub fn put<T: Serialize>(&mut self, key: impl AsRef<[u8]>, value: &T) {
        let value = serde_json::to_vec(value).expect("a value is JSON");
        self.host.put(key.as_ref(), &value);
    }

    pub fn put_bytes(&mut self, key: impl AsRef<[u8]>, value: &[u8]) {
        self.host.put(key.as_ref(), value);
    }

    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.host.delete(key.as_ref());
    }

    pub fn set_policy(&mut self, key: impl AsRef<[u8]>, policy: &str) {
        self.host.set_policy(key.as_ref(), policy);
    }

    /// Ordered in plain text: no patient data.
    pub fn emit<T: Serialize>(&mut self, kind: &str, payload: &T) {
        let payload = serde_json::to_vec(payload).expect("an event is JSON");
        self.host.emit(kind, &payload);
    }

    /// The host itself, for what has no typed form here.
    pub fn host(&mut self) -> &mut dyn Host {
        self.host
    }
}
