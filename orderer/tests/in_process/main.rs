//! Orderers in this process over a log in memory: what they promise to senders, seen from the log.
//!
//! The clock is paused and nothing runs beside: seconds pass in no time, and every run is the same.

mod answers;
mod life;
mod support;
