//! A transaction on its way through the orderer, as its sender sees it: answered exactly once, honestly.

use protocol::{Digest, ledger::Receipt};
use service::problem::{Code, Problem};

use crate::{intake::CLOSED_RETRY, metrics::ANSWERED, room::Held};

/// Where the answer goes.
pub type Answer = Box<dyn FnOnce(Result<Receipt, Problem>) + Send>;

/// Dropped unanswered it says what is true: `unknown_outcome` once the transaction was sent to the
/// log, `unavailable` before.
pub struct Ticket {
    pub tx_id: Digest,
    answer: Option<Answer>,
    sent: bool,
    _held: Held,
}

impl Ticket {
    pub fn new(tx_id: Digest, answer: Answer, held: Held) -> Self {
        Ticket {
            tx_id,
            answer: Some(answer),
            sent: false,
            _held: held,
        }
    }

    /// From now on it may be in the log.
    pub fn sent(&mut self) {
        self.sent = true;
    }

    pub fn receipt(mut self, receipt: Receipt) {
        self.give("receipt", Ok(receipt));
    }

    pub fn refuse(mut self, problem: Problem) {
        self.give(problem.code.as_str(), Err(problem));
    }

    fn give(&mut self, outcome: &str, result: Result<Receipt, Problem>) {
        if let Some(answer) = self.answer.take() {
            ANSWERED.with_label_values(&[outcome]).inc();
            answer(result);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.answer.is_some() {
            let problem = match self.sent {
                true => unknown_outcome("the orderer ended before the log acknowledged"),
                false => Problem::unavailable("the orderer is ending").with_retry_after(CLOSED_RETRY),
            };
            self.give(problem.code.as_str(), Err(problem));
        }
    }
}

pub fn unknown_outcome(detail: &str) -> Problem {
    Problem::new(Code::UnknownOutcome, detail)
}
