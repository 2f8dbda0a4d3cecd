//! Makes, opens and uses an authority.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use protocol::identity::{ATTRIBUTES_OID, Certificate, Crl, Root, encode_attributes, is_msp_id};
use rand::RngCore as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    PublicKeyData as _, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::DnsName;
use time::OffsetDateTime;

use super::{
    BACKDATED_SECONDS, CRL_DAYS, Entry, Error, KeyAlgorithm, Request, Revoked, Which, file,
    index::{Index, Line},
};

const ROOT: &str = "root.pem";
const ROOT_KEY: &str = "root-key.pem";
const INDEX: &str = "index.jsonl";
const CRL: &str = "crl.pem";

/// An organisation's root with its key and its index.
pub struct Authority {
    directory: PathBuf,
    root: Root,
    root_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A new identity. The private key is nowhere else.
#[derive(Debug)]
pub struct Issued {
    pub certificate: Certificate,
    pub certificate_pem: String,
    pub key_pem: String,
    pub root_pem: String,
}

impl Authority {
    /// Makes the root of a new organisation in a directory that holds none.
    pub fn create(directory: &Path, msp_id: &str, key: KeyAlgorithm, days: u32) -> Result<Self, Error> {
        if !is_msp_id(msp_id) {
            return Err(Error::MspId(msp_id.to_owned()));
        }
        let (not_before, not_after) = validity(days)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, msp_id);
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (not_before, not_after);
        params.serial_number = Some(random_serial());
        let key = key.generate()?;
        let certificate = params.self_signed(&key)?;
        Root::parse(certificate.der())?;
        make_private_directory(directory)?;
        // The key's file decides between two who found an authority in one place at once.
        write_new(&directory.join(ROOT_KEY), &key.serialize_pem(), 0o600)?;
        write_new(&directory.join(ROOT), &certificate.pem(), 0o644)?;
        Self::open(directory)
    }

    pub fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(ROOT);
        let root_pem = fs::read_to_string(&path).map_err(file("reading", &path))?;
        let root = Root::parse_pem(root_pem.as_bytes()).map_err(|cause| Error::NotAnAuthority {
            path: path.clone(),
            cause,
        })?;
        let path = directory.join(ROOT_KEY);
        let key = fs::read_to_string(&path).map_err(file("reading", &path))?;
        let key = KeyPair::from_pem(&key).map_err(|_| Error::Key(path.clone()))?;
        if key.der_bytes() != root.public_key.as_bytes() {
            return Err(Error::KeyMismatch(path));
        }
        let issuer = Issuer::from_ca_cert_der(&root.der().into(), key)?;
        Ok(Authority {
            directory: directory.to_owned(),
            root,
            root_pem,
            issuer,
        })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn msp_id(&self) -> &str {
        &self.root.msp_id
    }

    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Where `crl.pem` is, once there is one.
    pub fn crl_file(&self) -> PathBuf {
        self.directory.join(CRL)
    }

    /// Makes a key and its certificate and enters it in the index.
    pub fn issue(&self, request: &Request) -> Result<Issued, Error> {
        let key = request.key.generate()?;
        let certificate = self.leaf(request)?.signed_by(&key, &self.issuer)?;
        let parsed = Certificate::parse(certificate.der())?;
        let entry = Entry {
            serial: hex::encode(&parsed.serial),
            name: parsed.common_name.clone(),
            role: parsed.role.to_string(),
            attributes: parsed.attributes.clone(),
            not_before: parsed.not_before,
            not_after: parsed.not_after,
            hash: hex::encode(parsed.hash),
            revoked: None,
        };
        self.index()?.append(Line::Issued(entry))?;
        Ok(Issued {
            certificate: parsed,
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            root_pem: self.root_pem.clone(),
        })
    }

    fn leaf(&self, request: &Request) -> Result<CertificateParams, Error> {
        let (not_before, not_after) = validity(request.days)?;
        let root_ends = time_of(self.root.not_after)?;
        if root_ends <= now() {
            return Err(Error::RootExpired);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, self.msp_id());
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, request.role.word());
        params
            .distinguished_name
            .push(DnType::CommonName, request.name.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (not_before, not_after.min(root_ends));
        params.serial_number = Some(random_serial());
        params.use_authority_key_identifier_extension = true;
        for name in &request.dns {
            // What clients that dial the name take for one.
            let known = DnsName::try_from(name.as_str()).map_err(|_| Error::Dns(name.clone()))?;
            let valid = known.as_ref().try_into().map_err(|_| Error::Dns(name.clone()))?;
            params.subject_alt_names.push(SanType::DnsName(valid));
        }
        params
            .subject_alt_names
            .extend(request.ips.iter().map(|ip| SanType::IpAddress(*ip)));
        if !request.attributes.is_empty() {
            let content = encode_attributes(&request.attributes)?;
            params
                .custom_extensions
                .push(CustomExtension::from_oid_content(&ATTRIBUTES_OID, content));
        }
        Ok(params)
    }

    /// Everything issued, oldest first.
    pub fn list(&self) -> Result<Vec<Entry>, Error> {
        Ok(std::mem::take(&mut self.index()?.entries))
    }

