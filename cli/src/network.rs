//! A whole network on this machine: founding, starting, stopping, looking.
//!
//! All processes are real ones, of all organisations, detached from the command that started them.
//! Other commands and the tests reach them through `network.json`.
//!
//! ```text
//! Spec ── plan ──► Description ── found (CAs, identities, genesis, settings) ──► directory
//!                                                                  Kafka ─► orderers, workers ─► peers
//! ```

pub mod brokers;
pub mod check;
pub mod command;
pub mod configs;
mod differences;
pub mod found;
pub mod genesis;
pub mod layout;
pub mod plan;
mod ports;
pub mod process;
pub mod ready;
pub mod scrape;
pub mod spec;
pub mod status;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Child,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use protocol::genesis::Channel;
use service::Identity;

use crate::session::Session;
use brokers::Brokers;
use layout::{Description, Kind, Layout, Process};
use process::Running;
pub use spec::Spec;

/// Where `network up` puts a network unless told otherwise.
pub const DEFAULT_DIRECTORY: &str = "target/network";

/// A process that answers by then is ready; a cold Kafka under load needs most of it.
const READY_WITHIN: Duration = Duration::from_secs(90);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// What a process has for its drain before it is killed.
const DRAIN_WITHIN: Duration = Duration::from_secs(25);
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// What is going on, one line at a time, for whoever watches.
pub type Say<'a> = &'a (dyn Fn(&str) + Send + Sync);

pub fn silent(_: &str) {}

pub struct Network {
    pub layout: Layout,
    pub description: Description,
    pub channel: Arc<Channel>,
    /// Those that this program started, so that their ends are noticed.
    children: Mutex<HashMap<String, Child>>,
    brokers: Option<Brokers>,
    disposable: bool,
}

impl Network {
    /// Founds a network in an empty directory and starts it; it is ready when this returns.
    /// On failure everything that was started is stopped.
    pub async fn up(spec: &Spec, directory: &Path, say: Say<'_>) -> Result<Network> {
        ensure!(
            spec.addresses.is_empty(),
            "addresses: these processes are started elsewhere; `medledger network found` makes their keys and genesis"
        );
        let layout = Layout::new(directory)?;
        found::check_empty(&layout)?;
        if let Some(kafka) = &spec.kafka.external {
            brokers::reach(kafka).await?;
        }
        let founded = found::found(spec, &layout, say);
        // Half a network would only be in the way of the next attempt.
        let (description, channel) = founded.inspect_err(|_| drop(std::fs::remove_dir_all(layout.root())))?;
        let mut network = Network {
            layout,
            description,
            channel: Arc::new(channel),
            children: Mutex::default(),
            brokers: None,
            disposable: false,
        };
        if let Err(error) = network.start_all(say).await {
            say("it failed; stopping what was started");
            network.kill_all().await;
            return Err(error);
        }
        Ok(network)
    }

    /// The network of a directory, if there is one.
    pub fn find(directory: &Path) -> Result<Option<Network>> {
        let described = Layout::new(directory)?.description().exists();
        described.then(|| Network::load(directory)).transpose()
    }

    /// The network of a directory, running or not.
    pub fn load(directory: &Path) -> Result<Network> {
        let layout = Layout::new(directory)?;
        let description = layout.read()?;
        let genesis = std::fs::read(layout.genesis()).with_context(|| layout.genesis().display().to_string())?;
        let channel = Channel::from_genesis(&genesis).context("the network's genesis")?;
        let brokers = Brokers::open(&layout, &description)?;
        Ok(Network {
            layout,
            description,
            channel: Arc::new(channel),
            children: Mutex::default(),
            brokers,
            disposable: false,
        })
    }

    /// Kills everything when dropped: for tests.
    pub fn disposable(mut self) -> Self {
        self.disposable = true;
        self
    }

    /// Starts every process that does not run, each kind at once.
    pub async fn start_all(&mut self, say: Say<'_>) -> Result<()> {
        self.brokers = Brokers::start(&self.layout, &self.description, say).await?;
        // They wait for each other by themselves, so all of ours start together.
        const OURS: [Kind; 3] = [Kind::Orderer, Kind::Worker, Kind::Peer];
        for process in OURS.into_iter().flat_map(|kind| self.of(kind)) {
            if self.running(&process.name).is_none() {
                self.spawn(process)?;
            }
        }
        for kind in OURS {
            let processes: Vec<&Process> = self.of(kind).collect();
            say(&format!("waiting for {} {kind}s", processes.len()));
            futures::future::try_join_all(processes.iter().map(|process| self.ready(process))).await?;
        }
        say("waiting until the peers see each other, workers and orderers");
        futures::future::try_join_all(self.peers().map(|peer| self.serves(peer, true))).await?;
        Ok(())
    }

