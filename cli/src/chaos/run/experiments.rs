//! What is tried, and what it may cost.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::cluster::Component;

#[derive(Clone, Debug)]
pub struct Experiment {
    pub name: &'static str,
    pub fault: Fault,
    /// The longest time without any acknowledged change.
    pub gap_max: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill(How, Which),
    /// Every broker in turn, so also the leader of every partition.
    EachBroker,
    /// All brokers but one are away for a while.
    Outage,
    /// A node loses its power and comes back.
    PowerCut,
    /// Every node is emptied in turn.
    Drain,
    /// Every workload is rolled, one after the other.
    Roll,
    /// The release becomes another version, and goes back.
    Upgrade,
    LosePeerVolume,
    LoseBrokerVolume,
    /// An organisation does not reach Kafka.
    CutOff,
    FullDisk,
    /// A process stands still and says nothing.
    Freeze,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The pod is deleted without grace; it comes back as a new one.
    Delete,
    /// Its process gets SIGKILL; the container is started again.
    Crash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    One(Component),
    /// All of the organisation that has most.
    OfOrganisation(Component),
    All(Component),
}

const POD: Option<Duration> = Some(Duration::from_secs(3));
const NODE: Option<Duration> = Some(Duration::from_secs(30));

/// All of them, in the order of their runs; those that take longest last.
pub const ALL: &[Experiment] = {
    use Component::{Kafka, Orderer, Peer, Worker};
    use How::{Crash, Delete};
    use Which::{All, OfOrganisation, One};
    const fn of(name: &'static str, fault: Fault, gap_max: Option<Duration>) -> Experiment {
        Experiment { name, fault, gap_max }
    }
    &[
        of("pod-orderer", Fault::Kill(Delete, One(Orderer)), POD),
        of("pod-peer", Fault::Kill(Delete, One(Peer)), POD),
        of("pod-worker", Fault::Kill(Delete, One(Worker)), POD),
        of("pod-kafka", Fault::Kill(Delete, One(Kafka)), POD),
        of("crash-orderer", Fault::Kill(Crash, One(Orderer)), POD),
        of("crash-peer", Fault::Kill(Crash, One(Peer)), POD),
        of("crash-worker", Fault::Kill(Crash, One(Worker)), POD),
        of("crash-kafka", Fault::Kill(Crash, One(Kafka)), POD),
        of(
            "workers-of-organisation",
            Fault::Kill(Delete, OfOrganisation(Worker)),
            None,
        ),
        of("peers-of-organisation", Fault::Kill(Delete, OfOrganisation(Peer)), None),
        of("all-workers", Fault::Kill(Delete, All(Worker)), None),
        of("all-peers", Fault::Kill(Delete, All(Peer)), None),
        of("all-orderers", Fault::Kill(Delete, All(Orderer)), None),
        of("all-kafka", Fault::Kill(Delete, All(Kafka)), None),
        of("kafka-leaders", Fault::EachBroker, POD),
        of("kafka-outage", Fault::Outage, None),
        of("cut-from-kafka", Fault::CutOff, None),
        of("freeze-orderer", Fault::Freeze, None),
        of("full-disk", Fault::FullDisk, None),
        of("volume-peer", Fault::LosePeerVolume, None),
        of("volume-kafka", Fault::LoseBrokerVolume, POD),
        of("rolling-restart", Fault::Roll, None),
        of("upgrade-rollback", Fault::Upgrade, None),
        of("drain", Fault::Drain, None),
        of("power-cut", Fault::PowerCut, NODE),
    ]
};

/// One pod of each kind: what is tried on every change.
pub const SHORT: &[&str] = &["pod-orderer", "pod-peer", "pod-worker", "pod-kafka"];

impl Fault {
    /// Pods of which kinds there must be, for it to be tried.
    pub fn needs(self) -> Vec<Component> {
        match self {
            Fault::Kill(_, Which::One(kind) | Which::All(kind) | Which::OfOrganisation(kind)) => vec![kind],
            Fault::EachBroker | Fault::Outage | Fault::LoseBrokerVolume => vec![Component::Kafka],
            Fault::CutOff => vec![Component::Kafka, Component::Orderer],
            Fault::Freeze => vec![Component::Orderer],
            Fault::LosePeerVolume | Fault::FullDisk => vec![Component::Peer],
            Fault::PowerCut | Fault::Drain | Fault::Roll | Fault::Upgrade => Vec::new(),
        }
    }

    /// Of which kinds every container must be the same one after it: nobody restarts because Kafka is away.
    pub fn spares(self) -> &'static [Component] {
        use Component::{Kafka, Orderer, Peer, Worker};
        match self {
            Fault::Kill(_, Which::One(Kafka) | Which::All(Kafka) | Which::OfOrganisation(Kafka))
            | Fault::EachBroker
            | Fault::Outage
            | Fault::CutOff
            | Fault::LoseBrokerVolume => &[Orderer, Peer, Worker],
            _ => &[],
        }
    }

    /// Whether an agent on the nodes is needed.
    pub fn needs_agents(self) -> bool {
        matches!(
            self,
            Fault::Kill(How::Crash, _) | Fault::EachBroker | Fault::CutOff | Fault::FullDisk | Fault::Freeze
        )
    }
}

impl Experiment {
    /// Where its gap has a limit, so many times that.
    pub fn eased(&self, times: u32) -> Experiment {
        Experiment {
            gap_max: self.gap_max.map(|max| max * times),
            ..*self
        }
    }
}

/// Those of the names, in the order that they are given; none named: all.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Experiment>> {
    if names.is_empty() {
        return Ok(ALL.iter().collect());
    }
    let known = || {
        ALL.iter()
            .map(|experiment| experiment.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let named = names.iter().map(|name| {
        let found = ALL.iter().find(|experiment| experiment.name == name);
        found.with_context(|| format!("there is no experiment {name}; there are: {}", known()))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn experiments_have_names_of_their_own_and_the_short_ones_exist() {
        let names: HashSet<&str> = ALL.iter().map(|experiment| experiment.name).collect();
        assert_eq!(names.len(), ALL.len());
        let short: Vec<String> = SHORT.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(chosen(&short).expect("known").len(), SHORT.len());
        assert_eq!(chosen(&[]).expect("all").len(), ALL.len());
        let error = chosen(&["pod-horse".to_owned()]).expect_err("unknown").to_string();
        assert!(error.contains("pod-horse") && error.contains("pod-orderer"), "{error}");
    }
}
