//! The inside of a peer: log → state → attestations. Needs no connection but the log's, and runs in a
//! test as it does in a process.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ledger_log::{Log, topics::Topics};
use protocol::{
    genesis::{Channel, ConfigError},
    keys::ChannelSecret,
    transaction::Checker,
};
use service::{OnFailure, Tasks, health::Health};

use crate::{
    attester::{
        attestations::Attestations,
        follow,
        sign::{Attester, AttesterKey},
    },
    committer::{
        Committer, Effects,
        chain::{Chain, Stop},
        control::{self, ControlView},
        watchers::Watchers,
    },
    ledger::Ledger,
    metrics,
    state::{ControlStore, Owner, PartitionState, StateError, Store, Tuning, scrub},
};

/// What the inside of a peer is made from. Any log will do.
pub struct Inside {
    pub log: Arc<dyn Log>,
    /// The bytes of a `ledger.Genesis`.
    pub genesis: Vec<u8>,
    pub secret: [u8; 32],
    pub data: PathBuf,
    pub tuning: Tuning,
    pub scrub: ScrubConfig,
    /// One peer of an organisation attests.
    pub attester: Option<AttesterKey>,
}

/// How often and how fast all state is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScrubConfig {
    /// 0: never.
    pub interval_s: u64,
    pub bytes_per_second: u64,
}

