//! What a ministry is told: counts of closed periods, folded from the events of the ledger, after suppression.
//!
//! | file | what | |
//! |---|---|---|
//! | `event` | the contract's events, read strictly | pure |
//! | `fold`, `tally` | from the log to closed periods | pure |
//! | `suppress` | which counts of a family may be told | pure |
//! | `report`, `csv` | what is published of a period | pure |
//! | `follow` | reads committed blocks, keeps the newest reports | |
//! | `kept` | under which rules was published until when | |
//! | `metrics` | the last period for Prometheus | |
//!
//! Why nobody can be found in it: `docs/reporting.md`.

pub mod codes;
pub mod config;
pub mod csv;
pub mod event;
pub mod fold;
mod follow;
mod kept;
pub mod metrics;
pub mod report;
pub mod suppress;
pub mod tally;
#[cfg(test)]
mod tests;

pub use config::ReportingConfig;
pub use follow::{Reports, start};
