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
    /// Directory with the root of the own organisation as `*.pem`; others may lie beside it.
    pub roots: PathBuf,
    /// Revocation lists, read again when they change.
    pub crls: Option<PathBuf>,
    /// gRPC with mTLS.
    pub listen: SocketAddr,
    /// Health and metrics, plain HTTP.
    pub health: SocketAddr,
    #[serde(default)]
    pub log: Format,
    #[serde(default)]
    pub limits: Limits,
}

impl settings::Settings for Config {
    fn check(&self) -> Result<(), Broken> {
        self.limits.check()
    }

    fn anchor(&mut self, base: &Path) {
        anchor(base, &mut self.identity);
        anchor(base, &mut self.roots);
        if let Some(crls) = &mut self.crls {
            anchor(base, crls);
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
        assert!(check(&format!("{base}speling = 1")).is_err());
    }
}
