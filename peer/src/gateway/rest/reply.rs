//! What REST answers. Bytes are hexadecimal; a contract's response is JSON, as it came.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use prost::Message as _;
use protocol::CONTROL;
use serde::Serialize;
use serde_json::value::RawValue;
use service::rpc::{self, Finality};
use service::{Code, Problem};
use utoipa::ToSchema;

/// A transaction that got as far as `reached` says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SubmitDocument {
    pub tx_id: String,
    /// `ordered`, `committed` or `attested`.
    pub reached: &'static str,
    /// The validation code; absent when only ordered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub code: String,
    pub partition: u32,
    pub height: u64,
    pub index: u32,
    /// More than 1 after conflicts; 0 when it was VALID before.
    pub endorsements: u32,
    /// The orderer's signature over the place, as evidence: a `ledger.Receipt` in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    #[serde(flatten)]
    pub response: ResponseDocument,
}

/// The contract's response: as JSON, or in hexadecimal if it is none.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResponseDocument {
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_hex: Option<String>,
}

impl ResponseDocument {
    fn new(response: Vec<u8>) -> Self {
        if response.is_empty() {
            return ResponseDocument {
                response: None,
                response_hex: None,
            };
        }
        let text = String::from_utf8(response);
        match text
            .map_err(|error| error.into_bytes())
            .and_then(|text| RawValue::from_string(text.clone()).map_err(|_| text.into_bytes()))
        {
            Ok(json) => ResponseDocument {
                response: Some(json),
                response_hex: None,
            },
            Err(bytes) => ResponseDocument {
                response: None,
                response_hex: Some(hex::encode(bytes)),
            },
        }
    }
}

pub(crate) fn word(finality: Finality) -> &'static str {
    match finality {
        Finality::Unspecified => "",
        Finality::Ordered => "ordered",
        Finality::Committed => "committed",
        Finality::Attested => "attested",
    }
}

impl SubmitDocument {
    pub(crate) fn new(tx_id: &[u8], submission: rpc::Submission) -> Self {
        SubmitDocument {
            tx_id: hex::encode(tx_id),
            reached: word(submission.reached()),
            code: submission.code,
            partition: submission.partition,
            height: submission.height,
            index: submission.index,
            endorsements: submission.endorsements,
            receipt: submission.receipt.map(|receipt| hex::encode(receipt.encode_to_vec())),
            response: ResponseDocument::new(submission.response),
        }
    }
}

/// The contract's answer to a query.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EvaluateDocument {
    #[serde(flatten)]
    pub response: ResponseDocument,
}

impl EvaluateDocument {
    pub(crate) fn new(response: Vec<u8>) -> Self {
        EvaluateDocument {
            response: ResponseDocument::new(response),
        }
    }
}

/// What a client needs to sign a proposal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanDocument {
    pub channel: String,
    pub epoch: u32,
    pub contract_digest: String,
    pub partition_key: String,
    pub partition: u32,
    /// Of that partition, here, now.
    pub height: u64,
    /// What the gateway would choose.
    pub height_bound: u64,
}

impl From<rpc::Plan> for PlanDocument {
    fn from(plan: rpc::Plan) -> Self {
        PlanDocument {
            channel: hex::encode(plan.channel),
            epoch: plan.epoch,
            contract_digest: hex::encode(plan.contract_digest),
            partition_key: hex::encode(plan.partition_key),
            partition: plan.partition,
            height: plan.height,
            height_bound: plan.height_bound,
        }
    }
}

/// How a transaction was judged. A code other than VALID is provisional until its height bound has passed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusDocument {
    pub tx_id: String,
    pub code: String,
    pub partition: u32,
    pub height: u64,
    pub index: u32,
    /// A quorum of organisations signed the block's header or a later one.
    pub attested: bool,
}

