//! Who we are, who our members are, and who is calling.
//!
//! An identity is a directory with `cert.pem` and `key.pem` (PKCS#8; P-256 or Ed25519): one key for
//! TLS and for the ledger's signatures. The X.509 profile itself is `protocol::identity`'s.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Extensions;
use protocol::hash::Hasher;
use protocol::identity::{Certificate, IdentityError, Members, Root};
use protocol::signature::{SignatureError, SigningKey};
use protocol::{Digest, ledger};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::problem::{Code, Problem};

pub use protocol::identity::Role;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {cause}", file.display())]
    Read { file: PathBuf, cause: std::io::Error },
    #[error("{}: {cause}", file.display())]
    Certificate { file: PathBuf, cause: IdentityError },
    #[error("{}: {cause}", file.display())]
    Key { file: PathBuf, cause: SignatureError },
    #[error("{}: not PEM with one PKCS#8 private key", file.display())]
    KeyPem { file: PathBuf },
    #[error("{}: the key is not the certificate's", directory.display())]
    KeyMismatch { directory: PathBuf },
    #[error("{}: a {wanted}'s certificate has the role {wanted}, this one has {found}", directory.display())]
    Role {
        directory: PathBuf,
        wanted: Role,
        found: Role,
    },
    #[error("the members' roots: {0}")]
    Members(#[from] IdentityError),
}

/// A certificate and its private key.
pub struct Identity {
    pub certificate: Certificate,
    pub signing_key: SigningKey,
    key_pkcs8: Vec<u8>,
}

impl Identity {
    /// Reads `cert.pem` and `key.pem`.
    pub fn load(directory: &Path) -> Result<Self, Error> {
        let file = directory.join("cert.pem");
        let certificate = Certificate::parse_pem(&read(&file)?).map_err(|cause| Error::Certificate { file, cause })?;
        let file = directory.join("key.pem");
        let key_pkcs8 = match pem::parse_many(read(&file)?) {
            Ok(blocks) if blocks.len() == 1 && blocks[0].tag() == "PRIVATE KEY" => blocks[0].contents().to_vec(),
            _ => return Err(Error::KeyPem { file }),
        };
        let signing_key = SigningKey::from_pkcs8(&key_pkcs8).map_err(|cause| Error::Key { file, cause })?;
        if signing_key.public_key().ok().as_ref() != Some(&certificate.public_key) {
            return Err(Error::KeyMismatch {
                directory: directory.to_owned(),
            });
        }
        Ok(Self {
            certificate,
            signing_key,
            key_pkcs8,
        })
    }

    /// Reads one that has this role.
    pub fn load_as(wanted: Role, directory: &Path) -> Result<Self, Error> {
        let identity = Self::load(directory)?;
        match identity.certificate.role {
            found if found == wanted => Ok(identity),
            found => Err(Error::Role {
                directory: directory.to_owned(),
                wanted,
                found,
            }),
        }
    }

    /// How signatures cite this identity.
    pub fn hash(&self) -> Digest {
        self.certificate.hash
    }

    pub fn msp_id(&self) -> &str {
        &self.certificate.msp_id
    }

    pub fn certificate_der(&self) -> &[u8] {
        self.certificate.der()
    }

    pub(crate) fn tls_chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from(self.certificate.der().to_vec())]
    }

    pub(crate) fn tls_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_pkcs8.clone()))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Certificate {
            msp_id,
            role,
            common_name,
            ..
        } = &self.certificate;
        write!(f, "Identity({common_name}, {role} of {msp_id})")
    }
}

/// The members by the `*.pem` files of a directory, one root each.
pub fn load_roots(directory: &Path) -> Result<Members, Error> {
    let error = |cause| Error::Read {
        file: directory.to_owned(),
        cause,
    };
    let mut organisations = BTreeMap::new();
    for entry in std::fs::read_dir(directory).map_err(error)? {
        let file = entry.map_err(error)?.path();
        if file.extension().is_none_or(|extension| extension != "pem") {
            continue;
        }
        let root = Root::parse_pem(&read(&file)?).map_err(|cause| Error::Certificate { file, cause })?;
        let organisation = ledger::Organisation {
            msp_id: root.msp_id.clone(),
            root_certificate: root.der().to_vec(),
            ..Default::default()
        };
        organisations.insert(root.msp_id, organisation);
    }
    let organisations: Vec<_> = organisations.into_values().collect();
    Ok(Members::new(&organisations)?)
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|cause| Error::Read {
        file: file.to_owned(),
        cause,
    })
}

/// Who is at the other end of a connection: a certificate that was verified at the handshake.
///
/// Every request carries it as `Arc<Caller>` in its extensions; see [`Caller::of`].
#[derive(Clone, Debug)]
pub struct Caller {
    certificate: Certificate,
    account: Digest,
}

impl Caller {
    /// The certificate must have been verified.
    pub fn new(certificate: Certificate) -> Self {
        let account = Hasher::new("medledger account")
            .bytes(certificate.msp_id.as_bytes())
            .bytes(certificate.role.word().as_bytes())
            .bytes(certificate.common_name.as_bytes())
            .finish();
        Self { certificate, account }
    }

    /// Whom quotas, gates and connections are charged to: organisation, role and common name. An identity that has
    /// its certificate renewed, issued twice or encoded otherwise keeps one share.
    pub fn account(&self) -> Digest {
        self.account
    }

    /// The caller of this request (`request.extensions()`).
    pub fn of(extensions: &Extensions) -> Result<Arc<Caller>, Problem> {
        extensions
            .get::<Arc<Caller>>()
            .cloned()
            .ok_or_else(|| Problem::new(Code::Unauthenticated, ""))
    }

    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

impl Deref for Caller {
    type Target = Certificate;

    fn deref(&self) -> &Certificate {
        &self.certificate
    }
}

#[cfg(test)]
mod tests {
    use protocol::testing::{Issue, Keys, TestOrganisation};

    use super::*;

    #[test]
    fn an_identity_has_one_account_whatever_its_certificates() {
        let [hospital, relief] = ["HospitalA", "ReliefOrg"].map(|name| TestOrganisation::new(1, name, Keys::P256));
        let account = |organisation: &TestOrganisation, role, name: &str| {
            let issued = organisation.issue(role, name, Issue::default());
            let certificate = issued.certificate.clone();
            (certificate.identity, Caller::new(certificate).account())
        };
        let (one, first) = account(&hospital, Role::Client, "anna");
        let (other, second) = account(&hospital, Role::Client, "anna");
        assert_ne!(one, other, "two certificates");
        assert_eq!(first, second);
        for (organisation, role, name) in [
            (&hospital, Role::Client, "ann"),
            (&hospital, Role::Peer, "anna"),
            (&relief, Role::Client, "anna"),
        ] {
            assert_ne!(account(organisation, role, name).1, first);
        }
    }
}
