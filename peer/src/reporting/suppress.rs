//! Which counts of one group of people may be told. Pure; the argument is in `docs/reporting.md`.
//!
//! A family is one way to divide the same people into cells: by triage, by facility, by outcome. Their number is
//! told, so what is withheld of a family is known as a sum. The rule keeps that sum from being an answer.

/// Below this a withheld cell could have one value only.
pub const THRESHOLD_MIN: u64 = 3;

/// Below this the two values that a told number of occupied beds could have would be neighbours.
pub const BEDS_STEP_MIN: u32 = 3;

/// How many of a ward's beds are occupied and how many are free, both at least. One person lies in each bed, so the
/// occupied are told in steps: `step` different numbers are told as the same one, nobody among them. The free follow
/// from that and from the staffed, of which everybody is told.
pub fn beds(staffed: u32, occupied: u32, step: u32) -> (u32, u32) {
    let least = occupied - occupied % step;
    (least, staffed.saturating_sub(least + step - 1))
}

/// What may be told of a family's cells, `None` where it is withheld. Cells in `never` are withheld whatever they
/// count. `None` altogether: there are too few people for even their number to be told.
///
/// Cells below the threshold are withheld. What is withheld must be nothing at all, or must be
/// - two cells or more, and the threshold or more in sum,
/// - and not all of them as full as a withheld cell can be: a sum that only one filling reaches is an answer.
///
/// While it is not, the first cell that is told, in the order of the cells, is withheld too; then twice the threshold
/// is asked for. The order is the family's and not the counts', so that being withheld for another's sake says
/// nothing about a cell.
pub fn family(counts: &[u64], never: &[bool], threshold: u64) -> Option<Vec<Option<u64>>> {
    assert_eq!(counts.len(), never.len());
    if counts.iter().sum::<u64>() < threshold {
        return None;
    }
    let mut told: Vec<bool> = counts
        .iter()
        .zip(never)
        .map(|(count, never)| *count >= threshold && !never)
        .collect();
    let mut added = false;
    while !holds(counts, &told, never, threshold, added) {
        let Some(first) = told.iter().position(|told| *told) else {
            break;
        };
        told[first] = false;
        added = true;
    }
    Some(
        counts
            .iter()
            .zip(told)
            .map(|(count, told)| told.then_some(*count))
            .collect(),
    )
}

fn holds(counts: &[u64], told: &[bool], never: &[bool], threshold: u64, added: bool) -> bool {
    let withheld = || (0..counts.len()).filter(|at| !told[*at]);
    let (cells, sum) = (withheld().count() as u64, withheld().map(|at| counts[at]).sum::<u64>());
    if sum == 0 {
        return true;
    }
    if cells < 2 {
        return false;
    }
    if added {
        return sum >= 2 * threshold;
    }
    // A cell that is never told may hold any number.
    let bounded = !withheld().any(|at| never[at]);
    sum >= threshold && !(bounded && sum == cells * (threshold - 1))
}

/// What may be told of cells that people may share: items, of which each of `people` has one or more. Only that makes
/// a sum of them known from below; `unlisted` cells besides these are never told and may hold any part of it.
pub fn cover(counts: &[u64], unlisted: u64, people: u64, threshold: u64) -> Vec<Option<u64>> {
    let mut told: Vec<bool> = counts.iter().map(|count| *count >= threshold).collect();
    loop {
        let (mut sum, mut withheld) = (0, unlisted);
        for (count, told) in counts.iter().zip(&told) {
            match told {
                true => sum += count,
                false => withheld += 1,
            }
        }
        // All withheld cells full would be one filling only.
        if people.saturating_sub(sum) < withheld * (threshold - 1) || withheld == 0 {
            break;
        }
        match told.iter().position(|told| *told) {
            Some(first) => told[first] = false,
            None => break,
        }
    }
    counts
        .iter()
        .zip(told)
        .map(|(count, told)| told.then_some(*count))
        .collect()
}

