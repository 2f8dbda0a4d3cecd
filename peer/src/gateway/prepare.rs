//! What a client needs to sign a proposal itself: the partition key above all, which only members' peers know.

use prost::Message as _;
use service::rpc::{self, prepare_reply::Outcome};
use service::{Caller, Problem};
use tokio::time::Instant;

use super::Gateway;
use super::gate::Permit;
use crate::endorser::check::active_contract;
use crate::metrics::{Request, outcome};
use crate::query::not_started;

impl Gateway {
    pub(super) async fn prepare(&self, request: rpc::PrepareRequest, caller: &Caller) -> rpc::PrepareReply {
        match self.admit("prepare", caller, request.encoded_len()) {
            Ok(_place) => reply(self.prepared(request.call, caller).await),
            Err(problem) => reply(Err(problem)),
        }
    }

    pub(super) async fn prepared(&self, call: Option<rpc::Call>, caller: &Caller) -> Result<rpc::Plan, Problem> {
        let metric = Request::begin("prepare");
        let plan = self.try_prepare(call, caller).await;
        metric.end(outcome(&plan));
        plan
    }

    async fn try_prepare(&self, call: Option<rpc::Call>, caller: &Caller) -> Result<rpc::Plan, Problem> {
        self.has_come()?;
        let call = call.ok_or_else(|| Problem::invalid("call", "is missing"))?;
        let deadline = Instant::now() + self.limits.endorse_timeout();
        let _place = self.place_of_submit(&call, caller)?;
        let planned = self.plan(&call, deadline).await?;
        let channel = &self.ledger.checker.channel;
        let height = self
            .ledger
            .tip(planned.partition)
            .ok_or_else(|| not_started(planned.partition))?
            .height;
        Ok(rpc::Plan {
            channel: channel.id.to_vec(),
            epoch: 0,
            contract_digest: planned.contract_digest.to_vec(),
            partition_key: planned.partition_key.to_vec(),
            partition: planned.partition,
            height,
            height_bound: self.limits.height_bound(height, channel.config.heights_in_time_max),
        })
    }

    /// Preparing a change is a part of submitting it: what `submit` would refuse is refused here, before the gateway,
    /// its workers and the client, which would sign for nothing, have done anything for it.
    fn place_of_submit(&self, call: &rpc::Call, caller: &Caller) -> Result<Option<Permit>, Problem> {
        let digest = active_contract(&self.ledger, &call.contract)?;
        match self.endorser.workers.only_reads(&digest, &call.function) {
            Some(false) => Ok(Some(self.submits.enter(&caller.account(), call.arguments.len())?)),
            _ => Ok(None),
        }
    }
}

pub(super) fn reply(plan: Result<rpc::Plan, Problem>) -> rpc::PrepareReply {
    rpc::PrepareReply {
        id: 0,
        outcome: Some(plan.map_or_else(|p| Outcome::Problem(p.into()), Outcome::Plan)),
    }
}
