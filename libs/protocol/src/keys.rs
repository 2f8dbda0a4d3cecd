//! Partition keys, state keys, commitments: what stands in for what must not be seen.

use aws_lc_rs::hmac;

use crate::{
    hash::{Digest, Hasher, sha256},
    limits::{CONTRACT_NAME_BYTES_MAX, FUNCTION_NAME_BYTES_MAX, KEY_SUFFIX_BYTES_MAX},
};

/// The channel's secret: members' peers hold it, Kafka never sees it. `Debug` does not show it.
#[derive(Clone)]
pub struct ChannelSecret(hmac::Key, Digest);

impl ChannelSecret {
    pub fn new(secret: &[u8; 32]) -> Self {
        let hash = Hasher::new("medledger/secret/1").fixed(secret).finish();
        ChannelSecret(hmac::Key::new(hmac::HMAC_SHA256, secret), hash)
    }

    /// What the genesis holds of it.
    pub fn hash(&self) -> Digest {
        self.1
    }

    /// HMAC-SHA-256(secret, contract ‖ 0x00 ‖ subject): a pseudonym of whom a transaction is about.
    pub fn partition_key(&self, contract: &str, subject: &str) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(contract.as_bytes());
        context.update(&[0]);
        context.update(subject.as_bytes());
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }
}

impl std::fmt::Debug for ChannelSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChannelSecret")
    }
}

/// First 8 bytes, big-endian, modulo the number of partitions.
pub fn partition_of(partition_key: &Digest, partitions: u32) -> u32 {
    let mut first = [0; 8];
    first.copy_from_slice(&partition_key[..8]);
    (u64::from_be_bytes(first) % u64::from(partitions.max(1))) as u32
}

/// contract ‖ 0x00 ‖ partition key: what all state keys of a transaction start with.
pub fn key_prefix(contract: &str, partition_key: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(contract.len() + 33 + 32);
    key.extend_from_slice(contract.as_bytes());
    key.push(0);
    key.extend_from_slice(partition_key);
    key
}

pub fn state_key(contract: &str, partition_key: &[u8], suffix: &[u8]) -> Vec<u8> {
    let mut key = key_prefix(contract, partition_key);
    key.extend_from_slice(suffix);
    key
}

/// Whether `key` is under `prefix` with a suffix of a legal length.
pub fn is_under(key: &[u8], prefix: &[u8]) -> bool {
    key.strip_prefix(prefix)
        .is_some_and(|suffix| suffix.len() <= KEY_SUFFIX_BYTES_MAX)
}

/// The smallest byte string greater than all that start with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 255 {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// `[a-z][a-z0-9-]*`
pub fn is_contract_name(name: &str) -> bool {
    name.len() <= CONTRACT_NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// `[A-Za-z][A-Za-z0-9_-]*`
pub fn is_function_name(name: &str) -> bool {
    name.len() <= FUNCTION_NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// H(salt ‖ arguments): the arguments are proven by it and cannot be guessed from it.
pub fn arguments_commitment(salt: &[u8; 32], arguments: &[u8]) -> Digest {
    let mut bytes = Vec::with_capacity(32 + arguments.len());
    bytes.extend_from_slice(salt);
    bytes.extend_from_slice(arguments);
    sha256(&bytes)
}

/// Salted with the proposal's salt, so that a response cannot be guessed from the ledger either.
pub fn response_digest(salt: &[u8; 32], response: &[u8]) -> Digest {
    Hasher::new("medledger/response/1").fixed(salt).bytes(response).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_after_all_it_holds() {
        assert_eq!(prefix_end(b"ab"), b"ac");
        assert_eq!(prefix_end(&[1, 255]), [2]);
        assert!(prefix_end(&[255]).is_empty());
    }

    #[test]
    fn subjects_of_contracts_do_not_meet() {
        let secret = ChannelSecret::new(&[7; 32]);
        assert_ne!(secret.partition_key("a", "b"), secret.partition_key("ab", ""));
        assert_ne!(
            secret.partition_key("a", "b"),
            ChannelSecret::new(&[8; 32]).partition_key("a", "b")
        );
    }

    #[test]
    fn names() {
        assert!(is_contract_name("medical-records"));
        for bad in ["", "Medical", "1a", "a b", "a\0"] {
            assert!(!is_contract_name(bad), "{bad:?}");
        }
        assert!(is_function_name("createMedicalRecord"));
        assert!(!is_function_name("create record"));
    }
}