impl StatusDocument {
    pub(crate) fn new(tx_id: String, status: rpc::TxStatus) -> Self {
        let rpc::TxStatus {
            code,
            partition,
            height,
            index,
            attested,
            ..
        } = status;
        StatusDocument {
            tx_id: tx_id.to_ascii_lowercase(),
            code,
            partition,
            height,
            index,
            attested,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BlockDocument {
    /// A number, or `control`.
    pub partition: String,
    pub height: u64,
    pub header: String,
    pub previous: String,
    pub record_hash: String,
    pub root: String,
    pub state_digest: String,
    pub rules_version: u32,
    pub transactions: Vec<BlockTxDocument>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BlockTxDocument {
    pub tx_id: String,
    pub code: String,
}

fn chain_name(partition: u32) -> String {
    if partition == CONTROL {
        "control".to_owned()
    } else {
        partition.to_string()
    }
}

impl From<rpc::BlockReply> for BlockDocument {
    fn from(block: rpc::BlockReply) -> Self {
        let transactions = block.transactions.into_iter();
        BlockDocument {
            partition: chain_name(block.partition),
            height: block.height,
            header: hex::encode(block.header),
            previous: hex::encode(block.previous),
            record_hash: hex::encode(block.record_hash),
            root: hex::encode(block.root),
            state_digest: hex::encode(block.state_digest),
            rules_version: block.rules_version,
            transactions: transactions
                .map(|tx| BlockTxDocument {
                    tx_id: hex::encode(tx.tx_id),
                    code: tx.code,
                })
                .collect(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NetworkDocument {
    pub channel: String,
    pub organisation: String,
    pub peer: String,
    pub log_reachable: bool,
    pub chains: Vec<ChainDocument>,
    pub peers: Vec<PeerDocument>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChainDocument {
    /// A number, or `control`.
    pub partition: String,
    /// The newest height is one less.
    pub blocks: u64,
    pub header: String,
    pub state_digest: String,
    pub attested_blocks: u64,
    /// Why it stands still, if it does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stopped: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PeerDocument {
    pub organisation: String,
    pub address: String,
    pub alive: bool,
}

impl From<rpc::NetworkReply> for NetworkDocument {
    fn from(network: rpc::NetworkReply) -> Self {
        let chains = network.chains.into_iter().map(|chain| ChainDocument {
            partition: chain_name(chain.partition),
            blocks: chain.blocks,
            header: hex::encode(chain.header),
            state_digest: hex::encode(chain.state_digest),
            attested_blocks: chain.attested_blocks,
            stopped: chain.stopped,
        });
        let peers = network.peers.into_iter().map(|peer| PeerDocument {
            organisation: peer.organisation,
            address: peer.address,
            alive: peer.alive,
        });
        NetworkDocument {
            channel: hex::encode(network.channel),
            organisation: network.organisation,
            peer: network.peer,
            log_reachable: network.log_reachable,
            chains: chains.collect(),
            peers: peers.collect(),
        }
    }
}

/// A refusal, `application/problem+json` (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemDocument {
    pub r#type: String,
    pub title: String,
    pub status: u16,
    /// A stable word.
    pub code: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The field that breaks a rule.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_ms: u64,
    /// Organisations without which the endorsement policy cannot be met.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub height: u64,
    /// Of the transaction, where there is one already: it may have happened.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tx_id: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A refusal that names its transaction.
pub(crate) fn problem(problem: Problem, tx_id: &[u8]) -> Response {
    let known = problem.document();
    let document = ProblemDocument {
        r#type: known.r#type,
        title: known.title,
        status: known.status,
        code: known.code,
        detail: known.detail,
        field: known.field,
        retry_after_ms: known.retry_after_ms.into(),
        missing: known.missing,
        height: known.height,
        tx_id: hex::encode(tx_id),
    };
    let body = serde_json::to_vec(&document).unwrap_or_default();
    // Status and headers are the service's; only the body has one member more.
    let (mut parts, _) = problem.into_response().into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, body.into())
}

/// 405 as a document; the framework adds `Allow`.
pub(crate) struct MethodNotAllowed;

impl IntoResponse for MethodNotAllowed {
    fn into_response(self) -> Response {
        let problem = Problem::new(Code::Unimplemented, "this path knows other methods");
        let mut document = problem.document();
        document.status = StatusCode::METHOD_NOT_ALLOWED.as_u16();
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (StatusCode::METHOD_NOT_ALLOWED, body).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        response
    }
}
