//! What the scenarios in `tests/tests` are made of: a seeded simulation of log, orderers and peers,
//! whole networks of real processes over real Kafka, and what dashboards and metrics are checked with.

pub mod boards;
pub mod metrics;
pub mod network;
pub mod simulation;
