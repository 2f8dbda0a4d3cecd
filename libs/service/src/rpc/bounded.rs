//! How many things a message may hold, counted in its bytes before any of them is decoded.
//!
//! An empty item is two bytes on the wire and hundreds in memory, so a bound on bytes alone bounds no memory. The
//! generated clients and servers decode with [`Codec`]: it walks the encoded message by the descriptor that the build
//! wrote, counts what comes more than once, and only then lets prost decode.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::LazyLock;

use prost::bytes::Buf as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost::{Message, Name};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};
use protocol::limits::{GRPC_ELEMENTS_MAX, GRPC_LIST_ITEMS_MAX, GRPC_WORKER_ELEMENTS_MAX};
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::problem::{Code, Problem};

static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
    let descriptor = include_bytes!(concat!(env!("OUT_DIR"), "/rpc.descriptor"));
    Shapes::new(&FileDescriptorSet::decode(descriptor.as_slice()).expect("written by the build"))
});

/// prost's codec behind the count.
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Name + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Bounded<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Bounded {
            shape: SHAPES.by_name.get(&U::full_name()).copied(),
            elements_max: elements_max(U::NAME),
            decoder: ProstCodec::<T, U>::raw_decoder(Default::default()),
        }
    }
}

/// Counts, then decodes.
pub struct Bounded<U> {
    /// None: the build did not describe it; nothing is taken then.
    shape: Option<usize>,
    elements_max: usize,
    decoder: ProstDecoder<U>,
}

impl<U: Message + Default> Decoder for Bounded<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // tonic hands over one whole message in one piece; the rest would not have been counted.
        if buffer.chunk().len() != buffer.remaining() {
            return Err(Status::internal("a message in pieces"));
        }
        let shape = self
            .shape
            .ok_or_else(|| Status::internal("a message without a description"))?;
        SHAPES.count(shape, buffer.chunk(), self.elements_max)?;
        self.decoder.decode(buffer)
    }
}

fn elements_max(message: &str) -> usize {
    match message {
        "ToWorkerList" | "FromWorkerList" => GRPC_WORKER_ELEMENTS_MAX,
        _ => GRPC_ELEMENTS_MAX,
    }
}

/// What the count needs to know of every message type.
struct Shapes {
    by_name: HashMap<String, usize>,
    /// Fields by their number.
    messages: Vec<Vec<Option<Field>>>,
}

#[derive(Clone, Copy, Default)]
struct Field {
    /// Comes more than once: what is counted.
    repeated: bool,
    /// One value of it may hold one number a byte.
    packed: bool,
    /// `items` of a list, with a bound of its own.
    items: bool,
    /// Its shape, where it is a message.
    message: Option<usize>,
}

impl Shapes {
    fn new(files: &FileDescriptorSet) -> Self {
        let of_package = |package: &str, message: &DescriptorProto| format!("{package}.{}", message.name());
        let all = || {
            let files = files.file.iter();
            files.flat_map(|file| file.message_type.iter().map(move |message| (file.package(), message)))
        };
        let by_name: HashMap<String, usize> = all()
            .enumerate()
            .map(|(index, (package, message))| (of_package(package, message), index))
            .collect();
        let messages = all().map(|(_, message)| fields(message, &by_name)).collect();
        Self { by_name, messages }
    }

    /// Refuses what holds too much, and what is no message at all.
    fn count(&self, shape: usize, bytes: &[u8], elements_max: usize) -> Result<(), Status> {
        let mut left = Left {
            items: GRPC_LIST_ITEMS_MAX,
            elements: elements_max,
        };
        self.walk(shape, bytes, &mut left).map_err(|over| match over {
            Over::Items => too_many("items", GRPC_LIST_ITEMS_MAX, "items in one list"),
            Over::Elements => too_many("", elements_max, "repeated values in one message"),
            Over::Encoding => Status::from(Problem::new(Code::BadEncoding, "not a protobuf message")),
        })
    }

    /// As deep as the messages are nested by their types, which do not contain themselves.
    fn walk(&self, shape: usize, mut bytes: &[u8], left: &mut Left) -> Result<(), Over> {
        let fields = self.messages.get(shape).map(Vec::as_slice).unwrap_or_default();
        while !bytes.is_empty() {
            let (number, wire_type) = decode_key(&mut bytes).map_err(|_| Over::Encoding)?;
            let field = fields.get(number as usize).copied().flatten().unwrap_or_default();
            let length = match wire_type {
                WireType::Varint => {
                    decode_varint(&mut bytes).map_err(|_| Over::Encoding)?;
                    0
                }
                WireType::ThirtyTwoBit => 4,
                WireType::SixtyFourBit => 8,
                WireType::LengthDelimited => decode_varint(&mut bytes)
                    .ok()
                    .and_then(|length| usize::try_from(length).ok())
                    .ok_or(Over::Encoding)?,
                // None of ours has any.
                WireType::StartGroup | WireType::EndGroup => return Err(Over::Encoding),
            };
            let value = bytes.get(..length).ok_or(Over::Encoding)?;
            left.take(field, value.len())?;
            if let (Some(message), WireType::LengthDelimited) = (field.message, wire_type) {
                self.walk(message, value, left)?;
            }
            bytes.advance(length);
        }
        Ok(())
    }
}

