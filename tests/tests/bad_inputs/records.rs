//! Records that no honest orderer appends, put straight into the topics: each is an empty block on every
//! peer, with the same header on all, and stops nobody.

use ledger_log::Log as _;
use medledger_tests::network::{
    PATIENCE, chain,
    doors::{Issuing, Validity},
    forge::signature,
};
use prost::Message as _;
use protocol::{
    CONTROL,
    ledger::{
        Attestation, AttestationContent, AttestationList, BlockRecord, Config, ConfigUpdate, ControlRecord, Marker,
        control_record,
    },
    limits::{BLOCK_BYTES_MAX, BLOCK_TRANSACTIONS_MAX, CONTROL_RECORD_BYTES_MAX, KAFKA_RECORD_BYTES_MAX},
    signature::Purpose,
};
use service::Role;

use super::{Here, unchanged};

const CONTRADICTIONS: &str = "medledger_peer_attestations_contradicting_total";

pub async fn run(here: &Here) {
    blocks(here).await;
    flipped(here).await;
    too_large_for_kafka(here).await;
    control(here).await;
    attestations(here).await;
}

/// Each holds an honest transaction, where it holds any: it must not become VALID by this record.
async fn blocks(here: &Here) {
    let world = &here.world;
    let honest = world.draft(&here.client, here.fresh()).await.build();
    let partition = honest.partition(world.partitions());
    let good = world.sealed(partition, &[&honest]);
    let orderer = world.orderer();
    let directory = tempfile::tempdir().expect("a directory");
    let stranger = Issuing::stranger("Stranger").issue(
        Role::Orderer,
        "orderer0",
        Validity::Now,
        &directory.path().join("stranger"),
    );
    let by = |who: &service::Identity| world.record(who, &good).encode_to_vec();
    let changed = |change: &dyn Fn(&mut protocol::ledger::Block)| {
        let mut block = good.clone();
        change(&mut block);
        world.record(&orderer, &block).encode_to_vec()
    };
    let genesis_marker = || Marker {
        sequence: 0,
        control_height: 0,
        control_header: vec![1; 32],
        attestations: Vec::new(),
    };
    let signed = world.record(&orderer, &good);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("an empty record", Vec::new()),
        ("garbage", b"no block at all".to_vec()),
        ("garbage of a megabyte", vec![0xa5; 1 << 20]),
        (
            "an unsigned block",
            BlockRecord {
                signature: None,
                ..signed.clone()
            }
            .encode_to_vec(),
        ),
        (
            "a block record with a field more",
            [signed.encode_to_vec(), vec![0x7a, 0x01, 0x00]].concat(),
        ),
        ("a block signed by a stranger", by(&stranger)),
        (
            "a block signed by a member's peer",
            by(&world.identity("HospitalA", "peer0")),
        ),
        (
            "a block signed by a member's client",
            by(&world.identity("HospitalA", "physician")),
        ),
        (
            "a block signed by a member's worker",
            by(&world.identity("HospitalA", "worker0")),
        ),
        (
            "a block signed by a member's admin",
            by(&world.identity("HospitalA", "admin")),
        ),
        ("an orderer's signature under another block", {
            let other = world.record(&orderer, &world.sealed(partition, &[]));
            BlockRecord {
                signature: other.signature,
                ..signed.clone()
            }
            .encode_to_vec()
        }),
        ("an orderer's receipt signature on a block", {
            let signature = Some(signature(
                &orderer,
                Purpose::Receipt,
                &world.channel_id(),
                &signed.block,
            ));
            BlockRecord {
                signature,
                ..signed.clone()
            }
            .encode_to_vec()
        }),
        (
            "a block of another channel",
            changed(&|block| block.channel = vec![7; 32]),
        ),
        ("a block of another epoch", changed(&|block| block.epoch = 1)),
        (
            "a block of another partition",
            changed(&|block| block.partition = (partition + 1) % world.partitions()),
        ),
        (
            "a block with a marker and transactions",
            changed(&|block| block.marker = Some(genesis_marker())),
        ),
        (
            "a block with its certificates out of order",
            changed(&|block| block.certificates.reverse()),
        ),
        (
            "a block over its limit",
            changed(&|block| block.transactions.push(vec![0; BLOCK_BYTES_MAX])),
        ),
        (
            "a block of too many transactions",
            changed(&|block| block.transactions = vec![Vec::new(); BLOCK_TRANSACTIONS_MAX + 1]),
        ),
        ("the largest record that Kafka takes", vec![1; KAFKA_RECORD_BYTES_MAX]),
        ("a marker that cites another genesis", {
            let block = protocol::ledger::Block {
                marker: Some(genesis_marker()),
                ..world.sealed(partition, &[])
            };
            world.record(&orderer, &block).encode_to_vec()
        }),
        ("a marker of a config that is none", {
            let marker = Marker {
                sequence: 1,
                ..genesis_marker()
            };
            let block = protocol::ledger::Block {
                marker: Some(marker),
                ..world.sealed(partition, &[])
            };
            world.record(&orderer, &block).encode_to_vec()
        }),
    ];
    for (name, raw) in cases {
        unchanged(here, name, async {
            let height = world.inject(partition, raw.clone()).await;
            let codes = here.codes(name, partition, height).await;
            assert!(
                codes.is_empty(),
                "{name}: a record that is no block has transactions: {codes:?}"
            );
        })
        .await;
    }
    // The transaction itself was never wrong.
    let height = world.inject(partition, signed.encode_to_vec()).await;
    assert_eq!(here.codes("the same block, whole", partition, height).await, ["VALID"]);
    here.honest.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

