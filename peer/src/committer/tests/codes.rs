//! Every validation code has a transaction that gets it, and the codes keep their order.

use std::{collections::BTreeSet, sync::Arc};

use protocol::{
    Digest,
    code::Code,
    keys::partition_of,
    ledger::{Kind, OnBehalfOf, Version, Write},
    testing::{Spec, TestContract, TestIdentity, TestNet, TestTx, TxBuilder},
};

use crate::committer::model::Partition;

const BOTH: &str = "AND('HospitalA.peer', 'HospitalB.peer')";

fn net() -> TestNet {
    let contract = TestContract {
        name: "records".to_owned(),
        component: b"component".to_vec(),
        policy: String::new(),
        functions: vec![("strict".to_owned(), BOTH.to_owned())],
    };
    TestNet::with(Spec {
        contracts: vec![contract],
        heights_in_time_max: 100,
        snapshot_age_max: 10,
        ..Spec::default()
    })
}

/// The network that strangers come from.
fn strangers() -> TestNet {
    TestNet::seeded(9, &["HospitalA"], 1)
}

/// A subject of partition 0.
fn subject(net: &TestNet) -> String {
    let mut names = (0..).map(|i| format!("patient-{i}"));
    names
        .find(|name| net.tx(name).build().partition == 0)
        .expect("one of two partitions")
}

fn partition() -> Partition {
    let mut partition = Partition::started(net(), 0);
    partition.idle_until(20);
    partition
}

/// A way to break a transaction, and the part of it that it takes: two ways of one part cannot be combined.
struct Fault {
    code: Code,
    part: &'static str,
    breaks: for<'a> fn(TxBuilder<'a>, &Place) -> TxBuilder<'a>,
}

struct Place {
    net: Arc<TestNet>,
    strangers: TestNet,
    height: u64,
}

impl Place {
    fn of(&self, name: &str) -> TestIdentity {
        self.net.identity("HospitalA", name).clone()
    }
}

fn stranger<'a>(place: &'a Place, name: &str) -> &'a TestIdentity {
    place.strangers.identity("HospitalA", name)
}

/// A partition key of the other partition.
fn other_key() -> Digest {
    let mut keys = (0u8..).map(|byte| [byte; 32]);
    keys.find(|key| partition_of(key, 2) == 1).expect("one of two")
}

const FAULTS: &[Fault] = &[
    Fault {
        code: Code::BadEncoding,
        part: "nonce",
        breaks: |tx, _| tx.proposal(|p| p.nonce.clear()),
    },
    Fault {
        code: Code::TooLarge,
        part: "event",
        breaks: |tx, _| tx.event(&"t".repeat(65), b""),
    },
    Fault {
        code: Code::WrongChannel,
        part: "epoch",
        breaks: |tx, _| tx.proposal(|p| p.epoch = 1),
    },
    Fault {
        code: Code::NotSubmit,
        part: "kind",
        breaks: |tx, _| tx.proposal(|p| p.kind = Kind::Query.into()),
    },
    Fault {
        code: Code::UnknownCreator,
        part: "client",
        breaks: |tx, place| tx.client(stranger(place, "client0")),
    },
    Fault {
        code: Code::CreatorRole,
        part: "client",
        breaks: |tx, place| tx.client(&place.of("orderer0")),
    },
    Fault {
        code: Code::BadClientSignature,
        part: "signer",
        breaks: |tx, place| tx.signed_by(&place.of("client1")),
    },
    Fault {
        code: Code::UnknownContract,
        part: "name",
        breaks: |tx, _| tx.proposal(|p| p.contract = "absent".to_owned()),
    },
    Fault {
        code: Code::ContractDigest,
        part: "digest",
        breaks: |tx, _| tx.proposal(|p| p.contract_digest[0] ^= 1),
    },
    Fault {
        code: Code::ResultMismatch,
        part: "tx_id",
        breaks: |tx, _| tx.result(|r| r.tx_id[0] ^= 1),
    },
    Fault {
        code: Code::WrongPartition,
        part: "partition key",
        breaks: |tx, _| tx.proposal(|p| p.partition_key = other_key().to_vec()),
    },
    Fault {
        code: Code::KeyOutside,
        part: "key",
        breaks: |tx, _| {
            tx.result(|r| {
                r.writes.push(Write {
                    key: b"zzz".to_vec(),
                    delete: true,
                    value: Vec::new(),
                })
            })
        },
    },
    Fault {
        code: Code::HeightBound,
        part: "bound",
        breaks: |tx, place| tx.height_bound(place.height - 1),
    },
    Fault {
        code: Code::SnapshotAge,
        part: "snapshot",
        breaks: |tx, place| tx.snapshot(place.height, &[0; 32]),
    },
    Fault {
        code: Code::SnapshotUnknown,
        part: "snapshot",
        breaks: |tx, place| tx.snapshot(place.height - 1, &[9; 32]),
    },
    Fault {
        code: Code::UnknownEndorser,
        part: "endorsers",
        breaks: |tx, place| tx.endorsers(&[stranger(place, "peer0")]),
    },
    Fault {
        code: Code::BadEndorsement,
        part: "endorsement",
        breaks: |tx, _| {
            tx.transaction(|tx| {
                tx.endorsements
                    .iter_mut()
                    .for_each(|signature| signature.signature[5] ^= 1)
            })
        },
    },
    Fault {
        code: Code::PolicyNotSatisfied,
        part: "function",
        breaks: |tx, _| tx.function("strict"),
    },
    Fault {
        code: Code::MvccConflict,
        part: "read",
        breaks: |tx, _| {
            tx.read(
                b"absent",
                Some(Version {
                    epoch: 0,
                    height: 1,
                    index: 0,
                }),
            )
        },
    },
    Fault {
        code: Code::PhantomRead,
        part: "range",
        breaks: |tx, _| {
            tx.range(
                b"a",
                b"b",
                &[(
                    b"aa",
                    Version {
                        epoch: 0,
                        height: 1,
                        index: 0,
                    },
                )],
            )
        },
    },
];

