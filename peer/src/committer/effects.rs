//! What happens in the world after a commit, and never before: snapshot and tip, waiting clients,
//! attestations, metrics.

use std::{sync::Arc, time::Duration};

use protocol::code::Code;

use super::{chain::Chain, watchers::Watchers};
use crate::{
    attester::attestations::Attestations,
    ledger::TxStatus,
    metrics::ledger as metrics,
    state::{Changes, Position},
};

pub struct Effects {
    pub chain: Arc<Chain>,
    pub watchers: Arc<Watchers>,
    pub attestations: Arc<Attestations>,
}

impl Effects {
    pub fn committed(&self, position: &Position, blocks: &[Changes], took: Duration) {
        let partition = self.chain.partition;
        self.chain.publish(position);
        let mut counts = [0; Code::ALL.len()];
        for block in blocks {
            let height = block.header.height;
            for (index, leaf) in (0u32..).zip(&block.leaves) {
                counts[leaf.code as usize] += 1;
                self.watchers.judged(
                    &leaf.tx_id,
                    TxStatus {
                        partition,
                        height,
                        index,
                        code: leaf.code,
                    },
                );
            }
        }
        self.attestations.advanced(partition);
        for (code, count) in Code::ALL.iter().zip(counts).filter(|(_, count)| *count > 0) {
            metrics::judged(code.word(), count);
        }
        if let Some(tip) = position.tip {
            metrics::committed(partition, tip.height, blocks.len(), took);
        }
    }
}
