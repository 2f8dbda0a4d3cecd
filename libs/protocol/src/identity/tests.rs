//! The strict profile: every rule has a certificate that breaks it alone.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DistinguishedName, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    RevokedCertParams, SerialNumber, SignatureAlgorithm, date_time_ymd,
};

use super::*;
use crate::ledger::Organisation;

mod hostile;

struct Ca {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
}

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn name(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    parts.iter().for_each(|(kind, text)| name.push(kind.clone(), *text));
    name
}

fn root_params(msp_id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&[(DnType::OrganizationName, msp_id), (DnType::CommonName, "root")]);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(msp_id: &str, role: &str, common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name = name(&[
        (DnType::OrganizationName, msp_id),
        (DnType::OrganizationalUnitName, role),
        (DnType::CommonName, common_name),
    ]);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.serial_number = Some(SerialNumber::from(77u64));
    params
}

impl Ca {
    fn new(msp_id: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        Ca::of(root_params(msp_id), key(algorithm))
    }

    fn of(params: CertificateParams, key: KeyPair) -> Self {
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Ca { params, key, der }
    }

    fn issue(&self, params: &CertificateParams) -> Vec<u8> {
        self.issue_for(params, &key(&PKCS_ED25519))
    }

    fn issue_for(&self, params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
        params
            .signed_by(key, &Issuer::from_params(&self.params, &self.key))
            .unwrap()
            .der()
            .to_vec()
    }

    fn peer(&self) -> Vec<u8> {
        self.issue(&leaf_params("HospitalA", "peer", "peer0"))
    }

    fn crl(serials: &[u64]) -> CertificateRevocationListParams {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(2025, 2, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
    }

    fn organisation(&self, msp_id: &str, revoked: &[&[u8]]) -> Organisation {
        Organisation {
            msp_id: msp_id.to_owned(),
            root_certificate: self.der.clone(),
            revoked: revoked.iter().map(|serial| serial.to_vec()).collect(),
            ..Organisation::default()
        }
    }
}

fn hospital() -> Ca {
    Ca::new("HospitalA", &PKCS_ECDSA_P256_SHA256)
}

fn members(ca: &Ca) -> Members {
    Members::new(&[ca.organisation("HospitalA", &[])]).unwrap()
}

#[track_caller]
fn check_leaf(change: impl FnOnce(&mut CertificateParams), expected: IdentityError) {
    let mut params = leaf_params("HospitalA", "peer", "peer0");
    change(&mut params);
    assert_eq!(Certificate::parse(&hospital().issue(&params)), Err(expected));
}

#[track_caller]
fn check_root(change: impl FnOnce(&mut CertificateParams), expected: IdentityError) {
    let mut params = root_params("HospitalA");
    change(&mut params);
    assert_eq!(Root::parse(&Ca::of(params, key(&PKCS_ED25519)).der), Err(expected));
}

fn attributes_extension(attributes: &[(&str, &str)]) -> CustomExtension {
    let attributes = attributes
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    CustomExtension::from_oid_content(&ATTRIBUTES_OID, encode_attributes(&attributes).unwrap())
}

#[test]
fn a_leaf_says_who_it_is() {
    for root_key in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        for leaf_key in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
            let ca = Ca::new("HospitalA", root_key);
            let mut params = leaf_params("HospitalA", "client", "Dr. Ünal");
            params.not_before = date_time_ymd(2025, 1, 1);
            params.not_after = date_time_ymd(2026, 1, 1);
            let pairs = [("practitioner_role", "physician"), ("facility", "HospitalA-1")];
            params.custom_extensions = vec![attributes_extension(&pairs)];
            let leaf_key = key(leaf_key);
            let der = ca.issue_for(&params, &leaf_key);
            let certificate = members(&ca).verify_der(&der).unwrap();
            assert_eq!(certificate.hash, crate::sha256(&der));
            assert_eq!(certificate.der(), der);
            assert_eq!(
                (certificate.msp_id.as_str(), certificate.role),
                ("HospitalA", Role::Client)
            );
            assert_eq!(certificate.common_name, "Dr. Ünal");
            assert_eq!(certificate.attributes["practitioner_role"], "physician");
            assert_eq!(certificate.attributes.len(), 2);
            assert_eq!(certificate.public_key.as_bytes(), leaf_key.public_key_raw());
            assert_eq!(certificate.serial, [77]);
            let (from, to) = (1_735_689_600, 1_767_225_600);
            assert!(certificate.valid_at(from) && certificate.valid_at(to));
            assert!(!certificate.valid_at(from - 1) && !certificate.valid_at(to + 1));
        }
    }
}

