//! A network of real processes over a real Kafka, as a test holds it.
//!
//! Every world has a directory and ports of its own and ends whatever it started, by process id, also
//! when the test panics; it then shows the end of every log. What is awaited is an event with a deadline.
//!
//! ```text
//! World ── Client (one identity at one gateway) ── Load (many of them) ── Book: what was acknowledged
//!   └───── check: everything acknowledged is on every peer exactly once, all headers agree
//!   └───── forge: transactions and records as no honest process makes them
//! ```

pub mod check;
pub mod client;
pub mod doors;
pub mod forge;
pub mod load;
pub mod scrape;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ledger_log::topics::Topics;
use ledger_log::{
    Log, TopicPartition,
    kafka::{KafkaLog, KafkaSettings},
};
use medledger_cli::{
    network::{
        Network, Spec,
        layout::{Kind, Process},
        plan::ADMIN,
        process::tail,
        ready, silent,
    },
    session::Session,
};
use nix::sys::signal::Signal;
use protocol::CONTROL;
use serde_json::Value;
use service::rpc::{self, gateway_client::GatewayClient};
use tempfile::TempDir;
use tonic::{Streaming, transport::Channel};

use client::Client;

/// For anything that must come by itself; a shared machine with two cores needs most of it.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running network.
pub struct World {
    pub network: Network,
    log: KafkaLog,
    /// Every organisation's admin at each of its peers, by peer: one connection for all questions.
    admins: BTreeMap<String, Session>,
    /// After `network`, so that everything has ended when the files go.
    directory: TempDir,
}

/// Four organisations with a peer and a worker each, two orderers, one broker.
pub fn small() -> Spec {
    let mut spec = Spec::default();
    for organisation in &mut spec.organisations {
        organisation.peers = 1;
    }
    spec
}

impl World {
    /// Founds and starts a network; it is ready when this returns.
    pub async fn up(spec: &Spec) -> World {
        let directory = tempfile::Builder::new()
            .prefix("medledger-test-")
            .tempdir()
            .expect("a directory");
        let network = match Network::up(spec, &directory.path().join("network"), &silent).await {
            Ok(network) => network.disposable(),
            Err(error) => panic!("the network does not start: {error:#}"),
        };
        let brokers = KafkaSettings::new(network.description.kafka.split(','));
        let log = KafkaLog::open(&brokers).expect("a Kafka client");
        let admins = network.peers().map(|peer| {
            let session = network.connect(&peer.organisation, ADMIN, Some(&peer.name));
            (peer.name.clone(), session.expect("an admin of its own organisation"))
        });
        let admins = admins.collect();
        let world = World {
            network,
            log,
            admins,
            directory,
        };
        for peer in world.peers() {
            world.started(&peer).await;
        }
        world
    }

    /// Until the peer has the genesis marker of every partition: before, nothing can be endorsed.
    async fn started(&self, peer: &str) {
        let partitions = self.network.description.partitions as usize;
        self.until(peer, "has every partition's marker", |reply| {
            reply
                .chains
                .iter()
                .filter(|chain| chain.partition != CONTROL && chain.blocks > 0)
                .count()
                == partitions
        })
        .await;
    }

    pub fn names(&self, kind: Kind) -> Vec<String> {
        self.network.of(kind).map(|process| process.name.clone()).collect()
    }

    pub fn peers(&self) -> Vec<String> {
        self.names(Kind::Peer)
    }

    pub fn process(&self, name: &str) -> &Process {
        self.network.process(name).expect("a process of this network")
    }

    pub fn directory(&self) -> PathBuf {
        self.directory.path().join("network")
    }

    /// The channel's log, beside all processes: what it says can be believed, and anything can be put into it.
    pub fn log(&self) -> &KafkaLog {
        &self.log
    }

    /// Where the records of a partition, or of [`CONTROL`], are.
    pub fn topic(&self, partition: u32) -> TopicPartition {
        Topics::of_channel(&self.network.channel).of(partition)
    }

