//! The rest of a process's life: signatures in batches, health and metrics over HTTP, identities on disk.

mod support;

use std::sync::Arc;
use std::time::Duration;

use protocol::signature::{Purpose, Verifier};
use protocol::testing::Keys;
use service::Tasks;
use service::health::{self, Health};
use service::identity::Identity;
use service::signer::{BatchSigner, Config};
use support::{SECOND, World, get};

#[tokio::test]
async fn contents_that_wait_together_share_a_signature() {
    for keys in [Keys::P256, Keys::Ed25519] {
        let world = World::new(keys);
        let (tasks, channel) = (Tasks::new(), [7; 32]);
        let identity = world.identity(world.hospital.identity("peer0"));
        let signer = BatchSigner::start(&tasks, identity.clone(), channel, Config::default());
        let verifier = Verifier::new(1000);
        let check = |purpose, content: &[u8], signature: &_| {
            verifier.verify(&identity.certificate.public_key, purpose, &channel, content, signature)
        };
        // The first comes alone, the others wait for the next round.
        let alone = signer.sign(Purpose::Proposal, b"first".to_vec()).await.expect("signed");
        assert_eq!((alone.size, alone.index), (1, 0));
        check(Purpose::Proposal, b"first", &alone).expect("valid");

        let many = (0..100_u8).map(|n| {
            let signer = signer.clone();
            let purpose = if n % 2 == 0 {
                Purpose::Proposal
            } else {
                Purpose::Endorsement
            };
            async move { (n, purpose, signer.sign(purpose, vec![n]).await.expect("signed")) }
        });
        for (n, purpose, signature) in futures::future::join_all(many).await {
            assert_eq!(signature.size, 50);
            check(purpose, &[n], &signature).expect("valid");
            check(purpose, &[n, n], &signature).expect_err("another content");
        }
        let lists = signer
            .sign_all(Purpose::Block, vec![vec![1], vec![2], vec![3]])
            .await
            .expect("signed");
        assert_eq!(lists.len(), 3);
        check(Purpose::Block, &[2], &lists[1]).expect("in order");

        // What a draining process has accepted is still signed.
        tasks.cancel();
        tasks.wait(SECOND).await.expect("the signer ends at once");
        let late = signer.sign(Purpose::Receipt, b"late".to_vec()).await.expect("signed");
        check(Purpose::Receipt, b"late", &late).expect("valid");
    }
}

#[tokio::test]
async fn a_full_signer_refuses() {
    let world = World::new(Keys::Ed25519);
    let tasks = Tasks::new();
    let identity = world.identity(world.hospital.identity("peer0"));
    let config = Config {
        queue_items_max: 2,
        pace: Duration::ZERO,
        ..Config::default()
    };
    let signer = BatchSigner::start(&tasks, identity, [7; 32], config);
    // The task has no turn before all three have asked.
    let asked = (0..3).map(|n| signer.sign(Purpose::Proposal, vec![n]));
    let outcomes = futures::future::join_all(asked).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
    let refused = outcomes.into_iter().find_map(Result::err).expect("one refused");
    assert_eq!(refused.code, service::Code::ResourceExhausted);
    tasks.cancel();
}

#[tokio::test]
async fn degraded_is_ready_and_failed_is_not() {
    let (tasks, health) = (Tasks::new(), Health::new());
    let (kafka, disk) = (health.check("kafka"), health.check("disk"));
    let address = health::serve(&tasks, health, "127.0.0.1:0".parse().expect("address"))
        .await
        .expect("serve");
    let ready = async || get(address, "/readyz").await.starts_with("HTTP/1.1 200");

    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(!ready().await, "starting");
    kafka.ok();
    disk.ok();
    assert!(ready().await);
    kafka.degraded("no broker answers");
    assert!(ready().await, "reads are still served");
    let report = get(address, "/health").await;
    assert!(
        report.contains(r#""kafka":{"state":"degraded","reason":"no broker answers"}"#),
        "{report}"
    );
    disk.failed("full");
    assert!(!ready().await);
    assert!(
        get(address, "/livez").await.starts_with("HTTP/1.1 200"),
        "a restart would not mend it"
    );
    let metrics = get(address, "/metrics").await;
    assert!(metrics.contains(r#"medledger_health{check="disk"} 3"#), "{metrics}");
    assert!(metrics.contains("process_resident_memory_bytes"), "{metrics}");
    tasks.cancel();
    tasks.wait(SECOND).await.expect("ends");
}

#[test]
fn an_identity_must_be_whole() {
    let world = World::new(Keys::P256);
    let directory = world.path("identity");
    let (peer, other) = (world.hospital.identity("peer0"), world.hospital.identity("peer1"));
    peer.write(&directory).expect("write");
    assert_eq!(Identity::load(&directory).expect("whole").hash(), peer.hash());

    std::fs::write(directory.join("key.pem"), other.key_pem()).expect("write");
    let error = Identity::load(&directory).expect_err("another's key").to_string();
    assert!(error.ends_with("the key is not the certificate's"), "{error}");
    std::fs::write(directory.join("key.pem"), "nothing").expect("write");
    let error = Identity::load(&directory).expect_err("no key").to_string();
    assert!(error.contains("key.pem"), "{error}");
    std::fs::remove_file(directory.join("cert.pem")).expect("remove");
    let error = Identity::load(&directory).expect_err("no certificate").to_string();
    assert!(error.contains("cert.pem"), "{error}");
    let shown = format!(
        "{:?}",
        Arc::new(
            Identity::load(&{
                peer.write(&directory).expect("write");
                directory.clone()
            })
            .expect("whole")
        )
    );
    assert_eq!(shown, "Identity(peer0, peer of HospitalA)");
}