    /// Starts one process that does not run and waits until it is ready.
    pub async fn start(&self, name: &str) -> Result<()> {
        let process = self.process(name)?;
        if let Some(running) = self.running(name) {
            bail!("{name} runs already, as process {}", running.pid);
        }
        if process.kind == Kind::Broker {
            let brokers = self
                .brokers
                .as_ref()
                .context("this network's Kafka was never started")?;
            return brokers.start_one(process).await;
        }
        self.spawn(process)?;
        self.ready(process).await
    }

    /// Starts one process of ours without waiting for it.
    pub fn spawn(&self, process: &Process) -> Result<()> {
        let (log, pid) = (self.layout.join(&process.log_file), self.layout.join(&process.pid_file));
        let program = process::program(&format!("medledger-{}", process.kind))?;
        let config = self.layout.join(process.config());
        let config = config.to_str().context("the directory's name must be UTF-8")?;
        let child = process::spawn(&program, &["--config", config], &self.description.spec.log, &log, &pid)?;
        self.children().insert(process.name.clone(), child);
        Ok(())
    }

    /// Waits until a process of ours says that it is ready.
    pub async fn ready(&self, process: &Process) -> Result<()> {
        let log = self.layout.join(&process.log_file);
        let Some(running) = self.running(&process.name) else {
            bail!(
                "{} ended at once; the end of {}:\n{}",
                process.name,
                log.display(),
                process::tail(&log, 15)
            );
        };
        ready::wait(&process.name, &process.health, running, &log, READY_WITHIN).await?;
        if process.kind == Kind::Peer {
            self.serves(process, false).await
        } else {
            Ok(())
        }
    }

