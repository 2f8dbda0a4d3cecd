//! Merkle trees as in RFC 6962: leaf `H(0x00 ‖ data)`, node `H(0x01 ‖ left ‖ right)`, and the left
//! subtree of `n` leaves holds the largest power of two below `n`.

use crate::hash::{Digest, sha256, tagged};

pub fn leaf(parts: &[&[u8]]) -> Digest {
    tagged(0, parts)
}

fn node(left: &Digest, right: &Digest) -> Digest {
    tagged(1, &[left, right])
}

/// The root over `leaves`; of none it is `H("")`.
pub fn root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => sha256(&[]),
        [one] => *one,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node(&root(left), &root(right))
        }
    }
}

/// The root, and for every leaf its audit path with the leaf's sibling first.
///
/// Costs one tree, not one tree per leaf.
pub fn paths(leaves: &[Digest]) -> (Digest, Vec<Vec<Digest>>) {
    let mut paths = vec![Vec::new(); leaves.len()];
    let root = if leaves.is_empty() {
        root(leaves)
    } else {
        fill(leaves, &mut paths)
    };
    (root, paths)
}

fn fill(leaves: &[Digest], paths: &mut [Vec<Digest>]) -> Digest {
    if let [one] = leaves {
        return *one;
    }
    let at = split(leaves.len());
    let (left, right) = leaves.split_at(at);
    let (left_paths, right_paths) = paths.split_at_mut(at);
    let (left, right) = (fill(left, left_paths), fill(right, right_paths));
    left_paths.iter_mut().for_each(|path| path.push(right));
    right_paths.iter_mut().for_each(|path| path.push(left));
    node(&left, &right)
}

/// The root that `leaf` at `index` of `size` leaves has by its audit path; `None` if the path's
/// length does not fit that place.
pub fn root_from(leaf: Digest, index: u64, size: u64, path: &[impl AsRef<[u8]>]) -> Option<Digest> {
    if index >= size {
        return None;
    }
    let (mut hash, mut at, mut last) = (leaf, index, size - 1);
    for sibling in path {
        let sibling: &Digest = sibling.as_ref().try_into().ok()?;
        if last == 0 {
            return None;
        }
        if at % 2 == 1 || at == last {
            hash = node(sibling, &hash);
            // The last node of a level without a right neighbour moves up unchanged.
            while at % 2 == 0 && at != 0 {
                at /= 2;
                last /= 2;
            }
        } else {
            hash = node(&hash, sibling);
        }
        at /= 2;
        last /= 2;
    }
    (last == 0).then_some(hash)
}

fn split(len: usize) -> usize {
    debug_assert!(len > 1);
    1 << (usize::BITS - 1 - (len - 1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(count: usize) -> Vec<Digest> {
        (0..count).map(|i| leaf(&[&i.to_be_bytes()])).collect()
    }

    #[test]
    fn roots_of_rfc_6962() {
        assert_eq!(root(&[]), sha256(&[]));
        assert_eq!(
            hex::encode(leaf(&[])),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
        // The seven leaves of Certificate Transparency's own test data.
        let data: [&[u8]; 8] = [
            &[],
            &[0],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[
                0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f,
            ],
        ];
        let leaves: Vec<Digest> = data.iter().map(|d| leaf(&[d])).collect();
        assert_eq!(
            hex::encode(root(&leaves)),
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
        );
    }

    proptest! {
        #[test]
        fn every_path_leads_to_the_root(count in 1usize..200) {
            let leaves = leaves(count);
            let (root_, paths) = paths(&leaves);
            prop_assert_eq!(root_, root(&leaves));
            for (i, path) in paths.iter().enumerate() {
                prop_assert_eq!(root_from(leaves[i], i as u64, count as u64, path), Some(root_));
            }
        }

        #[test]
        fn no_other_place_or_path_does(count in 2usize..100, i in 0usize..100, j in 0usize..100, bit in 0usize..256) {
            let (i, j) = (i % count, j % count);
            let leaves = leaves(count);
            let (root_, paths) = paths(&leaves);
            if i != j {
                prop_assert_ne!(root_from(leaves[i], j as u64, count as u64, &paths[i]), Some(root_));
            }
            let mut path = paths[i].clone();
            let at = bit % path.len();
            path[at][bit % 32] ^= 1;
            prop_assert_ne!(root_from(leaves[i], i as u64, count as u64, &path), Some(root_));
            path = paths[i].clone();
            path.pop();
            prop_assert_ne!(root_from(leaves[i], i as u64, count as u64, &path), Some(root_));
        }
    }
}
