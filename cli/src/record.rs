//! `medledger record`: the contract for medical records, for people.

use std::{io::Read as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use crate::{
    args::{At, Sending},
    calls,
    network::spec::RECORDS,
    output::Output,
    session::Session,
    unary::{self, Submitted},
};

#[derive(Debug, Subcommand)]
pub enum RecordCommand {
    /// Open a record; refused where there is one
    Create {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        sending: Sending,
    },
    /// Show a record
    Get {
        #[command(flatten)]
        of: Of,
    },
    /// Change names, gender, birth date or address
    Update {
        #[command(flatten)]
        of: Of,
        /// The version that you saw (default: the present one)
        #[arg(long, value_name = "N")]
        version: Option<u64>,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        sending: Sending,
    },
    /// Take a record away; its history stays
    Delete {
        #[command(flatten)]
        of: Of,
        /// The version that you saw (default: the present one)
        #[arg(long, value_name = "N")]
        version: Option<u64>,
        #[command(flatten)]
        sending: Sending,
    },
    /// Who did what and when
    History {
        #[command(flatten)]
        of: Of,
        /// Changes to leave out at the start
        #[arg(long, value_name = "N", default_value_t = 0)]
        skip: u32,
        /// Changes on a page
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
    /// Summaries of all records, page by page
    List {
        #[command(flatten)]
        at: At,
        /// The contract
        #[arg(long, value_name = "NAME", default_value = RECORDS)]
        contract: String,
        /// The `next` of the page before
        #[arg(long, value_name = "NEXT")]
        after: Option<String>,
        /// Records on a page
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
}

/// Whose record, where.
#[derive(Debug, Args)]
pub struct Of {
    /// Personal number, YYMMDD-NNNN
    pub number: String,
    /// The contract
    #[arg(long, value_name = "NAME", default_value = RECORDS)]
    pub contract: String,
    #[command(flatten)]
    pub at: At,
}

/// A record's fields, one by one or as a JSON document; single ones win.
#[derive(Debug, Args)]
pub struct Fields {
    #[arg(long, value_name = "TEXT")]
    first_name: Option<String>,
    #[arg(long, value_name = "TEXT")]
    last_name: Option<String>,
    /// female, male, other or unknown
    #[arg(long, value_name = "WORD")]
    gender: Option<String>,
    #[arg(long, value_name = "YYYY-MM-DD")]
    birth_date: Option<String>,
    #[arg(long, value_name = "TEXT")]
    address: Option<String>,
    /// A JSON object with any of the contract's fields; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Fields {
    fn document(&self) -> Result<Value> {
        let mut fields = match &self.file {
            Some(file) => match serde_json::from_str(&read(file)?).context("--file")? {
                Value::Object(fields) => fields,
                _ => bail!("--file: must hold a JSON object"),
            },
            None => Map::new(),
        };
        for (name, value) in [
            ("firstName", &self.first_name),
            ("lastName", &self.last_name),
            ("gender", &self.gender),
            ("birthDate", &self.birth_date),
            ("address", &self.address),
        ] {
            if let Some(value) = value {
                fields.insert(name.to_owned(), Value::String(value.clone()));
            }
        }
        Ok(Value::Object(fields))
    }
}

/// A file, or standard input for `-`: so that a record need not stand on a command line.
pub fn read(file: &std::path::Path) -> Result<String> {
    if file == std::path::Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| file.display().to_string())
}

pub async fn run(command: RecordCommand, output: Output) -> Result<()> {
    match command {
        RecordCommand::Create { of, fields, sending } => {
            let session = of.at.connect()?;
            let call = calls::create_from(&of.contract, &of.number, &fields.document()?);
            submit(&session, call, &sending, output).await
        }
        RecordCommand::Get { of } => {
            let session = of.at.connect()?;
            answer(
                unary::evaluate(&session, calls::get(&of.contract, &of.number), false).await?,
                output,
            )
        }
        RecordCommand::Update {
            of,
            version,
            fields,
            sending,
        } => {
            let session = of.at.connect()?;
            let version = seen(&session, &of, version).await?;
            let call = calls::update(&of.contract, &of.number, version, &fields.document()?);
            submit(&session, call, &sending, output).await
        }
        RecordCommand::Delete { of, version, sending } => {
            let session = of.at.connect()?;
            let version = seen(&session, &of, version).await?;
            submit(
                &session,
                calls::delete(&of.contract, &of.number, version),
                &sending,
                output,
            )
            .await
        }
        RecordCommand::History { of, skip, limit } => {
            let session = of.at.connect()?;
            let call = calls::history(&of.contract, &of.number, skip, limit);
            answer(unary::evaluate(&session, call, false).await?, output)
        }
        RecordCommand::List {
            at,
            contract,
            after,
            limit,
        } => {
            let session = at.connect()?;
            let call = calls::list(&contract, after.as_deref(), limit);
            answer(unary::evaluate(&session, call, false).await?, output)
        }
    }
}

/// The version the caller names, else the one that is there now.
async fn seen(session: &Session, of: &Of, version: Option<u64>) -> Result<u64> {
    if let Some(version) = version {
        return Ok(version);
    }
    let record = unary::evaluate(session, calls::get(&of.contract, &of.number), false).await?;
    record["version"].as_u64().context("the record names no version")
}

pub async fn submit(session: &Session, call: service::rpc::Call, sending: &Sending, output: Output) -> Result<()> {
    let within = Duration::from_secs(sending.timeout);
    let done = unary::submit(session, call, sending.sign, sending.wait.into(), within).await?;
    output.show(&done, || told(&done))
}

fn told(done: &Submitted) -> String {
    let mut text = format!(
        "{} in partition {} at height {}, index {}\ntx_id {}\n",
        done.reached, done.partition, done.height, done.index, done.tx_id
    );
    if !done.response.is_null() {
        text.push_str(&format!("answer {}\n", done.response));
    }
    text
}

pub fn answer(answer: Value, output: Output) -> Result<()> {
    output.show(&answer, || format!("{answer:#}\n"))
}
