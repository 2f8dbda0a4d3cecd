//! What is known of one proposal while teams are tried, and what is done next.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use futures::future::join_all;
use protocol::canonical;
use protocol::keys::response_digest;
use protocol::ledger;
use protocol::limits::{SNAPSHOT_AGE_MAX, SNAPSHOTS_KEPT};
use protocol::policy::Policy;
use protocol::transaction::check_result;
use service::telemetry::Seldom;
use service::{Code, Problem};
use tokio::time::Instant;

use super::{Chain, Endorsements, Teams, is_everywhere, is_silence};
use crate::endorser::Endorsed;
use crate::endorser::check::Checked;
use crate::metrics::{ENDORSER_FAULTS, MISMATCHES};
use crate::query::not_started;

/// How often those without the height are asked again at once, or all at a lower one, before they are
/// left out. Peers that commit several blocks at once have few heights in common.
const LEVELLED_MAX: usize = 24;
/// Before those who stand at other heights are asked again, doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

pub(super) struct Attempt<'a> {
    teams: &'a Teams,
    chain: &'a dyn Chain,
    policy: &'a Policy,
    checked: &'a Checked,
    height: u64,
    /// At this height, of this proposal, by candidate.
    made: BTreeMap<usize, Made>,
    failed: Vec<(usize, Problem)>,
    /// Alive, but late or without a height that suits the others. Left out until it begins again.
    elsewhere: Vec<usize>,
    /// The height that each of those without the asked one named.
    named: BTreeMap<usize, u64>,
    levelled: usize,
    /// They are asked again, before anybody else is.
    again: Option<Vec<usize>>,
    pause: Duration,
    is_reported: bool,
}

