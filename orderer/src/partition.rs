//! One task per data partition: its marker, its open block, its blocks on their way, its heartbeats.
//!
//! ```text
//! admitted ──queue──▶ Batcher ──due──▶ sign ─▶ append ──▶ in flight ──▶ receipts
//!                        ▲ waits while in flight is full
//! ```
//! Blocks are appended in the order in which they were sealed. One that the log did not take is offered
//! again and may then stand after later ones; transactions do not rely on that order.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use ledger_log::{ReadError, TopicPartition};
use protocol::{Digest, control::Genesis, ledger::Block};
use service::under_way::UnderWay;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admission,
    batcher::{Batcher, Entry, Limits},
    metrics::{BLOCK_TRANSACTIONS, BLOCKS, HEARTBEATS, MARKERS},
    stillness::Stillness,
    ticket::Ticket,
    writer::{Settled, Writer, log_unavailable},
};

/// Entries taken out of the queue at once.
const TAKE_MAX: usize = 256;
const MARKER_PAUSE_MIN: Duration = Duration::from_millis(50);
const MARKER_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The queue's content is bounded by [`crate::room::Room`]: every ticket holds its share of it.
pub type Queue = mpsc::UnboundedSender<Entry<Ticket>>;

pub struct Settings {
    pub limits: Limits,
    pub in_flight_bytes_max: usize,
    /// How long a transaction waits for a log that takes nothing.
    pub patience: Duration,
    /// How long a block may be under way before others are refused.
    pub stalled: Duration,
    pub drain: Duration,
    pub heartbeat: Duration,
}

pub struct Partition {
    channel: Digest,
    to: TopicPartition,
    settings: Settings,
    writer: Arc<Writer>,
    admission: Arc<Admission>,
    queue: mpsc::UnboundedReceiver<Entry<Ticket>>,
    batcher: Batcher<Ticket>,
    in_flight: FuturesUnordered<BoxFuture<'static, Done>>,
    in_flight_bytes: usize,
    /// Those blocks.
    appended: UnderWay,
    stillness: Stillness,
    probing: bool,
    /// Zero of the durations given to what is pure.
    epoch: Instant,
    /// Set while draining.
    end_by: Option<Instant>,
}

enum Done {
    Appended(u64, Settled),
    Ended(Result<(u64, u64), ReadError>),
}

impl Partition {
    pub fn new(
        channel: Digest,
        to: TopicPartition,
        who: u8,
        settings: Settings,
        writer: Arc<Writer>,
        admission: Arc<Admission>,
    ) -> (Self, Queue) {
        let (sender, queue) = mpsc::unbounded_channel();
        let partition = Partition {
            batcher: Batcher::new(&channel, to.partition, settings.limits),
            stillness: Stillness::new(Duration::ZERO, settings.heartbeat, who),
            channel,
            to,
            settings,
            writer,
            admission,
            queue,
            in_flight: FuturesUnordered::new(),
            in_flight_bytes: 0,
            appended: UnderWay::default(),
            probing: false,
            epoch: Instant::now(),
            end_by: None,
        };
        (partition, sender)
    }

