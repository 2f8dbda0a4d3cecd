//! Memory and processor time of the whole network and of this client, before and after.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::network::{
    Network,
    process::{Usage, own_usage},
};

/// At one moment, by kind of process; the load generator is `bench`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample(BTreeMap<&'static str, Usage>);

impl Sample {
    pub fn take(network: &Network) -> Sample {
        let mut kinds: BTreeMap<&'static str, Usage> = BTreeMap::new();
        let processes = network.description.processes.iter();
        for process in processes {
            let Some(usage) = network.running(&process.name).and_then(|running| running.usage()) else {
                continue;
            };
            let sum = kinds.entry(process.kind.word()).or_default();
            sum.rss_bytes += usage.rss_bytes;
            sum.cpu += usage.cpu;
        }
        kinds.insert("bench", own_usage());
        Sample(kinds)
    }

    pub fn rss_bytes(&self) -> u64 {
        self.0.values().map(|usage| usage.rss_bytes).sum()
    }

    /// Megabytes by kind.
    pub fn rss_mb(&self) -> BTreeMap<&'static str, u64> {
        self.0
            .iter()
            .map(|(kind, usage)| (*kind, usage.rss_bytes / 1_000_000))
            .collect()
    }

    pub fn cpu(&self) -> Duration {
        self.0.values().map(|usage| usage.cpu).sum()
    }

    /// What `count` calls cost between an earlier sample and this one.
    pub fn since(&self, before: &Sample, count: u64) -> Cost {
        let spent = |kind: &&'static str| {
            let of = |sample: &Sample| sample.0.get(kind).map_or(Duration::ZERO, |usage| usage.cpu);
            of(self).saturating_sub(of(before))
        };
        let per_call = |cpu: Duration| match count {
            0 => 0.0,
            count => (cpu.as_micros() as f64 / count as f64 * 10.0).round() / 10.0,
        };
        Cost {
            cpu_s: self.cpu().saturating_sub(before.cpu()).as_secs_f64(),
            cpu_us_per_call: per_call(self.cpu().saturating_sub(before.cpu())),
            cpu_us_per_call_by_kind: self.0.keys().map(|kind| (*kind, per_call(spent(kind)))).collect(),
            rss_mb_before: before.rss_bytes() / 1_000_000,
            rss_mb_after: self.rss_bytes() / 1_000_000,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    pub cpu_s: f64,
    pub cpu_us_per_call: f64,
    pub cpu_us_per_call_by_kind: BTreeMap<&'static str, f64>,
    pub rss_mb_before: u64,
    pub rss_mb_after: u64,
}