    /// Revokes and signs a new list. Again is no harm: what was revoked before stays so, and the list is
    /// signed whatever became of the attempt before.
    pub fn revoke(&self, which: &Which) -> Result<Vec<Revoked>, Error> {
        let mut index = self.index()?;
        let (chosen, unknown): (Vec<&Entry>, Error) = match which {
            Which::Serial(serial) => {
                let serial = hex::encode(serial);
                let of = index.entries.iter().filter(|entry| entry.serial == serial);
                (of.collect(), Error::UnknownSerial(serial))
            }
            Which::Name(name) => {
                let of = index.entries.iter().filter(|entry| entry.name == *name);
                (of.collect(), Error::UnknownName(name.clone()))
            }
        };
        if chosen.is_empty() {
            return Err(unknown);
        }
        let at = now().unix_timestamp();
        let revoked = chosen.into_iter().cloned().map(|entry| Revoked {
            already: entry.revoked.is_some(),
            entry: Entry {
                revoked: entry.revoked.or(Some(at)),
                ..entry
            },
        });
        let revoked: Vec<Revoked> = revoked.collect();
        for new in revoked.iter().filter(|revoked| !revoked.already) {
            let serial = new.entry.serial.clone();
            index.append(Line::Revoked { serial, at })?;
        }
        self.sign_crl(&mut index, CRL_DAYS)?;
        Ok(revoked)
    }

    /// Signs the list again, for `days`, and gives it in PEM; it is in `crl.pem` as well.
    pub fn crl(&self, days: u32) -> Result<String, Error> {
        self.sign_crl(&mut self.index()?, days)
    }

    /// Serial numbers that are revoked, ascending: what a config's organisation holds.
    pub fn revoked_serials(&self) -> Result<Vec<Vec<u8>>, Error> {
        let list = self.list()?;
        let revoked = list.iter().filter(|entry| entry.revoked.is_some());
        let mut serials: Vec<Vec<u8>> = revoked.filter_map(|entry| hex::decode(&entry.serial).ok()).collect();
        serials.sort();
        serials.dedup();
        Ok(serials)
    }

    fn sign_crl(&self, index: &mut Index, days: u32) -> Result<String, Error> {
        let (this_update, next_update) = validity(days)?;
        let mut revoked_certs = Vec::new();
        for entry in &index.entries {
            let (Some(at), Ok(serial)) = (entry.revoked, hex::decode(&entry.serial)) else {
                continue;
            };
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial),
                revocation_time: time_of(at)?,
                reason_code: None,
                invalidity_date: None,
            });
        }
        let number = index.crl_number + 1;
        let params = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer)?;
        Crl::parse(list.der(), &self.root)?;
        let pem = list.pem()?;
        index.append(Line::Crl { number })?;
        replace(&self.crl_file(), &pem)?;
        Ok(pem)
    }

    fn index(&self) -> Result<Index, Error> {
        Index::open(&self.directory.join(INDEX))
    }
}

impl Issued {
    /// An identity directory: `cert.pem`, `key.pem` (0600) and `root.pem`. Overwrites nothing.
    pub fn write(&self, directory: &Path) -> Result<(), Error> {
        make_private_directory(directory)?;
        write_new(&directory.join("key.pem"), &self.key_pem, 0o600)?;
        write_new(&directory.join("cert.pem"), &self.certificate_pem, 0o644)?;
        write_new(&directory.join("root.pem"), &self.root_pem, 0o644)
    }
}

impl KeyAlgorithm {
    fn generate(self) -> Result<KeyPair, Error> {
        Ok(KeyPair::generate_for(match self {
            KeyAlgorithm::P256 => &PKCS_ECDSA_P256_SHA256,
            KeyAlgorithm::Ed25519 => &PKCS_ED25519,
        })?)
    }
}

/// 16 bytes of which the first is neither 0 nor negative, so that every serial has one length.
fn random_serial() -> SerialNumber {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn validity(days: u32) -> Result<(OffsetDateTime, OffsetDateTime), Error> {
    let from = time_of(now().unix_timestamp() - BACKDATED_SECONDS)?;
    let to = time_of(now().unix_timestamp() + 86_400 * i64::from(days));
    match to {
        Ok(to) if days > 0 => Ok((from, to)),
        _ => Err(Error::Days(days)),
    }
}

fn time_of(unix_s: i64) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp(unix_s).map_err(|_| Error::Time(unix_s))
}

/// Mode 0700 where it is new.
fn make_private_directory(directory: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(file("making", directory))
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let opened = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let mut out = match opened {
        Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => return Err(Error::Exists(path.to_owned())),
        other => other.map_err(file("writing", path))?,
    };
    out.write_all(text.as_bytes())
        .and_then(|()| out.sync_all())
        .map_err(file("writing", path))
}

/// Readers see the old file or the new one.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // A name that those who watch a directory for lists do not take for one.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = directory.join(format!(".{name}.{}.new", std::process::id()));
    let mut out = fs::File::create(&beside).map_err(file("writing", path))?;
    out.write_all(text.as_bytes())
        .and_then(|()| out.sync_all())
        .map_err(file("writing", path))?;
    fs::rename(&beside, path).map_err(file("writing", path))
}