#[test]
fn pem_holds_exactly_one() {
    let der = hospital().peer();
    let block = pem::encode(&pem::Pem::new("CERTIFICATE", der.clone()));
    assert_eq!(Certificate::parse_pem(block.as_bytes()).unwrap().der(), der);
    let wrong = Err(IdentityError::NotPem("CERTIFICATE"));
    assert_eq!(Certificate::parse_pem(format!("{block}{block}").as_bytes()), wrong);
    assert_eq!(Certificate::parse_pem(b""), wrong);
    let other = pem::encode(&pem::Pem::new("PRIVATE KEY", der));
    assert_eq!(Certificate::parse_pem(other.as_bytes()), wrong);
}

#[test]
fn subjects() {
    let fields = || IdentityError::Subject("O, OU and CN");
    let (o, ou, cn) = (
        DnType::OrganizationName,
        DnType::OrganizationalUnitName,
        DnType::CommonName,
    );
    let subject = |parts: &[(DnType, &str)], expected| {
        let parts = parts.to_vec();
        check_leaf(|params| params.distinguished_name = name(&parts), expected);
    };
    subject(&[(ou.clone(), "peer"), (cn.clone(), "x")], fields());
    subject(&[(o.clone(), "A"), (cn.clone(), "x")], fields());
    subject(&[(o.clone(), "A"), (ou.clone(), "peer")], fields());
    let country = (DnType::CountryName, "DE");
    subject(
        &[country, (o.clone(), "A"), (ou.clone(), "peer"), (cn.clone(), "x")],
        fields(),
    );
    for bad in ["", "-A", ".A", "A B", "A_B", "Ä", &"A".repeat(65)] {
        subject(
            &[(o.clone(), bad), (ou.clone(), "peer"), (cn.clone(), "x")],
            IdentityError::MspId,
        );
    }
    for bad in ["", "Peer", "member", "boss"] {
        subject(
            &[(o.clone(), "A"), (ou.clone(), bad), (cn.clone(), "x")],
            IdentityError::Role,
        );
    }
    for bad in ["", " x", "a\nb", &"A".repeat(65)] {
        subject(
            &[(o.clone(), "A"), (ou.clone(), "peer"), (cn.clone(), bad)],
            IdentityError::CommonName,
        );
    }
}

#[test]
fn a_field_twice_is_refused() {
    // rcgen cannot say it twice, so an OU becomes a second O: 2.5.4.11 to 2.5.4.10.
    let ca = hospital();
    let mut der = ca.peer();
    let ou = [0x55, 0x04, 0x0b];
    let at = der.windows(3).position(|window| window == ou).unwrap();
    der[at + 2] = 0x0a;
    assert_eq!(Certificate::parse(&der), Err(IdentityError::Subject("O, OU and CN")));
}

#[test]
fn leaves_break_rules() {
    check_leaf(|params| params.key_usages.clear(), IdentityError::KeyUsage);
    check_leaf(
        |params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement],
        IdentityError::KeyUsage,
    );
    check_leaf(
        |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign),
        IdentityError::KeyUsage,
    );
    check_leaf(
        |params| params.key_usages.push(KeyUsagePurpose::CrlSign),
        IdentityError::KeyUsage,
    );
    check_leaf(
        |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        IdentityError::IsCa,
    );
    check_leaf(
        |params| params.serial_number = Some(SerialNumber::from(vec![0])),
        IdentityError::Serial,
    );
    check_leaf(
        |params| params.serial_number = Some(SerialNumber::from(vec![1; 21])),
        IdentityError::Serial,
    );
    check_leaf(
        |params| params.not_after = date_time_ymd(1970, 1, 1),
        IdentityError::Validity,
    );
    let extension = |critical, oid: &[u64]| {
        let mut extension = CustomExtension::from_oid_content(oid, vec![0x05, 0x00]);
        extension.set_criticality(critical);
        extension
    };
    let unknown = [1, 3, 6, 1, 4, 1, 59999, 9];
    check_leaf(
        |params| params.custom_extensions = vec![extension(true, &unknown)],
        IdentityError::CriticalExtension,
    );
    let twice = vec![extension(false, &unknown), extension(false, &unknown)];
    check_leaf(
        |params| params.custom_extensions = twice,
        IdentityError::DuplicateExtension,
    );
    let malformed = vec![extension(false, &[2, 5, 29, 19])];
    check_leaf(
        |params| params.custom_extensions = malformed,
        IdentityError::Extension("basicConstraints"),
    );
    let large = CustomExtension::from_oid_content(&unknown, vec![0x05; 5000]);
    check_leaf(|params| params.custom_extensions = vec![large], IdentityError::TooLarge);
    let mut params = leaf_params("HospitalA", "peer", "peer0");
    params.custom_extensions = vec![extension(false, &unknown)];
    assert!(
        Certificate::parse(&hospital().issue(&params)).is_ok(),
        "unknown but not critical"
    );
}

