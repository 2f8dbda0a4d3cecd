//! Arguments: a JSON array, decoded into a function's parameters.
//!
//! What goes wrong is said as field and rule, without a value: of serde's messages only the part that
//! comes from a type ("expected …", "missing field …") is kept.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

use crate::Rejection;
use crate::locate::{self, Step};

/// A tuple of parameters.
pub trait Arguments<'de>: Sized {
    const COUNT: usize;
    fn read<A: SeqAccess<'de>>(seq: &mut A) -> Result<Self, A::Error>;
}

macro_rules! tuple {
    ($count:literal: $($type:ident)*) => {
        impl<'de, $($type: Deserialize<'de>),*> Arguments<'de> for ($($type,)*) {
            const COUNT: usize = $count;
            #[allow(unused_variables)]
            fn read<Seq: SeqAccess<'de>>(seq: &mut Seq) -> Result<Self, Seq::Error> {
                Ok(($(
                    match seq.next_element::<$type>()? {
                        Some(value) => value,
                        // An Option becomes None, anything else is missing.
                        None => $type::deserialize(Absent(PhantomData))?,
                    },
                )*))
            }
        }
    };
}
tuple!(0:);
tuple!(1: A);
tuple!(2: A B);
tuple!(3: A B C);
tuple!(4: A B C D);
tuple!(5: A B C D E);
tuple!(6: A B C D E F);
tuple!(7: A B C D E F G);
tuple!(8: A B C D E F G H);

struct Absent<E>(PhantomData<E>);

impl<'de, E: de::Error> Deserializer<'de> for Absent<E> {
    type Error = E;
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, E> {
        Err(E::custom(TOO_FEW))
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_none()
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

const TOO_FEW: &str = "is missing: too few arguments";
const TOO_MANY: &str = "has more values than the function has parameters";

/// Decodes through a visitor, so that a call costs one pass.
struct List<T>(T);

impl<'de, T: Arguments<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V<T>(PhantomData<T>);
        impl<'de, T: Arguments<'de>> Visitor<'de> for V<T> {
            type Value = List<T>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON array with the function's arguments")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let value = T::read(&mut seq)?;
                if seq.next_element::<IgnoredAny>()?.is_some() {
                    return Err(de::Error::custom(TOO_MANY));
                }
                Ok(List(value))
            }
        }
        deserializer.deserialize_seq(V(PhantomData))
    }
}

/// The parameters, or which of them does not fit and why. `names` are the parameters' names.
pub fn decode<'de, T: Arguments<'de>>(arguments: &'de [u8], names: &[&str]) -> Result<T, Rejection> {
    match serde_json::from_slice::<List<T>>(arguments) {
        Ok(List(value)) => Ok(value),
        // Only a refused call pays for finding out where.
        Err(error) => Err(explain(&error, arguments, names)),
    }
}

/// Not generic, so that a contract with many functions stays small.
fn explain(error: &serde_json::Error, arguments: &[u8], names: &[&str]) -> Rejection {
    let message = error.to_string();
    if !error.is_data() {
        let reason = if message.starts_with("trailing characters") {
            "is followed by something else"
        } else {
            "is not JSON"
        };
        return Rejection::bad_arguments("arguments".into(), reason.into());
    }
    let path = locate::path(arguments, error.line(), error.column());
    let mut field = String::new();
    if message.starts_with(TOO_FEW) {
        // Said at the end of the list: the one after the last is missing.
        push_camel(&mut field, names.get(path.elements).unwrap_or(&"arguments"));
    } else {
        for (depth, step) in path.steps.iter().enumerate() {
            match step {
                Step::Index(index) if depth == 0 => push_camel(&mut field, names.get(*index).unwrap_or(&"arguments")),
                Step::Index(index) => field.push_str(&format!("[{index}]")),
                Step::Key(key) => {
                    field.push('.');
                    field.push_str(key);
                }
            }
        }
    }
    if field.is_empty() || message.starts_with(TOO_MANY) {
        field = "arguments".into();
    }
    if let Some(missing) = quoted_after(&message, "missing field `") {
        field = format!("{field}.{missing}");
    }
    Rejection::bad_arguments(field, rule(&message))
}

