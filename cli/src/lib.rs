//! The command line `medledger`, as a library: the tests found and kill networks through [`network`].
//!
//! | module | what |
//! |---|---|
//! | [`args`] | the command line itself |
//! | [`ca`] | organisations' roots and identities |
//! | [`network`] | whole networks of real processes: founding, starting, killing, looking |
//! | [`cluster`] | their keys and genesis as Kubernetes Secrets |
//! | [`session`], [`wallet`] | a client at its gateway, its signature |
//! | [`unary`], [`client`] | its calls: one at a time for people, many at once for loads and tests |
//! | [`record`], [`encounter`], [`beds`], [`site`], [`report`] | the commands of those names |
//! | [`tx`], [`block`], [`contract`], [`verify`] | and of those |
//! | [`bench`] | measurements, and the check that nothing was lost or doubled |
//! | [`chaos`] | faults under load on a Kubernetes cluster, and the judgement of what was promised |
//! | [`demo`] | the walk through everything, with processes killed |

pub mod args;
pub mod beds;
pub mod bench;
pub mod block;
pub mod ca;
pub mod calls;
pub mod chaos;
pub mod client;
pub mod cluster;
pub mod contract;
pub mod demo;
pub mod encounter;
pub mod network;
pub mod output;
pub mod patients;
pub mod progress;
pub mod record;
pub mod report;
pub mod session;
pub mod site;
pub mod tx;
pub mod unary;
pub mod verify;
pub mod wallet;

use anyhow::Result;
use args::{Cli, Command};
use clap::CommandFactory as _;

/// Runs one command to its end.
pub async fn run(cli: Cli) -> Result<()> {
    let output = cli.output;
    match cli.command {
        Command::Ca(command) => ca::run(&command, output),
        Command::Network(command) => network::command::run(command, output).await,
        Command::Cluster(command) => cluster::run(command, output).await,
        Command::Record(command) => record::run(command, output).await,
        Command::Encounter(command) => encounter::run(command, output).await,
        Command::Beds(command) => beds::run(command, output).await,
        Command::Site(command) => site::run(command, output).await,
        Command::Report(command) => report::run(command, output).await,
        Command::Tx(command) => tx::run(command, output).await,
        Command::Block(command) => block::run(command, output).await,
        Command::Contract(command) => contract::run(command, output),
        Command::Verify(args) => verify::run(&args, output).await,
        Command::Bench(args) => bench::run(&args, output).await,
        Command::Chaos(command) => chaos::run(command, output).await,
        Command::Demo(args) => demo::run(&args, output).await,
        Command::Pause => {
            let tasks = service::Tasks::new();
            tasks.end_on_signals()?;
            tasks.token().cancelled().await;
            Ok(())
        }
        Command::Completions { shell } => {
            // Into memory first: the generator panics when its reader has seen enough.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "medledger", &mut script);
            let script = String::from_utf8(script)?;
            output::Output::Text.show(&(), || script)
        }
    }
}
