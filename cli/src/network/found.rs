//! Founding: authorities and identities, secret, components, genesis, settings, guards.

use std::{collections::BTreeMap, fs, io, path::Path};

use anyhow::{Context as _, Result, ensure};
use peer::attester::guard::{Guard, Owner};
use protocol::{Digest, genesis::Channel, identity::Role, keys::ChannelSecret};
use rand::RngCore as _;
use service::Identity;

use super::{
    Say, configs,
    genesis::{self, Founder},
    layout::{ContractEntry, Description, Kind, Layout, write_whole},
    plan::{self, ADMIN, ATTESTER},
    spec::Spec,
};
use crate::{
    ca::{Authority, KeyAlgorithm, ROOT_DAYS, Request, Which},
    contract,
};

/// Writes everything that the processes need; `network.json` comes last.
pub fn found(spec: &Spec, layout: &Layout, say: Say<'_>) -> Result<(Description, Channel)> {
    let mut description = plan::describe(spec)?;
    fs::create_dir_all(layout.crls()).with_context(|| layout.crls().display().to_string())?;
    say("issuing certificates");
    for organisation in &spec.organisations {
        let authority = Authority::create(
            &layout.authority(&organisation.msp_id),
            &organisation.msp_id,
            KeyAlgorithm::P256,
            ROOT_DAYS,
        )?;
        let root = fs::read(authority.directory().join("root.pem")).context("the root that was just made")?;
        write_whole(&layout.root_certificate(&organisation.msp_id), &root, false)?;
        issue_missing(&authority, &description, layout)?;
        for client in organisation.clients.iter().filter(|client| client.revoked) {
            authority.revoke(&Which::Name(client.name.clone()))?;
        }
    }
    kafka(spec, layout)?;
    say("packaging contracts");
    let modules = components(spec, layout)?;
    say("signing the genesis");
    let mut secret = [0; 32];
    rand::rng().fill_bytes(&mut secret);
    write_whole(&layout.secret(), &secret, true)?;
    let founders = spec
        .organisations
        .iter()
        .map(|organisation| founder(&organisation.msp_id, layout));
    let founders = founders.collect::<Result<Vec<_>>>()?;
    let (bytes, channel) = genesis::build(spec, &founders, &modules, &ChannelSecret::new(&secret))?;
    write_whole(&layout.genesis(), &bytes, false)?;
    description.channel_id = hex::encode(channel.id);
    description.contracts = contracts(&channel);
    if !description.remote {
        settings(&description, layout)?;
    }
    guards(&description, &channel, layout)?;
    layout.write(&description)?;
    Ok((description, channel))
}

/// Founding makes everything anew, so it wants nothing to be there.
pub fn check_empty(layout: &Layout) -> Result<()> {
    let root = layout.root();
    let files = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        files => files.with_context(|| root.display().to_string())?.count(),
    };
    let there = if layout.description().exists() {
        "a network"
    } else {
        "something that is no network"
    };
    ensure!(
        files == 0,
        "{} holds {there}; found one elsewhere, or delete it first",
        root.display()
    );
    Ok(())
}

/// Every identity of the authority's organisation that is described and not there yet. Says which.
pub fn issue_missing(authority: &Authority, description: &Description, layout: &Layout) -> Result<Vec<String>> {
    let mut issued = Vec::new();
    let ours = description.identities.iter();
    for identity in ours.filter(|identity| identity.organisation == authority.msp_id()) {
        let directory = layout.join(&identity.directory);
        if directory.join("cert.pem").exists() {
            continue;
        }
        let role = identity.role.parse().with_context(|| identity.name.clone())?;
        let mut request = Request::new(role, &identity.name);
        match description.remote {
            false => request = request.on_localhost(),
            true => request.dns = names(description, &identity.directory),
        }
        request.attributes = identity.attributes.clone();
        authority.issue(&request)?.write(&directory)?;
        issued.push(format!("{}/{}", identity.organisation, identity.name));
    }
    Ok(issued)
}

/// Under which names the process with this identity serves.
fn names(description: &Description, identity: &Path) -> Vec<String> {
    let process = description
        .processes
        .iter()
        .find(|process| process.identity == identity);
    let names = process.map(|process| [&[process.host().to_owned()][..], &process.names].concat());
    names.unwrap_or_default()
}

