//! Who is asked: the policies' smallest sets, over the peers that are alive.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use protocol::identity::{PrincipalRole, Role};
use protocol::policy::{Policy, Principal};
use tokio::time::Instant;

use super::Candidate;

/// Plans remembered: as many as there are policies, times the few sets of peers that are alive lately.
const PLANS_MAX: usize = 1024;
/// Combinations of sets that are tried where keys have policies of their own.
const COMBINATIONS_MAX: usize = 4096;

/// How long one who let an endorsement time out is avoided.
const LATE_MIN: Duration = Duration::from_secs(1);
const LATE_MAX: Duration = Duration::from_secs(60);

/// Organisations by their index, in the order of the endorsements; smallest sets first.
type Set = Vec<usize>;

type Plan = Arc<Vec<Set>>;

/// All peers that may endorse; the first is this one.
pub struct Teams {
    candidates: Vec<Arc<dyn Candidate>>,
    organisations: Vec<String>,
    /// Index of each candidate's organisation.
    belongs: Vec<usize>,
    /// By policy and by how many peers of each organisation can be asked.
    plans: Mutex<HashMap<Policy, HashMap<Vec<usize>, Plan>>>,
    /// Who let the last endorsements time out.
    late: Mutex<HashMap<usize, Late>>,
    turn: AtomicUsize,
}

/// One who answers everything but endorsements would else cost a part of the transactions a whole wait each.
struct Late {
    times: u32,
    until: Instant,
}

