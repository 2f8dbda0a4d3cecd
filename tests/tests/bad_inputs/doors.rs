//! Who may open a connection, and whom a service answers.

use std::{path::Path, sync::Arc, time::Duration};

use futures::StreamExt as _;
use medledger_cli::{
    ca::{Authority, Which},
    calls,
    network::spec::RECORDS,
};
use medledger_tests::network::{
    PATIENCE,
    client::Client,
    doors::{Issuing, Validity},
    forge::AtOrderer,
};
use service::{Code, Identity, Problem, Role, rpc};
use tonic::{Status, transport::Channel};

use super::{FORMER, Here, unchanged};

pub async fn run(here: &Here) {
    let directory = tempfile::tempdir().expect("a directory");
    unchanged(
        here,
        "connections with certificates that do not count",
        certificates(here, directory.path()),
    )
    .await;
    unchanged(here, "calls by those who may not", roles(here)).await;
    unchanged(here, "calls over REST by those who may not", rest(here)).await;
    lists(here).await;
}

/// The first answer of a gateway; a handshake that was refused shows there.
async fn gateway(channel: Channel) -> Result<(), Status> {
    rpc::gateway_client(channel)
        .network(rpc::NetworkRequest {})
        .await
        .map(drop)
}

async fn orderer(channel: Channel) -> Result<(), Status> {
    let asked = rpc::orderer_client(channel)
        .broadcast(rpc::BroadcastRequest::default())
        .await;
    asked.map(drop)
}

async fn peer(channel: Channel) -> Result<(), Status> {
    rpc::peer_client(channel)
        .exchange(rpc::ExchangeRequest::default())
        .await
        .map(drop)
}

async fn worker(channel: Channel) -> Result<(), Status> {
    // The stream's opening is what is allowed or not.
    let nothing = futures::stream::pending::<rpc::ToWorkerList>();
    let opened = tokio::time::timeout(PATIENCE, rpc::worker_client(channel).invoke(nothing)).await;
    let opened = opened.expect("an answer to the opening")?;
    drop(opened.into_inner().boxed());
    Ok(())
}

const REFUSED: &str = "medledger_connections_refused_total";

/// The server closes after its alert, and a client that was writing meanwhile may see only that it closed.
fn is_broken(text: &str) -> bool {
    [
        "BrokenPipe",
        "ConnectionReset",
        "ConnectionAborted",
        "UnexpectedEof",
        "connection closed",
    ]
    .iter()
    .any(|kind| text.contains(kind))
}

/// Nobody gets past the handshake whose certificate does not count, at any kind of process.
async fn certificates(here: &Here, directory: &Path) {
    let world = &here.world;
    let stranger = Issuing::stranger("Stranger");
    let impostor = Issuing::stranger("HospitalA");
    let member = Issuing::member(world, "HospitalA");
    let issue = |issuing: &Issuing, role: Role, name: &str, validity| {
        issuing.issue(role, name, validity, &directory.join(format!("{name}-{role}")))
    };
    for role in [Role::Client, Role::Peer] {
        let cases: [(&str, Arc<Identity>, &str); 5] = [
            (
                "a stranger",
                issue(&stranger, role, "stranger", Validity::Now),
                "UnknownCA",
            ),
            (
                "an impostor",
                issue(&impostor, role, "impostor", Validity::Now),
                "DecryptError|UnknownCA|BadSignature",
            ),
            (
                "an expired certificate",
                issue(&member, role, "expired", Validity::Over),
                "CertificateExpired",
            ),
            (
                "a certificate of tomorrow",
                issue(&member, role, "early", Validity::NotYet),
                "CertificateExpired|BadCertificate",
            ),
            (
                "a certificate revoked in the genesis",
                world.identity("HospitalA", FORMER),
                "CertificateRevoked",
            ),
        ];
        for (name, identity, alerts) in cases {
            // HospitalB's servers are known to the impostor's client, which takes HospitalA's place among its members.
            for process in ["peer0.HospitalB", "orderer0", "worker0.HospitalB"] {
                let strangers: &[&Issuing] = match name {
                    "a stranger" => &[&stranger],
                    "an impostor" => &[&impostor],
                    _ => &[],
                };
                let before = world.metric(process, REFUSED).await;
                let channel = world.dial_among(&identity, process, strangers);
                let answer = match process {
                    "orderer0" => orderer(channel).await,
                    "worker0.HospitalB" => worker(channel).await,
                    _ => gateway(channel).await,
                };
                let status = answer.expect_err(&format!("{name} ({role}) at {process}"));
                let text = format!("{status:?}");
                let fits = alerts.split('|').any(|alert| text.contains(alert));
                assert!(
                    fits || is_broken(&text),
                    "{name} ({role}) at {process}: the handshake ends with {alerts}, not with {text}"
                );
                here.counted(process, REFUSED, before, name).await;
            }
        }
    }
}