fn fields(message: &DescriptorProto, by_name: &HashMap<String, usize>) -> Vec<Option<Field>> {
    let mut fields = Vec::new();
    for described in &message.field {
        let number = usize::try_from(described.number()).unwrap_or_default();
        let repeated = described.label() == Label::Repeated;
        let of_message = described.r#type() == Type::Message;
        if fields.len() <= number {
            fields.resize(number + 1, None);
        }
        fields[number] = Some(Field {
            repeated,
            packed: repeated && !matches!(described.r#type(), Type::Message | Type::Bytes | Type::String),
            items: repeated && of_message && described.name() == "items",
            message: by_name.get(described.type_name().trim_start_matches('.')).copied(),
        });
    }
    fields
}

struct Left {
    items: usize,
    elements: usize,
}

impl Left {
    fn take(&mut self, field: Field, bytes: usize) -> Result<(), Over> {
        if field.items {
            self.items = self.items.checked_sub(1).ok_or(Over::Items)?;
        } else if field.repeated {
            let values = if field.packed { bytes.max(1) } else { 1 };
            self.elements = self.elements.checked_sub(values).ok_or(Over::Elements)?;
        }
        Ok(())
    }
}

enum Over {
    Items,
    Elements,
    Encoding,
}

fn too_many(field: &str, max: usize, what: &str) -> Status {
    Problem::new(Code::TooLarge, format!("at most {max} {what}"))
        .with_field(field)
        .into()
}

#[cfg(test)]
mod tests {
    use protocol::ledger::{Attestation, Signature};

    use super::*;
    use crate::rpc;

    fn check<M: Message + Name>(message: &M) -> Result<(), String> {
        check_bytes::<M>(&message.encode_to_vec())
    }

    fn check_bytes<M: Name>(bytes: &[u8]) -> Result<(), String> {
        let shape = *SHAPES.by_name.get(&M::full_name()).expect("described");
        let counted = SHAPES.count(shape, bytes, elements_max(M::NAME));
        counted.map_err(|status| Problem::from(status).to_string())
    }

    #[test]
    fn empty_items_are_counted_before_they_are_decoded() {
        let list = |items| rpc::BroadcastRequests {
            items: vec![rpc::BroadcastRequest::default(); items],
        };
        assert_eq!(check(&list(GRPC_LIST_ITEMS_MAX)), Ok(()));
        let refused = check(&list(GRPC_LIST_ITEMS_MAX + 1)).expect_err("too many");
        assert_eq!(refused, "too_large [items]: at most 1024 items in one list");
        // Two bytes each, a whole message of them.
        let flood = [0x0a, 0x00].repeat(2 * 1024 * 1024);
        check_bytes::<rpc::BroadcastRequests>(&flood).expect_err("too many");
        check_bytes::<rpc::ToWorkerList>(&flood).expect_err("too many");
    }

    #[test]
    fn what_is_repeated_inside_counts_over_the_whole_message() {
        let request = rpc::BroadcastRequest {
            certificates: vec![Vec::new(); GRPC_ELEMENTS_MAX / 2 + 1],
            ..Default::default()
        };
        assert_eq!(check(&request), Ok(()));
        let refused = check(&rpc::BroadcastRequests {
            items: vec![request; 2],
        });
        let refused = refused.expect_err("too many");
        assert_eq!(refused, "too_large: at most 65536 repeated values in one message");

        // Also where the ledger's own messages are inside.
        let signature = Signature {
            path: vec![Vec::new(); GRPC_ELEMENTS_MAX],
            ..Default::default()
        };
        let attestation = Attestation {
            signature: Some(signature),
            ..Default::default()
        };
        let exchange = rpc::ExchangeRequest {
            attestations: vec![attestation],
        };
        check(&exchange).expect_err("the attestation itself is one too many");
    }

    #[test]
    fn a_worker_may_be_told_as_many_keys_as_a_call_may_read() {
        let answer = |entries| rpc::ToWorker {
            message: Some(rpc::to_worker::Message::Answer(rpc::Answer {
                entries: vec![rpc::Entry::default(); entries],
                ..Default::default()
            })),
            ..Default::default()
        };
        let list = |entries| rpc::ToWorkerList {
            items: vec![answer(entries); GRPC_LIST_ITEMS_MAX],
        };
        assert_eq!(check(&list(protocol::limits::READS_MAX)), Ok(()));
        check(&list(protocol::limits::READS_MAX + 1)).expect_err("too many");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [
            [0x0a, 0x7f].as_slice(), // shorter than it says
            &[0x0a],
            &[0x00, 0x00],       // field 0
            &[0x0b, 0x0c],       // a group
            &[0x0a, 1, 0x0b],    // a group inside
            &[0x3d, 0, 0, 0],    // a number cut off
            &[0x08, 0xff, 0xff], // a varint cut off
        ] {
            let refused = check_bytes::<rpc::BroadcastRequests>(bytes).expect_err("no message");
            assert!(refused.starts_with("bad_encoding"), "{refused}");
        }
        // A field that this version does not know is prost's business.
        assert_eq!(
            check_bytes::<rpc::BroadcastRequests>(&[0x7a, 2, 0xff, 0xff, 0x78, 1]),
            Ok(())
        );
    }

    /// A message that held itself could be walked as deep as its bytes go.
    #[test]
    fn no_message_holds_itself() {
        fn depth(of: usize, above: &mut Vec<usize>) {
            assert!(!above.contains(&of), "a message holds itself");
            above.push(of);
            let fields = SHAPES.messages[of].iter().flatten();
            fields
                .filter_map(|field| field.message)
                .for_each(|inner| depth(inner, above));
            above.pop();
        }
        (0..SHAPES.messages.len()).for_each(|message| depth(message, &mut Vec::new()));
        assert!(SHAPES.by_name.contains_key("medledger.ledger.v1.Signature"));
    }
}
