//! Signatures over Merkle roots: one signing for whatever is waiting, one check for all of it.
//!
//! | what is signed | by whom | content of the leaf |
//! |---|---|---|
//! | [`Purpose::Proposal`] | client, or gateway on its behalf | the `Proposal` bytes |
//! | [`Purpose::Endorsement`] | endorser | the `Result` bytes |
//! | [`Purpose::Block`] | orderer | the `Block` bytes |
//! | [`Purpose::Receipt`] | orderer | the `ReceiptContent` bytes |
//! | [`Purpose::Attestation`] | an organisation's attester | the `AttestationContent` bytes |
//! | [`Purpose::Config`] | admin | the `GenesisBody` or `Config` bytes |
//! | [`Purpose::Module`] | admin | SHA-256 of the component |
//!
//! Leaf = `H(0x00 ‖ tag length ‖ tag ‖ channel ‖ content)`; signed = `tag length ‖ tag ‖ root ‖ size`.
//! So a signature speaks of one purpose on one channel, and of nothing else.

use std::sync::Arc;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        ParsedPublicKey,
    },
};
use quick_cache::sync::Cache;

use crate::{
    hash::{Digest, Hasher},
    ledger::Signature,
    limits::{SIGNATURE_LEAVES_MAX, SIGNATURE_PATH_MAX},
    merkle,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    Proposal,
    Endorsement,
    Block,
    Receipt,
    Attestation,
    Config,
    Module,
}

impl Purpose {
    pub const ALL: [Purpose; 7] = [
        Purpose::Proposal,
        Purpose::Endorsement,
        Purpose::Block,
        Purpose::Receipt,
        Purpose::Attestation,
        Purpose::Config,
        Purpose::Module,
    ];

    /// In every signed payload, so that a signature for one purpose is none for another.
    pub fn tag(self) -> &'static [u8] {
        match self {
            Purpose::Proposal => b"medledger/proposal/1",
            Purpose::Endorsement => b"medledger/endorsement/1",
            Purpose::Block => b"medledger/block/1",
            Purpose::Receipt => b"medledger/receipt/1",
            Purpose::Attestation => b"medledger/attestation/1",
            Purpose::Config => b"medledger/config/1",
            Purpose::Module => b"medledger/module/1",
        }
    }

    fn leaf(self, channel: &Digest, content: &[u8]) -> Digest {
        merkle::leaf(&[&[self.tag().len() as u8], self.tag(), channel, content])
    }

    fn signed(self, root: &Digest, size: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + self.tag().len() + 40);
        bytes.push(self.tag().len() as u8);
        bytes.extend_from_slice(self.tag());
        bytes.extend_from_slice(root);
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the key is neither P-256 nor Ed25519 in PKCS#8")]
    Key,
    #[error("signature.{0} is malformed")]
    Malformed(&'static str),
    #[error("the signature does not cover this content")]
    Invalid,
}

/// A private key for the ledger's signatures; the same one serves the identity's TLS.
pub struct SigningKey(KeyKind);

