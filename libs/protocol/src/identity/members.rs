//! The organisations of a config, and whether a certificate is one of theirs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Certificate, Crl, IdentityError, Root, is_msp_id, profile::serial};
use crate::{canonical::ascending, ledger};

/// One organisation as a config has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msp {
    pub msp_id: String,
    pub root: Root,
    /// Serial numbers that the ledger revokes, without leading zeros.
    pub revoked: BTreeSet<Vec<u8>>,
}

impl Msp {
    /// Whether this organisation issued the certificate and has not revoked it on the ledger.
    pub fn verify(&self, certificate: &Certificate) -> Result<(), IdentityError> {
        if certificate.msp_id != self.msp_id {
            return Err(IdentityError::NotMember);
        }
        if certificate.signed.issuer() != self.root.subject() {
            return Err(IdentityError::Issuer);
        }
        if !certificate.signed.is_by(&self.root.public_key) {
            return Err(IdentityError::Signature);
        }
        if self.revoked.contains(&certificate.serial) {
            return Err(IdentityError::Revoked);
        }
        Ok(())
    }
}

/// The organisations of a config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(BTreeMap<String, Msp>);

impl Members {
    /// Checks every root, and that no two organisations could issue for each other.
    pub fn new(organisations: &[ledger::Organisation]) -> Result<Self, IdentityError> {
        if !ascending(organisations, |organisation| organisation.msp_id.as_str()) {
            return Err(IdentityError::OrganisationOrder);
        }
        let mut members = BTreeMap::new();
        let mut keys = BTreeSet::new();
        for organisation in organisations {
            let msp = msp(organisation)?;
            if !keys.insert(msp.root.public_key.as_bytes().to_vec()) {
                return Err(IdentityError::RootShared(msp.msp_id));
            }
            members.insert(msp.msp_id.clone(), msp);
        }
        Ok(Members(members))
    }

    /// The organisation that issued the certificate, unless it is no member or revoked it.
    ///
    /// Costs one signature check; callers remember the answer by [`Certificate::hash`] for as long
    /// as the config is in force.
    pub fn verify(&self, certificate: &Certificate) -> Result<&Msp, IdentityError> {
        let msp = self.0.get(&certificate.msp_id).ok_or(IdentityError::NotMember)?;
        msp.verify(certificate).map(|()| msp)
    }

    /// Parses and verifies.
    pub fn verify_der(&self, der: &[u8]) -> Result<Certificate, IdentityError> {
        let certificate = Certificate::parse(der)?;
        self.verify(&certificate)?;
        Ok(certificate)
    }

    /// A revocation list in DER or PEM of whichever member signed it.
    pub fn crl(&self, bytes: &[u8]) -> Result<Crl, IdentityError> {
        // One of at most a hundred: lists are read at start and when their file changes.
        let mut answer = Err(IdentityError::CrlIssuer);
        for msp in self.0.values() {
            match Crl::parse(bytes, &msp.root) {
                Err(IdentityError::CrlIssuer) => {}
                other => {
                    answer = other;
                    break;
                }
            }
        }
        answer
    }

    pub fn get(&self, msp_id: &str) -> Option<&Msp> {
        self.0.get(msp_id)
    }

    /// Ascending.
    pub fn msp_ids(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Msp> {
        self.0.values()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn msp(organisation: &ledger::Organisation) -> Result<Msp, IdentityError> {
    let msp_id = organisation.msp_id.clone();
    if !is_msp_id(&msp_id) {
        return Err(IdentityError::MspId);
    }
    let root = Root::parse(&organisation.root_certificate)?;
    if root.msp_id != msp_id {
        return Err(IdentityError::RootOrganisation(msp_id));
    }
    // Bytes without leading zeros have a first bit that may be set; as a number they are positive.
    let positive = |bytes: &Vec<u8>| serial(&[&[0], bytes.as_slice()].concat()).is_ok_and(|serial| serial == *bytes);
    if !ascending(&organisation.revoked, |serial| serial.as_slice()) || !organisation.revoked.iter().all(positive) {
        return Err(IdentityError::RevokedOrder(msp_id));
    }
    Ok(Msp {
        msp_id,
        root,
        revoked: organisation.revoked.iter().cloned().collect(),
    })
}
