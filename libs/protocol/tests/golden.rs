//! Golden bytes: a change that moves one of these changes the formats of every network that runs.

use prost::Message;
use protocol::{
    canonical,
    code::Code,
    header::{Header, block_leaf},
    keys::{ChannelSecret, arguments_commitment, partition_of, response_digest, state_key},
    ledger::{self, Kind, Proposal},
    merkle, sha256,
    signature::{Purpose, SigningKey, Verifier, sign},
};

fn check(actual: impl AsRef<[u8]>, expected: &str) {
    assert_eq!(hex::encode(actual), expected);
}

fn proposal() -> Proposal {
    Proposal {
        channel: vec![1; 32],
        epoch: 0,
        contract: "medical-records".into(),
        contract_digest: vec![2; 32],
        function: "createMedicalRecord".into(),
        partition_key: vec![3; 32],
        creator: vec![4; 32],
        on_behalf_of: None,
        kind: Kind::Submit as i32,
        nonce: vec![5; 16],
        client_time_ms: 1_700_000_000_000,
        height_bound: 1000,
        arguments_commitment: vec![6; 32],
    }
}

/// Ed25519 signs deterministically, so that its bytes can be pinned. PKCS#8 v1 of a key of 32 sevens.
fn key() -> SigningKey {
    let mut der = hex::decode("302e020100300506032b657004220420").unwrap();
    der.extend([7; 32]);
    SigningKey::from_pkcs8(&der).unwrap()
}

#[test]
fn a_proposal() {
    let bytes = proposal().encode_to_vec();
    check(
        &bytes,
        &[
            "0a20",
            &"01".repeat(32),
            "1a0f6d65646963616c2d7265636f726473",
            "2220",
            &"02".repeat(32),
            "2a136372656174654d65646963616c5265636f7264",
            "3220",
            &"03".repeat(32),
            "3a20",
            &"04".repeat(32),
            "4801",
            "5210",
            &"05".repeat(16),
            "5880d095ffbc31",
            "60e807",
            "6a20",
            &"06".repeat(32),
        ]
        .concat(),
    );
    assert_eq!(canonical::decode::<Proposal>(&bytes).unwrap(), proposal());
}

#[test]
fn unknown_fields_and_other_encodings_are_refused() {
    let bytes = proposal().encode_to_vec();
    let mut unknown = bytes.clone();
    unknown.extend([0xf8, 0x01, 0x01]);
    assert!(canonical::decode::<Proposal>(&unknown).is_err());
    let mut repeated = bytes.clone();
    repeated.extend_from_slice(&[0x60, 0xe8, 0x07]);
    assert!(canonical::decode::<Proposal>(&repeated).is_err());
    let mut default = vec![0x10, 0x00];
    default.extend(&bytes);
    assert!(
        canonical::decode::<Proposal>(&default).is_err(),
        "an epoch of 0 is not written"
    );
}

#[test]
fn a_signature() {
    let signatures = sign(
        &key(),
        &[9; 32],
        Purpose::Proposal,
        &[1; 32],
        &[b"a".as_slice(), b"b", b"c"],
    )
    .unwrap();
    check(sha256(&signatures[2].encode_to_vec()), GOLDEN_SIGNATURE);
    Verifier::new(1)
        .verify(
            &key().public_key().unwrap(),
            Purpose::Proposal,
            &[1; 32],
            b"c",
            &signatures[2],
        )
        .unwrap();
}

