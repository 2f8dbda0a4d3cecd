//! Appends: one idempotent producer, `acks=all`, no linger (a record is already a batch), a queue
//! bounded in bytes, a deadline. After a fatal error of the client it is replaced by a new one.
//!
//! The deadline is ours, not librdkafka's: when a record that may have been stored times out there,
//! the client goes on under a new epoch and sends the records behind it again, and those that the
//! broker had already stored are in the log twice (a broker killed under load shows it). So the client
//! never gives up a record. The caller hears `Unknown` in time; the record comes into the log when
//! Kafka is back, in its order, once. For the same reason a gap in the series is fatal to the client.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, ready};
use metric::{Counter, Gauge, Histogram};
use parking_lot::RwLock;
use rdkafka::{
    ClientConfig, ClientContext, Message, Statistics,
    bindings::{rd_kafka_message_status, rd_kafka_msg_status_t},
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer},
};
use tokio::sync::oneshot;

use super::{
    BATCH_BYTES, BATCH_OVERHEAD_BYTES, KafkaSettings, OpenError,
    link::{Context, Link},
    open_error, reason,
    remind::Brokers,
};
use crate::{
    AppendError, TopicPartition,
    metrics::{APPEND_BYTES, APPEND_IN_FLIGHT_BYTES, APPEND_SECONDS, APPENDS},
};

type Client = ThreadedProducer<Deliveries>;

/// An append takes milliseconds. After this somebody looks why.
pub(crate) const OVERDUE: Duration = Duration::from_secs(2);

pub(crate) struct Appender {
    config: ClientConfig,
    client: RwLock<Arc<Client>>,
    link: Arc<Link>,
    limits: RwLock<HashMap<Arc<str>, usize>>,
    record_bytes_max: usize,
    timeout: Duration,
    topics: RwLock<HashMap<Arc<str>, TopicMetrics>>,
}

impl Appender {
    pub fn new(common: &ClientConfig, settings: &KafkaSettings, link: Arc<Link>) -> Result<Appender, OpenError> {
        let mut config = common.clone();
        let message_bytes_max = settings.record_bytes_max + BATCH_OVERHEAD_BYTES;
        for (name, value) in [
            ("enable.idempotence", "true".to_string()),
            ("acks", "all".into()),
            ("linger.ms", "0".into()),
            ("batch.size", BATCH_BYTES.to_string()),
            ("message.max.bytes", message_bytes_max.max(BATCH_BYTES).to_string()),
            ("message.timeout.ms", "0".into()),
            ("enable.gapless.guarantee", "true".into()),
            ("request.timeout.ms", "10000".into()),
            (
                "queue.buffering.max.kbytes",
                (settings.append_queue_bytes_max / 1024).max(1).to_string(),
            ),
            ("queue.buffering.max.messages", "100000".into()),
        ] {
            config.set(name, value);
        }
        let client = RwLock::new(Arc::new(new_client(&config, &link).map_err(open_error)?));
        Ok(Appender {
            config,
            client,
            link,
            limits: RwLock::default(),
            record_bytes_max: settings.record_bytes_max,
            timeout: Duration::from_millis(settings.append_timeout_ms),
            topics: RwLock::default(),
        })
    }

    /// A topic's own limit of a record.
    pub fn limit(&self, topic: Arc<str>, record_bytes_max: usize) {
        self.limits
            .write()
            .insert(topic, record_bytes_max.min(self.record_bytes_max));
    }

    pub fn append(&self, to: &TopicPartition, value: Bytes) -> BoxFuture<'static, Result<u64, AppendError>> {
        let topic = self.topic(&to.topic);
        let limit = self
            .limits
            .read()
            .get(&to.topic)
            .copied()
            .unwrap_or(self.record_bytes_max);
        if value.len() > limit {
            topic.too_large.inc();
            return ready(Err(AppendError::TooLarge {
                bytes: value.len(),
                limit,
            }))
            .boxed();
        }
        let (done, mut outcome) = oneshot::channel();
        let (refused, unknown) = (topic.refused.clone(), topic.unknown.clone());
        let link = self.link.clone();
        let began = Instant::now();
        let (overdue, deadline) = (began + OVERDUE, began + self.timeout);
        match self.enqueue(to, &value, Box::new(Pending::new(topic, value.len(), deadline, done))) {
            Ok(()) => async move {
                let mut ended = tokio::time::timeout_at(overdue.min(deadline).into(), &mut outcome).await;
                if ended.is_err() {
                    link.wonder();
                    ended = tokio::time::timeout_at(deadline.into(), outcome).await;
                }
                match ended {
                    Ok(Ok(outcome)) => outcome,
                    // The sender goes only with the client, which purges what it holds first.
                    Ok(Err(_)) => Err(AppendError::Unknown("the log was closed".into())),
                    Err(_) => {
                        unknown.inc();
                        Err(AppendError::Unknown(
                            "no acknowledgement in time, still being tried".into(),
                        ))
                    }
                }
            }
            .boxed(),
            Err(error) => {
                refused.inc();
                ready(Err(AppendError::Unavailable(reason(&error)))).boxed()
            }
        }
    }

    pub fn remind(&self, brokers: &Brokers) {
        brokers.remind(self.client.read().client());
    }

    fn enqueue(&self, to: &TopicPartition, value: &Bytes, pending: Box<Pending>) -> Result<(), KafkaError> {
        let client = self.client.read().clone();
        let (error, pending) = match send(&client, to, value, pending) {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        if error != KafkaError::MessageProduction(RDKafkaErrorCode::Fatal) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                self.link.doubt("append");
            }
            return Err(error);
        }
        let client = self.renew(&client)?;
        send(&client, to, value, pending).map_err(|(error, _)| error)
    }

    /// A producer that raised a fatal error sends nothing any more: a new one takes its place, under a
    /// new producer id. What the old one held ends as unknown.
    fn renew(&self, dead: &Arc<Client>) -> Result<Arc<Client>, KafkaError> {
        let mut current = self.client.write();
        if Arc::ptr_eq(&current, dead) {
            let fatal = current
                .client()
                .fatal_error()
                .map(|(code, _)| code.to_string())
                .unwrap_or_default();
            tracing::warn!(reason = fatal, "the Kafka producer gave up; starting a new one");
            self.link.failed("producer");
            let old = std::mem::replace(&mut *current, Arc::new(new_client(&self.config, &self.link)?));
            // Its end waits for its threads: not here.
            std::thread::spawn(move || drop(old));
        }
        Ok(current.clone())
    }

    fn topic(&self, name: &Arc<str>) -> TopicMetrics {
        if let Some(found) = self.topics.read().get(name) {
            return found.clone();
        }
        self.topics
            .write()
            .entry(name.clone())
            .or_insert_with(|| TopicMetrics::of(name))
            .clone()
    }

    /// Puts the client into the state that real fatal errors leave.
    #[cfg(test)]
    pub fn fail_for_test(&self) {
        let client = self.client.read().clone();
        // SAFETY: a valid client and a static C string.
        unsafe {
            rdkafka::bindings::rd_kafka_test_fatal_error(
                client.client().native_ptr(),
                rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
                c"test".as_ptr(),
            );
        }
    }
}

