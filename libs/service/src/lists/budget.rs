//! Bytes that all streams of a process may have accepted together, so that many streams cannot hold more
//! than one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes to share. Clones share the same.
#[derive(Clone, Debug)]
pub struct Budget {
    free: Arc<AtomicUsize>,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            free: Arc::new(AtomicUsize::new(bytes_max)),
        }
    }

    /// Streams are bounded one by one only.
    pub fn unbounded() -> Self {
        Self::new(usize::MAX)
    }

    pub(super) fn take(&self, bytes: usize) -> Option<Share> {
        let taken = self
            .free
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(bytes));
        taken.ok().map(|_| Share {
            budget: self.clone(),
            bytes,
        })
    }
}

/// Bytes taken, given back when it is dropped.
pub(super) struct Share {
    budget: Budget,
    bytes: usize,
}

impl Share {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.free.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Budget::new(10);
        let share = budget.take(8).expect("free");
        assert!(budget.clone().take(3).is_none());
        drop(share);
        assert!(budget.take(10).is_some());
    }
}
