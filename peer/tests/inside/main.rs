//! The inside of a peer, from the log to the ledger that others see, over a log in memory.

mod attestations;
mod commits;
mod guard;
mod kill;
mod stops;
mod volume;
mod world;
