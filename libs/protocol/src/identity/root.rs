//! An organisation's root: the one certificate authority between the config and its identities.

use super::{
    IdentityError,
    profile::{self, Signed},
};
use crate::signature::PublicKey;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    pub msp_id: String,
    pub common_name: String,
    pub public_key: PublicKey,
    /// Unix seconds. `validate` does not look at them.
    pub not_before: i64,
    pub not_after: i64,
    /// The subject's DER: what every leaf's issuer must equal.
    subject: Vec<u8>,
    signs_lists: bool,
    signed: Signed,
}

impl Root {
    /// Self-signed, CA, `keyCertSign`, path length 0 or absent, subject `O` and `CN`.
    pub fn parse(der: &[u8]) -> Result<Self, IdentityError> {
        let common = profile::common(der)?;
        let tbs = &common.x509.tbs_certificate;
        let subject = profile::subject(&tbs.subject, "O and CN")?;
        match profile::basic_constraints(&common.x509) {
            (false, _) => return Err(IdentityError::RootNotCa),
            (true, None | Some(0)) => {}
            (true, Some(_)) => return Err(IdentityError::RootPathLength),
        }
        if subject.unit.is_some() {
            return Err(IdentityError::Subject("O and CN"));
        }
        let usage = profile::key_usage(&common.x509).filter(|usage| usage.key_cert_sign());
        let usage = usage.ok_or(IdentityError::RootKeyUsage)?;
        if tbs.subject.as_raw() != common.signed.issuer() {
            return Err(IdentityError::RootNotSelfIssued);
        }
        if !common.signed.is_by(&common.public_key) {
            return Err(IdentityError::RootSignature);
        }
        Ok(Root {
            msp_id: subject.msp_id,
            common_name: subject.common_name,
            public_key: common.public_key,
            not_before: common.not_before,
            not_after: common.not_after,
            subject: tbs.subject.as_raw().to_vec(),
            signs_lists: usage.crl_sign(),
            signed: common.signed,
        })
    }

    /// PEM with exactly one certificate.
    pub fn parse_pem(text: &[u8]) -> Result<Self, IdentityError> {
        Self::parse(&profile::from_pem(text, "CERTIFICATE")?)
    }

    pub fn der(&self) -> &[u8] {
        self.signed.der()
    }

    pub(super) fn subject(&self) -> &[u8] {
        &self.subject
    }

    pub(super) fn signs_lists(&self) -> bool {
        self.signs_lists
    }
}
