//! Forged transactions, by an orderer's admission and past it.
//!
//! Each starts as an honest transaction; one thing about it is changed. `admission`: what an orderer says to a
//! peer that broadcasts it. `block`: the code it has on every peer when a dishonest orderer puts it into the log.

use medledger_cli::{
    calls,
    network::spec::{RECORDS, RECORDS_2_OF},
};
use medledger_tests::network::{
    client::Client,
    doors::{Issuing, Validity},
    forge::{AtOrderer, Built, Draft, Signer},
};
use prost::Message as _;
use protocol::{
    code::Code as Verdict,
    keys::{key_prefix, prefix_end},
    ledger::{Attribute, Kind, OnBehalfOf, RangeRead, Read, Version, Write},
    limits::{TRANSACTION_BYTES_MAX, VALUE_BYTES_MAX},
    sha256,
    signature::Purpose,
};
use serde_json::json;
use service::{Code, Role, rpc, rpc::Call};

use super::{FORMER, Here, unchanged};

type Admission = Option<(Code, &'static str)>;

/// Others' identities, that cases sign with.
struct Others {
    peer_a: Signer,
    peer_b: Signer,
    orderer: Signer,
    worker: Signer,
    physician_b: Signer,
    former: Signer,
    stranger: Signer,
    impostor: Signer,
    strange_peer: Signer,
    expired: Signer,
    expired_peer: Signer,
}

impl Others {
    fn new(here: &Here, directory: &std::path::Path) -> Others {
        let world = &here.world;
        let stranger = Issuing::stranger("Stranger");
        // Calls himself HospitalA, under a root of his own.
        let impostor = Issuing::stranger("HospitalA");
        let member = Issuing::member(world, "HospitalA");
        let issue =
            |issuing: &Issuing, role, name: &str, validity| issuing.issue(role, name, validity, &directory.join(name));
        Others {
            peer_a: world.identity("HospitalA", "peer0"),
            peer_b: world.identity("HospitalB", "peer0"),
            orderer: world.orderer(),
            worker: world.identity("HospitalA", "worker0"),
            physician_b: world.identity("HospitalB", "physician"),
            former: world.identity("HospitalA", FORMER),
            stranger: issue(&stranger, Role::Client, "stranger", Validity::Now),
            impostor: issue(&impostor, Role::Client, "impostor", Validity::Now),
            strange_peer: issue(&stranger, Role::Peer, "strange-peer", Validity::Now),
            expired: issue(&member, Role::Client, "expired", Validity::Over),
            expired_peer: issue(&member, Role::Peer, "expired-peer", Validity::Over),
        }
    }
}

enum Change {
    /// Before anybody signs.
    Before(fn(&Others, &mut Draft)),
    /// After everybody has signed.
    After(fn(&Others, &mut Built)),
}
use Change::{After, Before};

struct Case {
    name: &'static str,
    change: Change,
    /// `None`: needs state or height, which orderers do not have.
    admission: Admission,
    /// `None`: `validate` knows no clock, so this would be VALID past a door that looks at it.
    block: Option<Verdict>,
}

fn case(name: &'static str, change: Change, admission: Admission, block: Verdict) -> Case {
    Case {
        name,
        change,
        admission,
        block: Some(block),
    }
}

/// Somebody else creates the proposal, and signs it.
fn by(draft: &mut Draft, creator: &Signer) {
    draft.proposal.creator = creator.hash().to_vec();
    draft.client = creator.clone();
}

fn on_behalf_of() -> Option<OnBehalfOf> {
    Some(OnBehalfOf {
        certificate: vec![1; 32],
        common_name: "somebody".into(),
        role: "client".into(),
        attributes: vec![Attribute {
            name: "practitioner_role".into(),
            value: "physician".into(),
        }],
    })
}

fn cases() -> Vec<Case> {
    use Verdict::*;
    let no = |code, field| Some((code, field));
    vec![
        case(
            "bytes that are no transaction",
            After(|_, tx| tx.raw = Some(vec![0xff; 200])),
            no(Code::BadEncoding, "transaction"),
            BadEncoding,
        ),
        case(
            "an empty transaction",
            After(|_, tx| tx.raw = Some(Vec::new())),
            no(Code::BadEncoding, "proposal.channel"),
            BadEncoding,
        ),
        case(
            "a transaction with a field more",
            After(|_, tx| {
                let mut bytes = tx.bytes();
                bytes.extend([0x7a, 0x01, 0x00]);
                tx.raw = Some(bytes);
            }),
            no(Code::BadEncoding, "transaction"),
            BadEncoding,
        ),
        case(
            "a nonce of 15 bytes",
            Before(|_, tx| tx.proposal.nonce.truncate(15)),
            no(Code::BadEncoding, "proposal.nonce"),
            BadEncoding,
        ),
        case(
            "writes out of order",
            Before(|_, tx| {
                let write = tx.result.writes[0].clone();
                tx.result.writes.push(write);
            }),
            no(Code::BadEncoding, "result.writes"),
            BadEncoding,
        ),
        case(
            "no client's signature",
            After(|_, tx| tx.transaction.client = None),
            no(Code::BadEncoding, "client"),
            BadEncoding,
        ),
        case(
            "a transaction over its limit",
            After(|_, tx| tx.raw = Some(vec![0; TRANSACTION_BYTES_MAX + 1])),
            no(Code::TooLarge, "transaction"),
            TooLarge,
        ),
        case(
            "a value over its limit",
            Before(|_, tx| tx.result.writes[0].value = vec![0; VALUE_BYTES_MAX + 1]),
            no(Code::TooLarge, "result.writes.value"),
            TooLarge,
        ),
        case(
            "a replay from another channel",
            Before(|_, tx| {
                tx.channel = [7; 32];
                tx.proposal.channel = vec![7; 32];
            }),
            no(Code::WrongChannel, "proposal.channel"),
            WrongChannel,
        ),
        case(
            "another epoch",
            Before(|_, tx| tx.proposal.epoch = 1),
            no(Code::WrongChannel, "proposal.epoch"),
            WrongChannel,
        ),
        case(
            "a query submitted as a transaction",
            Before(|_, tx| tx.proposal.kind = Kind::Query.into()),
            no(Code::WrongKind, "proposal.kind"),
            NotSubmit,
        ),
        case(
            "a stranger's client",
            Before(|who, tx| by(tx, &who.stranger)),
            no(Code::Unauthenticated, "proposal.creator"),
            UnknownCreator,
        ),
        case(
            "an impostor under a member's name",
            Before(|who, tx| by(tx, &who.impostor)),
            no(Code::Unauthenticated, "proposal.creator"),
            UnknownCreator,
        ),
        case(
            "a client revoked in the genesis",
            Before(|who, tx| by(tx, &who.former)),
            no(Code::Revoked, "proposal.creator"),
            UnknownCreator,
        ),
        case(
            "a creator's certificate that was not sent along",
            After(|_, tx| {
                let creator = protocol::ledger::Proposal::decode(&tx.transaction.proposal[..])
                    .expect("own bytes")
                    .creator;
                tx.certificates.retain(|der| sha256(der)[..] != creator[..]);
            }),
            no(Code::Unauthenticated, "proposal.creator"),
            UnknownCreator,
        ),
        Case {
            name: "an expired client",
            change: Before(|who, tx| by(tx, &who.expired)),
            admission: no(Code::CertificateExpired, "proposal.creator"),
            block: None,
        },
        Case {
            name: "an expired endorser",
            change: Before(|who, tx| tx.endorsers = vec![who.expired_peer.clone()]),
            admission: no(Code::CertificateExpired, "endorsements.certificate"),
            block: None,
        },
        case(
            "a peer as the creator",
            Before(|who, tx| by(tx, &who.peer_a)),
            no(Code::PermissionDenied, "proposal.creator"),
            CreatorRole,
        ),
        case(
            "an orderer as the creator",
            Before(|who, tx| by(tx, &who.orderer)),
            no(Code::PermissionDenied, "proposal.creator"),
            CreatorRole,
        ),
        case(
            "a worker as the creator",
            Before(|who, tx| by(tx, &who.worker)),
            no(Code::PermissionDenied, "proposal.creator"),
            CreatorRole,
        ),
        case(
            "a client on behalf of another",
            Before(|_, tx| tx.proposal.on_behalf_of = on_behalf_of()),
            no(Code::PermissionDenied, "proposal.creator"),
            CreatorRole,
        ),
        case(
            "another's signature under the client's name",
            Before(|who, tx| tx.client = who.physician_b.clone()),
            no(Code::BadSignature, "client"),
            BadClientSignature,
        ),
        case(
            "a client's signature for another purpose",
            Before(|_, tx| tx.client_purpose = Purpose::Endorsement),
            no(Code::BadSignature, "client"),
            BadClientSignature,
        ),
        case(
            "a signature for another channel under this one's name",
            Before(|_, tx| tx.channel = [7; 32]),
            no(Code::BadSignature, "client"),
            BadClientSignature,
        ),
        case(
            "arguments changed in a signed proposal",
            After(|_, tx| {
                let mut proposal = protocol::ledger::Proposal::decode(&tx.transaction.proposal[..]).expect("own bytes");
                proposal.arguments_commitment[0] ^= 1;
                tx.transaction.proposal = proposal.encode_to_vec();
            }),
            no(Code::BadSignature, "client"),
            BadClientSignature,
        ),
        case(
            "an unknown contract",
            Before(|_, tx| tx.proposal.contract = "unknown".into()),
            no(Code::UnknownContract, "proposal.contract"),
            UnknownContract,
        ),
        case(
            "another version of the contract in the proposal",
            Before(|_, tx| tx.proposal.contract_digest = vec![1; 32]),
            no(Code::ContractChanged, "proposal.contract_digest"),
            ContractDigest,
        ),
        case(
            "another version of the contract in the result",
            Before(|_, tx| tx.result.contract_digest = vec![1; 32]),
            no(Code::ContractChanged, "result.contract_digest"),
            ContractDigest,
        ),
        case(
            "an endorsement of another proposal",
            Before(|_, tx| {
                tx.rebind = false;
                tx.result.tx_id = vec![1; 32];
            }),
            no(Code::InvalidArgument, "result.tx_id"),
            ResultMismatch,
        ),
        case(
            "a write outside the partition key",
            Before(|_, tx| outside(&mut tx.result.writes[0].key)),
            no(Code::InvalidArgument, "result.writes.key"),
            KeyOutside,
        ),
        case(
            "a write under another contract",
            Before(|_, tx| {
                let key = tx.proposal.partition_key.clone();
                tx.result.writes = vec![Write {
                    key: protocol::keys::state_key(RECORDS_2_OF, &key, b"record"),
                    value: b"{}".to_vec(),
                    delete: false,
                }];
            }),
            no(Code::InvalidArgument, "result.writes.key"),
            KeyOutside,
        ),
        case(
            "a read outside the partition key",
            Before(|_, tx| {
                tx.result.reads.truncate(1);
                outside(&mut tx.result.reads[0].key);
            }),
            no(Code::InvalidArgument, "result.reads.key"),
            KeyOutside,
        ),
        case(
            "a height bound that has passed",
            Before(|_, tx| tx.proposal.height_bound = 0),
            no(Code::Expired, "proposal.height_bound"),
            HeightBound,
        ),
        case(
            "a height bound that lies too far ahead",
            Before(|_, tx| tx.proposal.height_bound = u64::MAX),
            None,
            HeightBound,
        ),
        case(
            "a snapshot of the future",
            Before(|_, tx| tx.result.snapshot_height = 1 << 40),
            None,
            SnapshotAge,
        ),
        case(
            "a snapshot of another chain",
            Before(|_, tx| tx.result.snapshot_header[0] ^= 1),
            None,
            SnapshotUnknown,
        ),
        case(
            "a stranger's endorsement",
            Before(|who, tx| tx.endorsers = vec![who.strange_peer.clone()]),
            no(Code::Unauthenticated, "endorsements.certificate"),
            UnknownEndorser,
        ),
        case(
            "an endorsement by a client",
            Before(|who, tx| tx.endorsers = vec![who.physician_b.clone()]),
            no(Code::Unauthenticated, "endorsements.certificate"),
            UnknownEndorser,
        ),
        case(
            "an endorsement by a worker",
            Before(|who, tx| tx.endorsers = vec![who.worker.clone()]),
            no(Code::Unauthenticated, "endorsements.certificate"),
            UnknownEndorser,
        ),
        case(
            "a forged endorsement",
            After(|_, tx| tx.transaction.endorsements[0].signature[7] ^= 1),
            no(Code::BadSignature, "endorsements"),
            BadEndorsement,
        ),
        case(
            "an endorsement under another's name",
            After(|who, tx| {
                tx.transaction.endorsements[0].certificate = who.peer_b.hash().to_vec();
                tx.certificates.push(who.peer_b.certificate_der().to_vec());
                tx.certificates.sort_by_key(|der| sha256(der));
            }),
            no(Code::BadSignature, "endorsements"),
            BadEndorsement,
        ),
        case(
            "an endorsement for another purpose",
            Before(|_, tx| tx.endorsement_purpose = Purpose::Proposal),
            no(Code::BadSignature, "endorsements"),
            BadEndorsement,
        ),
        case(
            "a read set changed after it was endorsed",
            After(|_, tx| tampered(tx, |result| result.reads.clear())),
            no(Code::BadSignature, "endorsements"),
            BadEndorsement,
        ),
        case(
            "a value changed after it was endorsed",
            After(|_, tx| tampered(tx, |result| result.writes[0].value.push(b' '))),
            no(Code::BadSignature, "endorsements"),
            BadEndorsement,
        ),
        case(
            "no endorsement",
            Before(|_, tx| tx.endorsers.clear()),
            no(Code::PermissionDenied, "endorsements"),
            PolicyNotSatisfied,
        ),
        case(
            "a read set that never was, endorsed by a liar",
            Before(|_, tx| {
                tx.result.reads[0].version = Some(Version {
                    epoch: 0,
                    height: 1,
                    index: 0,
                })
            }),
            None,
            MvccConflict,
        ),
    ]
}

fn outside(key: &mut [u8]) {
    let at = RECORDS.len() + 1;
    key[at] ^= 1;
}

fn tampered(tx: &mut Built, change: impl FnOnce(&mut protocol::ledger::Result)) {
    let mut result = protocol::ledger::Result::decode(&tx.transaction.result[..]).expect("own bytes");
    change(&mut result);
    tx.transaction.result = result.encode_to_vec();
}

pub async fn run(here: &Here) {
    let directory = tempfile::tempdir().expect("a directory");
    let others = Others::new(here, directory.path());
    let mut orderer = AtOrderer(rpc::orderer_client(here.world.dial(&others.peer_a, "orderer0")));
    for case in cases() {
        let built = built(here, &others, &case).await;
        unchanged(here, case.name, async {
            if let Some(expected) = case.admission {
                let refused = orderer.broadcast(built.request()).await;
                let problem = refused.expect_err(case.name);
                assert_eq!(
                    (problem.code, problem.field.as_str()),
                    expected,
                    "{}: {problem}",
                    case.name
                );
            }
            if let Some(verdict) = case.block {
                in_block(
                    here,
                    case.name,
                    built.partition(here.world.partitions()),
                    &[&built],
                    &[verdict],
                )
                .await;
            }
        })
        .await;
    }
    policies(here, &mut orderer, &others).await;
    conflicts(here).await;
    replays(here).await;
}

async fn built(here: &Here, others: &Others, case: &Case) -> Built {
    let mut draft = here.world.draft(&here.client, here.fresh()).await;
    match &case.change {
        Before(change) => {
            change(others, &mut draft);
            draft.build()
        }
        After(change) => {
            let mut built = draft.build();
            change(others, &mut built);
            built
        }
    }
}

/// Puts a block of these into the log; every peer must give these codes.
async fn in_block(here: &Here, name: &str, partition: u32, transactions: &[&Built], verdicts: &[Verdict]) {
    let height = here.world.inject_block(partition, transactions).await;
    let expected: Vec<&str> = verdicts.iter().map(|verdict| verdict.word()).collect();
    assert_eq!(
        here.codes(name, partition, height).await,
        expected,
        "{name}: in block {height}"
    );
}

/// 2 of 4 must endorse: one does not do, nor does one twice.
async fn policies(here: &Here, orderer: &mut AtOrderer, others: &Others) {
    let too_few = (Code::PermissionDenied, "endorsements", Verdict::PolicyNotSatisfied);
    let repeated = (Code::BadEncoding, "endorsements.certificate", Verdict::BadEncoding);
    let cases = [
        (
            "one endorsement where two are needed",
            vec![others.peer_a.clone()],
            too_few,
        ),
        (
            "one endorsement twice where two are needed",
            vec![others.peer_a.clone(); 2],
            repeated,
        ),
        (
            "two of one organisation where two are needed",
            vec![others.peer_a.clone(), here.world.identity("HospitalA", "attester")],
            too_few,
        ),
    ];
    for (name, endorsers, (code, field, verdict)) in cases {
        let mut draft = here.world.draft(&here.client, here.fresh_under(RECORDS_2_OF)).await;
        draft.endorsers = endorsers;
        let built = draft.build();
        unchanged(here, name, async {
            let problem = orderer.broadcast(built.request()).await.expect_err(name);
            assert_eq!(
                (problem.code, problem.field.as_str()),
                (code, field),
                "{name}: {problem}"
            );
            let partition = built.partition(here.world.partitions());
            in_block(here, name, partition, &[&built], &[verdict]).await;
        })
        .await;
    }
}

async fn note(here: &Here, client: &Client, number: &str) -> Draft {
    let call: Call = calls::call(
        RECORDS,
        "addNote",
        &json!([number, {"information": "endorsed before the others"}]),
    );
    here.world.draft(client, call).await
}

/// What was read has changed meanwhile.
async fn conflicts(here: &Here) {
    let number = here.existing().await;
    let late = note(here, &here.client, &number).await.build();
    here.client
        .must(calls::call(
            RECORDS,
            "addNote",
            &json!([number, {"information": "first"}]),
        ))
        .await;
    here.honest.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = "a read that was overtaken";
    let partition = late.partition(here.world.partitions());
    unchanged(
        here,
        name,
        in_block(here, name, partition, &[&late], &[Verdict::MvccConflict]),
    )
    .await;

    let name = "a range said to be empty that is not";
    let mut phantom = note(here, &here.client, &number).await;
    let start = key_prefix(RECORDS, &phantom.proposal.partition_key);
    phantom.result.ranges = vec![RangeRead {
        end: prefix_end(&start),
        start: start.clone(),
        entries: Vec::new(),
    }];
    let phantom = phantom.build();
    unchanged(
        here,
        name,
        in_block(here, name, partition, &[&phantom], &[Verdict::PhantomRead]),
    )
    .await;

    let name = "a range that leaves the partition key";
    let mut wide = note(here, &here.client, &number).await;
    let entries: Vec<Read> = Vec::new();
    wide.result.ranges = vec![RangeRead {
        start: start.clone(),
        end: vec![0xff; 60],
        entries,
    }];
    let wide = wide.build();
    unchanged(
        here,
        name,
        in_block(here, name, partition, &[&wide], &[Verdict::KeyOutside]),
    )
    .await;
}

/// The same honest transaction, again and elsewhere.
async fn replays(here: &Here) {
    let honest = here.world.draft(&here.client, here.fresh()).await.build();
    let partition = honest.partition(here.world.partitions());
    let other = (partition + 1) % here.world.partitions();
    let name = "a replay into another partition";
    unchanged(
        here,
        name,
        in_block(here, name, other, &[&honest], &[Verdict::WrongPartition]),
    )
    .await;

    // Twice in one block: once is enough.
    in_block(
        here,
        "an honest transaction, twice",
        partition,
        &[&honest, &honest],
        &[Verdict::Valid, Verdict::Duplicate],
    )
    .await;
    here.honest.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = "a replay of what is VALID";
    unchanged(
        here,
        name,
        in_block(here, name, partition, &[&honest], &[Verdict::Duplicate]),
    )
    .await;
    unchanged(
        here,
        name,
        in_block(here, name, other, &[&honest], &[Verdict::WrongPartition]),
    )
    .await;
}
