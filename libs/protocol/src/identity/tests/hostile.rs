//! Certificates that somebody altered.

use std::sync::OnceLock;

use proptest::prelude::*;
use rcgen::PKCS_ED25519;

use super::{
    super::{profile::der_header, *},
    Ca, attributes_extension, hospital, leaf_params, members,
};

/// (r, s) and (r, n − s) both verify: two citations, one identity.
#[test]
fn the_other_signature_of_a_certificate_is_the_same_identity() {
    let ca = hospital();
    let der = ca.peer();
    let certificate = Certificate::parse(&der).unwrap();
    let other = flip_s(&der);
    assert_ne!(der, other);
    let flipped = members(&ca).verify_der(&other).unwrap();
    assert_ne!(flipped.hash, certificate.hash);
    assert_eq!(flipped.identity, certificate.identity);
    let policy = crate::policy::Policy::parse("AND('HospitalA.peer','HospitalA.peer')").unwrap();
    assert!(!policy.evaluate(&[(&certificate).into(), (&flipped).into()]));
}

/// Takes a certificate signed with ECDSA apart and puts it together with n − s.
fn flip_s(der: &[u8]) -> Vec<u8> {
    const N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let signed = Certificate::parse(der).unwrap().signed;
    let signature = der[der.len() - usize::from(der_tail_len(der))..].to_vec();
    let r_len = usize::from(signature[3]);
    let (r, s) = (&signature[4..4 + r_len], &signature[4 + r_len + 2..]);
    let n = hex::decode(N).unwrap();
    let s: Vec<u8> = std::iter::repeat_n(0, 33 - s.len()).chain(s.iter().copied()).collect();
    let (mut borrow, mut flipped) = (0i16, vec![0u8; 33]);
    for i in (0..33).rev() {
        let minuend = if i == 0 { 0 } else { i16::from(n[i - 1]) };
        let difference = minuend - i16::from(s[i]) - borrow;
        borrow = i16::from(difference < 0);
        flipped[i] = difference.rem_euclid(256) as u8;
    }
    let mut digits: Vec<u8> = flipped.into_iter().skip_while(|byte| *byte == 0).collect();
    if digits[0] & 0x80 != 0 {
        digits.insert(0, 0);
    }
    let mut integers = Vec::new();
    der_header(2, r.len(), &mut integers);
    integers.extend_from_slice(r);
    der_header(2, digits.len(), &mut integers);
    integers.extend_from_slice(&digits);
    let mut bits = vec![0];
    der_header(0x30, integers.len(), &mut bits);
    bits.extend_from_slice(&integers);
    let mut body = signed.content().to_vec();
    body.extend_from_slice(&hex::decode("300a06082a8648ce3d040302").unwrap());
    der_header(3, bits.len(), &mut body);
    body.extend_from_slice(&bits);
    let mut whole = Vec::new();
    der_header(0x30, body.len(), &mut whole);
    whole.extend_from_slice(&body);
    whole
}

/// Length of the ECDSA signature at the end of a certificate, with its header.
fn der_tail_len(der: &[u8]) -> u8 {
    let algorithm = hex::decode("300a06082a8648ce3d040302").unwrap();
    let at = der
        .windows(algorithm.len())
        .rposition(|window| window == algorithm)
        .unwrap()
        + algorithm.len();
    der[at + 1] - 1
}

/// Two members and a certificate of each.
type Pair = (Members, Vec<(Vec<u8>, Certificate)>);

fn signed_pair() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(|| {
        let (a, b) = (hospital(), Ca::new("HospitalB", &PKCS_ED25519));
        let mut params = leaf_params("HospitalA", "client", "somebody");
        params.custom_extensions = vec![attributes_extension(&[("facility", "HospitalA-1")])];
        let ders = vec![a.issue(&params), b.issue(&leaf_params("HospitalB", "peer", "peer0"))];
        let members = Members::new(&[a.organisation("HospitalA", &[]), b.organisation("HospitalB", &[])]).unwrap();
        let parse = |der: Vec<u8>| (der.clone(), Certificate::parse(&der).unwrap());
        (members, ders.into_iter().map(parse).collect())
    })
}

/// Whatever verifies says exactly what was issued.
fn check_mutated(der: &[u8], original: &Certificate) -> Result<(), TestCaseError> {
    if let Ok(certificate) = signed_pair().0.verify_der(der) {
        prop_assert_eq!(certificate.identity, original.identity);
        prop_assert_eq!(certificate.msp_id, original.msp_id.clone());
        prop_assert_eq!(certificate.role, original.role);
        prop_assert_eq!(certificate.common_name, original.common_name.clone());
        prop_assert_eq!(certificate.attributes, original.attributes.clone());
        prop_assert_eq!(certificate.public_key, original.public_key.clone());
        prop_assert_eq!(certificate.serial, original.serial.clone());
    }
    Ok(())
}

#[test]
fn no_single_changed_bit_verifies() {
    let (members, certificates) = signed_pair();
    for (der, _) in certificates {
        for at in 0..der.len() {
            for bit in 0..8 {
                let mut der = der.clone();
                der[at] ^= 1 << bit;
                assert!(members.verify_der(&der).is_err(), "byte {at}, bit {bit}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutations_are_nobody_else(which in 0..2usize, changes in proptest::collection::vec((any::<usize>(), any::<u8>(), 0..3u8), 1..4)) {
        let (der, original) = &signed_pair().1[which];
        let mut der = der.clone();
        for (at, byte, how) in changes {
            let at = at % der.len();
            match how {
                0 => der[at] = byte,
                1 => der.insert(at, byte),
                _ => drop(der.remove(at)),
            }
        }
        check_mutated(&der, original)?;
        let _ = Root::parse(&der);
    }

    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Certificate::parse(&bytes).is_err());
        prop_assert!(Root::parse(&bytes).is_err());
        prop_assert!(signed_pair().0.crl(&bytes).is_err());
    }
}
