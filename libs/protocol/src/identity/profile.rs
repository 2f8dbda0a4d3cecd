//! The rules that roots and leaves share, and the parts of a certificate that both keep.

use std::ops::Range;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{ParsedExtension, X509Extension},
    oid_registry::{
        OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ED25519, OID_X509_COMMON_NAME, OID_X509_EXT_BASIC_CONSTRAINTS,
        OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE, OID_X509_EXT_SUBJECT_ALT_NAME,
        OID_X509_ORGANIZATION_NAME, OID_X509_ORGANIZATIONAL_UNIT, Oid, asn1_rs::Tag,
    },
    prelude::{FromDer, KeyUsage},
    x509::{AlgorithmIdentifier, SubjectPublicKeyInfo, X509Name, X509Version},
};

use super::{IdentityError, SERIAL_BYTES_MAX, certificate::attributes_oid, is_common_name, is_msp_id};
use crate::{limits::CERTIFICATE_BYTES_MAX, signature::PublicKey};

/// SubjectPublicKeyInfo up to the key itself: each kind of key has exactly one encoding.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// AlgorithmIdentifiers, whole.
const ECDSA_WITH_SHA256: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ED25519_ALGORITHM: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureAlgorithm {
    EcdsaSha256,
    Ed25519,
}

impl SignatureAlgorithm {
    pub(super) fn of(identifier: &AlgorithmIdentifier<'_>) -> Result<Self, IdentityError> {
        if identifier.parameters.is_some() {
            return Err(IdentityError::SignatureAlgorithm);
        }
        match &identifier.algorithm {
            oid if *oid == OID_SIG_ECDSA_WITH_SHA256 => Ok(SignatureAlgorithm::EcdsaSha256),
            oid if *oid == OID_SIG_ED25519 => Ok(SignatureAlgorithm::Ed25519),
            _ => Err(IdentityError::SignatureAlgorithm),
        }
    }

    fn der(self) -> &'static [u8] {
        match self {
            SignatureAlgorithm::EcdsaSha256 => &ECDSA_WITH_SHA256,
            SignatureAlgorithm::Ed25519 => &ED25519_ALGORITHM,
        }
    }

    /// Whether `key` made `signature` over `message`, with the algorithm that fits the key.
    pub(super) fn verifies(self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        let bytes = key.as_bytes();
        match (self, key) {
            (SignatureAlgorithm::EcdsaSha256, PublicKey::P256(_)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, bytes)
                    .verify(message, signature)
                    .is_ok()
            }
            (SignatureAlgorithm::Ed25519, PublicKey::Ed25519(_)) => UnparsedPublicKey::new(&ED25519, bytes)
                .verify(message, signature)
                .is_ok(),
            _ => false,
        }
    }
}

/// What an issuer signed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signed {
    der: Vec<u8>,
    content: Range<usize>,
    signature: Range<usize>,
    algorithm: SignatureAlgorithm,
    issuer: Vec<u8>,
}

impl Signed {
    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.der[self.content.clone()]
    }

    /// The issuer's name in DER.
    pub(super) fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    pub(super) fn is_by(&self, key: &PublicKey) -> bool {
        self.algorithm
            .verifies(key, self.content(), &self.der[self.signature.clone()])
    }
}

/// Fields that roots and leaves have in common, each checked.
pub(super) struct Common<'a> {
    pub(super) x509: X509Certificate<'a>,
    pub(super) signed: Signed,
    pub(super) public_key: PublicKey,
    pub(super) serial: Vec<u8>,
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

pub(super) fn common(der: &[u8]) -> Result<Common<'_>, IdentityError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(IdentityError::TooLarge);
    }
    let (rest, x509) = X509Certificate::from_der(der).map_err(|_| IdentityError::NotDer)?;
    if !rest.is_empty() {
        return Err(IdentityError::TrailingBytes);
    }
    let tbs = &x509.tbs_certificate;
    if tbs.version != X509Version::V3 {
        return Err(IdentityError::Version);
    }
    let serial = serial(tbs.raw_serial())?;
    let signed = signed(der, &x509)?;
    if tbs.issuer_uid.is_some() || tbs.subject_uid.is_some() {
        return Err(IdentityError::UniqueId);
    }
    let (not_before, not_after) = (tbs.validity.not_before.timestamp(), tbs.validity.not_after.timestamp());
    if not_after < not_before {
        return Err(IdentityError::Validity);
    }
    let public_key = public_key(&tbs.subject_pki)?;
    check_extensions(tbs.extensions())?;
    Ok(Common {
        signed,
        public_key,
        serial,
        not_before,
        not_after,
        x509,
    })
}

/// A positive number's bytes, big-endian, without leading zeros: as the ledger and lists name it.
pub(super) fn serial(raw: &[u8]) -> Result<Vec<u8>, IdentityError> {
    let negative = raw.first().is_none_or(|first| first & 0x80 != 0);
    let digits: Vec<u8> = raw.iter().copied().skip_while(|byte| *byte == 0).collect();
    if negative || digits.is_empty() || digits.len() > SERIAL_BYTES_MAX {
        return Err(IdentityError::Serial);
    }
    Ok(digits)
}