impl Teams {
    /// The first candidate is this peer.
    pub fn new(candidates: Vec<Arc<dyn Candidate>>) -> Self {
        let mut organisations: Vec<String> = Vec::new();
        let mut belongs = Vec::new();
        for candidate in &candidates {
            let name = candidate.organisation();
            let at = organisations.iter().position(|other| other == name).unwrap_or_else(|| {
                organisations.push(name.to_owned());
                organisations.len() - 1
            });
            belongs.push(at);
        }
        Teams {
            candidates,
            organisations,
            belongs,
            plans: Mutex::default(),
            late: Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    pub fn candidate(&self, at: usize) -> &dyn Candidate {
        &*self.candidates[at]
    }

    /// The candidate let an endorsement time out: for a while it is asked only where nobody else will do, and twice as
    /// long each time.
    pub fn note_late(&self, at: usize) {
        let mut late = self.late.lock();
        let times = late.get(&at).map_or(0, |late| late.times);
        let wait = (LATE_MIN * 2_u32.saturating_pow(times)).min(LATE_MAX);
        let entry = Late {
            times: times.saturating_add(1),
            until: Instant::now() + wait,
        };
        late.insert(at, entry);
    }

    pub fn note_in_time(&self, at: usize) {
        self.late.lock().remove(&at);
    }

    pub fn late(&self) -> Vec<usize> {
        let now = Instant::now();
        let late = self.late.lock();
        let avoided = late.iter().filter(|(_, late)| late.until > now);
        avoided.map(|(&at, _)| at).collect()
    }

    /// The smallest team; of several as small, one that has most of the work done, then one with this
    /// peer, then in turn. `None`: those who can be asked cannot satisfy the policies.
    pub fn choose(
        &self,
        policy: &Policy,
        key_policies: &[Policy],
        failed: &dyn Fn(usize) -> bool,
        made: &dyn Fn(usize) -> bool,
    ) -> Option<Vec<usize>> {
        let usable = self.usable(failed);
        let counts = self.counts(&usable);
        let plan = if key_policies.is_empty() {
            self.plan(policy, &counts)
        } else {
            Arc::new(self.combined(policy, key_policies, &counts))
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let size = plan.first()?.len();
        let smallest = plan.iter().take_while(|set| set.len() == size);
        let sets = smallest.clone().count();
        let own = self.belongs.first().copied();
        let best = smallest.enumerate().min_by_key(|(at, set)| {
            let done = self
                .team(set, &usable, made, turn)
                .iter()
                .filter(|&&at| made(at))
                .count();
            let has_own = own.is_some_and(|own| set.contains(&own));
            (size - done, !has_own, (at + turn) % sets)
        });
        best.map(|(_, set)| self.team(set, &usable, made, turn))
    }

    /// Whether the endorsements of these candidates, in this order, satisfy a policy.
    pub fn satisfies(&self, policy: &Policy, team: &[usize]) -> bool {
        let signers: Vec<Principal> = team.iter().map(|&at| self.principal(self.belongs[at], at)).collect();
        policy.evaluate(&signers)
    }

    /// Organisations for want of which the policies cannot be met.
    pub fn missing(&self, policy: &Policy, key_policies: &[Policy], failed: &dyn Fn(usize) -> bool) -> Vec<String> {
        let usable = self.usable(failed);
        let counts = self.counts(&usable);
        let alive = |name: &str| {
            self.organisations
                .iter()
                .zip(&counts)
                .any(|(known, &count)| known == name && count > 0)
        };
        let mut missing: Vec<String> = Vec::new();
        for policy in std::iter::once(policy).chain(key_policies) {
            missing.extend(policy.missing(&alive));
        }
        missing.sort();
        missing.dedup();
        missing
    }

    fn usable(&self, failed: &dyn Fn(usize) -> bool) -> Vec<usize> {
        (0..self.candidates.len())
            .filter(|&at| !failed(at) && self.candidates[at].is_alive())
            .collect()
    }

    fn counts(&self, usable: &[usize]) -> Vec<usize> {
        let mut counts = vec![0; self.organisations.len()];
        usable.iter().for_each(|&at| counts[self.belongs[at]] += 1);
        counts
    }

    fn principal(&self, organisation: usize, number: usize) -> Principal {
        let mut identity = [0; 32];
        identity[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Principal {
            msp_id: self.organisations[organisation].clone(),
            role: Role::Peer,
            identity,
        }
    }

    /// The policy's minimal sets that peers who can be asked can fill.
    fn plan(&self, policy: &Policy, counts: &[usize]) -> Plan {
        if let Some(plan) = self.plans.lock().get(policy).and_then(|plans| plans.get(counts)) {
            return Arc::clone(plan);
        }
        let plan = Arc::new(self.sets(policy, counts));
        let mut plans = self.plans.lock();
        if plans.values().map(HashMap::len).sum::<usize>() >= PLANS_MAX {
            plans.clear();
        }
        plans
            .entry(policy.clone())
            .or_default()
            .insert(counts.to_vec(), Arc::clone(&plan));
        plan
    }

    fn sets(&self, policy: &Policy, counts: &[usize]) -> Vec<Set> {
        let index = |name: &str| self.organisations.iter().position(|known| known == name);
        let alive = |name: &str| index(name).is_some_and(|at| counts[at] > 0);
        let mut sets = Vec::new();
        for leaves in policy.minimal_sets_of(&alive) {
            // Only peers endorse.
            let fits = |role| matches!(role, PrincipalRole::Member | PrincipalRole::Is(Role::Peer));
            if !leaves.iter().all(|leaf| fits(leaf.role)) {
                continue;
            }
            let set: Option<Set> = leaves.iter().map(|leaf| index(&leaf.msp_id)).collect();
            sets.extend(set.filter(|set| is_filled(set, counts)));
        }
        sets.sort_by_key(Vec::len);
        sets
    }

    /// Sets that satisfy all policies together.
    fn combined(&self, policy: &Policy, key_policies: &[Policy], counts: &[usize]) -> Vec<Set> {
        let mut sets = self.plan(policy, counts).as_ref().clone();
        for other in key_policies {
            let others = self.plan(other, counts);
            let mut joined: Vec<Set> = Vec::new();
            for (set, other) in sets.iter().flat_map(|set| others.iter().map(move |other| (set, other))) {
                let both = join(set, other);
                if joined.len() < COMBINATIONS_MAX && is_filled(&both, counts) && !joined.contains(&both) {
                    joined.push(both);
                }
            }
            joined.sort_by_key(Vec::len);
            sets = joined;
        }
        let all = || std::iter::once(policy).chain(key_policies);
        sets.retain(|set| {
            let signers: Vec<Principal> = set.iter().enumerate().map(|(i, &of)| self.principal(of, i)).collect();
            all().all(|policy| policy.evaluate(&signers))
        });
        sets
    }

    /// Peers for a set: those who have endorsed already first, then this one, then in turn.
    fn team(&self, set: &[usize], usable: &[usize], made: &dyn Fn(usize) -> bool, turn: usize) -> Vec<usize> {
        let mut team = Vec::with_capacity(set.len());
        for &organisation in set {
            let free = usable
                .iter()
                .copied()
                .filter(|at| self.belongs[*at] == organisation && !team.contains(at));
            let others = self.candidates.len();
            let best = free.min_by_key(|&at| (!made(at), at != 0, (at + turn) % others));
            team.extend(best);
        }
        team
    }
}

fn is_filled(set: &[usize], counts: &[usize]) -> bool {
    set.iter()
        .all(|of| set.iter().filter(|other| *other == of).count() <= counts[*of])
}

/// All of both, each organisation as often as the one that wants it more often.
fn join(set: &[usize], other: &[usize]) -> Set {
    let mut joined = set.to_vec();
    for of in other {
        let count = |set: &[usize]| set.iter().filter(|one| *one == of).count();
        if count(&joined) < count(other) {
            joined.push(*of);
        }
    }
    joined
}
