//! The subcommands over [`Authority`].

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use protocol::identity::Role;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Authority, CRL_DAYS, Entry, KeyAlgorithm, LEAF_DAYS, ROOT_DAYS, Request, Which, authority::replace};
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make the root of a new organisation
    Init(InitArgs),
    /// Issue a certificate and its key
    Issue(IssueArgs),
    /// List what was issued
    List(DirArgs),
    /// Revoke certificates and sign a new revocation list; saying it again signs and copies it again
    Revoke(RevokeArgs),
    /// Sign the revocation list anew
    Crl(CrlArgs),
}

#[derive(Debug, Args)]
pub struct DirArgs {
    /// The authority's directory
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct InitArgs {
    #[command(flatten)]
    at: DirArgs,
    /// The organisation's MSP id, such as HospitalA
    #[arg(long, value_name = "MSP")]
    msp: String,
    /// The root's key
    #[arg(long, value_enum, default_value_t)]
    key: KeyAlgorithm,
    #[arg(long, default_value_t = ROOT_DAYS)]
    days: u32,
}

#[derive(Debug, Args)]
pub struct IssueArgs {
    #[command(flatten)]
    at: DirArgs,
    /// What the identity may do
    #[arg(long, value_parser = PossibleValuesParser::new(Role::ALL.map(Role::word)).try_map(|word| word.parse::<Role>()))]
    role: Role,
    /// The common name
    #[arg(long)]
    name: String,
    /// What contracts may decide by, such as practitioner_role=physician; may be repeated
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// A name that the identity serves under; may be repeated
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An address that the identity serves under; may be repeated
    #[arg(long)]
    ip: Vec<IpAddr>,
    #[arg(long, value_enum, default_value_t)]
    key: KeyAlgorithm,
    /// Cut to the root's own validity
    #[arg(long, default_value_t = LEAF_DAYS)]
    days: u32,
    /// The new identity's directory [default: identities/NAME beside the root]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RevokeArgs {
    #[command(flatten)]
    at: DirArgs,
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    copy: CopyArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct WhichArgs {
    /// A serial number in hexadecimal, as `list` shows it
    #[arg(long, value_name = "HEX")]
    serial: Option<String>,
    /// Everything issued to this name
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub struct CrlArgs {
    #[command(flatten)]
    at: DirArgs,
    #[arg(long, default_value_t = CRL_DAYS)]
    days: u32,
    #[command(flatten)]
    copy: CopyArgs,
}

#[derive(Debug, Args)]
struct CopyArgs {
    /// Write the list here as well, such as into the directory that processes watch; may be repeated
    #[arg(long = "copy", value_name = "FILE")]
    copies: Vec<PathBuf>,
}

pub fn run(command: &CaCommand, output: Output) -> Result<()> {
    match command {
        CaCommand::Init(args) => init(args, output),
        CaCommand::Issue(args) => issue(args, output),
        CaCommand::List(args) => list(args, output),
        CaCommand::Revoke(args) => revoke(args, output),
        CaCommand::Crl(args) => crl(args, output),
    }
}

fn init(args: &InitArgs, output: Output) -> Result<()> {
    let authority = Authority::create(&args.at.dir, &args.msp, args.key, args.days)?;
    let root = authority.directory().join("root.pem");
    let until = authority.root().not_after;
    let shown = json!({"msp_id": authority.msp_id(), "root": root, "not_after": until});
    output.show(&shown, || {
        format!(
            "{}: root {}, valid until {}",
            authority.msp_id(),
            root.display(),
            date(until)
        )
    })
}

fn issue(args: &IssueArgs, output: Output) -> Result<()> {
    let authority = Authority::open(&args.at.dir)?;
    let mut request = Request::new(args.role, &args.name);
    for (name, value) in &args.attributes {
        if request.attributes.insert(name.clone(), value.clone()).is_some() {
            bail!("--attribute: {name:?} is given twice");
        }
    }
    (request.dns, request.ips) = (args.dns.clone(), args.ip.clone());
    (request.key, request.days) = (args.key, args.days);
    let out = match &args.out {
        Some(out) => out.clone(),
        None if is_file_name(&args.name) => args.at.dir.join("identities").join(&args.name),
        None => bail!("--name: {:?} cannot be a directory's name; say --out", args.name),
    };
    if out.join("key.pem").exists() {
        return Err(super::Error::Exists(out.join("key.pem")).into());
    }
    let issued = authority.issue(&request)?;
    issued.write(&out)?;
    let (certificate, serial) = (&issued.certificate, hex::encode(&issued.certificate.serial));
    let shown = json!({
        "msp_id": certificate.msp_id,
        "role": certificate.role.word(),
        "name": certificate.common_name,
        "serial": serial,
        "not_after": certificate.not_after,
        "hash": hex::encode(certificate.hash),
        "directory": out,
    });
    output.show(&shown, || {
        format!(
            "{} {} of {}: {}, serial {serial}, valid until {}",
            certificate.role,
            certificate.common_name,
            certificate.msp_id,
            out.display(),
            date(certificate.not_after)
        )
    })
}

fn list(args: &DirArgs, output: Output) -> Result<()> {
    let entries = Authority::open(&args.dir)?.list()?;
    output.show(&entries, || table(&entries))
}

fn revoke(args: &RevokeArgs, output: Output) -> Result<()> {
    let authority = Authority::open(&args.at.dir)?;
    let which = match (&args.which.serial, &args.which.name) {
        (Some(serial), _) => Which::Serial(decode_serial(serial)?),
        (_, Some(name)) => Which::Name(name.clone()),
        _ => bail!("--serial or --name: must be given"),
    };
    let revoked = authority.revoke(&which)?;
    let list = authority.crl_file();
    copy(&list, &args.copy).with_context(|| {
        format!(
            "revoked, and listed in {}, but the list was not copied everywhere; say it again when that is mended",
            list.display()
        )
    })?;
    output.show(&revoked, || {
        let entries: Vec<Entry> = revoked.iter().map(|revoked| revoked.entry.clone()).collect();
        let before = revoked.iter().filter(|revoked| revoked.already).count();
        let before = match before {
            0 => String::new(),
            n => format!("{n} of {} had been revoked before; ", revoked.len()),
        };
        format!("{}{before}list: {}", table(&entries), list.display())
    })
}

fn crl(args: &CrlArgs, output: Output) -> Result<()> {
    let authority = Authority::open(&args.at.dir)?;
    authority.crl(args.days)?;
    copy(&authority.crl_file(), &args.copy)?;
    let serials: Vec<String> = authority.revoked_serials()?.iter().map(hex::encode).collect();
    let shown = json!({"msp_id": authority.msp_id(), "crl": authority.crl_file(), "serials": serials});
    output.show(&shown, || {
        let (file, count, days) = (authority.crl_file(), serials.len(), args.days);
        format!("{}: {count} revoked, valid for {days} days", file.display())
    })
}

fn copy(list: &Path, args: &CopyArgs) -> Result<()> {
    let text = std::fs::read_to_string(list)?;
    for path in &args.copies {
        replace(path, &text)?;
    }
    Ok(())
}

fn table(entries: &[Entry]) -> String {
    let mut text = format!(
        "{:32}  {:7}  {:24}  {:20}  {}\n",
        "SERIAL", "ROLE", "NAME", "VALID UNTIL", "REVOKED"
    );
    for entry in entries {
        let revoked = entry.revoked.map(date).unwrap_or_else(|| "-".to_owned());
        let (serial, role, name, until) = (&entry.serial, &entry.role, &entry.name, date(entry.not_after));
        text.push_str(&format!("{serial:32}  {role:7}  {name:24}  {until:20}  {revoked}\n"));
    }
    text
}

fn date(unix_s: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(unix_s).ok();
    time.and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| unix_s.to_string())
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

/// With or without colons and leading zeros, as other tools print serial numbers.
fn decode_serial(text: &str) -> Result<Vec<u8>> {
    let digits = text.replace(':', "");
    let even = if digits.len() % 2 == 1 {
        format!("0{digits}")
    } else {
        digits
    };
    match hex::decode(even) {
        Ok(bytes) => Ok(bytes.into_iter().skip_while(|byte| *byte == 0).collect()),
        Err(_) => bail!("--serial: must be hexadecimal; {text:?} is not"),
    }
}

fn is_file_name(name: &str) -> bool {
    !name.starts_with('.')
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b))
}
