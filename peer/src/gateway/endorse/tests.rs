//! Who is asked, at which height, and what is said when that is not enough.

mod differences;
mod heights;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use prost::Message as _;
use protocol::keys::response_digest;
use protocol::transaction::Actor;

use super::*;

/// A peer that signs nothing and answers as it is told.
struct Fake {
    organisation: &'static str,
    alive: AtomicBool,
    says: Mutex<Says>,
    asked: AtomicU32,
}

#[derive(Clone)]
enum Says {
    Yes,
    Other,
    No(Problem),
    /// Has snapshots of these heights.
    Has(Vec<u64>),
    /// Has nothing, and names this height.
    Liar(u64),
    /// Signs a result of another height.
    Mislabels,
    /// The response is not the signed one.
    Mixes,
}

#[async_trait]
impl Candidate for Fake {
    fn organisation(&self) -> &str {
        self.organisation
    }

    fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    async fn endorse(&self, checked: &Checked, height: u64, _: Duration) -> Result<Endorsed, Problem> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let response = match self.says.lock().clone() {
            Says::No(problem) => return Err(problem),
            Says::Has(heights) if !heights.contains(&height) => {
                let lower = heights.iter().copied().filter(|&other| other < height).max();
                let own = lower.or(heights.iter().copied().max()).unwrap_or(0);
                return Err(Problem::new(Code::SnapshotUnavailable, "").with_height(own));
            }
            Says::Other => b"other".to_vec(),
            Says::Liar(height) => return Err(Problem::new(Code::SnapshotUnavailable, "").with_height(height)),
            Says::Mislabels => return Ok(endorsed(self.organisation, checked, height + 1, b"yes".to_vec())),
            Says::Mixes => {
                let mixed = endorsed(self.organisation, checked, height, b"yes".to_vec());
                let response = b"no".to_vec();
                return Ok(Endorsed { response, ..mixed });
            }
            Says::Yes | Says::Has(_) => b"yes".to_vec(),
        };
        Ok(endorsed(self.organisation, checked, height, response))
    }
}

fn endorsed(organisation: &str, checked: &Checked, height: u64, response: Vec<u8>) -> Endorsed {
    let result = ledger::Result {
        tx_id: checked.tx_id.to_vec(),
        contract_digest: checked.contract_digest.to_vec(),
        snapshot_height: height,
        snapshot_header: vec![1; 32],
        response_digest: response_digest(&checked.salt, &response).to_vec(),
        ..Default::default()
    };
    Endorsed {
        result: result.encode_to_vec(),
        response,
        signature: Signature::default(),
        certificate: Arc::from(organisation.as_bytes()),
    }
}

#[derive(Default)]
struct FakeChain {
    newest: AtomicU64,
    key_policies: Mutex<Vec<Policy>>,
}

impl Chain for FakeChain {
    fn newest(&self, _: u32) -> Option<u64> {
        Some(self.newest.load(Ordering::Relaxed))
    }

    fn key_policies(&self, _: u32, _: &ledger::Result) -> Result<Vec<Policy>, Problem> {
        Ok(self.key_policies.lock().clone())
    }
}

struct Net {
    fakes: Vec<Arc<Fake>>,
    teams: Teams,
    chain: FakeChain,
}

const FOUR: [&str; 4] = ["HospitalA", "HospitalB", "Ministry", "Relief"];

fn net(organisations: &[&'static str]) -> Net {
    let fake = |organisation: &&'static str| {
        Arc::new(Fake {
            organisation,
            alive: AtomicBool::new(true),
            says: Mutex::new(Says::Yes),
            asked: AtomicU32::new(0),
        })
    };
    let fakes: Vec<Arc<Fake>> = organisations.iter().map(fake).collect();
    let teams = Teams::new(
        fakes
            .iter()
            .map(|fake| Arc::clone(fake) as Arc<dyn Candidate>)
            .collect(),
    );
    let chain = FakeChain::default();
    chain.newest.store(100, Ordering::Relaxed);
    Net { fakes, teams, chain }
}

