//! What the load did and what it was told, line by line: the only thing that the judge believes besides the chains.
//!
//! A file of JSON lines that is only appended to. A line about a call is there before the call is made, so whatever
//! ends the load, nothing it asked for is missing. Records are named by their number: nobody's personal number
//! stands here.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

/// Where in the log a transaction is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    pub partition: u32,
    pub height: u64,
    pub index: u32,
}

/// One line. Times are milliseconds since the load began, of a clock that never goes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub at_ms: u64,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// The first line: blocks of every partition before the load, and the gateways, which later lines name by number.
    Began {
        heights: Vec<u64>,
        gateways: Vec<String>,
    },
    /// A signed intent is about to be handed over.
    Invoked(Write),
    /// The same intent is about to be handed over once more.
    Again {
        op: u64,
    },
    /// How a hand-over ended.
    Ended {
        op: u64,
        outcome: Outcome,
    },
    /// Refused before anything was signed, so before anything can have happened.
    Unsigned {
        gateway: usize,
        word: String,
    },
    /// `saw`: `None` where there is no record.
    Read {
        client: u64,
        gateway: usize,
        record: u64,
        saw: Option<Saw>,
    },
    Unread {
        gateway: usize,
        word: String,
    },
    /// A gateway's event stream handed out an event that it had not handed out before.
    Event {
        gateway: usize,
        #[serde(flatten)]
        place: Place,
        tx_id: TxId,
    },
    /// The stream broke; it is opened again from where it was.
    Broke {
        gateway: usize,
        partition: u32,
        word: String,
    },
}

/// Version and origin of a record as somebody read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saw {
    pub version: u64,
    /// The operation that wrote what was seen.
    pub op: u64,
}

/// A change of one record. It leaves the record at `version` + 1, with `op` in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    pub op: u64,
    pub client: u64,
    pub gateway: usize,
    pub record: u64,
    /// The version that the client saw; 0: there was no record.
    pub version: u64,
    pub tx_id: TxId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Judged VALID by the asked gateway.
    Committed(Place),
    /// In the log, as the receipt says.
    Ordered(Place),
    /// Surely not done, by its stable word.
    Refused { word: String },
    /// Nobody said.
    Unknown { word: String },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub protocol::Digest);

impl std::fmt::Display for TxId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for TxId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for TxId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TxId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = hex::decode(&text).ok();
        let digest = bytes.and_then(|bytes| protocol::hash::digest(&bytes));
        digest
            .map(TxId)
            .ok_or_else(|| serde::de::Error::custom("a tx_id has 64 hexadecimal digits"))
    }
}

/// Appends to a history.
pub struct Recorder {
    began: Instant,
    file: Mutex<File>,
}

impl Recorder {
    /// A file of its own for each load: one that is there already holds another clock's times.
    pub fn create(file: &Path) -> Result<Recorder> {
        let opened = OpenOptions::new().create_new(true).append(true).open(file);
        Ok(Recorder {
            began: Instant::now(),
            file: Mutex::new(opened.with_context(|| format!("the history {}", file.display()))?),
        })
    }

    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// One line, written whole before this returns: it outlives this process, not this machine.
    pub fn enter(&self, what: What) -> Result<u64> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Within the lock, so that lines and times have one order.
        let at_ms = self.now_ms();
        let mut line = serde_json::to_vec(&Entry { at_ms, what })?;
        line.push(b'\n');
        file.write_all(&line).context("writing the history")?;
        Ok(at_ms)
    }
}

/// A history as far as it is written; a last line without its end is still being written.
pub fn read(file: &Path) -> Result<Vec<Entry>> {
    let named = || file.display().to_string();
    let mut lines = BufReader::new(File::open(file).with_context(named)?);
    let mut history = Vec::new();
    let mut line = String::new();
    while lines.read_line(&mut line).with_context(named)? > 0 && line.ends_with('\n') {
        let entry = serde_json::from_str(&line);
        history.push(entry.with_context(|| format!("{}, line {}", named(), history.len() + 1))?);
        line.clear();
    }
    ensure!(
        matches!(
            history.first(),
            Some(Entry {
                what: What::Began { .. },
                ..
            })
        ),
        "{}: does not begin as a history does",
        named()
    );
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_entered_is_read_and_half_a_line_waits() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("history.jsonl");
        let recorder = Recorder::create(&file).expect("a new file");
        let place = Place {
            partition: 1,
            height: 2,
            index: 3,
        };
        let tx_id = TxId([7; 32]);
        let entered = [
            What::Began {
                heights: vec![1, 2],
                gateways: vec!["peer0.HospitalA".into()],
            },
            What::Invoked(Write {
                op: 1,
                client: 0,
                gateway: 0,
                record: 9,
                version: 0,
                tx_id,
            }),
            What::Ended {
                op: 1,
                outcome: Outcome::Committed(place),
            },
            What::Event {
                gateway: 0,
                place,
                tx_id,
            },
        ];
        for what in &entered {
            recorder.enter(what.clone()).expect("written");
        }
        let mut half = OpenOptions::new().append(true).open(&file).expect("the file");
        half.write_all(b"{\"at_ms\":").expect("half a line");
        let history = read(&file).expect("a history");
        let read: Vec<What> = history.into_iter().map(|entry| entry.what).collect();
        assert_eq!(read, entered);
        assert!(Recorder::create(&file).is_err(), "a history is not written over");
    }
}
