//! What a topic must be: made so when absent, compared when present.
//!
//! `message.max.bytes` of the brokers is only the default of topics without a limit of their own, and
//! followers fetch a batch that is over `replica.fetch.max.bytes` all the same, so a topic's own
//! `max.message.bytes` is what counts. `socket.request.max.bytes` (100 MiB) stays above all records.
//! `LogAppendTime` because nobody here reads timestamps and brokers refuse those of a skewed clock.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
    types::RDKafkaRespErr,
};
use tokio::time::Instant;

use super::{
    BATCH_BYTES, BATCH_OVERHEAD_BYTES,
    ask::QUERY_TIMEOUT,
    link::{Context, Link},
    reason,
};
use crate::{TopicError, TopicSpec};

/// Until Kafka answers and a new topic is known to all brokers; then the caller hears why not.
const ENSURE_TIMEOUT: Duration = Duration::from_secs(15);
/// Until as many brokers are there as a topic wants.
const BROKERS_TIMEOUT: Duration = Duration::from_secs(60);
const REPLICATION: usize = 3;
const MIN_INSYNC: usize = 2;

type Admin = Arc<AdminClient<Context>>;

pub(crate) async fn ensure(
    config: &ClientConfig,
    topics: &[TopicSpec],
    allow_unsafe: bool,
    link: &Arc<Link>,
) -> Result<(), TopicError> {
    let admin: AdminClient<Context> = config
        .create_with_context(Context { link: link.clone() })
        .map_err(unavailable)?;
    let admin = Arc::new(admin);
    let began = Instant::now();
    let mut pause = Duration::from_millis(50);
    let outcome = loop {
        match attempt(&admin, topics, allow_unsafe).await {
            Err(Trouble::Passing(why)) => {
                if matches!(why, TopicError::Unavailable(_)) {
                    link.failed("topics");
                }
                let patience = match why {
                    TopicError::Unavailable(_) => ENSURE_TIMEOUT,
                    _ => BROKERS_TIMEOUT,
                };
                if Instant::now() + pause >= began + patience {
                    break Err(why);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            Err(Trouble::Lasting(why)) => break Err(why),
            Ok(()) => break Ok(()),
        }
    };
    // The client's end waits for its threads.
    std::thread::spawn(move || drop(admin));
    outcome
}

/// Whether the next attempt may go better.
enum Trouble {
    Passing(TopicError),
    Lasting(TopicError),
}

impl From<TopicError> for Trouble {
    fn from(error: TopicError) -> Self {
        match error {
            TopicError::Unavailable(_) => Trouble::Passing(error),
            _ => Trouble::Lasting(error),
        }
    }
}

async fn attempt(admin: &Admin, topics: &[TopicSpec], allow_unsafe: bool) -> Result<(), Trouble> {
    let before = metadata(admin).await?;
    let brokers = before.brokers().len();
    let absent: Vec<&TopicSpec> = topics
        .iter()
        .filter(|spec| !before.topics().iter().any(|topic| topic.name() == &*spec.name))
        .collect();
    if !absent.is_empty() {
        create(admin, &absent, brokers, allow_unsafe).await?;
    }
    let after = metadata(admin).await?;
    for spec in topics {
        let config = describe(admin, &spec.name).await?;
        for complaint in compare(spec, &after, &config)? {
            if complaint.fatal || !allow_unsafe {
                return Err(complaint.error(spec).into());
            }
            tracing::warn!(
                topic = &*spec.name,
                setting = complaint.setting,
                found = complaint.found,
                required = complaint.required,
                "unsafe topic, allowed"
            );
        }
    }
    Ok(())
}

async fn metadata(admin: &Admin) -> Result<Metadata, TopicError> {
    let admin = admin.clone();
    tokio::task::spawn_blocking(move || admin.inner().fetch_metadata(None, QUERY_TIMEOUT))
        .await
        .unwrap_or(Err(KafkaError::Canceled))
        .map_err(unavailable)
}

async fn create(admin: &Admin, absent: &[&TopicSpec], brokers: usize, allow_unsafe: bool) -> Result<(), Trouble> {
    if brokers < REPLICATION && !allow_unsafe {
        // Brokers of a cluster that starts come one by one.
        return Err(Trouble::Passing(TopicError::Unsafe {
            topic: absent[0].name.to_string(),
            setting: "replication factor".into(),
            found: format!("at most {brokers}, the number of brokers"),
            required: REPLICATION.to_string(),
        }));
    }
    let replication = REPLICATION.min(brokers).max(1);
    let min_insync = MIN_INSYNC.min(replication).to_string();
    let sizes: Vec<String> = absent.iter().map(|spec| message_bytes(spec).to_string()).collect();
    let new: Vec<NewTopic> = absent
        .iter()
        .zip(&sizes)
        .map(|(spec, size)| {
            let topic = NewTopic::new(
                &spec.name,
                spec.partitions as i32,
                TopicReplication::Fixed(replication as i32),
            )
            .set("min.insync.replicas", &min_insync)
            .set("unclean.leader.election.enable", "false")
            .set("cleanup.policy", "delete")
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1")
            .set("max.message.bytes", size)
            .set("message.timestamp.type", "LogAppendTime")
            .set("compression.type", "uncompressed");
            if spec.flush_every_record {
                topic.set("flush.messages", "1")
            } else {
                topic
            }
        })
        .collect();
    let results = admin.create_topics(&new, &options()).await.map_err(unavailable)?;
    for result in results {
        match result {
            Ok(name) => tracing::info!(topic = name, replication, "topic created"),
            // Another orderer was faster; what it made is compared like any other.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => return Err(TopicError::Unavailable(format!("creating topic {name}: {code}")).into()),
        }
    }
    Ok(())
}

async fn describe(admin: &Admin, topic: &str) -> Result<ConfigResource, TopicError> {
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(topic)], &options())
        .await
        .map_err(unavailable)?;
    match described.into_iter().next() {
        // A broker that has not heard of a new topic yet answers with no settings at all.
        Some(Ok(config))
            if config
                .get("min.insync.replicas")
                .is_none_or(|entry| entry.value.is_none()) =>
        {
            Err(TopicError::Unavailable(format!(
                "settings of topic {topic} are not known to all brokers yet"
            )))
        }
        Some(Ok(config)) => Ok(config),
        Some(Err(code)) => Err(TopicError::Unavailable(format!("settings of topic {topic}: {code}"))),
        None => Err(TopicError::Unavailable(format!("settings of topic {topic}: no answer"))),
    }
}

