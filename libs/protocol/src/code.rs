//! What `validate` says of a transaction, and the order in which the checks are made.
//!
//! The first failing check gives the code. A code other than VALID is provisional until the
//! height passes the transaction's bound: the same tx_id may still become VALID.

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $word:literal;)+) => {
        /// In the order of the checks; the number is a leaf's byte and never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Code {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl Code {
            pub const ALL: &[Code] = &[$(Code::$name,)+];

            /// In the same order.
            pub const WORDS: &[&str] = &[$($word,)+];

            pub fn word(self) -> &'static str {
                match self { $(Code::$name => $word,)+ }
            }

            /// What the check demands, in a sentence for people.
            pub fn rule(self) -> &'static str {
                match self { $(Code::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }

            pub fn from_number(number: u8) -> Option<Code> {
                match number { $($number => Some(Code::$name),)+ _ => None }
            }

            pub fn from_word(word: &str) -> Option<Code> {
                match word { $($word => Some(Code::$name),)+ _ => None }
            }
        }
    };
}

codes! {
    /// All checks passed; its writes are in the state.
    Valid = 0, "VALID";
    /// The partition has not met its genesis marker yet.
    NotStarted = 1, "NOT_STARTED";
    /// The bytes are a canonical transaction with fields of the right sizes and sets in order.
    BadEncoding = 2, "BAD_ENCODING";
    /// Every part stays within its limit.
    TooLarge = 3, "TOO_LARGE";
    /// Proposal and partition belong to the same channel and epoch.
    WrongChannel = 4, "WRONG_CHANNEL";
    /// Only proposals of kind submit are ordered.
    NotSubmit = 5, "NOT_SUBMIT";
    /// The creator's certificate is in the block and issued by a member organisation, in the strict profile, and not revoked on the ledger.
    UnknownCreator = 6, "UNKNOWN_CREATOR";
    /// The creator's role may submit: client or admin for themselves, a peer on behalf of a client.
    CreatorRole = 7, "CREATOR_ROLE";
    /// The client's signature covers this proposal on this channel.
    BadClientSignature = 8, "BAD_CLIENT_SIGNATURE";
    /// The contract is in the config in force.
    UnknownContract = 9, "UNKNOWN_CONTRACT";
    /// The proposal and the result name the contract's active digest.
    ContractDigest = 10, "CONTRACT_DIGEST";
    /// The result was made for this proposal.
    ResultMismatch = 11, "RESULT_MISMATCH";
    /// The partition key belongs to this partition.
    WrongPartition = 12, "WRONG_PARTITION";
    /// Every state key lies under the contract and the partition key.
    KeyOutside = 13, "KEY_OUTSIDE_PARTITION_KEY";
    /// The height has not passed the bound, and the bound is not too far ahead.
    HeightBound = 14, "HEIGHT_BOUND";
    /// The endorsement's snapshot is before this height and not older than the window.
    SnapshotAge = 15, "SNAPSHOT_AGE";
    /// The snapshot's header is the one of this chain at that height.
    SnapshotUnknown = 16, "SNAPSHOT_NOT_ON_CHAIN";
    /// The tx_id is not VALID already.
    Duplicate = 17, "DUPLICATE";
    /// Every endorser's certificate is in the block, issued by a member, role peer, not revoked on the ledger.
    UnknownEndorser = 18, "UNKNOWN_ENDORSER";
    /// Every endorsement's signature covers this result on this channel.
    BadEndorsement = 19, "BAD_ENDORSEMENT_SIGNATURE";
    /// The endorsements satisfy the policy of function, contract or channel, and of every written key; a key's new policy is one that peers of members can satisfy.
    PolicyNotSatisfied = 20, "POLICY_NOT_SATISFIED";
    /// Every key read still has the version that was read.
    MvccConflict = 21, "MVCC_CONFLICT";
    /// No key came into, left or changed in a range that was read.
    PhantomRead = 22, "PHANTOM_READ";
}

impl Code {
    /// Losses that another endorsement of the same proposal can heal.
    pub fn is_conflict(self) -> bool {
        matches!(
            self,
            Code::MvccConflict | Code::PhantomRead | Code::SnapshotAge | Code::SnapshotUnknown
        )
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_lead_back() {
        for (i, code) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, i, "checks are made in the order of the numbers");
            assert_eq!(Code::from_number(*code as u8), Some(*code));
            assert_eq!(Code::from_word(code.word()), Some(*code));
        }
    }
}
