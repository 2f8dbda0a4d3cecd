//! What the scenarios in `tests/tests` are made of: a seeded simulation of log, orderers and peers,
//! and whole networks of real processes over real Kafka.

pub mod metrics;
pub mod network;
pub mod simulation;
