//! A block's changes of the state digest, added up.

use std::sync::LazyLock;

use protocol::{
    lattice::{Kind, Lattice},
    ledger::Version,
};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

use crate::state::Entry;

/// One entry that comes into the state digest or leaves it.
#[derive(Clone, Debug)]
pub struct Delta {
    pub add: bool,
    pub kind: Kind,
    pub key: Vec<u8>,
    pub entry: Entry,
}

/// About 3 µs each, so blocks of some size are split over the cores. Sums have no order.
const CHUNK: usize = 64;

/// Threads of its own: in the common pool it would wait behind the next blocks' stage 1.
static POOL: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    ThreadPoolBuilder::new()
        .thread_name(|i| format!("lattice-{i}"))
        .build()
        .ok()
});

pub fn apply(lattice: &mut Lattice, deltas: &[Delta]) {
    match &*POOL {
        Some(pool) if deltas.len() > CHUNK => lattice.merge(&pool.install(|| sum_parallel(deltas))),
        _ => sum(lattice, deltas),
    }
}

fn sum_parallel(deltas: &[Delta]) -> Lattice {
    let sums = deltas.par_chunks(CHUNK).map(|deltas| {
        let mut lattice = Lattice::new();
        sum(&mut lattice, deltas);
        lattice
    });
    sums.reduce(Lattice::new, |mut one, other| {
        one.merge(&other);
        one
    })
}

fn sum(lattice: &mut Lattice, deltas: &[Delta]) {
    for Delta { add, kind, key, entry } in deltas {
        let version = Version::from(entry.version);
        if *add {
            lattice.add(*kind, key, &version, &entry.hash);
        } else {
            lattice.remove(*kind, key, &version, &entry.hash);
        }
    }
}
