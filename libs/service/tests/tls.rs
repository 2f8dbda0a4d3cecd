//! Who may connect to whom: wrong authority, expired, revoked, wrong role, wrong name.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use protocol::identity::Role;
use protocol::testing::{Issue, Keys, TestOrganisation};
use service::Tasks;
use service::health::Health;
use service::lists::{Broadcast, Limits};
use service::mux::{self, Mux};
use service::resolve::Resolve;
use service::serve::Config;
use service::tls::Target;
use support::{Mounted, Running, SECOND, World, echo, orderer, orderer_at, request, text, until, whoami};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Connections refused here for this reason.
fn refused(reason: &str) -> f64 {
    metric::value(&format!("medledger_connections_refused_total{{reason=\"{reason}\"}}"))
}

#[tokio::test]
async fn a_member_is_known_by_name() {
    for keys in [Keys::P256, Keys::Ed25519] {
        let world = World::new(keys);
        let server = world.orderer(Limits::default(), echo).await;
        let client = world.trust(world.hospital.identity("peer0"), None);
        let channel = client.channel(&server.target()).expect("channel");
        assert_eq!(whoami(channel).await.expect("accepted"), "peer0");
        server.stop().await;
    }
}

#[tokio::test]
async fn strangers_the_expired_and_the_self_made_are_refused() {
    let world = World::new(Keys::P256);
    let server = world.orderer(Limits::default(), echo).await;

    // In TLS 1.3 a client learns the server's verdict only with its first answer.
    let refusal = async |trust: std::sync::Arc<service::tls::Trust>| {
        let channel = trust.channel(&server.target()).expect("channel");
        format!("{:?}", whoami(channel).await.expect_err("refused"))
    };
    let check = |refusal: String, alert: &str| assert!(refusal.contains(alert), "{alert}: {refusal}");
    let before = ["certificate_stranger", "certificate_expired"].map(refused);

    let stranger = world.trust_of_anyone(&world.stranger, world.stranger.identity("peer0"));
    check(refusal(stranger).await, "UnknownCA");

    let past = Issue {
        not_after: 1_600_000_000,
        ..Issue::default()
    };
    let expired = world.trust(&world.hospital.issue(Role::Peer, "late", past), None);
    check(refusal(expired).await, "CertificateExpired");

    let future = Issue {
        not_before: 2_400_000_000,
        ..Issue::default()
    };
    let early = world.trust(&world.hospital.issue(Role::Peer, "early", future), None);
    check(refusal(early).await, "CertificateExpired");

    // Another authority of the same name: the names fit, the signature does not.
    let impostor = protocol::testing::TestOrganisation::new(99, "HospitalA", Keys::P256);
    let directory = world.path("impostor");
    impostor.identity("peer0").write(&directory).expect("write");
    let roots = world.path("impostor-roots");
    std::fs::create_dir(&roots).expect("create");
    std::fs::write(roots.join("a.pem"), impostor.root_pem()).expect("write");
    std::fs::write(roots.join("r.pem"), world.relief.root_pem()).expect("write");
    let members = service::identity::load_roots(&roots).expect("roots");
    let identity = service::Identity::load(&directory).expect("identity");
    let impostor = service::tls::Trust::load(identity.into(), members, None).expect("trust");
    check(refusal(impostor).await, "DecryptError");
    // Expired and early; who else is refused at the same time in other tests only adds to it.
    until("each is counted with its reason", || {
        refused("certificate_stranger") > before[0] && refused("certificate_expired") >= before[1] + 2.0
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_checks_whom_it_reaches() {
    let world = World::new(Keys::P256);
    let server = world.orderer(Limits::default(), echo).await;
    let client = world.trust(world.hospital.identity("peer0"), None);
    let address = server.target().address;

    let check = async |target: Target| whoami(client.channel(&target).expect("channel")).await;
    check(Target::new(&address, Role::Orderer, Some("ReliefOrg")))
        .await
        .expect("as expected");
    let status = check(Target::new(&address, Role::Peer, None))
        .await
        .expect_err("wrong role");
    assert!(
        service_detail(&status).contains("the server is a orderer, not a peer"),
        "{}",
        service_detail(&status)
    );
    check(Target::new(&address, Role::Orderer, Some("HospitalA")))
        .await
        .expect_err("wrong organisation");
    server.stop().await;

    let elsewhere = Issue {
        names: vec!["elsewhere.example".to_owned()],
        ..Issue::default()
    };
    let elsewhere = world.relief.issue(Role::Orderer, "elsewhere", elsewhere);
    let server = orderer(world.trust(&elsewhere, None), Limits::default(), echo).await;
    check(server.target()).await.expect_err("wrong name");
    server.stop().await;

    let server = orderer(
        world.trust_of_anyone(&world.stranger, world.stranger.identity("orderer0")),
        Limits::default(),
        echo,
    )
    .await;
    check(server.target()).await.expect_err("a stranger's server");
    server.stop().await;
}

fn service_detail(status: &tonic::Status) -> String {
    format!("{status:?}")
}

/// Says what it is told to say, and how often it was asked.
struct Told {
    place: Mutex<SocketAddr>,
    asked: AtomicUsize,
}

impl Resolve for Told {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, std::io::Result<Vec<SocketAddr>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(vec![*self.place.lock()])))
    }
}

