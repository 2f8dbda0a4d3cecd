//! A leaf: an identity of an organisation.

use std::collections::BTreeMap;

use x509_parser::oid_registry::{Oid, asn1_rs::oid};

use super::{
    ATTRIBUTE_VALUE_BYTES_MAX, ATTRIBUTES_MAX, IdentityError, Role, is_attribute_name,
    profile::{self, Signed, der_header},
};
use crate::{
    hash::{Digest, sha256},
    signature::PublicKey,
};

/// Practitioner role, facility and the like; what contracts may decide by.
pub type Attributes = BTreeMap<String, String>;

/// 1.3.6.1.4.1.59999.1: a DER UTF8String holding a JSON object of strings, names ascending.
pub const ATTRIBUTES_OID: [u64; 8] = [1, 3, 6, 1, 4, 1, 59999, 1];

/// A parsed leaf that keeps the profile by itself. Whether a member issued it says
/// [`super::Members::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of the DER: how everything cites a certificate.
    pub hash: Digest,
    /// SHA-256 of the signed part: how policies count certificates.
    pub identity: Digest,
    pub msp_id: String,
    pub role: Role,
    pub common_name: String,
    pub attributes: Attributes,
    pub public_key: PublicKey,
    /// Big-endian, without leading zeros.
    pub serial: Vec<u8>,
    /// Unix seconds.
    pub not_before: i64,
    pub not_after: i64,
    pub(super) signed: Signed,
}

impl Certificate {
    pub fn parse(der: &[u8]) -> Result<Self, IdentityError> {
        let common = profile::common(der)?;
        let tbs = &common.x509.tbs_certificate;
        // A root has no role in its subject either; say the more helpful thing first.
        if profile::basic_constraints(&common.x509).0 {
            return Err(IdentityError::IsCa);
        }
        let subject = profile::subject(&tbs.subject, "O, OU and CN")?;
        let unit = subject.unit.ok_or(IdentityError::Subject("O, OU and CN"))?;
        let role = unit.parse()?;
        match profile::key_usage(&common.x509) {
            Some(usage) if usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign() => {}
            _ => return Err(IdentityError::KeyUsage),
        }
        let oid = attributes_oid();
        let attributes = match tbs.extensions().iter().find(|extension| extension.oid == oid) {
            Some(extension) => decode_attributes(extension.value)?,
            None => Attributes::new(),
        };
        Ok(Certificate {
            hash: sha256(der),
            identity: sha256(common.signed.content()),
            msp_id: subject.msp_id,
            role,
            common_name: subject.common_name,
            attributes,
            public_key: common.public_key,
            serial: common.serial,
            not_before: common.not_before,
            not_after: common.not_after,
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

    /// Both ends included, as in RFC 5280. The caller brings the clock.
    pub fn valid_at(&self, unix_s: i64) -> bool {
        (self.not_before..=self.not_after).contains(&unix_s)
    }
}

pub(super) fn attributes_oid() -> Oid<'static> {
    oid!(1.3.6.1.4.1.59999.1)
}

/// The value of the attributes extension, for those who issue certificates.
pub fn encode_attributes(attributes: &Attributes) -> Result<Vec<u8>, IdentityError> {
    check_attributes(attributes)?;
    let json = serde_json::to_vec(attributes).map_err(|_| IdentityError::Attributes("a JSON object of strings"))?;
    let mut out = Vec::with_capacity(json.len() + 4);
    der_header(0x0c, json.len(), &mut out);
    out.extend_from_slice(&json);
    Ok(out)
}

/// Accepts exactly what [`encode_attributes`] gives.
fn decode_attributes(value: &[u8]) -> Result<Attributes, IdentityError> {
    let wrong = IdentityError::Attributes("a UTF8String of a JSON object of strings, names ascending, without blanks");
    // The encoding is compared below, so the header needs no checks of its own here.
    let json = value.iter().position(|byte| *byte == b'{').map(|start| &value[start..]);
    let Some(attributes) = json.and_then(|json| serde_json::from_slice::<Attributes>(json).ok()) else {
        return Err(wrong);
    };
    if encode_attributes(&attributes)? == value {
        Ok(attributes)
    } else {
        Err(wrong)
    }
}

fn check_attributes(attributes: &Attributes) -> Result<(), IdentityError> {
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(IdentityError::Attributes("at most 32"));
    }
    if !attributes.keys().all(|name| is_attribute_name(name)) {
        return Err(IdentityError::Attributes("named [A-Za-z0-9][A-Za-z0-9_.-]{0,63}"));
    }
    let fits = |value: &String| value.len() <= ATTRIBUTE_VALUE_BYTES_MAX && !value.chars().any(char::is_control);
    if !attributes.values().all(fits) {
        return Err(IdentityError::Attributes(
            "of at most 256 bytes each, without control characters",
        ));
    }
    Ok(())
}
