//! Settings: `clap` says where, `serde` says what. An error names file, field and rule.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// The command line of every process.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgs {
    /// Settings, TOML
    #[arg(long, value_name = "FILE", env = "MEDLEDGER_CONFIG")]
    pub config: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: cannot be read: {cause}", file.display())]
    Read { file: PathBuf, cause: std::io::Error },
    /// The cause names line, column and field.
    #[error("{}: {cause}", file.display())]
    Parse { file: PathBuf, cause: Box<toml::de::Error> },
    #[error("{}: {field}: {rule}", file.display())]
    Rule { file: PathBuf, field: String, rule: String },
}

/// A field that breaks a rule which types alone do not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub field: String,
    pub rule: String,
}

impl Broken {
    pub fn new(field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            rule: rule.into(),
        }
    }
}

impl From<(&'static str, String)> for Broken {
    fn from((field, rule): (&'static str, String)) -> Self {
        Self::new(field, rule)
    }
}

/// What can be loaded. Use `#[serde(deny_unknown_fields)]`.
pub trait Settings: DeserializeOwned {
    /// Rules that hold between fields or that types do not say.
    fn check(&self) -> Result<(), Broken> {
        Ok(())
    }

    /// Makes relative paths relative to the settings file: `anchor(base, &mut self.identity)`.
    fn anchor(&mut self, _base: &Path) {}
}

/// Reads, anchors and checks.
pub fn load<S: Settings>(file: &Path) -> Result<S, Error> {
    let text = std::fs::read_to_string(file).map_err(|cause| Error::Read {
        file: file.to_owned(),
        cause,
    })?;
    let mut settings: S = toml::from_str(&text).map_err(|cause| Error::Parse {
        file: file.to_owned(),
        cause: Box::new(cause),
    })?;
    settings.anchor(file.parent().unwrap_or(Path::new(".")));
    settings.check().map_err(|broken| Error::Rule {
        file: file.to_owned(),
        field: broken.field,
        rule: broken.rule,
    })?;
    Ok(settings)
}

/// Whoever takes addresses away from those who send is slow for seconds, not for minutes.
const LINGER_ON_END_MS_MAX: u64 = 60_000;
const RENEWAL_SPREAD_MS_MAX: u64 = 24 * 3600 * 1000;

/// How long replicas take between them to go with a renewed certificate.
pub fn renewal_spread_ms() -> u64 {
    60_000
}

/// The rules of a process's end.
pub fn check_end(linger_on_end_ms: u64, renewal_spread_ms: u64) -> Result<(), Broken> {
    let rules = [
        ("linger_on_end_ms", linger_on_end_ms, LINGER_ON_END_MS_MAX),
        ("renewal_spread_ms", renewal_spread_ms, RENEWAL_SPREAD_MS_MAX),
    ];
    match rules.iter().find(|(_, value, most)| value > most) {
        Some((field, value, most)) => Err(Broken::new(*field, format!("at most {most}, not {value}"))),
        None => Ok(()),
    }
}

/// A relative `path` becomes relative to `base`.
pub fn anchor(base: &Path, path: &mut PathBuf) {
    if path.is_relative() {
        *path = base.join(&path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        identity: PathBuf,
        queue_items_max: usize,
    }

    impl Settings for Sample {
        fn check(&self) -> Result<(), Broken> {
            match self.queue_items_max {
                0 => Err(Broken::new("queue_items_max", "at least 1")),
                _ => Ok(()),
            }
        }
        fn anchor(&mut self, base: &Path) {
            anchor(base, &mut self.identity);
        }
    }

    fn check(text: &str) -> Result<Sample, String> {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("sample.toml");
        std::fs::write(&file, text).expect("write");
        load::<Sample>(&file).map_err(|error| error.to_string())
    }

    #[test]
    fn relative_paths_start_at_the_file() {
        let sample = check("identity = 'id'\nqueue_items_max = 1").expect("valid");
        assert!(sample.identity.is_absolute() && sample.identity.ends_with("id"));
    }

    #[test]
    fn errors_name_file_field_and_rule() {
        let error = check("identity = 'id'\nqueue_items_max = 0").expect_err("broken");
        assert!(error.ends_with("sample.toml: queue_items_max: at least 1"), "{error}");
        let error = check("identity = 'id'\nqueue_items_max = 1\nspeling = 1").expect_err("unknown");
        assert!(error.contains("sample.toml") && error.contains("speling"), "{error}");
        let error = check("identity = 'id'\nqueue_items_max = 'x'").expect_err("type");
        assert!(error.contains("queue_items_max"), "{error}");
        assert!(load::<Sample>(Path::new("/nonexistent/sample.toml")).is_err());
    }
}
