//! `medledger site`: what a facility reports of itself: what it lacks, what its community has to fear, what cannot wait.

use anyhow::{Context as _, Result};
use clap::Subcommand;

use crate::{
    beds::{Contract, Stating},
    calls,
    output::Output,
    record::{answer, submit},
    session::Session,
    unary,
};

#[derive(Debug, Subcommand)]
pub enum SiteCommand {
    /// State all of it, for the facility of the certificate
    Set {
        /// The facility, as HospitalA-1
        facility: String,
        /// Codes of the list's items of sites, as 61,62,56; none: nothing to report
        #[arg(long, value_name = "CODE,…", value_delimiter = ',')]
        items: Vec<String>,
        /// The list of item codes (default: the newest)
        #[arg(long, value_name = "VERSION")]
        codes: Option<String>,
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
}

pub async fn run(command: SiteCommand, output: Output) -> Result<()> {
    match command {
        SiteCommand::Set {
            facility,
            items,
            codes,
            stating: Stating { version, at, sending },
        } => {
            let session = at.at.connect()?;
            let version = match version {
                Some(version) => version,
                None => present(&session, &at.contract, &facility).await?,
            };
            let call = calls::set_site_items(&at.contract, &facility, version, codes.as_deref(), &items);
            submit(&session, call, &sending, output).await
        }
        SiteCommand::Get { facility, at } => {
            let session = at.at.connect()?;
            let call = calls::site_items(&at.contract, &facility);
            answer(unary::evaluate(&session, call, false).await?, output)
        }
    }
}

/// The version that a facility's statement has; 0 if it never made one.
pub async fn present(session: &Session, contract: &str, facility: &str) -> Result<u64> {
    let stated = unary::evaluate(session, calls::site_items(contract, facility), false).await?;
    stated["version"].as_u64().context("the statement has no version")
}
