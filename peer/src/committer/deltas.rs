//! A block's changes of the state digest, added up beside the judging of the block that makes them.
//!
//! ```text
//! judging:   tx tx tx tx tx tx tx tx tx │ header
//!               ╰ chunk ╮  ╰ chunk ╮    │ ▲
//! threads:              sum        sum ─┴─╯
//! ```
//! A sum has no order, so chunks are added up as they come, and the header waits for the last of them.

use std::sync::LazyLock;

use parking_lot::Mutex;
use protocol::{
    lattice::{Kind, Lattice},
    ledger::Version,
};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::state::Entry;

/// One entry that comes into the state digest or leaves it.
#[derive(Clone, Debug)]
pub struct Delta {
    pub add: bool,
    pub kind: Kind,
    pub key: Vec<u8>,
    pub entry: Entry,
}

/// Entries that go to another thread together: of about 3 µs each, enough to be worth waking one.
const CHUNK: usize = 32;

/// Threads of its own: in the common pool it would wait behind the next blocks' stage 1.
static POOL: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    ThreadPoolBuilder::new()
        .thread_name(|i| format!("lattice-{i}"))
        .build()
        .ok()
});

/// Takes deltas while `work` goes on, and gives what it gave with the sum of them. `expected` is about how
/// many will come: a few are added up here, waking a thread for them costs more.
pub fn beside<T>(expected: usize, work: impl FnOnce(&mut dyn FnMut(Delta)) -> T) -> (T, Lattice) {
    let total = Mutex::new(Lattice::new());
    let add = |deltas: &[Delta]| {
        let sum = sum(deltas);
        total.lock().merge(&sum);
    };
    let mut waiting = Vec::new();
    let done = match POOL.as_ref().filter(|_| expected >= 2 * CHUNK) {
        Some(pool) => pool.in_place_scope(|scope| {
            let done = work(&mut |delta| {
                waiting.push(delta);
                if waiting.len() == CHUNK {
                    let chunk = std::mem::replace(&mut waiting, Vec::with_capacity(CHUNK));
                    let add = &add;
                    scope.spawn(move |_| add(&chunk));
                }
            });
            // The last ones here, while the others end.
            add(&waiting);
            done
        }),
        None => {
            let done = work(&mut |delta| waiting.push(delta));
            add(&waiting);
            done
        }
    };
    (done, total.into_inner())
}

fn sum(deltas: &[Delta]) -> Lattice {
    let mut lattice = Lattice::new();
    for Delta { add, kind, key, entry } in deltas {
        let version = Version::from(entry.version);
        if *add {
            lattice.add(*kind, key, &version, &entry.hash);
        } else {
            lattice.remove(*kind, key, &version, &entry.hash);
        }
    }
    lattice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_chunks_it_is_the_same_sum() {
        for count in [0, 1, CHUNK as u32 - 1, CHUNK as u32, 10 * CHUNK as u32 + 3] {
            let deltas = (0..count).map(|i| Delta {
                add: i % 3 > 0,
                kind: Kind::State,
                key: i.to_be_bytes().to_vec(),
                entry: Entry::new(Default::default(), &[i as u8]),
            });
            let deltas: Vec<Delta> = deltas.collect();
            let (done, total) = beside(count as usize, |take| {
                deltas.iter().cloned().for_each(take);
                "done"
            });
            assert_eq!((done, total), ("done", sum(&deltas)), "{count}");
        }
    }
}
