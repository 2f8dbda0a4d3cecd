//! From a block to the log, and from the log's answer to receipts.
//!
//! ```text
//! Block ─sign─▶ record ─append─▶ log
//!                                 ├─ offset      → a signed receipt for every transaction
//!                                 ├─ Unavailable → offered again until a deadline, then `log_unavailable`
//!                                 └─ Unknown     → `unknown_outcome`: it may be there, or come
//! ```
//! Whatever waits to be signed, of all partitions, is signed under one root.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use ledger_log::{AppendError, Log, TopicPartition};
use prost::Message;
use protocol::{
    Digest,
    ledger::{Block, BlockRecord, Receipt, ReceiptContent, Signature},
    sha256,
    signature::{Purpose, sign},
};
use service::{
    Identity, Tasks,
    problem::{Code, Problem},
    signer::{self, BatchSigner},
};
use tokio::time::{Instant, sleep};

use crate::{
    metrics::{APPEND_RETRIES, APPEND_SECONDS, IN_FLIGHT_BLOCKS, IN_FLIGHT_BYTES},
    ticket::{Ticket, unknown_outcome},
};

const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// What a sender is told when the log is away.
const AWAY_RETRY: Duration = Duration::from_secs(1);

/// Signs and appends for all partitions.
pub struct Writer {
    pub log: Arc<dyn Log>,
    identity: Arc<Identity>,
    channel: Digest,
    signer: BatchSigner,
    tasks: Tasks,
    /// How long a block that the log did not take is offered again.
    retry: Duration,
}

/// What became of a block.
#[derive(Debug)]
pub struct Settled {
    pub bytes: usize,
    pub offset: Result<u64, AppendError>,
}

impl Writer {
    pub fn start(tasks: &Tasks, log: Arc<dyn Log>, identity: Arc<Identity>, channel: Digest, retry: Duration) -> Self {
        // Never waits for company: a block has waited for its linger already.
        let config = signer::Config {
            pace: Duration::ZERO,
            ..signer::Config::default()
        };
        let signer = BatchSigner::start(tasks, identity.clone(), channel, config);
        Writer {
            log,
            identity,
            channel,
            signer,
            tasks: tasks.clone(),
            retry,
        }
    }

    /// The record of a block.
    pub async fn record(&self, block: &Block) -> Result<Bytes, Problem> {
        let block = block.encode_to_vec();
        let signature = self.sign(Purpose::Block, vec![block.clone()]).await?.pop();
        let record = BlockRecord {
            block,
            certificate: self.identity.certificate_der().to_vec(),
            signature,
        };
        Ok(record.encode_to_vec().into())
    }

    /// Appends at once, in the order of the calls; the future does the rest.
    pub fn append(
        self: &Arc<Self>,
        to: &TopicPartition,
        record: Bytes,
        mut tickets: Vec<Ticket>,
    ) -> BoxFuture<'static, Settled> {
        tickets.iter_mut().for_each(Ticket::sent);
        let under_way = UnderWay::new(record.len());
        let first = self.log.append(to, record.clone());
        let (writer, to) = (self.clone(), to.clone());
        Box::pin(async move {
            let since = Instant::now();
            let offset = writer.offer(first, &to, &record).await;
            let outcome = match &offset {
                Ok(_) => "acknowledged",
                Err(AppendError::Unknown(_)) => "unknown",
                Err(_) => "unavailable",
            };
            APPEND_SECONDS
                .with_label_values(&[outcome])
                .observe(since.elapsed().as_secs_f64());
            let bytes = under_way.0;
            drop(under_way);
            match &offset {
                Ok(height) => writer.acknowledge(&to, *height, &record, tickets).await,
                Err(error) => fail(error, tickets),
            }
            Settled { bytes, offset }
        })
    }

    /// Offers a record again for as long as nothing of it was sent.
    async fn offer(
        &self,
        first: BoxFuture<'static, Result<u64, AppendError>>,
        to: &TopicPartition,
        record: &Bytes,
    ) -> Result<u64, AppendError> {
        let deadline = Instant::now() + self.retry;
        let mut pause = RETRY_PAUSE_MIN;
        let mut outcome = first.await;
        while matches!(outcome, Err(AppendError::Unavailable(_))) && Instant::now() + pause < deadline {
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
            APPEND_RETRIES.inc();
            outcome = self.log.append(to, record.clone()).await;
        }
        outcome
    }

    async fn acknowledge(&self, to: &TopicPartition, height: u64, record: &[u8], tickets: Vec<Ticket>) {
        if tickets.is_empty() {
            return;
        }
        let record_hash = sha256(record).to_vec();
        let content = |(index, ticket): (usize, &Ticket)| {
            ReceiptContent {
                channel: self.channel.to_vec(),
                epoch: 0,
                partition: to.partition,
                height,
                index: index as u32,
                tx_id: ticket.tx_id.to_vec(),
                record_hash: record_hash.clone(),
            }
            .encode_to_vec()
        };
        let contents: Vec<Vec<u8>> = tickets.iter().enumerate().map(content).collect();
        match self.sign(Purpose::Receipt, contents.clone()).await {
            Ok(signatures) => {
                for ((ticket, content), signature) in tickets.into_iter().zip(contents).zip(signatures) {
                    ticket.receipt(Receipt {
                        content,
                        signature: Some(signature),
                    });
                }
            }
            // Ordered all the same: whoever asks for the status will see it.
            Err(_) => tickets
                .into_iter()
                .for_each(|ticket| ticket.refuse(unknown_outcome("ordered, but no receipt"))),
        }
    }

    async fn sign(&self, purpose: Purpose, contents: Vec<Vec<u8>>) -> Result<Vec<Signature>, Problem> {
        // The signer may go before the last acknowledgement comes.
        if self.tasks.is_cancelled() {
            let Identity { signing_key, .. } = &*self.identity;
            return sign(signing_key, &self.identity.hash(), purpose, &self.channel, &contents)
                .map_err(Problem::internal);
        }
        self.signer.sign_all(purpose, contents).await
    }
}

fn fail(error: &AppendError, tickets: Vec<Ticket>) {
    if tickets.is_empty() {
        return;
    }
    let problem = match error {
        AppendError::Unavailable(_) => log_unavailable(),
        AppendError::Unknown(_) => unknown_outcome("the log gave no acknowledgement; ask for the status by tx_id"),
        AppendError::TooLarge { .. } => Problem::internal(error),
    };
    tickets.into_iter().for_each(|ticket| ticket.refuse(problem.clone()));
}

pub fn log_unavailable() -> Problem {
    Problem::new(Code::LogUnavailable, "the log is away, nothing was ordered").with_retry_after(AWAY_RETRY)
}

/// Keeps the gauges right however the future ends.
struct UnderWay(usize);

impl UnderWay {
    fn new(bytes: usize) -> Self {
        IN_FLIGHT_BLOCKS.inc();
        IN_FLIGHT_BYTES.add(bytes as i64);
        UnderWay(bytes)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        IN_FLIGHT_BLOCKS.dec();
        IN_FLIGHT_BYTES.sub(self.0 as i64);
    }
}
