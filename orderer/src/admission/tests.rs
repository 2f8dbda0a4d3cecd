//! Each thing that is wrong with a transaction has its own answer.

use std::collections::BTreeMap;

use protocol::{
    identity::Crl,
    ledger::{Kind, OnBehalfOf},
    limits::KEY_SUFFIX_BYTES_MAX,
    testing::{Issue, Spec, TestIdentity, TestNet, TestTx},
};

use super::*;

mod bounds;
mod validity;

/// 2026-01-01
const NOW_MS: u64 = 1_767_225_600_000;
const NOW_S: i64 = 1_767_225_600;

struct Door {
    net: TestNet,
    admission: Admission,
    peer: Caller,
}

fn door_with(spec: Spec, quotas: Quotas, lists: impl FnOnce(&TestNet) -> Vec<Crl>) -> Door {
    let net = TestNet::with(spec);
    let lists = lists(&net);
    let revoked: Revoked = Arc::new(move |certificate| lists.iter().any(|list| list.revokes(certificate)));
    let admission = Admission::new(net.checker(), &quotas, 64 << 20, revoked);
    let peer = Caller::new(net.identity("HospitalA", "peer0").certificate.clone());
    Door { net, admission, peer }
}

fn door() -> Door {
    door_with(Spec::default(), Quotas::default(), |_| Vec::new())
}

fn request(tx: &TestTx) -> BroadcastRequest {
    BroadcastRequest {
        id: 1,
        transaction: tx.bytes.clone(),
        certificates: tx.certificates.clone(),
    }
}

impl Door {
    fn admit(&self, request: BroadcastRequest) -> Result<Admitted, Problem> {
        let _held = self.admission.enter(&self.peer, &request)?;
        self.admission.check(request, NOW_MS)
    }

    /// `word` is what the detail starts with.
    #[track_caller]
    fn refuses(&self, request: BroadcastRequest, code: Code, field: &str, word: &str) {
        let problem = self.admit(request).expect_err("must be refused");
        assert_eq!((problem.code, problem.field.as_str()), (code, field), "{problem}");
        assert!(problem.detail.starts_with(word), "{problem}");
        assert_eq!(self.admission.room().used(), 0, "refused, so nothing is held");
    }

    #[track_caller]
    fn refuses_tx(&self, tx: &TestTx, code: Code, field: &str, word: &str) {
        self.refuses(request(tx), code, field, word);
    }

    fn id(&self, name: &str) -> &TestIdentity {
        self.net.identity("HospitalA", name)
    }

    fn foreign(&self, name: &str) -> TestIdentity {
        TestNet::seeded(77, &["Elsewhere"], 1)
            .identity("Elsewhere", name)
            .clone()
    }
}

#[test]
fn what_is_sound_comes_in_with_the_certificates_it_cites() {
    let door = door();
    let tx = door.net.tx("patient-1").write(b"record", b"{}").build();
    let mut request = request(&tx);
    request.certificates.push(door.id("client1").der().to_vec());
    let admitted = door.admit(request).expect("sound");
    assert_eq!((admitted.partition, admitted.tx_id), (tx.partition, tx.tx_id));
    assert_eq!(admitted.transaction, tx.bytes);
    let mut cited: Vec<Digest> = admitted.certificates.iter().map(|(hash, _)| *hash).collect();
    cited.sort();
    let mut expected = vec![door.id("client0").hash(), door.id("peer0").hash()];
    expected.sort();
    assert_eq!(cited, expected, "client1 is not cited");
}

