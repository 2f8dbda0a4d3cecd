//! Single calls at a gateway, for people: submit, evaluate, status; signed here or by the gateway.

use std::time::Duration;

use anyhow::{Result, bail};
use prost::Message as _;
use protocol::{Digest, code::Code, ledger::Kind};
use serde::Serialize;
use serde_json::Value;
use service::{
    Code as Refusal, Problem,
    rpc::{self, Call, Finality},
};

use crate::{
    session::{Session, deadline},
    wallet,
};

/// What became of a transaction.
#[derive(Clone, Debug, Serialize)]
pub struct Submitted {
    pub tx_id: String,
    /// `ordered`, `committed` or `attested`.
    pub reached: String,
    pub code: String,
    pub partition: u32,
    pub height: u64,
    pub index: u32,
    /// How often it was endorsed: more than 1 after conflicts.
    pub endorsements: u32,
    /// The orderer's signature over the place, as evidence: a `ledger.Receipt` in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    pub response: Value,
}

/// One committed block of a chain; `None`: the peer has none at that height.
pub async fn block(session: &Session, partition: u32, height: u64) -> Result<Option<rpc::BlockReply>> {
    let request = rpc::BlocksRequest {
        partition,
        from_height: height,
        count: 1,
    };
    let mut blocks = session
        .gateway()
        .blocks(request)
        .await
        .map_err(Problem::from)?
        .into_inner();
    Ok(blocks.message().await.map_err(Problem::from)?)
}

/// Longer than any timeout that a gateway takes by itself.
const GRACE: Duration = Duration::from_secs(5);

/// `sign`: here, by the client's own key; else the gateway signs and says so on the ledger.
pub async fn submit(session: &Session, call: Call, sign: bool, wait: Finality, within: Duration) -> Result<Submitted> {
    let intent = if sign {
        rpc::submit_request::Intent::Signed(wallet::signed(session, call, Kind::Submit).await?.1)
    } else {
        rpc::submit_request::Intent::Call(call)
    };
    let request = rpc::SubmitRequest {
        id: 0,
        intent: Some(intent),
        wait: wait.into(),
        timeout_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
    };
    let request = deadline(tonic::Request::new(request), within + GRACE);
    let reply = session
        .gateway()
        .submit(request)
        .await
        .map_err(Problem::from)?
        .into_inner();
    match reply.outcome {
        Some(rpc::submit_reply::Outcome::Submission(done)) => {
            if !done.code.is_empty() && done.code != Code::Valid.word() {
                let rule = Code::from_word(&done.code).map_or("", Code::rule);
                let invalid = Problem::new(Refusal::TransactionInvalid, format!("{}: {rule}", done.code));
                return Err(refused(invalid, &reply.tx_id));
            }
            Ok(Submitted {
                tx_id: hex::encode(&reply.tx_id),
                reached: finality_word(done.reached()).to_owned(),
                code: done.code,
                partition: done.partition,
                height: done.height,
                index: done.index,
                endorsements: done.endorsements,
                receipt: done.receipt.map(|receipt| hex::encode(receipt.encode_to_vec())),
                response: json_of(&done.response),
            })
        }
        Some(rpc::submit_reply::Outcome::Problem(problem)) => Err(refused(problem.into(), &reply.tx_id)),
        None => bail!("the gateway's reply is empty"),
    }
}

fn refused(problem: Problem, tx_id: &[u8]) -> anyhow::Error {
    match tx_id.is_empty() {
        true => problem.into(),
        false => anyhow::Error::from(problem).context(format!("transaction {}", hex::encode(tx_id))),
    }
}

/// Asks without ordering anything.
pub async fn evaluate(session: &Session, call: Call, sign: bool) -> Result<Value> {
    let intent = if sign {
        rpc::evaluate_request::Intent::Signed(wallet::signed(session, call, Kind::Query).await?.1)
    } else {
        rpc::evaluate_request::Intent::Call(call)
    };
    let request = rpc::EvaluateRequest {
        id: 0,
        intent: Some(intent),
    };
    let request = deadline(tonic::Request::new(request), Duration::from_secs(30));
    let reply = session
        .gateway()
        .evaluate(request)
        .await
        .map_err(Problem::from)?
        .into_inner();
    match reply.outcome {
        Some(rpc::evaluate_reply::Outcome::Evaluation(answer)) => Ok(json_of(&answer.response)),
        Some(rpc::evaluate_reply::Outcome::Problem(problem)) => Err(Problem::from(problem).into()),
        None => bail!("the gateway's reply is empty"),
    }
}

pub async fn status(session: &Session, tx_id: &Digest, wait: Finality, within: Duration) -> Result<rpc::TxStatus> {
    let request = rpc::StatusRequest {
        id: 0,
        tx_id: tx_id.to_vec(),
        wait: wait.into(),
        timeout_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
    };
    let request = deadline(tonic::Request::new(request), within + GRACE);
    let reply = session
        .gateway()
        .status(request)
        .await
        .map_err(Problem::from)?
        .into_inner();
    match reply.outcome {
        Some(rpc::status_reply::Outcome::Status(status)) => Ok(status),
        Some(rpc::status_reply::Outcome::Problem(problem)) => Err(Problem::from(problem).into()),
        None => bail!("the gateway's reply is empty"),
    }
}

pub fn finality_word(finality: Finality) -> &'static str {
    match finality {
        Finality::Unspecified => "",
        Finality::Ordered => "ordered",
        Finality::Committed => "committed",
        Finality::Attested => "attested",
    }
}

/// Contracts answer JSON; what is not is shown as text.
fn json_of(response: &[u8]) -> Value {
    if response.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(response).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(response).into_owned()))
}
