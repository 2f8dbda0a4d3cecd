//! The worker's words for a call that failed, and what they mean to whoever called.

use service::{Code, Problem, rpc};

use super::Ended;

/// The word for the metric, and what follows from it.
pub(super) fn ended(failed: rpc::Failed) -> (&'static str, Ended) {
    let (word, code) = match failed.code.as_str() {
        "rejected" => ("rejected", Code::ContractRejected),
        "bad_arguments" => ("bad_arguments", Code::BadArguments),
        "unknown_function" => ("unknown_function", Code::UnknownFunction),
        "fuel_exhausted" => ("fuel_exhausted", Code::FuelExhausted),
        "memory_exceeded" => ("memory_exceeded", Code::MemoryExceeded),
        "stack_exhausted" => ("stack_exhausted", Code::MemoryExceeded),
        "output_too_large" => ("output_too_large", Code::OutputTooLarge),
        "questions_exceeded" => ("questions_exceeded", Code::OutputTooLarge),
        "trapped" => ("trapped", Code::Trapped),
        "timed_out" => ("timed_out", Code::TimedOut),
        "module_invalid" => ("module_invalid", Code::ModuleInvalid),
        "busy" => return ("busy", Ended::Busy),
        // The worker waited in vain for an answer of ours, or is ending: another one may do it.
        "unanswered" => return ("unanswered", Ended::Lost("the worker got no answer".to_owned())),
        "unavailable" => return ("unavailable", Ended::Lost("the worker is ending".to_owned())),
        _ => return ("unknown_word", Ended::Lost("the worker failed".to_owned())),
    };
    let detail = match word {
        "stack_exhausted" | "questions_exceeded" => said(word, &failed.detail),
        _ => failed.detail,
    };
    (word, Ended::Final(Problem::new(code, detail).with_field(failed.field)))
}

/// Where two words share a code, the word itself comes first.
fn said(word: &str, detail: &str) -> String {
    if detail.is_empty() {
        word.to_owned()
    } else {
        format!("{word}: {detail}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_keeps_its_field_and_reason() {
        let failed = rpc::Failed {
            code: "rejected".into(),
            detail: "exists already".into(),
            field: "id".into(),
        };
        let (_, Ended::Final(problem)) = ended(failed) else {
            panic!("a rejection is final")
        };
        assert_eq!(
            (problem.code, &*problem.field, &*problem.detail),
            (Code::ContractRejected, "id", "exists already")
        );
    }

    #[test]
    fn only_the_machines_own_troubles_go_to_another_worker() {
        for word in ["busy", "unanswered", "unavailable", "whatever"] {
            let (_, end) = ended(rpc::Failed {
                code: word.into(),
                ..Default::default()
            });
            assert!(!matches!(end, Ended::Final(_)), "{word}");
        }
        for word in [
            "trapped",
            "fuel_exhausted",
            "timed_out",
            "stack_exhausted",
            "questions_exceeded",
        ] {
            let (_, end) = ended(rpc::Failed {
                code: word.into(),
                ..Default::default()
            });
            assert!(matches!(end, Ended::Final(_)), "{word}");
        }
    }
}
