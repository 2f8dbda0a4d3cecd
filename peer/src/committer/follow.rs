//! A reader of one partition that goes on when the log comes back, and says when it never can.

use std::{sync::Arc, time::Duration};

use ledger_log::{Log, ReadError, Reader, Record, TopicPartition};
use tokio::time::{Instant, sleep};

use super::chain::Stop;

/// A log that says our position is outside of it is asked again for so long: after a change of
/// leader its end may be known late. A log that really lost records says the same for ever.
const OUT_OF_RANGE_PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

pub enum Followed {
    /// In order, without gaps, at least one.
    Records(Vec<Record>),
    /// Nothing new, or the log is away.
    Nothing,
}

pub struct Follow {
    log: Arc<dyn Log>,
    topic: TopicPartition,
    /// The next record's offset.
    next: u64,
    reader: Option<Box<dyn Reader>>,
    out_of_range_since: Option<Instant>,
}

impl Follow {
    pub fn new(log: Arc<dyn Log>, topic: TopicPartition, from: u64) -> Self {
        Follow {
            log,
            topic,
            next: from,
            reader: None,
            out_of_range_since: None,
        }
    }

    /// Waits for records at most about `wait`. Errors are final.
    pub async fn next(&mut self, wait: Duration) -> Result<Followed, Stop> {
        match self.try_next(wait).await {
            Ok(records) if records.is_empty() => Ok(Followed::Nothing),
            Ok(records) => {
                self.out_of_range_since = None;
                for record in &records {
                    if record.offset != self.next {
                        return Err(Stop::Gap {
                            expected: self.next,
                            found: record.offset,
                        });
                    }
                    self.next += 1;
                }
                Ok(Followed::Records(records))
            }
            Err(ReadError::Gap { expected, found }) => Err(Stop::Gap { expected, found }),
            Err(ReadError::OutOfRange { offset, low, high }) => {
                let since = *self.out_of_range_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= OUT_OF_RANGE_PATIENCE {
                    return Err(Stop::OutOfRange {
                        height: offset,
                        low,
                        high,
                    });
                }
                self.reader = None;
                sleep(PAUSE).await;
                Ok(Followed::Nothing)
            }
            Err(ReadError::Unavailable(cause)) => {
                tracing::debug!(topic = %self.topic.topic, partition = self.topic.partition, cause, "the log is away");
                sleep(PAUSE).await;
                Ok(Followed::Nothing)
            }
        }
    }

    async fn try_next(&mut self, wait: Duration) -> Result<Vec<Record>, ReadError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => self.reader.insert(self.log.read(&self.topic, self.next).await?),
        };
        reader.next(wait).await
    }
}
