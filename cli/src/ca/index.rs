//! What an authority issued and revoked: JSON lines, appended under a lock.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use protocol::identity::Attributes;
use serde::{Deserialize, Serialize};

use super::{Error, file};

/// One certificate, and what became of it. Serial numbers and hashes are hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub serial: String,
    pub name: String,
    pub role: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: Attributes,
    /// Unix seconds.
    pub not_before: i64,
    pub not_after: i64,
    /// SHA-256 of the DER: how the ledger cites it.
    pub hash: String,
    /// Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Issued(Entry),
    Revoked {
        serial: String,
        at: i64,
    },
    /// A revocation list was signed under this number.
    Crl {
        number: u64,
    },
}

/// The index, held against everybody else until dropped.
pub(super) struct Index {
    path: PathBuf,
    out: File,
    /// As issued.
    pub(super) entries: Vec<Entry>,
    /// Of the last revocation list.
    pub(super) crl_number: u64,
}

impl Index {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        let out = options.create(true).read(true).append(true).mode(0o600).open(path);
        let out = out.map_err(file("opening", path))?;
        out.lock().map_err(file("locking", path))?;
        let mut index = Index {
            path: path.to_owned(),
            out,
            entries: Vec::new(),
            crl_number: 0,
        };
        index.read()?;
        Ok(index)
    }

    fn read(&mut self) -> Result<(), Error> {
        let mut text = String::new();
        self.out.seek(SeekFrom::Start(0)).map_err(file("reading", &self.path))?;
        self.out
            .read_to_string(&mut text)
            .map_err(file("reading", &self.path))?;
        // A line without its end was being written when the machine stopped; nothing came of it.
        let whole = text.rfind('\n').map_or(0, |last| last + 1);
        if whole < text.len() {
            self.out.set_len(whole as u64).map_err(file("repairing", &self.path))?;
        }
        for (i, line) in text[..whole].lines().enumerate() {
            let line = serde_json::from_str(line).map_err(|_| Error::Index {
                path: self.path.clone(),
                line: i + 1,
            })?;
            self.apply(line);
        }
        Ok(())
    }

    /// On disk when it returns.
    pub(super) fn append(&mut self, line: Line) -> Result<(), Error> {
        let mut text = serde_json::to_vec(&line).map_err(|cause| file("writing", &self.path)(cause.into()))?;
        text.push(b'\n');
        self.out.write_all(&text).map_err(file("writing", &self.path))?;
        self.out.sync_all().map_err(file("writing", &self.path))?;
        self.apply(line);
        Ok(())
    }

    fn apply(&mut self, line: Line) {
        match line {
            Line::Issued(entry) => self.entries.push(entry),
            Line::Revoked { serial, at } => {
                self.entries
                    .iter_mut()
                    .filter(|entry| entry.serial == serial)
                    .for_each(|entry| entry.revoked = entry.revoked.or(Some(at)));
            }
            Line::Crl { number } => self.crl_number = number,
        }
    }
}
