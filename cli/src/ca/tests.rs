//! Issuing, listing and revoking, held against the profile that everybody else checks.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
};

use protocol::{
    identity::{Certificate, Crl, Members, Role},
    ledger::Organisation,
    signature::SigningKey,
};

use super::*;

fn authority(key: KeyAlgorithm) -> (tempfile::TempDir, Authority) {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::create(&directory.path().join("ca"), "HospitalA", key, ROOT_DAYS).unwrap();
    (directory, authority)
}

fn members(authority: &Authority) -> Members {
    let organisation = Organisation {
        msp_id: authority.msp_id().to_owned(),
        root_certificate: authority.root().der().to_vec(),
        revoked: authority.revoked_serials().unwrap(),
        ..Organisation::default()
    };
    Members::new(&[organisation]).unwrap()
}

#[test]
fn what_is_issued_is_a_members() {
    for root in [KeyAlgorithm::P256, KeyAlgorithm::Ed25519] {
        let (directory, authority) = authority(root);
        for key in [KeyAlgorithm::P256, KeyAlgorithm::Ed25519] {
            for role in Role::ALL {
                let mut request = Request::new(role, format!("{role}-{key:?}")).on_localhost();
                request.key = key;
                let issued = authority.issue(&request.attribute("facility", "HospitalA-1")).unwrap();
                let at = directory.path().join(&issued.certificate.common_name);
                issued.write(&at).unwrap();
                let certificate = Certificate::parse_pem(&fs::read(at.join("cert.pem")).unwrap()).unwrap();
                assert_eq!(members(&authority).verify(&certificate).unwrap().msp_id, "HospitalA");
                assert_eq!(certificate.role, role);
                assert_eq!(certificate.attributes["facility"], "HospitalA-1");
                let key = pem::parse(fs::read(at.join("key.pem")).unwrap()).unwrap();
                let key = SigningKey::from_pkcs8(key.contents()).unwrap();
                assert_eq!(key.public_key().unwrap(), certificate.public_key);
                let mode = fs::metadata(at.join("key.pem")).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
                assert!(matches!(issued.write(&at), Err(Error::Exists(_))));
            }
        }
        assert_eq!(authority.list().unwrap().len(), 2 * Role::ALL.len());
    }
}

#[test]
fn an_authority_is_made_once_and_opened_again() {
    let (directory, authority) = authority(KeyAlgorithm::P256);
    let path = directory.path().join("ca");
    let again = Authority::create(&path, "HospitalA", KeyAlgorithm::P256, ROOT_DAYS);
    assert!(matches!(again, Err(Error::Exists(_))));
    let opened = Authority::open(&path).unwrap();
    assert_eq!(opened.root(), authority.root());
    let issued = opened.issue(&Request::new(Role::Peer, "peer0")).unwrap();
    members(&authority).verify(&issued.certificate).unwrap();
    fs::write(
        path.join("root-key.pem"),
        rcgen::KeyPair::generate().unwrap().serialize_pem(),
    )
    .unwrap();
    assert!(matches!(Authority::open(&path), Err(Error::KeyMismatch(_))));
    let bad = Authority::create(&directory.path().join("b"), "Hospital A", KeyAlgorithm::P256, 1);
    assert!(matches!(bad, Err(Error::MspId(_))));
}

#[test]
fn requests_outside_of_the_profile_are_refused_and_not_entered() {
    let (_directory, authority) = authority(KeyAlgorithm::P256);
    let refused = |request: &Request| authority.issue(request).unwrap_err();
    assert!(matches!(refused(&Request::new(Role::Peer, "")), Error::Profile(_)));
    assert!(matches!(refused(&Request::new(Role::Peer, "a\nb")), Error::Profile(_)));
    assert!(matches!(
        refused(&Request::new(Role::Peer, "a").attribute("a b", "x")),
        Error::Profile(_)
    ));
    let mut request = Request::new(Role::Peer, "a");
    request.days = 0;
    assert!(matches!(refused(&request), Error::Days(0)));
    request.days = u32::MAX;
    assert!(matches!(refused(&request), Error::Days(u32::MAX)));
    request.days = 1;
    for name in ["ä", "", "a b", "-a", "a..b", "10.0.0.1", "https://a"] {
        request.dns = vec![name.into()];
        assert!(matches!(refused(&request), Error::Dns(_)), "{name}");
    }
    assert!(authority.list().unwrap().is_empty());
}

