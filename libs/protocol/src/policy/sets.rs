//! Which signatures to ask for: the smallest sets that satisfy a policy, and who is missing.
//!
//! A gateway asks this whenever policy or the living organisations change and remembers the
//! answer; a policy of a few organisations costs microseconds.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Gate, Leaf, POLICY_SETS_MAX, Policy, Principal, Rule};
use crate::identity::{PrincipalRole, Role};

/// Candidates kept per gate. Only the smallest survive, so the answer's first sets are exact.
const CANDIDATES_MAX: usize = 2 * POLICY_SETS_MAX;
/// A set of so many signatures is tried in every order before it is given up: 120 orders.
const ORDERED_MAX: usize = 5;

/// Positions of leaves, ascending.
type Set = Vec<usize>;

impl Policy {
    /// Sets of signatures that satisfy the policy, smallest first, none within another, at most
    /// [`POLICY_SETS_MAX`].
    ///
    /// The order within a set is the one the endorsements must have in the transaction. One leaf
    /// stands for one certificate: where an organisation occurs twice it must sign with two.
    /// For `member` a peer is assumed to sign.
    pub fn minimal_sets(&self) -> Vec<Vec<&Leaf>> {
        self.minimal_sets_of(&|_| true)
    }

    /// As [`Policy::minimal_sets`], of organisations that are alive.
    pub fn minimal_sets_of(&self, alive: &dyn Fn(&str) -> bool) -> Vec<Vec<&Leaf>> {
        let leaves = self.leaves();
        let search = Search {
            leaves: &leaves,
            alive: liveness(&leaves, alive),
        };
        let mut accepted: Vec<Set> = Vec::new();
        for candidate in search.gate(&self.0, &mut 0) {
            if accepted.len() == POLICY_SETS_MAX {
                break;
            }
            if !accepted.iter().any(|smaller| search.is_within(smaller, &candidate))
                && let Some(ordered) = self.order(&leaves, candidate)
            {
                accepted.push(ordered);
            }
        }
        if accepted.is_empty() {
            accepted.extend(self.thinned(&leaves, &search.alive));
        }
        accepted
            .into_iter()
            .map(|set| set.into_iter().map(|leaf| leaves[leaf]).collect())
            .collect()
    }

    /// Whether the organisations that are alive can satisfy the policy at all.
    pub fn is_met_by(&self, alive: &dyn Fn(&str) -> bool) -> bool {
        missing(&self.0, alive).is_some_and(|(count, _)| count == 0)
    }

    /// The organisations for want of which the policy cannot be met now, ascending: those that are
    /// in the least that would have to come back. Where some of several would do, all are named.
    /// Empty if the policy can be met, and if nobody's return could help (`OutOf(n + 1, …)`).
    pub fn missing(&self, alive: &dyn Fn(&str) -> bool) -> Vec<String> {
        let names = missing(&self.0, alive).map(|(_, names)| names).unwrap_or_default();
        names.into_iter().map(str::to_owned).collect()
    }

    /// Whether endorsements can satisfy it at all: peers sign, no more than `endorsements_max`, and every
    /// leaf has a certificate of its own. With more leaves than that only the cheapest set is tried,
    /// which is enough wherever the policy's greed does not defeat it. Linear in the policy's size but for
    /// one evaluation: what anybody may write into a transaction is judged by this.
    pub fn can_be_endorsed(&self, endorsements_max: usize) -> bool {
        let leaves = self.leaves();
        let all: Set = (0..leaves.len()).filter(|&leaf| is_endorsers(leaves[leaf])).collect();
        let set = match all.len() <= endorsements_max {
            true => Some(all),
            false => cheapest(&self.0, &mut 0),
        };
        set.is_some_and(|set| set.len() <= endorsements_max && self.accepts(&leaves, &set))
    }

    /// The set in an order that the greedy evaluation accepts, if there is one.
    fn order(&self, leaves: &[&Leaf], mut set: Set) -> Option<Set> {
        if self.accepts(leaves, &set) {
            return Some(set);
        }
        if set.len() > ORDERED_MAX {
            set.reverse();
            return self.accepts(leaves, &set).then_some(set);
        }
        self.permute(leaves, &mut set, 0).then_some(set)
    }

    fn permute(&self, leaves: &[&Leaf], set: &mut Set, from: usize) -> bool {
        if from == set.len() {
            return self.accepts(leaves, set);
        }
        for i in from..set.len() {
            set.swap(from, i);
            if self.permute(leaves, set, from + 1) {
                return true;
            }
            set.swap(from, i);
        }
        false
    }

    fn accepts(&self, leaves: &[&Leaf], set: &[usize]) -> bool {
        self.evaluate(&set.iter().map(|&leaf| signer(leaf, leaves[leaf])).collect::<Vec<_>>())
    }

    /// For policies whose greed defeats every small candidate: a signature for every leaf satisfies
    /// every leaf, so start there and leave out what is not needed.
    fn thinned(&self, leaves: &[&Leaf], alive: &[bool]) -> Option<Set> {
        let mut set: Set = (0..leaves.len()).filter(|&leaf| alive[leaf]).collect();
        if !self.accepts(leaves, &set) {
            return None;
        }
        for leaf in set.clone().into_iter().rev() {
            let without: Set = set.iter().copied().filter(|&other| other != leaf).collect();
            if self.accepts(leaves, &without) {
                set = without;
            }
        }
        Some(set)
    }
}

