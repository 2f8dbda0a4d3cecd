//! A load client: one identity at one gateway, with its streams of lists and its batch signer.
//!
//! It shares the machine with what it measures, so it reuses streams, signs in batches, and holds
//! one small task per call.

use std::time::Duration;

use anyhow::Result;
use protocol::{Digest, ledger::Kind};
use service::{
    Code, Identity, Problem,
    lists::{Evaluate, Prepare, StatusCall, Submit},
    mux::{self, Mux},
    rpc::{self, Call, Finality},
    signer::BatchSigner,
};

use crate::{network::Network, session::Session, wallet};

pub struct Client {
    pub session: Session,
    prepare: Mux<Prepare>,
    submit: Mux<Submit>,
    evaluate: Mux<Evaluate>,
    status: Mux<StatusCall>,
    signer: BatchSigner,
    /// How many heights ahead of the plan's a proposal may become valid; 0: the gateway's choice.
    heights: u64,
}

/// How one call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Judged VALID by the asked peer; queries: answered.
    Done { tx_id: Option<Digest> },
    /// Too much at once: surely not done. The tx_id of what was signed, if it came so far.
    Refused { tx_id: Option<Digest> },
    /// An answer that says no, by its stable word: surely not done.
    Failed { word: String, tx_id: Option<Digest> },
    /// Ordered or not, nobody said. To be asked for by its tx_id.
    Unknown { tx_id: Digest },
}

impl Client {
    pub fn open(network: &Network, organisation: &str, name: &str, peer: &str, heights: u64) -> Result<Self> {
        let session = network.connect(organisation, name, Some(peer))?;
        let config = mux::Config::default;
        Ok(Client {
            prepare: session.mux(config())?,
            submit: session.mux(config())?,
            evaluate: session.mux(config())?,
            status: session.mux(config())?,
            signer: session.signer(),
            session,
            heights,
        })
    }

    fn identity(&self) -> &Identity {
        &self.session.identity
    }

    /// Plans, signs and submits; waits until the asked peer has judged it.
    pub async fn submit(&self, call: Call, within: Duration) -> End {
        let started = std::time::Instant::now();
        let plan = match self.plan(&call, within).await {
            Ok(plan) => plan,
            // Nothing was signed yet, so nothing can have been done.
            Err(problem) => return refused(problem, None),
        };
        let bound = if self.heights == 0 {
            0
        } else {
            plan.height + self.heights
        };
        let intent = wallet::propose(self.identity(), &plan, call, Kind::Submit, bound);
        let tx_id = intent.tx_id;
        let signed = match intent.sign_in_batch(self.identity(), &self.signer).await {
            Ok(signed) => signed,
            Err(problem) => return refused(problem, None),
        };
        let left = within.saturating_sub(started.elapsed()).max(Duration::from_millis(1));
        let request = rpc::SubmitRequest {
            id: 0,
            intent: Some(rpc::submit_request::Intent::Signed(signed)),
            wait: Finality::Committed.into(),
            timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        };
        // The gateway is given the time to say itself that it does not know.
        match self.submit.call(request, left + Duration::from_secs(1)).await {
            Ok(reply) => judged(tx_id, reply),
            Err(error) if error.surely_undone() => refused(error.into(), Some(tx_id)),
            Err(_) => End::Unknown { tx_id },
        }
    }

    async fn plan(&self, call: &Call, within: Duration) -> Result<rpc::Plan, Problem> {
        let request = rpc::PrepareRequest {
            id: 0,
            call: Some(call.clone()),
        };
        match self.prepare.call(request, within).await?.outcome {
            Some(rpc::prepare_reply::Outcome::Plan(plan)) => Ok(plan),
            Some(rpc::prepare_reply::Outcome::Problem(problem)) => Err(problem.into()),
            None => Err(Problem::new(Code::Internal, "an empty reply")),
        }
    }

    /// A query; the connection's certificate says who asks.
    pub async fn evaluate(&self, call: Call, within: Duration) -> End {
        let intent = Some(rpc::evaluate_request::Intent::Call(call));
        match self.evaluate.call(rpc::EvaluateRequest { id: 0, intent }, within).await {
            Ok(reply) => match reply.outcome {
                Some(rpc::evaluate_reply::Outcome::Evaluation(_)) => End::Done { tx_id: None },
                Some(rpc::evaluate_reply::Outcome::Problem(problem)) => refused(problem.into(), None),
                None => refused(Problem::new(Code::Internal, "an empty reply"), None),
            },
            Err(error) => refused(error.into(), None),
        }
    }

    /// What became of a transaction: its code, or none that is known.
    pub async fn status(&self, tx_id: &Digest, within: Duration) -> Result<Option<String>, Problem> {
        let request = rpc::StatusRequest {
            id: 0,
            tx_id: tx_id.to_vec(),
            wait: Finality::Unspecified.into(),
            timeout_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
        };
        match self.status.call(request, within).await?.outcome {
            Some(rpc::status_reply::Outcome::Status(status)) => Ok(status.found.then_some(status.code)),
            Some(rpc::status_reply::Outcome::Problem(problem)) => Err(problem.into()),
            None => Err(Problem::new(Code::Internal, "an empty reply")),
        }
    }
}

fn judged(tx_id: Digest, reply: rpc::SubmitReply) -> End {
    match reply.outcome {
        Some(rpc::submit_reply::Outcome::Submission(done)) if done.code == protocol::code::Code::Valid.word() => {
            End::Done { tx_id: Some(tx_id) }
        }
        Some(rpc::submit_reply::Outcome::Submission(done)) => End::Failed {
            word: done.code,
            tx_id: Some(tx_id),
        },
        Some(rpc::submit_reply::Outcome::Problem(problem)) => match refused(problem.into(), Some(tx_id)) {
            End::Failed { word, .. } if is_unknown(&word) => End::Unknown { tx_id },
            end => end,
        },
        None => End::Unknown { tx_id },
    }
}

/// Words after which the transaction may still be in the log.
fn is_unknown(word: &str) -> bool {
    [Code::UnknownOutcome, Code::DeadlineExceeded, Code::Internal]
        .iter()
        .any(|code| code.as_str() == word)
}

fn refused(problem: Problem, tx_id: Option<Digest>) -> End {
    match problem.code {
        Code::ResourceExhausted => End::Refused { tx_id },
        code => End::Failed {
            word: code.as_str().to_owned(),
            tx_id,
        },
    }
}
