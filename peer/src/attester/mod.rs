//! Attestations: this organisation's word on headers, and everybody's.
//!
//! ```text
//! tips ──▶ sign ── guard (fdatasync) ── signature ──▶ attest topic ──▶ follow ──▶ attestations
//!                                                     other peers ────────────────▶
//! ```
//! Every peer follows; the one that holds the config's attester key and its guard signs.

pub mod attestations;
pub mod follow;
pub mod guard;
pub mod sign;
