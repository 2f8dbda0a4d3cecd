//! What an orderer does before it takes anything: topics, genesis, modules.
//!
//! ```text
//! ensure topics ─▶ read control to its end ─▶ genesis there? modules there? ─▶ append what is missing ─┐
//!                          ▲──────────────────────────────────────────────────────────────────────────┘
//! ```
//! Several orderers may do this at once: what is appended twice is a no-op. While the log is away it waits.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use ledger_log::{Log, ReadError, TopicError, topics::Topics};
use prost::Message;
use protocol::{
    CONTROL, Digest,
    canonical::{self, NotCanonical},
    control::{Content, ControlChain, Genesis},
    genesis::{Channel, ConfigError},
    ledger::{self, ControlRecord, Module, control_record},
    sha256,
};
use service::health::Check;
use tokio::time::{Instant, sleep};

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// One wait for the next records, and for an acknowledged one to be seen.
const READ_WAIT: Duration = Duration::from_millis(500);
const SEEN_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("topics: {0}")]
    Topics(TopicError),
    #[error("the control chain: {0}")]
    Read(ReadError),
    #[error("genesis: {0}")]
    Genesis(#[from] NotCanonical),
    #[error("modules[{index}]: {cause}")]
    Module { index: usize, cause: ConfigError },
}

/// What the control chain must hold before anything else happens.
pub struct Bootstrap {
    pub channel: Arc<Channel>,
    genesis: Bytes,
    /// Digest and record.
    modules: Vec<(Digest, Bytes)>,
    pub allow_unsafe_topics: bool,
    pub flush_every_record: bool,
}

/// Passing troubles are waited for, others end the process.
enum Trouble {
    Passing(String),
    Fatal(Error),
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(reason) => Trouble::Passing(reason),
            other => Trouble::Fatal(Error::Read(other)),
        }
    }
}

impl Bootstrap {
    /// `genesis`: the bytes of `ledger.Genesis`; `modules`: components that the genesis names.
    pub fn new(channel: Arc<Channel>, genesis: &[u8], modules: Vec<Vec<u8>>) -> Result<Self, Error> {
        let genesis: ledger::Genesis = canonical::decode(genesis)?;
        let record = |content| Bytes::from(ControlRecord { content: Some(content) }.encode_to_vec());
        let module = |(index, component): (usize, Vec<u8>)| {
            let module = Module {
                component,
                ..Module::default()
            };
            let digest = channel
                .check_module(&module)
                .map_err(|cause| Error::Module { index, cause })?;
            Ok((digest, record(control_record::Content::Module(module))))
        };
        let modules = modules
            .into_iter()
            .enumerate()
            .map(module)
            .collect::<Result<Vec<_>, Error>>()?;
        let genesis = record(control_record::Content::Genesis(genesis));
        Ok(Bootstrap {
            channel,
            genesis,
            modules,
            allow_unsafe_topics: false,
            flush_every_record: false,
        })
    }

    /// Ends with the genesis' place, or with what no waiting mends.
    pub async fn run(&self, log: &Arc<dyn Log>, topics: &Topics, check: &Check) -> Result<Genesis, Error> {
        let mut chain = ControlChain::new(self.channel.clone());
        let mut pause = PAUSE_MIN;
        let mut ensured = false;
        loop {
            match self.step(log, topics, &mut chain, &mut ensured).await {
                Ok(Some(genesis)) => return Ok(genesis),
                Ok(None) => pause = PAUSE_MIN,
                Err(Trouble::Fatal(error)) => return Err(error),
                Err(Trouble::Passing(reason)) => {
                    tracing::warn!(reason, "the control chain cannot be prepared yet");
                    check.degraded(reason);
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// `None`: something was appended, look again.
    async fn step(
        &self,
        log: &Arc<dyn Log>,
        topics: &Topics,
        chain: &mut ControlChain,
        ensured: &mut bool,
    ) -> Result<Option<Genesis>, Trouble> {
        if !*ensured {
            let specs = topics.specs(&self.channel, self.flush_every_record);
            log.ensure(&specs, self.allow_unsafe_topics)
                .await
                .map_err(|error| match error {
                    TopicError::Unavailable(reason) => Trouble::Passing(reason),
                    other => Trouble::Fatal(Error::Topics(other)),
                })?;
            *ensured = true;
        }
        let (_, end) = log.bounds(&topics.of(CONTROL)).await?;
        read_to(log, topics, chain, end).await?;
        let missing = |(digest, _): &&(Digest, Bytes)| !chain.has_module(digest);
        let record = match chain.genesis() {
            None => self.genesis.clone(),
            Some(genesis) => match self.modules.iter().find(missing) {
                Some((_, record)) => record.clone(),
                None => return Ok(Some(genesis)),
            },
        };
        let hash = sha256(&record);
        let appended = log.append(&topics.of(CONTROL), record).await;
        let offset = appended.map_err(|error| Trouble::Passing(error.to_string()))?;
        tracing::info!(offset, record = hex::encode(hash), "appended to the control chain");
        read_to(log, topics, chain, offset + 1).await?;
        Ok(None)
    }
}

/// Reads on until the chain has `end` records.
async fn read_to(log: &Arc<dyn Log>, topics: &Topics, chain: &mut ControlChain, end: u64) -> Result<(), Trouble> {
    if chain.records() >= end {
        return Ok(());
    }
    let mut reader = log.read(&topics.of(CONTROL), chain.records()).await?;
    let deadline = Instant::now() + SEEN_WAIT;
    while chain.records() < end {
        for record in reader.next(READ_WAIT).await? {
            let pushed = chain.push(&record.value);
            match pushed.content {
                Content::Nothing(reason) => tracing::debug!(offset = record.offset, reason, "an empty control block"),
                Content::ConfigRefused { sequence } => {
                    tracing::warn!(
                        offset = record.offset,
                        sequence,
                        "a config update is not supported, ignored"
                    );
                }
                Content::Genesis => tracing::info!(offset = record.offset, "the channel's genesis"),
                Content::Module { digest, .. } => {
                    tracing::info!(offset = record.offset, digest = hex::encode(digest), "a module");
                }
            }
        }
        if Instant::now() > deadline {
            return Err(Trouble::Passing(
                "records of the control chain are not delivered".into(),
            ));
        }
    }
    Ok(())
}
