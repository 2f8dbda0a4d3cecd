//! Reads a policy's text. Recursion is bounded by the depth of gates.

use super::{Gate, Leaf, POLICY_DEPTH_MAX, POLICY_LEAVES_MAX, PolicyError, Rule, Syntax};
use crate::identity::is_msp_id;

pub(super) fn policy(text: &str) -> Result<Gate, PolicyError> {
    let mut parser = Parser { text, at: 0, leaves: 0 };
    parser.blanks();
    if !parser.peek().is_some_and(|byte| byte.is_ascii_alphabetic()) {
        return parser.fail(Syntax::Gate);
    }
    let gate = parser.gate(1)?;
    parser.blanks();
    if parser.peek().is_some() {
        parser.fail(Syntax::Trailing)
    } else {
        Ok(gate)
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    leaves: usize,
}

impl<'a> Parser<'a> {
    fn gate(&mut self, depth: usize) -> Result<Gate, PolicyError> {
        let start = self.at;
        if depth > POLICY_DEPTH_MAX {
            return self.fail(Syntax::Depth);
        }
        let name = self.take_while(|byte| byte.is_ascii_alphanumeric());
        if !matches!(
            name,
            "AND" | "And" | "and" | "OR" | "Or" | "or" | "OutOf" | "OUTOF" | "outof"
        ) {
            return Err(PolicyError::Syntax {
                at: start,
                rule: Syntax::UnknownGate,
            });
        }
        self.blanks();
        if !self.eat(b'(') {
            return self.fail(Syntax::Open);
        }
        self.blanks();
        let number = match name {
            "OutOf" | "OUTOF" | "outof" => Some((self.at, self.number()?)),
            _ => None,
        };
        let rules = self.rules(depth)?;
        let needed = match (number, name) {
            (Some((at, needed)), _) if needed > rules.len() + 1 => {
                return Err(PolicyError::Syntax {
                    at,
                    rule: Syntax::OutOfRange,
                });
            }
            (Some((_, needed)), _) => needed,
            (None, "AND" | "And" | "and") => rules.len(),
            (None, _) => 1,
        };
        Ok(Gate { needed, rules })
    }

    /// OutOf's number, quoted or not, and the comma after it.
    fn number(&mut self) -> Result<usize, PolicyError> {
        let start = self.at;
        let digits = match self.peek() {
            Some(b'\'' | b'"') => self.quoted()?,
            _ => self.take_while(|byte| byte.is_ascii_digit() || byte == b'-'),
        };
        let number = digits.strip_prefix('-').unwrap_or(digits);
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PolicyError::Syntax {
                at: start,
                rule: Syntax::Number,
            });
        }
        let number = match number.parse::<usize>() {
            Ok(number) if number <= POLICY_LEAVES_MAX + 1 && (number == 0 || !digits.starts_with('-')) => number,
            _ => {
                return Err(PolicyError::Syntax {
                    at: start,
                    rule: Syntax::OutOfRange,
                });
            }
        };
        self.blanks();
        if self.peek() == Some(b')') {
            return self.fail(Syntax::Empty);
        }
        if !self.eat(b',') {
            return self.fail(Syntax::Comma);
        }
        self.blanks();
        Ok(number)
    }

    /// Up to and with the closing bracket.
    fn rules(&mut self, depth: usize) -> Result<Vec<Rule>, PolicyError> {
        if self.peek() == Some(b')') {
            return self.fail(Syntax::Empty);
        }
        let mut rules = Vec::new();
        loop {
            rules.push(self.rule(depth)?);
            self.blanks();
            if self.eat(b')') {
                return Ok(rules);
            }
            if !self.eat(b',') {
                return self.fail(Syntax::CommaOrClose);
            }
            self.blanks();
        }
    }

    fn rule(&mut self, depth: usize) -> Result<Rule, PolicyError> {
        match self.peek() {
            Some(b'\'' | b'"') => self.leaf().map(Rule::Leaf),
            Some(byte) if byte.is_ascii_alphabetic() => self.gate(depth + 1).map(Rule::Gate),
            _ => self.fail(Syntax::Rule),
        }
    }

    fn leaf(&mut self) -> Result<Leaf, PolicyError> {
        let start = self.at;
        let wrong = |rule| PolicyError::Syntax { at: start, rule };
        self.leaves += 1;
        if self.leaves > POLICY_LEAVES_MAX {
            return Err(wrong(Syntax::Leaves));
        }
        // An MSP id may hold dots, so the role is what follows the last one.
        let (msp_id, role) = self.quoted()?.rsplit_once('.').ok_or(wrong(Syntax::Principal))?;
        match role.parse() {
            Ok(role) if is_msp_id(msp_id) => Ok(Leaf {
                msp_id: msp_id.to_owned(),
                role,
            }),
            _ => Err(wrong(Syntax::Principal)),
        }
    }

    /// Between quotes of one kind. There are no escapes: no principal needs them.
    fn quoted(&mut self) -> Result<&'a str, PolicyError> {
        let quote = self.text.as_bytes()[self.at];
        let start = self.at + 1;
        match self.text[start..].find(char::from(quote)) {
            Some(len) => {
                self.at = start + len + 1;
                Ok(&self.text[start..start + len])
            }
            None => self.fail(Syntax::Quote),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.peek() == Some(byte);
        self.at += usize::from(eaten);
        eaten
    }

    fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(&fits) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    fn blanks(&mut self) {
        self.take_while(|byte| byte.is_ascii_whitespace());
    }

    fn fail<T>(&self, rule: Syntax) -> Result<T, PolicyError> {
        Err(PolicyError::Syntax { at: self.at, rule })
    }
}
