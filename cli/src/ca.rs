//! `medledger ca`: an organisation's certificate authority in a directory.
//!
//! ```text
//! DIR/root.pem        the organisation's root: what a genesis holds and everybody trusts
//!     root-key.pem    its private key, mode 0600: whoever has it speaks for the organisation
//!     index.jsonl     what was issued and revoked, one JSON object a line, appended and fsynced
//!     crl.pem         the revocation list, signed; replaced whole
//!     identities/     where `issue` puts certificate, key and root unless told otherwise
//! ```
//!
//! Every certificate keeps the profile of `protocol::identity` and is parsed by it before it is
//! handed out. The index is written first: a certificate may stand in it and exist nowhere, but
//! none exists that is not in it. Commands that run at once wait for each other (a lock on the index).

mod authority;
mod command;
mod index;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, path::PathBuf};

use protocol::identity::{Attributes, IdentityError, Role};

pub use authority::{Authority, Issued};
pub use command::{CaCommand, run};
pub use index::Entry;

/// Validity of a root, of what it issues, and of a revocation list, unless asked otherwise.
pub const ROOT_DAYS: u32 = 3650;
pub const LEAF_DAYS: u32 = 365;
pub const CRL_DAYS: u32 = 30;
/// Certificates are valid from a little before now, for those whose clocks are behind.
const BACKDATED_SECONDS: i64 = 300;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyAlgorithm {
    #[default]
    P256,
    Ed25519,
}

/// What a new identity is to be.
#[derive(Clone, Debug)]
pub struct Request {
    pub role: Role,
    pub name: String,
    pub attributes: Attributes,
    pub dns: Vec<String>,
    pub ips: Vec<IpAddr>,
    pub key: KeyAlgorithm,
    /// Cut to the root's own validity.
    pub days: u32,
}

impl Request {
    pub fn new(role: Role, name: impl Into<String>) -> Self {
        Request {
            role,
            name: name.into(),
            attributes: Attributes::new(),
            dns: Vec::new(),
            ips: Vec::new(),
            key: KeyAlgorithm::default(),
            days: LEAF_DAYS,
        }
    }

    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// `localhost`, 127.0.0.1 and ::1: for servers on this machine.
    #[must_use]
    pub fn on_localhost(mut self) -> Self {
        self.dns.push("localhost".to_owned());
        self.ips
            .extend([IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()]);
        self
    }
}

/// Which certificates to revoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Without leading zeros, as in a certificate's `serial`.
    Serial(Vec<u8>),
    /// All of that name.
    Name(String),
}

/// A certificate that is revoked now.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Revoked {
    #[serde(flatten)]
    pub entry: Entry,
    /// Since an earlier time.
    pub already: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing} {}: {cause}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("{} exists already; nothing is overwritten", .0.display())]
    Exists(PathBuf),
    #[error("{} is no authority: {cause}", path.display())]
    NotAnAuthority { path: PathBuf, cause: IdentityError },
    #[error("{}: not a private key in PKCS#8 and PEM, P-256 or Ed25519", .0.display())]
    Key(PathBuf),
    #[error("{}: the key is not the root's", .0.display())]
    KeyMismatch(PathBuf),
    #[error("{}, line {line}: not an entry of the index", path.display())]
    Index { path: PathBuf, line: usize },
    #[error("{0:?} is no MSP id: [A-Za-z0-9][A-Za-z0-9.-]{{0,63}}")]
    MspId(String),
    #[error("the certificate asked for breaks the profile: {0}")]
    Profile(#[from] IdentityError),
    #[error("--days: must be at least 1 and end before the year 9999; {0} is not")]
    Days(u32),
    #[error("no date: {0} seconds after 1970")]
    Time(i64),
    #[error("the root's validity has ended")]
    RootExpired,
    #[error("--dns: {0:?} is no DNS name, such as peer0.hospital-a.example")]
    Dns(String),
    #[error("--serial: nothing was issued with the number {0}")]
    UnknownSerial(String),
    #[error("--name: nothing was issued to {0:?}")]
    UnknownName(String),
    #[error("making the certificate: {0}")]
    Rcgen(#[from] rcgen::Error),
}

fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |cause| Error::File { doing, path, cause }
}
