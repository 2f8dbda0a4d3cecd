//! The control chain as everybody computes it: from raw control records to headers and config.
//!
//! ```text
//! raw record ──push──▶ Pushed { header, hash, content }
//! ```
//! Orderers cite its headers in markers, peers attest them, both by the one rule here:
//! * every record has a header; one that says nothing valid is an empty block and changes nothing;
//! * the genesis is the first record whose genesis body hashes to the channel id, and all before it
//!   are empty blocks;
//! * configs with a sequence above 0 are recognised and refused: a no-op that is counted;
//! * a module counts when the config in force names its digest or admins vouch for it, once.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    CONTROL,
    block::{is_genesis_marker, open_control},
    canonical,
    genesis::Channel,
    hash::{Digest, sha256},
    header::Header,
    ledger::{Config, Marker, control_record},
    limits::CONTROL_RECORD_BYTES_MAX,
    merkle,
};

/// What a record changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The channel starts here.
    Genesis,
    /// A contract's component, for the first time.
    Module { digest: Digest, component: Vec<u8> },
    /// A config update: recognised, not supported yet, a no-op.
    ConfigRefused { sequence: u64 },
    /// Nothing, and why: a repetition, or a record with a fault.
    Nothing(&'static str),
}

/// One record of the control chain as everybody sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    pub header: Header,
    /// `header.hash()`
    pub hash: Digest,
    pub content: Content,
}

/// Where the genesis stands in the control chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Genesis {
    pub height: u64,
    pub header: Digest,
}

impl Genesis {
    /// What starts a data partition.
    pub fn marker(&self) -> Marker {
        Marker {
            sequence: 0,
            control_height: self.height,
            control_header: self.header.to_vec(),
            attestations: Vec::new(),
        }
    }

    /// Whether `marker` starts a data partition of this channel; any other is a no-op.
    pub fn is_cited_by(&self, marker: &Marker) -> bool {
        is_genesis_marker(marker) && marker.control_height == self.height && marker.control_header == self.header
    }
}

/// The control chain read so far. Start at height 0 and push every record, in order.
#[derive(Clone, Debug)]
pub struct ControlChain {
    channel: Arc<Channel>,
    /// Records so far, and the next one's height.
    records: u64,
    /// The newest header; the channel id before any.
    tip: Digest,
    genesis: Option<Genesis>,
    modules: BTreeSet<Digest>,
    configs_refused: u64,
}

impl ControlChain {
    pub fn new(channel: Arc<Channel>) -> Self {
        let tip = channel.id;
        ControlChain {
            channel,
            records: 0,
            tip,
            genesis: None,
            modules: BTreeSet::new(),
            configs_refused: 0,
        }
    }

    /// The record at height [`ControlChain::records`]. Never fails.
    pub fn push(&mut self, raw: &[u8]) -> Pushed {
        let content = self.judge(raw);
        let header = Header {
            channel: self.channel.id,
            epoch: 0,
            partition: CONTROL,
            height: self.records,
            previous: self.tip,
            record_hash: sha256(raw),
            root: merkle::root(&[]),
            state_digest: self.channel.config_digest,
            rules_version: self.channel.config.rules_version,
        };
        let hash = header.hash();
        match &content {
            Content::Genesis => {
                self.genesis = Some(Genesis {
                    height: self.records,
                    header: hash,
                })
            }
            Content::Module { digest, .. } => {
                self.modules.insert(*digest);
            }
            Content::ConfigRefused { .. } => self.configs_refused += 1,
            Content::Nothing(_) => {}
        }
        self.tip = hash;
        self.records += 1;
        Pushed { header, hash, content }
    }

    fn judge(&self, raw: &[u8]) -> Content {
        if raw.len() > CONTROL_RECORD_BYTES_MAX {
            return Content::Nothing("the record is too large");
        }
        let Some(record) = open_control(raw) else {
            return Content::Nothing("the record is no control record");
        };
        match (record, self.genesis) {
            (control_record::Content::Genesis(genesis), None) if sha256(&genesis.body) == self.channel.id => {
                Content::Genesis
            }
            (control_record::Content::Genesis(_), None) => Content::Nothing("the genesis of another channel"),
            (control_record::Content::Genesis(_), Some(_)) => Content::Nothing("the channel has its genesis already"),
            (_, None) => Content::Nothing("stands before the genesis"),
            (control_record::Content::Config(update), Some(_)) => match canonical::decode::<Config>(&update.config) {
                Ok(config) if config.sequence > 0 => Content::ConfigRefused {
                    sequence: config.sequence,
                },
                Ok(_) => Content::Nothing("a config of sequence 0 stands in the genesis only"),
                Err(_) => Content::Nothing("the config is not canonical"),
            },
            (control_record::Content::Module(module), Some(_)) => match self.channel.check_module(&module) {
                Ok(digest) if self.modules.contains(&digest) => Content::Nothing("the module is known already"),
                Ok(digest) => Content::Module {
                    digest,
                    component: module.component,
                },
                Err(_) => Content::Nothing("no contract names the module and no admins vouch for it"),
            },
        }
    }

    pub fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    pub fn records(&self) -> u64 {
        self.records
    }

    /// The newest header; the channel id before any.
    pub fn tip(&self) -> Digest {
        self.tip
    }

