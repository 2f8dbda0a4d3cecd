//! What other peers ask of this one: endorsements in lists, and the exchange of heights and attestations.

use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt as _};
use prost::Message as _;
use protocol::Digest;
use protocol::ledger::Kind;
use protocol::limits::ATTESTATIONS_PER_RECORD_MAX;
use service::lists::{self, Answer, Asked, ReplyStream};
use service::quota::Quota;
use service::rpc::{self, endorse_reply::Outcome, peer_server};
use service::{Caller, Problem, Tasks};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::offers::Offers;
use super::{Endorsed, Endorser};
use crate::gateway::gate::{Gate, Permit};
use crate::ledger::Ledger;

/// One instance per process; clones share it.
#[derive(Clone)]
pub struct PeerService(Arc<Shared>);

struct Shared {
    tasks: Tasks,
    endorser: Arc<Endorser>,
    ledger: Arc<Ledger>,
    quota: Quota<Digest>,
    gate: Arc<Gate>,
    offers: Arc<Offers>,
}

impl PeerService {
    pub fn new(tasks: &Tasks, endorser: Arc<Endorser>, quota: Quota<Digest>, gate: Arc<Gate>) -> Self {
        let ledger = Arc::clone(&endorser.ledger);
        let verifier = Arc::clone(&ledger);
        let offers = Offers::new(tasks, move |offered| verifier.offer_attestations(offered));
        PeerService(Arc::new(Shared {
            tasks: tasks.clone(),
            endorser,
            ledger,
            quota,
            gate,
            offers,
        }))
    }
}

impl Shared {
    /// Quota, then a place. Refused here, nothing else has been done.
    fn admit(&self, request: &rpc::EndorseRequest, caller: &Caller) -> Result<Permit, Problem> {
        let bytes = request.encoded_len();
        self.quota.check(&caller.account(), bytes)?;
        self.gate.enter(&caller.account(), bytes)
    }

    async fn endorse(&self, request: rpc::EndorseRequest) -> Result<Endorsed, Problem> {
        let proposal = request
            .proposal
            .ok_or_else(|| Problem::invalid("proposal", "is missing"))?;
        let deadline = Instant::now() + self.endorser.limits.endorse_timeout();
        let checked = self.endorser.check(proposal, Kind::Submit)?;
        self.endorser.endorse(&checked, request.snapshot_height, deadline).await
    }
}

pub(crate) fn reply(endorsed: Result<Endorsed, Problem>) -> rpc::EndorseReply {
    let outcome = match endorsed {
        Ok(endorsed) => Outcome::Endorsement(rpc::Endorsement {
            result: endorsed.result,
            response: endorsed.response,
            signature: Some(endorsed.signature),
            certificate: endorsed.certificate.to_vec(),
        }),
        Err(problem) => Outcome::Problem(problem.into()),
    };
    rpc::EndorseReply {
        id: 0,
        outcome: Some(outcome),
    }
}

#[tonic::async_trait]
impl peer_server::Peer for PeerService {
    type EndorseListsStream = ReplyStream<lists::Endorse>;

    async fn endorse_lists(
        &self,
        request: Request<Streaming<rpc::EndorseRequests>>,
    ) -> Result<Response<Self::EndorseListsStream>, Status> {
        let shared = Arc::clone(&self.0);
        lists::serve_lists(
            &self.0.tasks,
            request,
            lists::Limits::default(),
            move |items, caller| {
                let shared = Arc::clone(&shared);
                let mut admitted = Vec::with_capacity(items.len());
                // In the stream's own reader: a refusal waits for nobody's work.
                for Asked { item, answer } in items {
                    let answer: Answer<lists::Endorse> = answer;
                    match shared.admit(&item, &caller) {
                        Ok(place) => admitted.push((item, place, answer)),
                        Err(problem) => answer.send(reply(Err(problem))),
                    }
                }
                async move {
                    // One task for a whole list: its items wait for the same worker, signer and disk.
                    let mut under_way: FuturesUnordered<_> = admitted
                        .into_iter()
                        .map(|(item, place, answer)| {
                            let shared = &shared;
                            async move {
                                answer.send(reply(shared.endorse(item).await));
                                drop(place);
                            }
                        })
                        .collect();
                    while under_way.next().await.is_some() {}
                }
            },
        )
    }

    async fn exchange(&self, request: Request<rpc::ExchangeRequest>) -> Result<Response<rpc::ExchangeReply>, Status> {
        let caller = Caller::of(request.extensions())?;
        let ledger = &self.0.ledger;
        let mut offered = request.into_inner().attestations;
        offered.truncate(ATTESTATIONS_PER_RECORD_MAX);
        let mut newest = ledger.newest_attestations();
        newest.truncate(ATTESTATIONS_PER_RECORD_MAX);
        let reply = rpc::ExchangeReply {
            attestations: newest,
            chains: ledger.chains(),
        };
        self.0.offers.take(&caller.msp_id, offered, reply.encoded_len())?;
        Ok(Response::new(reply))
    }
}