#[test]
fn a_gateway_may_speak_for_a_client() {
    let door = door();
    let person = || OnBehalfOf {
        certificate: vec![1; 32],
        common_name: "x".into(),
        role: "client".into(),
        attributes: vec![],
    };
    let tx = door
        .net
        .tx("patient-1")
        .client(door.id("peer0"))
        .on_behalf_of(person())
        .build();
    door.admit(request(&tx)).expect("a peer on behalf");
    let tx = door.net.tx("patient-1").client(door.id("peer0")).build();
    door.refuses_tx(&tx, Code::PermissionDenied, "proposal.creator", "CREATOR_ROLE");
    let tx = door.net.tx("patient-1").on_behalf_of(person()).build();
    door.refuses_tx(&tx, Code::PermissionDenied, "proposal.creator", "CREATOR_ROLE");
    let tx = door.net.tx("patient-1").client(door.id("orderer0")).build();
    door.refuses_tx(&tx, Code::PermissionDenied, "proposal.creator", "CREATOR_ROLE");
}

#[test]
fn bytes_that_are_no_transaction() {
    let door = door();
    let tx = door.net.tx("patient-1").build();
    let with = |transaction: Vec<u8>| BroadcastRequest {
        transaction,
        ..request(&tx)
    };
    door.refuses(
        with(b"garbage".to_vec()),
        Code::BadEncoding,
        "transaction",
        "BAD_ENCODING",
    );
    door.refuses(with(Vec::new()), Code::BadEncoding, "proposal.channel", "BAD_ENCODING");
    door.refuses(
        with([&tx.bytes[..], &[0xf8, 0x01, 0x01]].concat()),
        Code::BadEncoding,
        "transaction",
        "BAD_ENCODING",
    );
    door.refuses(
        with(vec![0; TRANSACTION_BYTES_MAX + 1]),
        Code::TooLarge,
        "transaction",
        "at most",
    );
    for at in 0..tx.bytes.len() {
        let mut bytes = tx.bytes.clone();
        bytes[at] ^= 1;
        assert!(door.admit(with(bytes)).is_err(), "byte {at} is covered by nothing");
    }
}

#[test]
fn too_many_or_too_large_certificates() {
    let door = door();
    let tx = door.net.tx("patient-1").build();
    let with = |certificates| BroadcastRequest {
        certificates,
        ..request(&tx)
    };
    door.refuses(
        with(vec![vec![]; TRANSACTION_CERTIFICATES_MAX + 1]),
        Code::TooLarge,
        "certificates",
        "at most",
    );
    door.refuses(
        with(vec![vec![0; CERTIFICATE_BYTES_MAX + 1]]),
        Code::TooLarge,
        "certificates",
        "at most",
    );
}

#[test]
fn an_endorser_signs_once_and_locks_no_key() {
    let door = door();
    let peer = door.id("peer0");
    let tx = door.net.tx("patient-1").endorsers(&[peer, peer]).build();
    door.refuses_tx(&tx, Code::BadEncoding, "endorsements.certificate", "BAD_ENCODING");
    let tx = door.net.tx("patient-1").policy(b"k", "OR('Stranger.peer')").build();
    door.refuses_tx(
        &tx,
        Code::PermissionDenied,
        "result.policies.policy",
        "POLICY_NOT_SATISFIED",
    );
}

#[test]
fn another_channel_or_epoch() {
    let door = door();
    let other = TestNet::seeded(2, &["HospitalA", "HospitalB"], 2);
    door.refuses_tx(
        &other.tx("patient-1").build(),
        Code::WrongChannel,
        "proposal.channel",
        "WRONG_CHANNEL",
    );
    let tx = door.net.tx("patient-1").proposal(|proposal| proposal.epoch = 1).build();
    door.refuses_tx(&tx, Code::WrongChannel, "proposal.epoch", "WRONG_CHANNEL");
}

#[test]
fn a_query_is_never_ordered() {
    let door = door();
    let tx = door
        .net
        .tx("patient-1")
        .proposal(|proposal| proposal.kind = Kind::Query.into())
        .build();
    door.refuses_tx(&tx, Code::WrongKind, "proposal.kind", "NOT_SUBMIT");
}

