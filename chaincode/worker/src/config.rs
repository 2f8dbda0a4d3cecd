//! `worker.toml`. Paths are relative to the file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use service::settings::{self, Broken, anchor};
use service::telemetry::Format;

use crate::limits::Limits;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Directory with `cert.pem` and `key.pem`: role worker of the organisation whose peers may call.
    pub identity: PathBuf,
    /// The channel's genesis: who is a member, and whom it revokes. Nothing else of the ledger is known here.
    pub genesis: Option<PathBuf>,
    /// In its place: a directory with the root of the own organisation as `*.pem`, others may lie beside it. What the
    /// genesis revokes is then not known; only `crls` are.
    pub roots: Option<PathBuf>,
    /// Revocation lists, read again when they change.
    pub crls: Option<PathBuf>,
    /// gRPC with mTLS.
    pub listen: SocketAddr,
    /// Health and metrics, plain HTTP.
    pub health: SocketAddr,
    /// When it is asked to end it is not ready at once, and serves so long before it drains: who sends here hears of
    /// it later.
    #[serde(default)]
    pub linger_on_end_ms: u64,
    /// A process that finds its certificate renewed ends within this time, so that replicas do not go at once.
    #[serde(default = "settings::renewal_spread_ms")]
    pub renewal_spread_ms: u64,
    #[serde(default)]
    pub log: Format,
    #[serde(default)]
    pub limits: Limits,
}

impl settings::Settings for Config {
    fn check(&self) -> Result<(), Broken> {
        if self.genesis.is_some() == self.roots.is_some() {
            return Err(Broken::new("genesis", "either it or `roots`, not both"));
        }
        settings::check_end(self.linger_on_end_ms, self.renewal_spread_ms)?;
        self.limits.check()
    }

    fn anchor(&mut self, base: &Path) {
        anchor(base, &mut self.identity);
        for path in [&mut self.genesis, &mut self.roots, &mut self.crls]
            .into_iter()
            .flatten()
        {
            anchor(base, path);
        }
    }
}

#[cfg(test)]
mod tests {
    use service::settings::Settings;

    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let config: Config = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        config.check().map_err(|broken| broken.field)
    }

    #[test]
    fn settings_are_checked() {
        let base = "identity = 'i'\nroots = 'r'\nlisten = '127.0.0.1:1'\nhealth = '127.0.0.1:2'\n";
        assert_eq!(check(base), Ok(()));
        assert_eq!(check(&format!("{base}[limits]\nfuel_max = 1")), Ok(()));
        assert_eq!(
            check(&format!("{base}[limits]\nfuel_max = 0")),
            Err("limits.fuel_max".into())
        );
        assert_eq!(
            check(&format!("{base}[limits]\nmemory_bytes_max = 1024")),
            Err("limits.memory_bytes_max".into())
        );
        assert_eq!(check(&format!("{base}linger_on_end_ms = 5000")), Ok(()));
        assert_eq!(
            check(&format!("{base}linger_on_end_ms = 600000")),
            Err("linger_on_end_ms".into())
        );
        assert_eq!(
            check(&format!("{base}renewal_spread_ms = 86400001")),
            Err("renewal_spread_ms".into())
        );
        assert!(check(&format!("{base}speling = 1")).is_err());
        let genesis = base.replace("roots", "genesis");
        assert_eq!(check(&genesis), Ok(()));
        assert_eq!(check(&format!("roots = 'r'\n{genesis}")), Err("genesis".into()));
        assert_eq!(check(&base.replace("roots = 'r'", "")), Err("genesis".into()));
    }
}
