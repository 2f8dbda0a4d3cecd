//! `medledger network check`: one record through the whole network, for whoever installed it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rand::Rng as _;
use serde::Serialize;
use service::{Problem, rpc::Finality};

use super::{Network, layout::Process, spec::RECORDS};
use crate::{
    calls,
    client::{self, AGAIN_AFTER},
    patients,
    session::Session,
    unary,
};

/// Whoever may write and delete a record.
const WRITER: &str = "physician";
const WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize)]
pub struct Checked {
    pub tx_id: String,
    pub written_by: String,
    /// From the call to the answer.
    pub attested_ms: u128,
    /// Every peer that has it and gives it to its organisation's physician.
    pub read_at: Vec<String>,
}

/// Writes a record, waits for its attestation, reads it at every peer whose organisation's physician is known here,
/// and deletes it. A network that is just starting has until `patience` is over.
pub async fn check(network: &Network, patience: Duration) -> Result<Checked> {
    let known = |peer: &&Process| network.identity_directory(&peer.organisation, WRITER).is_dir();
    let peers: Vec<&Process> = network.peers().filter(known).collect();
    let first = *peers.first().context("no organisation's physician is known here")?;
    let deadline = Instant::now() + patience;
    let writer = network.connect(&first.organisation, WRITER, Some(&first.name))?;
    let (done, number, began) = loop {
        // Of those that no load uses, and another one for each attempt: what became of the last may be unknown.
        let index = rand::rng().random_range(patients::PATIENTS_MAX / 2..patients::PATIENTS_MAX);
        let patient = patients::patient(patients::SEED, index);
        let (create, began) = (calls::create(RECORDS, &patient), Instant::now());
        match unary::submit(&writer, create, true, Finality::Attested, WITHIN).await {
            Ok(done) => break (done, patient.personal_number, began),
            Err(error) if Instant::now() >= deadline || !passes(&error) => {
                return Err(error.context("writing a record"));
            }
            Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
        }
    };
    let tx_id = hex::decode(&done.tx_id)
        .ok()
        .and_then(|id| protocol::hash::digest(&id))
        .context("a tx_id")?;
    if done.reached != unary::finality_word(Finality::Attested) {
        attested(&writer, &tx_id, deadline).await?;
    }
    let attested_ms = began.elapsed().as_millis();
    let mut read_at = Vec::new();
    for peer in &peers {
        let reader = network.connect(&peer.organisation, WRITER, Some(&peer.name))?;
        read(&reader, &tx_id, &number, deadline)
            .await
            .with_context(|| format!("reading at {}", peer.name))?;
        read_at.push(peer.name.clone());
    }
    let delete = calls::delete(RECORDS, &number, 1);
    unary::submit(&writer, delete, true, Finality::Committed, WITHIN)
        .await
        .context("deleting the record")?;
    Ok(Checked {
        tx_id: done.tx_id,
        written_by: first.organisation.clone(),
        attested_ms,
        read_at,
    })
}

/// Organisations whose peers are only starting sign later than the first call waits.
async fn attested(writer: &Session, tx_id: &protocol::Digest, deadline: Instant) -> Result<()> {
    loop {
        match unary::status(writer, tx_id, Finality::Attested, WITHIN).await {
            Ok(status) if status.attested => return Ok(()),
            Ok(_) if Instant::now() >= deadline => {
                bail!("the record was committed and not attested: fewer than two thirds of the organisations sign")
            }
            Err(error) if Instant::now() >= deadline || !passes(&error) => {
                return Err(error.context("waiting for attestations"));
            }
            _ => tokio::time::sleep(AGAIN_AFTER).await,
        }
    }
}

async fn read(reader: &Session, tx_id: &protocol::Digest, number: &str, deadline: Instant) -> Result<()> {
    loop {
        let read = async {
            unary::status(reader, tx_id, Finality::Committed, WITHIN).await?;
            unary::evaluate(reader, calls::get(RECORDS, number), true).await
        };
        match read.await {
            Ok(record) if record["personalNumber"] == *number => return Ok(()),
            Ok(_) => bail!("another record than the one that was written"),
            Err(error) if Instant::now() >= deadline || !passes(&error) => return Err(error),
            Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
        }
    }
}

fn passes(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Problem>().is_some_and(client::passes)
}
