//! Committed blocks from a height on: as they were judged here, with the record of the log beside if asked for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream};
use ledger_log::{ReadError, Reader, Record};
use protocol::{CONTROL, sha256};
use service::{Caller, Code, Problem, rpc};
use tokio::time::Instant;

use super::Gateway;
use super::gate::Permit;
use crate::ledger::{BlockInfo, Ledger};
use crate::metrics::STREAMS;

/// How long one look for the next block waits; then it is looked whether the chain still moves.
const LOOK: Duration = Duration::from_secs(1);

/// An open stream: one of a bounded number.
pub(super) struct Open {
    _place: Permit,
}

impl Open {
    fn new(place: Permit) -> Self {
        STREAMS.inc();
        Open { _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        STREAMS.dec();
    }
}

/// The committed blocks of one chain, one after the other, with or without their records.
pub(super) struct Follow {
    ledger: Arc<Ledger>,
    partition: u32,
    next: u64,
    /// `None`: without records.
    reader: Option<Box<dyn Reader>>,
    read: VecDeque<Record>,
    _open: Open,
}

impl Follow {
    /// Waits for the next block; an error ends the stream.
    pub(super) async fn next(&mut self) -> Result<(BlockInfo, Option<Record>), Problem> {
        let record = self.record().await?;
        loop {
            let reached = self
                .ledger
                .reached(self.partition, self.next, Instant::now() + LOOK)
                .await;
            if reached && let Some(block) = self.ledger.block(self.partition, self.next) {
                self.next += 1;
                return match record {
                    // What was committed here is what is shown, whatever the log says now.
                    Some(record) if sha256(&record.value) != block.header.record_hash => Err(Problem::new(
                        Code::PartitionStopped,
                        format!(
                            "the log's record at height {} is not the one committed here",
                            block.header.height
                        ),
                    )),
                    record => Ok((block, record)),
                };
            }
            if let Some(stop) = self.ledger.stopped(self.partition) {
                return Err(Problem::new(Code::PartitionStopped, stop.to_string()));
            }
        }
    }

    async fn record(&mut self) -> Result<Option<Record>, Problem> {
        let Some(reader) = &mut self.reader else {
            return Ok(None);
        };
        while self.read.is_empty() {
            match reader.next(LOOK).await {
                Ok(records) => self.read.extend(records),
                // It goes on by itself.
                Err(ReadError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(200)).await,
                Err(error) => return Err(Problem::new(Code::PartitionStopped, error.to_string())),
            }
        }
        match self.read.pop_front() {
            Some(record) if record.offset == self.next => Ok(Some(record)),
            _ => Err(Problem::internal("a reader left out a height")),
        }
    }
}

impl Gateway {
    /// Opens one of the bounded number of streams.
    pub(super) async fn follow(
        &self,
        caller: &Caller,
        partition: u32,
        from: u64,
        with_records: bool,
    ) -> Result<Follow, Problem> {
        if partition != CONTROL && partition >= self.ledger.checker.channel.partitions() {
            return Err(no_partition());
        }
        let open = Open::new(self.streams.enter(&caller.account(), 0)?);
        let blocks = self.ledger.tip(partition).map_or(0, |tip| tip.height + 1);
        if from > blocks {
            return Err(Problem::invalid("from_height", format!("the chain has {blocks} blocks")).with_height(blocks));
        }
        let reader = match with_records {
            true => Some(self.ledger.raw(partition, from).await.map_err(|error| match error {
                ReadError::Unavailable(_) => Problem::new(Code::LogUnavailable, "").with_retry_after(LOOK),
                error => Problem::invalid("from_height", error.to_string()),
            })?),
            false => None,
        };
        let ledger = Arc::clone(&self.ledger);
        Ok(Follow {
            ledger,
            partition,
            next: from,
            reader,
            read: VecDeque::new(),
            _open: open,
        })
    }

    pub(super) async fn blocks(
        &self,
        request: rpc::BlocksRequest,
        caller: &Caller,
    ) -> Result<impl Stream<Item = Result<rpc::BlockReply, Problem>> + Send + 'static, Problem> {
        let follow = self
            .follow(caller, request.partition, request.from_height, false)
            .await?;
        let left = if request.count == 0 { u64::MAX } else { request.count };
        Ok(stream::unfold(Some((follow, left)), |state| async move {
            let (mut follow, left) = state.filter(|(_, left)| *left > 0)?;
            match follow.next().await {
                Ok((block, _)) => Some((Ok(reply(block)), Some((follow, left - 1)))),
                Err(problem) => Some((Err(problem), None)),
            }
        }))
    }

    /// One committed block.
    pub(super) fn block(&self, partition: u32, height: u64) -> Result<rpc::BlockReply, Problem> {
        if partition != CONTROL && partition >= self.ledger.checker.channel.partitions() {
            return Err(no_partition());
        }
        match self.ledger.block(partition, height) {
            Some(block) => Ok(reply(block)),
            None => {
                let tip = self.ledger.tip(partition).map_or(0, |tip| tip.height);
                Err(Problem::new(Code::NotFound, "not committed here")
                    .with_field("height")
                    .with_height(tip))
            }
        }
    }
}

pub(super) fn no_partition() -> Problem {
    Problem::new(Code::NotFound, "the channel has no such partition").with_field("partition")
}

/// What a block is known by. Never its record: that holds every organisation's records in plain.
fn reply(block: BlockInfo) -> rpc::BlockReply {
    let header = block.header;
    let transactions = block.transactions.into_iter();
    rpc::BlockReply {
        partition: header.partition,
        height: header.height,
        header: block.hash.to_vec(),
        previous: header.previous.to_vec(),
        record_hash: header.record_hash.to_vec(),
        root: header.root.to_vec(),
        state_digest: header.state_digest.to_vec(),
        rules_version: header.rules_version,
        transactions: transactions
            .map(|(tx_id, code)| rpc::BlockTx {
                tx_id: tx_id.to_vec(),
                code: code.word().to_owned(),
            })
            .collect(),
    }
}