#[tokio::test]
async fn every_connection_asks_where_the_name_leads() {
    let world = World::new(Keys::P256);
    let trust = world.trust(world.relief.identity("orderer0"), None);
    let first = orderer(trust.clone(), Limits::default(), echo).await;
    let told = Arc::new(Told {
        place: Mutex::new(first.address),
        asked: AtomicUsize::new(0),
    });
    let client = world.trust(world.hospital.identity("peer0"), None);
    // Nothing listens at the name's own port.
    let target = Target::new("localhost:1", Role::Orderer, None);
    let channel = client.channel_by(&target, told.clone()).expect("channel");
    let tasks = Tasks::new();
    let mux = Mux::<Broadcast>::start(&tasks, channel.clone(), mux::Config::default());
    until("the stream is open", || mux.is_up()).await;
    assert_eq!(whoami(channel.clone()).await.expect("there"), "peer0");
    let asked = told.asked.load(Ordering::Relaxed);

    // The pod comes back with another address: streams find it, and so do single calls.
    let second = orderer_at(
        trust,
        Limits::default(),
        Config::default(),
        "127.0.0.2:0".parse().expect("address"),
        echo,
    )
    .await;
    first.stop().await;
    until("the break is noticed", || !mux.is_up()).await;
    *told.place.lock() = second.address;
    until("the stream is open again", || mux.is_up()).await;
    let reply = mux.call(request("there"), 5 * SECOND).await.expect("a reply");
    assert_eq!(text(reply), "there");
    assert_eq!(whoami(channel).await.expect("there"), "peer0");
    assert!(told.asked.load(Ordering::Relaxed) > asked);

    // Wherever it leads, the certificate must be for the name.
    let elsewhere = Target::new("elsewhere.example:1", Role::Orderer, None);
    let channel = client.channel_by(&elsewhere, told).expect("channel");
    let status = whoami(channel).await.expect_err("another name");
    assert!(format!("{status:?}").contains("NotValidForName"), "{status:?}");
    tasks.cancel();
    second.stop().await;
}

#[tokio::test]
async fn lists_of_a_mounted_volume_are_read_once_each_and_again_when_it_is_swapped() {
    let world = World::new(Keys::P256);
    // Whoever loads its trust sets the gauges of its members to zero; no other test here has this one.
    let clinic = TestOrganisation::new(1, "Clinic", Keys::P256);
    let file = "Clinic.pem";
    std::fs::write(world.path("roots").join(file), clinic.root_pem()).expect("write");
    let counted = || metric::value("medledger_revoked_certificates{msp=\"Clinic\"}");
    let [first, second] = ["peer0", "peer1"].map(|name| clinic.identity(name));
    let mut volume = Mounted::new(world.path("mounted"), &[(file, clinic.crl(&[first]))]);
    let trust = world.trust(world.relief.identity("orderer0"), Some(&volume.directory));
    assert!(trust.is_revoked(&first.certificate) && !trust.is_revoked(&second.certificate));
    assert_eq!(counted(), 1.0);
    let (tasks, health) = (Tasks::new(), Health::new());
    trust.watch(&tasks, &health, Duration::from_millis(20));
    volume.swap(&[(file, clinic.crl(&[first, second]))]);
    until("the new list is read", || trust.is_revoked(&second.certificate)).await;
    until("the new list is counted", || counted() == 2.0).await;
    volume.swap(&[(file, b"no list".to_vec())]);
    let shown = || format!("{:?}", health.checks()["revocation_lists"]);
    until("the bad one is shown", || shown().contains(file)).await;
    assert!(
        !shown().contains("..2026"),
        "by its name, not by its version's: {}",
        shown()
    );
    assert!(trust.is_revoked(&second.certificate), "the former list stays");
    tasks.cancel();
}

