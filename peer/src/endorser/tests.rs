//! Bad proposals each get their own clear refusal; two endorsers sign the same bytes.

use protocol::ledger::{Kind, OnBehalfOf, Proposal};
use protocol::limits::ARGUMENTS_BYTES_MAX;
use protocol::signature::Purpose;
use protocol::testing::{Issue, TestIdentity, TestNet};
use protocol::{canonical, transaction};
use service::rpc::SignedProposal;
use service::{Code, Role, time};

use super::*;
use crate::gateway::testing::{A, Rig};

type Change<'a> = &'a dyn Fn(&mut Proposal);

const CALL: (&str, &str, &str) = ("create", "one", r#"["one", "first"]"#);

fn later(seconds: u64) -> Instant {
    Instant::now() + std::time::Duration::from_secs(seconds)
}

/// Signed by somebody else than `client0`.
fn by(rig: &Rig, identity: &TestIdentity, on_behalf_of: Option<OnBehalfOf>) -> SignedProposal {
    let mut signed = rig.signed(CALL, Kind::Submit, |proposal| {
        proposal.creator = identity.hash().to_vec();
        proposal.on_behalf_of = on_behalf_of;
    });
    signed.signature = Some(identity.sign(Purpose::Proposal, &rig.net.channel.id, &signed.proposal));
    signed.certificate = identity.der().to_vec();
    signed
}

#[tokio::test]
async fn each_bad_proposal_has_its_own_refusal() {
    let rig = Rig::new().await;
    let endorser = &rig.a.endorser;
    let refused = |signed: SignedProposal| {
        let problem = endorser.check(signed, Kind::Submit).expect_err("refused");
        (problem.code, problem.field)
    };
    let with = |change: Change| refused(rig.signed(CALL, Kind::Submit, change));
    let now = time::unix_ms();
    let hour = 3_600_000;
    let cases: [(Change, Code, &str); 10] = [
        (&|p| p.channel[0] ^= 1, Code::WrongChannel, "proposal.channel"),
        (&|p| p.epoch = 1, Code::WrongChannel, "proposal.epoch"),
        (&|p| p.kind = Kind::Query.into(), Code::WrongKind, "proposal.kind"),
        (&|p| p.contract = "absent".to_owned(), Code::UnknownContract, "contract"),
        (
            &|p| p.contract_digest[0] ^= 1,
            Code::ContractChanged,
            "proposal.contract_digest",
        ),
        (
            &|p| p.arguments_commitment[0] ^= 1,
            Code::ArgumentsChanged,
            "proposal.arguments_commitment",
        ),
        (
            &|p| p.client_time_ms = now - hour,
            Code::Expired,
            "proposal.client_time_ms",
        ),
        (
            &|p| p.client_time_ms = now + hour,
            Code::Expired,
            "proposal.client_time_ms",
        ),
        (&|p| p.height_bound = 0, Code::Expired, "proposal.height_bound"),
        (&|p| p.height_bound = 1_000_000, Code::Expired, "proposal.height_bound"),
    ];
    for (change, code, field) in cases {
        assert_eq!(with(change), (code, field.to_owned()));
    }
    assert_eq!(with(&|p| p.nonce.clear()).0, Code::BadEncoding);
    let sound = rig.signed(CALL, Kind::Submit, |_| {});
    assert!(endorser.check(sound.clone(), Kind::Submit).is_ok());
    let other = SignedProposal {
        arguments: br#"["two"]"#.to_vec(),
        ..sound.clone()
    };
    assert_eq!(refused(other).0, Code::ArgumentsChanged);
    let other = SignedProposal {
        salt: vec![0; 31],
        ..sound.clone()
    };
    assert_eq!(refused(other), (Code::InvalidArgument, "salt".to_owned()));
    let other = SignedProposal {
        signature: None,
        ..sound.clone()
    };
    assert_eq!(refused(other), (Code::InvalidArgument, "signature".to_owned()));
    let other = SignedProposal {
        arguments: vec![b'1'; ARGUMENTS_BYTES_MAX + 1],
        ..sound.clone()
    };
    assert_eq!(refused(other), (Code::TooLarge, "arguments".to_owned()));
    let mut other = sound.clone();
    other.signature.as_mut().expect("signed").signature[0] ^= 1;
    assert_eq!(refused(other).0, Code::BadSignature);
    let other = SignedProposal {
        proposal: [&sound.proposal[..], &[0xff, 0xff]].concat(),
        ..sound
    };
    assert_eq!(refused(other).0, Code::BadEncoding);
}

#[tokio::test]
async fn who_may_not_sign_is_refused() {
    let rig = Rig::new().await;
    let refused = |signed| rig.a.endorser.check(signed, Kind::Submit).expect_err("refused").code;
    let peer = rig.net.identity(A, "peer0");
    assert_eq!(
        refused(by(&rig, rig.net.identity(A, "orderer0"), None)),
        Code::PermissionDenied
    );
    assert_eq!(
        refused(by(&rig, peer, None)),
        Code::PermissionDenied,
        "a peer speaks for a client only"
    );
    let person = OnBehalfOf {
        certificate: vec![1; 32],
        common_name: "n".into(),
        role: "client".into(),
        attributes: vec![],
    };
    assert!(
        rig.a
            .endorser
            .check(by(&rig, peer, Some(person.clone())), Kind::Submit)
            .is_ok()
    );
    let client = rig.net.identity(A, "client1");
    assert_eq!(
        refused(by(&rig, client, Some(person))),
        Code::PermissionDenied,
        "a client for itself only"
    );
    let stranger = TestNet::seeded(9, &[A], 1);
    assert_eq!(
        refused(by(&rig, stranger.identity(A, "client0"), None)),
        Code::Unauthenticated
    );
    let old = Issue {
        not_after: 1_600_000_000,
        ..Issue::default()
    };
    let old = rig.net.organisation(A).issue(Role::Client, "old", old);
    assert_eq!(refused(by(&rig, &old, None)), Code::CertificateExpired);
}

#[tokio::test]
async fn a_proposal_about_another_subject_is_refused() {
    let rig = Rig::new().await;
    let signed = rig.signed(("create", "two", r#"["one", "first"]"#), Kind::Submit, |_| {});
    let checked = rig
        .a
        .endorser
        .check(signed, Kind::Submit)
        .expect("nothing is wrong yet");
    let problem = rig
        .a
        .endorser
        .endorse(&checked, 0, later(5))
        .await
        .expect_err("another subject");
    assert_eq!(
        (problem.code, &*problem.field),
        (Code::WrongPartition, "proposal.partition_key")
    );
}

#[tokio::test]
async fn all_endorsers_sign_identical_bytes_that_validate_accepts() {
    let rig = Rig::new().await;
    let signed = rig.signed(CALL, Kind::Submit, |_| {});
    let mut results = Vec::new();
    let mut signatures = Vec::new();
    for node in [&rig.a, &rig.b] {
        let checked = node.endorser.check(signed.clone(), Kind::Submit).expect("sound");
        let endorsed = node.endorser.endorse(&checked, 0, later(5)).await.expect("endorsed");
        results.push(endorsed.result);
        signatures.push(endorsed.signature);
    }
    assert_eq!(results[0], results[1]);
    let result: ledger::Result = canonical::decode(&results[0]).expect("canonical");
    assert_eq!(
        (result.reads.len(), result.writes.len(), result.events.len()),
        (1, 1, 1)
    );
    let tx = ledger::Transaction {
        proposal: signed.proposal,
        client: signed.signature,
        result: results.remove(0),
        endorsements: signatures,
    };
    let tx = transaction::decode(&tx.encode_to_vec()).expect("a transaction");
    let checker = rig.net.checker();
    let peers = [A, "HospitalB"].map(|msp_id| rig.net.identity(msp_id, "peer0").der());
    let table = transaction::Table::new(peers.into_iter().chain([&signed.certificate[..]]));
    let checked = checker
        .check(&tx, &table, None)
        .expect("passes every check without state");
    assert_eq!(checked.endorsers.expect("endorsers").len(), 2);
}

#[tokio::test]
async fn who_has_nothing_of_a_height_names_the_nearest_below() {
    let rig = Rig::new().await;
    let deadline = later(5);
    let signed = rig.signed(CALL, Kind::Submit, |_| {});
    let checked = rig.a.endorser.check(signed, Kind::Submit).expect("sound");
    let refused = async |height| {
        let refusal = rig.a.endorser.endorse(&checked, height, deadline).await;
        let problem = refusal.expect_err("no such snapshot");
        assert_eq!(problem.code, Code::SnapshotUnavailable);
        problem.height
    };
    assert_eq!(refused(7).await, 0, "after a moment");
    let chain = &rig.a.ledger.chains[checked.partition as usize];
    let topic = rig.a.ledger.topics.of(checked.partition);
    for height in 1..=2 {
        rig.log.inject(&topic, rig.net.block(checked.partition, &[]));
        assert!(rig.a.ledger.reached(checked.partition, height, deadline).await);
    }
    assert_eq!(chain.snapshot_below(2), Some(1));
    assert_eq!(chain.snapshot_below(0), None);
    let began = Instant::now();
    assert_eq!(refused(1_000).await, 2);
    assert!(
        began.elapsed() < rig.a.endorser.limits.snapshot_wait(),
        "what is far away is not waited for"
    );
}

#[tokio::test]
async fn a_height_that_is_coming_is_waited_for() {
    let rig = Rig::new().await;
    let signed = rig.signed(CALL, Kind::Submit, |_| {});
    let checked = rig.a.endorser.check(signed, Kind::Submit).expect("sound");
    let topic = rig.a.ledger.topics.of(checked.partition);
    let block = rig.net.block(checked.partition, &[]);
    let coming = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        rig.log.inject(&topic, block);
    };
    let (endorsed, ()) = tokio::join!(rig.a.endorser.endorse(&checked, 1, later(5)), coming);
    let result: ledger::Result = canonical::decode(&endorsed.expect("endorsed").result).expect("canonical");
    assert_eq!(result.snapshot_height, 1);
}
