//! Signs this organisation's headers: only above the guard, only what extends it, and only after
//! the guard is on disk.
//!
//! One sync per [`INTERVAL`] at most covers the newest heights of all chains, one signature too.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use ledger_log::{AppendError, Log, TopicPartition};
use prost::Message;
use protocol::{
    CONTROL, Digest,
    ledger::{Attestation, AttestationContent, AttestationList},
    limits::ATTESTATIONS_PER_RECORD_MAX,
    signature::{Purpose, SigningKey, sign},
};
use service::health::Check;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::guard::{self, Guard, GuardError, Promise};
use crate::{
    ledger::{Ledger, Tip},
    metrics::{self, attester::GUARD_SECONDS},
};

/// Between two syncs of the guard.
pub const INTERVAL: Duration = Duration::from_millis(100);
/// What could not be appended is signed and kept; the newest of it is offered again so often.
const APPEND_AGAIN: Duration = Duration::from_millis(500);

/// The attester's key and its guard.
pub struct AttesterKey {
    /// Hash of the certificate.
    pub certificate: Digest,
    pub msp_id: String,
    pub key: SigningKey,
    pub guard: PathBuf,
}

pub struct Attester {
    pub key: AttesterKey,
    pub ledger: Arc<Ledger>,
    pub log: Arc<dyn Log>,
    pub topic: TopicPartition,
    pub check: Check,
}

