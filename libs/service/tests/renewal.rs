//! A process whose certificate was renewed under it: when it ends, and when it does not.

mod support;

use std::sync::Arc;
use std::time::Duration;

use protocol::identity::Role;
use protocol::testing::{Issue, Keys, TestOrganisation};
use service::health::{Health, State};
use service::identity::{Identity, load_roots};
use service::tls::Trust;
use service::{Tasks, renewal};
use support::{Mounted, SECOND, World, pair};
use tokio::time::Instant;

const SPREAD: Duration = Duration::from_secs(60);

/// A process as far as its identity goes.
struct Process {
    tasks: Tasks,
    health: Health,
}

fn start(world: &World, volume: &Mounted, spread: Duration) -> Process {
    let identity = Arc::new(Identity::load(&volume.directory).expect("an identity"));
    let members = load_roots(&world.path("roots")).expect("roots");
    let trust = Trust::load(identity, members, None).expect("trust");
    let (tasks, health) = (Tasks::new(), Health::new());
    renewal::watch(&tasks, &health, &trust, volume.directory.clone(), spread);
    Process { tasks, health }
}

#[tokio::test(start_paused = true)]
async fn a_good_pair_ends_the_process_and_a_bad_one_does_not() {
    let world = World::new(Keys::P256);
    let (hospital, relief) = (&world.hospital, &world.relief);
    let old = hospital.identity("peer0");
    let mut volume = Mounted::new(world.path("identity"), &pair(old));
    let process = start(&world, &volume, SPREAD);
    let long = 3 * SPREAD;
    tokio::time::sleep(long).await;
    assert!(!process.tasks.is_leaving(), "nothing has changed");

    let issue = |organisation: &TestOrganisation, role, issue| pair(&organisation.issue(role, "peer0", issue));
    let another_key = vec![pair(old).remove(0), pair(hospital.identity("peer1")).remove(1)];
    let half = vec![("cert.pem", b"-----BEGIN".to_vec()), pair(old).remove(1)];
    let past = Issue {
        not_after: 1_600_000_000,
        ..Issue::default()
    };
    let impostor = TestOrganisation::new(99, "HospitalA", Keys::P256);
    let bad = [
        (another_key, "the key is not the certificate's"),
        (half, "cert.pem"),
        (issue(hospital, Role::Orderer, Issue::default()), "has the role peer"),
        (
            issue(relief, Role::Peer, Issue::default()),
            "is of ReliefOrg, this process is HospitalA's",
        ),
        (issue(hospital, Role::Peer, past), "expired"),
        (issue(&impostor, Role::Peer, Issue::default()), "identity: "),
    ];
    for (files, why) in bad {
        volume.swap(&files);
        tokio::time::sleep(long).await;
        assert!(!process.tasks.is_leaving(), "{why}");
        let state = process.health.checks()["identity"].clone();
        assert!(
            matches!(&state, State::Degraded { reason } if reason.contains(why)),
            "{why}: {state:?}"
        );
        assert!(process.health.is_ready(), "it goes on with the old one");
    }

    volume.swap(&pair(old));
    tokio::time::sleep(long).await;
    assert_eq!(process.health.checks()["identity"], State::Ok);

    volume.swap(&issue(hospital, Role::Peer, Issue::default()));
    let began = Instant::now();
    let ended = tokio::time::timeout(2 * SPREAD, process.tasks.wait(SECOND)).await;
    assert_eq!(ended, Ok(Ok(())), "without an error");
    assert!(began.elapsed() <= SPREAD + 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn replicas_do_not_all_go_at_once() {
    let world = World::new(Keys::P256);
    let mut volume = Mounted::new(world.path("identity"), &pair(world.hospital.identity("peer0")));
    let processes: Vec<_> = (0..40).map(|_| start(&world, &volume, SPREAD)).collect();
    tokio::time::sleep(SECOND).await;
    volume.swap(&pair(&world.hospital.issue(Role::Peer, "peer0", Issue::default())));
    let began = Instant::now();
    let ends = processes.iter().map(|process| async move {
        process.tasks.token().cancelled().await;
        began.elapsed()
    });
    let mut ends = futures::future::join_all(ends).await;
    ends.sort();
    assert!(ends[39] <= SPREAD + 2 * SECOND, "{ends:?}");
    // Of 40 evenly spread ones a quarter of the time is left without any once in a hundred thousand times.
    let first_half = ends.iter().filter(|end| **end <= SPREAD / 2).count();
    assert!((5..=35).contains(&first_half), "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_taken_back_ends_nothing() {
    let world = World::new(Keys::P256);
    let old = world.hospital.identity("peer0");
    let mut volume = Mounted::new(world.path("identity"), &pair(old));
    let spread = 1000 * SPREAD;
    let process = start(&world, &volume, spread);
    volume.swap(&pair(&world.hospital.issue(Role::Peer, "peer0", Issue::default())));
    tokio::time::sleep(2 * SECOND).await;
    volume.swap(&pair(old));
    tokio::time::sleep(2 * spread).await;
    assert!(!process.tasks.is_leaving());
}