#[test]
fn creators_must_be_members() {
    let door = door();
    let stranger = door.foreign("client0");
    let tx = door.net.tx("patient-1").client(&stranger).build();
    let field = "proposal.creator";
    door.refuses_tx(
        &tx,
        Code::Unauthenticated,
        field,
        "UNKNOWN_CREATOR: the organisation is not a member",
    );
    let bare = BroadcastRequest {
        certificates: vec![door.id("peer0").der().to_vec()],
        ..request(&tx)
    };
    door.refuses(
        bare,
        Code::Unauthenticated,
        field,
        "UNKNOWN_CREATOR: the certificate was not sent along",
    );
    // The same name, issued by somebody else.
    let impostor = TestNet::seeded(78, &["HospitalA"], 1)
        .identity("HospitalA", "client0")
        .clone();
    let tx = door.net.tx("patient-1").client(&impostor).build();
    door.refuses_tx(
        &tx,
        Code::Unauthenticated,
        field,
        "UNKNOWN_CREATOR: the signature is not by the organisation's root",
    );
}

#[test]
fn forged_and_altered_intents() {
    let door = door();
    let field = "client";
    let forged = door.net.tx("patient-1").signed_by(door.id("client1")).build();
    door.refuses_tx(&forged, Code::BadSignature, field, "BAD_CLIENT_SIGNATURE");
    let alter = |change: fn(&mut protocol::ledger::Proposal)| {
        let original = door.net.tx("patient-1").build();
        let mut proposal = original.proposal.clone();
        change(&mut proposal);
        let bytes = prost::Message::encode_to_vec(&proposal);
        door.net
            .tx("patient-1")
            .again(&original)
            .transaction(move |tx| tx.proposal = bytes)
            .build()
    };
    for change in [
        |proposal: &mut protocol::ledger::Proposal| proposal.arguments_commitment = vec![1; 32],
        |proposal: &mut protocol::ledger::Proposal| proposal.function = "delete".into(),
        |proposal: &mut protocol::ledger::Proposal| proposal.height_bound += 1000,
        |proposal: &mut protocol::ledger::Proposal| proposal.partition_key = vec![1; 32],
    ] {
        door.refuses_tx(&alter(change), Code::BadSignature, field, "BAD_CLIENT_SIGNATURE");
    }
}

#[test]
fn contracts_are_those_of_the_config() {
    let door = door();
    let tx = door
        .net
        .tx("patient-1")
        .proposal(|proposal| proposal.contract = "nothing".into())
        .build();
    door.refuses_tx(&tx, Code::UnknownContract, "proposal.contract", "UNKNOWN_CONTRACT");
    let tx = door
        .net
        .tx("patient-1")
        .proposal(|proposal| proposal.contract_digest = vec![1; 32])
        .build();
    door.refuses_tx(
        &tx,
        Code::ContractChanged,
        "proposal.contract_digest",
        "CONTRACT_DIGEST",
    );
    let tx = door
        .net
        .tx("patient-1")
        .result(|result| result.contract_digest = vec![1; 32])
        .build();
    door.refuses_tx(&tx, Code::ContractChanged, "result.contract_digest", "CONTRACT_DIGEST");
}

#[test]
fn results_belong_to_their_proposal_and_partition_key() {
    let door = door();
    let tx = door
        .net
        .tx("patient-1")
        .result(|result| result.tx_id = vec![1; 32])
        .build();
    door.refuses_tx(&tx, Code::InvalidArgument, "result.tx_id", "RESULT_MISMATCH");
    let other = door.net.tx("patient-2").write(b"record", b"{}").build().result.writes[0]
        .key
        .clone();
    let tx = door
        .net
        .tx("patient-1")
        .write(b"record", b"{}")
        .result(move |result| result.writes[0].key = other)
        .build();
    door.refuses_tx(
        &tx,
        Code::InvalidArgument,
        "result.writes.key",
        "KEY_OUTSIDE_PARTITION_KEY",
    );
    let tx = door
        .net
        .tx("patient-1")
        .read(&[1; KEY_SUFFIX_BYTES_MAX + 1], None)
        .build();
    door.refuses_tx(
        &tx,
        Code::InvalidArgument,
        "result.reads.key",
        "KEY_OUTSIDE_PARTITION_KEY",
    );
}

