//! Clients with a gateway's patience: they repeat what is unknown under the same tx_id, and have
//! endorsed again what lost a conflict.
//!
//! Every intent adds one to a subject's counter: it reads the value at a peer's snapshot and
//! writes the next. So the counter tells whether an update was lost or doubled.

use std::collections::HashMap;

use protocol::{
    Digest,
    code::Code,
    ledger,
    testing::{TestNet, TestTx},
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{
    Plan,
    orderer::{Orderer, Receipt},
    peer::{Judged, Peer},
};

/// How many steps a client waits for a judgement before it repeats itself.
const PATIENCE_STEPS: u32 = 60;
/// Intents under way at once.
const CONCURRENT_MAX: usize = 16;
/// Heights ahead of the snapshot: few enough that some intents do pass their bound.
const BOUND: u64 = 300;

struct Intent {
    subject: String,
    tx: TestTx,
    waited: u32,
    /// A VALID judgement was seen, or the bound has passed without one.
    ended: bool,
    conflict: bool,
}

pub struct Clients {
    left: usize,
    intents: HashMap<Digest, Intent>,
    /// In order of creation: a hash map's order is no one's seed.
    order: Vec<Digest>,
}

impl Clients {
    pub fn new(intents: usize) -> Clients {
        Clients {
            left: intents,
            intents: HashMap::new(),
            order: Vec::new(),
        }
    }

    pub fn all_ended(&self) -> bool {
        self.left == 0 && self.intents.values().all(|intent| intent.ended)
    }

    pub fn acknowledged(&mut self, receipt: &Receipt) {
        if let Some(intent) = self.intents.get_mut(&receipt.tx_id) {
            intent.waited = 0;
        }
    }

    pub fn judged(&mut self, judged: &Judged) {
        for (tx_id, code) in &judged.transactions {
            let Some(intent) = self.intents.get_mut(tx_id) else {
                continue;
            };
            match code {
                Code::Valid => intent.ended = true,
                code if code.is_conflict() || *code == Code::NotStarted => intent.conflict = true,
                _ => {}
            }
        }
        for intent in self.intents.values_mut() {
            let own = intent.tx.partition == judged.partition;
            intent.ended |= own && judged.height > intent.tx.proposal.height_bound;
        }
    }

    pub fn step(
        &mut self,
        random: &mut ChaCha8Rng,
        plan: &Plan,
        net: &TestNet,
        orderers: &mut [Orderer],
        peers: &[Peer],
    ) {
        let running = self.intents.values().filter(|intent| !intent.ended).count();
        if self.left > 0 && running < CONCURRENT_MAX && random.random_bool(0.7) {
            let subject = format!("subject-{}", random.random_range(0..plan.subjects));
            let peer = &peers[random.random_range(0..peers.len())];
            if let Some(tx) = endorse(net, peer, &subject, None) {
                self.left -= 1;
                self.order.push(tx.tx_id);
                send(random, plan, orderers, &tx);
                self.intents.insert(
                    tx.tx_id,
                    Intent {
                        subject,
                        tx,
                        waited: 0,
                        ended: false,
                        conflict: false,
                    },
                );
            }
        }
        for tx_id in &self.order {
            let Some(intent) = self.intents.get_mut(tx_id).filter(|intent| !intent.ended) else {
                continue;
            };
            intent.waited += 1;
            if intent.conflict {
                let peer = &peers[random.random_range(0..peers.len())];
                let Some(tx) = endorse(net, peer, &intent.subject, Some(&intent.tx)) else {
                    continue;
                };
                intent.tx = tx;
            } else if intent.waited < PATIENCE_STEPS {
                continue;
            }
            (intent.waited, intent.conflict) = (0, false);
            send(random, plan, orderers, &intent.tx);
        }
    }
}

/// To any orderer; messages get lost, and sometimes arrive twice, at two of them.
fn send(random: &mut ChaCha8Rng, plan: &Plan, orderers: &mut [Orderer], tx: &TestTx) {
    let copies = if random.random_bool(plan.lose_message) { 2 } else { 1 };
    for _ in 0..copies {
        let orderer = random.random_range(0..orderers.len());
        if !random.random_bool(plan.lose_message) {
            orderers[orderer].receive(tx);
        }
    }
}

/// Counts one up on what this peer has now; `None` before its first block.
fn endorse(net: &TestNet, peer: &Peer, subject: &str, again: Option<&TestTx>) -> Option<TestTx> {
    let key = net.secret.partition_key("records", subject);
    let partition = protocol::keys::partition_of(&key, net.channel.partitions());
    let (height, header) = peer.tip(partition)?;
    let full = protocol::keys::state_key("records", &key, b"count");
    let entry = peer.state(partition).entry(&full).expect("a readable disk");
    let (version, count) = match entry {
        Some(entry) => (
            Some(ledger::Version::from(entry.version)),
            count(peer, partition, &full),
        ),
        None => (None, 0),
    };
    let tx = net
        .tx(subject)
        .snapshot(height, &header)
        .height_bound(height + BOUND)
        .read(b"count", version)
        .write(b"count", &(count + 1).to_be_bytes());
    Some(match again {
        Some(before) => tx.again(before).build(),
        None => tx.build(),
    })
}

/// A counter's value in a peer's state; 0 where there is none.
pub fn count(peer: &Peer, partition: u32, key: &[u8]) -> u64 {
    let value = peer.value(partition, key);
    value.map_or(0, |value| u64::from_be_bytes(value.try_into().expect("a counter")))
}
