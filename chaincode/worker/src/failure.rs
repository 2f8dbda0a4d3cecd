//! How a call ends without a result: one word for each cause, as `Failed.code` of the protocol says them.
//!
//! Details are literals: nothing of arguments, keys or values gets into them. Only a contract's own rejection
//! brings words, and the SDK makes those of literals too.

use std::borrow::Cow;

use service::rpc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The contract said no.
    Rejected,
    BadArguments,
    UnknownFunction,
    FuelExhausted,
    MemoryExceeded,
    StackExhausted,
    OutputTooLarge,
    QuestionsExceeded,
    /// It crashed, or did what its place forbids.
    Trapped,
    TimedOut,
    ModuleInvalid,
    /// Nothing was done; another worker may have room.
    Busy,
    /// The peer did not answer a question.
    Unanswered,
}

impl Code {
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::Rejected => "rejected",
            Code::BadArguments => "bad_arguments",
            Code::UnknownFunction => "unknown_function",
            Code::FuelExhausted => "fuel_exhausted",
            Code::MemoryExceeded => "memory_exceeded",
            Code::StackExhausted => "stack_exhausted",
            Code::OutputTooLarge => "output_too_large",
            Code::QuestionsExceeded => "questions_exceeded",
            Code::Trapped => "trapped",
            Code::TimedOut => "timed_out",
            Code::ModuleInvalid => "module_invalid",
            Code::Busy => "busy",
            Code::Unanswered => "unanswered",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct Failure {
    pub code: Code,
    pub detail: Cow<'static, str>,
    /// Of a rejection.
    pub field: String,
}

impl Failure {
    pub const fn new(code: Code, detail: &'static str) -> Self {
        Self {
            code,
            detail: Cow::Borrowed(detail),
            field: String::new(),
        }
    }

    /// The guest did what its place forbids.
    pub const fn forbidden(detail: &'static str) -> Self {
        Self::new(Code::Trapped, detail)
    }

    pub const fn too_large(detail: &'static str) -> Self {
        Self::new(Code::OutputTooLarge, detail)
    }

    pub const fn timed_out() -> Self {
        Self::new(Code::TimedOut, "the call took longer than it may")
    }
}

impl From<Failure> for rpc::Failed {
    fn from(failure: Failure) -> Self {
        rpc::Failed {
            code: failure.code.as_str().to_owned(),
            detail: failure.detail.into_owned(),
            field: failure.field,
        }
    }
}