fn checked() -> Checked {
    Checked {
        bytes: Vec::new(),
        proposal: Default::default(),
        signature: Signature::default(),
        certificate: Vec::new(),
        actor: Actor {
            organisation: String::new(),
            common_name: String::new(),
            role: String::new(),
            attributes: Vec::new(),
            asserted: false,
        },
        tx_id: [3; 32],
        contract_digest: [4; 32],
        partition_key: [5; 32],
        partition: 0,
        salt: [6; 32],
        arguments: Vec::new(),
        routed: None,
    }
}

impl Net {
    async fn endorse(&self, policy: &str) -> Result<Vec<String>, Problem> {
        let endorsed = self.run(policy).await?;
        let names = endorsed
            .certificates
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned());
        Ok(names.collect())
    }

    async fn run(&self, policy: &str) -> Result<Endorsements, Problem> {
        let policy = Policy::parse(policy).expect("a policy");
        let deadline = Instant::now() + Duration::from_secs(5);
        endorse(
            &self.teams,
            &self.chain,
            &policy,
            &checked(),
            Duration::from_secs(1),
            deadline,
        )
        .await
    }

    fn asked(&self) -> u32 {
        self.fakes.iter().map(|fake| fake.asked.load(Ordering::Relaxed)).sum()
    }

    fn kill(&self, at: usize) {
        self.fakes[at].alive.store(false, Ordering::Relaxed);
    }

    fn say(&self, at: usize, says: Says) {
        *self.fakes[at].says.lock() = says;
    }
}

const ANY: &str = "OR('HospitalA.peer', 'HospitalB.peer', 'Ministry.peer', 'Relief.peer')";
const TWO: &str = "OutOf(2, 'HospitalA.peer', 'HospitalB.peer', 'Ministry.peer', 'Relief.peer')";

#[tokio::test]
async fn where_one_is_enough_this_peer_is_asked_and_nobody_else() {
    let net = net(&FOUR);
    for _ in 0..5 {
        assert_eq!(net.endorse(ANY).await, Ok(vec!["HospitalA".to_owned()]));
    }
    assert_eq!(net.asked(), 5);
}

#[tokio::test]
async fn of_two_one_is_this_peer_and_the_others_take_turns() {
    let net = net(&FOUR);
    for _ in 0..30 {
        let team = net.endorse(TWO).await.expect("endorsed");
        assert_eq!((team.len(), team.contains(&"HospitalA".to_owned())), (2, true));
    }
    let asked: Vec<u32> = net
        .fakes
        .iter()
        .map(|fake| fake.asked.load(Ordering::Relaxed))
        .collect();
    assert_eq!(asked[0], 30);
    assert!(asked[1..].iter().all(|&asked| asked >= 5), "{asked:?}");
}

#[tokio::test]
async fn who_is_not_alive_is_not_asked() {
    let net = net(&FOUR);
    net.kill(0);
    net.kill(1);
    assert_eq!(
        net.endorse(TWO).await,
        Ok(vec!["Ministry".to_owned(), "Relief".to_owned()])
    );
    assert_eq!(net.asked(), 2);
}

#[tokio::test]
async fn who_falls_silent_is_replaced_and_what_was_made_is_kept() {
    let net = net(&FOUR);
    for at in [1, 2] {
        net.say(at, Says::No(Problem::unavailable("gone")));
    }
    for _ in 0..6 {
        assert_eq!(
            net.endorse(TWO).await,
            Ok(vec!["HospitalA".to_owned(), "Relief".to_owned()])
        );
    }
    assert_eq!(net.fakes[0].asked.load(Ordering::Relaxed), 6, "each time once");
}

#[tokio::test]
async fn who_lets_endorsements_time_out_is_avoided_for_a_while() {
    let net = net(&FOUR);
    for at in [1, 2] {
        net.say(at, Says::No(Problem::new(Code::DeadlineExceeded, "")));
    }
    for _ in 0..6 {
        let made = net.endorse(TWO).await;
        assert_eq!(made, Ok(vec!["HospitalA".to_owned(), "Relief".to_owned()]));
    }
    let asked = |at: usize| net.fakes[at].asked.load(Ordering::Relaxed);
    assert_eq!((asked(1), asked(2)), (1, 1), "each once, and not for every transaction");
    // Where nobody else will do it is asked all the same.
    net.say(1, Says::Yes);
    assert!(net.endorse("AND('HospitalA.peer', 'HospitalB.peer')").await.is_ok());
    assert_eq!(asked(1), 2);
}