struct Complaint {
    setting: &'static str,
    found: String,
    required: String,
    /// Nothing would work, so nothing can allow it.
    fatal: bool,
}

impl Complaint {
    fn error(self, spec: &TopicSpec) -> TopicError {
        TopicError::Unsafe {
            topic: spec.name.to_string(),
            setting: self.setting.into(),
            found: self.found,
            required: self.required,
        }
    }
}

/// Everything about a topic that is not as it must be. Absent from the metadata is not known yet.
fn compare(spec: &TopicSpec, metadata: &Metadata, config: &ConfigResource) -> Result<Vec<Complaint>, TopicError> {
    let topic = metadata
        .topics()
        .iter()
        .find(|topic| topic.name() == &*spec.name)
        .ok_or_else(|| TopicError::Unavailable(format!("topic {} is not known to all brokers yet", spec.name)))?;
    if let Some(error) = topic.error() {
        return Err(TopicError::Unavailable(format!("topic {}: {}", spec.name, code(error))));
    }
    let mut complaints = Vec::new();
    let mut complain = |setting, fatal, found: String, required: String| {
        complaints.push(Complaint {
            setting,
            found,
            required,
            fatal,
        });
    };
    let partitions = topic.partitions();
    if partitions.len() != spec.partitions as usize {
        complain(
            "partitions",
            true,
            partitions.len().to_string(),
            spec.partitions.to_string(),
        );
    }
    if partitions.iter().any(|partition| partition.leader() < 0) {
        return Err(TopicError::Unavailable(format!(
            "topic {} has a partition without a leader",
            spec.name
        )));
    }
    let replication = partitions
        .iter()
        .map(|partition| partition.replicas().len())
        .min()
        .unwrap_or(0);
    if replication < REPLICATION {
        complain(
            "replication factor",
            false,
            replication.to_string(),
            format!("{REPLICATION} or more"),
        );
    }
    let found = |setting: &str| {
        config
            .get(setting)
            .and_then(|entry| entry.value.clone())
            .unwrap_or_default()
    };
    let number = |setting: &str| found(setting).parse::<i64>().unwrap_or(-1);
    if number("min.insync.replicas") < MIN_INSYNC as i64 {
        complain(
            "min.insync.replicas",
            false,
            found("min.insync.replicas"),
            format!("{MIN_INSYNC} or more"),
        );
    }
    if number("max.message.bytes") < message_bytes(spec) as i64 {
        let required = format!("{} or more", message_bytes(spec));
        complain("max.message.bytes", true, found("max.message.bytes"), required);
    }
    for (setting, required) in [
        ("unclean.leader.election.enable", "false"),
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        // A small compressed batch would unpack to any size in every reader.
        ("compression.type", "uncompressed"),
    ] {
        if found(setting) != required {
            complain(setting, false, found(setting), required.into());
        }
    }
    if spec.flush_every_record && number("flush.messages") != 1 {
        complain("flush.messages", false, found("flush.messages"), "1".into());
    }
    Ok(complaints)
}

/// The limit counts Kafka's batch: a record with its wrapping, or several small ones together.
fn message_bytes(spec: &TopicSpec) -> usize {
    spec.record_bytes_max.max(BATCH_BYTES) + BATCH_OVERHEAD_BYTES
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(QUERY_TIMEOUT))
        .operation_timeout(Some(QUERY_TIMEOUT))
}

fn unavailable(error: KafkaError) -> TopicError {
    TopicError::Unavailable(reason(&error))
}

fn code(error: RDKafkaRespErr) -> RDKafkaErrorCode {
    error.into()
}
