//! Kafka's jars from Maven Central, through Maven, once per machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{LocalError, blocking, io_error};

const POM: &str = include_str!("pom.xml");
const VERSION: &str = "4.1.0";

/// `$MEDLEDGER_CACHE`, else `~/.cache/medledger`.
pub fn cache_directory() -> Result<PathBuf, LocalError> {
    if let Some(path) = env::var_os("MEDLEDGER_CACHE").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    env::home_dir()
        .map(|home| home.join(".cache").join("medledger"))
        .ok_or_else(|| LocalError::Missing("neither MEDLEDGER_CACHE nor a home directory".into()))
}

/// What [`fetch_jars`] downloads when it does.
pub const JARS_MB: u32 = 43;

/// Whether they were fetched before.
pub fn has_jars() -> Result<bool, LocalError> {
    Ok(directory(&cache_directory()?).is_dir())
}

fn directory(cache: &Path) -> PathBuf {
    cache.join(format!("kafka-{VERSION}"))
}

/// The directory of the jars, fetched when absent: some seconds.
pub async fn fetch_jars() -> Result<PathBuf, LocalError> {
    blocking(|| fetch_into(&cache_directory()?)).await
}

fn fetch_into(cache: &Path) -> Result<PathBuf, LocalError> {
    let jars = directory(cache);
    if jars.is_dir() {
        return Ok(jars);
    }
    fs::create_dir_all(cache).map_err(io_error("making the cache directory"))?;
    // Several tests may come here at once: one fetches, the others wait for it.
    let lock = fs::File::create(cache.join(format!("kafka-{VERSION}.lock")))
        .map_err(io_error("making the lock file of Kafka's jars"))?;
    lock.lock().map_err(io_error("locking Kafka's jars"))?;
    if jars.is_dir() {
        return Ok(jars);
    }
    tracing::info!(to = %jars.display(), "fetching Kafka {VERSION} from Maven Central");
    // Whole or not at all: the final name appears by a rename.
    let partial = cache.join(format!("kafka-{VERSION}.partial"));
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).map_err(io_error("making the directory of Kafka's jars"))?;
    let pom = partial.join("pom.xml");
    fs::write(&pom, POM).map_err(io_error("writing pom.xml"))?;
    let output = Command::new("mvn")
        .args([
            "--quiet",
            "--batch-mode",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
        ])
        .arg(format!("-DoutputDirectory={}", partial.display()))
        .arg("--file")
        .arg(&pom)
        .stdin(Stdio::null())
        .output()
        .map_err(|_| LocalError::Missing("mvn is missing: apt-get install maven default-jre-headless".into()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        return Err(LocalError::Command {
            doing: "fetching Kafka's jars with mvn".into(),
            output: said,
        });
    }
    fs::rename(&partial, &jars).map_err(io_error("naming the directory of Kafka's jars"))?;
    Ok(jars)
}