#[tokio::test]
async fn a_revocation_list_acts_without_a_restart_and_closes_connections() {
    let world = World::new(Keys::P256);
    let crls = world.path("crls");
    let trust = world.trust(world.relief.identity("orderer0"), Some(&crls));
    let server = orderer(trust.clone(), Limits::default(), echo).await;
    let (revoked, kept) = (world.hospital.identity("peer0"), world.hospital.identity("peer1"));
    let client = world.trust(revoked, None).channel(&server.target()).expect("channel");
    let other = world.trust(kept, None).channel(&server.target()).expect("channel");
    assert_eq!(whoami(client.clone()).await.expect("not revoked yet"), "peer0");
    assert_eq!(whoami(other.clone()).await.expect("not revoked"), "peer1");

    std::fs::write(crls.join("HospitalA.crl"), world.hospital.crl(&[revoked])).expect("write");
    let before = ["certificate_revoked", "no_longer_trusted"].map(refused);
    until("the list is read", || trust.is_revoked(&revoked.certificate)).await;
    // The channel that was open is closed, a new one is refused; the other goes on.
    tokio::time::sleep(Duration::from_millis(50)).await;
    whoami(client).await.expect_err("revoked");
    whoami(world.trust(revoked, None).channel(&server.target()).expect("channel"))
        .await
        .expect_err("revoked");
    until("both are counted", || {
        refused("certificate_revoked") > before[0] && refused("no_longer_trusted") > before[1]
    })
    .await;
    assert_eq!(whoami(other.clone()).await.expect("not revoked"), "peer1");

    // A damaged list changes nothing, nor does one that another organisation signed.
    std::fs::write(crls.join("HospitalA.crl"), b"garbage").expect("write");
    trust.reload().expect_err("damaged");
    assert!(trust.is_revoked(&revoked.certificate));
    std::fs::write(crls.join("HospitalA.crl"), world.relief.crl(&[kept])).expect("write");
    trust.reload().expect("a good list of another");
    assert!(
        !trust.is_revoked(&kept.certificate),
        "an organisation revokes its own only"
    );
    assert!(
        trust.is_revoked(&revoked.certificate),
        "a list that has gone stays in force"
    );
    server.stop().await;

    // A client does not talk to a revoked server either.
    std::fs::remove_file(crls.join("HospitalA.crl")).expect("remove");
    let server = world.orderer(Limits::default(), echo).await;
    let wary = world.trust(kept, Some(&crls));
    let open = wary.channel(&server.target()).expect("channel");
    whoami(open.clone()).await.expect("not revoked yet");
    std::fs::write(
        crls.join("ReliefOrg.crl"),
        world.relief.crl(&[world.relief.identity("orderer0")]),
    )
    .expect("write");
    wary.reload().expect("a good list");
    whoami(open).await.expect_err("an open connection to a revoked server");
    whoami(wary.channel(&server.target()).expect("channel"))
        .await
        .expect_err("a revoked server");
    server.stop().await;
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let world = World::new(Keys::P256);
    let server = world.orderer(Limits::default(), echo).await;
    let now = service::time::unix_s();
    let short = Issue {
        not_after: now + 2,
        ..Issue::default()
    };
    let client = world.trust(&world.hospital.issue(Role::Peer, "short", short), None);
    let channel = client.channel(&server.target()).expect("channel");
    whoami(channel.clone()).await.expect("still valid");
    tokio::time::sleep(Duration::from_millis(3500)).await;
    whoami(channel).await.expect_err("expired, the connection as well");
    server.stop().await;
}