/// Which items' counts may be divided further, each into a family of its own. `told`: the half and the count of each.
///
/// Items share people, and `people` of all of them together is known: where several items' people must overlap, one
/// item's classes say something of another's. So those are divided whose people could all be different ones, beside
/// those that the other half must hold: as many as its largest item has, and enough for all its items at `items_max`
/// for each person. The largest come first: what is told decides, nothing that is withheld.
pub fn divisible(told: &[(usize, u64)], people: u64, items_max: u64) -> Vec<bool> {
    let mut least = [0, 0];
    for half in [0, 1] {
        let counts = || told.iter().filter(|(of, _)| *of == half).map(|(_, count)| *count);
        least[half] = counts()
            .max()
            .unwrap_or(0)
            .max(counts().sum::<u64>().div_ceil(items_max));
    }
    let mut divided = [0, 0];
    let mut divisible = vec![false; told.len()];
    let mut order: Vec<usize> = (0..told.len()).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(told[*at].1), *at));
    for at in order {
        let (half, count) = told[at];
        let mut with = divided;
        with[half] += count;
        if with[0].max(least[0]) + with[1].max(least[1]) <= people {
            divided = with;
            divisible[at] = true;
        }
    }
    divisible
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn of(counts: &[u64], threshold: u64) -> Option<Vec<Option<u64>>> {
        family(counts, &vec![false; counts.len()], threshold)
    }

    #[test]
    fn what_is_told() {
        assert_eq!(of(&[10, 20], 10), Some(vec![Some(10), Some(20)]));
        assert_eq!(of(&[10, 20, 0], 10), Some(vec![Some(10), Some(20), None]));
        assert_eq!(of(&[4, 5], 10), None);
        // The first that is told goes with a small one.
        assert_eq!(of(&[40, 20, 2], 10), Some(vec![None, Some(20), None]));
        assert_eq!(of(&[11, 20, 30, 2], 10), Some(vec![None, None, Some(30), None]));
        // Two small ones are each other's cover, if they are not both full.
        assert_eq!(of(&[40, 7, 8], 10), Some(vec![Some(40), None, None]));
        assert_eq!(of(&[40, 9, 9], 10), Some(vec![None, None, None]));
        assert_eq!(
            family(&[40, 12, 5], &[false, true, false], 10),
            Some(vec![Some(40), None, None])
        );
    }

    fn fillings(cells: usize, sum: u64, each: &mut dyn FnMut(&[u64]), so_far: &mut Vec<u64>) {
        if so_far.len() + 1 == cells {
            so_far.push(sum);
            each(so_far);
            so_far.pop();
            return;
        }
        for count in 0..=sum {
            so_far.push(count);
            fillings(cells, sum - count, each, so_far);
            so_far.pop();
        }
    }

    /// Every family of that many cells and people, grouped by what is told of it: whoever knows all that is told, and
    /// this program, must be left with two values of every withheld small cell.
    fn nobody_is_found(cells: usize, people: u64, never: &[bool], threshold: u64) {
        let mut told: BTreeMap<Vec<Option<u64>>, Vec<Vec<u64>>> = BTreeMap::new();
        let mut sort = |counts: &[u64]| {
            let published = family(counts, never, threshold).expect("enough people");
            told.entry(published).or_default().push(counts.to_vec());
        };
        fillings(cells, people, &mut sort, &mut Vec::new());
        for (published, possible) in told {
            for cell in (0..cells).filter(|cell| published[*cell].is_none()) {
                let first = possible[0][cell];
                let known = possible.iter().all(|counts| counts[cell] == first);
                let small = first > 0 && (first < threshold || never[cell]);
                assert!(!(known && small), "{published:?} can only be {possible:?}");
            }
        }
    }

    #[test]
    fn whoever_knows_all_that_is_told_finds_nobody() {
        for threshold in [3, 4, 5, 10] {
            for people in threshold..=3 * threshold + 4 {
                for cells in 2..=4 {
                    nobody_is_found(cells, people, &vec![false; cells], threshold);
                    for forced in 0..cells {
                        let never: Vec<bool> = (0..cells).map(|cell| cell == forced).collect();
                        nobody_is_found(cells, people, &never, threshold);
                    }
                }
            }
        }
    }

    /// Whoever knows what is told of a ward, and how many beds it has, is left with `step` numbers of people in them.
    #[test]
    fn of_occupied_beds_only_the_step_is_known() {
        for (step, staffed) in [3, 5, 10]
            .into_iter()
            .flat_map(|step| (0..30).map(move |beds| (step, beds)))
        {
            let mut told: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
            for occupied in 0..12 * step {
                told.entry(beds(staffed, occupied, step)).or_default().push(occupied);
            }
            for ((least, free), possible) in told {
                assert_eq!(possible.len(), step as usize, "{staffed} beds: {possible:?}");
                assert!(possible.iter().all(|occupied| *occupied >= least));
                assert!(
                    possible
                        .iter()
                        .all(|occupied| staffed.saturating_sub(*occupied) >= free)
                );
            }
        }
    }

    #[test]
    fn items_are_divided_while_their_people_could_be_different_ones() {
        let divisible = |told: &[(usize, u64)], people| divisible(told, people, 12);
        assert_eq!(divisible(&[(1, 3), (1, 3)], 4), [true, false]);
        assert_eq!(divisible(&[(1, 3), (1, 3)], 6), [true, true]);
        // 72 items of the other half are of six people at least, so that of ten four are left for these two.
        let mut many = vec![(1, 3), (1, 3)];
        many.extend([(0, 3); 24]);
        assert_eq!(divisible(&many, 10)[..2], [true, false]);
        // The other half holds eight at least, so that two of ten share people here.
        assert_eq!(divisible(&[(1, 5), (1, 6), (0, 8)], 14), [false, true, true]);
        assert_eq!(divisible(&[], 14), Vec::<bool>::new());
    }

    proptest! {
        #[test]
        fn no_small_count_is_told_and_no_small_sum_can_be_computed(
            counts in prop::collection::vec(0u64..40, 1..12),
            threshold in THRESHOLD_MIN..12,
        ) {
            let Some(told) = of(&counts, threshold) else {
                prop_assert!(counts.iter().sum::<u64>() < threshold);
                return Ok(());
            };
            let withheld: Vec<u64> = counts.iter().zip(&told).filter(|(_, told)| told.is_none()).map(|(n, _)| *n).collect();
            prop_assert!(told.iter().flatten().all(|count| *count >= threshold));
            let sum: u64 = withheld.iter().sum();
            prop_assert!(sum == 0 || (sum >= threshold && withheld.len() >= 2), "{:?} of {:?}", told, counts);
        }

        #[test]
        fn of_items_no_small_count_is_told_and_something_is_left_open(
            counts in prop::collection::vec(0u64..40, 1..12), unlisted in 0u64..3, more in 0u64..20,
            threshold in THRESHOLD_MIN..12,
        ) {
            let people = counts.iter().max().expect("one") + more;
            let told = cover(&counts, unlisted, people, threshold);
            prop_assert!(told.iter().flatten().all(|count| *count >= threshold));
            let withheld = unlisted + told.iter().filter(|told| told.is_none()).count() as u64;
            let left = people.saturating_sub(told.iter().flatten().sum());
            let nothing_told = told.iter().all(Option::is_none);
            prop_assert!(withheld == 0 || nothing_told || left < withheld * (threshold - 1));
        }
    }
}
