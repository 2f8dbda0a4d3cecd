//! Who leads, told to clients that read.
//!
//! A broker that dies goes on leading until its session ends. librdkafka asks a reader's client who leads when the connection
//! breaks, which is too early, and then once a second; an election of a second would take its readers two. So after new
//! doubts one client of this process asks ten times a second, and while a leader is another one than a client was told that
//! reads there, that client asks too.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rdkafka::metadata::Metadata;

use crate::TopicPartition;

/// After new doubts, or a leader that was seen to change, the next change is to be seen at once: longer than Kafka's own
/// sessions of 9 s and an election. Later ones are left to librdkafka: whoever is away for long must not have everybody ask
/// all the time.
const UNSETTLED: Duration = Duration::from_secs(15);
/// Doubts after so long without any are new ones.
const CALM: Duration = Duration::from_secs(2);

/// Leaders' numbers, by topic and partition.
pub(crate) struct Leaders(HashMap<String, Vec<(i32, i32)>>);

impl Leaders {
    /// Without the partitions that have none at the moment.
    pub fn of(metadata: &Metadata) -> Leaders {
        let topics = metadata.topics().iter();
        let leaders = topics.map(|topic| {
            let partitions = topic.partitions().iter();
            let led = partitions.filter(|partition| partition.leader() >= 0);
            let led = led.map(|partition| (partition.id(), partition.leader()));
            (topic.name().to_owned(), led.collect())
        });
        Leaders(leaders.collect())
    }

    pub fn leader(&self, of: &TopicPartition) -> Option<i32> {
        let partitions = self.0.get(&*of.topic)?;
        let found = partitions.iter().find(|(id, _)| *id == of.partition as i32)?;
        Some(found.1)
    }
}

/// How long ago something began that makes leaders change.
#[derive(Default)]
pub(crate) struct Unrest {
    doubted: Option<Instant>,
    since: Option<Instant>,
}

impl Unrest {
    /// Somebody has doubts now.
    pub fn doubt(&mut self, now: Instant) {
        let last = self.doubted.replace(now);
        if last.is_none_or(|last| now.duration_since(last) >= CALM) {
            self.begin(now);
        }
    }

    /// A leader is another one, or the cluster is back: more may follow.
    pub fn begin(&mut self, now: Instant) {
        self.since = Some(now);
    }

    pub fn lasts(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.duration_since(since) < UNSETTLED)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::kafka::{KafkaSettings, ask::Asker, link::Link, properties::client_config, read::Readers};

    #[tokio::test]
    async fn clients_that_read_are_told_of_another_leader() {
        // librdkafka's own stand-in for a cluster, whose leaders move when they are told to.
        let cluster = MockCluster::new(2).unwrap();
        cluster.create_topic("t", 1, 2).unwrap();
        cluster.partition_leader("t", 0, Some(1)).unwrap();
        let settings = KafkaSettings::new([cluster.bootstrap_servers()]);
        let config = client_config(&settings).unwrap();
        let link = Arc::new(Link::new());
        let asker = Arc::new(Asker::new(&config, link.clone()).unwrap());
        let readers = Arc::new(Readers::new(&config, &settings, link));
        let of = TopicPartition {
            topic: "t".into(),
            partition: 0,
        };
        assert!(readers.is_idle());
        let reader = readers.open(&of, 0, asker.clone()).unwrap();
        assert!(!readers.is_idle());
        assert_eq!(readers.leaders(), [None]);
        // How often a leader was another one, until the reader's client knows this one.
        let told_of = async |leader| {
            let mut changes = 0;
            let begin = Instant::now();
            while readers.leaders() != [Some(leader)] {
                assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", readers.leaders());
                let leaders = asker.ask().await.unwrap();
                assert_eq!(leaders.leader(&of), Some(leader));
                changes += usize::from(readers.follow(&leaders).await);
            }
            changes
        };
        assert_eq!(told_of(1).await, 0, "the first is no change");
        cluster.partition_leader("t", 0, Some(2)).unwrap();
        assert_eq!(told_of(2).await, 1);
        drop(reader);
        assert!(readers.is_idle());
    }

    #[test]
    fn unrest_ends_though_doubts_go_on_and_begins_with_new_ones() {
        let begin = Instant::now();
        let mut unrest = Unrest::default();
        assert!(!unrest.lasts(begin));
        let mut lasting = |from: u64, to: u64| -> Vec<u64> {
            (from..to)
                .filter(|second| {
                    let now = begin + Duration::from_secs(*second);
                    unrest.doubt(now);
                    unrest.lasts(now)
                })
                .collect()
        };
        assert_eq!(lasting(0, 60), (0..15).collect::<Vec<_>>());
        assert_eq!(lasting(62, 80), (62..77).collect::<Vec<_>>());
        unrest.begin(begin + Duration::from_secs(90));
        assert!(unrest.lasts(begin + Duration::from_secs(104)) && !unrest.lasts(begin + Duration::from_secs(105)));
    }
}
