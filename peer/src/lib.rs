//! A peer: one organisation's copy of the ledger, and its people's way to it.
//!
//! ```text
//!            gateway ── endorser ── workers          people and other peers
//!               │           │
//!               └── ledger ─┘   tips, snapshots, judgements
//!                     ▲
//!   Kafka ──▶ committer ──▶ state (RocksDB)
//!   Kafka ◀─▶ attester          (guard)
//! ```
//! The committer's half needs nothing but the log and the genesis; everything it keeps can be
//! deleted and is computed again. What cannot: the attester's guard, keys, the channel secret.

pub mod attester;
pub mod committer;
pub mod config;
pub mod endorser;
pub mod gateway;
pub mod ledger;
pub mod metrics;
pub mod peers;
pub mod query;
pub mod reporting;
pub mod run;
pub mod state;
mod verify;
pub mod workers;

pub use verify::{Progress, VerifiedChain, VerifyError, verify};
