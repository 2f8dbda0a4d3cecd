//! What was published under which rules, in a file beside the peer's data. Two divisions of the same people can be
//! subtracted from each other, so other rules count from the end of what was published before them.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub struct Kept {
    file: PathBuf,
    said: Said,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    /// Fingerprint of the rules.
    rules: String,
    /// Nothing that ended before is published under them.
    since_ms: u64,
    /// The end of the newest period that was published.
    until_ms: u64,
}

impl Kept {
    /// Where nothing is kept, nothing was published.
    pub fn open(file: &Path, rules: String) -> io::Result<Kept> {
        let found: Option<Said> = match fs::read(file) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let said = match found {
            Some(said) if said.rules == rules => said,
            // Written with the first period that these publish: until then nobody has read anything of theirs.
            other => {
                let until_ms = other.map_or(0, |said| said.until_ms);
                Said {
                    rules,
                    since_ms: until_ms,
                    until_ms,
                }
            }
        };
        Ok(Kept {
            file: file.to_owned(),
            said,
        })
    }

    pub fn since_ms(&self) -> u64 {
        self.said.since_ms
    }

    /// On the disk before anybody is told of a period with this end.
    pub fn publish(&mut self, until_ms: u64) -> io::Result<()> {
        if until_ms <= self.said.until_ms {
            return Ok(());
        }
        let said = Said {
            until_ms,
            ..self.said.clone()
        };
        let directory = self.file.parent().unwrap_or(Path::new("/"));
        let mut unfinished = tempfile::NamedTempFile::new_in(directory)?;
        unfinished.write_all(&serde_json::to_vec(&said)?)?;
        unfinished.as_file().sync_all()?;
        unfinished.persist(&self.file)?;
        File::open(directory)?.sync_all()?;
        self.said = said;
        Ok(())
    }
}
