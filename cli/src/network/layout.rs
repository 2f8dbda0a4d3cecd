//! Where things lie in a network's directory, and `network.json`, which describes it to others.
//!
//! ```text
//! DIR/network.json            processes, addresses, identities
//!     genesis.bin             ledger.Genesis, signed by the admins
//!     channel.secret          32 bytes, mode 0600
//!     modules/<digest>.wasm   components
//!     roots/<MSP>.pem         every organisation's root
//!     organisations/<MSP>/ca                  the authority
//!     organisations/<MSP>/identities/<name>/  cert.pem, key.pem, root.pem
//!     crls/                   revocation lists that every process watches
//!     kafka/                  brokers of our own; of brokers elsewhere their certificates, where we issue them
//!     processes/<name>/       <kind>.toml, log, pid, data/
//! ```

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::spec::Spec;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Broker,
    Orderer,
    Worker,
    Peer,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Broker => "broker",
            Kind::Orderer => "orderer",
            Kind::Worker => "worker",
            Kind::Peer => "peer",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// One process of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// `peer0.HospitalA`, `orderer1`, `worker0.ReliefOrg`, `kafka0`.
    pub name: String,
    pub kind: Kind,
    /// Empty for brokers.
    pub organisation: String,
    /// `host:port`: gRPC and REST over mTLS; a broker's client listener.
    pub listen: String,
    /// `host:port`: health and metrics, plain HTTP; empty for brokers.
    pub health: String,
    /// Relative to the network's directory, as are all paths here.
    pub identity: PathBuf,
    pub pid_file: PathBuf,
    pub log_file: PathBuf,
    /// Whether it signs for its organisation.
    #[serde(default)]
    pub attester: bool,
    /// More names that it serves under.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl Process {
    pub fn directory(&self) -> PathBuf {
        directory_of(&self.name)
    }

    /// The host that others dial.
    pub fn host(&self) -> &str {
        self.listen.rsplit_once(':').map_or(&self.listen, |(host, _)| host)
    }

    pub fn config(&self) -> PathBuf {
        self.directory().join(format!("{}.toml", self.kind))
    }
}

pub fn directory_of(process: &str) -> PathBuf {
    Path::new("processes").join(process)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IdentityEntry {
    pub organisation: String,
    pub name: String,
    pub role: String,
    pub attributes: BTreeMap<String, String>,
    pub directory: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContractEntry {
    pub name: String,
    /// Hex.
    pub digest: String,
    pub policy: String,
}

/// `network.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    pub channel: String,
    /// Hex.
    pub channel_id: String,
    pub partitions: u32,
    /// `host:port,…`
    pub kafka: String,
    /// Its processes are started and stopped elsewhere: nobody here knows whether they live, unless by asking.
    #[serde(default)]
    pub remote: bool,
    pub processes: Vec<Process>,
    pub identities: Vec<IdentityEntry>,
    pub contracts: Vec<ContractEntry>,
    pub spec: Spec,
}

/// A network's directory.
#[derive(Clone, Debug)]
pub struct Layout(PathBuf);

impl Layout {
    pub fn new(directory: &Path) -> Result<Self> {
        let absolute = std::path::absolute(directory).with_context(|| directory.display().to_string())?;
        Ok(Layout(absolute))
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    /// What a command needs on its line to mean this directory: nothing if it is the default one.
    pub fn flag(&self) -> String {
        match std::path::absolute(super::DEFAULT_DIRECTORY) {
            Ok(default) if default == self.0 => String::new(),
            _ => format!(" --network {}", self.0.display()),
        }
    }

    pub fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.0.join(relative)
    }

    pub fn description(&self) -> PathBuf {
        self.join("network.json")
    }

    pub fn genesis(&self) -> PathBuf {
        self.join("genesis.bin")
    }

    pub fn secret(&self) -> PathBuf {
        self.join("channel.secret")
    }

    /// What the founding makes for brokers elsewhere: `broker.pem` (certificate and key), `ca.pem` (whom their
    /// clients trust), `members.pem` (whose clients they trust), `authority/`.
    pub fn kafka(&self) -> PathBuf {
        self.join("kafka")
    }

    pub fn guard(&self, process: &Process) -> PathBuf {
        self.join(process.directory()).join("guard")
    }

    pub fn crls(&self) -> PathBuf {
        self.join("crls")
    }

    pub fn module(&self, digest: &str) -> PathBuf {
        self.join("modules").join(format!("{digest}.wasm"))
    }

    pub fn root_certificate(&self, organisation: &str) -> PathBuf {
        self.join("roots").join(format!("{organisation}.pem"))
    }

    pub fn authority(&self, organisation: &str) -> PathBuf {
        self.join("organisations").join(organisation).join("ca")
    }

    /// Relative, as `network.json` has it.
    pub fn identity(organisation: &str, name: &str) -> PathBuf {
        Path::new("organisations")
            .join(organisation)
            .join("identities")
            .join(name)
    }

    pub fn read(&self) -> Result<Description> {
        let file = self.description();
        let text = fs::read_to_string(&file).with_context(|| {
            format!(
                "there is no network in {}; `medledger network up{}` founds one",
                self.0.display(),
                self.flag()
            )
        })?;
        serde_json::from_str(&text).with_context(|| file.display().to_string())
    }

    pub fn write(&self, description: &Description) -> Result<()> {
        write_whole(&self.description(), &serde_json::to_vec_pretty(description)?, false)
    }
}

/// Writes beside and renames, so that nobody reads half a file. `private`: only the owner may read it.
pub fn write_whole(file: &Path, bytes: &[u8], private: bool) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let doing = || format!("writing {}", file.display());
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).with_context(doing)?;
    }
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let mode = if private { 0o600 } else { 0o644 };
    let mut out = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(mode)
        .open(&beside)
        .with_context(doing)?;
    out.write_all(bytes).with_context(doing)?;
    out.sync_all().with_context(doing)?;
    fs::rename(&beside, file).with_context(doing)
}