/// A sample of each row of the table in `docs/formats.md`: H(content), and H(its signature message).
#[test]
fn what_each_signature_covers() {
    let version = ledger::Version {
        epoch: 0,
        height: 7,
        index: 8,
    };
    let read = ledger::Read {
        key: b"a".to_vec(),
        version: Some(version),
    };
    let result = ledger::Result {
        tx_id: vec![1; 32],
        contract_digest: vec![2; 32],
        snapshot_height: 9,
        snapshot_header: vec![3; 32],
        reads: vec![read.clone()],
        ranges: vec![ledger::RangeRead {
            start: b"a".to_vec(),
            end: b"b".to_vec(),
            entries: vec![read],
        }],
        writes: vec![ledger::Write {
            key: b"a".to_vec(),
            delete: false,
            value: b"v".to_vec(),
        }],
        policies: vec![ledger::KeyPolicy {
            key: b"a".to_vec(),
            policy: "OR('A.peer')".into(),
        }],
        response_digest: vec![4; 32],
        events: vec![ledger::Event {
            r#type: "t".into(),
            payload: b"p".to_vec(),
        }],
    };
    let block = ledger::Block {
        channel: vec![1; 32],
        epoch: 0,
        partition: 2,
        marker: Some(ledger::Marker {
            sequence: 0,
            control_height: 3,
            control_header: vec![4; 32],
            attestations: vec![],
        }),
        ..Default::default()
    };
    let receipt = ledger::ReceiptContent {
        channel: vec![1; 32],
        epoch: 0,
        partition: 2,
        height: 3,
        index: 4,
        tx_id: vec![5; 32],
        record_hash: vec![6; 32],
    };
    let attestation = ledger::AttestationContent {
        channel: vec![1; 32],
        epoch: 0,
        partition: 2,
        height: 3,
        header: vec![4; 32],
    };
    let config = ledger::Config {
        sequence: 1,
        previous: vec![1; 32],
        channel_name: "c".into(),
        rules_version: 1,
        partitions: 2,
        secret_hash: vec![2; 32],
        heights_in_time_max: 3,
        snapshot_age_max: 4,
        organisations: vec![ledger::Organisation {
            msp_id: "A".into(),
            root_certificate: vec![5],
            revoked: vec![vec![6]],
            attester: vec![7],
        }],
        contracts: vec![ledger::Contract {
            name: "c".into(),
            digest: vec![8; 32],
            policy: "p".into(),
            functions: vec![ledger::FunctionPolicy {
                name: "f".into(),
                policy: "q".into(),
            }],
        }],
        endorsement_policy: "e".into(),
        admin_policy: "a".into(),
    };
    let samples = [
        (Purpose::Proposal, proposal().encode_to_vec()),
        (Purpose::Endorsement, result.encode_to_vec()),
        (Purpose::Block, block.encode_to_vec()),
        (Purpose::Receipt, receipt.encode_to_vec()),
        (Purpose::Attestation, attestation.encode_to_vec()),
        (Purpose::Config, config.encode_to_vec()),
        (Purpose::Module, sha256(b"component").to_vec()),
    ];
    assert_eq!(samples.clone().map(|(purpose, _)| purpose), Purpose::ALL);
    let formats = include_str!("../../../docs/formats.md");
    let found = samples.map(|(purpose, content)| {
        let tag = std::str::from_utf8(purpose.tag()).unwrap();
        assert!(formats.contains(&format!("| `{tag}` |")), "docs/formats.md lacks {tag}");
        let signatures = sign(&key(), &[9; 32], purpose, &[1; 32], &[&content[..]]).unwrap();
        let [content, signature] = [sha256(&content), sha256(&signatures[0].encode_to_vec())].map(hex::encode);
        format!("{tag} {content} {signature}")
    });
    assert_eq!(found, GOLDEN_SIGNED);
}

#[test]
fn hashes() {
    let header = Header {
        channel: [1; 32],
        epoch: 0,
        partition: 1,
        height: 2,
        previous: [3; 32],
        record_hash: [4; 32],
        root: merkle::root(&[block_leaf(&[5; 32], &[6; 32], Code::MvccConflict)]),
        state_digest: [7; 32],
        rules_version: 1,
    };
    check(header.hash(), GOLDEN_HEADER);
    let secret = ChannelSecret::new(&[8; 32]);
    let key = secret.partition_key("medical-records", "940220-1234");
    check(key, GOLDEN_PARTITION_KEY);
    assert_eq!(
        partition_of(&[0, 0, 0, 0, 0, 0, 1, 1].repeat(4).try_into().unwrap(), 2),
        1
    );
    check(secret.hash(), GOLDEN_SECRET_HASH);
    check(arguments_commitment(&[9; 32], b"[]"), GOLDEN_COMMITMENT);
    check(response_digest(&[9; 32], b"null"), GOLDEN_RESPONSE);
    check(
        state_key("c", &[0xaa; 32], b"record"),
        &format!("6300{}7265636f7264", "aa".repeat(32)),
    );
}

