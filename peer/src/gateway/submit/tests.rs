//! From intent to finality, on a log in memory with an orderer that misbehaves as told.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use protocol::ledger::Kind;
use service::rpc::{self, Finality, Submission, submit_reply, submit_request::Intent};
use service::{Code, Problem};

use super::judge::{Verdict, judge};
use super::*;
use crate::gateway::config::{Limits, Quotas};
use crate::gateway::testing::{Mood, Rig};

fn outcome(reply: rpc::SubmitReply) -> Result<Submission, Problem> {
    match reply.outcome.expect("an outcome") {
        submit_reply::Outcome::Submission(submission) => Ok(submission),
        submit_reply::Outcome::Problem(problem) => Err(problem.into()),
    }
}

#[tokio::test]
async fn a_call_is_endorsed_ordered_committed_and_read() {
    let rig = Rig::new().await;
    let reply = rig.submit("create", r#"["one", "first"]"#, Finality::Committed).await;
    assert_eq!(reply.tx_id.len(), 32);
    let submission = outcome(reply).expect("committed");
    assert_eq!(
        (submission.reached(), &*submission.code),
        (Finality::Committed, "VALID")
    );
    assert_eq!((submission.endorsements, &*submission.response), (1, &b"true"[..]));
    assert!(submission.receipt.is_some());
    assert_eq!(rig.evaluate("read", r#"["one"]"#).await.expect("read"), "first");
    assert_eq!(rig.evaluate("changes", r#"["one"]"#).await.expect("read"), "1");
    outcome(rig.submit("create", r#"["two", "second"]"#, Finality::Committed).await).expect("committed");
    assert_eq!(
        rig.evaluate("all", r#"[""]"#).await.expect("read"),
        "2",
        "over all partitions"
    );
}

#[tokio::test]
async fn ordered_is_the_receipt() {
    let rig = Rig::new().await;
    let submission = outcome(rig.submit("create", r#"["one"]"#, Finality::Ordered).await).expect("ordered");
    assert_eq!(
        (submission.reached(), &*submission.code, submission.height),
        (Finality::Ordered, "", 1)
    );
}

#[tokio::test]
async fn nobody_is_told_of_a_place_at_which_it_can_only_be_invalid() {
    let rig = Rig::new().await;
    rig.orderer.expect(&[Mood::ComesLate]);
    let submission = outcome(rig.submit("create", r#"["one", "first"]"#, Finality::Ordered).await).expect("ordered");
    assert_eq!(submission.endorsements, 2, "endorsed again on what is newer");
    let deadline = Instant::now() + Duration::from_secs(10);
    let ledger = &rig.a.ledger;
    assert!(ledger.reached(submission.partition, submission.height, deadline).await);
    assert_eq!(rig.evaluate("read", r#"["one"]"#).await.expect("it is there"), "first");
}

#[tokio::test]
async fn a_peer_that_has_begun_again_takes_nothing_until_it_has_come_to_the_end() {
    let rig = Rig::new().await;
    rig.a.ledger.replaying.store(true, Ordering::Relaxed);
    for wait in [Finality::Ordered, Finality::Committed] {
        let problem = outcome(rig.submit("create", r#"["one"]"#, wait).await).expect_err("it is behind");
        assert_eq!(problem.code, Code::Unavailable);
    }
    let problem = rig.evaluate("read", r#"["one"]"#).await.expect_err("it is behind");
    assert_eq!(problem.code, Code::Unavailable);
    let plan = rig
        .gateway
        .prepared(Some(Rig::call("create", r#"["one"]"#)), &rig.caller())
        .await;
    assert_eq!(plan.expect_err("it is behind").code, Code::Unavailable);
    assert_eq!(rig.orderer.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_receipt_that_proves_nothing_is_none() {
    let rig = Rig::new().await;
    rig.orderer.expect(&[Mood::Pretends]);
    let faults = RECEIPT_FAULTS.with_label_values(&["no_proof"]);
    let before = faults.get();
    let submission = outcome(rig.submit("create", r#"["one"]"#, Finality::Ordered).await).expect("ordered");
    assert_eq!(rig.orderer.asked.load(Ordering::Relaxed), 2, "sent to somebody else");
    assert!(faults.get() > before);
    assert!(submission.receipt.is_some());
}

#[tokio::test]
async fn a_receipt_whose_place_is_another_ones_is_not_waited_for() {
    let rig = Rig::new().await;
    rig.orderer.expect(&[Mood::BreaksWord, Mood::BreaksWord]);
    let faults = RECEIPT_FAULTS.with_label_values(&["not_there"]);
    let before = faults.get();
    let submission = outcome(rig.submit("create", r#"["one"]"#, Finality::Committed).await).expect("committed");
    assert_eq!((&*submission.code, submission.height), ("VALID", 3));
    assert_eq!(submission.endorsements, 1, "the same transaction, sent again");
    assert!(faults.get() > before);
    rig.orderer.expect(&vec![Mood::BreaksWord; BROADCASTS_MAX]);
    let problem = outcome(rig.submit("create", r#"["two"]"#, Finality::Committed).await).expect_err("never ordered");
    assert_eq!(problem.code, Code::UnknownOutcome);
}

#[tokio::test]
async fn without_a_quorum_attested_says_what_was_reached() {
    let rig = Rig::new().await;
    let intent = Intent::Call(Rig::call("create", r#"["one"]"#));
    let submission = outcome(rig.submit_intent(intent, Finality::Attested, 300).await).expect("committed");
    assert_eq!(
        (submission.reached(), &*submission.code),
        (Finality::Committed, "VALID")
    );
}

#[tokio::test]
async fn losers_of_a_conflict_are_endorsed_again() {
    let rig = Rig::new().await;
    let replies = join_all((0..4).map(|_| rig.submit("add", r#"["one"]"#, Finality::Committed))).await;
    let submissions: Vec<Submission> = replies
        .into_iter()
        .map(|reply| outcome(reply).expect("VALID"))
        .collect();
    let mut responses: Vec<String> = submissions
        .iter()
        .map(|one| String::from_utf8_lossy(&one.response).into_owned())
        .collect();
    responses.sort();
    assert_eq!(
        responses,
        ["1", "2", "3", "4"],
        "each response is of the endorsement that won"
    );
    assert!(submissions.iter().any(|one| one.endorsements > 1));
    assert_eq!(rig.evaluate("read", r#"["one"]"#).await.expect("read"), "4");
}

#[tokio::test]
async fn conflicts_are_the_clients_after_a_bounded_number() {
    let rig = Rig::with(
        Limits {
            endorsements_max: 1,
            ..Limits::default()
        },
        Quotas::default(),
    )
    .await;
    let replies = join_all((0..3).map(|_| rig.submit("add", r#"["one"]"#, Finality::Committed))).await;
    let problems: Vec<Problem> = replies.into_iter().filter_map(|reply| outcome(reply).err()).collect();
    assert_eq!(problems.len(), 2);
    assert!(problems.iter().all(|problem| problem.code == Code::MvccConflict));
}

#[tokio::test]
async fn a_lost_reply_is_found_in_the_ledger() {
    let rig = Rig::new().await;
    rig.orderer.expect(&[Mood::LosesReply]);
    let submission = outcome(rig.submit("create", r#"["one"]"#, Finality::Committed).await).expect("committed");
    assert_eq!((&*submission.code, submission.endorsements), ("VALID", 1));
    assert_eq!(rig.orderer.asked.load(Ordering::Relaxed), 1, "it was not sent again");
}

#[tokio::test]
async fn a_lost_transaction_is_sent_again_under_the_same_tx_id() {
    let rig = Rig::new().await;
    rig.orderer.expect(&[Mood::LosesAll]);
    let submission = outcome(rig.submit("create", r#"["one"]"#, Finality::Committed).await).expect("committed");
    assert_eq!((&*submission.code, submission.endorsements), ("VALID", 1));
    assert_eq!(rig.orderer.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn without_an_answer_in_time_the_outcome_is_unknown_and_has_its_tx_id() {
    let rig = Rig::new().await;
    rig.orderer.expect(&[Mood::LosesAll, Mood::LosesAll, Mood::LosesAll]);
    let signed = rig.signed(("create", "one", r#"["one"]"#), Kind::Submit, |_| {});
    let tx_id = protocol::sha256(&signed.proposal);
    let reply = rig
        .submit_intent(Intent::Signed(signed.clone()), Finality::Committed, 500)
        .await;
    assert_eq!(reply.tx_id, tx_id);
    assert_eq!(outcome(reply).expect_err("unknown").code, Code::UnknownOutcome);
    rig.orderer.expect(&[]);
    let again = outcome(
        rig.submit_intent(Intent::Signed(signed), Finality::Committed, 5_000)
            .await,
    );
    assert_eq!(again.expect("the same proposal again").code, "VALID");
}

#[tokio::test]
async fn a_bad_copy_in_front_does_not_end_the_wait() {
    let rig = Rig::new().await;
    rig.orderer.expect(&[Mood::FollowsCopy]);
    let submission = outcome(rig.submit("create", r#"["one"]"#, Finality::Committed).await).expect("committed");
    assert_eq!((&*submission.code, submission.height), ("VALID", 2));
}

#[tokio::test]
async fn without_a_receipt_a_bad_copy_says_nothing() {
    let rig = Rig::new().await;
    rig.orderer.expect(&[Mood::OnlyCopies]);
    let submission = outcome(rig.submit("create", r#"["one"]"#, Finality::Committed).await).expect("committed");
    assert_eq!((&*submission.code, submission.endorsements), ("VALID", 1), "sent again");
    rig.orderer.expect(&vec![Mood::OnlyCopies; 20]);
    let intent = Intent::Call(Rig::call("create", r#"["two"]"#));
    let problem = outcome(rig.submit_intent(intent, Finality::Committed, 300).await).expect_err("unknown");
    assert_eq!(problem.code, Code::UnknownOutcome);
    assert!(problem.detail.contains("BAD_ENDORSEMENT_SIGNATURE"), "{problem}");
}

#[tokio::test]
async fn a_retry_of_what_is_valid_returns_where_it_is() {
    let rig = Rig::new().await;
    let signed = rig.signed(("create", "one", r#"["one"]"#), Kind::Submit, |_| {});
    let first = rig
        .submit_intent(Intent::Signed(signed.clone()), Finality::Committed, 5_000)
        .await;
    let first = outcome(first).expect("committed");
    let again = rig
        .submit_intent(Intent::Signed(signed), Finality::Committed, 5_000)
        .await;
    let again = outcome(again).expect("known");
    assert_eq!(
        (again.height, again.index, again.endorsements),
        (first.height, first.index, 0)
    );
    assert_eq!(rig.orderer.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn full_orderers_are_waited_out_for_a_moment_then_429() {
    let limits = Limits {
        order_patience_ms: 300,
        ..Limits::default()
    };
    let rig = Rig::with(limits, Quotas::default()).await;
    let full = Mood::Refuses(Problem::exhausted(Duration::from_millis(20), "full"));
    rig.orderer.expect(&[full.clone(), Mood::Away, full.clone()]);
    outcome(rig.submit("create", r#"["one"]"#, Finality::Committed).await).expect("committed after all");
    rig.orderer.expect(&vec![full; 1_000]);
    let reply = rig.submit("create", r#"["two"]"#, Finality::Committed).await;
    let problem = outcome(reply).expect_err("full");
    assert_eq!(
        (problem.code, problem.retry_after),
        (Code::ResourceExhausted, Some(Duration::from_millis(20)))
    );
}

#[tokio::test]
async fn an_orderers_no_is_final() {
    let rig = Rig::new().await;
    rig.orderer
        .expect(&[Mood::Refuses(Problem::new(Code::BadSignature, "no"))]);
    let problem = outcome(rig.submit("create", r#"["one"]"#, Finality::Committed).await).expect_err("refused");
    assert_eq!(problem.code, Code::BadSignature);
}

#[tokio::test]
async fn a_policy_of_two_is_endorsed_by_two_and_named_when_one_is_away() {
    let rig = Rig::new().await;
    outcome(rig.submit("both", r#"["one"]"#, Finality::Committed).await).expect("committed");
    assert_eq!(rig.b_seen.asked.load(Ordering::Relaxed), 1);
    rig.b_seen.alive.store(false, Ordering::Relaxed);
    let problem = outcome(rig.submit("both", r#"["two"]"#, Finality::Committed).await).expect_err("away");
    assert_eq!(
        (problem.code, problem.missing),
        (Code::PolicyUnsatisfiable, vec!["HospitalB".to_owned()])
    );
    outcome(rig.submit("create", r#"["two"]"#, Finality::Committed).await).expect("any of them goes on");
}

#[tokio::test]
async fn without_own_workers_another_organisation_endorses() {
    let rig = Rig::new().await;
    let signed = rig.signed(("create", "one", r#"["one"]"#), Kind::Submit, |_| {});
    rig.a.worker.down.store(true, Ordering::Relaxed);
    let submission = rig
        .submit_intent(Intent::Signed(signed), Finality::Committed, 5_000)
        .await;
    assert_eq!(outcome(submission).expect("committed").code, "VALID");
    assert_eq!(rig.b_seen.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn endorsers_that_disagree_change_nothing() {
    let rig = Rig::new().await;
    rig.b.worker.differs.store(true, Ordering::Relaxed);
    let problem = outcome(rig.submit("both", r#"["one"]"#, Finality::Committed).await).expect_err("mismatch");
    assert_eq!(problem.code, Code::EndorsementMismatch);
    assert_eq!(rig.orderer.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_key_with_a_policy_of_its_own_gets_the_endorsements_that_it_asks_for() {
    let rig = Rig::new().await;
    outcome(rig.submit("lock", r#"["one"]"#, Finality::Committed).await).expect("committed");
    let submission = outcome(rig.submit("create", r#"["one"]"#, Finality::Committed).await).expect("committed");
    assert_eq!(submission.code, "VALID");
    assert_eq!(rig.b_seen.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_contracts_no_and_its_traps_reach_the_client() {
    let rig = Rig::new().await;
    outcome(rig.submit("create", r#"["one"]"#, Finality::Committed).await).expect("committed");
    let problem = outcome(rig.submit("create", r#"["one"]"#, Finality::Committed).await).expect_err("exists");
    assert_eq!((problem.code, &*problem.field), (Code::ContractRejected, "subject"));
    let code = async |function: &str, arguments: &str| {
        outcome(rig.submit(function, arguments, Finality::Committed).await)
            .expect_err("refused")
            .code
    };
    assert_eq!(code("trap", r#"["one"]"#).await, Code::Trapped);
    assert_eq!(code("absent", r#"["one"]"#).await, Code::UnknownFunction);
    assert_eq!(code("create", r#"[]"#).await, Code::BadArguments);
    assert_eq!(code("read", r#"["one"]"#).await, Code::WrongKind);
    assert_eq!(
        rig.evaluate("create", r#"["one"]"#).await.expect_err("a change").code,
        Code::WrongKind
    );
}

#[tokio::test]
async fn ranges_are_protected_and_committed() {
    let rig = Rig::new().await;
    outcome(rig.submit("create", r#"["one"]"#, Finality::Committed).await).expect("committed");
    let counted = outcome(rig.submit("count", r#"["one"]"#, Finality::Committed).await).expect("committed");
    assert_eq!((&*counted.code, &*counted.response), ("VALID", &b"1"[..]));
    // Two that count at once: the second one's range has changed.
    let replies = join_all((0..2).map(|_| rig.submit("count", r#"["one"]"#, Finality::Committed))).await;
    let again: Vec<u32> = replies
        .into_iter()
        .map(|reply| outcome(reply).expect("VALID").endorsements)
        .collect();
    assert!(again.contains(&2), "{again:?}");
}

#[tokio::test]
async fn beyond_the_gate_the_answer_is_429_at_once() {
    let rig = Rig::with(
        Limits {
            in_flight_max: 4,
            ..Limits::default()
        },
        Quotas::default(),
    )
    .await;
    let calls = (0..20).map(|i| {
        let rig = &rig;
        async move { outcome(rig.submit("create", &format!(r#"["p{i}"]"#), Finality::Committed).await) }
    });
    let outcomes = join_all(calls).await;
    let refused: Vec<&Problem> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(
        outcomes.len() - refused.len(),
        2,
        "one client alone has half of the places, and is served there"
    );
    assert!(
        refused
            .iter()
            .all(|problem| problem.code == Code::ResourceExhausted && problem.retry_after.is_some())
    );
}

#[tokio::test]
async fn a_clients_quota_is_in_bytes_and_its_own() {
    let quotas = Quotas {
        client_bytes_per_second: 1,
        client_burst_bytes: 1,
        ..Quotas::default()
    };
    let rig = Rig::with(Limits::default(), quotas).await;
    let large = format!(r#"["one", "{}"]"#, "x".repeat(60_000));
    let mut refusals = 0;
    for _ in 0..6 {
        let reply = rig.submit("create", &large, Finality::Committed).await;
        refusals += u32::from(outcome(reply).is_err_and(|problem| problem.code == Code::ResourceExhausted));
    }
    assert_eq!(refusals, 2, "four fit into the least burst");
}

#[test]
fn what_follows_from_each_code() {
    let at = |code| TxStatus {
        partition: 0,
        height: 10,
        index: 0,
        code,
    };
    let says = |code, endorsements, bound| judge(at(code), endorsements, 3, bound);
    assert_eq!(says(code::Code::Valid, 1, 20), Verdict::Valid);
    assert_eq!(says(code::Code::Duplicate, 1, 20), Verdict::Elsewhere);
    for lost in code::Code::ALL.iter().copied().filter(|code| code.is_conflict()) {
        assert_eq!(says(lost, 1, 20), Verdict::Again, "{lost}");
        assert_eq!(says(lost, 2, 11), Verdict::Again, "{lost}");
        for (endorsements, bound) in [(3, 20), (1, 10)] {
            let Verdict::Refused(problem) = says(lost, endorsements, bound) else {
                panic!("{lost} is over")
            };
            assert_eq!(problem.code, Code::MvccConflict);
        }
    }
    let Verdict::Refused(problem) = says(code::Code::PolicyNotSatisfied, 1, 20) else {
        panic!("final")
    };
    assert_eq!(problem.code, Code::TransactionInvalid);
    assert!(problem.detail.starts_with("POLICY_NOT_SATISFIED"));
}