    pub fn partitions(&self) -> u32 {
        self.network.description.partitions
    }

    /// Records in the log by partition.
    pub async fn ends(&self) -> Vec<u64> {
        let mut ends = Vec::new();
        for partition in 0..self.partitions() {
            let bounds = self.log.bounds(&self.topic(partition)).await;
            ends.push(bounds.expect("Kafka says where the log ends").1);
        }
        ends
    }

    /// `kill -9`; the process has ended when this returns.
    pub async fn kill(&self, name: &str) {
        self.signal(name, Signal::SIGKILL).await;
    }

    /// After a signal that ends a process, it has ended when this returns.
    pub async fn signal(&self, name: &str, signal: Signal) {
        if let Err(error) = self.network.kill(name, signal).await {
            panic!("{signal} to {name}: {error:#}");
        }
    }

    /// Starts a process that was ended; it is ready when this returns.
    pub async fn start(&self, name: &str) {
        if let Err(error) = self.network.start(name).await {
            panic!("{name} does not come back: {error:#}");
        }
    }

    /// A person of an organisation at a peer of it.
    pub fn client(&self, peer: &str, person: &str) -> Arc<Client> {
        let organisation = &self.process(peer).organisation;
        let session = self.network.connect(organisation, person, Some(peer));
        Arc::new(Client::new(
            session.unwrap_or_else(|error| panic!("{person} at {peer}: {error:#}")),
        ))
    }

    /// The gateway of a peer, as its organisation's admin reaches it.
    pub fn gateway(&self, peer: &str) -> GatewayClient<Channel> {
        self.admins.get(peer).expect("a peer of this network").gateway()
    }

    /// A peer's own account; a connection that ended with the peer is made again.
    pub async fn ask(&self, peer: &str) -> rpc::NetworkReply {
        self.until(peer, "says how it is", |_| true).await
    }