#[test]
fn a_block_record() {
    let block = ledger::Block {
        channel: vec![1; 32],
        epoch: 0,
        partition: 1,
        certificates: vec![vec![1, 2, 3]],
        transactions: vec![vec![4, 5]],
        marker: None,
    };
    let record = ledger::BlockRecord {
        block: block.encode_to_vec(),
        certificate: vec![6],
        signature: None,
    }
    .encode_to_vec();
    check(
        &record,
        &format!("0a2d0a20{}180122030102032a0204051201{}", "01".repeat(32), "06"),
    );
}

const GOLDEN_SIGNATURE: &str = "958e56196ef09fb02f1f647cbfcf3812e5e5b133d7a56d73a79718dba4e7527a";
const GOLDEN_HEADER: &str = "e485c40ec807133624e3c17249e31dc1c9938219bba802acc3ec3b34033d3492";
const GOLDEN_PARTITION_KEY: &str = "e94881901346348e5bf5a1d616c60df55613d3358359352f49520154fa5ab3e3";
const GOLDEN_SECRET_HASH: &str = "d5ad3165f78d06d7eae3a7befb39c723369cf51df50ff627395b75e3293e1067";
const GOLDEN_COMMITMENT: &str = "b442b826c0864dab668ef12704c9547066a03843d7f0868f1b5fedfd211f2384";
const GOLDEN_RESPONSE: &str = "52ee92b991448bd67f54eacb32dc5a260ea7fbb4565f4ad2114bbe4724a79857";
/// Tag, H(content), H(signature message).
const GOLDEN_SIGNED: [&str; 7] = [
    "medledger/proposal/1 5eacd485d4b2a59f1c06366bf674c6961c0f9b0aff81a5896f11199845b2ebda a1711af4faba911fd4af845261b94cf77f7e0b414660ac3f6ad31483a1a153b9",
    "medledger/endorsement/1 834b25db6a05b9e4713432b588666223068a644b9d5c26ed01c67b8fec9e1e33 67c198c84dab78469010e8c29cd65b691c766bd04801cd8e6ccdfc393897a08d",
    "medledger/block/1 f1f2d605f1ff59397ca9e2b96bdb13f5d8934496b8d2e22b70171c8130554e92 3df8f89922129c02d5c3c7ddd403975c27859bbb6280523dfec54cbba62cf854",
    "medledger/receipt/1 95cb2ca964679155ab723f57c3fca11c0b4933794be390c88accb7bcdf0fd55f 091c5a4932fa6d11d243e7ac1cb68f4a79630df6ecdcc071b245d927ccdf1091",
    "medledger/attestation/1 ffabf7b25dd884d8e53acd130eed5e74de1ece3e136d56230b75d1066efaba64 d199b25b2f43bbbd124be0b64eb639c38a9d4d665d83b4b7a1c11c141b9c9b07",
    "medledger/config/1 9119eb48b72b63b0c1249c6104ec09b34031b005fc20ec91d0ce0a1af5fef7da eade17d10d1697231731dcf1b448b8b9b551278b7cc3522dc0a2e13dbb196997",
    "medledger/module/1 7049188105d65a11af07317f9fd630f37b2aef97f45d9411c0f394110cf8a3fe e11eb858d66ae315e5ba8d7e0faf8dcf39c763737760940742cde9875f9c3a4c",
];
