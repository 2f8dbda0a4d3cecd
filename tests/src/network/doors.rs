//! Connections that should not be had: identities that no member issued, that have expired, that were
//! revoked, or that have another role than the one a service is for.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use medledger_cli::network::layout::Kind;
use protocol::{
    identity::{ATTRIBUTES_OID, Attributes, Certificate, Members, encode_attributes},
    ledger::Organisation,
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use service::{
    Identity, Role,
    tls::{Target, Trust},
};
use time::{Duration, OffsetDateTime};

use super::World;

/// A certificate authority of a test's own.
pub struct Issuing {
    pub msp_id: String,
    pub root_der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// When a certificate is valid, seen from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    Now,
    Over,
    NotYet,
}

impl Validity {
    fn span(self) -> (OffsetDateTime, OffsetDateTime) {
        let now = OffsetDateTime::now_utc();
        match self {
            Validity::Now => (now - Duration::hours(1), now + Duration::hours(1)),
            Validity::Over => (now - Duration::hours(2), now - Duration::hours(1)),
            Validity::NotYet => (now + Duration::hours(1), now + Duration::hours(2)),
        }
    }
}

impl Issuing {
    /// An organisation that no genesis names, whatever it calls itself.
    pub fn stranger(msp_id: &str) -> Issuing {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, msp_id);
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = Validity::Now.span();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let root_der = params.self_signed(&key).expect("a root").der().to_vec();
        Issuing {
            msp_id: msp_id.to_owned(),
            root_der,
            issuer: Issuer::new(params, key),
        }
    }

    /// A member's own authority, to issue what its command line would not.
    pub fn member(world: &World, msp_id: &str) -> Issuing {
        let directory = world.network.layout.authority(msp_id);
        let read = |file: &str| std::fs::read_to_string(directory.join(file)).expect("the authority's file");
        let root = pem::parse(read("root.pem")).expect("PEM").into_contents();
        let key = KeyPair::from_pem(&read("root-key.pem")).expect("the root's key");
        let issuer = Issuer::from_ca_cert_der(&root.as_slice().into(), key).expect("the root");
        Issuing {
            msp_id: msp_id.to_owned(),
            root_der: root,
            issuer,
        }
    }

    /// An identity directory with `cert.pem` and `key.pem`, loaded.
    pub fn issue(&self, role: Role, name: &str, validity: Validity, directory: &Path) -> Arc<Identity> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, self.msp_id.as_str());
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, role.word());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = validity.span();
        let attributes = Attributes::from([("practitioner_role".to_owned(), "physician".to_owned())]);
        let content = encode_attributes(&attributes).expect("attributes");
        params
            .custom_extensions
            .push(CustomExtension::from_oid_content(&ATTRIBUTES_OID, content));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Certificate::parse(certificate.der()).expect("in the profile, or it would fail for that");
        std::fs::create_dir_all(directory).expect("a directory");
        std::fs::write(directory.join("cert.pem"), certificate.pem()).expect("written");
        std::fs::write(directory.join("key.pem"), key.serialize_pem()).expect("written");
        Arc::new(Identity::load(directory).expect("an identity"))
    }
}

impl World {
    /// The network's members, and strangers as if they were: so that a client of theirs dials at all.
    fn members_and(&self, strangers: &[&Issuing]) -> Members {
        let config = &self.network.channel.config.organisations;
        let mut all: BTreeMap<String, Organisation> = config
            .iter()
            .map(|known| {
                (
                    known.msp_id.clone(),
                    Organisation {
                        revoked: Vec::new(),
                        ..known.clone()
                    },
                )
            })
            .collect();
        for stranger in strangers {
            let organisation = Organisation {
                msp_id: stranger.msp_id.clone(),
                root_certificate: stranger.root_der.clone(),
                ..Organisation::default()
            };
            all.insert(stranger.msp_id.clone(), organisation);
        }
        Members::new(&all.into_values().collect::<Vec<_>>()).expect("members")
    }

    /// A connection under any identity to a process, which may refuse it.
    pub fn dial(&self, identity: &Arc<Identity>, process: &str) -> tonic::transport::Channel {
        self.dial_among(identity, process, &[])
    }

    pub fn dial_among(
        &self,
        identity: &Arc<Identity>,
        process: &str,
        strangers: &[&Issuing],
    ) -> tonic::transport::Channel {
        let trust = self.trust(identity, strangers);
        let process = self.process(process);
        let role = match process.kind {
            Kind::Orderer => Role::Orderer,
            Kind::Worker => Role::Worker,
            _ => Role::Peer,
        };
        trust
            .channel(&Target::new(process.listen.clone(), role, None))
            .expect("an address")
    }

    pub fn trust(&self, identity: &Arc<Identity>, strangers: &[&Issuing]) -> Arc<Trust> {
        Trust::load(identity.clone(), self.members_and(strangers), None).expect("its own members hold it")
    }
}
