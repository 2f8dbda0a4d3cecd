//! Whose signatures are enough: Fabric's signature policies, in syntax and in meaning.
//!
//! ```text
//! policy    = gate
//! gate      = ("AND" | "OR") "(" rule { "," rule } ")" | "OutOf" "(" n { "," rule } ")"
//! rule      = gate | principal
//! principal = "'" msp id "." ("admin" | "peer" | "orderer" | "client" | "member") "'"
//! ```
//!
//! Gates are written `AND`, `And` or `and`, `OR`, `Or` or `or`, `OutOf`, `OUTOF` or `outof`, as
//! Fabric's `policydsl` knows them; `n` may stand in quotes and may be 0 (always satisfied) up to
//! one more than there are rules (never satisfied). What `policydsl` accepts only because an
//! expression library lies beneath it (arithmetic, quoted policies, brackets) is refused.
//!
//! [`Policy::evaluate`] does what Fabric's `cauthdsl` does, step by step. Mind its greed: a gate
//! goes through all of its rules even when it has enough, and every satisfied rule uses up a
//! signature. `AND(OR('A.peer','B.peer'),'B.peer')` is not satisfied by one signature of A and one
//! of B, because the `OR` takes both. [`Policy::minimal_sets`] knows that.

mod parse;
mod sets;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
};

use crate::{
    Digest,
    identity::{Certificate, PrincipalRole, Role},
    limits::POLICY_BYTES_MAX,
};

/// Gates within gates; the outermost counts as 1.
pub const POLICY_DEPTH_MAX: usize = 8;
/// Principals in a policy.
pub const POLICY_LEAVES_MAX: usize = 128;
/// Sets that [`Policy::minimal_sets`] gives at most.
pub const POLICY_SETS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("the policy is longer than {POLICY_BYTES_MAX} bytes")]
    TooLong,
    /// `at` counts bytes from 0.
    #[error("policy, at byte {at}: {rule}")]
    Syntax { at: usize, rule: Syntax },
    #[error("the policy names {0}, which is not a member")]
    NotMember(String),
}

/// The rule that a policy's text breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Syntax {
    #[error("a policy is a gate: AND(…), OR(…) or OutOf(n, …)")]
    Gate,
    #[error("expected a gate or a principal such as 'HospitalA.member'")]
    Rule,
    #[error("unknown gate; there are AND, OR and OutOf")]
    UnknownGate,
    #[error("expected (")]
    Open,
    #[error("expected , or )")]
    CommaOrClose,
    #[error("expected , and the rules after OutOf's number")]
    Comma,
    #[error("the quote is never closed")]
    Quote,
    #[error("a principal is '<MSP id>.<role>', with the role admin, peer, orderer, client or member")]
    Principal,
    #[error("expected OutOf's number")]
    Number,
    #[error("OutOf's number must be 0 to one more than its rules")]
    OutOfRange,
    #[error("a gate has at least one rule")]
    Empty,
    #[error("gates are nested deeper than {POLICY_DEPTH_MAX}")]
    Depth,
    #[error("more than {POLICY_LEAVES_MAX} principals")]
    Leaves,
    #[error("something follows the policy")]
    Trailing,
}

/// What a policy asks for at one place: a signature by a role of an organisation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leaf {
    pub msp_id: String,
    pub role: PrincipalRole,
}

/// Who signed, with a signature and a certificate that are checked already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub msp_id: String,
    pub role: Role,
    /// [`Certificate::identity`]: one certificate counts once, in whatever encoding it is cited.
    pub identity: Digest,
}

impl From<&Certificate> for Principal {
    fn from(certificate: &Certificate) -> Self {
        Principal {
            msp_id: certificate.msp_id.clone(),
            role: certificate.role,
            identity: certificate.identity,
        }
    }
}

impl Leaf {
    fn is_satisfied_by(&self, principal: &Principal) -> bool {
        self.msp_id == principal.msp_id && principal.role.is(self.role)
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}.{}'", self.msp_id, self.role)
    }
}

