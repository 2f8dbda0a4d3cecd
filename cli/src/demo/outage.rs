//! Processes are killed: one peer under load, then three of five.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use service::{Code, Problem, rpc::Finality};

use super::{CALL_WITHIN, report::Report};
use crate::{
    bench::{Bench, Policy, check, load::Operation},
    calls,
    network::{
        Network,
        spec::{RECORDS, RECORDS_ALL},
    },
    output::causes,
    patients::{PATIENTS_MAX, SEED, patient},
    unary,
};

const VICTIM: &str = "peer0.HospitalB";
const RATE: f64 = 200.0;
/// The remaining 40 %.
const DROPPED: [&str; 3] = ["peer0.HospitalB", "peer0.MinistryOfHealth", "peer0.ReliefOrg"];
/// "At once": no timeout of an endorsement is waited for.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Kills a peer with -9 while others take load, starts it again, and compares headers.
pub async fn peer_comes_back(network: &Network, seconds: f64) -> Result<(String, ())> {
    let others: Vec<String> = network
        .peers()
        .filter(|peer| peer.name != VICTIM)
        .map(|p| p.name.clone())
        .collect();
    let mut bench = Bench::new(network, &others, CALL_WITHIN)?;
    let count = (RATE * (seconds + 4.0)) as u64;
    let first = bench.fresh(count);
    bench.check = false;
    let from = check::heights(network).await?;
    let load = bench.measure(Operation::Create, Policy::Any, RATE, count, first, 0);
    let outage = async {
        tokio::time::sleep(Duration::from_secs_f64(seconds / 4.0)).await;
        network.kill(VICTIM, Signal::SIGKILL).await?;
        tokio::time::sleep(Duration::from_secs_f64(seconds / 4.0)).await;
        let started = Instant::now();
        network.start(VICTIM).await?;
        anyhow::Ok(started.elapsed())
    };
    let (row, back) = tokio::join!(load, outage);
    let (row, back) = (row?, back?);
    ensure!(
        row.success == count,
        "{} of {count} were committed: {:?}",
        row.success,
        row.failed_by_word
    );
    let to = check::heights(network).await?;
    for peer in network.peers() {
        check::reached(network, peer, &to).await?;
    }
    let verdict = check::headers(network, &from, &to).await?;
    ensure!(verdict, "the peer that came back has other headers");
    let header = last_header(network).await?;
    Ok((
        format!(
            "{count} of {count} committed, back in {:.1} s, same header {header}…",
            back.as_secs_f64()
        ),
        (),
    ))
}

async fn last_header(network: &Network) -> Result<String> {
    let reply = network.ask_peer(network.process(VICTIM)?).await?;
    let chain = reply
        .chains
        .iter()
        .find(|chain| chain.partition == 0)
        .context("no partition 0")?;
    Ok(hex::encode(&chain.header)[..12].to_owned())
}

/// Three of five peers are killed: `AND` says at once who is missing, `OR` goes on; then they return.
pub async fn three_of_five(network: &Network, report: &mut Report) {
    let killed = report
        .step("three of five peers are killed (60 %)", kill_three(network))
        .await;
    if killed.is_some() {
        report
            .step(
                "AND of all: an answer at once, with the missing names",
                and_stops(network),
            )
            .await;
        report.step("OR of any: goes on", or_goes_on(network)).await;
    }
    report.step("the three come back", come_back(network)).await;
}

async fn kill_three(network: &Network) -> Result<(String, ())> {
    for name in DROPPED {
        network.kill(name, Signal::SIGKILL).await?;
    }
    Ok((DROPPED.join(", "), ()))
}

async fn and_stops(network: &Network) -> Result<(String, ())> {
    let session = network.connect("HospitalA", "physician", None)?;
    let killed = Instant::now();
    loop {
        let started = Instant::now();
        let call = calls::create(RECORDS_ALL, &patient(SEED, PATIENTS_MAX - 2_000));
        let outcome = unary::submit(&session, call, true, Finality::Committed, CALL_WITHIN).await;
        let took = started.elapsed();
        let Err(error) = outcome else {
            bail!("it was committed without three of four organisations")
        };
        let problem = error.chain().find_map(|cause| cause.downcast_ref::<Problem>());
        let problem = problem.with_context(|| format!("another error: {}", causes(&error)))?;
        ensure!(problem.code == Code::PolicyUnsatisfiable, "another refusal: {problem}");
        ensure!(took < AT_ONCE, "the answer took {took:?}");
        let mut missing = problem.missing.clone();
        missing.sort();
        if missing == ["HospitalB", "MinistryOfHealth", "ReliefOrg"] {
            return Ok((format!("{} ms; missing: {}", took.as_millis(), missing.join(", ")), ()));
        }
        // The gateway hears of each death by itself: the first answer may come between two of them.
        ensure!(killed.elapsed() < AT_ONCE, "missing: {missing:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn or_goes_on(network: &Network) -> Result<(String, ())> {
    let session = network.connect("HospitalA", "physician", None)?;
    let started = Instant::now();
    let call = calls::create(RECORDS, &patient(SEED, PATIENTS_MAX - 2_001));
    unary::submit(&session, call, true, Finality::Committed, CALL_WITHIN).await?;
    Ok((format!("committed in {} ms", started.elapsed().as_millis()), ()))
}

async fn come_back(network: &Network) -> Result<(String, ())> {
    let from = check::heights(network).await?;
    let away: Vec<&str> = DROPPED
        .into_iter()
        .filter(|name| network.running(name).is_none())
        .collect();
    futures::future::try_join_all(away.iter().map(|name| network.start(name))).await?;
    let to = check::heights(network).await?;
    ensure!(check::headers(network, &from, &to).await?, "their headers differ");
    judge_all(network).await?;
    Ok(("all five have the same headers".to_owned(), ()))
}

/// With everybody back, the policy that asks for all is met again.
async fn judge_all(network: &Network) -> Result<()> {
    let session = network.connect("HospitalA", "physician", None)?;
    let deadline = Instant::now() + CALL_WITHIN;
    loop {
        let call = calls::create(RECORDS_ALL, &patient(SEED, PATIENTS_MAX - 2_000));
        match unary::submit(&session, call, true, Finality::Committed, CALL_WITHIN).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error.context("AND of all, with everybody back")),
            // The gateway notices within seconds that the others are back.
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