    /// Appends the marker until the log has it. `false`: the process ends before.
    pub async fn start(&mut self, genesis: Genesis, token: &CancellationToken) -> bool {
        let block = Block {
            marker: Some(genesis.marker()),
            ..self.empty_block()
        };
        let mut pause = MARKER_PAUSE_MIN;
        loop {
            let appended = async {
                match self.writer.record(&block).await {
                    Ok(record) => self.writer.append(&self.to, record, Vec::new()).await.offset.ok(),
                    Err(_) => None,
                }
            };
            let appended = tokio::select! {
                appended = appended => appended,
                () = token.cancelled() => return false,
            };
            // A marker too many is a no-op, so an unknown outcome is simply tried again.
            if let Some(height) = appended {
                MARKERS.inc();
                self.reached(height + 1);
                return true;
            }
            tracing::warn!(
                partition = self.to.partition,
                "the marker was not acknowledged, trying again"
            );
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(MARKER_PAUSE_MAX),
                () = token.cancelled() => return false,
            }
        }
    }

    /// Until the process ends and everything admitted is answered, or the drain's deadline has passed.
    pub async fn run(mut self, token: CancellationToken) {
        let mut taken = Vec::with_capacity(TAKE_MAX);
        while !self.is_done() {
            let (seal_at, look_at) = (self.seal_at(), self.look_at());
            tokio::select! {
                biased;
                Some(done) = self.in_flight.next() => self.done(done).await,
                () = at(seal_at) => self.seal().await,
                count = self.queue.recv_many(&mut taken, TAKE_MAX), if self.end_by.is_none() => {
                    if count == 0 {
                        self.drain(); // nobody can send any more
                    }
                    self.take(&mut taken);
                }
                () = token.cancelled(), if self.end_by.is_none() => self.drain(),
                () = at(self.end_by) => break,
                () = at(look_at) => self.look(),
            }
        }
        // What is left answers for itself: see `Ticket`.
    }

    fn is_done(&self) -> bool {
        self.end_by.is_some() && self.batcher.is_empty() && self.in_flight_bytes == 0
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn empty_block(&self) -> Block {
        Block {
            channel: self.channel.to_vec(),
            partition: self.to.partition,
            ..Block::default()
        }
    }

    fn take(&mut self, taken: &mut Vec<Entry<Ticket>>) {
        let now = self.now();
        taken.drain(..).for_each(|entry| self.batcher.push(now, entry));
    }

    fn drain(&mut self) {
        self.end_by = Some(Instant::now() + self.settings.drain);
        self.queue.close();
        let now = self.now();
        while let Ok(entry) = self.queue.try_recv() {
            self.batcher.push(now, entry);
        }
        self.batcher.drain();
    }

    /// When the open block is sealed; while too much is in flight, when those who wait are refused.
    fn seal_at(&self) -> Option<Instant> {
        let due = match self.is_full() {
            false => self.batcher.due()?,
            true => self.batcher.oldest()? + self.settings.patience,
        };
        Some(self.epoch + due)
    }

    fn is_full(&self) -> bool {
        self.in_flight_bytes >= self.settings.in_flight_bytes_max
    }

    /// The log may answer and keep nothing, as with too few brokers. What is appended now would wait behind it, and
    /// nobody could say what became of it.
    fn is_stalled(&self) -> bool {
        self.appended.oldest().is_some_and(|age| age >= self.settings.stalled)
    }

    async fn seal(&mut self) {
        if self.is_full() || self.is_stalled() {
            self.batcher
                .abandon()
                .for_each(|ticket| ticket.refuse(log_unavailable()));
            return;
        }
        let Some(sealed) = self.batcher.seal(self.now()) else {
            return;
        };
        BLOCKS.with_label_values(&[sealed.reason.word()]).inc();
        BLOCK_TRANSACTIONS.observe(sealed.tags.len() as f64);
        self.append(&sealed.block, sealed.tags).await;
    }

    async fn append(&mut self, block: &Block, tickets: Vec<Ticket>) {
        let record = match self.writer.record(block).await {
            Ok(record) => record,
            Err(problem) => return tickets.into_iter().for_each(|ticket| ticket.refuse(problem.clone())),
        };
        self.in_flight_bytes += record.len();
        let appended = self.writer.append(&self.to, record, tickets);
        let number = self.appended.begin();
        self.in_flight
            .push(Box::pin(async move { Done::Appended(number, appended.await) }));
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Appended(number, settled) => {
                self.appended.end(number);
                self.in_flight_bytes -= settled.bytes;
                if let Ok(height) = settled.offset {
                    self.reached(height + 1);
                }
            }
            Done::Ended(bounds) => {
                self.probing = false;
                match bounds {
                    Ok((_, end)) => self.beat(end).await,
                    Err(_) => self.stillness.postpone(self.now()),
                }
            }
        }
    }

    fn reached(&mut self, end: u64) {
        self.stillness.observe(self.now(), end);
        self.admission.reached(self.to.partition, end);
    }

    /// When to look whether the partition stands still. Own blocks on their way will move it.
    fn look_at(&self) -> Option<Instant> {
        let idle = self.in_flight_bytes == 0 && self.batcher.is_empty() && !self.probing && self.end_by.is_none();
        idle.then(|| self.epoch + self.stillness.due())
    }

    fn look(&mut self) {
        self.probing = true;
        let (log, of) = (self.writer.log.clone(), self.to.clone());
        self.in_flight
            .push(Box::pin(async move { Done::Ended(log.bounds(&of).await) }));
    }

    async fn beat(&mut self, end: u64) {
        let now = self.now();
        let still = self.stillness.observe(now, end);
        self.admission.reached(self.to.partition, end);
        if still && self.batcher.is_empty() && self.in_flight_bytes == 0 && self.end_by.is_none() {
            HEARTBEATS.inc();
            self.append(&self.empty_block(), Vec::new()).await;
            self.stillness.postpone(now);
        }
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