impl Default for ScrubConfig {
    fn default() -> Self {
        // A few percent of a core at most; a gigabyte of state takes four minutes.
        ScrubConfig {
            interval_s: 3600,
            bytes_per_second: 4 << 20,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Genesis(#[from] ConfigError),
    #[error("the channel secret is not the one whose hash the genesis holds")]
    Secret,
    #[error(transparent)]
    State(#[from] StateError),
}

/// Opens the state and starts everything that needs no connection but the log's.
pub fn start(tasks: &Tasks, health: &Health, inside: Inside) -> Result<Arc<Ledger>, StartError> {
    let channel = Arc::new(Channel::from_genesis(&inside.genesis)?);
    let secret = ChannelSecret::new(&inside.secret);
    if channel.config.secret_hash != secret.hash() {
        return Err(StartError::Secret);
    }
    let store = Store::new(&inside.data, inside.tuning)?;
    let owner = Owner {
        channel: channel.id,
        secret: secret.hash(),
    };
    let mut chains = Vec::new();
    for partition in 0..channel.partitions() {
        let state = PartitionState::open(&store, owner, partition)?;
        let position = state.position()?;
        chains.push(Chain::new(state, &position));
    }
    let control = ControlView::open(ControlStore::open(&store, &channel.id)?, Arc::clone(&channel))?;
    metrics::ledger::known(&channel);
    let checker = Arc::new(Checker::new(Arc::clone(&channel)));
    let ledger = Arc::new(Ledger {
        attestations: Attestations::new(Arc::clone(&checker), chains.clone(), Arc::clone(&control)),
        topics: Topics::of_channel(&channel),
        watchers: Arc::default(),
        log: inside.log,
        checker,
        secret,
        chains,
        control,
        replaying: true.into(),
    });
    start_followers(tasks, &ledger);
    start_housekeeping(tasks, health, &ledger, inside.tuning, inside.scrub);
    let room = super::room::watch(tasks.clone(), Arc::clone(&ledger), inside.data);
    tasks.spawn("a full disk", OnFailure::StopProcess, room);
    if let Some(key) = inside.attester {
        start_attester(tasks, health, &ledger, key);
    }
    Ok(ledger)
}

fn start_followers(tasks: &Tasks, ledger: &Arc<Ledger>) {
    let control = control::run(
        Arc::clone(&ledger.control),
        Arc::clone(&ledger.log),
        ledger.topics.of(protocol::CONTROL),
        Arc::clone(&ledger.attestations),
        tasks.token().clone(),
    );
    tasks.spawn("control chain", OnFailure::StopProcess, control);
    for chain in &ledger.chains {
        let watchers: Arc<Watchers> = Arc::clone(&ledger.watchers);
        let committer = Committer {
            log: Arc::clone(&ledger.log),
            topic: ledger.topics.of(chain.partition),
            checker: Arc::clone(&ledger.checker),
            control: Arc::clone(&ledger.control),
            effects: Effects {
                chain: Arc::clone(chain),
                watchers,
                attestations: Arc::clone(&ledger.attestations),
            },
        };
        tasks.spawn(
            "committer",
            OnFailure::StopProcess,
            committer.run(tasks.token().clone()),
        );
    }
    let attestations = follow::run(
        Arc::clone(&ledger.attestations),
        Arc::clone(&ledger.log),
        ledger.topics.attest(),
        tasks.token().clone(),
    );
    tasks.spawn("attestations", OnFailure::StopProcess, attestations);
}

fn start_attester(tasks: &Tasks, health: &Health, ledger: &Arc<Ledger>, key: AttesterKey) {
    let attester = Attester {
        key,
        ledger: Arc::clone(ledger),
        log: Arc::clone(&ledger.log),
        topic: ledger.topics.attest(),
        check: health.check("attester"),
    };
    tasks.spawn("attester", OnFailure::StopProcess, attester.run(tasks.token().clone()));
}

fn start_housekeeping(tasks: &Tasks, health: &Health, ledger: &Arc<Ledger>, tuning: Tuning, scrub: ScrubConfig) {
    tasks.spawn(
        "flush",
        OnFailure::Log,
        flush(tasks.clone(), ledger.chains.clone(), tuning),
    );
    tasks.spawn(
        "ledger health",
        OnFailure::StopProcess,
        super::health::watch(tasks.clone(), health.clone(), Arc::clone(ledger)),
    );
    tasks.spawn(
        "replay",
        OnFailure::StopProcess,
        super::replay::watch(tasks.clone(), health.check("replay"), Arc::clone(ledger)),
    );
    if scrub.interval_s > 0 {
        let config_digest = ledger.checker.channel.config_digest;
        tasks.spawn(
            "scrub",
            OnFailure::Log,
            scrub_all(tasks.clone(), ledger.chains.clone(), config_digest, scrub),
        );
    }
}

/// Every so often, and when the process ends, so that the next start has little to replay.
async fn flush(tasks: Tasks, chains: Vec<Arc<Chain>>, tuning: Tuning) -> Result<(), String> {
    let interval = Duration::from_millis(tuning.flush_interval_ms.max(100));
    loop {
        let ending = tokio::time::timeout(interval, tasks.token().cancelled()).await.is_ok();
        let chains = chains.clone();
        let work = move || {
            for chain in &chains {
                if let Err(error) = chain.state.flush(ending) {
                    chain.stop(Stop::Disk(error));
                }
            }
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| error.to_string())?;
        if ending {
            return Ok(());
        }
    }
}

async fn scrub_all(
    tasks: Tasks,
    chains: Vec<Arc<Chain>>,
    config_digest: protocol::Digest,
    config: ScrubConfig,
) -> Result<(), String> {
    let interval = Duration::from_secs(config.interval_s);
    loop {
        if tokio::time::timeout(interval, tasks.token().cancelled()).await.is_ok() {
            return Ok(());
        }
        for chain in chains.iter().cloned() {
            let (token, runtime) = (tasks.token().clone(), tokio::runtime::Handle::current());
            let work = move || {
                let pause = |pause: Duration| {
                    let ending = tokio::time::timeout(pause, token.cancelled());
                    !token.is_cancelled() && (pause.is_zero() || runtime.block_on(ending).is_err())
                };
                let done = scrub(&chain.state, &config_digest, config.bytes_per_second, pause);
                (done, chain)
            };
            let (done, chain) = tokio::task::spawn_blocking(work)
                .await
                .map_err(|error| error.to_string())?;
            match done {
                Ok(Some(done)) => {
                    tracing::info!(
                        partition = chain.partition,
                        done.height,
                        done.rows,
                        done.bytes,
                        "scrubbed"
                    );
                }
                Ok(None) => {}
                Err(error) => chain.stop(Stop::Disk(error)),
            }
        }
    }
}
