//! Peers that lag, join blocks and answer late are alive: while there is time, they are met somewhere.

use std::ops::Range;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

#[tokio::test]
async fn who_is_behind_sets_the_height_for_all() {
    let net = net(&FOUR);
    net.say(1, Says::Has((90..=97).collect()));
    net.say(2, Says::Has((90..=95).collect()));
    let endorsed = net
        .run("AND('HospitalA.peer', 'HospitalB.peer', 'Ministry.peer')")
        .await
        .expect("endorsed");
    let result = ledger::Result::decode(&endorsed.result[..]).expect("a result");
    assert_eq!(result.snapshot_height, 95);
}

#[tokio::test]
async fn who_joined_blocks_is_met_at_a_lower_height() {
    let net = net(&FOUR);
    net.say(0, Says::Has(vec![90, 95, 97, 100]));
    net.say(1, Says::Has(vec![90, 94, 99, 103]));
    let endorsed = net
        .run("AND('HospitalA.peer', 'HospitalB.peer')")
        .await
        .expect("endorsed");
    let result = ledger::Result::decode(&endorsed.result[..]).expect("a result");
    assert_eq!(result.snapshot_height, 90);
}

#[tokio::test]
async fn who_has_no_common_height_is_left_out() {
    let net = net(&FOUR);
    net.say(0, Says::Has((100..=110).collect()));
    net.say(1, Says::Has(vec![5]));
    for _ in 0..4 {
        let team = net
            .endorse("OutOf(2, 'HospitalA.peer', 'HospitalB.peer', 'Relief.peer')")
            .await
            .expect("endorsed");
        assert_eq!(team, ["HospitalA", "Relief"]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_far_behind_is_asked_again_until_it_has_caught_up() {
    let net = net(&FOUR);
    net.say(1, Says::Has(vec![5]));
    let both = "AND('HospitalA.peer', 'HospitalB.peer')";
    let caught_up = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        net.say(1, Says::Yes);
    };
    let (team, ()) = tokio::join!(net.endorse(both), caught_up);
    assert_eq!(team, Ok(vec!["HospitalA".to_owned(), "HospitalB".to_owned()]));
    assert!(net.asked() < 40, "not in a hurry");
    net.say(1, Says::Has(vec![5]));
    let problem = net.endorse(both).await.expect_err("never");
    assert_eq!(problem.code, Code::DeadlineExceeded);
    assert!(problem.detail.contains("HospitalB"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn who_is_late_and_alive_is_asked_again() {
    let net = net(&FOUR);
    let late = Says::No(Problem::new(Code::DeadlineExceeded, "no reply in time"));
    net.say(1, late.clone());
    let both = "AND('HospitalA.peer', 'HospitalB.peer')";
    let calmer = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        net.say(1, Says::Yes);
    };
    let (team, ()) = tokio::join!(net.endorse(both), calmer);
    assert_eq!(team.map(|team| team.len()), Ok(2));
    net.say(1, late);
    let away = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        net.kill(1);
    };
    let (team, ()) = tokio::join!(net.endorse(both), away);
    let problem = team.expect_err("away");
    assert_eq!(
        (problem.code, problem.missing),
        (Code::PolicyUnsatisfiable, vec!["HospitalB".to_owned()])
    );
}

const ALL: &str = "AND('HospitalA.peer', 'HospitalB.peer', 'Ministry.peer', 'Relief.peer')";

/// How long the ledger of the model grows, a block every so many milliseconds.
const MODEL_MS: u64 = 100_000;
const BLOCK_MS: u64 = 10;
/// How an endorser of the model waits for what is just coming.
const WAIT_MS: u64 = 500;

/// A peer that commits late and joins blocks, as its script says.
struct Late {
    organisation: &'static str,
    began: Instant,
    /// (when, newest height), ascending; what lies between two was joined.
    commits: Vec<(u64, u64)>,
    answers_ms: u64,
}

impl Late {
    /// Commits up to `joins` blocks at once, `lags_ms` after they were ordered.
    fn new(organisation: &'static str, lags_ms: Range<u64>, joins: u64, random: &mut StdRng) -> Self {
        let mut commits = vec![(0, 100)];
        let mut now = 0;
        while now < MODEL_MS {
            let height = commits[commits.len() - 1].1 + random.random_range(1..=joins);
            let ordered = (height - 100) * BLOCK_MS;
            now = now.max(ordered + random.random_range(lags_ms.clone()));
            commits.push((now, height));
        }
        Late {
            organisation,
            began: Instant::now(),
            commits,
            answers_ms: random.random_range(0..80),
        }
    }

    fn committed(&self) -> &[(u64, u64)] {
        let now = self.began.elapsed().as_millis() as u64;
        &self.commits[..self.commits.partition_point(|(at, _)| *at <= now)]
    }

    fn newest(&self) -> u64 {
        self.committed().last().map_or(0, |(_, height)| *height)
    }

    /// As the endorser's `snapshot`.
    async fn snapshot(&self, height: u64) -> Result<(), Problem> {
        let kept = protocol::limits::SNAPSHOTS_KEPT as u64;
        let until = self.began.elapsed().as_millis() as u64 + WAIT_MS;
        while self.newest() < height && height - self.newest() <= kept {
            if self.began.elapsed().as_millis() as u64 >= until {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let oldest = (self.newest() + 1).saturating_sub(kept);
        let heights = self.committed().iter().rev().map(|(_, height)| *height);
        let nearest = heights.take_while(|&kept| kept >= oldest).find(|&kept| kept <= height);
        if nearest == Some(height) {
            return Ok(());
        }
        Err(Problem::new(Code::SnapshotUnavailable, "").with_height(nearest.unwrap_or(self.newest())))
    }
}

#[async_trait]
impl Candidate for Late {
    fn organisation(&self) -> &str {
        self.organisation
    }

    fn is_alive(&self) -> bool {
        true
    }

    async fn endorse(&self, checked: &Checked, height: u64, _: Duration) -> Result<Endorsed, Problem> {
        tokio::time::sleep(Duration::from_millis(self.answers_ms)).await;
        self.snapshot(height).await?;
        Ok(endorsed(self.organisation, checked, height, b"yes".to_vec()))
    }
}

/// Sees what the first of the late ones does: it is the gateway's own peer.
struct LateChain(Arc<Late>);

impl Chain for LateChain {
    fn newest(&self, _: u32) -> Option<u64> {
        Some(self.0.newest())
    }

    fn key_policies(&self, _: u32, _: &ledger::Result) -> Result<Vec<Policy>, Problem> {
        Ok(Vec::new())
    }
}

/// When all are alive, every endorsement succeeds.
async fn check(seed: u64, policy: &str, lag_ms_max: u64, joins_max: u64) -> Result<(), Problem> {
    let mut random = StdRng::seed_from_u64(seed);
    let late = |organisation: &&'static str| {
        let joins = random.random_range(1..=joins_max);
        // A gateway that is itself behind by more than others keep has nothing that it could ask them for.
        let lag = match *organisation {
            "HospitalA" => random.random_range(1..=lag_ms_max.min(400)),
            _ => random.random_range(1..=lag_ms_max),
        };
        Arc::new(Late::new(organisation, lag / 2..lag + 1, joins, &mut random))
    };
    let late: Vec<Arc<Late>> = FOUR.iter().map(late).collect();
    let chain = LateChain(Arc::clone(&late[0]));
    let teams = Teams::new(late.into_iter().map(|late| late as Arc<dyn Candidate>).collect());
    let policy = Policy::parse(policy).expect("a policy");
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(777)).await;
        let deadline = Instant::now() + Duration::from_secs(30);
        endorse(&teams, &chain, &policy, &checked(), Duration::from_secs(5), deadline).await?;
    }
    Ok(())
}

fn paused() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn lag_never_ends_an_endorsement(seed: u64, lag_ms_max in 1..2_000_u64) {
        for policy in [TWO, ALL] {
            prop_assert_eq!(paused().block_on(check(seed, policy, lag_ms_max, 1)), Ok(()));
        }
    }

    // What a peer committed together with others it will never have a snapshot of, so their windows must
    // overlap.
    #[test]
    fn joined_blocks_never_end_an_endorsement(seed: u64, lag_ms_max in 1..400_u64) {
        for (policy, joins_max) in [(TWO, 12), (ALL, 2)] {
            prop_assert_eq!(paused().block_on(check(seed, policy, lag_ms_max, joins_max)), Ok(()));
        }
    }
}
