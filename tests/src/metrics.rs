//! Everything that is declared, by section of `docs/metrics.md` and by the process that has it.

use metric::Group;
use peer::metrics as peer_metrics;

/// A kind of process, as its metrics tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Orderer,
    Peer,
    Attester,
    /// What the peer that publishes reports has besides.
    Reporter,
    Worker,
}

pub const ROLES: [Role; 5] = [Role::Orderer, Role::Peer, Role::Attester, Role::Reporter, Role::Worker];

impl Role {
    /// What such a process registers at its start.
    pub fn groups(self) -> Vec<Group> {
        match self {
            Role::Orderer => orderer::metrics::all(),
            Role::Peer => peer_metrics::all(false),
            Role::Attester => peer_metrics::all(true),
            Role::Reporter => vec![peer::reporting::metrics::DECLARED],
            Role::Worker => worker::metrics::all(),
        }
    }
}

/// Of the page.
pub struct Section {
    pub title: &'static str,
    /// Which processes have it.
    pub of: &'static str,
    pub group: Group,
}

pub fn sections() -> Vec<Section> {
    let section = |title, of, group| Section { title, of, group };
    vec![
        section(
            "Every process",
            "Orderers, peers and workers.",
            service::metrics::DECLARED,
        ),
        section("Orderer", "Orderers.", orderer::metrics::DECLARED),
        section("Peer: the ledger", "Peers.", peer_metrics::ledger::DECLARED),
        section("Peer: gateway, endorser, workers", "Peers.", peer_metrics::DECLARED),
        section(
            "Peer: the attester",
            "The one peer of an organisation that attests (`[attester]` in its settings).",
            peer_metrics::attester::DECLARED,
        ),
        section(
            "Peer: the report",
            "The one peer that reports (`[reporting]` in its settings). Values are of the last period that was published, \
             after suppression ([reporting.md](reporting.md)).",
            peer::reporting::metrics::DECLARED,
        ),
        section("Worker", "Workers.", worker::metrics::DECLARED),
        section(
            "Kafka, as seen from here",
            "Orderers and peers.",
            ledger_log::metrics::DECLARED,
        ),
        section("Signatures", "Orderers and peers.", service::metrics::signer::DECLARED),
        section("Calls to other processes", "Peers.", service::metrics::calls::DECLARED),
    ]
}
