//! What a member may not make others pay for, and may not lock.

use crate::{
    block,
    code::Code,
    limits::ENDORSEMENTS_MAX,
    testing::{TestNet, TestTx},
    transaction::{self, Rejection, Table},
};

fn judge(net: &TestNet, tx: &TestTx) -> Result<usize, Rejection> {
    let decoded = transaction::decode(&tx.bytes)?;
    let table = Table::new(tx.certificates.iter().map(Vec::as_slice));
    let checked = net.checker().check(&decoded, &table, None)?;
    checked.endorsers.map(|endorsers| endorsers.len())
}

#[test]
fn a_certificate_endorses_once() {
    let net = TestNet::new(&["HospitalA", "HospitalB"], 1);
    let [a, b] = ["HospitalA", "HospitalB"].map(|name| net.identity(name, "peer0"));
    let with = |endorsers: &[_]| judge(&net, &net.tx("patient").endorsers(endorsers).build());
    assert_eq!(with(&[a, b]), Ok(2));
    let repeated = Rejection {
        code: Code::BadEncoding,
        field: "endorsements.certificate",
    };
    assert_eq!(with(&[a, b, a]), Err(repeated.clone()));
    assert_eq!(with(&[a; ENDORSEMENTS_MAX]), Err(repeated));
    let too_many = with(&[a; ENDORSEMENTS_MAX + 1]).expect_err("too many");
    assert_eq!(too_many.code, Code::TooLarge);
}

#[test]
fn certificates_that_nobody_cites_are_not_looked_at() {
    let net = TestNet::new(&["HospitalA", "HospitalB"], 1);
    let checker = net.checker();
    let mut tx = net.tx("patient").build();
    tx.certificates.push(net.identity("HospitalB", "peer0").der().to_vec());
    tx.certificates.extend((0..2000u32).map(|i| i.to_be_bytes().to_vec()));
    let opened = block::open(&checker, 0, &net.block(0, &[&tx]));
    assert_eq!((opened.fault, opened.transactions.len()), (None, 1));
    let known = checker.certificates.len();
    assert_eq!(known, 1, "the orderer's");
    let decoded = transaction::decode(&opened.transactions[0]).expect("canonical");
    let checked = checker.check(&decoded, &opened.certificates, Some(0)).expect("sound");
    assert!(checked.endorsers.is_ok());
    assert_eq!(checker.certificates.len(), known + 2, "client and endorser");
}

#[test]
fn a_keys_policy_can_be_satisfied_by_members_peers() {
    let net = TestNet::new(&["HospitalA", "HospitalB"], 1);
    let with = |policy: &str| judge(&net, &net.tx("patient").policy(b"k", policy).build());
    let many = |gate: &str, count: usize| format!("{gate}{})", vec!["'HospitalA.peer'"; count].join(", "));
    for opens in [
        "",
        "OR('HospitalA.peer')",
        "AND('HospitalA.member', 'HospitalB.peer')",
        "AND('HospitalA.peer', 'HospitalA.peer')",
        "OR('HospitalA.admin', 'HospitalB.peer')",
        "OutOf(0, 'HospitalA.admin')",
        // Greed: only three signatures satisfy it.
        "AND(OR('HospitalA.peer', 'HospitalB.peer'), 'HospitalB.peer')",
        &many("OR(", 100),
        &many("AND(", ENDORSEMENTS_MAX),
    ] {
        assert_eq!(with(opens), Ok(1), "{opens}");
    }
    let locks = Rejection {
        code: Code::PolicyNotSatisfied,
        field: "result.policies.policy",
    };
    for policy in [
        "OR('Stranger.peer')",
        "OR('HospitalA.peer', 'Stranger.peer')",
        "OutOf(3, 'HospitalA.peer', 'HospitalB.peer')",
        "AND('HospitalA.peer', 'HospitalA.client')",
        "AND('HospitalA.peer', OutOf(2, 'HospitalB.peer'))",
        "OR('HospitalA.orderer')",
        &many("AND(", ENDORSEMENTS_MAX + 1),
        // More than may endorse: the gate before the last place takes them all.
        &format!("AND({}, 'HospitalA.peer')", many("OR(", ENDORSEMENTS_MAX)),
    ] {
        assert_eq!(with(policy), Err(locks.clone()), "{policy}");
    }
}