/// A parsed policy. `Display` gives its canonical text, which parses to the same policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy(Gate);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Gate {
    needed: usize,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Rule {
    Leaf(Leaf),
    Gate(Gate),
}

impl Policy {
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > POLICY_BYTES_MAX {
            return Err(PolicyError::TooLong);
        }
        let policy = Policy(parse::policy(text)?);
        // Blanks after commas make the canonical text a little longer; it must be legal as well.
        if policy.to_string().len() > POLICY_BYTES_MAX {
            return Err(PolicyError::TooLong);
        }
        Ok(policy)
    }

    /// Whether the signers satisfy the policy. Their order matters: each place of the policy, from
    /// left to right, takes the first fitting signer that is not taken yet.
    pub fn evaluate(&self, signers: &[Principal]) -> bool {
        let mut seen = HashSet::with_capacity(signers.len());
        let signers: Vec<&Principal> = signers.iter().filter(|signer| seen.insert(signer.identity)).collect();
        Evaluation {
            taken: vec![false; signers.len()],
            signers,
            order: Vec::new(),
        }
        .gate(&self.0)
    }

    /// The organisations that the policy names, ascending.
    pub fn organisations(&self) -> BTreeSet<&str> {
        self.leaves().into_iter().map(|leaf| leaf.msp_id.as_str()).collect()
    }

    /// Every organisation that the policy names must be among `members`.
    pub fn check_members(&self, members: &[impl AsRef<str>]) -> Result<(), PolicyError> {
        let is_member = |msp_id: &str| members.iter().any(|member| member.as_ref() == msp_id);
        match self.organisations().into_iter().find(|msp_id| !is_member(msp_id)) {
            Some(stranger) => Err(PolicyError::NotMember(stranger.to_owned())),
            None => Ok(()),
        }
    }

    /// From left to right.
    fn leaves(&self) -> Vec<&Leaf> {
        let mut leaves = Vec::new();
        self.0.collect(&mut leaves);
        leaves
    }
}

impl Gate {
    fn collect<'a>(&'a self, leaves: &mut Vec<&'a Leaf>) {
        for rule in &self.rules {
            match rule {
                Rule::Leaf(leaf) => leaves.push(leaf),
                Rule::Gate(gate) => gate.collect(leaves),
            }
        }
    }
}

struct Evaluation<'a> {
    signers: Vec<&'a Principal>,
    taken: Vec<bool>,
    /// What is taken, in that order, so that a gate which fails gives back what it took.
    order: Vec<usize>,
}

impl Evaluation<'_> {
    fn gate(&mut self, gate: &Gate) -> bool {
        let mut satisfied = 0;
        for rule in &gate.rules {
            satisfied += usize::from(self.rule(rule));
        }
        satisfied >= gate.needed
    }

    fn rule(&mut self, rule: &Rule) -> bool {
        match rule {
            Rule::Leaf(leaf) => self.leaf(leaf),
            Rule::Gate(gate) => {
                let mark = self.order.len();
                let satisfied = self.gate(gate);
                if !satisfied {
                    self.order.drain(mark..).for_each(|signer| self.taken[signer] = false);
                }
                satisfied
            }
        }
    }

    fn leaf(&mut self, leaf: &Leaf) -> bool {
        let fits = |&i: &usize| !self.taken[i] && leaf.is_satisfied_by(self.signers[i]);
        let Some(signer) = (0..self.signers.len()).find(fits) else {
            return false;
        };
        self.taken[signer] = true;
        self.order.push(signer);
        true
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.needed {
            n if n == self.rules.len() => f.write_str("AND(")?,
            1 => f.write_str("OR(")?,
            n => write!(f, "OutOf({n}, ")?,
        }
        for (i, rule) in self.rules.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            match rule {
                Rule::Leaf(leaf) => leaf.fmt(f)?,
                Rule::Gate(gate) => gate.fmt(f)?,
            }
        }
        f.write_str(")")
    }
}

impl std::str::FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Policy::parse(text)
    }
}
