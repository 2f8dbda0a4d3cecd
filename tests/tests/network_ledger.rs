//! What the ledger promises to those who use it: the same record everywhere, policies, levels of finality,
//! conflicts without lost updates, streams without gaps, restarts that change nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use medledger_cli::{
    calls,
    network::{
        Spec,
        process::program,
        spec::{RECORDS, RECORDS_2_OF, RECORDS_ALL},
    },
    patients,
};
use medledger_tests::network::{
    PATIENCE, World, chain,
    client::{Client, End},
    load::{Load, Offer},
    small,
};
use nix::sys::signal::Signal;
use protocol::CONTROL;
use serde_json::{Value, json};
use service::{
    Code,
    rpc::{self, Finality},
};

const NUMBER: &str = "940220-1234";

fn physicians(world: &World) -> Vec<Arc<Client>> {
    world
        .peers()
        .iter()
        .map(|peer| world.client(peer, "physician"))
        .collect()
}

/// Reads at a peer, once it has judged the transaction.
async fn read_after(client: &Client, tx_id: &protocol::Digest, contract: &str, number: &str) -> Value {
    let status = client
        .status(tx_id, Finality::Committed, PATIENCE)
        .await
        .expect("a status");
    assert_eq!(
        (status.found, status.code.as_str()),
        (true, "VALID"),
        "{}: status",
        client.peer()
    );
    let read = client.evaluate(calls::get(contract, number), PATIENCE).await;
    read.unwrap_or_else(|problem| panic!("{}: {problem}", client.peer()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_organisation_sees_the_same_record_and_policies_name_who_is_missing() {
    let world = World::up(&small()).await;
    let clients = physicians(&world);
    let patient = patients::patient(patients::SEED, 1);
    for contract in [RECORDS, RECORDS_2_OF, RECORDS_ALL] {
        let (tx_id, _) = clients[0].must(calls::create(contract, &patient)).await;
        let reads = join_all(
            clients
                .iter()
                .map(|client| read_after(client, &tx_id, contract, &patient.personal_number)),
        );
        let reads = reads.await;
        assert_eq!(reads[0]["firstName"], patient.record.first_name, "{contract}");
        for (client, read) in clients.iter().zip(&reads) {
            assert_eq!(*read, reads[0], "{contract}: {} sees another record", client.peer());
        }
    }

    for name in ["peer0.HospitalB", "peer0.ReliefOrg"] {
        world.kill(name).await;
    }
    let away = |reply: &rpc::NetworkReply| reply.peers.iter().filter(|peer| !peer.alive).count() == 2;
    world
        .until("peer0.HospitalA", "notices that two peers are away", away)
        .await;
    let asked = Instant::now();
    let other = patients::patient(patients::SEED, 2);
    let (_, end) = clients[0]
        .send(calls::create(RECORDS_ALL, &other), Finality::Committed, PATIENCE)
        .await;
    let End::Refused(problem) = end else {
        panic!("AND without two of its organisations ended with {end:?}")
    };
    assert_eq!(problem.code, Code::PolicyUnsatisfiable, "{problem}");
    assert_eq!(problem.missing, ["HospitalB", "ReliefOrg"], "{problem}");
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "at once, not after {:?}",
        asked.elapsed()
    );
    clients[0].must(calls::create(RECORDS, &other)).await;
    clients[0].must(calls::create(RECORDS_2_OF, &other)).await;

    world.start("peer0.HospitalB").await;
    world.start("peer0.ReliefOrg").await;
    let again = async {
        while let (_, End::Refused(problem)) = clients[0]
            .send(calls::create(RECORDS_ALL, &other), Finality::Committed, PATIENCE)
            .await
        {
            assert_eq!(problem.code, Code::PolicyUnsatisfiable, "{problem}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again)
        .await
        .expect("AND is met again by itself, once all are back");
    for name in ["peer0.HospitalB", "peer0.ReliefOrg"] {
        let client = world.client(name, "physician");
        let ends = world.ends().await;
        world.reached(name, &ends).await;
        let read = client
            .evaluate(calls::get(RECORDS_ALL, &other.personal_number), PATIENCE)
            .await
            .expect("a record");
        assert_eq!(
            read["lastName"], other.record.last_name,
            "{name} has what was created while it was away"
        );
    }
    world.check_logs(&[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attested_waits_for_a_quorum_and_care_never_does() {
    let world = World::up(&small()).await;
    let client = world.client("peer0.HospitalA", "physician");
    let create = |index| calls::create(RECORDS, &patients::patient(patients::SEED, index));
    let attested = |signed_end: (_, End)| match signed_end {
        (_, End::Done(done)) => done,
        (_, end) => panic!("a create that waits for attested ended with {end:?}"),
    };
    let done = attested(client.send(create(1), Finality::Attested, PATIENCE).await);
    assert_eq!(
        done.reached(),
        Finality::Attested,
        "3 of 4 organisations attest: {done:?}"
    );

    // 2 of 4 are no quorum.
    for name in ["peer0.HospitalB", "peer0.MinistryOfHealth"] {
        world.kill(name).await;
    }
    let patience = Duration::from_secs(2);
    let asked = Instant::now();
    let (signed, end) = client.send(create(2), Finality::Attested, patience).await;
    let signed = signed.expect("signed");
    let done = attested((Some(signed.clone()), end));
    assert_eq!(
        done.reached(),
        Finality::Committed,
        "without a quorum nothing is attested: {done:?}"
    );
    assert!(
        asked.elapsed() >= patience,
        "it waited for the quorum as long as it was told, not {:?}",
        asked.elapsed()
    );
    let (_, done) = client.must(create(3)).await;
    assert_eq!(done.reached(), Finality::Committed, "care goes on");
    let status = client
        .status(&signed.tx_id, Finality::Unspecified, PATIENCE)
        .await
        .expect("a status");
    assert!(status.found && !status.attested, "{status:?}");

    world.start("peer0.HospitalB").await;
    let status = client
        .status(&signed.tx_id, Finality::Attested, PATIENCE)
        .await
        .expect("a status");
    assert!(
        status.attested,
        "3 of 4 are back: what was committed meanwhile becomes attested by itself"
    );
    world.check_logs(&[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_conflicting_updates_loses_none() {
    let world = World::up(&small()).await;
    let clients = physicians(&world);
    let patient = patients::patient(patients::SEED, 1);
    let number = &patient.personal_number;
    let (tx_id, _) = clients[0].must(calls::create(RECORDS, &patient)).await;
    for client in &clients {
        read_after(client, &tx_id, RECORDS, number).await;
    }

    // Additions check no version: each succeeds under its tx_id, or is told clearly that it lost.
    let adds = clients.iter().enumerate().flat_map(|(at, client)| {
        (0..8).map(move |i| async move {
            let text = format!("addition {at}-{i}");
            let call = calls::call(RECORDS, "addNote", &json!([number, {"information": text}]));
            let (signed, end) = client.send(call, Finality::Committed, PATIENCE).await;
            (text, signed.expect("signed").tx_id, end)
        })
    });
    let mut added = BTreeSet::new();
    let (mut again, mut lost) = (0, 0);
    for (text, tx_id, end) in join_all(adds).await {
        match end {
            End::Done(done) => {
                again += u32::from(done.endorsements > 1);
                added.insert(text);
            }
            End::Invalid(problem) => {
                assert_eq!(problem.code, Code::MvccConflict, "{}: {problem}", hex::encode(tx_id));
                lost += 1;
            }
            end => panic!("{}: {end:?}", hex::encode(tx_id)),
        }
    }
    assert!(again + lost > 0, "nothing conflicted, so nothing was shown");
    assert!(
        again > 0,
        "{lost} were lost and none was endorsed again under its tx_id"
    );

    // Updates name the version they saw: of those that saw the same one, one wins. An addition is done
    // when its own gateway's peer has it, so that every peer comes to the end before one is read.
    let ends = world.ends().await;
    for client in &clients {
        world.reached(client.peer(), &ends).await;
    }
    let seen = clients[0]
        .evaluate(calls::get(RECORDS, number), PATIENCE)
        .await
        .expect("a record");
    let version = seen["version"].as_u64().expect("a version");
    assert_eq!(
        version,
        1 + added.len() as u64,
        "every addition that was acknowledged moved the version, no other did"
    );
    let updates = clients.iter().map(|client| async move {
        let call = calls::update(
            RECORDS,
            number,
            version,
            &json!({"address": format!("{} Street 1", client.peer())}),
        );
        (
            client.peer().to_owned(),
            client.send(call, Finality::Committed, PATIENCE).await.1,
        )
    });
    let mut winner = None;
    for (peer, end) in join_all(updates).await {
        match end {
            End::Done(_) => assert_eq!(winner.replace(peer), None, "two updates of one version succeeded"),
            End::Refused(problem) => {
                let why = (problem.code, problem.field.as_str());
                assert_eq!(why, (Code::ContractRejected, "version"), "{peer}: {problem}");
            }
            End::Invalid(problem) => assert_eq!(problem.code, Code::MvccConflict, "{peer}: {problem}"),
            end => panic!("{peer}: {end:?}"),
        }
    }
    let winner = winner.expect("one update of the version that all saw succeeds");

    let ends = world.ends().await;
    for client in &clients {
        world.reached(client.peer(), &ends).await;
        let record = client
            .evaluate(calls::get(RECORDS, number), PATIENCE)
            .await
            .expect("a record");
        let notes = record["notes"].as_array().expect("notes").iter();
        let texts: Vec<String> = notes
            .map(|note| note["entry"]["information"].as_str().expect("text").to_owned())
            .collect();
        assert_eq!(
            texts.len(),
            added.len(),
            "{}: as many notes as were acknowledged",
            client.peer()
        );
        assert_eq!(
            texts.into_iter().collect::<BTreeSet<_>>(),
            added,
            "{}: those that were acknowledged",
            client.peer()
        );
        assert_eq!(record["version"], version + 1, "{}", client.peer());
        assert_eq!(
            record["address"],
            format!("{winner} Street 1"),
            "{}: the winner's word stands",
            client.peer()
        );
    }
    world.check_logs(&[]);
}

/// What a follower of a stream has seen of one partition.
#[derive(Default)]
struct Followed {
    blocks: Vec<rpc::BlockReply>,
    events: Vec<rpc::EventsReply>,
}

/// Reads both streams from where they were left until the peer goes away or `until` blocks are there.
async fn follow(client: &Client, partition: u32, seen: &mut Followed, until: Option<usize>) {
    let done = |seen: &Followed| until.is_some_and(|until| seen.blocks.len() >= until);
    let mut gateway = client.session.gateway();
    let from_height = seen.blocks.len() as u64;
    let request = rpc::BlocksRequest {
        partition,
        from_height,
        count: 0,
    };
    let Ok(blocks) = gateway.blocks(request).await else {
        return;
    };
    // Where events were left: what of that height was seen already is skipped.
    let last = seen.events.last().map(|event| (event.height, event.index));
    let request = rpc::EventsRequest {
        partition,
        from_height: last.map_or(0, |last| last.0),
        contract: String::new(),
    };
    let Ok(events) = gateway.events(request).await else {
        return;
    };
    let (mut blocks, mut events) = (blocks.into_inner(), events.into_inner());
    while !done(seen) {
        tokio::select! {
            block = blocks.message() => match block {
                Ok(Some(block)) => seen.blocks.push(block),
                _ => break,
            },
            event = events.message() => match event {
                Ok(Some(event)) if last.is_none_or(|last| (event.height, event.index) > last) => seen.events.push(event),
                Ok(Some(_)) => {}
                _ => break,
            },
        }
    }
    // The blocks are there; their events may be on the way.
    let valid = valid_of(&seen.blocks);
    while done(seen) && seen.events.len() < valid.len() {
        let event = tokio::time::timeout(PATIENCE, events.message()).await;
        let event = event.unwrap_or_else(|_| panic!("{} of {} events came", seen.events.len(), valid.len()));
        let event = event.expect("the stream goes on").expect("the stream goes on");
        if last.is_none_or(|last| (event.height, event.index) > last) {
            seen.events.push(event);
        }
    }
}

fn valid_of(blocks: &[rpc::BlockReply]) -> Vec<Vec<u8>> {
    let all = blocks.iter().flat_map(|block| &block.transactions);
    all.filter(|tx| tx.code == "VALID").map(|tx| tx.tx_id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_resume_without_a_gap_across_a_restart_of_their_peer() {
    let world = World::up(&small()).await;
    let followed = "peer0.ReliefOrg";
    let others: Vec<String> = world.peers().into_iter().filter(|peer| peer != followed).collect();
    let load = Load::start(
        &world,
        &others,
        Offer {
            at_once: 2,
            ..Offer::default()
        },
    );
    load.goes_on(&others, 10, "before the peer is killed").await;

    let mut seen: BTreeMap<u32, Followed> = (0..world.partitions())
        .map(|partition| (partition, Followed::default()))
        .collect();
    let client = world.client(followed, "physician");
    let watch = seen
        .iter_mut()
        .map(|(partition, seen)| follow(&client, *partition, seen, None));
    let kill = async {
        load.goes_on(&others, 10, "while the streams are read").await;
        world.kill(followed).await;
    };
    tokio::time::timeout(PATIENCE, futures::future::join(join_all(watch), kill))
        .await
        .expect("streams end with their peer");
    assert!(
        seen.values().any(|seen| !seen.blocks.is_empty()),
        "something was seen before the peer was killed"
    );
    load.goes_on(&others, 10, "while the peer is away").await;
    world.start(followed).await;
    load.goes_on(&others, 10, "after the peer came back").await;
    let book = load.stop().await;
    let ends = world.ends().await;
    world.reached(followed, &ends).await;

    let client = world.client(followed, "physician");
    let mut valid = 0;
    for (partition, seen) in &mut seen {
        let end = ends[*partition as usize] as usize;
        let resumed = follow(&client, *partition, seen, Some(end));
        tokio::time::timeout(PATIENCE, resumed)
            .await
            .unwrap_or_else(|_| panic!("partition {partition} does not resume"));
        seen.blocks.truncate(end);
        let mut blocks = world.blocks(&others[0], *partition, 0, end as u64).await;
        for block in &seen.blocks {
            let expected = blocks.message().await.expect("a block").expect("a block");
            assert_eq!(*block, expected, "{} saw the same block", others[0]);
        }
        let events: Vec<Vec<u8>> = seen.events.iter().map(|event| event.tx_id.clone()).collect();
        let of_blocks = valid_of(&seen.blocks);
        assert_eq!(
            events[..of_blocks.len()],
            of_blocks,
            "partition {partition}: one event of each create, in order, once"
        );
        valid += of_blocks.len();
    }
    assert!(
        valid >= book.acknowledged.iter().filter(|done| done.committed).count(),
        "all acknowledged were streamed"
    );
    world.check_logs(&[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_has_the_same_header_after_a_restart_and_without_its_data() {
    let mut spec = Spec::default();
    spec.organisations.truncate(2);
    spec.orderers = vec!["HospitalA".into(), "HospitalB".into()];
    spec.contracts = medledger_cli::network::spec::ContractSpec::records(&spec.organisation_names());
    let world = World::up(&spec).await;
    let load = Load::start(
        &world,
        &world.peers(),
        Offer {
            at_once: 8,
            ..Offer::default()
        },
    );
    load.goes_on(&world.peers(), 100, "before the restarts").await;
    let mut book = load.stop().await;
    world.drain().await;
    let ends = world.ends().await;

    // The attester with its guard, and a peer that has none.
    for name in ["peer0.HospitalA", "peer1.HospitalA"] {
        let before = world.reached(name, &ends).await;
        world.kill(name).await;
        let started = Instant::now();
        world.start(name).await;
        let after = world.ask(name).await;
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{name} serves again after {:?}",
            started.elapsed()
        );
        same_chains(name, "after a restart", &before, &world.reached(name, &ends).await);
        assert!(
            chain(&after, CONTROL).blocks > 0,
            "{name} knows the control chain at once"
        );

        world.signal(name, Signal::SIGTERM).await;
        std::fs::remove_dir_all(world.directory().join("processes").join(name).join("data")).expect("its data");
        world.start(name).await;
        same_chains(
            name,
            "computed again from the log",
            &before,
            &world.reached(name, &ends).await,
        );
    }
    for name in ["orderer0", "orderer1"] {
        world.start(name).await;
    }
    // The guard was not lost with the data: its organisation still attests.
    let client = world.client("peer0.HospitalA", "physician");
    let call = calls::create_from(
        RECORDS,
        NUMBER,
        &json!(patients::patient(patients::SEED, 7_000_000).record),
    );
    let (_, end) = client.send(call, Finality::Attested, PATIENCE).await;
    let End::Done(done) = end else {
        panic!("after the restarts a create ended with {end:?}")
    };
    assert_eq!(
        done.reached(),
        Finality::Attested,
        "both organisations attest: {done:?}"
    );
    world.check(&mut book).await;
    verify_by_command(&world);
    world.check_logs(&[]);
    started_again_by_command(&world);
}

fn same_chains(name: &str, when: &str, before: &rpc::NetworkReply, after: &rpc::NetworkReply) {
    for old in &before.chains {
        let new = chain(after, old.partition);
        let tell = format!("{name}, {when}: partition {}", old.partition);
        assert_eq!(new.stopped, "", "{tell}");
        assert_eq!(
            (new.blocks, hex::encode(&new.header)),
            (old.blocks, hex::encode(&old.header)),
            "{tell}"
        );
        assert_eq!(
            hex::encode(&new.state_digest),
            hex::encode(&old.state_digest),
            "{tell}: state digest"
        );
    }
}

/// `medledger`, as somebody types it: its answer, or the error it ended with, and the answer it gave before.
fn medledger(world: &World, line: &str) -> Result<Value, (String, Value)> {
    let out = Command::new(program("medledger").expect("the command line"))
        .args(line.split_whitespace())
        .args(["--output", "json", "--network"])
        .arg(world.directory())
        .output()
        .expect("it runs");
    let answer = serde_json::from_slice(&out.stdout).unwrap_or_default();
    if out.status.success() {
        return Ok(answer);
    }
    let failure: Value = serde_json::from_slice(&out.stderr).expect("an error in JSON");
    Err((failure["error"].as_str().expect("a sentence").to_owned(), answer))
}

/// As an auditor types it.
fn verify_by_command(world: &World) {
    let verified = medledger(world, "verify --compare").expect("all agree");
    assert_eq!(
        verified["agree"],
        json!(world.peers()),
        "every peer has what the log comes to"
    );
}

/// A network that was stopped is started again as it was; nothing that is said by the way deletes or changes it.
fn started_again_by_command(world: &World) {
    let genesis = || std::fs::read(world.directory().join("genesis.bin")).expect("the genesis");
    let before = genesis();
    let refused = |line: &str| medledger(world, line).expect_err(line).0;
    let error = refused("network up --fresh");
    assert!(error.contains("runs") && error.contains("network down"), "{error}");
    medledger(world, "network down").expect("stopped");
    let error = refused("network up --partitions 4");
    assert!(error.contains("partitions: founded with 2, asked for 4"), "{error}");
    let error = refused("demo");
    assert!(error.contains("not founded by a demo"), "{error}");
    medledger(world, "network up --partitions 2").expect("started again");
    verify_by_command(world);

    medledger(world, "network kill peer1.HospitalA").expect("killed");
    let (error, verified) = medledger(world, "verify --compare").expect_err("a peer is down");
    assert!(error.contains("peer1.HospitalA"), "{error}");
    assert_eq!(verified["not_compared"][0]["peer"], "peer1.HospitalA");
    medledger(world, "verify --compare --allow-missing").expect("the others agree");
    medledger(world, "network up").expect("what had ended is started");
    verify_by_command(world);
    medledger(world, "network up").expect("nothing is left to do");
    assert_eq!(genesis(), before);
}