fn place(partition: &Partition) -> Place {
    Place {
        net: partition.net.clone(),
        strangers: strangers(),
        height: partition.position.next_height(),
    }
}

fn sound<'a>(partition: &Partition, net: &'a TestNet, subject: &str) -> TxBuilder<'a> {
    let (height, header) = partition.snapshot();
    net.tx(subject)
        .write(b"record", b"{}")
        .height_bound(height + 50)
        .snapshot(height, &header)
}

#[test]
fn each_fault_has_its_code() {
    let mut partition = partition();
    let net = partition.net.clone();
    let subject = subject(&net);
    for fault in FAULTS {
        let tx = (fault.breaks)(sound(&partition, &net, &subject), &place(&partition)).build();
        assert_eq!(partition.judge(&tx), fault.code, "{}", fault.part);
        assert!(partition.maps.state.is_empty(), "{} changed something", fault.part);
    }
    let tx = sound(&partition, &net, &subject).build();
    assert_eq!(partition.judge(&tx), Code::Valid);
    assert_eq!(partition.maps.state.len(), 1);
}

#[test]
fn of_two_faults_the_earlier_check_gives_the_code() {
    let mut partition = partition();
    let net = partition.net.clone();
    let subject = subject(&net);
    let mut pairs = 0;
    for (at, first) in FAULTS.iter().enumerate() {
        for second in FAULTS[at + 1..].iter().filter(|second| second.part != first.part) {
            assert!(first.code < second.code, "the table ascends");
            let place = place(&partition);
            let tx = (second.breaks)((first.breaks)(sound(&partition, &net, &subject), &place), &place).build();
            assert_eq!(partition.judge(&tx), first.code, "{} and {}", first.part, second.part);
            pairs += 1;
        }
    }
    assert!(pairs > 180, "{pairs}");
}

#[test]
fn every_code_is_reached_here_or_by_its_own_test() {
    let table: BTreeSet<Code> = FAULTS.iter().map(|fault| fault.code).collect();
    // Duplicate: below. NotStarted: with the marker's tests.
    let others = BTreeSet::from([Code::Valid, Code::NotStarted, Code::Duplicate]);
    let all: BTreeSet<Code> = table.union(&others).copied().collect();
    assert_eq!(all, Code::ALL.iter().copied().collect());
}

#[test]
fn a_tx_id_is_valid_once() {
    let mut partition = partition();
    let net = partition.net.clone();
    let subject = subject(&net);
    let tx = sound(&partition, &net, &subject).build();
    assert_eq!(
        partition.block(&[&tx, &tx]),
        [Code::Valid, Code::Duplicate],
        "within a block"
    );
    assert_eq!(partition.judge(&tx), Code::Duplicate, "in a later block");
    let (height, header) = partition.snapshot();
    let again = net
        .tx(&subject)
        .again(&tx)
        .write(b"record", b"2")
        .snapshot(height, &header);
    assert_eq!(partition.judge(&again.build()), Code::Duplicate, "with another result");
    // Duplicate stands between SnapshotUnknown and UnknownEndorser.
    let (height, header) = partition.snapshot();
    let faulty = net.tx(&subject).again(&tx).snapshot(height, &header).endorsers(&[]);
    assert_eq!(partition.judge(&faulty.build()), Code::Duplicate);
    let faulty = net.tx(&subject).again(&tx).snapshot(height, &[1; 32]);
    assert_eq!(partition.judge(&faulty.build()), Code::SnapshotUnknown);
}

