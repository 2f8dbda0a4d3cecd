//! Runs contracts: a stateless process that peers of its organisation send calls to.
//!
//! ```text
//! peer ══ mTLS ══ serve ─→ modules (compiled once per digest) ─→ pool ─→ engine ─→ fresh instance
//!                   ▲                                              │        │ a miss
//!                   └──────────── question, answer ────────────────┴────────┘
//! ```
//! Promises: a call is a function of its arguments, its context and what the peer answers; nothing of one call
//! is seen by another. Whatever a guest does, it ends in its own error within its limits, and other calls go on.
//! The worker holds no state and no ledger keys, and reaches neither Kafka nor a database. Only this crate says
//! `wasmtime::`.

mod config;
pub mod engine;
mod failure;
mod guest;
pub mod limits;
pub mod metrics;
mod modules;
mod package;
mod pool;
mod serve;
mod ticker;

pub use config::Config;
pub use engine::{Call, Engine, Outcome};
pub use failure::{Code, Failure};
pub use guest::Peer;
pub use limits::Limits;
pub use modules::{Modules, State};
pub use package::{PackageError, package};
pub use pool::{Job, Pool};
pub use serve::{Handle, start};