/// A signer of its own for a leaf.
pub(super) fn signer(position: usize, leaf: &Leaf) -> Principal {
    let role = match leaf.role {
        PrincipalRole::Member => Role::Peer,
        PrincipalRole::Is(role) => role,
    };
    let mut identity = [0; 32];
    identity[..8].copy_from_slice(&(position as u64).to_be_bytes());
    Principal {
        msp_id: leaf.msp_id.clone(),
        role,
        identity,
    }
}

/// Only peers endorse.
fn is_endorsers(leaf: &Leaf) -> bool {
    matches!(leaf.role, PrincipalRole::Member | PrincipalRole::Is(Role::Peer))
}

/// A set of least size that would do were there no greed. `next` is the position of the gate's first leaf.
fn cheapest(gate: &Gate, next: &mut usize) -> Option<Set> {
    let mut rules: Vec<Set> = Vec::with_capacity(gate.rules.len());
    for rule in &gate.rules {
        match rule {
            Rule::Gate(gate) => rules.extend(cheapest(gate, next)),
            Rule::Leaf(leaf) => {
                rules.extend(is_endorsers(leaf).then(|| vec![*next]));
                *next += 1;
            }
        }
    }
    if rules.len() < gate.needed {
        return None;
    }
    rules.sort_by_key(Vec::len);
    rules.truncate(gate.needed);
    let mut set = rules.concat();
    set.sort_unstable();
    Some(set)
}

fn liveness(leaves: &[&Leaf], alive: &dyn Fn(&str) -> bool) -> Vec<bool> {
    let mut known = BTreeMap::new();
    leaves
        .iter()
        .map(|leaf| *known.entry(leaf.msp_id.as_str()).or_insert_with(|| alive(&leaf.msp_id)))
        .collect()
}

struct Search<'a> {
    leaves: &'a [&'a Leaf],
    alive: Vec<bool>,
}

impl Search<'_> {
    /// Candidates, smallest first. `next` is the position of the gate's first leaf.
    fn gate(&self, gate: &Gate, next: &mut usize) -> Vec<Set> {
        // by_count[j]: sets that satisfy j of the rules seen so far.
        let mut by_count: Vec<Vec<Set>> = vec![Vec::new(); gate.needed + 1];
        by_count[0].push(Set::new());
        for rule in &gate.rules {
            let candidates = self.rule(rule, next);
            for count in (0..gate.needed).rev() {
                let joined = self.join(&by_count[count], &candidates);
                by_count[count + 1].extend(joined);
                self.keep_smallest(&mut by_count[count + 1]);
            }
        }
        by_count.pop().unwrap_or_default()
    }

    fn rule(&self, rule: &Rule, next: &mut usize) -> Vec<Set> {
        match rule {
            Rule::Gate(gate) => self.gate(gate, next),
            Rule::Leaf(_) => {
                let leaf = *next;
                *next += 1;
                if self.alive[leaf] { vec![vec![leaf]] } else { Vec::new() }
            }
        }
    }

    fn join(&self, left: &[Set], right: &[Set]) -> Vec<Set> {
        left.iter()
            .flat_map(|left| right.iter().map(move |right| [left.as_slice(), right].concat()))
            .collect()
    }

    /// Sorts by size, then from left to right; of sets that ask for the same, the first stays.
    fn keep_smallest(&self, sets: &mut Vec<Set>) {
        sets.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        let mut seen = HashSet::new();
        sets.retain(|set| seen.insert(set.iter().map(|&leaf| self.leaves[leaf]).collect::<Vec<_>>()));
        sets.truncate(CANDIDATES_MAX);
    }

    /// Whether all that `smaller` asks for is asked for by `larger` as well, as often.
    fn is_within(&self, smaller: &[usize], larger: &[usize]) -> bool {
        let mut rest: Vec<&Leaf> = larger.iter().map(|&leaf| self.leaves[leaf]).collect();
        smaller.iter().all(
            |&leaf| match rest.iter().position(|other| *other == self.leaves[leaf]) {
                Some(at) => {
                    rest.swap_remove(at);
                    true
                }
                None => false,
            },
        )
    }
}

/// How many places stay unsatisfied at least, and whose they are. `None`: nobody can satisfy it.
fn missing<'a>(gate: &'a Gate, alive: &dyn Fn(&str) -> bool) -> Option<(usize, BTreeSet<&'a str>)> {
    let mut rules: Vec<(usize, BTreeSet<&str>)> = Vec::with_capacity(gate.rules.len());
    for rule in &gate.rules {
        match rule {
            Rule::Leaf(leaf) if alive(&leaf.msp_id) => rules.push((0, BTreeSet::new())),
            Rule::Leaf(leaf) => rules.push((1, BTreeSet::from([leaf.msp_id.as_str()]))),
            Rule::Gate(gate) => rules.extend(missing(gate, alive)),
        }
    }
    if rules.len() < gate.needed {
        return None;
    }
    rules.sort_by_key(|(count, _)| *count);
    let count = rules[..gate.needed].iter().map(|(count, _)| count).sum();
    // Rules that cost as much as the dearest of the needed ones would do as well.
    let dearest = gate.needed.checked_sub(1).map_or(0, |last| rules[last].0);
    let names = rules
        .into_iter()
        .filter(|(count, _)| (1..=dearest).contains(count))
        .flat_map(|(_, names)| names);
    Some((count, names.collect()))
}
