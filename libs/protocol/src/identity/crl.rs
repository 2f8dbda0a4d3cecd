//! An organisation's revocation list: acts at TLS, gateway, endorser and admission, at once and
//! off the ledger. `validate` does not know it.

use std::collections::BTreeSet;

use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList, x509::X509Version};

use super::{
    CRL_BYTES_MAX, Certificate, IdentityError, Root,
    profile::{self, SignatureAlgorithm},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crl {
    /// The organisation whose root signed it.
    pub msp_id: String,
    /// Without leading zeros, as in [`Certificate::serial`].
    pub serials: BTreeSet<Vec<u8>>,
    /// Unix seconds.
    pub this_update: i64,
    pub next_update: Option<i64>,
}

impl Crl {
    /// DER, or PEM with exactly one list; signed by `root`.
    pub fn parse(bytes: &[u8], root: &Root) -> Result<Self, IdentityError> {
        if bytes.len() > CRL_BYTES_MAX {
            return Err(IdentityError::CrlMalformed);
        }
        if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
            Self::parse_der(&profile::from_pem(bytes, "X509 CRL")?, root)
        } else {
            Self::parse_der(bytes, root)
        }
    }

    fn parse_der(der: &[u8], root: &Root) -> Result<Self, IdentityError> {
        let (rest, list) = CertificateRevocationList::from_der(der).map_err(|_| IdentityError::CrlMalformed)?;
        let tbs = &list.tbs_cert_list;
        if !rest.is_empty() || tbs.version != Some(X509Version::V2) {
            return Err(IdentityError::CrlMalformed);
        }
        if tbs.issuer.as_raw() != root.subject() {
            return Err(IdentityError::CrlIssuer);
        }
        if !root.signs_lists() {
            return Err(IdentityError::CrlKeyUsage);
        }
        let algorithm = SignatureAlgorithm::of(&list.signature_algorithm)?;
        if SignatureAlgorithm::of(&tbs.signature)? != algorithm {
            return Err(IdentityError::SignatureAlgorithmMismatch);
        }
        if !algorithm.verifies(&root.public_key, tbs.as_ref(), &list.signature_value.data) {
            return Err(IdentityError::CrlSignature);
        }
        // A critical extension narrows what the list speaks of; none is expected here.
        let entries = tbs.revoked_certificates.iter().flat_map(|entry| entry.extensions());
        if tbs
            .extensions()
            .iter()
            .chain(entries)
            .any(|extension| extension.critical)
        {
            return Err(IdentityError::CrlExtension);
        }
        let serials = tbs
            .revoked_certificates
            .iter()
            .map(|entry| profile::serial(entry.raw_serial()));
        Ok(Crl {
            msp_id: root.msp_id.clone(),
            serials: serials.collect::<Result<_, _>>()?,
            this_update: tbs.this_update.timestamp(),
            next_update: tbs.next_update.map(|time| time.timestamp()),
        })
    }

    /// Whether the list revokes this certificate of its organisation.
    pub fn revokes(&self, certificate: &Certificate) -> bool {
        certificate.msp_id == self.msp_id && self.serials.contains(&certificate.serial)
    }
}