#[tokio::test]
async fn a_role_may_only_call_what_it_should() {
    let world = World::new(Keys::P256);
    let server = world.orderer(Limits::default(), echo).await;
    for (name, allowed) in [
        ("peer0", true),
        ("client0", false),
        ("admin", false),
        ("orderer0", false),
    ] {
        let client = world.trust(world.hospital.identity(name), None);
        let answer = whoami(client.channel(&server.target()).expect("channel")).await;
        match allowed {
            true => assert_eq!(answer.expect("allowed"), name),
            false => {
                let status = answer.expect_err("denied");
                assert_eq!(status.code(), tonic::Code::PermissionDenied, "{name}");
                let problem = service::Problem::from(status);
                assert_eq!(problem.code, service::Code::PermissionDenied);
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn one_identity_cannot_take_all_connections() {
    let world = World::new(Keys::P256);
    let trust = world.trust(world.relief.identity("orderer0"), None);
    let config = Config {
        connections_per_identity_max: 2,
        ..Config::default()
    };
    let server = orderer_at(
        trust,
        Limits::default(),
        config,
        "127.0.0.1:0".parse().expect("address"),
        echo,
    )
    .await;
    let client = world.trust(world.hospital.identity("peer0"), None);
    let mut open = Vec::new();
    for _ in 0..2 {
        let channel = client.channel(&server.target()).expect("channel");
        whoami(channel.clone()).await.expect("within the bound");
        open.push(channel);
    }
    whoami(client.channel(&server.target()).expect("channel"))
        .await
        .expect_err("beyond the bound");
    // Another certificate of the same identity is the same identity.
    let renewed = world.hospital.issue(Role::Peer, "peer0", Issue::default());
    whoami(world.trust(&renewed, None).channel(&server.target()).expect("channel"))
        .await
        .expect_err("beyond the bound");
    let other = world.trust(world.hospital.identity("peer1"), None);
    whoami(other.channel(&server.target()).expect("channel"))
        .await
        .expect("another identity");
    drop(open);
    server.stop().await;
}

/// A connection from another address of this host, as if from another host.
async fn connect_from(source: &str, server: &Running) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("socket");
    socket
        .bind(format!("{source}:0").parse().expect("address"))
        .expect("bind");
    socket.connect(server.address).await.expect("connect")
}

async fn is_cut(stream: &mut TcpStream) {
    let mut buffer = [0; 1];
    let read = tokio::time::timeout(5 * SECOND, stream.read(&mut buffer)).await;
    assert!(matches!(read.expect("cut in time"), Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_cut() {
    let world = World::new(Keys::P256);
    let long = 600 * SECOND;
    let brief = Duration::from_millis(100);
    for (first_byte_deadline, handshake_deadline, said) in [(brief, long, b"".as_slice()), (long, brief, &[0x16])] {
        let config = Config {
            handshakes_max: 1,
            first_byte_deadline,
            handshake_deadline,
            ..Config::default()
        };
        let trust = world.trust(world.relief.identity("orderer0"), None);
        let anywhere = "127.0.0.1:0".parse().expect("address");
        let server = orderer_at(trust, Limits::default(), config, anywhere, echo).await;
        let mut silent = TcpStream::connect(server.address).await.expect("connect");
        silent.write_all(said).await.expect("write");
        is_cut(&mut silent).await;
        // Its place is free again.
        let client = world.trust(world.hospital.identity("peer0"), None);
        let channel = client.channel(&server.target()).expect("channel");
        assert_eq!(whoami(channel).await.expect("a place"), "peer0");
        server.stop().await;
    }
}

#[tokio::test]
async fn one_source_cannot_hold_all_handshakes() {
    let world = World::new(Keys::P256);
    let config = Config {
        handshakes_max: 3,
        handshakes_per_source_max: 2,
        // Long enough that nothing here ends by it, short enough that the server then does.
        first_byte_deadline: 3 * SECOND,
        ..Config::default()
    };
    let trust = world.trust(world.relief.identity("orderer0"), None);
    let anywhere = "127.0.0.1:0".parse().expect("address");
    let server = orderer_at(trust, Limits::default(), config, anywhere, echo).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(connect_from("127.0.0.2", &server).await);
    }
    is_cut(&mut connect_from("127.0.0.2", &server).await).await;
    let client = world.trust(world.hospital.identity("peer0"), None);
    let channel = client.channel(&server.target()).expect("channel");
    assert_eq!(whoami(channel).await.expect("from elsewhere"), "peer0");
    drop(held);
    server.stop().await;
}

#[tokio::test]
async fn rest_and_grpc_share_the_port() {
    let world = World::new(Keys::P256);
    let server = world.orderer(Limits::default(), echo).await;
    for (name, path, expected) in [
        ("client0", "/v1/hello", "200"),
        ("peer0", "/v1/hello", "403"),
        ("client0", "/elsewhere", "403"),
    ] {
        let trust = world.trust(world.hospital.identity(name), None);
        let config = trust.client_config(Role::Orderer, None).expect("config");
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = tokio::net::TcpStream::connect(server.address).await.expect("connect");
        let host = rustls::pki_types::ServerName::try_from("localhost").expect("name");
        let mut stream = connector.connect(host, stream).await.expect("handshake");
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
            .await
            .expect("write");
        let mut answer = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected}")),
            "{name} {path}: {answer}"
        );
        if expected == "403" {
            assert!(answer.contains("application/problem+json"), "{answer}");
        }
    }
    server.stop().await;
}
