//! Real Kafka brokers on this machine, for the demo network and for tests: fetched from Maven
//! Central, started as processes of their own, killed and started again.
//!
//! ```text
//!  DIRECTORY/broker-1/server.properties  kafka.pid  kafka.log  data/
//! ```
//!
//! Brokers outlive whoever started them: nothing is killed on drop, [`LocalKafka::open`] finds a
//! running cluster again by its directory. Everything listens on 127.0.0.1, without TLS: not for
//! production.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use tokio::time::Instant;

mod broker;
mod jars;

pub use jars::{JARS_MB, cache_directory, fetch_jars, has_jars};

use broker::Broker;

/// From the start of the processes until the cluster answers. Slow machines share two cores.
const READY_TIMEOUT: Duration = Duration::from_secs(90);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("{doing}: {source}")]
    Io { doing: String, source: io::Error },
    #[error("{0}")]
    Missing(String),
    #[error("{doing} failed: {output}")]
    Command { doing: String, output: String },
    #[error("broker {broker} ended while starting; the end of {log}:\n{tail}")]
    Ended { broker: usize, log: String, tail: String },
    #[error("Kafka did not answer within {0:?}")]
    NotReady(Duration),
}

pub(crate) fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> LocalError {
    let doing = doing.into();
    move |source| LocalError::Io { doing, source }
}

/// What to start.
#[derive(Clone, Debug)]
pub struct LocalKafkaSettings {
    /// Holds everything: settings, data, logs, pids. Made when absent; present data is used again.
    pub directory: PathBuf,
    /// 1 for the demo, 3 where brokers are killed.
    pub brokers: usize,
    /// First of `2 × brokers` ports in a row (broker and controller, in turn); free ones when absent.
    pub port: Option<u16>,
}

/// A cluster in a directory.
pub struct LocalKafka {
    directory: PathBuf,
    brokers: Vec<Mutex<Broker>>,
}

impl LocalKafka {
    /// Starts the cluster and waits until it answers. Brokers that already run are left alone; a
    /// directory that was prepared before keeps its number of brokers and its ports.
    pub async fn start(settings: LocalKafkaSettings) -> Result<LocalKafka, LocalError> {
        let jars = fetch_jars().await?;
        let directory = settings.directory.clone();
        fs::create_dir_all(&directory).map_err(io_error("making the directory of Kafka"))?;
        let directory = canonical(&directory)?;
        if !directory.join("broker-1").join("server.properties").exists() {
            let of = directory.clone();
            blocking(move || broker::prepare(&of, settings.brokers, settings.port, &jars)).await?;
        }
        let kafka = LocalKafka::open(&directory)?;
        for index in 0..kafka.brokers.len() {
            kafka.spawn(index).await?;
        }
        kafka.ready(kafka.brokers.len(), &kafka.bootstrap()).await?;
        Ok(kafka)
    }

    /// A cluster that was started before, by whomever, running or not.
    pub fn open(directory: &Path) -> Result<LocalKafka, LocalError> {
        let directory = canonical(directory)?;
        let mut brokers = Vec::new();
        loop {
            let path = directory.join(format!("broker-{}", brokers.len() + 1));
            if !path.join("server.properties").exists() {
                break;
            }
            brokers.push(Mutex::new(Broker::open(&path)?));
        }
        if brokers.is_empty() {
            return Err(LocalError::Missing(format!("no Kafka in {}", directory.display())));
        }
        Ok(LocalKafka { directory, brokers })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// `host:port` of every broker, for `KafkaSettings::brokers`.
    pub fn bootstrap(&self) -> Vec<String> {
        self.brokers.iter().map(|broker| broker.lock().address()).collect()
    }

    /// Process ids by broker; none for a broker that does not run.
    pub fn pids(&self) -> Vec<Option<u32>> {
        self.brokers.iter().map(|broker| broker.lock().running()).collect()
    }

    /// `kill -9`, without a word to the broker. A broker that does not run is no error.
    pub fn kill(&self, index: usize) -> Result<(), LocalError> {
        self.brokers[index].lock().kill()
    }

    /// Asks one broker to end in order, and does not wait.
    pub fn ask_to_end(&self, index: usize) -> Result<(), LocalError> {
        self.brokers[index].lock().ask_to_end()
    }

    /// Starts one broker on the data it has, and waits until it answers.
    pub async fn start_broker(&self, index: usize) -> Result<(), LocalError> {
        self.spawn(index).await?;
        let address = self.brokers[index].lock().address();
        self.ready(1, &[address]).await
    }

    /// Asks all brokers to end, kills those that do not within some seconds. Data stays.
    pub async fn stop(&self) -> Result<(), LocalError> {
        // Together: a broker that leaves alone waits for a controller to talk to.
        for index in 0..self.brokers.len() {
            self.ask_to_end(index)?;
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.pids().iter().any(Option::is_some) {
            if Instant::now() > deadline {
                for index in 0..self.brokers.len() {
                    self.kill(index)?;
                }
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn spawn(&self, index: usize) -> Result<(), LocalError> {
        let jars = fetch_jars().await?;
        let count = self.brokers.len();
        self.brokers[index].lock().spawn(&jars, count)
    }

    /// Waits until a broker among `addresses` reports `brokers` brokers or more.
    async fn ready(&self, brokers: usize, addresses: &[String]) -> Result<(), LocalError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        let asked = addresses.join(",");
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", asked)
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "100")
            .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg)
            .create()
            .map_err(|error| LocalError::Missing(error.to_string()))?;
        let client = std::sync::Arc::new(client);
        loop {
            let ask = client.clone();
            let known = blocking(move || {
                let metadata = ask.fetch_metadata(None, Duration::from_millis(500));
                Ok(metadata.map(|metadata| metadata.brokers().len()).unwrap_or(0))
            })
            .await?;
            if known >= brokers {
                return Ok(());
            }
            for (index, broker) in self.brokers.iter().enumerate() {
                let mut broker = broker.lock();
                if addresses.contains(&broker.address()) && broker.running().is_none() {
                    return Err(LocalError::Ended {
                        broker: index + 1,
                        log: broker.log().display().to_string(),
                        tail: broker.log_tail(),
                    });
                }
            }
            if Instant::now() > deadline {
                return Err(LocalError::NotReady(READY_TIMEOUT));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// As it stands on a broker's command line, by which the broker is known: without links.
fn canonical(directory: &Path) -> Result<PathBuf, LocalError> {
    directory
        .canonicalize()
        .map_err(io_error("finding the directory of Kafka"))
}

/// Files, processes and librdkafka's questions block: they have a thread of their own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LocalError> + Send + 'static,
) -> Result<T, LocalError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(LocalError::Missing(format!("interrupted: {error}"))),
    }
}
