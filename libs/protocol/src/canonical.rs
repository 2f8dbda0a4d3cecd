//! A message is canonical if encoding it again gives the same bytes.
//!
//! That rules out unknown fields, repeated scalars, default values on the wire and fields out of
//! order in one comparison. Order within sets is checked where the set's meaning is known.

use prost::Message;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    #[error("not a protobuf message of this type")]
    Undecodable,
    #[error("not in canonical encoding: unknown, repeated or misplaced fields")]
    Encoding,
}

pub fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, NotCanonical> {
    let message = M::decode(bytes).map_err(|_| NotCanonical::Undecodable)?;
    if message.encoded_len() == bytes.len() && message.encode_to_vec() == bytes {
        Ok(message)
    } else {
        Err(NotCanonical::Encoding)
    }
}

/// Whether `items` ascend strictly by `key`: the order of every set on the wire.
pub fn ascending<T, K: Ord + ?Sized>(items: &[T], key: impl Fn(&T) -> &K) -> bool {
    items.windows(2).all(|pair| key(&pair[0]) < key(&pair[1]))
}