/// Parameters are named as in Rust, fields as in JSON: `personal_number` is `personalNumber`.
fn push_camel(field: &mut String, name: &str) {
    let mut upper = false;
    for letter in name.chars() {
        match letter {
            '_' => upper = true,
            _ if upper => {
                field.push(letter.to_ascii_uppercase());
                upper = false;
            }
            _ => field.push(letter),
        }
    }
}

fn rule(message: &str) -> Cow<'static, str> {
    if message.starts_with("missing field `") {
        return "is missing".into();
    }
    for known in [TOO_FEW, TOO_MANY] {
        if message.starts_with(known) {
            return known.into();
        }
    }
    // The expectation is the type's, what stands before it may quote the caller.
    match message.rfind("expected ") {
        Some(at) => {
            let end = message
                .rfind(" at line ")
                .filter(|end| *end > at)
                .unwrap_or(message.len());
            format!("does not fit: {}", &message[at..end]).into()
        }
        None => "does not fit".into(),
    }
}

fn quoted_after<'m>(message: &'m str, prefix: &str) -> Option<&'m str> {
    message.strip_prefix(prefix)?.split('`').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Person {
        name: String,
        contact: Option<Contact>,
        sex: Option<Sex>,
    }
    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Contact {
        phone: u32,
    }
    #[derive(serde::Deserialize, Debug)]
    #[serde(rename_all = "lowercase")]
    #[allow(dead_code)]
    enum Sex {
        Female,
        Male,
    }

    /// `expected`: "field: rule", or "ok".
    #[track_caller]
    fn check(arguments: &str, expected: &str) {
        let got =
            match decode::<(String, Person, Option<u32>)>(arguments.as_bytes(), &["given_number", "person", "limit"]) {
                Ok(_) => "ok".into(),
                Err(rejection) => {
                    assert_eq!(rejection.kind(), crate::Refusal::BadArguments);
                    rejection.to_string()
                }
            };
        assert_eq!(got, expected, "{arguments}");
        assert!(!got.contains("secret"), "{got}");
    }

    #[test]
    fn arguments_say_field_and_rule() {
        check(r#"["n", {"name": "a"}]"#, "ok");
        check(
            r#"["n", {"name": "a", "contact": {"phone": 5}, "sex": "female"}, 7]"#,
            "ok",
        );
        check(r#"["n", {"name": "a"}, null]"#, "ok");
        check(r#"["n"]"#, "person: is missing: too few arguments");
        check("[]", "givenNumber: is missing: too few arguments");
        check(
            r#"["n", {"name": "a"}, 7, 8]"#,
            "arguments: has more values than the function has parameters",
        );
        check(r#"["n", {}]"#, "person.name: is missing");
        check(r#"["n", {"name": 5}]"#, "person.name: does not fit: expected a string");
        check(
            r#"["n", {"name": "a", "contact": {}}]"#,
            "person.contact.phone: is missing",
        );
        check(
            r#"["n", {"name": "a", "contact": {"phone": "secret expected secret"}}]"#,
            "person.contact.phone: does not fit: expected u32",
        );
        check(
            r#"["n", {"name": "a", "secret": 1}]"#,
            "person: does not fit: expected one of `name`, `contact`, `sex`",
        );
        check(
            r#"["n", {"name": "a", "sex": "secret"}]"#,
            "person.sex: does not fit: expected `female` or `male`",
        );
        check(r#"["n", "secret"]"#, "person: does not fit: expected struct Person");
        check(
            r#"{"secret": 1}"#,
            "arguments: does not fit: expected a JSON array with the function's arguments",
        );
        check(r#"["secret""#, "arguments: is not JSON");
        check("secret", "arguments: is not JSON");
        check(
            r#"["n", {"name": "a"}] secret"#,
            "arguments: is followed by something else",
        );
    }
}
