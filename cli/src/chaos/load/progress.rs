//! How far a load is: a line of JSON each second, in which every figure counts from the beginning, so that whoever
//! misses lines misses nothing.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    sync::{Mutex, PoisonError},
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Acknowledged so far, and when the last was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    pub acknowledged: u64,
    pub last_ms: u64,
}

impl Counted {
    fn add(&mut self, at_ms: u64) {
        self.acknowledged += 1;
        self.last_ms = at_ms;
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub at_ms: u64,
    pub all: Counted,
    pub gateways: BTreeMap<String, Counted>,
    pub partitions: Vec<Counted>,
    pub reads: u64,
    pub events: u64,
    /// Whatever was not done, by its word.
    pub words: BTreeMap<String, u64>,
}

pub struct Progress {
    names: Vec<String>,
    line: Mutex<Line>,
}

impl Progress {
    pub fn new(gateways: &[String], partitions: usize) -> Self {
        let line = Line {
            gateways: gateways.iter().map(|name| (name.clone(), Counted::default())).collect(),
            partitions: vec![Counted::default(); partitions],
            ..Line::default()
        };
        Progress {
            names: gateways.to_vec(),
            line: Mutex::new(line),
        }
    }

    fn with(&self, change: impl FnOnce(&mut Line)) {
        change(&mut self.line.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn acknowledged(&self, gateway: usize, partition: u32, at_ms: u64) {
        self.with(|line| {
            line.all.add(at_ms);
            if let Some(counted) = self.names.get(gateway).and_then(|name| line.gateways.get_mut(name)) {
                counted.add(at_ms);
            }
            if let Some(counted) = line.partitions.get_mut(partition as usize) {
                counted.add(at_ms);
            }
        });
    }

    pub fn not_done(&self, word: &str) {
        self.with(|line| *line.words.entry(word.to_owned()).or_default() += 1);
    }

    pub fn read(&self) {
        self.with(|line| line.reads += 1);
    }

    pub fn event(&self) {
        self.with(|line| line.events += 1);
    }

    /// To standard output; a reader that has gone does not stop the load.
    pub fn tell(&self, at_ms: u64) -> Result<()> {
        let mut text = Vec::new();
        self.with(|line| {
            line.at_ms = at_ms;
            text = serde_json::to_vec(line).unwrap_or_default();
        });
        text.push(b'\n');
        let mut out = io::stdout().lock();
        match out.write_all(&text).and_then(|()| out.flush()) {
            Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => Err(cause.into()),
            _ => Ok(()),
        }
    }
}
