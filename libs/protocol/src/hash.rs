//! `H` is SHA-256; integers in hashes are big-endian, byte strings carry their length.

use aws_lc_rs::digest;

/// 32 bytes of SHA-256.
pub type Digest = [u8; 32];

pub fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::bare();
    hasher.0.update(bytes);
    hasher.finish()
}

/// Reads 32 bytes; anything else is no digest.
pub fn digest(bytes: &[u8]) -> Option<Digest> {
    bytes.try_into().ok()
}

/// Hashes a sequence of fields so that no two sequences give the same bytes.
#[derive(Clone)]
pub struct Hasher(digest::Context);

impl Hasher {
    fn bare() -> Self {
        Hasher(digest::Context::new(&digest::SHA256))
    }

    /// Every structure hashed here starts with a tag of its own.
    pub fn new(tag: &str) -> Self {
        Self::bare().bytes(tag.as_bytes())
    }

    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    /// For values of a fixed length, where a length would say nothing.
    #[must_use]
    pub fn fixed(mut self, bytes: &[u8; 32]) -> Self {
        self.0.update(bytes);
        self
    }

    #[must_use]
    pub fn u32(mut self, value: u32) -> Self {
        self.0.update(&value.to_be_bytes());
        self
    }

    #[must_use]
    pub fn u64(mut self, value: u64) -> Self {
        self.0.update(&value.to_be_bytes());
        self
    }

    pub fn finish(self) -> Digest {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

/// H(0x00 ‖ parts…) and H(0x01 ‖ left ‖ right): leaves and nodes of RFC 6962.
pub(crate) fn tagged(tag: u8, parts: &[&[u8]]) -> Digest {
    let mut hasher = Hasher::bare();
    hasher.0.update(&[tag]);
    for part in parts {
        hasher.0.update(part);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_together() {
        assert_ne!(
            Hasher::new("t").bytes(b"ab").bytes(b"c").finish(),
            Hasher::new("t").bytes(b"a").bytes(b"bc").finish()
        );
    }

    #[test]
    fn is_sha256() {
        assert_eq!(
            hex::encode(sha256(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
