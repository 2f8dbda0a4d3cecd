//! The network's own Kafka, if it has one: a cluster in the directory `kafka` of the network's.

use anyhow::{Context as _, Result};
use ledger_log::local::{LocalKafka, LocalKafkaSettings};

use super::{
    layout::{Description, Kind, Layout, Process},
    process::Running,
};

const DIRECTORY: &str = "kafka";

pub struct Brokers {
    cluster: LocalKafka,
    names: Vec<String>,
}

/// Where the cluster keeps a broker's files, as `network.json` names them.
pub fn directory_of(index: u32) -> std::path::PathBuf {
    std::path::Path::new(DIRECTORY).join(format!("broker-{}", index + 1))
}

impl Brokers {
    /// Starts those that do not run and waits until all answer. `None`: the Kafka is somebody else's.
    pub async fn start(layout: &Layout, description: &Description) -> Result<Option<Self>> {
        let Some(first) = description.processes.iter().find(|p| p.kind == Kind::Broker) else {
            return Ok(None);
        };
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
