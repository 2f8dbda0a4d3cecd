//! Reads a channel's log from its genesis, with nothing but the genesis, and says what it comes to.
//!
//! The same `validate` over the same kind of state as every peer's, in a directory that is thrown
//! away: headers and state digests must be equal to what every peer reports at those heights.

use std::{path::Path, sync::Arc, time::Duration};

use ledger_log::{Log, ReadError, Record, topics::Topics};
use protocol::{
    CONTROL, Digest,
    code::Code,
    control::Genesis,
    genesis::{Channel, ConfigError},
    hash,
    transaction::Checker,
};
use rayon::prelude::*;

use crate::{
    committer::{
        ReplayError, commit_blocks,
        control::{ControlView, read_to_end},
        prepare::prepare,
        validate::Rules,
    },
    state::{Changes, ControlStore, Owner, PartitionState, Position, StateError, Store, Tuning},
};

/// What the log of one partition comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedChain {
    /// `protocol::CONTROL` for the control chain, which is the last.
    pub partition: u32,
    /// Records read. The rest is zero if there are none.
    pub blocks: u64,
    /// Of the last block: `blocks - 1`.
    pub height: u64,
    pub header: Digest,
    pub state_digest: Digest,
    pub transactions: u64,
    pub valid: u64,
}

/// How far a partition is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub partition: u32,
    pub blocks: u64,
    /// The partition's end as it was at the start.
    pub end: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the control chain holds no genesis of this channel")]
    NoGenesis,
    #[error("partition {partition}: {cause}")]
    Log { partition: u32, cause: ReadError },
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("partition {partition}: validating failed in an unforeseen way")]
    Defect { partition: u32 },
}

/// All data partitions and the control chain last, up to the ends that the log has when it starts.
pub async fn verify(
    log: Arc<dyn Log>,
    genesis: &[u8],
    directory: &Path,
    mut progress: impl FnMut(Progress),
) -> Result<Vec<VerifiedChain>, VerifyError> {
    let channel = Arc::new(Channel::from_genesis(genesis)?);
    let topics = Topics::of_channel(&channel);
    let store = Store::new(directory, Tuning::default())?;
    let mut ends = Vec::new();
    for partition in 0..channel.partitions() {
        let (_, high) = log
            .bounds(&topics.of(partition))
            .await
            .map_err(|cause| VerifyError::Log { partition, cause })?;
        ends.push(high);
    }
    let control = ControlView::open(ControlStore::open(&store, &channel.id)?, Arc::clone(&channel))?;
    read_to_end(&control, &*log, &topics.of(CONTROL)).await?;
    let genesis = (*control.watch_genesis().borrow()).ok_or(VerifyError::NoGenesis)?;
    let checker = Arc::new(Checker::new(Arc::clone(&channel)));
    let mut verified = Vec::new();
    for (partition, end) in (0u32..).zip(ends) {
        let replay = Replay::open(&store, &checker, partition, genesis)?;
        verified.push(replay.run(&*log, &topics, end, &mut progress).await?);
    }
    verified.push(control_chain(&control));
    Ok(verified)
}

fn control_chain(control: &ControlView) -> VerifiedChain {
    let described = control.describe();
    VerifiedChain {
        partition: CONTROL,
        blocks: described.blocks,
        height: described.blocks.saturating_sub(1),
        header: hash::digest(&described.header).unwrap_or_default(),
        state_digest: hash::digest(&described.state_digest).unwrap_or_default(),
        transactions: 0,
        valid: 0,
    }
}

struct Replay {
    rules: Rules,
    state: Arc<PartitionState>,
    position: Position,
    found: VerifiedChain,
}

impl Replay {
    fn open(store: &Store, checker: &Arc<Checker>, partition: u32, genesis: Genesis) -> Result<Self, StateError> {
        let secret = hash::digest(&checker.channel.config.secret_hash).unwrap_or_default();
        let state = PartitionState::open(
            store,
            Owner {
                channel: checker.channel.id,
                secret,
            },
            partition,
        )?;
        let position = state.position()?;
        let found = VerifiedChain {
            partition,
            blocks: 0,
            height: 0,
            header: Digest::default(),
            state_digest: Digest::default(),
            transactions: 0,
            valid: 0,
        };
        Ok(Replay {
            rules: Rules {
                checker: Arc::clone(checker),
                partition,
                genesis,
            },
            state,
            position,
            found,
        })
    }

    async fn run(
        mut self,
        log: &dyn Log,
        topics: &Topics,
        end: u64,
        progress: &mut impl FnMut(Progress),
    ) -> Result<VerifiedChain, VerifyError> {
        let partition = self.rules.partition;
        let error = |cause| VerifyError::Log { partition, cause };
        let mut reader = log.read(&topics.of(partition), 0).await.map_err(error)?;
        while self.found.blocks < end {
            let mut records = reader.next(Duration::from_secs(1)).await.map_err(error)?;
            records.retain(|record| record.offset < end);
            if records.is_empty() {
                continue;
            }
            let work = tokio::task::spawn_blocking(move || self.judge(records));
            self = work.await.map_err(|_| VerifyError::Defect { partition })??;
            progress(Progress {
                partition,
                blocks: self.found.blocks,
                end,
            });
        }
        Ok(self.found)
    }

    fn judge(mut self, records: Vec<Record>) -> Result<Self, StateError> {
        let (checker, partition) = (&self.rules.checker, self.rules.partition);
        for records in records.chunks(64) {
            let blocks = records
                .par_iter()
                .map(|record| prepare(checker, partition, &record.value))
                .collect();
            let changes = commit_blocks(&self.rules, &self.state, &mut self.position, blocks)?;
            changes.iter().for_each(|block| self.found.count(block));
        }
        Ok(self)
    }
}

impl VerifiedChain {
    fn count(&mut self, block: &Changes) {
        self.blocks += 1;
        self.height = block.header.height;
        self.header = block.hash;
        self.state_digest = block.header.state_digest;
        self.transactions += block.leaves.len() as u64;
        self.valid += block.leaves.iter().filter(|leaf| leaf.code == Code::Valid).count() as u64;
    }
}
