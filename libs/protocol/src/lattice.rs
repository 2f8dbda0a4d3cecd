//! The state digest: an incremental hash over everything `validate` reads.
//!
//! LtHash: an element is 2,048 bytes of BLAKE3's extendable output over one entry, read as 1,024
//! little-endian lanes of 16 bits; a set is the lane-wise sum of its elements modulo 2^16. Adding
//! and removing entries needs neither the other entries nor an order, so the digest follows the
//! write stream, and two peers with the same entries have the same digest however they got there.
//!
//! ```text
//! entry  = kind (1) ‖ key length (4) ‖ key ‖ epoch (4) ‖ height (8) ‖ index (4) ‖ H(value) (32)
//! digest = SHA-256 of the 2,048 bytes
//! ```
//!
//! Integers of an entry are big-endian. It is a hash of sets: whoever adds an entry twice or
//! removes what was never added gets the digest of no state at all, so callers feed it what a
//! block really replaced. `examples/lattice.rs` measures it.

use crate::{
    hash::{Digest, sha256},
    ledger::Version,
};

const LANES: usize = 1024;
/// What storage holds of a lattice.
pub const LATTICE_BYTES: usize = 2 * LANES;

/// What an entry is, so that no key of one kind stands for another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    State = 1,
    KeyPolicy = 2,
    Config = 3,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Lattice(Box<[u16; LANES]>);

impl Lattice {
    /// Of no entries.
    pub fn new() -> Self {
        Lattice(Box::new([0; LANES]))
    }

    pub fn add(&mut self, kind: Kind, key: &[u8], version: &Version, value_hash: &Digest) {
        let element = element(kind, key, version, value_hash);
        for (lane, bytes) in self.0.iter_mut().zip(element.as_chunks().0) {
            *lane = lane.wrapping_add(u16::from_le_bytes(*bytes));
        }
    }

    /// Takes back an [`Lattice::add`] of the same arguments.
    pub fn remove(&mut self, kind: Kind, key: &[u8], version: &Version, value_hash: &Digest) {
        let element = element(kind, key, version, value_hash);
        for (lane, bytes) in self.0.iter_mut().zip(element.as_chunks().0) {
            *lane = lane.wrapping_sub(u16::from_le_bytes(*bytes));
        }
    }

    /// Adds all that went into and out of `other`: for sums that several threads made of parts.
    pub fn merge(&mut self, other: &Lattice) {
        for (lane, more) in self.0.iter_mut().zip(other.0.iter()) {
            *lane = lane.wrapping_add(*more);
        }
    }

    pub fn digest(&self) -> Digest {
        sha256(&self.to_bytes())
    }

    pub fn to_bytes(&self) -> [u8; LATTICE_BYTES] {
        let mut bytes = [0; LATTICE_BYTES];
        for (out, lane) in bytes.as_chunks_mut().0.iter_mut().zip(self.0.iter()) {
            *out = lane.to_le_bytes();
        }
        bytes
    }

    /// `None` unless there are exactly [`LATTICE_BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != LATTICE_BYTES {
            return None;
        }
        let mut lattice = Lattice::new();
        for (lane, bytes) in lattice.0.iter_mut().zip(bytes.as_chunks().0) {
            *lane = u16::from_le_bytes(*bytes);
        }
        Some(lattice)
    }
}

impl Default for Lattice {
    fn default() -> Self {
        Lattice::new()
    }
}

impl std::fmt::Debug for Lattice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lattice({})", hex::encode(self.digest()))
    }
}

