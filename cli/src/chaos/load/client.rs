//! One client: it does one thing after another at its gateway and enters what it was told.
//!
//! Of ten things four change a record of its own, four read one, one creates one, and one changes a record that all
//! clients change. It never forgets what it was told, so it never names a version that it did not see.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use protocol::ledger::Kind;
use rand::Rng as _;
use serde_json::{Value, json};
use service::{
    Code, Problem, Tasks,
    rpc::{Call, Finality},
};

use super::{SHARED, Shared};
use crate::{
    bench::tally,
    calls,
    chaos::history::{Outcome, Place, Saw, TxId, What, Write},
    client::{Client, End, Signed},
    network::spec::RECORDS,
    patients::{SEED, patient, personal_number},
};

/// Before a refused client comes again, unless it was told when.
const COME_AGAIN: Duration = Duration::from_millis(100);
const COME_AGAIN_MAX: Duration = Duration::from_secs(2);
/// Before an intent of unknown outcome is handed over again.
const TRY_AGAIN: Duration = Duration::from_millis(500);
const TRIES: u32 = 3;
/// Of so many creates one waits for the receipt only.
const ORDERED_EVERY: u64 = 5;
/// Records that a client keeps in mind.
const OWN_MAX: usize = 16;

pub struct Life {
    shared: Arc<Shared>,
    client: Arc<Client>,
    id: u64,
    gateway: usize,
    turn: u64,
    own: Vec<Own>,
}

/// A record that only this client changes, at the version it was told.
struct Own {
    record: u64,
    version: u64,
}

/// How a change ended, as far as its client goes on with it.
enum Went {
    Done,
    Not,
    /// Perhaps: the client knows this record's version no more.
    Perhaps,
}

impl Life {
    pub fn new(shared: Arc<Shared>, client: Arc<Client>, id: u64, gateway: usize) -> Self {
        Life {
            shared,
            client,
            id,
            gateway,
            // Not all clients at the same thing at once.
            turn: id,
            own: Vec::new(),
        }
    }

    /// Until everything ends; what is under way is finished. An error: the history cannot be written.
    pub async fn live(mut self, tasks: Tasks) -> Result<()> {
        while !tasks.is_cancelled() {
            self.turn += 1;
            match self.turn % 10 {
                0 => self.create().await?,
                9 => self.contend().await?,
                _ if self.own.is_empty() => self.create().await?,
                odd if odd % 2 == 1 => self.update().await?,
                _ => {
                    let which = self.any();
                    self.read(self.own[which].record).await?;
                }
            }
            tokio::time::sleep(self.shared.pause).await;
        }
        Ok(())
    }

    fn any(&self) -> usize {
        rand::rng().random_range(0..self.own.len())
    }

    async fn create(&mut self) -> Result<()> {
        let record = self.shared.record();
        let wait = match record.is_multiple_of(ORDERED_EVERY) {
            true => Finality::Ordered,
            false => Finality::Committed,
        };
        if matches!(self.write(record, 0, wait).await?, Went::Done) {
            if self.own.len() == OWN_MAX {
                self.own.remove(0);
            }
            self.own.push(Own { record, version: 1 });
        }
        Ok(())
    }

    async fn update(&mut self) -> Result<()> {
        let which = self.any();
        let Own { record, version } = self.own[which];
        match self.write(record, version, Finality::Committed).await? {
            Went::Done => self.own[which].version += 1,
            Went::Not => {}
            Went::Perhaps => drop(self.own.swap_remove(which)),
        }
        Ok(())
    }

    /// Everybody changes the same few records, having read them: of those that saw the same version one wins.
    async fn contend(&mut self) -> Result<()> {
        let record = self.shared.first_record + rand::rng().random_range(0..SHARED);
        if let Some(version) = self.read(record).await? {
            self.write(record, version, Finality::Committed).await?;
        }
        Ok(())
    }

    /// The version that is there, 0 if there is no record; `None`: no answer.
    async fn read(&self, record: u64) -> Result<Option<u64>> {
        let call = calls::get(RECORDS, &personal_number(record));
        let answer = self.client.evaluate(call, self.shared.within).await;
        let (client, gateway) = (self.id, self.gateway);
        let saw = match answer {
            Ok(document) => Some(seen(&document)?),
            Err(problem) if problem.code == Code::ContractRejected => None,
            Err(problem) => {
                self.not_done(&problem).await?;
                return Ok(None);
            }
        };
        self.shared.progress.read();
        self.shared.recorder.enter(What::Read {
            client,
            gateway,
            record,
            saw,
        })?;
        Ok(Some(saw.map_or(0, |saw| saw.version)))
    }

    async fn not_done(&self, problem: &Problem) -> Result<()> {
        let word = problem.code.as_str().to_owned();
        self.shared.progress.not_done(&word);
        let gateway = self.gateway;
        self.shared.recorder.enter(What::Unread { gateway, word })?;
        tokio::time::sleep(come_again(problem)).await;
        Ok(())
    }

