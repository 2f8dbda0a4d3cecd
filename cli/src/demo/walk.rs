//! One record's life, told by four organisations, and how long one create takes when nothing else happens.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use service::rpc::Finality;
use tokio::time::Instant;

use super::{CALL_WITHIN, report::Report};
use crate::{
    calls,
    network::{Network, spec::RECORDS},
    patients::{EXAMPLE, PATIENTS_MAX, SEED, patient},
    session::Session,
    unary,
};

/// Median of single creates, each signed by the client, from the plan to the commit.
pub async fn idle(network: &Network, count: usize) -> Result<(String, f64)> {
    let session = network.connect("HospitalA", "physician", None)?;
    let mut micros = Histogram::<u64>::new(3)?;
    // The last of the generator's patients: no other step comes near them.
    let first = PATIENTS_MAX - 1_000;
    for index in 0..=count as u64 {
        let call = calls::create(RECORDS, &patient(SEED, first + index));
        let started = Instant::now();
        unary::submit(&session, call, true, Finality::Committed, CALL_WITHIN).await?;
        // The first one opens the connection.
        if index > 0 {
            micros.record(u64::try_from(started.elapsed().as_micros())?)?;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ms = |quantile| micros.value_at_quantile(quantile) as f64 / 1000.0;
    Ok((
        format!("p50 {:.1} ms, p99 {:.1} ms of {count}", ms(0.5), ms(0.99)),
        ms(0.5),
    ))
}

/// Create, read elsewhere, update, history, delete.
pub async fn record(network: &Network, report: &mut Report) {
    let created = report
        .step(format!("create {EXAMPLE} at HospitalA"), create(network))
        .await;
    report
        .step(
            format!("read {EXAMPLE} at ReliefOrg"),
            read(network, created.as_deref()),
        )
        .await;
    report
        .step(format!("update {EXAMPLE} at HospitalB"), update(network))
        .await;
    report
        .step(format!("history of {EXAMPLE} at MinistryOfHealth"), history(network))
        .await;
    report
        .step(format!("delete {EXAMPLE} at HospitalA"), delete(network))
        .await;
}

fn physician(network: &Network, organisation: &str) -> Result<Session> {
    network.connect(organisation, "physician", None)
}

async fn create(network: &Network) -> Result<(String, String)> {
    let session = physician(network, "HospitalA")?;
    let record = json!({
        "firstName": "Alfa", "lastName": "Exempelberg", "gender": "female", "birthDate": "1994-02-20",
        "address": "Example Street 1, Testville",
        "contacts": [{"name": "Bravo Exempelberg", "relation": "sibling"}],
        "allergies": [{"substance": "penicillin", "severity": "severe"}],
    });
    let call = calls::create_from(RECORDS, EXAMPLE, &record);
    let done = unary::submit(&session, call, true, Finality::Committed, CALL_WITHIN).await?;
    let again = calls::create_from(RECORDS, EXAMPLE, &record);
    let again = unary::submit(&session, again, true, Finality::Committed, CALL_WITHIN).await;
    ensure!(again.is_err(), "a second create overwrote the first");
    Ok((
        format!(
            "partition {} height {}; a second create is refused",
            done.partition, done.height
        ),
        done.tx_id,
    ))
}

/// Waits until the session's peer has judged the transaction too.
async fn committed(session: &Session, tx_id: &str) -> Result<()> {
    let tx_id = hex::decode(tx_id)
        .ok()
        .and_then(|bytes| protocol::hash::digest(&bytes))
        .context("the tx_id")?;
    let status = unary::status(session, &tx_id, Finality::Committed, CALL_WITHIN).await?;
    ensure!(status.found && status.code == "VALID", "it is {} there", status.code);
    Ok(())
}

async fn get(session: &Session) -> Result<Value> {
    unary::evaluate(session, calls::get(RECORDS, EXAMPLE), false).await
}

async fn read(network: &Network, tx_id: Option<&str>) -> Result<(String, ())> {
    let session = physician(network, "ReliefOrg")?;
    committed(&session, tx_id.context("it was not created")?).await?;
    let record = get(&session).await?;
    let substance = &record["allergies"][0]["entry"]["substance"];
    ensure!(substance == "penicillin", "the record has another allergy: {substance}");
    Ok((format!("version {}, allergic to {}", record["version"], substance), ()))
}

async fn update(network: &Network) -> Result<(String, ())> {
    let session = physician(network, "HospitalB")?;
    let version = get(&session).await?["version"]
        .as_u64()
        .context("the record has no version")?;
    let changes = json!({"address": "Sample Lane 2, Testville"});
    let call = calls::update(RECORDS, EXAMPLE, version, &changes);
    unary::submit(&session, call, true, Finality::Committed, CALL_WITHIN).await?;
    let stale = calls::update(RECORDS, EXAMPLE, version, &changes);
    let stale = unary::submit(&session, stale, true, Finality::Committed, CALL_WITHIN).await;
    ensure!(stale.is_err(), "an update of an old version was accepted");
    let now = get(&session).await?["version"].clone();
    Ok((
        format!("version {version} to {now}; an update of the old version is refused"),
        (),
    ))
}

async fn history(network: &Network) -> Result<(String, ())> {
    let session = physician(network, "MinistryOfHealth")?;
    let deadline = Instant::now() + CALL_WITHIN;
    // Another peer than the one that answered the update: it may be a block behind.
    let changes = loop {
        let answer = unary::evaluate(&session, calls::history(RECORDS, EXAMPLE, 0, None), false).await;
        let changes = answer.map(|history| history["changes"].as_array().cloned().unwrap_or_default());
        match changes {
            Ok(changes) if changes.len() >= 2 => break changes,
            Err(error) if Instant::now() >= deadline => return Err(error),
            Ok(changes) => ensure!(Instant::now() < deadline, "{} changes", changes.len()),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let word = |change: &Value, field: &str| change[field].as_str().unwrap_or("?").to_owned();
    let told = changes.iter().map(|c| {
        format!(
            "{} by {} of {}",
            word(c, "function"),
            word(c, "person"),
            word(c, "organisation")
        )
    });
    Ok((told.collect::<Vec<_>>().join(", then "), ()))
}

async fn delete(network: &Network) -> Result<(String, ())> {
    let session = physician(network, "HospitalA")?;
    let deadline = Instant::now() + CALL_WITHIN;
    loop {
        let version = get(&session).await?["version"]
            .as_u64()
            .context("the record has no version")?;
        let call = calls::delete(RECORDS, EXAMPLE, version);
        match unary::submit(&session, call, true, Finality::Committed, CALL_WITHIN).await {
            Ok(_) => break,
            // HospitalA may not have seen HospitalB's update yet.
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    ensure!(get(&session).await.is_err(), "the record is still there");
    let history = unary::evaluate(&session, calls::history(RECORDS, EXAMPLE, 0, None), false).await?;
    let last = history["changes"]
        .as_array()
        .and_then(|changes| changes.last())
        .cloned()
        .unwrap_or_default();
    ensure!(last["deleted"] == true, "the history does not tell of the deletion");
    Ok(("gone from state, kept in history".to_owned(), ()))
}

/// What to try now.
pub fn next_commands(network: &Network) -> String {
    let Some(peer) = network.peers().find(|peer| peer.organisation == "HospitalA") else {
        return String::new();
    };
    let at = network
        .layout
        .join(crate::network::layout::Layout::identity("HospitalA", "physician"));
    let at = at.display();
    let flag = network.layout.flag();
    format!(
        "\nThe network is up. REST of HospitalA: https://{listen}/v1/
  curl --cacert {at}/root.pem --cert {at}/cert.pem --key {at}/key.pem https://{listen}/openapi.json
Next:
  medledger network status{flag}
  medledger record list --limit 5{flag}
  medledger record history {EXAMPLE}{flag}
  medledger report show{flag}
  medledger bench --rates 500 --count 2000{flag}
  medledger verify --compare{flag}
  medledger network down{flag}          (or: make down)
",
        listen = peer.listen,
    )
}
