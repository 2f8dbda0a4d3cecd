//! What organisations say of headers: the newest of each, the height that a quorum vouches for,
//! and whether a quorum contradicts this peer.
//!
//! An attestation vouches for its height and all before it, but only if its header is the one here.
//! Attestations of heights not reached yet are kept, bounded, until they are. A quorum of
//! organisations whose newest word contradicts the chain here stops it; fewer are only reported.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use protocol::{
    CONTROL, Digest, canonical,
    hash::digest,
    identity::Certificate,
    ledger::{Attestation, AttestationContent},
    limits::HEIGHTS_IN_TIME_MAX,
    signature::Purpose,
    transaction::Checker,
};
use service::telemetry::Seldom;
use tokio::sync::watch;

use crate::{
    committer::{
        chain::{Chain, Stop},
        control::ControlView,
    },
    metrics::ledger::{self as metrics, Awaited},
};

/// Attestations of one organisation for heights that this peer has not reached.
const EARLY_MAX: usize = 16;

pub struct Attestations {
    checker: Arc<Checker>,
    quorum: usize,
    /// The config's attesters by certificate hash: no other certificate counts.
    attesters: HashMap<Digest, Certificate>,
    chains: Vec<Arc<Chain>>,
    control: Arc<ControlView>,
    /// By partition, the control chain last.
    seen: Vec<Seen>,
    said: Seldom,
}

struct Seen {
    organisations: Mutex<BTreeMap<String, Words>>,
    attested: watch::Sender<Option<u64>>,
    awaited: Mutex<Awaited>,
}

/// What one organisation said of one chain.
#[derive(Default)]
struct Words {
    /// Newest attestation whose header is the one here.
    agrees: Option<(u64, Attestation)>,
    /// Newest attestation whose header is not.
    contradicts: Option<(u64, Attestation)>,
    /// Heights not reached yet.
    early: BTreeMap<u64, (Digest, Attestation)>,
}

impl Words {
    fn judged(&self) -> Option<u64> {
        let judged = self.agrees.iter().chain(&self.contradicts);
        judged.map(|(height, _)| *height).max()
    }

    fn newest(&self) -> Option<u64> {
        self.judged().max(self.early.keys().next_back().copied())
    }

    /// Whether its newest judged word is against the chain here.
    fn is_against(&self) -> bool {
        let height = |word: &Option<(u64, Attestation)>| word.as_ref().map(|(height, _)| *height);
        self.contradicts.is_some() && height(&self.contradicts) > height(&self.agrees)
    }

    /// Keeps the lowest, which are reached first, and the newest.
    fn put_early(&mut self, height: u64, header: Digest, attestation: Attestation) {
        self.early.insert(height, (header, attestation));
        if self.early.len() > EARLY_MAX {
            let second_newest = self.early.keys().nth_back(1).copied();
            second_newest.map(|height| self.early.remove(&height));
        }
    }
}

/// A verified attestation.
struct Word<'a> {
    organisation: &'a str,
    partition: u32,
    height: u64,
    header: Digest,
}

impl Attestations {
    pub fn new(checker: Arc<Checker>, chains: Vec<Arc<Chain>>, control: Arc<ControlView>) -> Arc<Self> {
        let channel = &checker.channel;
        let attesters = channel.organisations().filter_map(|name| channel.attester(name));
        let attesters = attesters
            .map(|certificate| (certificate.hash, certificate.clone()))
            .collect();
        let seen = || Seen {
            organisations: Mutex::default(),
            attested: watch::Sender::new(None),
            awaited: Mutex::default(),
        };
        Arc::new(Attestations {
            quorum: channel.quorum(),
            attesters,
            seen: (0..=chains.len()).map(|_| seen()).collect(),
            said: Seldom::default(),
            chains,
            control,
            checker,
        })
    }

    fn seen(&self, partition: u32) -> Option<&Seen> {
        match partition {
            CONTROL => self.seen.last(),
            _ if (partition as usize) < self.chains.len() => self.seen.get(partition as usize),
            _ => None,
        }
    }

    /// The newest attested height.
    pub fn watch(&self, partition: u32) -> Option<watch::Receiver<Option<u64>>> {
        Some(self.seen(partition)?.attested.subscribe())
    }

