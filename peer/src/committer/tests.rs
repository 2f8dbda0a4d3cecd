//! `validate` by itself: every code, their order, reads against a naive model, determinism.

mod codes;
mod marker;
mod model;
mod policies;
mod ranges;
mod replay;