/// Checks that what lies around the signed part is encoded in the only way there is: outside of
/// the signed part a holder could change bytes and keep the signature.
fn signed(der: &[u8], x509: &X509Certificate<'_>) -> Result<Signed, IdentityError> {
    let algorithm = SignatureAlgorithm::of(&x509.signature_algorithm)?;
    if SignatureAlgorithm::of(&x509.tbs_certificate.signature)? != algorithm {
        return Err(IdentityError::SignatureAlgorithmMismatch);
    }
    let content: &[u8] = x509.tbs_certificate.as_ref();
    let signature: &[u8] = &x509.signature_value.data;
    let mut body = Vec::with_capacity(der.len());
    body.extend_from_slice(content);
    body.extend_from_slice(algorithm.der());
    der_header(0x03, signature.len() + 1, &mut body);
    body.push(0);
    body.extend_from_slice(signature);
    let mut whole = Vec::with_capacity(der.len());
    der_header(0x30, body.len(), &mut whole);
    let start = whole.len();
    whole.extend_from_slice(&body);
    if whole != der {
        return Err(IdentityError::Encoding);
    }
    let end = whole.len();
    Ok(Signed {
        content: start..start + content.len(),
        signature: end - signature.len()..end,
        algorithm,
        issuer: x509.tbs_certificate.issuer.as_raw().to_vec(),
        der: whole,
    })
}

/// Tag and length as DER has them. Callers' lengths are bounded by the size of a certificate.
pub(super) fn der_header(tag: u8, len: usize, out: &mut Vec<u8>) {
    out.push(tag);
    match len {
        0..=0x7f => out.push(len as u8),
        0x80..=0xff => out.extend_from_slice(&[0x81, len as u8]),
        _ => out.extend_from_slice(&[0x82, (len >> 8) as u8, len as u8]),
    }
}

fn public_key(info: &SubjectPublicKeyInfo<'_>) -> Result<PublicKey, IdentityError> {
    let key = if let Some(point) = info.raw.strip_prefix(&P256_PREFIX) {
        PublicKey::p256(point)
    } else if let Some(point) = info.raw.strip_prefix(&ED25519_PREFIX) {
        PublicKey::ed25519(point)
    } else {
        return Err(IdentityError::PublicKey);
    };
    key.map_err(|_| IdentityError::PublicKey)
}

fn check_extensions(extensions: &[X509Extension<'_>]) -> Result<(), IdentityError> {
    let attributes = attributes_oid();
    for (i, extension) in extensions.iter().enumerate() {
        if extensions[..i].iter().any(|earlier| earlier.oid == extension.oid) {
            return Err(IdentityError::DuplicateExtension);
        }
        let understood = [
            &OID_X509_EXT_BASIC_CONSTRAINTS,
            &OID_X509_EXT_KEY_USAGE,
            &OID_X509_EXT_EXTENDED_KEY_USAGE,
            &OID_X509_EXT_SUBJECT_ALT_NAME,
            &attributes,
        ];
        if extension.critical && !understood.contains(&&extension.oid) {
            return Err(IdentityError::CriticalExtension);
        }
        if extension.parsed_extension().error().is_some() {
            return Err(IdentityError::Extension(name_of(&extension.oid)));
        }
    }
    Ok(())
}

fn name_of(oid: &Oid<'_>) -> &'static str {
    match oid {
        oid if *oid == OID_X509_EXT_BASIC_CONSTRAINTS => "basicConstraints",
        oid if *oid == OID_X509_EXT_KEY_USAGE => "keyUsage",
        oid if *oid == OID_X509_EXT_EXTENDED_KEY_USAGE => "extKeyUsage",
        oid if *oid == OID_X509_EXT_SUBJECT_ALT_NAME => "subjectAltName",
        _ => "(not one of ours)",
    }
}

pub(super) fn key_usage(x509: &X509Certificate<'_>) -> Option<KeyUsage> {
    x509.extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::KeyUsage(usage) => Some(*usage),
            _ => None,
        })
}

/// (is CA, path length)
pub(super) fn basic_constraints(x509: &X509Certificate<'_>) -> (bool, Option<u32>) {
    x509.extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => Some((constraints.ca, constraints.path_len_constraint)),
            _ => None,
        })
        .unwrap_or((false, None))
}

/// O, OU and CN of a subject that holds nothing else and none of them twice.
pub(super) struct Subject {
    pub(super) msp_id: String,
    pub(super) unit: Option<String>,
    pub(super) common_name: String,
}

/// `expected` names the allowed fields for the error.
pub(super) fn subject(name: &X509Name<'_>, expected: &'static str) -> Result<Subject, IdentityError> {
    let wrong = || IdentityError::Subject(expected);
    let (mut organisation, mut unit, mut common_name) = (None, None, None);
    for rdn in name.iter_rdn() {
        let mut attributes = rdn.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return Err(wrong());
        };
        let slot = match attribute.attr_type() {
            oid if *oid == OID_X509_ORGANIZATION_NAME => &mut organisation,
            oid if *oid == OID_X509_ORGANIZATIONAL_UNIT => &mut unit,
            oid if *oid == OID_X509_COMMON_NAME => &mut common_name,
            _ => return Err(wrong()),
        };
        if !matches!(attribute.attr_value().tag(), Tag::Utf8String | Tag::PrintableString) {
            return Err(wrong());
        }
        let text = attribute.as_str().map_err(|_| wrong())?.to_owned();
        if slot.replace(text).is_some() {
            return Err(wrong());
        }
    }
    let (Some(msp_id), Some(common_name)) = (organisation, common_name) else {
        return Err(wrong());
    };
    if !is_msp_id(&msp_id) {
        return Err(IdentityError::MspId);
    }
    if !is_common_name(&common_name) {
        return Err(IdentityError::CommonName);
    }
    Ok(Subject {
        msp_id,
        unit,
        common_name,
    })
}

/// The DER of the one PEM block in `text`.
pub(super) fn from_pem(text: &[u8], tag: &'static str) -> Result<Vec<u8>, IdentityError> {
    let mut blocks = pem::parse_many(text).map_err(|_| IdentityError::NotPem(tag))?;
    match (blocks.pop(), blocks.is_empty()) {
        (Some(block), true) if block.tag() == tag => Ok(block.into_contents()),
        _ => Err(IdentityError::NotPem(tag)),
    }
}
