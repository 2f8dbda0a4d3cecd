//! Routes that a worker gave a moment ago. A client's proposal is prepared and then endorsed by the same peer, and is
//! tried again after a refusal: the route of the same call is asked for once.
//!
//! Of every function it is also known whether it only read the last time, so that what is going to be refused need not
//! be routed first.

use protocol::Digest;
use protocol::hash::Hasher;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use service::rpc::Routed;

const ROUTES_MAX: usize = 8_192;
const ROUTES_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// As many as contracts have functions, and some more.
const FUNCTIONS_MAX: usize = 1_024;

pub(super) struct Routes {
    by_call: Cache<Digest, Routed, Bytes>,
    only_reads: Cache<Digest, bool>,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Digest, Routed> for Bytes {
    fn weight(&self, _: &Digest, routed: &Routed) -> u64 {
        let keys = routed.keys.iter().map(|key| size_of_val(key) + key.len());
        (size_of::<Digest>() + size_of::<Routed>() + routed.subject.len() + keys.sum::<usize>()) as u64
    }
}

impl Routes {
    pub(super) fn new() -> Self {
        Self {
            by_call: Cache::with_weighter(ROUTES_MAX, ROUTES_BYTES_MAX, Bytes),
            only_reads: Cache::new(FUNCTIONS_MAX),
        }
    }

    pub(super) fn get(&self, call: &Digest) -> Option<Routed> {
        self.by_call.get(call)
    }

    /// `None`: nobody has called it yet.
    pub(super) fn only_reads(&self, function: &Digest) -> Option<bool> {
        self.only_reads.get(function)
    }

    pub(super) fn put(&self, call: Digest, function: Digest, routed: Routed) {
        self.only_reads.insert(function, routed.query);
        self.by_call.insert(call, routed);
    }
}

pub(super) fn function(digest: &Digest, function: &str) -> Digest {
    let hasher = Hasher::new("medledger function").fixed(digest);
    hasher.bytes(function.as_bytes()).finish()
}

/// In 32 bytes: arguments are a patient's.
pub(super) fn call(digest: &Digest, function: &str, arguments: &[u8]) -> Digest {
    Hasher::new("medledger call")
        .fixed(digest)
        .bytes(function.as_bytes())
        .bytes(arguments)
        .finish()
}