#[test]
fn attributes_have_one_form() {
    let raw = |content: &[u8]| CustomExtension::from_oid_content(&ATTRIBUTES_OID, content.to_vec());
    let utf8 = |json: &str| [&[0x0c, json.len() as u8], json.as_bytes()].concat();
    let wrong = IdentityError::Attributes("a UTF8String of a JSON object of strings, names ascending, without blanks");
    for json in [
        r#"{"b":"1","a":"2"}"#,
        r#"{"a":"1","a":"1"}"#,
        r#"{"a": "1"}"#,
        r#"{"a":1}"#,
        "[]",
        "",
    ] {
        check_leaf(
            |params| params.custom_extensions = vec![raw(&utf8(json))],
            wrong.clone(),
        );
    }
    check_leaf(
        |params| params.custom_extensions = vec![raw(br#"{"a":"1"}"#)],
        wrong.clone(),
    );
    check_leaf(
        |params| params.custom_extensions = vec![raw(&[utf8(r#"{"a":"1"}"#), vec![0]].concat())],
        wrong,
    );
    let bad = |name: &str, value: &str| encode_attributes(&[(name.to_owned(), value.to_owned())].into());
    assert!(matches!(bad("", "x"), Err(IdentityError::Attributes(_))));
    assert!(matches!(bad("a b", "x"), Err(IdentityError::Attributes(_))));
    assert!(matches!(bad("a", &"x".repeat(257)), Err(IdentityError::Attributes(_))));
    assert!(matches!(bad("a", "\n"), Err(IdentityError::Attributes(_))));
    let many: Attributes = (0..33).map(|i| (format!("a{i}"), String::new())).collect();
    assert_eq!(encode_attributes(&many), Err(IdentityError::Attributes("at most 32")));
}

#[test]
fn keys_and_algorithms() {
    let p384 = hospital().issue_for(&leaf_params("HospitalA", "peer", "x"), &key(&PKCS_ECDSA_P384_SHA384));
    assert_eq!(Certificate::parse(&p384), Err(IdentityError::PublicKey));
    let by_p384 = Ca::new("HospitalA", &PKCS_ECDSA_P384_SHA384).peer();
    assert_eq!(Certificate::parse(&by_p384), Err(IdentityError::SignatureAlgorithm));
    // Version 3 is the INTEGER 2 in [0].
    let mut der = hospital().peer();
    let version = der.windows(5).position(|window| window == [0xa0, 3, 2, 1, 2]).unwrap();
    der[version + 4] = 1;
    assert_eq!(Certificate::parse(&der), Err(IdentityError::Version));
    let mut trailing = hospital().peer();
    trailing.push(0);
    assert_eq!(Certificate::parse(&trailing), Err(IdentityError::TrailingBytes));
    assert_eq!(Certificate::parse(b"certificate"), Err(IdentityError::NotDer));
}

#[test]
fn roots() {
    assert!(Root::parse(&hospital().der).is_ok());
    check_root(|params| params.is_ca = IsCa::NoCa, IdentityError::RootNotCa);
    let long = IsCa::Ca(BasicConstraints::Constrained(1));
    check_root(|params| params.is_ca = long, IdentityError::RootPathLength);
    check_root(
        |params| params.key_usages = vec![KeyUsagePurpose::CrlSign],
        IdentityError::RootKeyUsage,
    );
    check_root(|params| params.key_usages.clear(), IdentityError::RootKeyUsage);
    check_root(
        |params| params.distinguished_name.push(DnType::OrganizationalUnitName, "peer"),
        IdentityError::Subject("O and CN"),
    );
    // Issued by another authority of another, then of the same name.
    let ca = hospital();
    let mut other = root_params("HospitalA");
    other.distinguished_name.push(DnType::CommonName, "another");
    assert_eq!(Root::parse(&ca.issue(&other)), Err(IdentityError::RootNotSelfIssued));
    assert_eq!(
        Root::parse(&ca.issue(&root_params("HospitalA"))),
        Err(IdentityError::RootSignature)
    );
    assert_eq!(Certificate::parse(&ca.der), Err(IdentityError::IsCa));
}

#[test]
fn members_know_their_own() {
    let (ca, other) = (hospital(), Ca::new("ReliefOrg", &PKCS_ED25519));
    let members = Members::new(&[ca.organisation("HospitalA", &[]), other.organisation("ReliefOrg", &[])]).unwrap();
    assert_eq!(
        members.verify(&Certificate::parse(&ca.peer()).unwrap()).unwrap().msp_id,
        "HospitalA"
    );
    let verify = |der: &[u8]| members.verify_der(der).map(|_| ());
    assert_eq!(
        verify(&ca.issue(&leaf_params("Stranger", "peer", "x"))),
        Err(IdentityError::NotMember)
    );
    assert_eq!(
        verify(&other.peer()),
        Err(IdentityError::Issuer),
        "a member that issues for another"
    );
    assert_eq!(
        verify(&hospital().peer()),
        Err(IdentityError::Signature),
        "a root of the same name"
    );
    assert_eq!(members.msp_ids().collect::<Vec<_>>(), ["HospitalA", "ReliefOrg"]);
}

#[test]
fn revoked_on_the_ledger() {
    let ca = hospital();
    let check = |revoked: &[&[u8]]| Members::new(&[ca.organisation("HospitalA", revoked)])?.verify_der(&ca.peer());
    assert!(check(&[&[76], &[78], &[77, 0]]).is_err(), "not ascending");
    assert!(check(&[&[76], &[77, 0], &[78]]).is_ok());
    assert_eq!(check(&[&[76], &[77]]), Err(IdentityError::Revoked));
    let order = Err(IdentityError::RevokedOrder("HospitalA".into()));
    assert_eq!(check(&[&[78], &[77]]), order);
    assert_eq!(check(&[&[77], &[77]]), order);
    assert_eq!(check(&[&[0, 77]]), order);
    assert_eq!(check(&[&[]]), order);
}

#[test]
fn organisations_are_told_apart() {
    let ca = hospital();
    let twice = [ca.organisation("HospitalA", &[]), ca.organisation("HospitalA", &[])];
    assert_eq!(Members::new(&twice), Err(IdentityError::OrganisationOrder));
    let renamed = Members::new(&[ca.organisation("HospitalB", &[])]);
    assert_eq!(renamed, Err(IdentityError::RootOrganisation("HospitalB".into())));
    let shared = key(&PKCS_ED25519).serialize_der();
    let of = |msp_id: &str| {
        Ca::of(root_params(msp_id), KeyPair::try_from(shared.as_slice()).unwrap()).organisation(msp_id, &[])
    };
    assert_eq!(
        Members::new(&[of("A"), of("B")]),
        Err(IdentityError::RootShared("B".into()))
    );
}

#[test]
fn revocation_lists() {
    let ca = hospital();
    let root = Root::parse(&ca.der).unwrap();
    let peer = Certificate::parse(&ca.peer()).unwrap();
    let signed = |by: &Ca, params: CertificateRevocationListParams| {
        params.signed_by(&Issuer::from_params(&by.params, &by.key)).unwrap()
    };
    let list = signed(&ca, Ca::crl(&[5, 77, 300]));
    for bytes in [list.der().to_vec(), list.pem().unwrap().into_bytes()] {
        let crl = Crl::parse(&bytes, &root).unwrap();
        assert_eq!(crl.serials, [vec![5], vec![77], vec![1, 44]].into());
        assert!(crl.revokes(&peer));
        assert_eq!(members(&ca).crl(&bytes), Ok(crl));
    }
    assert!(
        !Crl::parse(signed(&ca, Ca::crl(&[])).der(), &root)
            .unwrap()
            .revokes(&peer)
    );
    let parse = |by: &Ca| Crl::parse(signed(by, Ca::crl(&[77])).der(), &root);
    assert_eq!(
        parse(&Ca::new("ReliefOrg", &PKCS_ED25519)),
        Err(IdentityError::CrlIssuer)
    );
    assert_eq!(parse(&hospital()), Err(IdentityError::CrlSignature));
    let mut altered = list.der().to_vec();
    let serial = altered.windows(3).position(|window| window == [2, 1, 77]).unwrap();
    altered[serial + 2] = 78;
    assert_eq!(Crl::parse(&altered, &root), Err(IdentityError::CrlSignature));
    assert_eq!(
        Crl::parse(b"-----BEGIN X509 CRL-----", &root),
        Err(IdentityError::NotPem("X509 CRL"))
    );
    assert_eq!(Crl::parse(&[], &root), Err(IdentityError::CrlMalformed));
    let mut mute = root_params("HospitalA");
    mute.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = Root::parse(mute.self_signed(&ca.key).unwrap().der()).unwrap();
    assert_eq!(Crl::parse(list.der(), &root), Err(IdentityError::CrlKeyUsage));
}