/// A service answers those it is for and says to everybody else that they may not.
async fn roles(here: &Here) {
    let world = &here.world;
    let who = [
        ("client of HospitalA", "HospitalA", "physician"),
        ("admin of HospitalA", "HospitalA", "admin"),
        ("peer of HospitalA", "HospitalA", "peer0"),
        ("client of HospitalB", "HospitalB", "physician"),
        ("admin of HospitalB", "HospitalB", "admin"),
        ("peer of HospitalB", "HospitalB", "peer0"),
        ("orderer of MinistryOfHealth", "MinistryOfHealth", "orderer0"),
        ("worker of HospitalA", "HospitalA", "worker0"),
    ];
    for (name, organisation, identity) in who {
        let identity = world.identity(organisation, identity);
        let dial = |process| world.dial(&identity, process);
        let is = |one: &str| name.starts_with(one);
        let own = organisation == "HospitalA";
        let answers = [
            (
                "gateway",
                gateway(dial("peer0.HospitalA")).await,
                own && (is("client") || is("admin")),
            ),
            ("peer", peer(dial("peer0.HospitalA")).await, is("peer")),
            ("worker", worker(dial("worker0.HospitalA")).await, own && is("peer")),
            ("orderer", orderer(dial("orderer0")).await, is("peer")),
        ];
        for (service, answer, allowed) in answers {
            match (answer, allowed) {
                (Ok(()), true) => {}
                (Err(status), false) => {
                    let problem = Problem::from(status);
                    assert_eq!(
                        problem.code,
                        Code::PermissionDenied,
                        "{name} at the {service}: {problem}"
                    );
                }
                (Ok(()), false) => panic!("the {service} answers a {name}"),
                (Err(status), true) => panic!("the {service} does not answer a {name}: {status:?}"),
            }
        }
    }
}

/// The same over REST, as RFC 9457 documents.
async fn rest(here: &Here) {
    let world = &here.world;
    let at = &world.process("peer0.HospitalA").listen;
    for (organisation, name, status) in [
        ("HospitalA", "physician", 200),
        ("HospitalB", "physician", 403),
        ("HospitalA", "peer0", 403),
    ] {
        let trust = world.trust(&world.identity(organisation, name), &[]);
        let tls = trust.client_config(Role::Peer, None).expect("TLS");
        let http = reqwest::Client::builder()
            .use_preconfigured_tls(tls)
            .build()
            .expect("a client");
        let answer = http
            .get(format!("https://{at}/v1/network"))
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{name} of {organisation}");
        if status != 200 {
            let document: serde_json::Value = answer.json().await.expect("a problem document");
            assert_eq!(
                document["code"], "permission_denied",
                "{name} of {organisation}: {document}"
            );
        }
    }
}

/// A revocation list takes effect while everything runs: open connections end, new ones are refused, and
/// what the revoked had signed is not admitted any more.
async fn lists(here: &Here) {
    let world = &here.world;
    let nurse = world.client("peer0.HospitalB", "nurse");
    let number = here.existing().await;
    nurse
        .evaluate(calls::get(RECORDS, &number), PATIENCE)
        .await
        .expect("the nurse reads");
    let patient = medledger_cli::patients::patient(medledger_cli::patients::SEED, 9_000_000);
    let draft = world.draft(&nurse, calls::create(RECORDS, &patient)).await.build();

    let authority = Authority::open(&world.network.layout.authority("HospitalB")).expect("the authority");
    authority.revoke(&Which::Name("nurse".into())).expect("revoked");
    let list = world.network.layout.crls().join("HospitalB.pem");
    std::fs::copy(authority.crl_file(), list).expect("handed to every process");

    let name = "a nurse whom a list revokes";
    unchanged(here, name, async {
        refused_from_now_on(&nurse, &number).await;
        let status = gateway(world.dial(&nurse.session.identity, "peer0.HospitalB"))
            .await
            .expect_err(name);
        let text = format!("{status:?}");
        assert!(
            text.contains("CertificateRevoked") || is_broken(&text),
            "{name}: {text}"
        );

        let mut orderer = AtOrderer(rpc::orderer_client(
            world.dial(&world.identity("HospitalB", "peer0"), "orderer0"),
        ));
        // Each process looks at the lists about every second; at this orderer's door it shows that it has.
        let known = async {
            loop {
                let status = orderer_door(here, &nurse.session.identity).await;
                // Until then she gets past the handshake, and is told that she may not.
                if status.code() != tonic::Code::PermissionDenied {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, known)
            .await
            .expect("the orderer reads the list");
        let problem = orderer.broadcast(draft.request()).await.expect_err(name);
        assert_eq!(
            (problem.code, problem.field.as_str()),
            (Code::Revoked, "proposal.creator"),
            "{name}: {problem}"
        );
    })
    .await;
    // Others of her organisation go on.
    let physician = world.client("peer0.HospitalB", "physician");
    physician
        .evaluate(calls::get(RECORDS, &number), PATIENCE)
        .await
        .expect("a colleague reads");
}

async fn orderer_door(here: &Here, identity: &Arc<Identity>) -> Status {
    let answer = orderer(here.world.dial(identity, "orderer0")).await;
    answer.expect_err("a client, revoked or not, has no business there")
}

/// The open connection ends by itself.
async fn refused_from_now_on(client: &Client, number: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while client
        .evaluate(calls::get(RECORDS, number), Duration::from_secs(5))
        .await
        .is_ok()
    {
        assert!(
            std::time::Instant::now() < deadline,
            "an open connection outlives the revocation of its certificate"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
