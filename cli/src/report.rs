//! `medledger report`: what the ministry's peer publishes, and a load that gives it something to publish.

pub mod sample;
mod show;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use peer::reporting::report::Report;
use serde::Deserialize;
use serde_json::Value;
use service::Role;

use crate::{
    args::{At, Who},
    network::{self, Network},
    output::Output,
    session::Session,
};

#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// Published periods, oldest first
    List {
        #[command(flatten)]
        at: Officer,
    },
    /// All that is published of a period
    Show {
        /// A period of the list
        #[arg(default_value = "newest")]
        period: String,
        /// As CSV, one row a number
        #[arg(long)]
        csv: bool,
        #[command(flatten)]
        at: Officer,
    },
    /// Send plausible encounters and statements of beds of invented patients, from every facility of the network
    Sample(sample::SampleArgs),
}

/// Who may read reports, where.
#[derive(Clone, Debug, Args)]
pub struct Officer {
    /// Directory of the network
    #[arg(long, value_name = "DIR", env = "MEDLEDGER_NETWORK", default_value = network::DEFAULT_DIRECTORY)]
    pub network: PathBuf,
    /// Who asks: a certificate that says reporting_officer
    #[arg(
        long = "as",
        value_name = "ORGANISATION/CLIENT",
        default_value = "MinistryOfHealth/reporting_officer"
    )]
    pub who: Who,
    /// The peer that is asked (default: the first of the organisation)
    #[arg(long, value_name = "NAME")]
    pub peer: Option<String>,
}

/// A published period in the list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
pub struct Period {
    pub period: u64,
    pub start_s: u64,
    pub end_s: u64,
    pub facilities_expected: u64,
    pub facilities_reported: u64,
}

/// An answer is there or not; nothing is waited for.
const WITHIN: Duration = Duration::from_secs(30);

pub async fn run(command: ReportCommand, output: Output) -> Result<()> {
    match command {
        ReportCommand::List { at } => {
            let periods = list(&at.connect()?).await?;
            output.show(&periods, || show::list(&periods))
        }
        ReportCommand::Show { period, csv: true, at } => {
            let text = get(&at.connect()?, &format!("/{period}?format=csv")).await?;
            Output::Text.show(&(), || text)
        }
        ReportCommand::Show { period, at, .. } => {
            let report = show(&at.connect()?, &period).await?;
            output.show(&report, || show::report(&report))
        }
        ReportCommand::Sample(args) => {
            let network = Network::load(&args.network)?;
            let sent = sample::send(&network, &args.load()).await?;
            output.show(&sent, || sent.text())
        }
    }
}

impl Officer {
    fn connect(&self) -> Result<Session> {
        let at = At {
            network: self.network.clone(),
            who: self.who.clone(),
            peer: self.peer.clone(),
        };
        at.connect()
    }
}

pub async fn list(session: &Session) -> Result<Vec<Period>> {
    serde_json::from_str(&get(session, "").await?).context("the list of periods")
}

/// `period`: of the list, or `newest`.
pub async fn show(session: &Session, period: &str) -> Result<Report> {
    serde_json::from_str(&get(session, &format!("/{period}")).await?).context("the report")
}

/// Reports are served over REST only.
async fn get(session: &Session, path: &str) -> Result<String> {
    let tls = session
        .trust
        .client_config(Role::Peer, Some(&session.peer.organisation))?;
    let http = reqwest::Client::builder()
        .use_preconfigured_tls(tls)
        .timeout(WITHIN)
        .build()?;
    let url = format!("https://{}/v1/reports{path}", session.peer.listen);
    let answer = http.get(url).send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    if !status.is_success() {
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        let said = |field: &str| problem[field].as_str().unwrap_or_default().to_owned();
        bail!("{}: {} {}", status.as_u16(), said("title"), said("detail"));
    }
    Ok(text)
}
