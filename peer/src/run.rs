//! Puts a peer together: the inside (log → state → attestations) and, around it, its servers.

mod health;
mod inside;
mod replay;
mod room;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ledger_log::kafka::KafkaLog;
use protocol::genesis::{Channel, ConfigError};
use service::{
    Tasks,
    health::Health,
    identity::{Identity, Role},
    renewal,
    tls::Trust,
};

use crate::{
    attester::{
        guard::{self, GuardError},
        sign::AttesterKey,
    },
    config::{AttesterConfig, Config},
    gateway,
    ledger::Ledger,
    metrics,
    reporting::{self, ReportingConfig, Reports},
};

pub use inside::{Inside, ScrubConfig, StartError, start};

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{}: {cause}", file.display())]
    Read { file: PathBuf, cause: std::io::Error },
    #[error("{}: must be 32 bytes", .0.display())]
    SecretBytes(PathBuf),
    #[error("{address}: {cause}")]
    Listen { address: SocketAddr, cause: std::io::Error },
    #[error(transparent)]
    Identity(#[from] service::identity::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Genesis(#[from] ConfigError),
    #[error(transparent)]
    Kafka(#[from] ledger_log::kafka::OpenError),
    #[error("the guard: {0}")]
    Guard(#[from] GuardError),
    #[error("attester: is missing in the settings")]
    NoAttester,
    #[error("{0}: {1}")]
    Reporting(String, String),
    #[error(transparent)]
    Tls(#[from] service::tls::Error),
}

/// The whole process on Kafka: inside, servers, health.
pub async fn serve(tasks: &Tasks, config: Config) -> Result<Arc<Ledger>, ServeError> {
    service::metrics::start(Role::Peer.word(), &metrics::all(config.attester.is_some()));
    let health = Health::new();
    let listen = |address| move |cause| ServeError::Listen { address, cause };
    service::health::serve(tasks, health.clone(), config.health)
        .await
        .map_err(listen(config.health))?;
    let identity = Arc::new(Identity::load_as(Role::Peer, &config.identity)?);
    let log = KafkaLog::open(&config.kafka)?;
    let secret = read(&config.secret)?;
    // Beside the data, which may be deleted and is computed again.
    let name = config.data.file_name().unwrap_or_default().display();
    let kept = config.data.with_file_name(format!("{name}.reporting.json"));
    let inside = Inside {
        log: Arc::new(log),
        genesis: read(&config.genesis)?,
        secret: secret
            .try_into()
            .map_err(|_| ServeError::SecretBytes(config.secret.clone()))?,
        data: config.data,
        tuning: config.state,
        scrub: config.scrub,
        attester: config.attester.as_ref().map(attester_key).transpose()?,
    };
    let ledger = start(tasks, &health, inside)?;
    let reports = config
        .reporting
        .map(|config| report(tasks, &health, &ledger, &config, &kept));
    let reports = reports.transpose()?;
    let trust = Trust::load(
        Arc::clone(&identity),
        ledger.checker.channel.members.clone(),
        config.crls,
    )?;
    trust.watch(tasks, &health, Duration::from_secs(1));
    let spread = Duration::from_millis(config.renewal_spread_ms);
    renewal::watch(tasks, &health, &trust, config.identity, spread);
    let parts = gateway::Parts {
        tasks: tasks.clone(),
        ledger: Arc::clone(&ledger),
        identity,
        trust: Arc::clone(&trust),
        health,
        workers: config.workers,
        orderers: config.orderers,
        peers: config.peers,
        quotas: config.quota,
        limits: config.limits,
        reports,
    };
    let served = gateway::service(parts)?;
    let listener = service::serve::bind(config.listen)
        .await
        .map_err(listen(config.listen))?;
    service::serve::serve(
        tasks,
        listener,
        trust,
        served.routes,
        served.access,
        service::serve::Config::default(),
    )?;
    tracing::info!(address = %config.listen, "serving");
    Ok(ledger)
}

/// Counts what the ministry is told.
fn report(
    tasks: &Tasks,
    health: &Health,
    ledger: &Arc<Ledger>,
    config: &ReportingConfig,
    kept: &Path,
) -> Result<Arc<Reports>, ServeError> {
    let reports = Reports::open(config, ledger.checker.channel.partitions(), kept);
    let reports = Arc::new(reports.map_err(|broken| ServeError::Reporting(broken.field, broken.rule))?);
    reporting::start(tasks, health, ledger, &reports);
    Ok(reports)
}

/// Makes the attester's guard, once. `if_absent`: see [`guard::Guard::init_if_absent`].
pub fn init_guard(config: &Config, if_absent: bool) -> Result<(), ServeError> {
    let attester = config.attester.as_ref().ok_or(ServeError::NoAttester)?;
    let channel = Channel::from_genesis(&read(&config.genesis)?)?;
    let identity = Identity::load_as(Role::Peer, &attester.identity)?;
    let owner = guard::Owner {
        channel: channel.id,
        attester: identity.hash(),
        partitions: channel.partitions(),
    };
    let made = match if_absent {
        true => guard::Guard::init_if_absent(&attester.guard, owner)?,
        false => guard::Guard::init(&attester.guard, owner).map(|()| true)?,
    };
    let file = attester.guard.display();
    match made {
        true => tracing::warn!(%file, "a guard was made: never again for this attester's key"),
        false => tracing::info!(%file, "the guard is there"),
    }
    Ok(())
}

fn attester_key(config: &AttesterConfig) -> Result<AttesterKey, ServeError> {
    let identity = Identity::load_as(Role::Peer, &config.identity)?;
    Ok(AttesterKey {
        certificate: identity.hash(),
        msp_id: identity.msp_id().to_owned(),
        key: identity.signing_key,
        guard: config.guard.clone(),
    })
}

fn read(file: &Path) -> Result<Vec<u8>, ServeError> {
    std::fs::read(file).map_err(|cause| ServeError::Read {
        file: file.to_owned(),
        cause,
    })
}
