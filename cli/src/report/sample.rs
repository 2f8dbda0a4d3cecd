//! A load of encounters, and statements of facilities: invented, plausible, and the same for the same seed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use clap::Args;
use futures::{StreamExt as _, stream};
use rand::{Rng as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::{Value, json};
use service::rpc::{Call, Finality};
use tokio::time::Instant;

use crate::{
    beds, calls,
    client::{Client, End},
    network::{self, Network, spec::RECORDS},
    patients::{PATIENTS_MAX, SEED, patient},
    site,
};

#[derive(Debug, Args)]
pub struct SampleArgs {
    /// Directory of the network
    #[arg(long, value_name = "DIR", env = "MEDLEDGER_NETWORK", default_value = network::DEFAULT_DIRECTORY)]
    pub network: PathBuf,
    /// The contract
    #[arg(long, value_name = "NAME", default_value = RECORDS)]
    pub contract: String,
    /// Encounters
    #[arg(long, value_name = "N", default_value_t = 600)]
    pub count: u64,
    /// Over how many seconds; a period closes only when something is sent after its end
    #[arg(long, value_name = "S", default_value_t = 90)]
    pub seconds: u64,
    /// So many facilities say nothing of their beds and of themselves, so that there is a site to be missed
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub silent: usize,
    /// Another seed, other encounters
    #[arg(long, value_name = "N", default_value_t = SEED)]
    pub seed: u64,
}

impl SampleArgs {
    pub fn load(&self) -> Load {
        Load {
            contract: self.contract.clone(),
            count: self.count,
            over: Duration::from_secs(self.seconds),
            silent: self.silent,
            seed: self.seed,
        }
    }
}

pub struct Load {
    pub contract: String,
    pub count: u64,
    pub over: Duration,
    /// Facilities that say nothing of their beds and of themselves: the last ones.
    pub silent: usize,
    pub seed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sent {
    pub encounters: u64,
    /// Facilities that stated their beds, and what they lack and fear.
    pub statements: u64,
    /// That treated somebody.
    pub facilities: u64,
}

impl Sent {
    pub fn text(&self) -> String {
        format!(
            "{} encounters, and statements of {} of {} facilities\n",
            self.encounters, self.statements, self.facilities
        )
    }
}

/// Calls under way at once.
const AT_ONCE: usize = 16;
const WITHIN: Duration = Duration::from_secs(60);

/// (value, weight): the frequent ones are told, the rare ones are withheld.
const TRIAGE: &[(&str, u32)] = &[("green", 52), ("yellow", 30), ("red", 14), ("black", 4)];
const AGES: &[(&str, u32)] = &[("<1", 5), ("1-4", 15), ("5-17", 20), ("18-64", 45), ("65+", 15)];
const ITEMS: &[(&str, u32)] = &[
    ("9", 22),
    ("8", 18),
    ("7", 12),
    ("29", 10),
    ("11", 6),
    ("25", 6),
    ("6", 6),
    ("18", 5),
    ("24", 5),
    ("26", 3),
    ("4", 2),
    ("32", 8),
    ("28", 1),
    ("14", 1),
];
const OUTCOMES: &[(&str, u32)] = &[("36", 45), ("37", 25), ("40", 18), ("39", 8), ("38", 3), ("42", 1)];
/// Of a site, and in how many of ten: water, outbreak, shelter; logistics, supply, staff.
const SITE_ITEMS: &[(&str, u32)] = &[("56", 3), ("57", 1), ("59", 3), ("61", 4), ("62", 4), ("63", 5)];
/// One in so many has a condition that is an alert by itself.
const ALERT_ONE_IN: u32 = 150;

/// A facility of the network, and who speaks for it.
struct Facility {
    name: String,
    area: String,
    staff: Arc<Client>,
}

pub async fn send(network: &Network, load: &Load) -> Result<Sent> {
    let facilities = facilities(network)?;
    ensure!(
        !facilities.is_empty(),
        "no physician of this network has a facility that its [reporting] names"
    );
    let mut statements = 0;
    let speaking = facilities.len().saturating_sub(load.silent);
    for (index, facility) in facilities.iter().enumerate().take(speaking) {
        state_beds(load, facility, index as u64).await?;
        state_site(load, facility, index as u64).await?;
        statements += 1;
    }
    let began = Instant::now();
    let pause = load.over.div_f64(load.count.max(1) as f64);
    let calls = stream::iter(0..load.count).map(|index| {
        let facilities = &facilities;
        async move {
            tokio::time::sleep_until(began + pause * u32::try_from(index).unwrap_or(u32::MAX)).await;
            let mut chance = ChaCha8Rng::seed_from_u64(load.seed ^ (index << 20));
            // The first facilities see most.
            let weights: Vec<(usize, u32)> = (0..facilities.len()).map(|at| (at, 10 / (at as u32 + 1) + 2)).collect();
            let facility = &facilities[pick(&mut chance, &weights)];
            let number = patient(load.seed, chance.random_range(0..PATIENTS_MAX)).personal_number;
            let call = calls::add_encounter(&load.contract, &number, &encounter(&mut chance, &facility.area));
            match facility.staff.send_through(call, Finality::Committed, WITHIN).await {
                End::Done(_) => Ok(()),
                end => Err(anyhow::anyhow!("an encounter at {}: {end:?}", facility.name)),
            }
        }
    });
    let mut calls = calls.buffer_unordered(AT_ONCE);
    let mut encounters = 0;
    while let Some(done) = calls.next().await {
        done?;
        encounters += 1;
    }
    Ok(Sent {
        encounters,
        statements,
        facilities: facilities.len() as u64,
    })
}

/// Those that the network's `[reporting]` expects and of which a physician has the certificate here.
fn facilities(network: &Network) -> Result<Vec<Facility>> {
    let spec = &network.description.spec;
    let mut found = Vec::new();
    for (name, area) in spec.reporting.areas()? {
        let of = |client: &&network::spec::ClientSpec| {
            client.attributes.get("facility") == Some(&name)
                && client
                    .attributes
                    .get("practitioner_role")
                    .is_some_and(|role| role == "physician")
        };
        for organisation in &spec.organisations {
            if let Some(client) = organisation.clients.iter().find(of) {
                let session = network.connect(&organisation.msp_id, &client.name, None)?;
                found.push(Facility {
                    name: name.clone(),
                    area: area.clone(),
                    staff: Arc::new(Client::new(session)?),
                });
                break;
            }
        }
    }
    Ok(found)
}

/// Signed by the physician, as everything here.
async fn state_beds(load: &Load, facility: &Facility, index: u64) -> Result<()> {
    let mut chance = ChaCha8Rng::seed_from_u64(load.seed.wrapping_add(index));
    let beds: Vec<Value> = [("general", 60), ("icu", 10), ("maternity", 12)]
        .map(|(kind, most)| {
            let staffed = chance.random_range(most / 2..=most);
            json!({"kind": kind, "staffed": staffed, "occupied": chance.random_range(staffed / 2..=staffed + 1)})
        })
        .into();
    let version = beds::present(&facility.staff.session, &load.contract, &facility.name).await?;
    state(
        facility,
        calls::set_beds(&load.contract, &facility.name, version, &json!(beds)),
    )
    .await
}

/// The first one lacks supplies, so that there is something to see; which of the others lack what is chance.
async fn state_site(load: &Load, facility: &Facility, index: u64) -> Result<()> {
    let mut chance = ChaCha8Rng::seed_from_u64(load.seed.wrapping_add(1_000 + index));
    let stated = SITE_ITEMS.iter().filter(|(item, of_ten)| {
        let by_chance = chance.random_range(0..10) < *of_ten;
        by_chance || (index == 0 && *item == "62")
    });
    let items: Vec<String> = stated.map(|(item, _)| (*item).to_owned()).collect();
    let version = site::present(&facility.staff.session, &load.contract, &facility.name).await?;
    let call = calls::set_site_items(&load.contract, &facility.name, version, None, &items);
    state(facility, call).await
}

async fn state(facility: &Facility, call: Call) -> Result<()> {
    match facility.staff.send_through(call, Finality::Committed, WITHIN).await {
        End::Done(_) => Ok(()),
        end => Err(anyhow::anyhow!("a statement of {}: {end:?}", facility.name)),
    }
}

fn encounter(chance: &mut ChaCha8Rng, area: &str) -> Value {
    let age = pick(chance, AGES);
    let sex = match chance.random_range(0..20) {
        0..10 => "male",
        10 if !matches!(age, "<1" | "1-4") => "femalePregnant",
        _ => "femaleNotPregnant",
    };
    let mut items = vec![match chance.random_range(0..ALERT_ONE_IN) {
        0 => *["10", "13"].choose(chance).expect("two"),
        _ => pick(chance, ITEMS),
    }];
    // Two in five have something else besides.
    let second = pick(chance, ITEMS);
    if chance.random_range(0..5) < 2 && second != items[0] {
        items.push(second);
    }
    items.push(pick(chance, &[("44", 60), ("45", 25), ("46", 15)]));
    let mut encounter = json!({
        "area": area, "triage": pick(chance, TRIAGE), "items": items, "age": age, "sex": sex,
    });
    if chance.random_range(0..10) < 7 {
        encounter["outcome"] = json!(pick(chance, OUTCOMES));
    }
    encounter
}

fn pick<T: Copy>(chance: &mut ChaCha8Rng, weighted: &[(T, u32)]) -> T {
    weighted
        .choose_weighted(chance, |(_, weight)| *weight)
        .expect("weights")
        .0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_and_all_of_it_is_legal() {
        let some = |seed| -> Vec<Value> {
            let mut chance = ChaCha8Rng::seed_from_u64(seed);
            (0..500).map(|_| encounter(&mut chance, "NORTH")).collect()
        };
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
        for encounter in some(3) {
            let young = matches!(encounter["age"].as_str(), Some("<1" | "1-4"));
            assert!(!young || encounter["sex"] != "femalePregnant", "{encounter}");
            let items = encounter["items"].as_array().expect("items");
            assert!(
                (1..items.len()).all(|at| !items[..at].contains(&items[at])),
                "{encounter}"
            );
        }
    }
}
