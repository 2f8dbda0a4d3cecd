//! A peer's settings, TOML. Relative paths start at the file.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ledger_log::kafka::KafkaSettings;
use serde::Deserialize;
use service::{
    settings::{self, Broken, Settings, anchor},
    telemetry,
};

use crate::{
    gateway::config::{Limits, Quotas},
    peers,
    reporting::ReportingConfig,
    run::ScrubConfig,
    state::Tuning,
};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The bytes of a genesis.
    pub genesis: PathBuf,
    /// Directory with `cert.pem` and `key.pem`.
    pub identity: PathBuf,
    /// Directory of revocation lists.
    pub crls: Option<PathBuf>,
    /// 32 bytes that the members share.
    pub secret: PathBuf,
    /// Derived state; may be deleted, is computed again.
    pub data: PathBuf,
    pub listen: SocketAddr,
    /// Plain HTTP: health and metrics.
    pub health: SocketAddr,
    /// `host:port` of the organisation's workers.
    #[serde(default)]
    pub workers: Vec<String>,
    /// `host:port` of orderers, of any organisation.
    pub orderers: Vec<String>,
    /// All other peers, also those of the own organisation.
    #[serde(default)]
    pub peers: Vec<peers::Address>,
    /// On the one peer that attests for its organisation.
    pub attester: Option<AttesterConfig>,
    pub kafka: KafkaSettings,
    #[serde(default)]
    pub quota: Quotas,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub state: Tuning,
    #[serde(default)]
    pub scrub: ScrubConfig,
    /// On the one peer that counts what the ministry is told.
    pub reporting: Option<ReportingConfig>,
    /// When it is asked to end it is not ready at once, and serves so long before it drains: who sends here hears of
    /// it later.
    #[serde(default)]
    pub linger_on_end_ms: u64,
    /// A process that finds its certificate renewed ends within this time, so that replicas do not go at once.
    #[serde(default = "settings::renewal_spread_ms")]
    pub renewal_spread_ms: u64,
    #[serde(default)]
    pub log: telemetry::Format,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttesterConfig {
    /// Directory with `cert.pem` and `key.pem` of the certificate that the config names.
    pub identity: PathBuf,
    /// Made once with `medledger-peer guard init`. Not derived: never restore it from a backup.
    pub guard: PathBuf,
}

impl Settings for Config {
    fn check(&self) -> Result<(), Broken> {
        if self.orderers.is_empty() {
            return Err(Broken::new("orderers", "must name at least one"));
        }
        if self.listen == self.health && self.listen.port() != 0 {
            return Err(Broken::new("health", "must be another address than listen"));
        }
        settings::check_end(self.linger_on_end_ms, self.renewal_spread_ms)?;
        self.kafka.check()?;
        if let Some(reporting) = &self.reporting {
            reporting.check()?;
        }
        self.limits.check()
    }

    fn anchor(&mut self, base: &Path) {
        for path in [&mut self.genesis, &mut self.identity, &mut self.secret, &mut self.data] {
            anchor(base, path);
        }
        if let Some(crls) = &mut self.crls {
            anchor(base, crls);
        }
        if let Some(attester) = &mut self.attester {
            anchor(base, &mut attester.identity);
            anchor(base, &mut attester.guard);
        }
        if let Some(codes) = self.reporting.as_mut().and_then(|reporting| reporting.codes.as_mut()) {
            anchor(base, codes);
        }
        if let Some(file) = &mut self.kafka.properties_file {
            anchor(base, file);
        }
    }
}
