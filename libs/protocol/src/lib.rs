//! What all parts of Medledger speak: messages, hashes, signatures, identities, policies, limits.
//!
//! No I/O, no async, no clock. Whatever two implementers could do differently is decided here
//! and pinned by golden bytes (`tests/golden.rs`); `docs/formats.md` explains it to others.

pub mod block;
pub mod canonical;
pub mod code;
pub mod control;
pub mod genesis;
pub mod hash;
pub mod header;
pub mod identity;
pub mod keys;
pub mod lattice;
pub mod limits;
pub mod merkle;
pub mod policy;
pub mod signature;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transaction;

/// The messages of `proto/ledger.proto`.
#[allow(clippy::all)]
pub mod ledger {
    include!(concat!(env!("OUT_DIR"), "/medledger.ledger.v1.rs"));
}

pub use hash::{Digest, sha256};

/// The control chain's place among the partitions.
pub const CONTROL: u32 = u32::MAX;
