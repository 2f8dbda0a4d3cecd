//! `medledger encounter`: what reports count, a patient's treatments.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::{
    args::Sending,
    calls,
    output::Output,
    record::{Of, answer, submit},
    unary,
};

#[derive(Debug, Subcommand)]
pub enum EncounterCommand {
    /// Add one, for the facility of the certificate
    Add {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        sending: Sending,
    },
    /// State or change its outcome
    Outcome {
        #[command(flatten)]
        of: Of,
        /// The encounter, as `add` answered it
        id: String,
        /// An outcome's code, as 36: discharged without follow-up
        outcome: String,
        /// The version that you saw
        #[arg(long, value_name = "N", default_value_t = 1)]
        version: u64,
        #[command(flatten)]
        sending: Sending,
    },
    /// A patient's encounters, oldest first, page by page
    List {
        #[command(flatten)]
        of: Of,
        /// The `next` of the page before
        #[arg(long, value_name = "NEXT")]
        after: Option<String>,
        /// Encounters on a page
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub struct Fields {
    /// First-level area, as NORTH
    #[arg(long, value_name = "CODE")]
    area: String,
    /// red, yellow, green or black
    #[arg(long, value_name = "WORD")]
    triage: String,
    /// Item codes, as 9,44
    #[arg(long, value_name = "CODE,…", value_delimiter = ',', required = true)]
    items: Vec<String>,
    /// <1, 1-4, 5-17, 18-64 or 65+
    #[arg(long, value_name = "YEARS")]
    age: String,
    /// male, femaleNotPregnant or femalePregnant
    #[arg(long, value_name = "WORD")]
    sex: String,
    /// An outcome's code
    #[arg(long, value_name = "CODE")]
    outcome: Option<String>,
    /// Version of the list of item codes (default: the contract's newest)
    #[arg(long, value_name = "VERSION")]
    codes: Option<String>,
}

impl Fields {
    fn document(&self) -> Value {
        let mut fields = Map::new();
        for (name, value) in [
            ("area", Some(&self.area)),
            ("triage", Some(&self.triage)),
            ("age", Some(&self.age)),
            ("sex", Some(&self.sex)),
            ("outcome", self.outcome.as_ref()),
            ("codes", self.codes.as_ref()),
        ] {
            fields.extend(value.map(|value| (name.to_owned(), json!(value))));
        }
        fields.insert("items".to_owned(), json!(self.items));
        Value::Object(fields)
    }
}

pub async fn run(command: EncounterCommand, output: Output) -> Result<()> {
    match command {
        EncounterCommand::Add { of, fields, sending } => {
            let session = of.at.connect()?;
            let call = calls::add_encounter(&of.contract, &of.number, &fields.document());
            submit(&session, call, &sending, output).await
        }
        EncounterCommand::Outcome {
            of,
            id,
            outcome,
            version,
            sending,
        } => {
            let session = of.at.connect()?;
            let call = calls::set_outcome(&of.contract, &of.number, &id, version, &outcome);
            submit(&session, call, &sending, output).await
        }
        EncounterCommand::List { of, after, limit } => {
            let session = of.at.connect()?;
            let call = calls::encounters(&of.contract, &of.number, after.as_deref(), limit);
            answer(unary::evaluate(&session, call, false).await?, output)
        }
    }
}
