//! Values with their rules. A value that breaks one does not decode, and the SDK says which field it
//! was and what was expected.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::{Serialize, Serializer};

/// Decodes a text through a check; `expected` is what the caller is told.
pub fn checked<'de, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
    check: fn(&str) -> bool,
) -> Result<String, D::Error> {
    struct V(&'static str, fn(&str) -> bool);
    impl Visitor<'_> for V {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
            if (self.1)(text) {
                Ok(text.to_owned())
            } else {
                Err(E::invalid_value(Unexpected::Other("text"), &self))
            }
        }
    }
    deserializer.deserialize_str(V(expected, check))
}

/// A Swedish personal number `YYMMDD-NNNN`; `+` instead of `-` from the hundredth birthday on. Days 61 to 91 are
/// coordination numbers. There is one way to write a number, so a patient has one subject. The checksum is not
/// asked for: synthetic numbers must work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonalNumber(String);

impl PersonalNumber {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The rule.
    pub fn is_valid(text: &str) -> bool {
        let bytes = text.as_bytes();
        if bytes.len() != 11 || !matches!(bytes[6], b'-' | b'+') {
            return false;
        }
        if !bytes
            .iter()
            .enumerate()
            .all(|(at, byte)| at == 6 || byte.is_ascii_digit())
        {
            return false;
        }
        let two = |at: usize| u32::from(bytes[at] - b'0') * 10 + u32::from(bytes[at + 1] - b'0');
        let (year, month, day) = (two(0), two(2), two(4));
        // The century is not written: 00 may be 2000, which was a leap year.
        is_date(2000 + year, month, if day > 60 { day - 60 } else { day })
    }
}

impl From<PersonalNumber> for String {
    fn from(number: PersonalNumber) -> String {
        number.0
    }
}

impl<'de> Deserialize<'de> for PersonalNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(
            deserializer,
            "a personal number as YYMMDD-NNNN with a date that exists, like 940220-1234",
            Self::is_valid,
        )
        .map(Self)
    }
}

impl Serialize for PersonalNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

fn is_date(year: u32, month: u32, day: u32) -> bool {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return false,
    };
    (1..=days).contains(&day)
}

/// A day, `YYYY-MM-DD`. Ordered as the text is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(String);

impl Date {
    pub fn is_valid(text: &str) -> bool {
        let bytes = text.as_bytes();
        if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
            return false;
        }
        let number = |part: &str| {
            part.bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| part.parse::<u32>().ok())
                .flatten()
        };
        // ASCII up to here is not sure: `get` refuses to cut a letter in two.
        let part = |from: usize, to: usize| text.get(from..to).and_then(number);
        match (part(0, 4), part(5, 7), part(8, 10)) {
            (Some(year), Some(month), Some(day)) => (1850..=2199).contains(&year) && is_date(year, month, day),
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(
            deserializer,
            "a date that exists as YYYY-MM-DD, from 1850 to 2199",
            Self::is_valid,
        )
        .map(Self)
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A text of 1 to `MAX` characters, not all blank, without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_valid(text: &str) -> bool {
        // At most four bytes a character: a long text is refused without counting.
        text.len() <= 4 * MAX
            && text.chars().count() <= MAX
            && !text.trim().is_empty()
            && !text.chars().any(|letter| letter.is_control() && letter != '\n')
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `expecting` wants a static text; these are the lengths in use.
        let expected = match MAX {
            40 => "a text of 1 to 40 characters",
            100 => "a text of 1 to 100 characters",
            200 => "a text of 1 to 200 characters",
            1000 => "a text of 1 to 1000 characters",
            _ => "a short text",
        };
        checked(deserializer, expected, Self::is_valid).map(Self)
    }
}

impl<const MAX: usize> Serialize for Text<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A first-level area, by the code that reports use for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area(String);

impl Area {
    pub fn is_valid(text: &str) -> bool {
        let letter = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        (1..=16).contains(&text.len())
            && text.bytes().next().is_some_and(letter)
            && text.bytes().all(|byte| letter(byte) || byte == b'-')
    }
}

impl<'de> Deserialize<'de> for Area {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(
            deserializer,
            "an area's code of 1 to 16 capital letters, digits and dashes, like SE-AB",
            Self::is_valid,
        )
        .map(Self)
    }
}

impl Serialize for Area {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// How many entries of a page are wanted: 1 to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit<const MAX: u32>(pub u32);

impl<'de, const MAX: u32> Deserialize<'de> for Limit<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V<const MAX: u32>;
        impl<const MAX: u32> Visitor<'_> for V<MAX> {
            type Value = u32;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "a number from 1 to {MAX}")
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<u32, E> {
                u32::try_from(number)
                    .ok()
                    .filter(|number| (1..=MAX).contains(number))
                    .ok_or_else(|| E::invalid_value(Unexpected::Other("number"), &self))
            }
        }
        deserializer.deserialize_u32(V::<MAX>).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(number: &str, valid: bool) {
        assert_eq!(PersonalNumber::is_valid(number), valid, "{number}");
    }

    #[test]
    fn personal_numbers() {
        check("940220-1234", true);
        check("940220+1234", true);
        check("000229-0000", true);
        check("040229-0000", true);
        check("010229-0000", false);
        check("940280-1234", true); // a coordination number, day 20
        check("940292-1234", false);
        check("940260-1234", false);
        check("941320-1234", false);
        check("940020-1234", false);
        check("940200-1234", false);
        check("940431-1234", false);
        check("9402201234", false);
        check("19940220-1234", false);
        check("940220-12345", false);
        check("940220 1234", false);
        check("94022a-1234", false);
        check("94022å-123", false);
        check("", false);
    }

    #[test]
    fn dates() {
        for (date, valid) in [
            ("1994-02-20", true),
            ("2000-02-29", true),
            ("1900-02-29", false),
            ("1994-2-20", false),
            ("1994-02-20T", false),
            ("0001-01-01", false),
            ("+199-01-01", false),
            ("199å-1-01", false),
        ] {
            assert_eq!(Date::is_valid(date), valid, "{date}");
        }
    }

    #[test]
    fn texts() {
        assert!(Text::<3>::is_valid("åäö"));
        assert!(Text::<3>::is_valid("a\nb"));
        assert!(!Text::<3>::is_valid("abcd"));
        assert!(!Text::<3>::is_valid("  "));
        assert!(!Text::<3>::is_valid(""));
        assert!(!Text::<3>::is_valid("a\u{0}"));
    }
}