enum KeyKind {
    P256(EcdsaKeyPair, SystemRandom),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SignatureError> {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            return Ok(SigningKey(KeyKind::P256(pair, SystemRandom::new())));
        }
        Ed25519KeyPair::from_pkcs8(der)
            .or_else(|_| Ed25519KeyPair::from_pkcs8_maybe_unchecked(der))
            .map(|pair| SigningKey(KeyKind::Ed25519(pair)))
            .map_err(|_| SignatureError::Key)
    }

    pub fn public_key(&self) -> Result<PublicKey, SignatureError> {
        match &self.0 {
            KeyKind::P256(pair, _) => PublicKey::p256(pair.public_key().as_ref()),
            KeyKind::Ed25519(pair) => PublicKey::ed25519(pair.public_key().as_ref()),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignatureError> {
        let mut out = [0; 64];
        match &self.0 {
            KeyKind::P256(pair, random) => {
                let signature = pair.sign(random, message).map_err(|_| SignatureError::Key)?;
                out.copy_from_slice(signature.as_ref());
                lower_s(&mut out);
            }
            KeyKind::Ed25519(pair) => out.copy_from_slice(pair.sign(message).as_ref()),
        }
        Ok(out)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey")
    }
}

/// A public key, parsed once.
#[derive(Clone)]
pub enum PublicKey {
    P256(Arc<ParsedPublicKey>),
    Ed25519(Arc<ParsedPublicKey>),
}

impl PublicKey {
    /// 65 bytes, uncompressed SEC 1.
    pub fn p256(sec1: &[u8]) -> Result<Self, SignatureError> {
        if sec1.len() != 65 {
            return Err(SignatureError::Key);
        }
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, sec1).map_err(|_| SignatureError::Key)?;
        Ok(PublicKey::P256(Arc::new(key)))
    }

    /// 32 bytes.
    pub fn ed25519(bytes: &[u8]) -> Result<Self, SignatureError> {
        if bytes.len() != 32 {
            return Err(SignatureError::Key);
        }
        let key = ParsedPublicKey::new(&ED25519, bytes).map_err(|_| SignatureError::Key)?;
        Ok(PublicKey::Ed25519(Arc::new(key)))
    }

    pub fn as_bytes(&self) -> &[u8] {
        match self {
            PublicKey::P256(key) | PublicKey::Ed25519(key) => (**key).as_ref(),
        }
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let key = match self {
            PublicKey::P256(key) if is_low_s(signature) => key,
            PublicKey::P256(_) => return Err(SignatureError::Malformed("signature (s is not low)")),
            PublicKey::Ed25519(key) => key,
        };
        key.verify_sig(message, signature).map_err(|_| SignatureError::Invalid)
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", hex::encode(self.as_bytes()))
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.as_bytes() == other.as_bytes()
    }
}
impl Eq for PublicKey {}

/// Signs all contents under as few roots as [`SIGNATURE_LEAVES_MAX`] allows; one signature each, in order.
pub fn sign(
    key: &SigningKey,
    certificate: &Digest,
    purpose: Purpose,
    channel: &Digest,
    contents: &[impl AsRef<[u8]>],
) -> Result<Vec<Signature>, SignatureError> {
    let mut signatures = Vec::with_capacity(contents.len());
    for contents in contents.chunks(SIGNATURE_LEAVES_MAX) {
        let leaves: Vec<Digest> = contents.iter().map(|c| purpose.leaf(channel, c.as_ref())).collect();
        let (root, paths) = merkle::paths(&leaves);
        let size = leaves.len() as u64;
        let signature = key.sign(&purpose.signed(&root, size))?;
        signatures.extend(paths.into_iter().enumerate().map(|(index, path)| Signature {
            certificate: certificate.to_vec(),
            size,
            index: index as u64,
            path: path.iter().map(|hash| hash.to_vec()).collect(),
            signature: signature.to_vec(),
        }));
    }
    Ok(signatures)
}

/// Checks signatures and remembers the valid ones, so that a root is checked once for all its leaves.
pub struct Verifier(Cache<Digest, ()>);

impl Verifier {
    /// `capacity`: roots remembered, about 100 bytes each.
    pub fn new(capacity: usize) -> Self {
        Verifier(Cache::new(capacity))
    }

    pub fn verify(
        &self,
        key: &PublicKey,
        purpose: Purpose,
        channel: &Digest,
        content: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        if signature.signature.len() != 64 {
            return Err(SignatureError::Malformed("signature (64 bytes)"));
        }
        if signature.path.len() > SIGNATURE_PATH_MAX || signature.size > SIGNATURE_LEAVES_MAX as u64 {
            return Err(SignatureError::Malformed("path (too long)"));
        }
        let leaf = purpose.leaf(channel, content);
        let root = merkle::root_from(leaf, signature.index, signature.size, &signature.path)
            .ok_or(SignatureError::Malformed("path (does not fit index and size)"))?;
        let remembered = Hasher::new("verified")
            .bytes(key.as_bytes())
            .bytes(purpose.tag())
            .fixed(&root)
            .u64(signature.size)
            .bytes(&signature.signature)
            .finish();
        if self.0.get(&remembered).is_some() {
            return Ok(());
        }
        key.verify(&purpose.signed(&root, signature.size), &signature.signature)?;
        self.0.insert(remembered, ());
        Ok(())
    }
}

