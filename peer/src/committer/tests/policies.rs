//! A key's own policy: in addition to the contract's, and for the transactions after its change.

use protocol::{
    code::Code,
    testing::{TestNet, TestTx, TxBuilder},
};

use crate::committer::model::Partition;

const BOTH: &str = "AND('HospitalA.peer', 'HospitalB.peer')";

struct Case {
    partition: Partition,
    net: std::sync::Arc<TestNet>,
}

impl Case {
    fn new() -> Self {
        let partition = Partition::started(TestNet::new(&["HospitalA", "HospitalB"], 1), 0);
        let net = partition.net.clone();
        Case { partition, net }
    }

    fn tx(&self, organisations: &[&str], change: impl FnOnce(TxBuilder<'_>) -> TxBuilder<'_>) -> TestTx {
        let (height, header) = self.partition.snapshot();
        let endorsers: Vec<_> = organisations
            .iter()
            .map(|name| self.net.identity(name, "peer0"))
            .collect();
        change(self.net.tx("patient").snapshot(height, &header).endorsers(&endorsers)).build()
    }
}

#[test]
fn binds_writes_deletes_and_its_own_change() {
    let mut case = Case::new();
    let tx = case.tx(&["HospitalA"], |tx| tx.write(b"k", b"1").policy(b"k", BOTH));
    assert_eq!(
        case.partition.judge(&tx),
        Code::Valid,
        "the policy binds what comes after"
    );
    for change in [
        (|tx| tx.write(b"k", b"2")) as for<'a> fn(TxBuilder<'a>) -> TxBuilder<'a>,
        |tx| tx.delete(b"k"),
        |tx| tx.policy(b"k", ""),
        |tx| tx.policy(b"k", "OR('HospitalA.peer')"),
    ] {
        let tx = case.tx(&["HospitalA"], change);
        assert_eq!(case.partition.judge(&tx), Code::PolicyNotSatisfied);
    }
    let tx = case.tx(&["HospitalA"], |tx| tx.write(b"other", b"1"));
    assert_eq!(case.partition.judge(&tx), Code::Valid, "other keys are free");
    let tx = case.tx(&["HospitalA", "HospitalB"], |tx| tx.delete(b"k"));
    assert_eq!(case.partition.judge(&tx), Code::Valid);
    let tx = case.tx(&["HospitalA"], |tx| tx.write(b"k", b"3"));
    assert_eq!(
        case.partition.judge(&tx),
        Code::PolicyNotSatisfied,
        "deleting a value leaves its policy"
    );
    let tx = case.tx(&["HospitalA", "HospitalB"], |tx| tx.policy(b"k", ""));
    assert_eq!(case.partition.judge(&tx), Code::Valid);
    let tx = case.tx(&["HospitalA"], |tx| tx.write(b"k", b"3"));
    assert_eq!(case.partition.judge(&tx), Code::Valid);
    assert!(case.partition.maps.policies.is_empty());
}

#[test]
fn counts_for_the_transactions_after_it_in_the_block() {
    let mut case = Case::new();
    let set = case.tx(&["HospitalA"], |tx| tx.policy(b"k", BOTH));
    let write = || case.tx(&["HospitalA"], |tx| tx.write(b"k", b"1"));
    let (earlier, later) = (write(), write());
    assert_eq!(
        case.partition.block(&[&earlier, &set, &later]),
        [Code::Valid, Code::Valid, Code::PolicyNotSatisfied]
    );
    let before = case.tx(&["HospitalA", "HospitalB"], |tx| tx.policy(b"k", ""));
    let free = case.tx(&["HospitalA"], |tx| tx.write(b"k", b"2"));
    let bound = case.tx(&["HospitalA"], |tx| tx.write(b"k", b"3"));
    assert_eq!(
        case.partition.block(&[&bound, &before, &free]),
        [Code::PolicyNotSatisfied, Code::Valid, Code::Valid]
    );
    let digest = case.partition.maps.digest(Some(0), case.net.channel.config_digest);
    assert_eq!(case.partition.position.lattice.digest(), digest);
}

#[test]
fn nobody_locks_a_key_for_ever() {
    let mut case = Case::new();
    for policy in [
        "OR('Stranger.peer')",
        "AND('HospitalA.peer', 'HospitalB.client')",
        "OutOf(3, 'HospitalA.peer', 'HospitalB.peer')",
    ] {
        let tx = case.tx(&["HospitalA"], |tx| tx.policy(b"k", policy));
        assert_eq!(case.partition.judge(&tx), Code::PolicyNotSatisfied, "{policy}");
    }
    assert!(case.partition.maps.policies.is_empty());
}