#[test]
fn endorsers_must_be_peers_of_members() {
    let door = door();
    let field = "endorsements.certificate";
    let stranger = door.foreign("peer0");
    let tx = door.net.tx("patient-1").endorsers(&[&stranger]).build();
    door.refuses_tx(
        &tx,
        Code::Unauthenticated,
        field,
        "UNKNOWN_ENDORSER: the organisation is not a member",
    );
    let tx = door.net.tx("patient-1").endorsers(&[door.id("client1")]).build();
    door.refuses_tx(&tx, Code::Unauthenticated, field, "UNKNOWN_ENDORSER: Every endorser");
    let tx = door.net.tx("patient-1").build();
    let bare = BroadcastRequest {
        certificates: vec![door.id("client0").der().to_vec()],
        ..request(&tx)
    };
    door.refuses(
        bare,
        Code::Unauthenticated,
        field,
        "UNKNOWN_ENDORSER: the certificate was not sent along",
    );
}

#[test]
fn forged_endorsements_and_tampered_results() {
    let door = door();
    let (code, field, word) = (Code::BadSignature, "endorsements", "BAD_ENDORSEMENT_SIGNATURE");
    let forged = door
        .net
        .tx("patient-1")
        .transaction(|tx| tx.endorsements[0].signature[3] ^= 1)
        .build();
    door.refuses_tx(&forged, code, field, word);
    let peer1 = door.id("peer1").hash().to_vec();
    let stolen = door
        .net
        .tx("patient-1")
        .transaction(move |tx| tx.endorsements[0].certificate = peer1)
        .build();
    let mut with_peer1 = request(&stolen);
    with_peer1.certificates.push(door.id("peer1").der().to_vec());
    door.refuses(with_peer1, code, field, word);
    let honest = door
        .net
        .tx("patient-1")
        .read(b"record", None)
        .write(b"record", b"{}")
        .build();
    let tamper = |change: fn(&mut protocol::ledger::Result)| {
        let mut result = honest.result.clone();
        change(&mut result);
        let bytes = prost::Message::encode_to_vec(&result);
        door.net
            .tx("patient-1")
            .again(&honest)
            .transaction(move |tx| tx.result = bytes)
            .build()
    };
    for change in [
        |result: &mut protocol::ledger::Result| result.reads.clear(),
        |result: &mut protocol::ledger::Result| result.writes[0].value = b"{\"x\":1}".to_vec(),
        |result: &mut protocol::ledger::Result| result.snapshot_height = 9,
    ] {
        let mut tx = tamper(change);
        // Only the result differs from what was signed.
        let mut message: protocol::ledger::Transaction = prost::Message::decode(&tx.bytes[..]).expect("own bytes");
        let original: protocol::ledger::Transaction = prost::Message::decode(&honest.bytes[..]).expect("own bytes");
        message.endorsements = original.endorsements;
        tx.bytes = prost::Message::encode_to_vec(&message);
        door.refuses_tx(&tx, code, field, word);
    }
}

#[test]
fn endorsements_must_satisfy_the_policy() {
    let both = "AND('HospitalA.peer', 'HospitalB.peer')".to_owned();
    let spec = Spec {
        endorsement_policy: both,
        ..Spec::default()
    };
    let door = door_with(spec, Quotas::default(), |_| Vec::new());
    let (a, b) = (door.id("peer0"), door.net.identity("HospitalB", "peer0"));
    door.admit(request(&door.net.tx("patient-1").endorsers(&[a, b]).build()))
        .expect("both");
    let (code, field, word) = (Code::PermissionDenied, "endorsements", "POLICY_NOT_SATISFIED");
    for endorsers in [vec![], vec![a], vec![a, door.id("peer1")]] {
        door.refuses_tx(
            &door.net.tx("patient-1").endorsers(&endorsers).build(),
            code,
            field,
            word,
        );
    }
}