    /// Asks a peer until its account is as wanted; also while it does not answer.
    pub async fn until(
        &self,
        peer: &str,
        what: &str,
        wanted: impl Fn(&rpc::NetworkReply) -> bool,
    ) -> rpc::NetworkReply {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while Instant::now() < deadline {
            let mut gateway = self.gateway(peer);
            let asked = tokio::time::timeout(Duration::from_secs(5), gateway.network(rpc::NetworkRequest {})).await;
            if let Ok(Ok(reply)) = asked {
                let reply = reply.into_inner();
                if wanted(&reply) {
                    return reply;
                }
                last = Some(reply);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("{peer}: not within {PATIENCE:?}: {what}; its last account: {last:?}");
    }

    /// Until the peer has judged so many blocks of every partition.
    pub async fn reached(&self, peer: &str, ends: &[u64]) -> rpc::NetworkReply {
        self.until(peer, &format!("has the blocks up to {ends:?}"), |reply| {
            (0u32..)
                .zip(ends)
                .all(|(partition, end)| chain(reply, partition).blocks >= *end)
        })
        .await
    }

    /// Blocks as a peer serves them.
    pub async fn blocks(&self, peer: &str, partition: u32, from_height: u64, count: u64) -> Streaming<rpc::BlockReply> {
        let request = rpc::BlocksRequest {
            partition,
            from_height,
            count,
        };
        let blocks = self.gateway(peer).blocks(request).await;
        blocks
            .unwrap_or_else(|status| panic!("{peer}: blocks from {from_height}: {status}"))
            .into_inner()
    }

    /// One block, once the peer has it.
    pub async fn block(&self, peer: &str, partition: u32, height: u64) -> rpc::BlockReply {
        // A stream may start at the tip and no further on.
        let has = |reply: &rpc::NetworkReply| chain(reply, partition).blocks >= height;
        self.until(peer, &format!("has {height} blocks of partition {partition}"), has)
            .await;
        let mut blocks = self.blocks(peer, partition, height, 1).await;
        let block = tokio::time::timeout(PATIENCE, blocks.message()).await;
        let block = block.unwrap_or_else(|_| panic!("{peer}: block {height} of partition {partition} does not come"));
        block
            .unwrap_or_else(|status| panic!("{peer}: block {height}: {status}"))
            .expect("one block was asked for")
    }

    /// Status of `/readyz` and what `/health` shows.
    pub async fn health(&self, name: &str) -> (u16, Value) {
        let address = &self.process(name).health;
        let (ready, _) = ready::get(address, "/readyz")
            .await
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let (_, report) = ready::get(address, "/health")
            .await
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        (ready, serde_json::from_str(&report).expect("the health report is JSON"))
    }

    /// Until a check of the process's health has the state.
    pub async fn until_health(&self, name: &str, check: &str, state: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, report) = self.health(name).await;
            if report["checks"][check]["state"] == state {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{name}: {check} never became {state}: {report}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&self, name: &str, metric: &str) -> f64 {
        let (_, text) = ready::get(&self.process(name).health, "/metrics")
            .await
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let of = lines.filter(|line| line.split(['{', ' ']).next() == Some(metric));
        of.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    pub fn rss_bytes(&self, name: &str) -> u64 {
        self.network
            .running(name)
            .and_then(|running| running.usage())
            .map_or(0, |usage| usage.rss_bytes)
    }

    pub fn log_of(&self, name: &str) -> String {
        let file = self.network.layout.join(&self.process(name).log_file);
        String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
    }

    /// Every line of our processes' logs that an operator would be called for, except those that the
    /// test provoked; and no line that holds a personal number.
    pub fn check_logs(&self, provoked: &[&str]) {
        for kind in [Kind::Orderer, Kind::Worker, Kind::Peer] {
            for name in self.names(kind) {
                let text = self.log_of(&name);
                let called = |line: &&str| line.contains("ERROR") && !provoked.iter().any(|word| line.contains(word));
                if let Some(line) = text.lines().find(called) {
                    panic!("{name} logged an error that nobody provoked: {line}");
                }
                assert!(!has_personal_number(&text), "{name}'s log holds a personal number");
                assert!(!text.contains("panicked at"), "{name} panicked; its log says where");
            }
        }
    }

    fn show_logs(&self) {
        for process in &self.network.description.processes {
            let log = tail(&self.network.layout.join(&process.log_file), 12);
            let runs = if self.network.running(&process.name).is_some() {
                "runs"
            } else {
                "has ended"
            };
            #[expect(clippy::print_stderr, reason = "a failing test says what it can")]
            {
                eprintln!("---- {} {runs}; the end of its log:\n{log}", process.name);
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

/// A partition's chain in a peer's account.
pub fn chain(reply: &rpc::NetworkReply, partition: u32) -> rpc::Chain {
    reply
        .chains
        .iter()
        .find(|chain| chain.partition == partition)
        .cloned()
        .unwrap_or_default()
}

/// `NNNNNN-NNNN` on its own.
fn has_personal_number(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| bytes[from..to].iter().all(u8::is_ascii_digit);
    let part = |at: Option<&u8>| at.is_some_and(u8::is_ascii_alphanumeric);
    (6..bytes.len().saturating_sub(4)).any(|dash| {
        bytes[dash] == b'-'
            && digits(dash - 6, dash)
            && digits(dash + 1, dash + 5)
            && !part(dash.checked_sub(7).and_then(|at| bytes.get(at)))
            && !part(bytes.get(dash + 5))
    })
}

#[cfg(test)]
mod tests {
    use super::has_personal_number;

    #[test]
    fn a_personal_number_is_found_and_nothing_else_is() {
        assert!(has_personal_number("created 940220-1234 at"));
        assert!(has_personal_number("\"940220-1234\""));
        assert!(!has_personal_number("2026-11-23T15:54:00 0a940220-12345 1940220-1234x"));
    }
}