/// One bit of an honest record: an empty block, wherever it is.
async fn flipped(here: &Here) {
    let world = &here.world;
    let honest = world.draft(&here.client, here.fresh()).await.build();
    let partition = honest.partition(world.partitions());
    let record = world
        .record(&world.orderer(), &world.sealed(partition, &[&honest]))
        .encode_to_vec();
    unchanged(here, "a flipped bit in a record", async {
        let step = (record.len() / 97).max(1);
        let flips = (0..record.len()).step_by(step).map(|at| {
            let mut raw = record.clone();
            raw[at] ^= 1 << (at % 8);
            world.log().append(&world.topic(partition), raw.into())
        });
        let heights = futures::future::join_all(flips).await;
        for (at, height) in heights.into_iter().enumerate() {
            let codes = here
                .codes("a flipped bit", partition, height.expect("Kafka takes it"))
                .await;
            assert!(codes.is_empty(), "bit of byte {} flipped: {codes:?}", at * step);
        }
    })
    .await;
}

/// What is over the topic's own limit does not come into the log at all.
async fn too_large_for_kafka(here: &Here) {
    let topic = here.world.topic(0);
    let before = here.world.log().bounds(&topic).await.expect("Kafka says");
    let taken = here
        .world
        .log()
        .append(&topic, vec![1; KAFKA_RECORD_BYTES_MAX + (64 << 10)].into())
        .await;
    let name = "a record over Kafka's limit";
    assert!(taken.is_err(), "{name} was taken");
    // Only heartbeats moved it: none of the new records is the one that was refused.
    let mut reader = here.world.log().read(&topic, before.1).await.expect("a reader");
    let after = here.world.log().bounds(&topic).await.expect("Kafka says");
    let mut next = before.1;
    while next < after.1 {
        for record in reader.next(PATIENCE).await.expect("records") {
            assert!(
                record.value.len() < KAFKA_RECORD_BYTES_MAX / 2,
                "{name} is at {}",
                record.offset
            );
            next = record.offset + 1;
        }
    }
    here.state().await;
}

