//! Who signs: organisations, their certificates and the strict X.509 profile both must keep.
//!
//! ```text
//! Organisation (config) ── root: self-signed CA, O=<msp id>, CN=<name>
//!                            └─ leaf: O=<msp id>, OU=<role>, CN=<name>   nothing in between
//! ```
//!
//! [`Certificate::parse`] judges a leaf by itself, [`Members::verify`] against the organisations
//! of a config. Nothing here reads a clock or a file: `validate` asks exactly these questions, and
//! only the revocations on the ledger enter into its answer. Expiry ([`Certificate::valid_at`])
//! and revocation lists ([`Crl`]) are for those who stand at the door: TLS, gateway, endorser,
//! admission.
//!
//! Of one certificate more than one DER can be made by whoever holds it, because an ECDSA
//! signature (r, s) is as good as (r, n − s). So a certificate is *cited* by [`Certificate::hash`],
//! but policies *count* by [`Certificate::identity`], which covers only what the issuer signed.

mod certificate;
mod crl;
mod members;
mod profile;
mod root;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

pub use certificate::{ATTRIBUTES_OID, Attributes, Certificate, encode_attributes};
pub use crl::Crl;
pub use members::{Members, Msp};
pub use root::Root;

/// Pairs in a certificate's attributes extension.
pub const ATTRIBUTES_MAX: usize = 32;
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 64;
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = 256;
pub const MSP_ID_BYTES_MAX: usize = 64;
/// RFC 5280's upper bound of a common name.
pub const COMMON_NAME_BYTES_MAX: usize = 64;
/// RFC 5280's upper bound of a serial number.
pub const SERIAL_BYTES_MAX: usize = 20;
/// A revocation list of an organisation: some 20,000 entries.
pub const CRL_BYTES_MAX: usize = 1024 * 1024;

/// What an identity is, said by the `OU` of its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Admin,
    Peer,
    Orderer,
    Client,
    /// Serves its organisation's peers over TLS. Runs foreign code, so its signature counts nowhere.
    Worker,
}

impl Role {
    pub const ALL: [Role; 5] = [Role::Admin, Role::Peer, Role::Orderer, Role::Client, Role::Worker];

    pub fn word(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Peer => "peer",
            Role::Orderer => "orderer",
            Role::Client => "client",
            Role::Worker => "worker",
        }
    }

    /// Whether an identity of this role satisfies what a policy asks for.
    pub fn is(self, asked: PrincipalRole) -> bool {
        match asked {
            PrincipalRole::Member => self != Role::Worker,
            PrincipalRole::Is(role) => self == role,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    /// Exactly as in a certificate: lower case.
    fn from_str(word: &str) -> Result<Self, IdentityError> {
        Role::ALL
            .into_iter()
            .find(|role| role.word() == word)
            .ok_or(IdentityError::Role)
    }
}

/// What a policy asks for: one role, or any of the organisation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrincipalRole {
    Member,
    Is(Role),
}

impl PrincipalRole {
    pub fn word(self) -> &'static str {
        match self {
            PrincipalRole::Member => "member",
            PrincipalRole::Is(role) => role.word(),
        }
    }
}

impl fmt::Display for PrincipalRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for PrincipalRole {
    type Err = IdentityError;

    fn from_str(word: &str) -> Result<Self, IdentityError> {
        match word {
            "member" => Ok(PrincipalRole::Member),
            word => match word.parse()? {
                Role::Worker => Err(IdentityError::Role),
                role => Ok(PrincipalRole::Is(role)),
            },
        }
    }
}

/// `[A-Za-z0-9][A-Za-z0-9.-]{0,63}`: fits a policy's principal, a file name and a metric label.
pub fn is_msp_id(text: &str) -> bool {
    (1..=MSP_ID_BYTES_MAX).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
}