    /// Waits until the peer answers its organisation and has met the genesis in every partition; and, if
    /// asked for, until it sees every other peer, a worker and an orderer.
    async fn serves(&self, peer: &Process, with_others: bool) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let Some(waits_for) = self.waits_for(peer, with_others).await else {
                return Ok(());
            };
            if Instant::now() >= deadline || self.running(&peer.name).is_none() {
                let log = self.layout.join(&peer.log_file);
                bail!(
                    "{} does not serve yet: {waits_for}; its log is {}",
                    peer.name,
                    log.display()
                );
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn waits_for(&self, peer: &Process, with_others: bool) -> Option<String> {
        match self.ask_peer(peer).await {
            // A peer that is started again while Kafka is away serves what it has.
            Ok(reply) if with_others && reply.chains.iter().any(|chain| chain.blocks == 0) => {
                return Some("no genesis".to_owned());
            }
            Ok(reply) if with_others && reply.peers.iter().any(|other| !other.alive) => {
                return Some("other peers are away".to_owned());
            }
            Ok(_) => {}
            Err(error) => return Some(format!("{error:#}")),
        }
        if !with_others {
            return None;
        }
        match ready::misses(&peer.health).await {
            Ok(missing) if missing.is_empty() => None,
            Ok(missing) => Some(format!("not ok: {}", missing.join(", "))),
            Err(error) => Some(format!("{error:#}")),
        }
    }

    /// Sends a signal; after one that ends a process, waits for its end.
    pub async fn kill(&self, name: &str, signal: Signal) -> Result<()> {
        self.process(name)?;
        let running = self.running(name).with_context(|| format!("{name} does not run"))?;
        running.signal(signal)?;
        let within = match signal {
            Signal::SIGKILL => KILLED_WITHIN,
            Signal::SIGTERM | Signal::SIGINT => DRAIN_WITHIN,
            _ => return Ok(()),
        };
        if !running.ended(within).await {
            bail!("{name} (process {}) still lives {within:?} after {signal}", running.pid);
        }
        self.reap(name);
        Ok(())
    }

    /// Asks our processes to drain and end, then Kafka; kills those that do not.
    pub async fn down(&self, say: Say<'_>) -> Result<()> {
        for kinds in [&[Kind::Peer][..], &[Kind::Worker, Kind::Orderer], &[Kind::Broker]] {
            let running: Vec<(&Process, Running)> = self.all_running(kinds);
            for (process, running) in &running {
                say(&format!("stopping {}", process.name));
                running.signal(Signal::SIGTERM)?;
            }
            let ended = running.iter().map(|(process, running)| async move {
                if !running.ended(DRAIN_WITHIN).await {
                    say(&format!("{} did not end in {DRAIN_WITHIN:?}; killing it", process.name));
                    running.signal(Signal::SIGKILL)?;
                    running.ended(KILLED_WITHIN).await;
                }
                self.reap(&process.name);
                anyhow::Ok(())
            });
            futures::future::try_join_all(ended).await?;
        }
        Ok(())
    }

    /// Deletes keys, ledger and everything else of a network of which nothing runs.
    pub fn remove(self) -> Result<()> {
        let alive = self.alive();
        let root = self.layout.root();
        ensure!(
            alive.is_empty(),
            "the network in {} runs ({}) and is not deleted; `medledger network down{}` stops it",
            root.display(),
            alive.join(", "),
            self.layout.flag()
        );
        std::fs::remove_dir_all(root).with_context(|| format!("deleting {}", root.display()))
    }

    /// Names of the processes that live.
    pub fn alive(&self) -> Vec<String> {
        let processes = self.description.processes.iter();
        let alive = processes.filter(|process| self.running(&process.name).is_some());
        alive.map(|process| process.name.clone()).collect()
    }

    async fn kill_all(&self) {
        for (process, running) in self.all_running(&[Kind::Peer, Kind::Worker, Kind::Orderer, Kind::Broker]) {
            // It is going away anyway; what cannot be signalled has ended.
            let _ = running.signal(Signal::SIGKILL);
            running.ended(KILLED_WITHIN).await;
            self.reap(&process.name);
        }
    }

    fn all_running(&self, kinds: &[Kind]) -> Vec<(&Process, Running)> {
        let processes = self.description.processes.iter().filter(|p| kinds.contains(&p.kind));
        processes
            .filter_map(|process| Some((process, self.running(&process.name)?)))
            .collect()
    }

    pub fn process(&self, name: &str) -> Result<&Process> {
        let names = || {
            self.description
                .processes
                .iter()
                .map(|p| p.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let found = self.description.processes.iter().find(|process| process.name == name);
        found.with_context(|| format!("no process is called {name}; there are {}", names()))
    }

    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Process> {
        self.description
            .processes
            .iter()
            .filter(move |process| process.kind == kind)
    }

    pub fn peers(&self) -> impl Iterator<Item = &Process> {
        self.of(Kind::Peer)
    }

    /// Whether it can be asked: it lives here, or it is elsewhere and may live.
    pub fn may_answer(&self, name: &str) -> bool {
        self.description.remote || self.running(name).is_some()
    }

    /// The named process, if it lives on this machine.
    pub fn running(&self, name: &str) -> Option<Running> {
        self.reap(name);
        let process = self.description.processes.iter().find(|process| process.name == name)?;
        match process.kind {
            Kind::Broker => self.brokers.as_ref()?.running(name),
            _ => Running::from_file(&self.layout.join(&process.pid_file)),
        }
    }

    /// Takes note of the end of a child of ours.
    fn reap(&self, name: &str) {
        let mut children = self.children();
        if let Some(child) = children.get_mut(name)
            && matches!(child.try_wait(), Ok(Some(_)))
        {
            children.remove(name);
        }
    }

    fn children(&self) -> std::sync::MutexGuard<'_, HashMap<String, Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn identity_directory(&self, organisation: &str, name: &str) -> PathBuf {
        self.layout.join(Layout::identity(organisation, name))
    }

    pub fn identity(&self, organisation: &str, name: &str) -> Result<Arc<Identity>> {
        let directory = self.identity_directory(organisation, name);
        if !directory.is_dir() {
            let identities = self.description.identities.iter();
            let names: Vec<&str> = identities
                .filter(|known| known.organisation == organisation)
                .map(|known| known.name.as_str())
                .filter(|known| self.identity_directory(organisation, known).is_dir())
                .collect();
            bail!(
                "{organisation} has no identity {name} here; it has {}",
                if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                }
            );
        }
        Ok(Arc::new(Identity::load(&directory)?))
    }

    /// A client of a peer of its own organisation: the named one, or the first.
    pub fn connect(&self, organisation: &str, name: &str, peer: Option<&str>) -> Result<Session> {
        let peer = match peer {
            Some(peer) => self.process(peer)?,
            None => {
                let first = self.peers().find(|process| process.organisation == organisation);
                first.with_context(|| format!("{organisation} has no peer in this network"))?
            }
        };
        Session::open(self.channel.clone(), self.identity(organisation, name)?, peer)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if !self.disposable {
            return;
        }
        for (_, running) in self.all_running(&[Kind::Peer, Kind::Worker, Kind::Orderer, Kind::Broker]) {
            // Nobody is left to hear of it.
            let _ = running.signal(Signal::SIGKILL);
        }
        for child in self.children().values_mut() {
            let _ = child.wait();
        }
    }
}
