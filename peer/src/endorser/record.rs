//! What a running call is told of the state, and the record of it that goes into the result.
//!
//! Every endorser must come to the same bytes, so nothing here depends on the machine: pages end at
//! fixed numbers of rows and bytes, keys are full (contract ‖ 0x00 ‖ partition key ‖ suffix).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use protocol::keys::prefix_end;
use protocol::ledger;
use protocol::limits::{KEY_SUFFIX_BYTES_MAX, NAMED_BYTES_MAX, PAGE_BYTES_MAX, PAGE_ROWS_MAX, RANGES_MAX, READS_MAX};
use service::rpc::{self, question::Question};
use service::{Code, Problem};

use crate::ledger::{Row, Snapshot, StateError, Version};
use crate::workers::View;

/// Rows read at a time: values may be large, and most of a page may then be for nothing.
const ROWS_AT_ONCE: usize = 32;

/// Rows of a range by their full keys, ascending.
type Rows = Vec<(Vec<u8>, Row)>;

/// State at one height, by full keys.
pub trait State: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Row>, StateError>;
    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>, StateError>;
}

impl State for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Row>, StateError> {
        Snapshot::get(self, key)
    }

    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>, StateError> {
        Snapshot::range(self, start, end, limit)
    }
}

/// One subject's part of the state, and what was read of it.
pub struct Record {
    state: Arc<dyn State>,
    prefix: Vec<u8>,
    reads: BTreeMap<Vec<u8>, Option<Version>>,
    ranges: Vec<ledger::RangeRead>,
}

impl Record {
    /// `prefix`: contract ‖ 0x00 ‖ partition key.
    pub fn new(state: Arc<dyn State>, prefix: Vec<u8>) -> Self {
        Record {
            state,
            prefix,
            reads: BTreeMap::new(),
            ranges: Vec::new(),
        }
    }

    pub fn full_key(&self, suffix: &[u8]) -> Vec<u8> {
        [&self.prefix, suffix].concat()
    }

    /// Ascending by key, and the ranges in the order in which they were read.
    pub fn finish(self) -> (Vec<ledger::Read>, Vec<ledger::RangeRead>) {
        let reads = self.reads.into_iter().map(|(key, version)| ledger::Read {
            key,
            version: version.map(Into::into),
        });
        (reads.collect(), self.ranges)
    }

    pub fn forget(&mut self) {
        self.reads.clear();
        self.ranges.clear();
    }

    /// Reads by suffix; each key is recorded, present or not.
    pub fn entries(&mut self, suffixes: &[Vec<u8>]) -> Result<Vec<rpc::Entry>, Problem> {
        let mut entries = Vec::with_capacity(suffixes.len());
        let mut bytes = 0;
        for suffix in suffixes {
            check_suffix(suffix)?;
            let key = self.full_key(suffix);
            let row = self.state.get(&key).map_err(Problem::internal)?;
            self.reads.insert(key, row.as_ref().map(|row| row.version));
            let present = row.is_some();
            let value = row.map(|row| row.value).unwrap_or_default();
            bytes += value.len();
            if bytes > NAMED_BYTES_MAX {
                return Err(Problem::new(
                    Code::OutputTooLarge,
                    format!("the keys that are read at once hold at most {NAMED_BYTES_MAX} bytes"),
                ));
            }
            entries.push(rpc::Entry {
                key: suffix.clone(),
                present,
                value,
            });
        }
        if self.reads.len() > READS_MAX {
            return Err(Problem::new(
                Code::OutputTooLarge,
                format!("a call reads at most {READS_MAX} keys"),
            ));
        }
        Ok(entries)
    }

    /// Rows from `start` on, as many as a page may have, and whether there are more.
    fn page(&self, start: &[u8], end: &[u8], limit: usize) -> Result<(Rows, bool), Problem> {
        let mut page: Vec<(Vec<u8>, Row)> = Vec::new();
        let (mut from, mut bytes) = (start.to_vec(), 0);
        loop {
            // One more says whether the range goes on.
            let wanted = ROWS_AT_ONCE.min(limit + 1 - page.len());
            let rows = self.state.range(&from, end, wanted).map_err(Problem::internal)?;
            let is_last = rows.len() < wanted;
            for (key, row) in rows {
                if page.len() >= limit || (bytes > 0 && bytes + row.value.len() > PAGE_BYTES_MAX) {
                    return Ok((page, true));
                }
                bytes += row.value.len() + 1;
                page.push((key, row));
            }
            match page.last() {
                Some((key, _)) if !is_last => from = [key.as_slice(), &[0]].concat(),
                _ => return Ok((page, false)),
            }
        }
    }

