//! One identity at one gateway. It signs itself, so that it knows the tx_id before anybody answers.

use std::time::Duration;

use medledger_cli::{session::Session, wallet};
use protocol::{Digest, code, ledger::Kind};
use serde_json::Value;
use service::{
    Code, Problem,
    calls::ListCall,
    lists::{Evaluate, Prepare, StatusCall, Submit},
    mux::{self, Mux},
    rpc::{self, Call, Finality, SignedProposal, Submission},
    signer::BatchSigner,
};

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
    pub fn new(session: Session) -> Self {
        fn mux<C: ListCall>(session: &Session) -> Mux<C> {
            session.mux(mux::Config::default()).expect("an address")
        }
        Client {
            prepare: mux(&session),
            submit: mux(&session),
            evaluate: mux(&session),
            status: mux(&session),
            signer: session.signer(),
            session,
        }
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
            timeout_ms: u32::try_from(within.as_millis()).expect("a short while"),
        };
        // The gateway is given the time to say itself that it does not know.
        match self.submit.call(request, within + Duration::from_secs(2)).await {
            Ok(reply) => end(reply),
            Err(error) if error.surely_undone() => End::Refused(error.into()),
            Err(error) => End::Unknown(error.to_string()),
        }
    }

    /// Plans, signs, submits.
    pub async fn send(&self, call: Call, wait: Finality, within: Duration) -> (Option<Signed>, End) {
        match self.sign(call, Kind::Submit, within).await {
            Ok(signed) => {
                let end = self.submit(&signed, wait, within).await;
                (Some(signed), end)
            }
            // Nothing was signed, so nothing can have been done.
            Err(problem) => (None, End::Refused(problem)),
        }
    }

    /// A submit that must be judged VALID.
    pub async fn must(&self, call: Call) -> (Digest, Submission) {
        let function = call.function.clone();
        match self.send(call, Finality::Committed, super::PATIENCE).await {
            (Some(signed), End::Done(done)) if done.code == code::Code::Valid.word() => (signed.tx_id, done),
            (_, end) => panic!("{function} at {}: {end:?}", self.peer()),
        }
    }

    pub async fn evaluate(&self, call: Call, within: Duration) -> Result<Value, Problem> {
        let intent = Some(rpc::evaluate_request::Intent::Call(call));
        match self
            .evaluate
            .call(rpc::EvaluateRequest { id: 0, intent }, within)
            .await?
            .outcome
        {
            Some(rpc::evaluate_reply::Outcome::Evaluation(answer)) => {
                Ok(serde_json::from_slice(&answer.response).expect("contracts answer JSON"))
            }
            Some(rpc::evaluate_reply::Outcome::Problem(problem)) => Err(problem.into()),
            None => Err(Problem::new(Code::Internal, "an empty reply")),
        }
    }

    pub async fn status(&self, tx_id: &Digest, wait: Finality, within: Duration) -> Result<rpc::TxStatus, Problem> {
        let timeout_ms = u32::try_from(within.as_millis()).expect("a short while");
        let request = rpc::StatusRequest {
            id: 0,
            tx_id: tx_id.to_vec(),
            wait: wait.into(),
            timeout_ms,
        };
        match self
            .status
            .call(request, within + Duration::from_secs(2))
            .await?
            .outcome
        {
            Some(rpc::status_reply::Outcome::Status(status)) => Ok(status),
            Some(rpc::status_reply::Outcome::Problem(problem)) => Err(problem.into()),
            None => Err(Problem::new(Code::Internal, "an empty reply")),
        }
    }
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