/// Config updates are recognised and refused until a later version supports them; garbage is nothing.
async fn control(here: &Here) {
    let world = &here.world;
    let channel = &world.network.channel;
    let config = Config {
        sequence: 1,
        previous: vec![1; 32],
        endorsement_policy: "OR('HospitalA.peer')".into(),
        ..channel.config.clone()
    };
    let config = config.encode_to_vec();
    let admins: Vec<_> = channel
        .organisations()
        .map(|msp_id| world.identity(msp_id, "admin"))
        .collect();
    let update = ConfigUpdate {
        certificates: admins.iter().map(|admin| admin.certificate_der().to_vec()).collect(),
        signatures: admins
            .iter()
            .map(|admin| signature(admin, Purpose::Config, &channel.id, &config))
            .collect(),
        config,
    };
    let record = |content| ControlRecord { content: Some(content) }.encode_to_vec();
    let stranger = protocol::ledger::Module {
        component: b"\0asm nobody vouches for".to_vec(),
        ..Default::default()
    };
    let again = std::fs::read(world.network.layout.genesis()).expect("the genesis");
    let again = protocol::ledger::Genesis::decode(&again[..]).expect("a genesis");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "a config that every admin signed",
            record(control_record::Content::Config(update.clone())),
        ),
        (
            "a config that nobody signed",
            record(control_record::Content::Config(ConfigUpdate {
                signatures: Vec::new(),
                ..update
            })),
        ),
        (
            "a module that nobody vouches for",
            record(control_record::Content::Module(stranger)),
        ),
        ("the genesis again", record(control_record::Content::Genesis(again))),
        ("garbage in the control topic", b"no control record".to_vec()),
        ("an empty control record", Vec::new()),
        (
            "the largest garbage of the control topic",
            vec![2; CONTROL_RECORD_BYTES_MAX],
        ),
    ];
    for (name, raw) in cases {
        let digest = chain(&world.ask(&world.peers()[0]).await, CONTROL).state_digest;
        unchanged(here, name, async {
            let height = world
                .log()
                .append(&world.topic(CONTROL), raw.into())
                .await
                .expect("Kafka takes it");
            let mut header = None;
            for peer in world.peers() {
                let reply = world
                    .until(&peer, name, |reply| chain(reply, CONTROL).blocks > height)
                    .await;
                let known = chain(&reply, CONTROL);
                assert_eq!(
                    (known.stopped.as_str(), known.blocks),
                    ("", height + 1),
                    "{name}: {peer}"
                );
                assert_eq!(
                    *header.get_or_insert_with(|| known.header.clone()),
                    known.header,
                    "{name}: {peer} has another header"
                );
                assert_eq!(known.state_digest, digest, "{name}: {peer} took it for a config");
            }
        })
        .await;
        // Under the config of the genesis all goes on.
        here.existing().await;
    }
    for peer in world.peers() {
        let text = world.log_of(&peer);
        assert_eq!(
            text.matches("a config update: not supported, no effect").count(),
            2,
            "{peer} says that it refused the configs"
        );
    }
    // An orderer that starts now meets all this in the control chain and goes on.
    world.kill("orderer0").await;
    world.start("orderer0").await;
    here.existing().await;
}

/// Garbage and lies in the attestations' topic make nothing attested and stop nobody.
async fn attestations(here: &Here) {
    let world = &here.world;
    let liar = world.identity("HospitalB", "attester");
    let stranger = world.identity("HospitalB", "peer0");
    let lie = |signer: &service::Identity, height| {
        let content = AttestationContent {
            channel: world.channel_id().to_vec(),
            epoch: 0,
            partition: 0,
            height,
            header: vec![9; 32],
        };
        let content = content.encode_to_vec();
        Attestation {
            signature: Some(signature(signer, Purpose::Attestation, &world.channel_id(), &content)),
            content,
        }
    };
    let list = |attestations| AttestationList { attestations }.encode_to_vec();
    let topic = ledger_log::topics::Topics::of_channel(&world.network.channel).attest();
    // So near that the chain comes to it soon, so far that the attester has not said the truth of it before.
    let soon = world.ends().await[0] + 6;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("one attester's lie", list(vec![lie(&liar, soon)])),
        ("garbage among the attestations", b"nothing".to_vec()),
        (
            "an attestation by a peer that is no attester",
            list(vec![lie(&stranger, 1)]),
        ),
        (
            "an attestation of a height that is not there",
            list(vec![lie(&liar, 1 << 40)]),
        ),
        ("one attester's lie of what is past", list(vec![lie(&liar, 1)])),
    ];
    for (name, raw) in cases {
        unchanged(here, name, async {
            world.log().append(&topic, raw.into()).await.expect("Kafka takes it");
        })
        .await;
        // What comes after is attested all the same, by the other three.
        let (tx_id, _) = here.client.must(here.fresh()).await;
        here.honest.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let status = here
            .client
            .status(&tx_id, service::rpc::Finality::Attested, PATIENCE)
            .await
            .expect("a status");
        assert!(status.attested, "{name}: what came after is not attested: {status:?}");
    }
    for peer in world.peers() {
        here.counted(&peer, CONTRADICTIONS, 0.0, "one attester's lie").await;
    }
}
