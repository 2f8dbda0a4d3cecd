//! What a query may ask: keys and ranges of its subject, the history of a key, and one suffix of every
//! subject over all partitions. Always from the newest snapshots; never ordered, never recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use protocol::keys::key_prefix;
use protocol::limits::{PAGE_BYTES_MAX, PAGE_ROWS_MAX};
use protocol::{Digest, keys::partition_of};
use service::rpc::{self, question::Question};
use service::{Code, Problem};

use crate::endorser::record::Record;
use crate::ledger::{Ledger, Page, Snapshot};
use crate::workers::View;

/// Rows read at a time: values may be large, and most of a page may then be for nothing.
const ROWS_AT_ONCE: usize = 32;
/// Reads of one answer: where most subjects lack the suffix, an answer may be short or even empty and go on.
const LIST_READS_MAX: usize = 16;

/// One query's sight of the ledger.
pub struct QueryView {
    ledger: Arc<Ledger>,
    contract: String,
    /// `None`: the query names nobody.
    subject: Option<Subject>,
    /// By partition, so that pages of one list see one state.
    snapshots: BTreeMap<u32, Arc<Snapshot>>,
}

struct Subject {
    partition: u32,
    record: Record,
}

impl QueryView {
    /// `partition_key`: `None` for a query across subjects.
    pub fn new(ledger: &Arc<Ledger>, contract: &str, partition_key: Option<&Digest>) -> Result<Self, Problem> {
        let mut view = QueryView {
            ledger: Arc::clone(ledger),
            contract: contract.to_owned(),
            subject: None,
            snapshots: BTreeMap::new(),
        };
        if let Some(partition_key) = partition_key {
            let partition = partition_of(partition_key, ledger.checker.channel.partitions());
            let snapshot = view.snapshot(partition)?.ok_or_else(|| not_started(partition))?;
            let record = Record::new(snapshot, key_prefix(contract, partition_key));
            view.subject = Some(Subject { partition, record });
        }
        Ok(view)
    }

    /// `None`: nothing was committed in that partition yet.
    fn snapshot(&mut self, partition: u32) -> Result<Option<Arc<Snapshot>>, Problem> {
        if let Some(snapshot) = self.snapshots.get(&partition) {
            return Ok(Some(Arc::clone(snapshot)));
        }
        match self.ledger.snapshot(partition, None) {
            Ok(snapshot) => {
                self.snapshots.insert(partition, Arc::clone(&snapshot));
                Ok(Some(snapshot))
            }
            Err(unavailable) if unavailable.tip.is_none() => Ok(None),
            Err(_) => Err(Problem::unavailable(format!(
                "partition {partition} has no snapshot at the moment"
            ))),
        }
    }

    fn subject(&mut self) -> Result<&mut Subject, Problem> {
        self.subject
            .as_mut()
            .ok_or_else(|| Problem::new(Code::Trapped, "a query that names no subject can read lists only"))
    }

    async fn history(&mut self, wanted: rpc::HistoryWanted) -> Result<rpc::Answer, Problem> {
        let ledger = Arc::clone(&self.ledger);
        let subject = self.subject()?;
        let (partition, key) = (subject.partition, subject.record.full_key(&wanted.key));
        let limit = page_rows(wanted.limit);
        let mut changes: Vec<rpc::Change> = Vec::new();
        let (mut more, mut bytes) = (true, 0);
        while more && changes.len() < limit && bytes < PAGE_BYTES_MAX {
            let (ledger, key) = (Arc::clone(&ledger), key.clone());
            let skip = wanted.skip.saturating_add(changes.len() as u32);
            let rows = (limit - changes.len()).min(ROWS_AT_ONCE) as u32;
            let read = move || ledger.history(partition, &key, skip, rows);
            let (mut page, goes_on) = blocking(read).await?.map_err(Problem::internal)?;
            let fits = fitting(page.iter().map(|change| change.value.len()), bytes);
            more = goes_on || fits < page.len();
            bytes = if fits < page.len() {
                PAGE_BYTES_MAX
            } else {
                bytes + page.iter().map(|change| change.value.len() + 1).sum::<usize>()
            };
            page.truncate(fits);
            changes.append(&mut page);
        }
        Ok(rpc::Answer {
            changes,
            more,
            ..Default::default()
        })
    }

    async fn list(&mut self, wanted: rpc::ListWanted) -> Result<rpc::Answer, Problem> {
        let limit = page_rows(wanted.limit);
        let mut place = Place::read(&wanted.after)?;
        let mut entries: Vec<rpc::Entry> = Vec::new();
        let (mut bytes, mut reads) = (0, 0);
        while place.partition < self.ledger.checker.channel.partitions() {
            if entries.len() >= limit || bytes >= PAGE_BYTES_MAX || reads >= LIST_READS_MAX {
                return Ok(rpc::Answer {
                    entries,
                    more: true,
                    next: place.write(),
                    ..Default::default()
                });
            }
            let Some(snapshot) = self.snapshot(place.partition)? else {
                place = place.next_partition();
                continue;
            };
            let (contract, suffix, from) = (self.contract.clone(), wanted.suffix.clone(), place.after.clone());
            reads += 1;
            let rows = (limit - entries.len()).min(ROWS_AT_ONCE);
            let read = move || snapshot.list(&contract, &suffix, from.as_deref(), rows);
            let mut page: Page = blocking(read).await?.map_err(Problem::internal)?;
            let fits = fitting(page.entries.iter().map(|(_, row)| row.value.len()), bytes);
            if fits < page.entries.len() {
                // The next page begins after the last one that fits, or where this one did.
                page.next = page.entries[..fits]
                    .last()
                    .map(|(key, _)| key.clone())
                    .or(place.after.clone());
                page.entries.truncate(fits);
                bytes = PAGE_BYTES_MAX;
                place = Place {
                    after: page.next.take(),
                    ..place
                };
            } else {
                place = match page.next.take() {
                    Some(after) => Place {
                        after: Some(after),
                        ..place
                    },
                    None => place.next_partition(),
                };
            }
            bytes += page.entries.iter().map(|(_, row)| row.value.len()).sum::<usize>();
            entries.extend(page.entries.into_iter().map(|(_, row)| rpc::Entry {
                key: wanted.suffix.clone(),
                present: true,
                value: row.value,
            }));
        }
        Ok(rpc::Answer {
            entries,
            ..Default::default()
        })
    }
}