/// Brokers elsewhere that want certificates get them from an authority that no process of ours takes for a member,
/// and that members' clients take for the brokers'.
fn kafka(spec: &Spec, layout: &Layout) -> Result<()> {
    if spec.kafka.certify.is_empty() {
        return Ok(());
    }
    let directory = layout.kafka();
    let authority = Authority::create(&directory.join("authority"), "kafka", KeyAlgorithm::P256, ROOT_DAYS)?;
    // Every profile has a role; brokers look at none of their own authority's.
    let mut request = Request::new(Role::Client, "broker");
    request.dns = spec.kafka.certify.clone();
    // As long as its authority: nothing rolls brokers by itself when it ends.
    request.days = ROOT_DAYS - 1;
    let issued = authority.issue(&request)?;
    let broker = format!("{}{}", issued.key_pem, issued.certificate_pem);
    write_whole(&directory.join("broker.pem"), broker.as_bytes(), true)?;
    write_whole(&directory.join("ca.pem"), issued.root_pem.as_bytes(), false)?;
    let mut members = String::new();
    for name in spec.organisation_names() {
        members +=
            &fs::read_to_string(layout.root_certificate(&name)).with_context(|| format!("the root of {name}"))?;
    }
    write_whole(&directory.join("members.pem"), members.as_bytes(), false)
}

/// Packages every contract once; the digest of each by the contract's name.
fn components(spec: &Spec, layout: &Layout) -> Result<BTreeMap<String, Digest>> {
    let mut packaged = BTreeMap::new();
    let mut digests = BTreeMap::new();
    for contract in &spec.contracts {
        let digest = match packaged.get(&contract.wasm) {
            Some(digest) => *digest,
            None => {
                let (component, digest) =
                    contract::component(&contract.wasm).with_context(|| format!("contract {}", contract.name))?;
                write_whole(&layout.module(&hex::encode(digest)), &component, false)?;
                packaged.insert(contract.wasm.clone(), digest);
                digest
            }
        };
        digests.insert(contract.name.clone(), digest);
    }
    Ok(digests)
}

fn founder(msp_id: &str, layout: &Layout) -> Result<Founder> {
    let authority = Authority::open(&layout.authority(msp_id))?;
    let identity = |name| Identity::load(&layout.join(Layout::identity(msp_id, name)));
    let (admin, attester) = (identity(ADMIN)?, identity(ATTESTER)?);
    Ok(Founder {
        msp_id: msp_id.to_owned(),
        root: authority.root().der().to_vec(),
        revoked: authority.revoked_serials()?,
        attester: attester.certificate_der().to_vec(),
        admin: admin.certificate_der().to_vec(),
        admin_key: admin.signing_key,
    })
}

fn contracts(channel: &Channel) -> Vec<ContractEntry> {
    let contracts = channel.config.contracts.iter();
    contracts
        .map(|contract| ContractEntry {
            name: contract.name.clone(),
            digest: hex::encode(&contract.digest),
            policy: if contract.policy.is_empty() {
                channel.config.endorsement_policy.clone()
            } else {
                contract.policy.clone()
            },
        })
        .collect()
}

fn settings(description: &Description, layout: &Layout) -> Result<()> {
    for process in description
        .processes
        .iter()
        .filter(|process| process.kind != Kind::Broker)
    {
        let text = toml::to_string(&configs::settings(process, description))?;
        write_whole(&layout.join(process.config()), text.as_bytes(), false)?;
    }
    Ok(())
}

/// Made once, together with the attesters' keys.
fn guards(description: &Description, channel: &Channel, layout: &Layout) -> Result<()> {
    for process in description.processes.iter().filter(|process| process.attester) {
        let attester = channel
            .attester(&process.organisation)
            .context("the genesis names no attester")?;
        let owner = Owner {
            channel: channel.id,
            attester: attester.hash,
            partitions: channel.partitions(),
        };
        let guard = layout.guard(process);
        fs::create_dir_all(guard.parent().context("a guard has a directory")?)?;
        Guard::init(&guard, owner)?;
    }
    Ok(())
}