#[test]
fn nothing_outlives_its_root() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::create(directory.path(), "A", KeyAlgorithm::Ed25519, 10).unwrap();
    let issued = authority.issue(&Request::new(Role::Peer, "peer0")).unwrap();
    assert_eq!(issued.certificate.not_after, authority.root().not_after);
}

#[test]
fn revoking() {
    let (_directory, authority) = authority(KeyAlgorithm::P256);
    let issue = |name: &str| authority.issue(&Request::new(Role::Client, name)).unwrap().certificate;
    let (first, second, third) = (issue("nurse"), issue("nurse"), issue("physician"));
    let list = || Crl::parse(&fs::read(authority.crl_file()).unwrap(), authority.root()).unwrap();

    authority.crl(CRL_DAYS).unwrap();
    assert!(list().serials.is_empty());
    authority.revoke(&Which::Serial(third.serial.clone())).unwrap();
    assert_eq!(list().serials, BTreeSet::from([third.serial.clone()]));
    assert_eq!(authority.revoke(&Which::Name("nurse".into())).unwrap().len(), 2);
    let list = list();
    assert!(list.revokes(&first) && list.revokes(&second) && list.revokes(&third));
    assert!(
        members(&authority).verify(&first).is_err(),
        "revoked_serials are what a config takes"
    );
    assert!(authority.list().unwrap().iter().all(|entry| entry.revoked.is_some()));

    // Again is no harm, and brings back a list that was lost.
    let times = |list: &[Entry]| list.iter().map(|entry| entry.revoked).collect::<Vec<_>>();
    let before = times(&authority.list().unwrap());
    for which in [Which::Name("nurse".into()), Which::Serial(first.serial.clone())] {
        fs::remove_file(authority.crl_file()).unwrap();
        assert!(authority.revoke(&which).unwrap().iter().all(|revoked| revoked.already));
        let list = Crl::parse(&fs::read(authority.crl_file()).unwrap(), authority.root()).unwrap();
        assert!(list.revokes(&first) && list.revokes(&second) && list.revokes(&third));
    }
    assert_eq!(times(&authority.list().unwrap()), before);
    assert!(matches!(
        authority.revoke(&Which::Name("nobody".into())),
        Err(Error::UnknownName(_))
    ));
    assert!(matches!(
        authority.revoke(&Which::Serial(vec![1])),
        Err(Error::UnknownSerial(_))
    ));
}

#[test]
fn a_line_cut_short_is_dropped_and_a_wrong_one_is_named() {
    let (directory, authority) = authority(KeyAlgorithm::Ed25519);
    let path = directory.path().join("ca").join("index.jsonl");
    authority.issue(&Request::new(Role::Peer, "peer0")).unwrap();
    let append = |bytes: &[u8]| {
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(bytes)
            .unwrap()
    };
    append(br#"{"issued":{"ser"#);
    assert_eq!(authority.list().unwrap().len(), 1);
    authority.issue(&Request::new(Role::Peer, "peer1")).unwrap();
    assert_eq!(authority.list().unwrap().len(), 2);
    append(b"{}\n");
    assert!(matches!(authority.list(), Err(Error::Index { line: 3, .. })));
}

#[test]
fn many_at_once_lose_nothing() {
    let (directory, _authority) = authority(KeyAlgorithm::Ed25519);
    let path = directory.path().join("ca");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let path = &path;
            scope.spawn(move || {
                let authority = Authority::open(path).unwrap();
                for i in 0..10 {
                    let name = format!("client-{thread}-{i}");
                    authority.issue(&Request::new(Role::Client, &name)).unwrap();
                    authority.revoke(&Which::Name(name)).unwrap();
                }
            });
        }
    });
    let authority = Authority::open(&path).unwrap();
    assert_eq!(authority.list().unwrap().len(), 80);
    assert_eq!(authority.revoked_serials().unwrap().len(), 80);
    let crl = Crl::parse(&fs::read(authority.crl_file()).unwrap(), authority.root()).unwrap();
    assert_eq!(crl.serials.len(), 80);
}