    /// `None` until the genesis was read.
    pub fn genesis(&self) -> Option<Genesis> {
        self.genesis
    }

    pub fn has_module(&self, digest: &Digest) -> bool {
        self.modules.contains(digest)
    }

    pub fn configs_refused(&self) -> u64 {
        self.configs_refused
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::{
        ledger::{ConfigUpdate, ControlRecord, Module},
        testing::TestNet,
    };

    fn record(content: control_record::Content) -> Vec<u8> {
        ControlRecord { content: Some(content) }.encode_to_vec()
    }

    #[test]
    fn starts_with_the_first_record_that_hashes_to_the_channel() {
        let net = TestNet::new(&["HospitalA", "HospitalB"], 2);
        let other = TestNet::seeded(9, &["HospitalA", "HospitalB"], 2);
        let mut chain = ControlChain::new(net.channel.clone());
        let early = chain.push(&net.module_record(0));
        assert_eq!(early.header.previous, net.channel.id);
        assert!(
            matches!(early.content, Content::Nothing(_)),
            "a module before the genesis"
        );
        assert!(matches!(
            chain.push(&other.genesis_record()).content,
            Content::Nothing(_)
        ));
        assert!(matches!(chain.push(b"garbage").content, Content::Nothing(_)));
        assert!(matches!(chain.push(b"").content, Content::Nothing(_)));
        assert_eq!(chain.genesis(), None);
        let genesis = chain.push(&net.genesis_record());
        assert_eq!(genesis.content, Content::Genesis);
        assert_eq!(
            chain.genesis(),
            Some(Genesis {
                height: 4,
                header: genesis.hash
            })
        );
        assert!(
            matches!(chain.push(&net.genesis_record()).content, Content::Nothing(_)),
            "once"
        );
        assert_eq!(chain.records(), 6);
    }

    #[test]
    fn headers_are_a_chain_over_every_byte() {
        let net = TestNet::new(&["HospitalA"], 1);
        let (mut one, mut other) = (
            ControlChain::new(net.channel.clone()),
            ControlChain::new(net.channel.clone()),
        );
        let first = one.push(b"a");
        assert_ne!(first.hash, other.push(b"b").hash);
        let second = one.push(&net.genesis_record());
        assert_eq!(second.header.previous, first.hash);
        assert_eq!(second.hash, one.tip());
        assert_ne!(other.push(&net.genesis_record()).hash, second.hash);
    }

    #[test]
    fn modules_count_once_and_only_if_config_or_admins_say_so() {
        let net = TestNet::new(&["HospitalA", "HospitalB"], 1);
        let mut chain = ControlChain::new(net.channel.clone());
        chain.push(&net.genesis_record());
        let pushed = chain.push(&net.module_record(0));
        let component = net.contracts[0].component.clone();
        assert_eq!(
            pushed.content,
            Content::Module {
                digest: sha256(&component),
                component
            }
        );
        assert!(
            matches!(chain.push(&net.module_record(0)).content, Content::Nothing(_)),
            "known"
        );
        let stranger = Module {
            component: b"stranger".to_vec(),
            ..Module::default()
        };
        let unsigned = chain.push(&record(control_record::Content::Module(stranger)));
        assert!(matches!(unsigned.content, Content::Nothing(_)));
        let signed = chain.push(&net.signed_module_record(b"new code"));
        assert!(matches!(signed.content, Content::Module { .. }));
        assert!(chain.has_module(&sha256(b"new code")));
    }

    #[test]
    fn configs_beyond_the_genesis_are_counted_no_ops() {
        let net = TestNet::new(&["HospitalA"], 1);
        let mut chain = ControlChain::new(net.channel.clone());
        chain.push(&net.genesis_record());
        for (sequence, refused) in [(0, 0), (1, 1), (7, 2)] {
            let config = Config {
                sequence,
                ..net.channel.config.clone()
            };
            let update = ConfigUpdate {
                config: config.encode_to_vec(),
                ..ConfigUpdate::default()
            };
            let pushed = chain.push(&record(control_record::Content::Config(update)));
            assert_eq!(matches!(pushed.content, Content::ConfigRefused { .. }), sequence > 0);
            assert_eq!(chain.configs_refused(), refused);
            assert_eq!(pushed.header.state_digest, net.channel.config_digest);
        }
    }

    #[test]
    fn markers_cite_the_genesis() {
        let net = TestNet::new(&["HospitalA"], 1);
        let mut chain = ControlChain::new(net.channel.clone());
        chain.push(b"garbage");
        chain.push(&net.genesis_record());
        let genesis = chain.genesis().expect("pushed");
        assert!(genesis.is_cited_by(&genesis.marker()));
        assert!(!genesis.is_cited_by(&Marker {
            control_height: 0,
            ..genesis.marker()
        }));
        assert!(!genesis.is_cited_by(&Marker {
            sequence: 1,
            ..genesis.marker()
        }));
        assert!(!genesis.is_cited_by(&Marker {
            control_header: vec![0; 32],
            ..genesis.marker()
        }));
        assert!(!genesis.is_cited_by(&Marker {
            attestations: vec![vec![]],
            ..genesis.marker()
        }));
    }
}
