//! Many calls of one identity at one gateway, for loads and tests. It signs itself, so that it knows the tx_id
//! before anybody answers.
//!
//! It shares the machine with what it measures, so it reuses streams and signs in batches.

use std::time::{Duration, Instant};

use anyhow::Result;
use protocol::{Digest, ledger::Kind};
use service::{
    Code, Problem,
    calls::ListCall,
    lists::{Evaluate, Prepare, StatusCall, Submit},
    mux::{self, Mux},
    rpc::{self, Call, Finality, SignedProposal, Submission},
    signer::BatchSigner,
};

use crate::{session::Session, wallet};

/// The gateway is given the time to say itself that it does not know.
const GRACE: Duration = Duration::from_secs(2);

/// Between one try and the next.
pub const AGAIN_AFTER: Duration = Duration::from_millis(500);

pub struct Client {
    pub session: Session,
    prepare: Mux<Prepare>,
    submit: Mux<Submit>,
    evaluate: Mux<Evaluate>,
    status: Mux<StatusCall>,
    signer: BatchSigner,
}

/// How a submit ended.
#[derive(Clone, Debug)]
pub enum End {
    /// At least what was waited for, or less and it says so.
    Done(Submission),
    /// Surely not ordered.
    Refused(Problem),
    /// Ordered and lost, or judged invalid.
    Invalid(Problem),
    /// Nobody said.
    Unknown(String),
}

/// A signed intent.
#[derive(Clone, Debug)]
pub struct Signed {
    pub tx_id: Digest,
    pub proposal: SignedProposal,
}

impl Client {
    pub fn new(session: Session) -> Result<Self> {
        fn mux<C: ListCall>(session: &Session) -> Result<Mux<C>> {
            session.mux(mux::Config::default())
        }
        Ok(Client {
            prepare: mux(&session)?,
            submit: mux(&session)?,
            evaluate: mux(&session)?,
            status: mux(&session)?,
            signer: session.signer(),
            session,
        })
    }

    pub fn peer(&self) -> &str {
        &self.session.peer.name
    }

    pub async fn plan(&self, call: &Call, within: Duration) -> Result<rpc::Plan, Problem> {
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

    /// Plans and signs.
    pub async fn sign(&self, call: Call, kind: Kind, within: Duration) -> Result<Signed, Problem> {
        let plan = self.plan(&call, within).await?;
        let intent = wallet::propose(&self.session.identity, &plan, call, kind, 0);
        let tx_id = intent.tx_id;
        let proposal = intent.sign_in_batch(&self.session.identity, &self.signer).await?;
        Ok(Signed { tx_id, proposal })
    }

    /// Hands over a signed intent, for the first time or again.
    pub async fn submit(&self, signed: &Signed, wait: Finality, within: Duration) -> End {
        let request = rpc::SubmitRequest {
            id: 0,
            intent: Some(rpc::submit_request::Intent::Signed(signed.proposal.clone())),
            wait: wait.into(),
            timeout_ms: millis(within),
        };
        match self.submit.call(request, within + GRACE).await {
            Ok(reply) => end(reply),
            Err(error) if error.surely_undone() => End::Refused(error.into()),
            Err(error) => End::Unknown(error.to_string()),
        }
    }

    /// Plans, signs, submits: all of it within the time.
    pub async fn send(&self, call: Call, wait: Finality, within: Duration) -> (Option<Signed>, End) {
        let started = Instant::now();
        match self.sign(call, Kind::Submit, within).await {
            Ok(signed) => {
                let left = within.saturating_sub(started.elapsed());
                let end = self.submit(&signed, wait, left).await;
                (Some(signed), end)
            }
            // Nothing was signed, so nothing can have been done.
            Err(problem) => (None, End::Refused(problem)),
        }
    }

    /// As `send`, and again for as long as waiting may mend it and there is time: one transaction, however often it is
    /// handed over.
    pub async fn send_through(&self, call: Call, wait: Finality, within: Duration) -> End {
        let deadline = Instant::now() + within;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut signed = None;
        loop {
            let end = match &signed {
                None => {
                    let (intent, end) = self.send(call.clone(), wait, left()).await;
                    signed = intent;
                    end
                }
                Some(signed) => self.submit(signed, wait, left()).await,
            };
            let mended_by_waiting = match &end {
                End::Refused(problem) => passes(problem),
                End::Unknown(_) => true,
                End::Done(_) | End::Invalid(_) => false,
            };
            if !mended_by_waiting || left() <= AGAIN_AFTER {
                return end;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// A query; the connection's certificate says who asks. The contract's answer.
    pub async fn evaluate(&self, call: Call, within: Duration) -> Result<Vec<u8>, Problem> {
        let intent = Some(rpc::evaluate_request::Intent::Call(call));
        let request = rpc::EvaluateRequest { id: 0, intent };
        match self.evaluate.call(request, within).await?.outcome {
            Some(rpc::evaluate_reply::Outcome::Evaluation(answer)) => Ok(answer.response),
            Some(rpc::evaluate_reply::Outcome::Problem(problem)) => Err(problem.into()),
            None => Err(Problem::new(Code::Internal, "an empty reply")),
        }
    }

    pub async fn status(&self, tx_id: &Digest, wait: Finality, within: Duration) -> Result<rpc::TxStatus, Problem> {
        let request = rpc::StatusRequest {
            id: 0,
            tx_id: tx_id.to_vec(),
            wait: wait.into(),
            timeout_ms: millis(within),
        };
        match self.status.call(request, within + GRACE).await?.outcome {
            Some(rpc::status_reply::Outcome::Status(status)) => Ok(status),
            Some(rpc::status_reply::Outcome::Problem(problem)) => Err(problem.into()),
            None => Err(Problem::new(Code::Internal, "an empty reply")),
        }
    }
}

/// Whether waiting may mend it.
pub fn passes(problem: &Problem) -> bool {
    matches!(problem.code.http_status().as_u16(), 429 | 503 | 504)
}

/// At least 1: 0 would be the gateway's own choice.
fn millis(within: Duration) -> u32 {
    u32::try_from(within.as_millis()).unwrap_or(u32::MAX).max(1)
}

fn end(reply: rpc::SubmitReply) -> End {
    match reply.outcome {
        Some(rpc::submit_reply::Outcome::Submission(done)) => End::Done(done),
        Some(rpc::submit_reply::Outcome::Problem(problem)) => {
            let problem = Problem::from(problem);
            match problem.code {
                Code::UnknownOutcome => End::Unknown(problem.detail),
                Code::TransactionInvalid | Code::MvccConflict => End::Invalid(problem),
                _ => End::Refused(problem),
            }
        }
        None => End::Unknown("an empty reply".to_owned()),
    }
}
