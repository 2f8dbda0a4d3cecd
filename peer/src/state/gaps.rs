//! Where no keys are: what a range read need not pass again.
//!
//! Deleted keys lie in the way of every range over them: in an overlay until its batch is written, on
//! disk until a compaction drops them. The first read that passes many of them remembers the stretch, so
//! that however many ranges a block asks for, each passes a few, and the rest is passed about once by all.
//! It is a memory of what was seen and decides nothing: with or without it a read gives the same rows.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
};

/// A stretch is remembered when so many deleted keys or remembered stretches were passed on it: about
/// what a seek costs.
pub const PASSED_MIN: usize = 32;
/// Stretches remembered, of 200 bytes or so. Honest contracts make none.
const GAPS_MAX: usize = 4096;

/// Stretches [start, end) by their start; no two overlap.
#[derive(Default)]
pub struct Gaps(BTreeMap<Vec<u8>, Vec<u8>>);

impl Gaps {
    /// Where the stretch that `at` lies in ends.
    pub fn end_of(&self, at: &[u8]) -> Option<&[u8]> {
        let (_, end) = self.covering(at)?;
        Some(end)
    }

    /// Where the next stretch after `at` begins.
    pub fn next_start(&self, at: &[u8]) -> Option<&[u8]> {
        let (start, _) = self.0.range::<[u8], _>((Excluded(at), Unbounded)).next()?;
        Some(start)
    }

    fn covering(&self, at: &[u8]) -> Option<(&[u8], &[u8])> {
        let (start, end) = self.0.range::<[u8], _>((Unbounded, Included(at))).next_back()?;
        (at < &end[..]).then_some((start, end))
    }

    /// There are no keys in [from, to).
    pub fn add(&mut self, from: &[u8], to: &[u8]) {
        if from >= to {
            return;
        }
        let start = self.covering(from).map_or(from, |(start, _)| start).to_vec();
        let mut end = to.to_vec();
        let met = self.0.range::<[u8], _>((Included(&start[..]), Included(to)));
        let met: Vec<Vec<u8>> = met.map(|(start, _)| start.clone()).collect();
        for start in met {
            end = end.max(self.0.remove(&start).unwrap_or_default());
        }
        if self.0.len() >= GAPS_MAX {
            self.0.clear();
        }
        self.0.insert(start, end);
    }

    /// A key appears.
    pub fn fill(&mut self, key: &[u8]) {
        let Some((start, end)) = self.covering(key) else { return };
        let (start, end) = (start.to_vec(), end.to_vec());
        self.0.remove(&start);
        let after = successor(key);
        if after < end && self.0.len() + 1 < GAPS_MAX {
            self.0.insert(after, end);
        }
        if start[..] < *key {
            self.0.insert(start, key.to_vec());
        }
    }
}

/// The next possible key.
pub fn successor(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stretches_grow_together_and_are_split_by_a_key() {
        let mut gaps = Gaps::default();
        gaps.add(b"b", b"d");
        gaps.add(b"f", b"h");
        assert_eq!((gaps.end_of(b"a"), gaps.end_of(b"c")), (None, Some(&b"d"[..])));
        gaps.add(b"c", b"g");
        assert_eq!((gaps.end_of(b"b"), gaps.0.len()), (Some(&b"h"[..]), 1));
        gaps.fill(b"e");
        assert_eq!(gaps.end_of(b"b"), Some(&b"e"[..]));
        assert_eq!(gaps.end_of(b"e"), None);
        assert_eq!(gaps.end_of(b"e\0"), Some(&b"h"[..]));
    }

    #[test]
    fn bounded() {
        let mut gaps = Gaps::default();
        for i in 0..3 * GAPS_MAX as u32 {
            gaps.add(&(2 * i).to_be_bytes(), &(2 * i + 1).to_be_bytes());
        }
        gaps.add(&[0], &[255]);
        (0..3 * GAPS_MAX as u32).for_each(|i| gaps.fill(&i.to_be_bytes()));
        assert!(gaps.0.len() <= GAPS_MAX, "{}", gaps.0.len());
    }

    proptest! {
        /// Keys are numbers; a stretch may never cover one that is there.
        #[test]
        fn never_over_a_key(steps in proptest::collection::vec((any::<bool>(), 0u8..40, 0u8..40), 0..60)) {
            let (mut gaps, mut keys) = (Gaps::default(), BTreeSet::new());
            for (appears, one, other) in steps {
                if appears {
                    gaps.fill(&[one]);
                    keys.insert(one);
                } else {
                    let (from, to) = (one.min(other), one.max(other));
                    keys.retain(|key| !(from..to).contains(key));
                    gaps.add(&[from], &[to]);
                }
                for key in &keys {
                    prop_assert_eq!(gaps.end_of(&[*key]), None);
                }
                let ends: Vec<_> = gaps.0.iter().collect();
                prop_assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0 && pair[0].0 < pair[0].1));
            }
        }
    }
}