fn new_client(config: &ClientConfig, link: &Arc<Link>) -> Result<Client, KafkaError> {
    Client::from_config_and_context(
        config,
        Deliveries {
            context: Context { link: link.clone() },
        },
    )
}

fn send(
    client: &Client,
    to: &TopicPartition,
    value: &Bytes,
    pending: Box<Pending>,
) -> Result<(), (KafkaError, Box<Pending>)> {
    let record = BaseRecord::<(), [u8], Box<Pending>>::with_opaque_to(&to.topic, pending)
        .partition(to.partition as i32)
        .payload(value.as_ref());
    client
        .send(record)
        .map_err(|(error, record)| (error, record.delivery_opaque))
}

/// An append on its way. However it ends, refused at the door included, its bytes leave the gauge.
pub(crate) struct Pending {
    since: Instant,
    deadline: Instant,
    bytes: usize,
    topic: TopicMetrics,
    done: Option<oneshot::Sender<Result<u64, AppendError>>>,
}

impl Pending {
    fn new(
        topic: TopicMetrics,
        bytes: usize,
        deadline: Instant,
        done: oneshot::Sender<Result<u64, AppendError>>,
    ) -> Pending {
        topic.in_flight_bytes.add(bytes as i64);
        Pending {
            since: Instant::now(),
            deadline,
            bytes,
            topic,
            done: Some(done),
        }
    }

    fn end(mut self, outcome: Result<u64, AppendError>) {
        if outcome.is_ok() {
            self.topic.bytes.inc_by(self.bytes as u64);
            self.topic.seconds.observe(self.since.elapsed().as_secs_f64());
        }
        match &outcome {
            // Its caller was told `Unknown` when the deadline passed.
            _ if Instant::now() > self.deadline => self.topic.late.inc(),
            Ok(_) => self.topic.acknowledged.inc(),
            Err(AppendError::Unknown(_)) => self.topic.unknown.inc(),
            Err(_) => self.topic.refused.inc(),
        }
        if let Some(done) = self.done.take() {
            let _ = done.send(outcome); // nobody may wait for it any more
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.topic.in_flight_bytes.sub(self.bytes as i64);
    }
}

/// Receives the outcome of every append.
pub(crate) struct Deliveries {
    context: Context,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }
    fn stats(&self, _: Statistics) {}
    fn stats_raw(&self, _: &[u8]) {}
    fn error(&self, error: KafkaError, text: &str) {
        self.context.error(error, text);
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Box<Pending>) {
        match result {
            Ok(message) => {
                self.context.link.answered();
                // A broker may know that it has a record and not where: stored, at an unknown offset.
                let offset = u64::try_from(message.offset());
                pending.end(offset.map_err(|_| AppendError::Unknown("stored, the broker forgot where".into())));
            }
            Err((error, message)) => {
                self.context.link.doubt("append");
                // SAFETY: the message is alive for the length of this call.
                let status = unsafe { rd_kafka_message_status(message.ptr()) };
                let text = reason(error);
                // librdkafka knows whether a message ever left: only then the outcome is in doubt.
                pending.end(Err(match status {
                    rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED => AppendError::Unavailable(text),
                    _ => AppendError::Unknown(text),
                }));
            }
        }
    }
}

/// Metrics of one topic's appends, resolved once.
#[derive(Clone)]
pub(crate) struct TopicMetrics {
    acknowledged: Counter,
    unknown: Counter,
    /// Ended after its caller was told `Unknown`, and counted there as well.
    late: Counter,
    refused: Counter,
    too_large: Counter,
    bytes: Counter,
    seconds: Histogram,
    in_flight_bytes: Gauge,
}

impl TopicMetrics {
    fn of(topic: &str) -> Self {
        let outcome = |outcome| APPENDS.with_label_values(&[topic, outcome]);
        TopicMetrics {
            acknowledged: outcome("acknowledged"),
            unknown: outcome("unknown"),
            late: outcome("late"),
            refused: outcome("unavailable"),
            too_large: outcome("too_large"),
            bytes: APPEND_BYTES.with_label_values(&[topic]),
            seconds: APPEND_SECONDS.with_label_values(&[topic]),
            in_flight_bytes: APPEND_IN_FLIGHT_BYTES.clone(),
        }
    }
}
