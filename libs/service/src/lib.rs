//! How one of Medledger's processes lives: its settings, identity, connections, tasks, health and end.
//!
//! Everything here is the same for orderer, peer, worker and command line, and knows nothing of what
//! they do. A `main` reads: [`settings`] → [`telemetry`] → [`tasks`] → [`identity`], [`tls`] →
//! build → [`serve`] → `tasks.wait`.
//!
//! ```text
//!   client side                                     server side
//!   mux::Mux ──┐                                 ┌── lists::serve     (replies to lists)
//!   duplex ────┴─ tls::Trust::channel ══ mTLS ══ serve ─┴── axum routes (REST)
//! ```

pub mod calls;
pub mod duplex;
pub mod health;
pub mod identity;
mod link;
pub mod lists;
pub mod metrics;
pub mod mux;
pub mod problem;
pub mod quota;
pub mod renewal;
pub mod resolve;
pub mod rpc;
pub mod serve;
pub mod settings;
pub mod signer;
pub mod tasks;
pub mod telemetry;
pub mod time;
pub mod tls;
pub mod under_way;

pub use identity::{Caller, Identity, Role};
pub use problem::{Code, Problem};
pub use tasks::{OnFailure, Tasks};