/// `[A-Za-z0-9][A-Za-z0-9_.-]{0,63}`
pub fn is_attribute_name(name: &str) -> bool {
    name.len() <= ATTRIBUTE_NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// What a person or process may be called: no control characters, no blanks around it.
pub fn is_common_name(name: &str) -> bool {
    (1..=COMMON_NAME_BYTES_MAX).contains(&name.len()) && name.trim() == name && !name.chars().any(char::is_control)
}

/// Each rule of the profile has its own error. None holds what a certificate says of a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("the certificate is larger than {} bytes", crate::limits::CERTIFICATE_BYTES_MAX)]
    TooLarge,
    #[error("not a certificate in DER")]
    NotDer,
    #[error("not PEM with exactly one {0}")]
    NotPem(&'static str),
    #[error("bytes follow the certificate")]
    TrailingBytes,
    #[error("the certificate's outer encoding is not the one that DER gives it")]
    Encoding,
    #[error("the certificate's version is not 3")]
    Version,
    #[error("the serial number is not positive or longer than {SERIAL_BYTES_MAX} bytes")]
    Serial,
    #[error("signed neither with ecdsa-with-SHA256 nor with Ed25519")]
    SignatureAlgorithm,
    #[error("the signature algorithms inside and outside of the signed part differ")]
    SignatureAlgorithmMismatch,
    #[error("the public key is neither P-256 (uncompressed) nor Ed25519")]
    PublicKey,
    #[error("the certificate ends before it begins")]
    Validity,
    #[error("unique identifiers of issuer or subject are not allowed")]
    UniqueId,
    #[error("the subject must hold {0}, each once, as UTF-8 or printable text, and nothing else")]
    Subject(&'static str),
    #[error("the organisation (O) is no MSP id: [A-Za-z0-9][A-Za-z0-9.-]{{0,63}}")]
    MspId,
    #[error("the role (OU) is none of admin, peer, orderer, client, worker")]
    Role,
    #[error("the common name (CN) must be 1 to {COMMON_NAME_BYTES_MAX} bytes without control characters")]
    CommonName,
    #[error("an extension occurs twice")]
    DuplicateExtension,
    #[error("a critical extension is unknown")]
    CriticalExtension,
    #[error("the extension {0} is malformed")]
    Extension(&'static str),
    #[error("a certificate authority is no identity")]
    IsCa,
    #[error("keyUsage must hold digitalSignature, and neither keyCertSign nor cRLSign")]
    KeyUsage,
    #[error("the attributes must be {0}")]
    Attributes(&'static str),

    #[error("the root is not issued by itself")]
    RootNotSelfIssued,
    #[error("the root's signature is not by its own key")]
    RootSignature,
    #[error("the root is no certificate authority (basicConstraints)")]
    RootNotCa,
    #[error("the root may not sign certificates (keyUsage keyCertSign)")]
    RootKeyUsage,
    #[error("the root's path length must be 0 or absent")]
    RootPathLength,

    #[error("{0}: the root belongs to another organisation")]
    RootOrganisation(String),
    #[error("{0}: the root's key is another organisation's as well")]
    RootShared(String),
    #[error("organisations must be in ascending order of their MSP ids, each once")]
    OrganisationOrder,
    #[error("{0}: revoked serial numbers must ascend and have no leading zeros")]
    RevokedOrder(String),
    #[error("the organisation is not a member")]
    NotMember,
    #[error("issued by another than the organisation's root")]
    Issuer,
    #[error("the signature is not by the organisation's root")]
    Signature,
    #[error("the certificate is revoked")]
    Revoked,

    #[error("not a revocation list of version 2 in DER or PEM")]
    CrlMalformed,
    #[error("the revocation list is of another issuer")]
    CrlIssuer,
    #[error("the root may not sign revocation lists (keyUsage cRLSign)")]
    CrlKeyUsage,
    #[error("the revocation list's signature is not by the organisation's root")]
    CrlSignature,
    #[error("the revocation list is partial or holds an unknown critical extension")]
    CrlExtension,
}