    /// A page of a range; what was seen, and that there was nothing else, is recorded.
    pub fn range(&mut self, wanted: &rpc::RangeWanted) -> Result<rpc::Answer, Problem> {
        if wanted.start.len() > KEY_SUFFIX_BYTES_MAX || wanted.end.len() > KEY_SUFFIX_BYTES_MAX {
            return Err(key_too_long());
        }
        let start = self.full_key(&wanted.start);
        let end = if wanted.end.is_empty() {
            prefix_end(&self.prefix)
        } else {
            self.full_key(&wanted.end)
        };
        if start >= end {
            return Ok(rpc::Answer::default());
        }
        let limit = match wanted.limit as usize {
            0 => PAGE_ROWS_MAX,
            limit => limit.min(PAGE_ROWS_MAX),
        };
        let (rows, more) = self.page(&start, &end, limit)?;
        // A page ends just after its last key: what comes later was not seen.
        let end = match rows.last() {
            Some((key, _)) if more => [key.as_slice(), &[0]].concat(),
            _ => end,
        };
        if self.ranges.len() >= RANGES_MAX {
            return Err(Problem::new(
                Code::OutputTooLarge,
                format!("a call reads at most {RANGES_MAX} ranges"),
            ));
        }
        let seen = rows.iter().map(|(key, row)| ledger::Read {
            key: key.clone(),
            version: Some(row.version.into()),
        });
        self.ranges.push(ledger::RangeRead {
            start,
            end,
            entries: seen.collect(),
        });
        let entries = rows.into_iter().map(|(key, row)| rpc::Entry {
            key: key.get(self.prefix.len()..).unwrap_or_default().to_vec(),
            present: true,
            value: row.value,
        });
        Ok(rpc::Answer {
            entries: entries.collect(),
            more,
            ..Default::default()
        })
    }
}

/// For changes: keys and ranges of the subject, nothing else.
#[async_trait]
impl View for Record {
    fn begin(&mut self, keys: &[Vec<u8>]) -> Result<Vec<rpc::Entry>, Problem> {
        self.forget();
        self.entries(keys)
    }

    async fn answer(&mut self, question: Question) -> Result<rpc::Answer, Problem> {
        match question {
            Question::Keys(wanted) => Ok(rpc::Answer {
                entries: self.entries(&wanted.keys)?,
                ..Default::default()
            }),
            Question::Range(wanted) => self.range(&wanted),
            Question::History(_) | Question::List(_) => {
                let problem = Problem::new(Code::WrongKind, "history and lists are for queries");
                Ok(rpc::Answer {
                    problem: Some(problem.into()),
                    ..Default::default()
                })
            }
        }
    }
}

fn check_suffix(suffix: &[u8]) -> Result<(), Problem> {
    if (1..=KEY_SUFFIX_BYTES_MAX).contains(&suffix.len()) {
        Ok(())
    } else {
        Err(key_too_long())
    }
}