    async fn write(&self, record: u64, version: u64, wait: Finality) -> Result<Went> {
        let op = self.shared.op();
        let call = change(record, version, op);
        let signed = match self.client.sign(call, Kind::Submit, self.shared.within).await {
            Ok(signed) => signed,
            Err(problem) => {
                let word = problem.code.as_str().to_owned();
                self.shared.progress.not_done(&word);
                let gateway = self.gateway;
                self.shared.recorder.enter(What::Unsigned { gateway, word })?;
                tokio::time::sleep(come_again(&problem)).await;
                return Ok(Went::Not);
            }
        };
        self.shared.recorder.enter(What::Invoked(Write {
            op,
            client: self.id,
            gateway: self.gateway,
            record,
            version,
            tx_id: TxId(signed.tx_id),
        }))?;
        // Every second client leaves an unknown outcome unknown.
        let tries = if self.id.is_multiple_of(2) { TRIES } else { 1 };
        for tried in 1..=tries {
            if tried > 1 {
                tokio::time::sleep(TRY_AGAIN).await;
                self.shared.recorder.enter(What::Again { op })?;
            }
            match self.submit(op, &signed, wait).await? {
                Went::Perhaps => {}
                // That this time it was refused says nothing of the time before.
                Went::Not if tried > 1 => return Ok(Went::Perhaps),
                known => return Ok(known),
            }
        }
        Ok(Went::Perhaps)
    }

    async fn submit(&self, op: u64, signed: &Signed, wait: Finality) -> Result<Went> {
        let end = self.client.submit(signed, wait, self.shared.within).await;
        let pause = match &end {
            End::Refused(problem) => Some(come_again(problem)),
            _ => None,
        };
        let outcome = outcome(signed, wait, end);
        let at_ms = self.shared.recorder.enter(What::Ended {
            op,
            outcome: outcome.clone(),
        })?;
        let went = match outcome {
            Outcome::Committed(place) | Outcome::Ordered(place) => {
                self.shared.progress.acknowledged(self.gateway, place.partition, at_ms);
                Went::Done
            }
            Outcome::Refused { word } => {
                self.shared.progress.not_done(&word);
                Went::Not
            }
            Outcome::Unknown { word } => {
                self.shared.progress.not_done(&word);
                Went::Perhaps
            }
        };
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        Ok(went)
    }
}

fn come_again(problem: &Problem) -> Duration {
    problem.retry_after.unwrap_or(COME_AGAIN).min(COME_AGAIN_MAX)
}

fn change(record: u64, version: u64, op: u64) -> Call {
    let address = format!("{ADDRESS}{op}");
    if version > 0 {
        let changes = json!({ "address": address });
        return calls::update(RECORDS, &personal_number(record), version, &changes);
    }
    let mut patient = patient(SEED, record);
    patient.record.address = address;
    calls::create(RECORDS, &patient)
}

/// Says in a record who wrote it last.
const ADDRESS: &str = "Example Street ";

fn seen(document: &[u8]) -> Result<Saw> {
    let record: Value = serde_json::from_slice(document)?;
    let op = record["address"]
        .as_str()
        .and_then(|address| address.strip_prefix(ADDRESS)?.parse().ok());
    Ok(Saw {
        version: record["version"].as_u64().unwrap_or(0),
        // What no operation of this load wrote will be told from what one did.
        op: op.unwrap_or(0),
    })
}

/// What was promised. The same judgement of what is surely undone as the measurements make.
fn outcome(signed: &Signed, wait: Finality, end: End) -> Outcome {
    let (place, in_the_log) = match &end {
        End::Done(done) => {
            let place = Place {
                partition: done.partition,
                height: done.height,
                index: done.index,
            };
            (place, done.code.is_empty())
        }
        _ => (Place::default(), false),
    };
    // Whoever waits for the judgement is promised nothing by a place in the log: it may still lose to another.
    if in_the_log && wait == Finality::Ordered {
        return Outcome::Ordered(place);
    }
    match tally::Outcome::of_submit(Some(signed.tx_id), end) {
        tally::Outcome::Done { .. } => Outcome::Committed(place),
        tally::Outcome::Refused { .. } => Outcome::Refused {
            word: Code::ResourceExhausted.as_str().to_owned(),
        },
        // It is known already, so it was handed over before: what became of that nobody says.
        tally::Outcome::Failed { word, .. } if word == Code::Duplicate.as_str() => Outcome::Unknown { word },
        tally::Outcome::Failed { word, .. } => Outcome::Refused { word },
        tally::Outcome::Unknown { .. } => Outcome::Unknown {
            word: Code::UnknownOutcome.as_str().to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_who_wrote_it() {
        let call = change(7, 3, 41);
        let arguments: Value = serde_json::from_slice(&call.arguments).expect("json");
        let document = json!({"version": 4, "address": arguments[2]["address"]}).to_string();
        let saw = seen(document.as_bytes()).expect("a record");
        assert_eq!(saw, Saw { version: 4, op: 41 });
        let call = change(7, 0, 42);
        let arguments: Value = serde_json::from_slice(&call.arguments).expect("json");
        let document = json!({"version": 1, "address": arguments[1]["address"]}).to_string();
        let saw = seen(document.as_bytes()).expect("a record");
        assert_eq!(saw, Saw { version: 1, op: 42 });
    }
}
