//! `medledger tx`: any contract's functions, and what became of a transaction.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use service::rpc::{Call, Finality};

use crate::{
    args::{At, Sending, Wait},
    calls, network,
    output::Output,
    record, unary,
};

#[derive(Debug, Subcommand)]
pub enum TxCommand {
    /// Order a call
    Submit {
        #[command(flatten)]
        function: Function,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        sending: Sending,
    },
    /// Ask without ordering anything
    Evaluate {
        #[command(flatten)]
        function: Function,
        #[command(flatten)]
        at: At,
        /// Sign here with the client's key
        #[arg(long)]
        sign: bool,
    },
    /// What became of a transaction, by its id
    Status {
        /// 64 hexadecimal digits
        tx_id: String,
        #[command(flatten)]
        at: At,
        /// Wait for it
        #[arg(long, value_enum)]
        wait: Option<Wait>,
        /// Seconds to wait
        #[arg(long, value_name = "S", default_value_t = 30)]
        timeout: u64,
    },
}

/// What is called.
#[derive(Debug, Args)]
pub struct Function {
    /// Name of the contract, as `medical-records`
    contract: String,
    /// Name of the function, as `getMedicalRecord`
    function: String,
    /// Arguments: a JSON array
    #[arg(default_value = "[]")]
    arguments: String,
    /// Arguments from a file instead; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "arguments")]
    file: Option<PathBuf>,
}

impl Function {
    fn call(&self) -> Result<Call> {
        let text = match &self.file {
            Some(file) => record::read(file)?,
            None => self.arguments.clone(),
        };
        let arguments: Value = serde_json::from_str(&text).context("the arguments must be a JSON array")?;
        ensure!(arguments.is_array(), "the arguments must be a JSON array");
        Ok(calls::call(&self.contract, &self.function, &arguments))
    }
}

pub async fn run(command: TxCommand, output: Output) -> Result<()> {
    match command {
        TxCommand::Submit { function, at, sending } => {
            record::submit(&at.connect()?, function.call()?, &sending, output).await
        }
        TxCommand::Evaluate { function, at, sign } => {
            record::answer(unary::evaluate(&at.connect()?, function.call()?, sign).await?, output)
        }
        TxCommand::Status {
            tx_id,
            at,
            wait,
            timeout,
        } => {
            let digest = hex::decode(&tx_id)
                .ok()
                .and_then(|bytes| protocol::hash::digest(&bytes));
            let digest = digest.with_context(|| format!("tx_id: must be 64 hexadecimal digits; {tx_id:?} is not"))?;
            let wait = wait.map_or(Finality::Unspecified, Finality::from);
            let status = unary::status(&at.connect()?, &digest, wait, Duration::from_secs(timeout)).await?;
            if !status.found {
                bail!("no transaction {tx_id} was judged here yet");
            }
            let shown = json!({
                "tx_id": tx_id,
                "code": status.code,
                "partition": network::status::partition_name(status.partition),
                "height": status.height,
                "index": status.index,
                "attested": status.attested,
            });
            let attested = if status.attested { ", attested" } else { "" };
            output.show(&shown, || {
                let (code, partition) = (&status.code, status.partition);
                format!(
                    "{code} in partition {partition} at height {}, index {}{attested}\n",
                    status.height, status.index
                )
            })
        }
    }
}