struct Made {
    endorsed: Endorsed,
    result: ledger::Result,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        teams: &'a Teams,
        chain: &'a dyn Chain,
        policy: &'a Policy,
        checked: &'a Checked,
    ) -> Result<Self, Problem> {
        let height = chain.newest(checked.partition);
        Ok(Attempt {
            teams,
            chain,
            policy,
            checked,
            height: height.ok_or_else(|| not_started(checked.partition))?,
            made: BTreeMap::new(),
            failed: Vec::new(),
            elsewhere: teams.late(),
            named: BTreeMap::new(),
            levelled: 0,
            again: None,
            pause: PAUSE_MIN,
            is_reported: false,
        })
    }

    /// Who is asked next. `None`: nobody, but those at other heights may be asked again. An error:
    /// the policy cannot be met.
    pub(super) fn choose(&mut self) -> Result<Option<Vec<usize>>, Problem> {
        if let Some(team) = self.again.take() {
            return Ok(Some(team));
        }
        let groups = self.groups();
        // With nothing made yet it is one group, of nobody.
        let nobody = [Vec::new()];
        let groups: &[Vec<usize>] = if groups.is_empty() { &nobody } else { &groups };
        let mut policies = Vec::new();
        for group in groups {
            policies.push(self.key_policies(group)?);
        }
        let choices = || groups.iter().zip(&policies);
        let mut teams = choices().filter_map(|(group, policies)| self.team(group, policies, false));
        if let Some(team) = teams.next() {
            return Ok(Some(team));
        }
        if choices().any(|(group, policies)| self.team(group, policies, true).is_some()) {
            return Ok(None);
        }
        if groups.len() > 1 {
            let detail = format!("these came to different results: {}", self.names(groups));
            return Err(Problem::new(Code::EndorsementMismatch, detail));
        }
        Err(self.unsatisfied(&policies[0]))
    }

    /// Those who have endorsed, by what they signed: most first, of as many the one with this peer.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups = BTreeMap::<&[u8], Vec<usize>>::new();
        for (&at, made) in &self.made {
            groups.entry(&made.endorsed.result).or_default().push(at);
        }
        let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
        groups.sort_by_key(|group| (std::cmp::Reverse(group.len()), group[0]));
        groups
    }

    fn key_policies(&self, group: &[usize]) -> Result<Vec<Policy>, Problem> {
        match group.first().and_then(|at| self.made.get(at)) {
            Some(made) => self.chain.key_policies(self.checked.partition, &made.result),
            None => Ok(Vec::new()),
        }
    }

    /// A team of this group and of those who have not said anything else.
    fn team(&self, group: &[usize], key_policies: &[Policy], with_elsewhere: bool) -> Option<Vec<usize>> {
        let out = |at: usize| {
            self.has_failed(at)
                || (!with_elsewhere && self.elsewhere.contains(&at))
                || (self.made.contains_key(&at) && !group.contains(&at))
        };
        let made = |at: usize| group.contains(&at);
        self.teams.choose(self.policy, key_policies, &out, &made)
    }

    fn has_failed(&self, at: usize) -> bool {
        self.failed.iter().any(|(other, _)| *other == at)
    }

    /// Asks those of the team who have not endorsed yet. An error ends it all.
    pub(super) async fn ask(&mut self, team: &[usize], timeout: Duration) -> Result<(), Problem> {
        let wanted: Vec<usize> = team.iter().copied().filter(|at| !self.made.contains_key(at)).collect();
        let (checked, height, teams) = (self.checked, self.height, self.teams);
        let asked = |&at: &usize| teams.candidate(at).endorse(checked, height, timeout);
        let answers = match wanted.as_slice() {
            // Most transactions have one endorser.
            [only] => vec![asked(only).await],
            _ => join_all(wanted.iter().map(asked)).await,
        };
        let left_out = self.failed.len() + self.elsewhere.len();
        let mut without = Vec::new();
        let mut refusals = Vec::new();
        for (at, answer) in wanted.into_iter().zip(answers) {
            match answer.and_then(|endorsed| self.check(endorsed)) {
                Ok(made) => {
                    teams.note_in_time(at);
                    self.made.insert(at, made);
                }
                Err(problem) if problem.code == Code::SnapshotUnavailable => without.push((at, problem.height)),
                // It answers others: it is busy, not away.
                Err(problem) if problem.code == Code::DeadlineExceeded && teams.candidate(at).is_alive() => {
                    teams.note_late(at);
                    self.elsewhere.push(at);
                }
                Err(problem) if is_everywhere(problem.code) => refusals.push((at, problem)),
                Err(problem) => {
                    if problem.code == Code::EndorsementMismatch {
                        self.report_one(at, &problem);
                    }
                    self.failed.push((at, problem));
                }
            }
        }
        if let Some((_, problem)) = refusals.first()
            && self.made.is_empty()
        {
            return Err(problem.clone());
        }
        // Somebody endorsed what others refuse: one of them is wrong, and the rest decide.
        for (at, problem) in refusals {
            self.report_one(at, &problem);
            self.failed.push((at, problem));
        }
        self.report_groups();
        if !without.is_empty() {
            self.levelled += 1;
            self.level(without);
            let is_same = left_out == self.failed.len() + self.elsewhere.len();
            self.again = is_same.then(|| team.to_vec());
        }
        Ok(())
    }

    /// Of this proposal and height, with the response that was signed.
    fn check(&self, endorsed: Endorsed) -> Result<Made, Problem> {
        let foreign = |what: &str| Problem::new(Code::EndorsementMismatch, what);
        let other = "the endorsed result is not of this proposal and height";
        let result: ledger::Result = canonical::decode(&endorsed.result).map_err(|_| foreign(other))?;
        let fits = result.tx_id == self.checked.tx_id
            && result.contract_digest == self.checked.contract_digest
            && result.snapshot_height == self.height;
        if !fits {
            return Err(foreign(other));
        }
        // What no peer would find valid is not looked at any further: it may hold any number of keys.
        if let Err(rejection) = check_result(&result) {
            return Err(foreign("the endorsed result breaks a rule of its form").with_field(rejection.field));
        }
        // A response travels unsigned; its digest is in the result.
        if response_digest(&self.checked.salt, &endorsed.response)[..] != result.response_digest {
            return Err(foreign("the response is not the one that was signed"));
        }
        Ok(Made { endorsed, result })
    }

    /// Agrees on the height for the next round, after some said that they have nothing of this one.
    ///
    /// An honest peer names its nearest lower height. If that moves it is coming, and what others have
    /// made at this height is kept for it; if it stays, all go down to it. What no peer near to this one
    /// can mean is its own affair and moves nobody else, and who has nothing of what he named himself is
    /// not asked again soon.
    fn level(&mut self, without: Vec<(usize, u64)>) {
        let newest = self.chain.newest(self.checked.partition).unwrap_or(self.height);
        let oldest = newest.saturating_sub(SNAPSHOTS_KEPT as u64 - 1);
        let (mut lowest, mut stays, mut is_broken) = (self.height, false, false);
        for (at, height) in without {
            let before = self.named.insert(at, height);
            let suits = (oldest..self.height).contains(&height) && self.levelled <= LEVELLED_MAX;
            if before == Some(self.height) {
                is_broken = true;
                self.elsewhere.push(at);
            } else if suits {
                stays |= before == Some(height);
                lowest = lowest.min(height);
            } else {
                self.elsewhere.push(at);
            }
        }
        if is_broken {
            // All went down to what one of them does not have.
            self.start_from(newest);
        } else if stays {
            self.height = lowest;
            self.made.clear();
        }
    }

    fn start_from(&mut self, height: u64) {
        self.height = height;
        self.made.clear();
        self.named.clear();
        self.levelled = 0;
    }

    /// Asks those who were left out once more, after a while. `false`: there is no time left.
    ///
    /// Those who are only behind will come to this height, however far that is, and what others have
    /// made stays good meanwhile. Otherwise it is another height's turn.
    pub(super) async fn begin_again(&mut self, deadline: Instant) -> bool {
        if Instant::now() + self.pause >= deadline {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let newest = self.chain.newest(self.checked.partition).unwrap_or(self.height);
        let is_past = |at: &usize| self.named.get(at).is_some_and(|&named| named >= self.height);
        let is_old = newest > self.height + SNAPSHOT_AGE_MAX / 2;
        if is_old || self.elsewhere.iter().any(is_past) {
            self.start_from(newest);
        }
        self.elsewhere.clear();
        true
    }

    /// Whether all of the team have signed the same bytes, and whoever guards the written keys is among them.
    pub(super) fn is_settled(&self, team: &[usize]) -> Result<bool, Problem> {
        let result = |at: &usize| self.made.get(at).map(|made| &made.endorsed.result);
        let same = team.windows(2).all(|pair| result(&pair[0]) == result(&pair[1]));
        if !same || team.first().and_then(result).is_none() {
            return Ok(false);
        }
        let policies = self.key_policies(team)?;
        Ok(policies.iter().all(|policy| self.teams.satisfies(policy, team)))
    }

    pub(super) fn finish(mut self, team: &[usize]) -> Result<Endorsements, Problem> {
        let mut made = team
            .iter()
            .filter_map(|at| self.made.remove(at))
            .map(|made| made.endorsed);
        let first = made
            .next()
            .ok_or_else(|| Problem::internal("a policy was satisfied by nobody"))?;
        let mut signatures = vec![first.signature];
        let mut certificates = vec![first.certificate];
        for other in made {
            signatures.push(other.signature);
            certificates.push(other.certificate);
        }
        Ok(Endorsements {
            result: first.result,
            snapshot: self.height,
            response: first.response,
            signatures,
            certificates,
        })
    }

    /// Both for people to look into: counted each time, said now and then.
    fn report_one(&self, at: usize, problem: &Problem) {
        static SAID: LazyLock<Seldom> = LazyLock::new(Seldom::default);
        let organisation = self.teams.candidate(at).organisation();
        ENDORSER_FAULTS.with_label_values(&[organisation]).inc();
        if !SAID.may(organisation) {
            return;
        }
        let tx_id = hex::encode(self.checked.tx_id);
        tracing::error!(tx_id, organisation, code = %problem.code, "an endorser differs from others");
    }

    /// Once.
    fn report_groups(&mut self) {
        if self.made.len() < 2 || self.is_reported {
            return;
        }
        let groups = self.groups();
        if groups.len() > 1 {
            static SAID: LazyLock<Seldom> = LazyLock::new(Seldom::default);
            self.is_reported = true;
            MISMATCHES.inc();
            let (tx_id, groups) = (hex::encode(self.checked.tx_id), self.names(&groups));
            if SAID.may(&groups) {
                tracing::error!(tx_id, groups, "endorsers disagree");
            }
        }
    }

    fn names(&self, groups: &[Vec<usize>]) -> String {
        let names = |group: &Vec<usize>| {
            let names = group.iter().map(|at| self.teams.candidate(*at).organisation());
            names.collect::<Vec<_>>().join(" and ")
        };
        groups.iter().map(names).collect::<Vec<_>>().join(" / ")
    }

    /// Nobody is left to ask.
    fn unsatisfied(&self, key_policies: &[Policy]) -> Problem {
        // A refusal that is not silence says more than who is missing.
        if let Some((at, problem)) = self.failed.iter().find(|(_, problem)| !is_silence(problem.code)) {
            let organisation = self.teams.candidate(*at).organisation();
            let detail = format!("{organisation}: {}", problem.detail);
            return Problem {
                detail,
                ..problem.clone()
            };
        }
        let failed = |at: usize| self.has_failed(at);
        let missing = self.teams.missing(self.policy, key_policies, &failed);
        let full = self.failed.iter().find(|(at, problem)| {
            let organisation = self.teams.candidate(*at).organisation();
            problem.code == Code::ResourceExhausted && missing.iter().any(|name| name == organisation)
        });
        if let Some((_, problem)) = full {
            return problem.clone();
        }
        let detail = format!(
            "the endorsement policy {} cannot be met: {} away",
            self.policy,
            missing.join(", ")
        );
        Problem::new(Code::PolicyUnsatisfiable, detail)
            .with_missing(missing)
            .with_retry_after(Duration::from_secs(1))
    }

    pub(super) fn out_of_time(&self) -> Problem {
        let mut names: Vec<&str> = self
            .elsewhere
            .iter()
            .map(|at| self.teams.candidate(*at).organisation())
            .collect();
        names.sort_unstable();
        names.dedup();
        let detail = if names.is_empty() {
            "not endorsed in time".to_owned()
        } else {
            format!("not endorsed in time: {} late or at other heights", names.join(", "))
        };
        Problem::new(Code::DeadlineExceeded, detail)
    }
}