fn element(kind: Kind, key: &[u8], version: &Version, value_hash: &Digest) -> [u8; LATTICE_BYTES] {
    let mut hasher = blake3::Hasher::new();
    let mut head = [kind as u8, 0, 0, 0, 0];
    head[1..].copy_from_slice(&(key.len() as u32).to_be_bytes());
    let mut tail = [0; 48];
    tail[..4].copy_from_slice(&version.epoch.to_be_bytes());
    tail[4..12].copy_from_slice(&version.height.to_be_bytes());
    tail[12..16].copy_from_slice(&version.index.to_be_bytes());
    tail[16..].copy_from_slice(value_hash);
    hasher.update(&head).update(key).update(&tail);
    let mut out = [0; LATTICE_BYTES];
    hasher.finalize_xof().fill(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Entry = (Kind, Vec<u8>, Version, Digest);

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let kind = prop_oneof![Just(Kind::State), Just(Kind::KeyPolicy), Just(Kind::Config)];
        let version = (any::<u32>(), any::<u64>(), any::<u32>()).prop_map(|(epoch, height, index)| Version {
            epoch,
            height,
            index,
        });
        let key = proptest::collection::vec(any::<u8>(), 0..100);
        proptest::collection::vec((kind, key, version, any::<Digest>()), 0..12)
    }

    fn of(entries: &[Entry]) -> Lattice {
        let mut lattice = Lattice::new();
        entries
            .iter()
            .for_each(|(kind, key, version, hash)| lattice.add(*kind, key, version, hash));
        lattice
    }

    /// Written by hand from `docs/formats.md`; a change here is a change of every header.
    #[test]
    fn golden() {
        assert_eq!(
            hex::encode(Lattice::new().digest()),
            "e5a00aa9991ac8a5ee3109844d84a55583bd20572ad3ffcd42792f3c36b183ad",
            "H of 2,048 zeros"
        );
        let version = Version {
            epoch: 1,
            height: 2,
            index: 3,
        };
        let mut input = vec![1, 0, 0, 0, 3];
        input.extend_from_slice(b"key");
        input.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3]);
        input.extend_from_slice(&sha256(b"value"));
        let mut expected = [0; LATTICE_BYTES];
        blake3::Hasher::new().update(&input).finalize_xof().fill(&mut expected);
        let mut lattice = Lattice::new();
        lattice.add(Kind::State, b"key", &version, &sha256(b"value"));
        assert_eq!(lattice.to_bytes(), expected);
        assert_eq!(
            hex::encode(lattice.digest()),
            "e718c0b4dcd7a5f604782f8ab3387deb58ec4ec55b722e0746cf2d8732e97cd4"
        );
        lattice.add(Kind::KeyPolicy, b"key", &version, &sha256(b"OR('A.peer')"));
        lattice.add(Kind::Config, b"", &Version::default(), &sha256(b""));
        assert_eq!(
            hex::encode(lattice.digest()),
            "ddc6f7cfcd7021db95a2e064e664396ec45bc741e948daa9d1a621dbc0eafe7a"
        );
    }

    #[test]
    fn bytes_of_another_length_are_no_lattice() {
        assert!(Lattice::from_bytes(&[0; LATTICE_BYTES - 1]).is_none());
        assert!(Lattice::from_bytes(&[0; LATTICE_BYTES + 1]).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn order_does_not_matter(entries in entries(), at in any::<usize>()) {
            let mut other = entries.clone();
            other.reverse();
            other.rotate_left(at % entries.len().max(1));
            prop_assert_eq!(of(&entries), of(&other));
        }

        #[test]
        fn removing_takes_back_adding(entries in entries(), more in entries()) {
            let mut lattice = of(&entries);
            let before = lattice.digest();
            more.iter().for_each(|(kind, key, version, hash)| lattice.add(*kind, key, version, hash));
            prop_assert_eq!(lattice.digest() == before, more.is_empty());
            more.iter().for_each(|(kind, key, version, hash)| lattice.remove(*kind, key, version, hash));
            prop_assert_eq!(lattice.digest(), before);
        }

        #[test]
        fn parts_make_the_whole(entries in entries(), at in any::<usize>()) {
            let (left, right) = entries.split_at(at % (entries.len() + 1));
            let mut lattice = of(left);
            lattice.merge(&of(right));
            prop_assert_eq!(lattice, of(&entries));
        }

        #[test]
        fn every_field_counts(entry in entries(), bit in 0u8..32) {
            if let Some((kind, key, version, hash)) = entry.first() {
                let original = of(&entry[..1]).digest();
                let mut hash_changed = *hash;
                hash_changed[usize::from(bit)] ^= 1 << (bit % 8);
                let other_kind = if *kind == Kind::State { Kind::Config } else { Kind::State };
                let longer = [key.as_slice(), &[0]].concat();
                let height = Version { height: version.height ^ 1 << bit, ..*version };
                let epoch = Version { epoch: version.epoch ^ 1 << bit, ..*version };
                let index = Version { index: version.index ^ 1 << bit, ..*version };
                for changed in [
                    (*kind, key.clone(), *version, hash_changed),
                    (other_kind, key.clone(), *version, *hash),
                    (*kind, longer, *version, *hash),
                    (*kind, key.clone(), height, *hash),
                    (*kind, key.clone(), epoch, *hash),
                    (*kind, key.clone(), index, *hash),
                ] {
                    prop_assert_ne!(of(&[changed]).digest(), original);
                }
            }
        }

        #[test]
        fn storage_leads_back(entries in entries()) {
            let lattice = of(&entries);
            prop_assert_eq!(Lattice::from_bytes(&lattice.to_bytes()), Some(lattice));
        }
    }
}