fn key_too_long() -> Problem {
    Problem::new(
        Code::Trapped,
        format!("a key's suffix has 1 to {KEY_SUFFIX_BYTES_MAX} bytes"),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A state in memory.
    #[derive(Default)]
    pub(crate) struct Memory(pub BTreeMap<Vec<u8>, Row>);

    impl State for Memory {
        fn get(&self, key: &[u8]) -> Result<Option<Row>, StateError> {
            Ok(self.0.get(key).cloned())
        }

        fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>, StateError> {
            let rows = self.0.range(start.to_vec()..end.to_vec()).take(limit);
            Ok(rows.map(|(key, row)| (key.clone(), row.clone())).collect())
        }
    }

    fn record(keys: &[&str]) -> Record {
        let mut memory = Memory::default();
        for (height, key) in keys.iter().enumerate() {
            let version = Version {
                epoch: 0,
                height: height as u64,
                index: 0,
            };
            memory.0.insert(
                [b"p/", key.as_bytes()].concat(),
                Row {
                    version,
                    value: vec![1; 8],
                },
            );
        }
        memory.0.insert(
            b"q".to_vec(),
            Row {
                version: Version::default(),
                value: vec![],
            },
        );
        Record::new(Arc::new(memory), b"p/".to_vec())
    }

    fn wanted(start: &str, end: &str, limit: u32) -> rpc::RangeWanted {
        rpc::RangeWanted {
            start: start.into(),
            end: end.into(),
            limit,
        }
    }

    #[test]
    fn every_supplied_entry_is_recorded_present_or_not() {
        let mut record = record(&["a"]);
        let entries = record.begin(&[b"b".to_vec(), b"a".to_vec()]).expect("read");
        assert_eq!(
            entries.iter().map(|entry| entry.present).collect::<Vec<_>>(),
            [false, true]
        );
        let (reads, ranges) = record.finish();
        assert_eq!(
            reads.iter().map(|read| read.key.as_slice()).collect::<Vec<_>>(),
            [b"p/a", b"p/b"]
        );
        assert!(reads[0].version.is_some() && reads[1].version.is_none());
        assert!(ranges.is_empty());
    }

    #[test]
    fn a_page_ends_just_after_its_last_key() {
        let mut record = record(&["a", "b", "c"]);
        let page = record.range(&wanted("", "", 2)).expect("read");
        assert!(page.more);
        assert_eq!(
            page.entries.iter().map(|entry| &*entry.key).collect::<Vec<_>>(),
            [b"a", b"b"]
        );
        let (_, ranges) = record.finish();
        assert_eq!((&*ranges[0].start, &*ranges[0].end), (&b"p/"[..], &b"p/b\0"[..]));
        assert_eq!(ranges[0].entries.len(), 2);
    }

    #[test]
    fn a_whole_range_ends_where_it_was_asked_to() {
        let mut record = record(&["a", "b"]);
        assert!(!record.range(&wanted("", "", 0)).expect("read").more);
        assert!(!record.range(&wanted("b", "x", 5)).expect("read").more);
        assert_eq!(
            record.range(&wanted("x", "b", 5)).expect("read"),
            rpc::Answer::default()
        );
        let (_, ranges) = record.finish();
        assert_eq!(&*ranges[0].end, b"p0", "the end of the subject");
        assert_eq!(&*ranges[1].end, b"p/x");
        assert_eq!(ranges.len(), 2, "an empty range reads nothing");
    }

    #[test]
    fn a_page_has_a_bound_in_bytes_and_at_least_one_row() {
        let mut memory = Memory::default();
        for key in [&b"p/a"[..], b"p/b", b"p/c"] {
            let value = vec![0; PAGE_BYTES_MAX - 10];
            memory.0.insert(
                key.to_vec(),
                Row {
                    version: Version::default(),
                    value,
                },
            );
        }
        let mut record = Record::new(Arc::new(memory), b"p/".to_vec());
        let page = record.range(&wanted("", "", 0)).expect("read");
        assert_eq!((page.entries.len(), page.more), (1, true));
    }

    #[test]
    fn a_long_range_is_one_page_with_the_most_rows() {
        let keys: Vec<String> = (0..PAGE_ROWS_MAX + 50).map(|key| format!("{key:04}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut record = record(&keys);
        let page = record.range(&wanted("", "", 0)).expect("read");
        assert_eq!((page.entries.len(), page.more), (PAGE_ROWS_MAX, true));
        let page = record.range(&wanted("0256", "", 0)).expect("read");
        assert_eq!((page.entries.len(), page.more), (50, false));
        let page = record.range(&wanted("", "0064", 64)).expect("read");
        assert_eq!((page.entries.len(), page.more), (64, false), "exactly all of them");
    }

    #[test]
    fn keys_that_hold_too_much_at_once_are_refused() {
        let mut memory = Memory::default();
        let row = Row {
            version: Version::default(),
            value: vec![0; NAMED_BYTES_MAX / 4],
        };
        let keys: Vec<Vec<u8>> = (b'a'..b'f').map(|key| vec![key]).collect();
        for key in &keys {
            memory.0.insert([b"p/", &key[..]].concat(), row.clone());
        }
        let mut record = Record::new(Arc::new(memory), b"p/".to_vec());
        assert_eq!(record.begin(&keys[..4]).expect("read").len(), 4);
        assert_eq!(record.begin(&keys).expect_err("too much").code, Code::OutputTooLarge);
    }

    #[tokio::test]
    async fn a_change_cannot_ask_across_subjects() {
        let answer = record(&[])
            .answer(Question::List(rpc::ListWanted::default()))
            .await
            .expect("an answer");
        assert_eq!(answer.problem.expect("a problem").code, "wrong_kind");
    }

    #[test]
    fn a_new_attempt_forgets_what_was_read() {
        let mut record = record(&["a"]);
        record.begin(&[b"a".to_vec()]).expect("read");
        record.begin(&[b"b".to_vec()]).expect("read");
        assert_eq!(record.finish().0.len(), 1);
    }
}
