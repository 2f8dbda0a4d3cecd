//! The network's Kafka: a cluster of its own in the directory `kafka` of the network's, or somebody else's.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use ledger_log::local::{self, LocalKafka, LocalKafkaSettings};
use tokio::net::TcpStream;

use super::{
    Say,
    layout::{Description, Kind, Layout, Process},
    process::Running,
};

const DIRECTORY: &str = "kafka";
const REACHED_WITHIN: Duration = Duration::from_secs(5);

pub struct Brokers {
    cluster: LocalKafka,
    names: Vec<String>,
}

/// Where the cluster keeps a broker's files, as `network.json` names them.
pub fn directory_of(index: u32) -> std::path::PathBuf {
    std::path::Path::new(DIRECTORY).join(format!("broker-{}", index + 1))
}

/// `HOST:PORT,…` as the command line and specifications have it, unchanged.
pub fn addresses(text: &str) -> Result<String> {
    for address in text.split(',') {
        let port = address.rsplit_once(':').filter(|(host, _)| is_host(host));
        let port = port.and_then(|(_, port)| port.parse::<u16>().ok());
        ensure!(
            port.is_some_and(|port| port > 0),
            "must be HOST:PORT, or several with commas between them; {address:?} is not"
        );
    }
    Ok(text.to_owned())
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '/')
}

/// Whether any of the addresses takes a connection, soon: a mistyped one would only be waited for.
pub async fn reach(kafka: &str) -> Result<()> {
    let connecting = kafka.split(',').map(|address| TcpStream::connect(address).boxed());
    let connected = tokio::time::timeout(REACHED_WITHIN, futures::future::select_ok(connecting)).await;
    let unreachable = || format!("no Kafka can be reached at {kafka}");
    connected
        .with_context(|| format!("no answer within {REACHED_WITHIN:?}"))
        .and_then(|connected| Ok(connected?))
        .with_context(unreachable)?;
    Ok(())
}

impl Brokers {
    /// Starts those that do not run and waits until all answer. `None`: the Kafka is somebody else's.
    pub async fn start(layout: &Layout, description: &Description, say: Say<'_>) -> Result<Option<Self>> {
        let Some(first) = description.processes.iter().find(|p| p.kind == Kind::Broker) else {
            reach(&description.kafka).await?;
            return Ok(None);
        };
        if !local::has_jars()? {
            say(&format!("downloading Kafka's jars ({} MB, once)", local::JARS_MB));
            local::fetch_jars().await?;
        }
        say("starting Kafka");
        let port = first.listen.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let settings = LocalKafkaSettings {
            directory: layout.join(DIRECTORY),
            brokers: description.processes.iter().filter(|p| p.kind == Kind::Broker).count(),
            port,
        };
        let cluster = LocalKafka::start(settings).await.context("starting Kafka")?;
        Ok(Some(Brokers {
            cluster,
            names: names(description),
        }))
    }

    /// The cluster as it is. `None`: there is none here, or it was never started.
    pub fn open(layout: &Layout, description: &Description) -> Result<Option<Self>> {
        let names = names(description);
        if names.is_empty() || !layout.join(directory_of(0)).join("server.properties").exists() {
            return Ok(None);
        }
        Ok(Some(Brokers {
            cluster: LocalKafka::open(&layout.join(DIRECTORY))?,
            names,
        }))
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    pub fn running(&self, name: &str) -> Option<Running> {
        let pid = self.cluster.pids().get(self.index(name)?).copied().flatten()?;
        Running::of(i32::try_from(pid).ok()?).filter(Running::lives)
    }

    /// One broker on the data it has.
    pub async fn start_one(&self, process: &Process) -> Result<()> {
        let index = self.index(&process.name).context("no such broker")?;
        Ok(self.cluster.start_broker(index).await?)
    }
}

fn names(description: &Description) -> Vec<String> {
    description
        .processes
        .iter()
        .filter(|p| p.kind == Kind::Broker)
        .map(|p| p.name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["kafka:9092", "127.0.0.1:1,[::1]:9092"] {
            assert_eq!(addresses(good).expect(good), good);
        }
        for bad in [
            "foo",
            "",
            ":9092",
            "a:9092,",
            "a:0",
            "a:70000",
            "http://a:9092",
            "a b:1",
        ] {
            let error = addresses(bad).expect_err(bad).to_string();
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_kafka_that_is_not_there_is_named() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let nobody = nobody.expect("an address that was free").to_string();
        let error = format!("{:#}", reach(&nobody).await.expect_err("nobody listens"));
        assert!(error.contains(&nobody), "{error}");
        let somebody = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = somebody.local_addr().expect("its address");
        reach(&format!("{nobody},{address}")).await.expect("one is enough");
    }
}
