//! What follows from a validation code for the one who waits. Pure.

use protocol::code;
use service::{Code, Problem};

use crate::ledger::TxStatus;

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    /// A conflict that another endorsement of the same proposal may heal.
    Again,
    /// The same tx_id is VALID at another place, or was thought to be.
    Elsewhere,
    Refused(Problem),
}

/// `endorsements`: how often it was endorsed so far. `bound`: the last height at which it may be VALID.
pub fn judge(status: TxStatus, endorsements: u32, endorsements_max: u32, bound: u64) -> Verdict {
    match status.code {
        code::Code::Valid => Verdict::Valid,
        code::Code::Duplicate => Verdict::Elsewhere,
        lost if lost.is_conflict() && status.height >= bound => {
            Verdict::Refused(conflict(lost, "its height bound has passed"))
        }
        lost if lost.is_conflict() && endorsements >= endorsements_max => {
            Verdict::Refused(conflict(lost, &format!("after {endorsements} endorsements")))
        }
        lost if lost.is_conflict() => Verdict::Again,
        _ => Verdict::Refused(invalid(status)),
    }
}

fn conflict(code: code::Code, why: &str) -> Problem {
    Problem::new(Code::MvccConflict, format!("{}: {why}", code.word()))
}

/// `field` is the validation code, `detail` what its check demands.
pub fn invalid(status: TxStatus) -> Problem {
    let detail = format!("{}: {}", status.code.word(), status.code.rule());
    Problem::new(Code::TransactionInvalid, detail).with_height(status.height)
}