    /// Takes what is valid and new.
    pub fn offer(&self, offered: Vec<Attestation>) {
        for attestation in offered {
            let Some((content, header)) = decode(&attestation) else {
                metrics::attestation_refused("malformed");
                continue;
            };
            if !self.may_be(&content) {
                metrics::attestation_refused("elsewhere");
                continue;
            }
            let Some(seen) = self.seen(content.partition) else {
                continue;
            };
            let Some(word) = self.verify(&attestation, &content, header, seen) else {
                continue;
            };
            let partition = word.partition;
            seen.take(word, attestation);
            self.judge(partition, seen);
        }
    }

    /// Of this channel, and not so far ahead as no honest organisation is: kept, it would be the newest word for ever.
    fn may_be(&self, content: &AttestationContent) -> bool {
        let tip = self.tip(content.partition).unwrap_or_default();
        content.channel == self.checker.channel.id
            && content.epoch == 0
            && content.height <= tip.saturating_add(HEIGHTS_IN_TIME_MAX)
    }

    /// `None`: old (unless it may fill a gap below an early one), or not by an attester.
    fn verify(
        &self,
        attestation: &Attestation,
        content: &AttestationContent,
        header: Digest,
        seen: &Seen,
    ) -> Option<Word<'_>> {
        let signature = attestation.signature.as_ref()?;
        let Some(attester) = digest(&signature.certificate).and_then(|hash| self.attesters.get(&hash)) else {
            metrics::attestation_refused("stranger");
            return None;
        };
        let is_new = seen.organisations.lock().get(&attester.msp_id).is_none_or(|words| {
            words.judged().is_none_or(|judged| content.height > judged) && !words.early.contains_key(&content.height)
        });
        if !is_new {
            return None;
        }
        let channel = &self.checker.channel.id;
        let verifier = &self.checker.verifier;
        verifier
            .verify(
                &attester.public_key,
                Purpose::Attestation,
                channel,
                &attestation.content,
                signature,
            )
            .inspect_err(|error| {
                metrics::attestation_refused("signature");
                tracing::debug!(organisation = attester.msp_id, %error, "not an attestation");
            })
            .ok()?;
        Some(Word {
            organisation: &attester.msp_id,
            partition: content.partition,
            height: content.height,
            header,
        })
    }

    /// The chain moved: some early attestations can be judged now.
    pub fn advanced(&self, partition: u32) {
        if let Some(seen) = self.seen(partition) {
            if let Some(height) = self.tip(partition) {
                seen.awaited.lock().committed(height);
            }
            self.judge(partition, seen);
        }
    }

    fn tip(&self, partition: u32) -> Option<u64> {
        match partition {
            CONTROL => self.control.tip().map(|tip| tip.height),
            _ => self.chains.get(partition as usize)?.tip().map(|tip| tip.height),
        }
    }

    /// This peer's own.
    pub(super) fn header(&self, partition: u32, height: u64) -> Option<Digest> {
        match partition {
            CONTROL => self.control.header(height),
            // A disk error stops the partition at its next commit.
            _ => self.chains.get(partition as usize)?.header(height).ok()?,
        }
    }

    fn judge(&self, partition: u32, seen: &Seen) {
        let Some(tip) = self.tip(partition) else { return };
        let mut organisations = seen.organisations.lock();
        for (organisation, words) in organisations.iter_mut() {
            while let Some((&height, _)) = words.early.first_key_value().filter(|(height, _)| **height <= tip) {
                let Some((header, attestation)) = words.early.remove(&height) else {
                    break;
                };
                let Some(mine) = self.header(partition, height) else {
                    continue;
                };
                if mine == header {
                    words.agrees = Some((height, attestation));
                } else {
                    self.report(partition, height, organisation);
                    words.contradicts = Some((height, attestation));
                }
            }
        }
        self.count(partition, seen, &organisations);
    }

    /// Counted each time, said now and then.
    fn report(&self, partition: u32, height: u64, organisation: &str) {
        metrics::contradicted(organisation);
        if self.said.may(organisation) {
            tracing::warn!(
                partition,
                height,
                organisation,
                "attests another header than the one here"
            );
        }
    }

    fn count(&self, partition: u32, seen: &Seen, organisations: &BTreeMap<String, Words>) {
        let against: Vec<u64> = organisations
            .values()
            .filter(|words| words.is_against())
            .filter_map(|words| words.contradicts.as_ref().map(|(height, _)| *height))
            .collect();
        if against.len() >= self.quorum {
            let height = against.iter().min().copied().unwrap_or_default();
            self.stop(
                partition,
                Stop::Contradicted {
                    height,
                    organisations: against.len(),
                },
            );
            return;
        }
        let mut heights: Vec<u64> = organisations
            .values()
            .filter_map(|words| words.agrees.as_ref().map(|(height, _)| *height))
            .collect();
        heights.sort_unstable_by(|a, b| b.cmp(a));
        let Some(&attested) = heights.get(self.quorum - 1) else {
            return;
        };
        let moved = seen.attested.send_if_modified(|known| {
            let moves = known.is_none_or(|known| attested > known);
            if moves {
                *known = Some(attested);
            }
            moves
        });
        if moved {
            seen.awaited.lock().attested(partition, attested);
        }
    }

    fn stop(&self, partition: u32, why: Stop) {
        match partition {
            CONTROL => self.control.stop(why),
            _ => {
                if let Some(chain) = self.chains.get(partition as usize) {
                    chain.stop(why);
                }
            }
        }
    }

    /// The newest height that an organisation attested for a chain, whatever the header, and
    /// whether that is known to be another header than the one here.
    pub fn newest_of(&self, partition: u32, organisation: &str) -> Option<(u64, bool)> {
        let organisations = self.seen(partition)?.organisations.lock();
        let words = organisations.get(organisation)?;
        Some((words.newest()?, words.is_against()))
    }

    /// Organisations whose newest word is against the chain here, for health.
    pub fn against(&self) -> Vec<(u32, String)> {
        let partitions = (0..self.chains.len() as u32).chain([CONTROL]);
        let mut against = Vec::new();
        for (partition, seen) in partitions.zip(&self.seen) {
            let organisations = seen.organisations.lock();
            let names = organisations
                .iter()
                .filter(|(_, words)| words.is_against())
                .map(|(name, _)| name.clone());
            against.extend(names.map(|name| (partition, name)));
        }
        against
    }

    /// The newest of every organisation and chain.
    pub fn newest(&self) -> Vec<Attestation> {
        let mut newest = Vec::new();
        for seen in &self.seen {
            for words in seen.organisations.lock().values() {
                let early = words
                    .early
                    .last_key_value()
                    .map(|(height, (_, attestation))| (*height, attestation));
                let judged = words
                    .agrees
                    .iter()
                    .chain(&words.contradicts)
                    .map(|(height, word)| (*height, word));
                newest.extend(
                    judged
                        .chain(early)
                        .max_by_key(|(height, _)| *height)
                        .map(|(_, word)| word.clone()),
                );
            }
        }
        newest
    }
}

