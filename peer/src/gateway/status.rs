//! What became of a transaction, by its tx_id; waits for more if asked to.
//!
//! A code other than VALID is provisional until the height bound has passed: the same tx_id may
//! still become VALID. "Not found" says only that this peer has not judged it yet.

use prost::Message as _;
use protocol::hash;
use service::rpc::{self, Finality, status_reply::Outcome};
use service::{Caller, Problem};
use tokio::time::Instant;

use super::Gateway;
use crate::ledger::TxStatus;
use crate::metrics::{Request, outcome};

impl Gateway {
    pub(super) async fn status(&self, request: rpc::StatusRequest, caller: &Caller) -> rpc::StatusReply {
        match self.admit("status", caller, request.encoded_len()) {
            Ok(_place) => reply(self.status_of(request).await),
            Err(problem) => reply(Err(problem)),
        }
    }

    pub(super) async fn status_of(&self, request: rpc::StatusRequest) -> Result<rpc::TxStatus, Problem> {
        let metric = Request::begin("status");
        let status = self.try_status(request).await;
        metric.end(outcome(&status));
        status
    }

    async fn try_status(&self, request: rpc::StatusRequest) -> Result<rpc::TxStatus, Problem> {
        let tx_id = hash::digest(&request.tx_id).ok_or_else(|| Problem::invalid("tx_id", "must be 32 bytes"))?;
        let deadline = Instant::now() + self.limits.timeout(request.timeout_ms);
        let wait = request.wait();
        // Registered before looking, so that nothing comes between.
        let mut watch = (wait != Finality::Unspecified).then(|| self.ledger.watch(tx_id));
        let mut status = self.ledger.status(&tx_id);
        if let (None, Some(watch)) = (&status, &mut watch) {
            status = watch.next(deadline).await;
        }
        let Some(status) = status else {
            return Ok(rpc::TxStatus::default());
        };
        let attested = match wait {
            Finality::Attested => {
                self.ledger
                    .attested_reached(status.partition, status.height, deadline)
                    .await
            }
            _ => self
                .ledger
                .attested(status.partition)
                .is_some_and(|height| height >= status.height),
        };
        Ok(found(status, attested))
    }
}

pub(super) fn reply(status: Result<rpc::TxStatus, Problem>) -> rpc::StatusReply {
    let outcome = status.map_or_else(|problem| Outcome::Problem(problem.into()), Outcome::Status);
    rpc::StatusReply {
        id: 0,
        outcome: Some(outcome),
    }
}

fn found(status: TxStatus, attested: bool) -> rpc::TxStatus {
    rpc::TxStatus {
        found: true,
        code: status.code.word().to_owned(),
        partition: status.partition,
        height: status.height,
        index: status.index,
        attested,
    }
}
