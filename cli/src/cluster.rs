//! `medledger cluster`: a network's keys and genesis as Kubernetes Secrets.
//!
//! ```text
//! founding job:  specification ─ found ─► directory ─ Secrets (API) ─► pods mount what is theirs
//!                Secrets ─► directory ─ what the specification adds ─► Secrets      (an upgrade)
//! outside:       directory ─ `secrets` ─► manifests ─► kubectl apply
//! attester:      Secret ─ `guard` ─► volume, and the Secret has it no more
//! ```
//! Who gets what is one table, [`secrets::Naming::place`].

mod api;
mod extend;
mod guard;
mod secrets;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    network::{Spec, found, layout::Layout, silent},
    output::Output,
};
use api::Api;
use secrets::{Naming, Secrets};

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Found the network of a specification into Secrets of this cluster, or add what the specification has and
    /// they have not; runs in a pod
    Found {
        /// What the network should be, with the addresses of all processes (TOML; `network spec` explains it)
        #[arg(long, value_name = "FILE")]
        spec: PathBuf,
        #[command(flatten)]
        naming: NamingArgs,
    },
    /// Print a network directory as Secrets for `kubectl apply -f -`
    Secrets {
        /// Directory of a network that was founded for elsewhere
        #[arg(long, value_name = "DIR")]
        network: PathBuf,
        /// Only what this organisation's processes and people need, without its authority's key; may be repeated
        #[arg(long = "only", value_name = "MSP")]
        only: Vec<String>,
        #[command(flatten)]
        naming: NamingArgs,
    },
    /// Move an attester's guard from its Secret to its volume, once and for ever; runs in a pod
    ///
    /// The Secret loses it before the attester can sign anything: a volume that is lost later is not given a guard
    /// that has forgotten what was signed.
    Guard {
        /// The Secret with the key `guard`
        #[arg(long)]
        secret: String,
        /// Where the guard shall be
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// The pod that this is
        #[arg(long)]
        pod: String,
        /// The pod that attests; in another one nothing is done
        #[arg(long, value_name = "POD")]
        only: String,
    },
}

#[derive(Clone, Debug, Args)]
pub struct NamingArgs {
    /// What the Secrets' names begin with
    #[arg(long, default_value = "medledger")]
    prefix: String,
    /// How an organisation is called in Secrets' names; may be repeated
    #[arg(long = "slug", value_name = "MSP=NAME", value_parser = slug)]
    slugs: Vec<(String, String)>,
}

fn slug(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(_, name)| secrets::is_label(name));
    let (msp, name) = parts.ok_or("must be MSP=NAME, the name of small letters, digits and dashes")?;
    Ok((msp.to_owned(), name.to_owned()))
}

impl NamingArgs {
    fn naming(&self, organisations: &[String]) -> Result<Naming> {
        let slugs: BTreeMap<String, String> = self.slugs.iter().cloned().collect();
        for organisation in organisations {
            ensure!(
                slugs.contains_key(organisation),
                "--slug: {organisation}=NAME is missing"
            );
        }
        Ok(Naming {
            prefix: self.prefix.clone(),
            slugs,
        })
    }
}

pub async fn run(command: ClusterCommand, output: Output) -> Result<()> {
    match command {
        ClusterCommand::Found { spec, naming } => found_or_extend(&spec, &naming, output).await,
        ClusterCommand::Secrets { network, only, naming } => print(&network, &only, &naming, output),
        ClusterCommand::Guard { pod, only, .. } if pod != only => output.show(&json!({"guard": null}), || {
            format!("{pod} is no attester; that is {only}\n")
        }),
        ClusterCommand::Guard { secret, to, .. } => guard::run(&Api::in_cluster()?, &secret, &to, output).await,
    }
}

async fn found_or_extend(file: &Path, naming: &NamingArgs, output: Output) -> Result<()> {
    let spec = Spec::load(file)?;
    let naming = naming.naming(&spec.organisation_names())?;
    let api = Api::in_cluster()?;
    let directory = tempfile::tempdir().context("a directory for the network's files")?;
    let layout = Layout::new(&directory.path().join("network"))?;
    let there = Secrets::of(api.list(&naming.label()).await?)?;
    // The network's own Secret is written last: without it nobody has used the others.
    let (done, issued) = if there.has(&naming.network()) {
        there.restore(&layout)?;
        ("is there", extend::extend(&spec, &layout)?)
    } else {
        let (description, _) = found::found(&spec, &layout, &silent)?;
        let names = description.identities.iter();
        (
            "was founded",
            names.map(|i| format!("{}/{}", i.organisation, i.name)).collect(),
        )
    };
    let new = Secrets::collect(&layout, &naming)?;
    for secret in new.in_order(&naming) {
        // A guard that was in its Secret when we looked may have moved to its volume since: it must not come back.
        // Nothing else of that Secret changes.
        if done == "is there" && !secret["data"]["guard"].is_null() {
            continue;
        }
        api.apply(&secret).await?;
    }
    let shown = json!({"channel": layout.read()?.channel_id, "issued": issued});
    output.show(&shown, || {
        format!(
            "channel {} {done}; certificates issued: {}\n",
            shown["channel"],
            issued.len()
        )
    })
}

fn print(directory: &Path, only: &[String], naming: &NamingArgs, output: Output) -> Result<()> {
    let layout = Layout::new(directory)?;
    let description = layout.read()?;
    ensure!(
        description.remote,
        "{}: was founded for this machine; give its specification [addresses]",
        directory.display()
    );
    let known = description.spec.organisation_names();
    for name in only {
        ensure!(
            known.contains(name),
            "--only: {name} is no organisation of this network"
        );
    }
    let naming = naming.naming(&known)?;
    let secrets = Secrets::collect(&layout, &naming)?.only(&naming, only);
    let items: Vec<_> = secrets.in_order(&naming).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    output.show(&list, || format!("{list:#}\n"))
}
