//! Room for what is under way, in bytes, shared fairly between organisations.
//!
//! An organisation may hold as much as it leaves free: alone it gets half of the room, two get a third
//! each, and there is always something left for one that comes now. No settings, no reservations.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::metrics::{QUEUE_BYTES, QUEUE_TRANSACTIONS};

/// Charged for every item beside its bytes: what its structures take until it is answered.
const ITEM_BYTES: usize = 1024;

pub struct Room {
    bytes_max: usize,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    bytes: usize,
    by_organisation: HashMap<Arc<str>, usize>,
}

/// Held from arrival to answer; gives the room back when dropped.
pub struct Held {
    room: Arc<Room>,
    organisation: Arc<str>,
    bytes: usize,
}

impl Room {
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Room {
            bytes_max,
            used: Mutex::default(),
        })
    }

    /// `None`: there is no room now.
    pub fn take(self: &Arc<Self>, organisation: &str, bytes: usize) -> Option<Held> {
        let bytes = bytes.saturating_add(ITEM_BYTES);
        let mut used = self.used.lock();
        let (organisation, held) = match used.by_organisation.get_key_value(organisation) {
            Some((organisation, held)) => (organisation.clone(), *held),
            None => (Arc::from(organisation), 0),
        };
        let left = self.bytes_max.saturating_sub(used.bytes).saturating_sub(bytes);
        if held.saturating_add(bytes) > left {
            return None;
        }
        used.bytes += bytes;
        used.by_organisation.insert(organisation.clone(), held + bytes);
        QUEUE_TRANSACTIONS.inc();
        QUEUE_BYTES.add(bytes as i64);
        Some(Held {
            room: self.clone(),
            organisation,
            bytes,
        })
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.lock().bytes
    }
}

impl Held {
    /// Whose room it is.
    pub fn organisation(&self) -> &str {
        &self.organisation
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut used = self.room.used.lock();
        used.bytes -= self.bytes;
        if let Some(held) = used.by_organisation.get_mut(&self.organisation) {
            *held -= self.bytes;
            if *held == 0 {
                used.by_organisation.remove(&self.organisation);
            }
        }
        QUEUE_TRANSACTIONS.dec();
        QUEUE_BYTES.sub(self.bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(room: &Arc<Room>, organisation: &str) -> Vec<Held> {
        std::iter::from_fn(|| room.take(organisation, ITEM_BYTES)).collect()
    }

    #[test]
    fn one_alone_takes_half_and_a_newcomer_finds_room() {
        let room = Room::new(120 * 2 * ITEM_BYTES);
        let a = fill(&room, "A");
        assert_eq!(a.len(), 60);
        let b = fill(&room, "B");
        assert_eq!(b.len(), 30);
        assert!(room.take("C", ITEM_BYTES).is_some());
        assert!(room.used() <= 120 * 2 * ITEM_BYTES);
        drop(a);
        assert!(room.take("A", ITEM_BYTES).is_some());
        assert_eq!(fill(&room, "B").len(), 30, "half, now that it is alone");
        drop(b);
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn nothing_larger_than_the_room_goes_in() {
        let room = Room::new(10 * ITEM_BYTES);
        assert!(room.take("A", 10 * ITEM_BYTES).is_none());
        assert!(room.take("A", usize::MAX / 2).is_none());
    }
}