/// What was asked for, within bounds; 0 asks for the most.
fn page_rows(wanted: u32) -> usize {
    match wanted as usize {
        0 => PAGE_ROWS_MAX,
        wanted => wanted.min(PAGE_ROWS_MAX),
    }
}

/// How many of these sizes fit into an answer that holds `bytes` already; at least one into an empty one.
fn fitting(sizes: impl Iterator<Item = usize>, mut bytes: usize) -> usize {
    let fits = sizes.take_while(|size| {
        let fits = bytes == 0 || bytes + size <= PAGE_BYTES_MAX;
        bytes += size + 1;
        fits
    });
    fits.count()
}

#[async_trait]
impl View for QueryView {
    fn begin(&mut self, keys: &[Vec<u8>]) -> Result<Vec<rpc::Entry>, Problem> {
        match &mut self.subject {
            Some(subject) => subject.record.begin(keys),
            None if keys.is_empty() => Ok(Vec::new()),
            None => Err(Problem::new(
                Code::Trapped,
                "a query that names no subject can read lists only",
            )),
        }
    }

    async fn answer(&mut self, question: Question) -> Result<rpc::Answer, Problem> {
        match question {
            Question::Keys(_) | Question::Range(_) => {
                let record = &mut self.subject()?.record;
                // Nothing of a query is recorded, so nothing limits how much it reads but the worker.
                record.forget();
                record.answer(question).await
            }
            Question::History(wanted) => self.history(wanted).await,
            Question::List(wanted) => self.list(wanted).await,
        }
    }
}

/// Reads of unknown length do not belong on the runtime's own threads.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(read).await.map_err(Problem::internal)
}

pub(crate) fn not_started(partition: u32) -> Problem {
    Problem::unavailable(format!("partition {partition} has no block yet"))
}

/// Where a list across subjects goes on: partition ‖ key. Opaque to everyone else.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    partition: u32,
    after: Option<Vec<u8>>,
}

impl Place {
    fn read(bytes: &[u8]) -> Result<Self, Problem> {
        match bytes.split_first_chunk::<4>() {
            None if bytes.is_empty() => Ok(Place {
                partition: 0,
                after: None,
            }),
            None => Err(Problem::invalid("after", "is not what a page of this list ended with")),
            Some((partition, key)) => {
                let after = (!key.is_empty()).then(|| key.to_vec());
                Ok(Place {
                    partition: u32::from_be_bytes(*partition),
                    after,
                })
            }
        }
    }

    fn next_partition(self) -> Self {
        Place {
            partition: self.partition + 1,
            after: None,
        }
    }

    fn write(self) -> Vec<u8> {
        let mut bytes = self.partition.to_be_bytes().to_vec();
        bytes.extend(self.after.unwrap_or_default());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use service::rpc::Finality;

    use super::*;
    use crate::gateway::testing::Rig;

    #[tokio::test]
    async fn a_history_is_one_page_however_it_is_read() {
        let rig = Rig::new().await;
        let count = ROWS_AT_ONCE as u32 + 3;
        for _ in 0..count {
            rig.submit("add", r#"["one"]"#, Finality::Committed).await;
        }
        let ledger = &rig.a.ledger;
        let key = ledger.secret.partition_key("records", "one");
        let mut view = QueryView::new(ledger, "records", Some(&key)).expect("a view");
        let mut asked = async |skip, limit| {
            let key = b"record".to_vec();
            let wanted = rpc::HistoryWanted { key, skip, limit };
            let answer = view.answer(Question::History(wanted)).await.expect("a history");
            let values = answer.changes.into_iter().map(|change| change.value);
            (values.collect::<Vec<_>>(), answer.more)
        };
        let values = |range: std::ops::Range<u32>| range.map(|i| i.to_string().into_bytes()).collect::<Vec<_>>();
        assert_eq!(asked(0, 0).await, (values(1..count + 1), false));
        assert_eq!(asked(1, count - 2).await, (values(2..count), true));
        assert_eq!(asked(count, 5).await, (Vec::new(), false));
    }

    #[test]
    fn an_answer_has_a_bound_in_bytes_and_at_least_one_value() {
        assert_eq!(fitting([10, 10, 10].into_iter(), 0), 3);
        assert_eq!(fitting([PAGE_BYTES_MAX * 2, 1].into_iter(), 0), 1);
        assert_eq!(fitting([PAGE_BYTES_MAX].into_iter(), 1), 0);
    }

    #[test]
    fn a_place_leads_back() {
        for after in [None, Some(b"key".to_vec())] {
            let bytes = Place {
                partition: 3,
                after: after.clone(),
            }
            .write();
            assert_eq!(Place::read(&bytes).expect("a place"), Place { partition: 3, after });
        }
        assert_eq!(
            Place::read(b"").expect("the start"),
            Place {
                partition: 0,
                after: None
            }
        );
        assert_eq!(Place::read(b"ab").expect_err("no place").code, Code::InvalidArgument);
    }
}
