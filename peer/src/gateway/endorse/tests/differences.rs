//! One who differs from the others ends nothing that they can do without him.

use super::*;
use crate::metrics::{ENDORSER_FAULTS, MISMATCHES};

#[tokio::test]
async fn endorsers_that_disagree_are_named() {
    let net = net(&FOUR);
    net.say(1, Says::Other);
    let before = MISMATCHES.get();
    let problem = net
        .endorse("AND('HospitalA.peer', 'HospitalB.peer', 'Relief.peer')")
        .await
        .expect_err("mismatch");
    assert_eq!(problem.code, Code::EndorsementMismatch);
    assert!(MISMATCHES.get() > before);
    assert!(
        problem.detail.contains("HospitalA and Relief") && problem.detail.contains("HospitalB"),
        "{problem}"
    );
}

#[tokio::test]
async fn who_differs_is_left_out_where_others_agree() {
    for says in [
        Says::Other,
        Says::Mislabels,
        Says::Mixes,
        Says::No(Problem::new(Code::ContractRejected, "no")),
    ] {
        let net = net(&FOUR);
        net.say(1, says);
        for _ in 0..12 {
            let team = net.endorse(TWO).await.expect("others agree");
            assert!(team.len() == 2 && !team.contains(&"HospitalB".to_owned()), "{team:?}");
        }
        assert!(net.fakes[1].asked.load(Ordering::Relaxed) > 0, "it was asked");
    }
}

#[tokio::test]
async fn when_this_peer_differs_the_others_endorse() {
    let net = net(&FOUR);
    net.say(0, Says::Other);
    for _ in 0..12 {
        let mut team = net.endorse(TWO).await.expect("others agree");
        team.sort();
        assert!(!team.contains(&"HospitalA".to_owned()), "{team:?}");
    }
}

#[tokio::test]
async fn half_against_half_is_met_by_the_half_of_this_peer() {
    let net = net(&FOUR);
    net.say(2, Says::Other);
    net.say(3, Says::Other);
    for _ in 0..12 {
        let mut team = net.endorse(TWO).await.expect("two agree");
        team.sort();
        assert!(
            team == ["HospitalA", "HospitalB"] || team == ["Ministry", "Relief"],
            "{team:?}"
        );
    }
}

#[tokio::test]
async fn who_differs_and_cannot_be_spared_is_named() {
    let faults = ENDORSER_FAULTS.with_label_values(&["HospitalB"]);
    for (says, code) in [
        (Says::Mislabels, Code::EndorsementMismatch),
        (Says::Mixes, Code::EndorsementMismatch),
        (
            Says::No(Problem::new(Code::ContractRejected, "no")),
            Code::ContractRejected,
        ),
    ] {
        let net = net(&FOUR);
        net.say(1, says);
        let before = faults.get();
        let problem = net
            .endorse("AND('HospitalA.peer', 'HospitalB.peer')")
            .await
            .expect_err("differs");
        assert_eq!(problem.code, code);
        assert!(problem.detail.starts_with("HospitalB: "), "{problem}");
        assert!(faults.get() > before, "{code:?}");
    }
}

#[tokio::test]
async fn what_all_refuse_is_refused_by_the_contract() {
    let net = net(&FOUR);
    for at in 0..4 {
        net.say(
            at,
            Says::No(Problem::new(Code::ContractRejected, "exists").with_field("id")),
        );
    }
    let problem = net.endorse(TWO).await.expect_err("rejected");
    assert_eq!(
        (problem.code, &*problem.field, &*problem.detail),
        (Code::ContractRejected, "id", "exists")
    );
    assert_eq!(net.asked(), 2);
}

#[tokio::test]
async fn who_names_absurd_heights_moves_nobody() {
    for height in [0, 30, 100, 1_000, u64::MAX] {
        let net = net(&FOUR);
        net.say(1, Says::Liar(height));
        for _ in 0..6 {
            let endorsed = net.run(TWO).await.expect("others stand here");
            let result = ledger::Result::decode(&endorsed.result[..]).expect("a result");
            assert_eq!(result.snapshot_height, 100, "with {height}");
        }
    }
}

#[tokio::test]
async fn who_does_not_keep_his_word_on_a_height_is_left_out() {
    let net = net(&FOUR);
    net.say(1, Says::Liar(60));
    for _ in 0..6 {
        let endorsed = net.run(TWO).await.expect("others stand here");
        let result = ledger::Result::decode(&endorsed.result[..]).expect("a result");
        assert_eq!(result.snapshot_height, 100);
    }
}
