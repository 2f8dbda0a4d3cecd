//! Bytes that a process holds for its callers: items under way and replies that nobody has read yet. Counted for each
//! account and for all together, so that neither many streams nor one caller who does not read can fill the memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;
use protocol::Digest;
use protocol::limits::{HELD_BYTES_MAX, HELD_BYTES_PER_ACCOUNT_MAX};

static OF_PROCESS: LazyLock<Budget> = LazyLock::new(|| Budget::new(HELD_BYTES_MAX, HELD_BYTES_PER_ACCOUNT_MAX));

/// Bytes to share. Clones share the same.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all: Bytes,
    account_max: usize,
    /// Of those who have a stream open.
    accounts: Mutex<HashMap<Digest, Weak<Account>>>,
}

/// One caller's part.
#[derive(Debug)]
pub(super) struct Account {
    id: Digest,
    held: Bytes,
    budget: Budget,
}

impl Budget {
    pub fn new(all_max: usize, account_max: usize) -> Self {
        Self(Arc::new(Shared {
            all: Bytes::new(all_max),
            account_max,
            accounts: Mutex::default(),
        }))
    }

    /// The one of this process.
    pub fn of_process() -> Self {
        OF_PROCESS.clone()
    }

    pub(super) fn account(&self, id: Digest) -> Arc<Account> {
        let mut accounts = self.0.accounts.lock();
        if let Some(account) = accounts.get(&id).and_then(Weak::upgrade) {
            return account;
        }
        let account = Arc::new(Account {
            id,
            held: Bytes::new(self.0.account_max),
            budget: self.clone(),
        });
        accounts.insert(id, Arc::downgrade(&account));
        account
    }
}

impl Account {
    fn hold(&self, bytes: usize) -> bool {
        if !self.held.take(bytes) {
            return false;
        }
        let held = self.budget.0.all.take(bytes);
        if !held {
            self.held.give_back(bytes);
        }
        held
    }

    fn release(&self, bytes: usize) {
        self.held.give_back(bytes);
        self.budget.0.all.give_back(bytes);
    }

    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        self.hold(bytes).then(|| Share {
            account: self.clone(),
            bytes,
        })
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut accounts = self.budget.0.accounts.lock();
        // Another may have come in its place already.
        if accounts
            .get(&self.id)
            .is_some_and(|account| account.strong_count() == 0)
        {
            accounts.remove(&self.id);
        }
    }
}

/// Bytes held, given back when it is dropped.
pub(super) struct Share {
    account: Arc<Account>,
    bytes: usize,
}

impl Share {
    /// Holds so many from now on; `false`, and nothing has changed: there is no room.
    pub(super) fn resize(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes && !self.account.hold(bytes - self.bytes) {
            return false;
        }
        self.account.release(self.bytes.saturating_sub(bytes));
        self.bytes = bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.account.release(self.bytes);
    }
}

#[derive(Debug)]
struct Bytes {
    free: AtomicUsize,
}

impl Bytes {
    fn new(max: usize) -> Self {
        Self {
            free: AtomicUsize::new(max),
        }
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = self
            .free
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(bytes));
        taken.is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.free.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(bytes: &Bytes) -> usize {
        bytes.free.load(Ordering::Relaxed)
    }

    #[test]
    fn one_account_cannot_take_what_is_everybodys() {
        let budget = Budget::new(10, 6);
        let (one, other) = (budget.account([1; 32]), budget.account([2; 32]));
        let share = one.take(6).expect("free");
        assert!(one.take(1).is_none());
        assert!(budget.account([1; 32]).take(1).is_none(), "on whichever stream");
        assert!(other.take(5).is_none(), "4 are left of all");
        assert_eq!(free(&other.held), 6);
        let rest = other.take(4).expect("free");
        drop((share, rest));
        assert_eq!((free(&budget.0.all), free(&one.held)), (10, 6));
    }

    #[test]
    fn a_share_grows_and_shrinks_within_its_account() {
        let budget = Budget::new(10, 6);
        let account = budget.account([1; 32]);
        let mut share = account.take(2).expect("free");
        assert!(!share.resize(7));
        assert!(share.resize(6) && free(&account.held) == 0);
        assert!(share.resize(1) && free(&account.held) == 5 && free(&budget.0.all) == 9);
        drop(share);
        drop(account);
        assert!(budget.0.accounts.lock().is_empty(), "nobody is remembered");
        assert_eq!(free(&budget.0.all), 10);
    }
}