#[test]
fn a_lost_transaction_may_still_become_valid() {
    let mut partition = partition();
    let net = partition.net.clone();
    let subject = subject(&net);
    let other = sound(&partition, &net, &subject).build();
    let tx = sound(&partition, &net, &subject).read(b"record", None).build();
    assert_eq!(partition.block(&[&other, &tx]), [Code::Valid, Code::MvccConflict]);
    let (height, header) = partition.snapshot();
    let version = partition.maps.state.values().next().map(|entry| entry.version.into());
    let again = net
        .tx(&subject)
        .again(&tx)
        .read(b"record", version)
        .snapshot(height, &header)
        .build();
    assert_eq!(again.tx_id, tx.tx_id);
    assert_eq!(partition.judge(&again), Code::Valid);
}

#[test]
fn bounds_hold_to_the_block() {
    let mut partition = partition();
    let net = partition.net.clone();
    let subject = subject(&net);
    let mut judge = |bound_ahead: i64, age: u64| {
        let height = partition.position.next_height();
        let bound = height.checked_add_signed(bound_ahead).expect("in range");
        let at = height - age;
        let header = partition.maps.headers.get(at as usize).copied().unwrap_or([0; 32]);
        partition.judge(&net.tx(&subject).height_bound(bound).snapshot(at, &header).build())
    };
    assert_eq!(judge(0, 1), Code::Valid, "the bound itself is in time");
    assert_eq!(judge(-1, 1), Code::HeightBound);
    assert_eq!(judge(100, 1), Code::Valid, "L ahead");
    assert_eq!(judge(101, 1), Code::HeightBound);
    assert_eq!(judge(1, 10), Code::Valid, "W old");
    assert_eq!(judge(1, 11), Code::SnapshotAge);
    assert_eq!(judge(1, 0), Code::SnapshotAge, "not before this block");
    let tx = net
        .tx(&subject)
        .height_bound(u64::MAX)
        .snapshot(u64::MAX, &[0; 32])
        .build();
    assert_eq!(partition.judge(&tx), Code::HeightBound);
}

#[test]
fn neighbours_of_a_bad_transaction_are_judged() {
    let mut partition = partition();
    let net = partition.net.clone();
    let subject = subject(&net);
    let good = sound(&partition, &net, &subject).build();
    let garbage = TestTx {
        bytes: b"garbage".to_vec(),
        ..good.clone()
    };
    assert_eq!(
        partition.block(&[&garbage, &good, &garbage]),
        [Code::BadEncoding, Code::Valid, Code::BadEncoding]
    );
}

#[test]
fn a_peer_may_create_for_a_client_only() {
    let mut partition = partition();
    let net = partition.net.clone();
    let subject = subject(&net);
    let peer = net.identity("HospitalA", "peer0");
    let person = OnBehalfOf {
        certificate: vec![7; 32],
        common_name: "nurse".to_owned(),
        role: "client".to_owned(),
        attributes: Vec::new(),
    };
    let tx = sound(&partition, &net, &subject).client(peer).build();
    assert_eq!(partition.judge(&tx), Code::CreatorRole);
    let tx = sound(&partition, &net, &subject)
        .client(peer)
        .on_behalf_of(person.clone())
        .build();
    let raw = net.block(0, &[&tx]);
    let changes = partition.push(&raw);
    assert_eq!(changes.leaves[0].code, Code::Valid);
    let change = &changes.history[0].change;
    assert!(change.asserted && change.common_name == "nurse" && change.organisation == "HospitalA");
    let tx = sound(&partition, &net, &subject).on_behalf_of(person).build();
    assert_eq!(
        partition.judge(&tx),
        Code::CreatorRole,
        "a client speaks for nobody else"
    );
}

#[test]
fn an_endorsement_does_not_count_twice() {
    let mut partition = partition();
    let net = partition.net.clone();
    let subject = subject(&net);
    let twice = |tx: TxBuilder<'_>| {
        let peer = net.identity("HospitalA", "peer0");
        tx.endorsers(&[peer, peer]).build()
    };
    let tx = twice(sound(&partition, &net, &subject));
    assert_eq!(partition.judge(&tx), Code::BadEncoding);
}