/// Order of P-256's group, and half of it.
const N: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7,
    0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
const N_HALF: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xde, 0x73, 0x7d, 0x56,
    0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

/// Of s and n − s both verify; only the lower is accepted, so that nobody can alter a signature.
fn is_low_s(signature: &[u8]) -> bool {
    signature.get(32..64).is_some_and(|s| s <= &N_HALF[..])
}

fn lower_s(signature: &mut [u8; 64]) {
    if is_low_s(signature) {
        return;
    }
    let mut borrow = 0i16;
    for i in (0..32).rev() {
        let difference = i16::from(N[i]) - i16::from(signature[32 + i]) - borrow;
        borrow = i16::from(difference < 0);
        signature[32 + i] = difference.rem_euclid(256) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> Vec<SigningKey> {
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        vec![
            SigningKey::from_pkcs8(p256.as_ref()).unwrap(),
            SigningKey::from_pkcs8(ed25519.as_ref()).unwrap(),
        ]
    }

    #[test]
    fn a_batch_verifies_one_by_one_and_nowhere_else() {
        for key in keys() {
            let public = key.public_key().unwrap();
            let contents: Vec<Vec<u8>> = (0..1100u32).map(|i| i.to_be_bytes().to_vec()).collect();
            let signatures = sign(&key, &[1; 32], Purpose::Proposal, &[2; 32], &contents).unwrap();
            let verifier = Verifier::new(16);
            for (content, signature) in contents.iter().zip(&signatures) {
                verifier
                    .verify(&public, Purpose::Proposal, &[2; 32], content, signature)
                    .unwrap();
            }
            let (content, signature) = (&contents[7], &signatures[7]);
            let check =
                |purpose, channel, content: &[u8]| verifier.verify(&public, purpose, &channel, content, signature);
            assert!(check(Purpose::Proposal, [2; 32], content).is_ok());
            assert!(
                check(Purpose::Endorsement, [2; 32], content).is_err(),
                "another purpose"
            );
            assert!(check(Purpose::Proposal, [3; 32], content).is_err(), "another channel");
            assert!(check(Purpose::Proposal, [2; 32], b"other").is_err(), "another content");
        }
    }

    #[test]
    fn high_s_is_refused_and_never_made() {
        let key = &keys()[0];
        for i in 0..50u32 {
            let signature = key.sign(&i.to_be_bytes()).unwrap();
            assert!(is_low_s(&signature));
            let mut high = signature;
            let mut borrow = 0i16;
            for at in (0..32).rev() {
                let difference = i16::from(N[at]) - i16::from(signature[32 + at]) - borrow;
                borrow = i16::from(difference < 0);
                high[32 + at] = difference.rem_euclid(256) as u8;
            }
            let public = key.public_key().unwrap();
            assert!(public.verify(&i.to_be_bytes(), &high).is_err());
            lower_s(&mut high);
            assert_eq!(high, signature);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_altered_signature_verifies(count in 1usize..20, which in 0usize..20, at in 0usize..1000, bit in 0u8..8) {
            let key = &keys()[count % 2];
            let which = which % count;
            let contents: Vec<[u8; 1]> = (0..count).map(|i| [i as u8]).collect();
            let mut signature = sign(key, &[1; 32], Purpose::Block, &[2; 32], &contents).unwrap()[which].clone();
            let fields = 1 + signature.path.len();
            match at % fields {
                0 => signature.signature[at % 64] ^= 1 << bit,
                i => signature.path[i - 1][at % 32] ^= 1 << bit,
            }
            let public = key.public_key().unwrap();
            prop_assert!(Verifier::new(4).verify(&public, Purpose::Block, &[2; 32], &contents[which], &signature).is_err());
        }
    }
}
