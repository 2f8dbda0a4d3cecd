//! What is promised, and the witness who saw everything.

use std::collections::BTreeMap;

use ledger_log::memory::Control;
use protocol::{
    Digest,
    code::Code,
    keys::{partition_of, state_key},
    testing::TestNet,
};

use super::{
    PARTITIONS, Plan,
    client::count,
    fold,
    orderer::Receipt,
    peer::{Judged, Peer},
    topic,
};

/// What a played seed came to. Equal seeds give equal outcomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Over everything that happened, in order.
    pub history: Digest,
    pub blocks: u64,
    pub valid: u64,
    pub conflicts: u64,
    pub acknowledged: u64,
    pub duplicates: u64,
}

#[derive(Default)]
pub struct Witness {
    receipts: Vec<Receipt>,
    /// First judgement of every block, by any peer.
    blocks: BTreeMap<(u32, u64), Judged>,
    history: Digest,
}

impl Witness {
    pub fn acknowledged(&mut self, receipt: &Receipt) {
        fold(&mut self.history, "receipt", &receipt.tx_id);
        fold(&mut self.history, "height", &receipt.height.to_be_bytes());
        self.receipts.push(receipt.clone());
    }

    /// Whoever judges a block, and how often after crashes: one height, one header.
    pub fn judged(&mut self, seed: u64, judged: &Judged) {
        fold(&mut self.history, "header", &judged.header);
        let place = (judged.partition, judged.height);
        let first = self.blocks.entry(place).or_insert_with(|| judged.clone());
        assert_eq!(first.header, judged.header, "seed {seed}: two headers at {place:?}");
    }

    pub fn judge(&self, plan: &Plan, net: &TestNet, control: &Control, peers: &[Peer]) -> Outcome {
        let seed = plan.seed;
        for partition in 0..PARTITIONS {
            let end = control.records(&topic(partition)).len() as u64;
            let header = self.blocks.get(&(partition, end - 1)).map(|judged| judged.header);
            for peer in peers {
                let tip = peer.tip(partition).map(|(height, header)| (height + 1, Some(header)));
                assert_eq!(
                    tip,
                    Some((end, header)),
                    "seed {seed}: every peer is at the end, with one header"
                );
                assert_eq!(
                    peer.state_digest(partition),
                    peers[0].state_digest(partition),
                    "seed {seed}"
                );
            }
        }
        for Receipt {
            tx_id,
            partition,
            height,
            index,
        } in &self.receipts
        {
            let block = self.blocks.get(&(*partition, *height));
            let found = block
                .and_then(|block| block.transactions.get(*index as usize))
                .map(|(tx_id, _)| tx_id);
            assert_eq!(
                found,
                Some(tx_id),
                "seed {seed}: what was acknowledged is where the receipt says"
            );
        }
        self.judge_counters(plan, net, peers);
        self.outcome(seed)
    }

    /// Each VALID transaction counted one up, so nothing was lost and nothing was doubled.
    fn judge_counters(&self, plan: &Plan, net: &TestNet, peers: &[Peer]) {
        for partition in 0..PARTITIONS {
            let mut sum = 0;
            for subject in 0..plan.subjects {
                let key = net.secret.partition_key("records", &format!("subject-{subject}"));
                if partition_of(&key, PARTITIONS) == partition {
                    let full = state_key("records", &key, b"count");
                    let counts: Vec<u64> = peers.iter().map(|peer| count(peer, partition, &full)).collect();
                    assert!(
                        counts.iter().all(|c| *c == counts[0]),
                        "seed {}: peers agree on values",
                        plan.seed
                    );
                    sum += counts[0];
                }
            }
            let valid = self
                .codes()
                .filter(|(place, _, code)| *place == partition && *code == Code::Valid);
            assert_eq!(
                valid.count() as u64,
                sum,
                "seed {}: every VALID update is in the state once",
                plan.seed
            );
        }
    }

    fn codes(&self) -> impl Iterator<Item = (u32, Digest, Code)> {
        let all = self.blocks.values();
        all.flat_map(|block| {
            block
                .transactions
                .iter()
                .map(|(tx_id, code)| (block.partition, *tx_id, *code))
        })
    }

    fn outcome(&self, seed: u64) -> Outcome {
        let mut valid = BTreeMap::new();
        for (_, tx_id, _) in self.codes().filter(|(_, _, code)| *code == Code::Valid) {
            *valid.entry(tx_id).or_insert(0) += 1;
        }
        assert!(
            valid.values().all(|times| *times == 1),
            "seed {seed}: a tx_id is VALID at most once"
        );
        let of = |wanted: fn(Code) -> bool| self.codes().filter(|(_, _, code)| wanted(*code)).count() as u64;
        Outcome {
            history: self.history,
            blocks: self.blocks.len() as u64,
            valid: valid.len() as u64,
            conflicts: of(Code::is_conflict),
            acknowledged: self.receipts.len() as u64,
            duplicates: of(|code| code == Code::Duplicate),
        }
    }
}
