//! A query at the newest state of this peer: by its own workers, never ordered, recorded nowhere.
//!
//! Who asks is known from the TLS handshake, or from a signed proposal of kind query.

use std::time::Duration;

use prost::Message as _;
use protocol::ledger::Kind;
use protocol::{Digest, sha256};
use service::rpc::{self, evaluate_reply::Outcome, evaluate_request::Intent};
use service::{Caller, Problem, time};
use tokio::time::Instant;

use super::Gateway;
use super::gate::Permit;
use super::intent::{attributes, check_call};
use crate::endorser::check::{active_contract, partition_key};
use crate::endorser::context;
use crate::metrics::{Request, outcome};
use crate::query::QueryView;
use crate::workers::Invocation;

/// When to ask again a peer that is replaying.
const REPLAY_LOOK: Duration = Duration::from_millis(500);

/// A query whose asker is known.
struct Asked {
    contract: String,
    contract_digest: Digest,
    function: String,
    arguments: Vec<u8>,
    context: rpc::Context,
}

impl Gateway {
    pub(super) async fn evaluate(&self, request: rpc::EvaluateRequest, caller: &Caller) -> rpc::EvaluateReply {
        match self.admit("evaluate", caller, request.encoded_len()) {
            Ok(place) => reply(self.evaluated(request.intent, caller, place).await),
            Err(problem) => reply(Err(problem)),
        }
    }

    /// After admission.
    pub(super) async fn evaluated(
        &self,
        intent: Option<Intent>,
        caller: &Caller,
        place: Permit,
    ) -> Result<Vec<u8>, Problem> {
        let metric = Request::begin("evaluate");
        let response = self.try_evaluate(intent, caller).await;
        metric.end(outcome(&response));
        response.inspect(|_| place.served())
    }

    /// Whoever comes by a pod's own name asks it before it is ready: what it would answer is old, and what it would
    /// have ordered is judged by what is new.
    pub(super) fn has_come(&self) -> Result<(), Problem> {
        if !self.ledger.is_replaying() {
            return Ok(());
        }
        let why = "this peer has begun again and not come to where the log ended yet; another one answers";
        Err(Problem::unavailable(why).with_retry_after(REPLAY_LOOK))
    }

    async fn try_evaluate(&self, intent: Option<Intent>, caller: &Caller) -> Result<Vec<u8>, Problem> {
        self.has_come()?;
        let deadline = Instant::now() + self.limits.evaluate_timeout();
        let (asked, routed) = match intent {
            Some(Intent::Signed(signed)) => {
                // A signed question is no bearer token: whoever came by it asks with rights of their own.
                if sha256(&signed.certificate) != caller.certificate().hash {
                    return Err(Problem::denied("a signed query is asked by the one who signed it"));
                }
                let checked = self.endorser.check(signed, Kind::Query)?;
                let context = context(&checked);
                let asked = Asked {
                    contract: checked.proposal.contract.clone(),
                    contract_digest: checked.contract_digest,
                    function: checked.proposal.function.clone(),
                    arguments: checked.arguments.clone(),
                    context,
                };
                let routed = self.route(&asked, deadline).await?;
                partition_key(&self.ledger, &checked, &routed.subject)?;
                (asked, routed)
            }
            Some(Intent::Call(call)) => {
                check_call(&call)?;
                let asked = Asked {
                    contract_digest: active_contract(&self.ledger, &call.contract)?,
                    context: caller_context(caller),
                    contract: call.contract,
                    function: call.function,
                    arguments: call.arguments,
                };
                let routed = self.route(&asked, deadline).await?;
                (asked, routed)
            }
            None => return Err(Problem::invalid("intent", "is missing: a signed proposal or a call")),
        };
        self.ask(asked, routed, deadline).await
    }

    async fn route(&self, asked: &Asked, deadline: Instant) -> Result<rpc::Routed, Problem> {
        let endorser = &self.endorser;
        endorser
            .route(
                &asked.contract_digest,
                &asked.function,
                &asked.arguments,
                Kind::Query,
                deadline,
            )
            .await
    }

    async fn ask(&self, asked: Asked, routed: rpc::Routed, deadline: Instant) -> Result<Vec<u8>, Problem> {
        let subject = &routed.subject;
        let key = (!subject.is_empty()).then(|| self.ledger.secret.partition_key(&asked.contract, subject));
        let mut view = QueryView::new(&self.ledger, &asked.contract, key.as_ref())?;
        let call = Invocation {
            digest: asked.contract_digest,
            function: asked.function,
            arguments: asked.arguments,
            context: asked.context,
            keys: routed.keys,
        };
        let done = self.endorser.workers.invoke(&call, &mut view, deadline).await?;
        Ok(done.response)
    }
}

pub(super) fn reply(response: Result<Vec<u8>, Problem>) -> rpc::EvaluateReply {
    let evaluation = response.map(|response| rpc::Evaluation { response });
    let outcome = evaluation.map_or_else(|problem| Outcome::Problem(problem.into()), Outcome::Evaluation);
    rpc::EvaluateReply {
        id: 0,
        outcome: Some(outcome),
    }
}

/// Who asks without signing: what the handshake proved.
fn caller_context(caller: &Caller) -> rpc::Context {
    rpc::Context {
        tx_id: rand::random::<Digest>().to_vec(),
        query: true,
        client_time_ms: time::unix_ms(),
        organisation: caller.msp_id.clone(),
        common_name: caller.common_name.clone(),
        role: caller.role.to_string(),
        attributes: attributes(caller),
        asserted: true,
    }
}
