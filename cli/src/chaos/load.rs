//! `medledger chaos load`: clients at every gateway, each doing one thing after another, until it is told to end.
//!
//! ```text
//! clients × gateways ── create, update, read, contend ─┐
//! event streams × gateways × partitions ───────────────┴─► Recorder (history)   Progress ─► standard output
//! ```

mod client;
mod progress;
mod streams;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use rand::Rng as _;
use service::{OnFailure, Tasks};
use tokio::time::Instant;

use super::history::{Recorder, What};
use crate::{
    bench::check::{self, Heights},
    client::Client,
    network::Network,
    patients::PATIENTS_MAX,
};
use client::Life;
use progress::Progress;
pub use progress::{Counted, Line};

#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {
    /// Directory of the network
    #[arg(long, value_name = "DIR", default_value = crate::network::DEFAULT_DIRECTORY)]
    pub network: PathBuf,
    /// Where the history goes: a file that is not there yet
    #[arg(long, value_name = "FILE")]
    pub history: PathBuf,
    /// Clients at each gateway
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub clients: u64,
    /// Milliseconds between one thing and the next of the same client
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pub pause_ms: u64,
    /// Seconds until a call counts as of unknown outcome
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub timeout: u64,
    /// End by itself after so many seconds
    #[arg(long, value_name = "S")]
    pub seconds: Option<u64>,
}

/// All gateways must answer once, so that the history begins at heights that everybody has.
const BEGIN_WITHIN: Duration = Duration::from_secs(120);
const ASK_EVERY: Duration = Duration::from_millis(500);
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Records that all clients contend for.
const SHARED: u64 = 4;

/// What all clients and streams of a load have in common.
struct Shared {
    recorder: Recorder,
    progress: Progress,
    next_op: AtomicU64,
    next_record: AtomicU64,
    /// The first record of this load; the first [`SHARED`] are everybody's.
    first_record: u64,
    within: Duration,
    pause: Duration,
}

impl Shared {
    fn op(&self) -> u64 {
        self.next_op.fetch_add(1, Ordering::Relaxed)
    }

    fn record(&self) -> u64 {
        self.next_record.fetch_add(1, Ordering::Relaxed)
    }
}

pub async fn run(args: &LoadArgs) -> Result<()> {
    let network = Network::load(&args.network)?;
    let tasks = Tasks::new();
    tasks.end_on_signals()?;
    let heights = tokio::select! {
        heights = begin(&network) => heights?,
        () = tasks.token().cancelled() => return Ok(()),
    };
    let gateways: Vec<String> = network.peers().map(|peer| peer.name.clone()).collect();
    let recorder = Recorder::create(&args.history)?;
    recorder.enter(What::Began {
        heights: heights.clone(),
        gateways: gateways.clone(),
    })?;
    // Records of earlier loads on the same ledger must not come again.
    let first_record = rand::rng().random_range(1_000_000..PATIENTS_MAX / 2);
    let shared = Arc::new(Shared {
        recorder,
        progress: Progress::new(&gateways, heights.len()),
        next_op: AtomicU64::new(1),
        next_record: AtomicU64::new(first_record + SHARED),
        first_record,
        within: Duration::from_secs(args.timeout),
        pause: Duration::from_millis(args.pause_ms),
    });
    for (gateway, peer) in network.peers().enumerate() {
        let session = network.connect(&peer.organisation, "physician", Some(&peer.name))?;
        let client = Arc::new(Client::new(session)?);
        for number in 0..args.clients {
            let id = gateway as u64 * args.clients + number;
            let life = Life::new(shared.clone(), client.clone(), id, gateway);
            tasks.spawn("client", OnFailure::StopProcess, life.live(tasks.clone()));
        }
        for (partition, from) in (0u32..).zip(&heights) {
            let follow = streams::follow(shared.clone(), client.clone(), gateway, partition, *from);
            let token = tasks.token().clone();
            // Until the load ends: a stream has nothing to finish.
            let until = async move { token.run_until_cancelled_owned(follow).await.unwrap_or(Ok(())) };
            tasks.spawn("stream", OnFailure::StopProcess, until);
        }
    }
    tell(&shared, &tasks, args.seconds.map(Duration::from_secs)).await?;
    tasks.cancel();
    // Every call ends by its deadline, and at most three of one intent follow each other.
    tasks.wait(shared.within * 5).await?;
    shared.progress.tell(shared.recorder.now_ms())
}

/// Blocks of every partition as the furthest peer has them, once all peers answer.
async fn begin(network: &Network) -> Result<Heights> {
    let deadline = Instant::now() + BEGIN_WITHIN;
    loop {
        match check::heights(network).await {
            Ok(heights) => return Ok(heights),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("not every peer answered within {BEGIN_WITHIN:?}")));
            }
            Err(_) => tokio::time::sleep(ASK_EVERY).await,
        }
    }
}

async fn tell(shared: &Shared, tasks: &Tasks, end_after: Option<Duration>) -> Result<()> {
    let end = end_after.map(|after| Instant::now() + after);
    let mut ticks = tokio::time::interval(TELL_EVERY);
    while !tasks.is_cancelled() && end.is_none_or(|end| Instant::now() < end) {
        tokio::select! {
            _ = ticks.tick() => shared.progress.tell(shared.recorder.now_ms()).context("standard output")?,
            () = tasks.token().cancelled() => {}
        }
    }
    Ok(())
}