fn decode(attestation: &Attestation) -> Option<(AttestationContent, Digest)> {
    let content: AttestationContent = canonical::decode(&attestation.content).ok()?;
    let header = digest(&content.header)?;
    Some((content, header))
}

impl Seen {
    fn take(&self, word: Word<'_>, attestation: Attestation) {
        let mut organisations = self.organisations.lock();
        let words = organisations.entry(word.organisation.to_owned()).or_default();
        // Offers are verified side by side: a newer word may have been judged meanwhile.
        if words.judged().is_none_or(|judged| word.height > judged) {
            words.put_early(word.height, word.header, attestation);
            if let Some(newest) = words.newest() {
                metrics::attested_by(word.organisation, word.partition, newest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_word_that_was_judged_meanwhile_stays() {
        let seen = Seen {
            organisations: Mutex::default(),
            attested: watch::Sender::new(None),
            awaited: Mutex::default(),
        };
        let word = |height| Word {
            organisation: "HospitalA",
            partition: 0,
            height,
            header: [0; 32],
        };
        let judged = Words {
            agrees: Some((9, Attestation::default())),
            ..Words::default()
        };
        seen.organisations.lock().insert("HospitalA".to_owned(), judged);
        for old in [5, 9] {
            seen.take(word(old), Attestation::default());
        }
        assert!(seen.organisations.lock()["HospitalA"].early.is_empty());
        seen.take(word(10), Attestation::default());
        assert_eq!(seen.organisations.lock()["HospitalA"].newest(), Some(10));
    }
}