/// Why this organisation is silent.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    #[error("the guard: {0}")]
    Guard(#[from] GuardError),
    #[error("the identity is not the attester that the config names for {0}")]
    NotTheAttester(String),
    #[error("the signature: {0}")]
    Signature(#[from] protocol::signature::SignatureError),
}

impl Attester {
    pub async fn run(self, token: CancellationToken) {
        let check = self.check.clone();
        tokio::select! {
            silence = self.attest() => {
                let Err(silence) = silence else { return };
                tracing::error!(reason = %silence, "this organisation attests nothing any more");
                check.degraded(format!("attests nothing: {silence}"));
            }
            () = token.cancelled() => {}
        }
    }

    async fn attest(self) -> Result<(), Silence> {
        let channel = &self.ledger.checker.channel;
        let named = channel
            .attester(&self.key.msp_id)
            .is_some_and(|named| named.hash == self.key.certificate);
        if !named {
            return Err(Silence::NotTheAttester(self.key.msp_id.clone()));
        }
        let owner = guard::Owner {
            channel: channel.id,
            attester: self.key.certificate,
            partitions: channel.partitions(),
        };
        let mut guard = Guard::open(&self.key.guard, owner)?;
        self.check.ok();
        let mut tips = self.tips();
        let mut before = guard.promises();
        let mut unsent: Vec<Attestation> = Vec::new();
        loop {
            let started = Instant::now();
            let newer = self.newest(&guard);
            let mut promises = self.due(&mut before, &newer);
            if promises.is_empty() && newer.is_empty() && unsent.is_empty() {
                changed(&mut tips).await;
                continue;
            }
            if !newer.is_empty() {
                let began = Instant::now();
                guard = promise(guard, newer.clone()).await?;
                GUARD_SECONDS.observe(began.elapsed().as_secs_f64());
                promises.extend(newer);
            }
            if !promises.is_empty() {
                let signed = self.sign(&promises)?;
                for (partition, (height, _)) in &promises {
                    metrics::ledger::signed(*partition, *height);
                }
                // Own word counts here even while the log is away.
                self.ledger.offer_attestations(signed.clone());
                unsent = newest_of_each(unsent, signed);
            }
            unsent = self.append(unsent).await;
            let pause = if unsent.is_empty() { INTERVAL } else { APPEND_AGAIN };
            tokio::time::sleep_until(started + pause).await;
        }
    }

    fn chains(&self) -> impl Iterator<Item = u32> + use<> {
        (0..self.ledger.checker.channel.partitions()).chain([CONTROL])
    }

    fn tips(&self) -> Vec<watch::Receiver<Option<Tip>>> {
        let data = self.ledger.chains.iter().map(|chain| chain.watch_tip());
        data.chain([self.ledger.control.watch_tip()]).collect()
    }

    /// The newest header of every chain that may be signed.
    fn newest(&self, guard: &Guard) -> Vec<(u32, Promise)> {
        let newest = self.chains().filter_map(|partition| {
            let tip = self.ledger.tip(partition)?;
            self.may_sign(guard, partition, tip)
                .then_some((partition, (tip.height, tip.header)))
        });
        newest.take(ATTESTATIONS_PER_RECORD_MAX).collect()
    }

    /// Of what was promised `before` this start and maybe never said: what the chain here has come to. It is said
    /// once more, which makes it no second word; a chain that grows no further would else stay without one.
    fn due(&self, before: &mut Vec<(u32, Promise)>, newer: &[(u32, Promise)]) -> Vec<(u32, Promise)> {
        let mut due = Vec::new();
        before.retain(|promised| {
            let (partition, (height, header)) = *promised;
            if newer.iter().any(|(chain, _)| *chain == partition) {
                return false;
            }
            let here = self.ledger.attestations.header(partition, height);
            if here == Some(header) {
                due.push(*promised);
            }
            here.is_none()
        });
        due
    }

    fn may_sign(&self, guard: &Guard, partition: u32, tip: Tip) -> bool {
        if let Some((height, header)) = guard.promise(partition) {
            if tip.height <= height {
                return false;
            }
            if self.ledger.attestations.header(partition, height) != Some(header) {
                tracing::error!(
                    partition,
                    height,
                    "the chain here does not extend what was attested; silent"
                );
                self.check
                    .degraded(format!("chain {partition} does not extend what was attested"));
                return false;
            }
        }
        // The guard is what is promised; what this key is known to have signed binds all the same.
        match self.ledger.attestations.newest_of(partition, &self.key.msp_id) {
            Some((height, against)) => tip.height > height && !against,
            None => true,
        }
    }

    fn sign(&self, promises: &[(u32, Promise)]) -> Result<Vec<Attestation>, Silence> {
        let channel = self.ledger.checker.channel.id;
        let contents: Vec<Vec<u8>> = promises
            .iter()
            .map(|(partition, (height, header))| {
                AttestationContent {
                    channel: channel.to_vec(),
                    epoch: 0,
                    partition: *partition,
                    height: *height,
                    header: header.to_vec(),
                }
                .encode_to_vec()
            })
            .collect();
        let signatures = sign(
            &self.key.key,
            &self.key.certificate,
            Purpose::Attestation,
            &channel,
            &contents,
        )?;
        let pairs = contents.into_iter().zip(signatures);
        Ok(pairs
            .map(|(content, signature)| Attestation {
                content,
                signature: Some(signature),
            })
            .collect())
    }

    /// Returns what is to be appended again.
    async fn append(&self, attestations: Vec<Attestation>) -> Vec<Attestation> {
        let list = AttestationList { attestations };
        let appended = self.log.append(&self.topic, Bytes::from(list.encode_to_vec())).await;
        match appended {
            Ok(_) => Vec::new(),
            Err(AppendError::TooLarge { bytes, limit }) => {
                tracing::error!(bytes, limit, "attestations do not fit the topic's records");
                Vec::new()
            }
            Err(failure) => {
                tracing::debug!(%failure, "attestations wait for the log");
                list.attestations
            }
        }
    }
}

/// Waits until any chain grew.
async fn changed(tips: &mut [watch::Receiver<Option<Tip>>]) {
    let changes = tips.iter_mut().map(|tip| Box::pin(tip.changed()));
    let _ = futures::future::select_all(changes).await;
}

/// The sync blocks a thread, not the runtime.
async fn promise(mut guard: Guard, promises: Vec<(u32, Promise)>) -> Result<Guard, GuardError> {
    let path = guard.path().to_owned();
    let work = tokio::task::spawn_blocking(move || guard.promise_all(&promises).map(|()| guard));
    work.await.unwrap_or_else(|_| Err(GuardError::Damaged(path)))
}

/// Of attestations that wait, an older one of the same chain says nothing more.
fn newest_of_each(old: Vec<Attestation>, new: Vec<Attestation>) -> Vec<Attestation> {
    let chain = |attestation: &Attestation| {
        AttestationContent::decode(&attestation.content[..])
            .map(|content| content.partition)
            .ok()
    };
    let replaced: Vec<_> = new.iter().map(chain).collect();
    old.into_iter()
        .filter(|attestation| !replaced.contains(&chain(attestation)))
        .chain(new)
        .collect()
}