#[tokio::test]
async fn a_policy_that_cannot_be_met_names_the_missing_at_once() {
    let net = net(&FOUR);
    net.kill(1);
    net.kill(3);
    let began = Instant::now();
    let problem = net
        .endorse("AND('HospitalA.peer', 'HospitalB.peer', 'Relief.peer')")
        .await
        .expect_err("missing");
    assert_eq!(problem.code, Code::PolicyUnsatisfiable);
    assert_eq!(problem.missing, ["HospitalB", "Relief"]);
    assert!(began.elapsed() < Duration::from_millis(200));
    assert_eq!(net.asked(), 0);
    net.kill(2);
    let problem = net.endorse(TWO).await.expect_err("missing");
    assert_eq!(
        problem.missing,
        ["HospitalB", "Ministry", "Relief"],
        "any of them would do"
    );
    assert!(net.endorse(ANY).await.is_ok(), "and OR goes on");
}

#[tokio::test]
async fn who_does_not_answer_counts_as_missing() {
    let net = net(&FOUR);
    net.say(1, Says::No(Problem::unavailable("gone")));
    let problem = net
        .endorse("AND('HospitalA.peer', 'HospitalB.peer')")
        .await
        .expect_err("missing");
    assert_eq!(
        (problem.code, problem.missing),
        (Code::PolicyUnsatisfiable, vec!["HospitalB".to_owned()])
    );
}

#[tokio::test]
async fn a_full_endorser_is_429_unless_another_does() {
    let net = net(&FOUR);
    net.say(1, Says::No(Problem::exhausted(Duration::from_millis(50), "busy")));
    assert!(net.endorse(TWO).await.is_ok());
    let problem = net
        .endorse("AND('HospitalA.peer', 'HospitalB.peer')")
        .await
        .expect_err("busy");
    assert_eq!(
        (problem.code, problem.retry_after),
        (Code::ResourceExhausted, Some(Duration::from_millis(50)))
    );
}

#[tokio::test]
async fn the_contracts_no_is_final() {
    let net = net(&FOUR);
    net.say(
        0,
        Says::No(Problem::new(Code::ContractRejected, "exists").with_field("id")),
    );
    let problem = net.endorse(ANY).await.expect_err("rejected");
    assert_eq!((problem.code, &*problem.field), (Code::ContractRejected, "id"));
    assert_eq!(net.asked(), 1);
}

#[tokio::test]
async fn a_refusal_of_the_creator_says_whose_it_is() {
    let net = net(&FOUR);
    net.say(1, Says::No(Problem::new(Code::Revoked, "on the list")));
    let problem = net
        .endorse("AND('HospitalA.peer', 'HospitalB.peer')")
        .await
        .expect_err("revoked");
    assert_eq!(
        (problem.code, &*problem.detail),
        (Code::Revoked, "HospitalB: on the list")
    );
}

#[tokio::test]
async fn a_keys_own_policy_asks_for_more() {
    let net = net(&FOUR);
    *net.chain.key_policies.lock() = vec![Policy::parse("AND('HospitalB.peer', 'Relief.peer')").expect("a policy")];
    let mut team = net.endorse(ANY).await.expect("endorsed");
    team.sort();
    assert_eq!(team, ["HospitalB", "Relief"], "two satisfy both, so two are enough");
    net.kill(3);
    let problem = net.endorse(ANY).await.expect_err("missing");
    assert_eq!(
        (problem.code, problem.missing),
        (Code::PolicyUnsatisfiable, vec!["Relief".to_owned()])
    );
}

#[tokio::test]
async fn an_organisation_that_must_sign_twice_needs_two_peers() {
    let policy = "AND('HospitalA.peer', 'HospitalA.peer')";
    let problem = net(&FOUR).endorse(policy).await.expect_err("one peer only");
    assert_eq!(problem.code, Code::PolicyUnsatisfiable);
    let team = net(&["HospitalA", "HospitalA", "HospitalB"])
        .endorse(policy)
        .await
        .expect("two peers");
    assert_eq!(team.len(), 2);
}

#[tokio::test]
async fn only_peers_endorse() {
    let problem = net(&FOUR)
        .endorse("AND('HospitalA.admin', 'HospitalA.peer')")
        .await
        .expect_err("no admin signs");
    assert_eq!(problem.code, Code::PolicyUnsatisfiable);
}
