//! Certificate authorities and identities of test organisations.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};

use super::derive;
use crate::{
    hash::Digest,
    identity::{ATTRIBUTES_OID, Attributes, Certificate, Role, encode_attributes},
    ledger::Signature,
    signature::{Purpose, SigningKey, sign},
};

/// Unix seconds of 2020-01-01 and 2049-12-31: test identities are valid unless a test says otherwise.
const NOT_BEFORE: i64 = 1_577_836_800;
const NOT_AFTER: i64 = 2_524_521_600;

/// What keys identities have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keys {
    /// Follow from the seed, as do all signatures.
    #[default]
    Ed25519,
    /// Random, as the product's default.
    P256,
}

/// What stands in an issued certificate beside name and role.
#[derive(Clone, Debug)]
pub struct Issue {
    pub attributes: Attributes,
    /// Unix seconds.
    pub not_before: i64,
    pub not_after: i64,
    /// DNS names and IP addresses.
    pub names: Vec<String>,
}

impl Default for Issue {
    fn default() -> Self {
        Issue {
            attributes: Attributes::new(),
            not_before: NOT_BEFORE,
            not_after: NOT_AFTER,
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        }
    }
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct TestIdentity {
    pub certificate: Certificate,
    pub key: Arc<SigningKey>,
    /// The private key, PKCS#8 DER.
    pub pkcs8: Vec<u8>,
}

impl TestIdentity {
    pub fn der(&self) -> &[u8] {
        self.certificate.der()
    }

    pub fn hash(&self) -> Digest {
        self.certificate.hash
    }

    /// A batch of one.
    pub fn sign(&self, purpose: Purpose, channel: &Digest, content: &[u8]) -> Signature {
        self.sign_all(purpose, channel, &[content]).remove(0)
    }

    /// All under as few roots as possible.
    pub fn sign_all(&self, purpose: Purpose, channel: &Digest, contents: &[impl AsRef<[u8]>]) -> Vec<Signature> {
        sign(&self.key, &self.hash(), purpose, channel, contents).expect("a test key signs")
    }

    pub fn certificate_pem(&self) -> String {
        pem::encode(&pem::Pem::new("CERTIFICATE", self.der()))
    }

    pub fn key_pem(&self) -> String {
        pem::encode(&pem::Pem::new("PRIVATE KEY", self.pkcs8.clone()))
    }

    /// `cert.pem` and `key.pem`, as every process reads its identity.
    pub fn write(&self, directory: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(directory)?;
        std::fs::write(directory.join("cert.pem"), self.certificate_pem())?;
        std::fs::write(directory.join("key.pem"), self.key_pem())
    }
}

/// An organisation with its certificate authority.
pub struct TestOrganisation {
    pub msp_id: String,
    seed: u64,
    keys: Keys,
    root: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    identities: BTreeMap<String, TestIdentity>,
}

impl TestOrganisation {
    pub fn new(seed: u64, msp_id: &str, keys: Keys) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, msp_id);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{msp_id} root"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (unix(NOT_BEFORE), unix(NOT_AFTER));
        params.serial_number = Some(SerialNumber::from_slice(&serial_of(seed, msp_id, "root")));
        let key = key_pair(&pkcs8(keys, seed, &format!("{msp_id} root")));
        let root = params.self_signed(&key).expect("a root").der().to_vec();
        let issuer = Issuer::new(params, key);
        let mut organisation = TestOrganisation {
            msp_id: msp_id.to_owned(),
            seed,
            keys,
            root,
            issuer,
            identities: BTreeMap::new(),
        };
        let usual = [
            ("admin", Role::Admin),
            ("peer0", Role::Peer),
            ("peer1", Role::Peer),
            ("orderer0", Role::Orderer),
            ("client0", Role::Client),
            ("client1", Role::Client),
            ("attester", Role::Peer),
            ("worker0", Role::Worker),
        ];
        for (name, role) in usual {
            let identity = organisation.issue(role, name, Issue::default());
            organisation.identities.insert(name.to_owned(), identity);
        }
        organisation
    }

    /// One of the usual identities.
    pub fn identity(&self, name: &str) -> &TestIdentity {
        self.identities
            .get(name)
            .unwrap_or_else(|| panic!("{name} is no usual identity of {}", self.msp_id))
    }

    /// The root certificate, DER.
    pub fn root_der(&self) -> &[u8] {
        &self.root
    }

    pub fn root_pem(&self) -> String {
        pem::encode(&pem::Pem::new("CERTIFICATE", self.root_der()))
    }

    /// Another identity. The same name gives the same key, if keys follow from the seed.
    pub fn issue(&self, role: Role, name: &str, issue: Issue) -> TestIdentity {
        let mut params = CertificateParams::new(issue.names).expect("names");
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, self.msp_id.as_str());
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, role.word());
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (unix(issue.not_before), unix(issue.not_after));
        params.serial_number = Some(SerialNumber::from_slice(&serial_of(self.seed, &self.msp_id, name)));
        if !issue.attributes.is_empty() {
            let value = encode_attributes(&issue.attributes).expect("attributes");
            params
                .custom_extensions
                .push(CustomExtension::from_oid_content(&ATTRIBUTES_OID, value));
        }
        let pkcs8 = pkcs8(self.keys, self.seed, &format!("{} {name}", self.msp_id));
        let certificate = params
            .signed_by(&key_pair(&pkcs8), &self.issuer)
            .expect("a certificate");
        TestIdentity {
            certificate: Certificate::parse(certificate.der()).expect("in the profile"),
            key: Arc::new(SigningKey::from_pkcs8(&pkcs8).expect("a key")),
            pkcs8,
        }
    }

    /// A revocation list of these identities, DER.
    pub fn crl(&self, revoked: &[&TestIdentity]) -> Vec<u8> {
        let revoked_certs = revoked.iter().map(|identity| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&identity.certificate.serial),
            revocation_time: unix(NOT_BEFORE),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: unix(NOT_BEFORE),
            next_update: unix(NOT_AFTER),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a list").der().to_vec()
    }
}

/// The serial number that an identity gets: known before it is issued, for revocations in a genesis.
pub fn serial_of(seed: u64, msp_id: &str, name: &str) -> Vec<u8> {
    let mut serial = derive(seed, &format!("serial {msp_id} {name}"))[..16].to_vec();
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

fn unix(seconds: i64) -> time::OffsetDateTime {
    date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).expect("after 1970"))
}

fn pkcs8(keys: Keys, seed: u64, label: &str) -> Vec<u8> {
    match keys {
        Keys::Ed25519 => {
            let pair = Ed25519KeyPair::from_seed_unchecked(&derive(seed, label)).expect("a seed");
            pair.to_pkcs8().expect("a key").as_ref().to_vec()
        }
        Keys::P256 => {
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
            document.expect("a key").as_ref().to_vec()
        }
    }
}

fn key_pair(pkcs8: &[u8]) -> KeyPair {
    KeyPair::try_from(pkcs8).expect("PKCS#8")
}
