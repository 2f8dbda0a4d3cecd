//! `medledger beds`: what a facility states of its beds.

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    args::{At, Sending},
    calls,
    network::spec::RECORDS,
    output::Output,
    record::{answer, submit},
    session::Session,
    unary,
};

#[derive(Debug, Subcommand)]
pub enum BedsCommand {
    /// State all kinds at once, for the facility of the certificate
    Set {
        /// The facility, as HospitalA-1
        facility: String,
        /// KIND=STAFFED/OCCUPIED, as general=40/31
        #[arg(value_name = "KIND=STAFFED/OCCUPIED", required = true)]
        beds: Vec<Beds>,
        #[command(flatten)]
        stating: Stating,
    },
    /// What a facility stated last
    Get {
        /// The facility
        facility: String,
        #[command(flatten)]
        at: Contract,
    },
    /// What every facility stated last, page by page
    List {
        #[command(flatten)]
        at: Contract,
        /// The `next` of the page before
        #[arg(long, value_name = "NEXT")]
        after: Option<String>,
        /// Facilities on a page
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
}

/// How a facility's statement is made, whatever it says.
#[derive(Debug, Args)]
pub struct Stating {
    /// The version that you saw (default: the present one)
    #[arg(long, value_name = "N")]
    pub version: Option<u64>,
    #[command(flatten)]
    pub at: Contract,
    #[command(flatten)]
    pub sending: Sending,
}

#[derive(Debug, Args)]
pub struct Contract {
    /// The contract
    #[arg(long, value_name = "NAME", default_value = RECORDS)]
    pub contract: String,
    #[command(flatten)]
    pub at: At,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beds {
    kind: String,
    staffed: u32,
    occupied: u32,
}

impl std::str::FromStr for Beds {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let rule = "must be KIND=STAFFED/OCCUPIED, as general=40/31";
        let (kind, counts) = text.split_once('=').context(rule)?;
        let (staffed, occupied) = counts.split_once('/').context(rule)?;
        ensure!(!kind.is_empty(), rule);
        Ok(Beds {
            kind: kind.to_owned(),
            staffed: staffed.parse().context(rule)?,
            occupied: occupied.parse().context(rule)?,
        })
    }
}

pub async fn run(command: BedsCommand, output: Output) -> Result<()> {
    match command {
        BedsCommand::Set {
            facility,
            beds,
            stating: Stating { version, at, sending },
        } => {
            let session = at.at.connect()?;
            let version = match version {
                Some(version) => version,
                None => present(&session, &at.contract, &facility).await?,
            };
            let beds: Vec<Value> = beds
                .iter()
                .map(|beds| json!({"kind": beds.kind, "staffed": beds.staffed, "occupied": beds.occupied}))
                .collect();
            let call = calls::set_beds(&at.contract, &facility, version, &json!(beds));
            submit(&session, call, &sending, output).await
        }
        BedsCommand::Get { facility, at } => {
            let session = at.at.connect()?;
            answer(
                unary::evaluate(&session, calls::beds(&at.contract, &facility), false).await?,
                output,
            )
        }
        BedsCommand::List { at, after, limit } => {
            let session = at.at.connect()?;
            let call = calls::all_beds(&at.contract, after.as_deref(), limit);
            answer(unary::evaluate(&session, call, false).await?, output)
        }
    }
}

/// The version that a facility's statement has; 0 if it never made one.
pub async fn present(session: &Session, contract: &str, facility: &str) -> Result<u64> {
    let mut after: Option<String> = None;
    loop {
        let call = calls::all_beds(contract, after.as_deref(), Some(100));
        let page = unary::evaluate(session, call, false).await?;
        let statements = page["beds"].as_array().context("the list has no beds")?;
        if let Some(statement) = statements.iter().find(|statement| statement["facility"] == facility) {
            return statement["version"].as_u64().context("the statement has no version");
        }
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => return Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beds_are_kind_staffed_occupied() {
        let beds = Beds {
            kind: "icu".to_owned(),
            staffed: 4,
            occupied: 5,
        };
        assert_eq!("icu=4/5".parse::<Beds>().ok(), Some(beds));
        for wrong in ["icu", "icu=4", "=4/5", "icu=4/-1", "icu=a/b"] {
            assert!(wrong.parse::<Beds>().is_err(), "{wrong}");
        }
    }
}
