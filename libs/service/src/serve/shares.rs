//! How many of a bounded number of places one holder has.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Places by holder; without entries for those who hold none.
pub(super) struct Shares<K> {
    max: usize,
    held: Mutex<HashMap<K, usize>>,
}

impl<K: Hash + Eq + Clone> Shares<K> {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            held: Mutex::default(),
        })
    }

    /// One more place, unless the holder has as many as it may.
    pub(super) fn take(self: &Arc<Self>, holder: K) -> Option<Share<K>> {
        let mut held = self.held.lock();
        let count = held.get(&holder).copied().unwrap_or(0);
        if count >= self.max {
            return None;
        }
        held.insert(holder.clone(), count + 1);
        drop(held);
        Some(Share {
            shares: self.clone(),
            holder,
        })
    }
}

/// A place; given back when it is dropped.
pub(super) struct Share<K: Hash + Eq + Clone> {
    shares: Arc<Shares<K>>,
    holder: K,
}

impl<K: Hash + Eq + Clone> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.shares.held.lock();
        if let Some(count) = held.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

/// Whom an address stands for: a host has one of IPv4, and 2^64 of IPv6.
pub(super) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_holder_has_its_own_share_and_is_forgotten_at_rest() {
        let shares = Shares::new(2);
        let held: Vec<_> = (0..2).map(|_| shares.take("a").expect("a place")).collect();
        assert!(shares.take("a").is_none());
        assert!(shares.take("b").is_some());
        drop(held);
        assert!(shares.held.lock().is_empty());
        assert!(shares.take("a").is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let source = |text: &str| source(text.parse().expect("address")).to_string();
        assert_eq!(source("10.0.0.7"), "10.0.0.7");
        assert_eq!(source("::ffff:10.0.0.7"), "10.0.0.7");
        assert_eq!(source("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
