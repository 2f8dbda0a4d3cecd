//! The gateway: where the organisation's people and programs meet the ledger. One file per verb.
//!
//! | verb | asks | file |
//! |---|---|---|
//! | prepare | what a client needs to sign | `prepare` |
//! | evaluate | a query, at the newest state here | `evaluate` |
//! | endorse | endorsements only, for clients that submit elsewhere | `endorse` |
//! | submit | a transaction, up to the finality asked for | `submit` |
//! | status | what became of a tx_id | `status` |
//! | events, blocks | what was committed, from a height on | `events`, `blocks` |
//! | network | who and how high | `network` |
//! | reports | published periods, where the peer reports | `rest/reports` |
//!
//! ```text
//! gRPC (grpc) ─┐                  ┌─ endorser (this process), other peers
//!              ├─ quota, gate ─ verb ─ orderers
//! REST (rest) ─┘                  └─ ledger
//! ```
//! Every request takes its bytes from the client's quota and a place in the gate before anything is
//! done with it; without either it is refused at once.

mod blocks;
pub mod config;
pub mod endorse;
mod evaluate;
mod events;
pub mod gate;
mod grpc;
mod intent;
mod network;
pub mod openapi;
mod orderers;
mod prepare;
pub mod rest;
mod status;
mod submit;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use protocol::policy::Policy;
use protocol::{Digest, ledger};
use service::health::Health;
use service::identity::Identity;
use service::quota::Quota;
use service::serve::{Access, grpc as grpc_routes};
use service::signer::{self, BatchSigner};
use service::tls::{self, Trust};
use service::{Caller, Problem, Role, Tasks, rpc};

use crate::endorser::Endorser;
use crate::endorser::serve::PeerService;
use crate::ledger::Ledger;
use crate::metrics::REQUESTS;
use crate::peers::{Address, Peers};
use crate::reporting::Reports;
use crate::workers::Workers;
use config::{Limits, Quotas};
use endorse::{Candidate, Local, Teams};
use gate::{Gate, Permit};
use orderers::Orderers;

/// What the peer's servers are made from.
pub struct Parts {
    pub tasks: Tasks,
    pub ledger: Arc<Ledger>,
    pub identity: Arc<Identity>,
    pub trust: Arc<Trust>,
    pub health: Health,
    pub workers: Vec<String>,
    pub orderers: Vec<String>,
    pub peers: Vec<Address>,
    pub quotas: Quotas,
    pub limits: Limits,
    /// On a peer that reports.
    pub reports: Option<Arc<Reports>>,
}

/// For `service::serve`.
pub struct Served {
    pub routes: Router,
    pub access: Access,
}

pub(crate) struct Gateway {
    tasks: Tasks,
    ledger: Arc<Ledger>,
    identity: Arc<Identity>,
    endorser: Arc<Endorser>,
    peers: Peers,
    teams: Teams,
    chain: Arc<dyn endorse::Chain>,
    orderers: Arc<Orderers>,
    signer: BatchSigner,
    quota: Quota<Digest>,
    submits: Arc<Gate>,
    reads: Arc<Gate>,
    streams: Arc<Gate>,
    limits: Limits,
    reports: Option<Arc<Reports>>,
}

/// Connects to workers, orderers and peers, and gives what is to be served.
pub fn service(parts: Parts) -> Result<Served, tls::Error> {
    let Parts {
        tasks,
        ledger,
        trust,
        health,
        ..
    } = &parts;
    let workers = Workers::start(tasks, trust, &parts.workers, ledger, health)?;
    let orderers = Orderers::start(tasks, trust, &parts.orderers, health)?;
    let peers = Peers::start(tasks, trust, ledger, &parts.peers)?;
    let endorser = Arc::new(Endorser {
        ledger: Arc::clone(ledger),
        workers,
        signer: BatchSigner::start(
            tasks,
            Arc::clone(&parts.identity),
            ledger.checker.channel.id,
            signer::Config::default(),
        ),
        identity: Arc::clone(&parts.identity),
        trust: Arc::clone(trust),
        limits: parts.limits.clone(),
    });
    let endorsements = Gate::new(
        "endorse",
        parts.limits.endorsements_in_flight_max,
        parts.limits.endorsements_in_flight_bytes_max,
        parts.limits.retry_after(),
    );
    let quota = Quota::new("peer", parts.quotas.peer());
    let for_peers = PeerService::new(tasks, Arc::clone(&endorser), quota, endorsements);
    let others = peers
        .iter()
        .map(|other| Arc::clone(other) as Arc<dyn Candidate>)
        .collect();
    let gateway = Gateway::new(
        tasks,
        endorser,
        orderers,
        peers,
        others,
        &parts.quotas,
        parts.reports.clone(),
    );
    let access = access(gateway.identity.msp_id());
    let routes = grpc_routes(rpc::gateway_server(grpc::GatewayService(Arc::clone(&gateway))))
        .merge(grpc_routes(rpc::peer_server(for_peers)))
        .merge(rest::routes(gateway));
    Ok(Served { routes, access })
}

/// People and programs of the own organisation; peers of any member; nobody else.
fn access(msp_id: &str) -> Access {
    let mut access = Access::new().allow(rpc::path::PEER, |caller: &Caller| caller.role == Role::Peer);
    for prefix in [rpc::path::GATEWAY, "/v1/", "/openapi.json"] {
        let own = msp_id.to_owned();
        access = access.allow(prefix, move |caller: &Caller| {
            caller.msp_id == own && matches!(caller.role, Role::Client | Role::Admin)
        });
    }
    access
}

impl Gateway {
    fn new(
        tasks: &Tasks,
        endorser: Arc<Endorser>,
        orderers: Arc<Orderers>,
        peers: Peers,
        others: Vec<Arc<dyn Candidate>>,
        quotas: &Quotas,
        reports: Option<Arc<Reports>>,
    ) -> Arc<Self> {
        let limits = endorser.limits.clone();
        let gate = |name, places| {
            let (bytes_max, retry_after) = (limits.in_flight_bytes_max, limits.retry_after());
            Gate::paced(name, places, bytes_max, retry_after, limits.answer_target())
        };
        let mut candidates: Vec<Arc<dyn Candidate>> = vec![Arc::new(Local(Arc::clone(&endorser)))];
        candidates.extend(others);
        Arc::new(Gateway {
            tasks: tasks.clone(),
            ledger: Arc::clone(&endorser.ledger),
            identity: Arc::clone(&endorser.identity),
            signer: endorser.signer.clone(),
            chain: Arc::new(OwnChain(Arc::clone(&endorser.ledger))),
            endorser,
            peers,
            teams: Teams::new(candidates),
            orderers,
            quota: Quota::new("client", quotas.client()),
            submits: gate("submit", limits.in_flight_max),
            reads: gate("read", limits.in_flight_max),
            streams: Gate::shared(
                "stream",
                limits.streams_max,
                limits.streams_each_max,
                Duration::from_secs(5),
            ),
            limits,
            reports,
        })
    }

    /// Quota, then a place. Refused here, nothing else has been done.
    fn admit(&self, verb: &'static str, caller: &Caller, bytes: usize) -> Result<Permit, Problem> {
        let gate = if verb == "submit" { &self.submits } else { &self.reads };
        let admitted = match self.quota.check(&caller.account(), bytes) {
            Ok(()) => gate.enter(&caller.account(), bytes),
            Err(exceeded) => Err(exceeded.into()),
        };
        admitted.inspect_err(|problem| {
            REQUESTS.with_label_values(&[verb, problem.code.as_str()]).inc();
        })
    }
}

/// What endorsing asks of this peer's own chains.
struct OwnChain(Arc<Ledger>);

impl endorse::Chain for OwnChain {
    fn newest(&self, partition: u32) -> Option<u64> {
        self.0.snapshot(partition, None).ok().map(|snapshot| snapshot.height)
    }

    fn key_policies(&self, partition: u32, result: &ledger::Result) -> Result<Vec<Policy>, Problem> {
        let Some(chain) = self.0.chains.get(partition as usize) else {
            return Ok(Vec::new());
        };
        let written = result
            .writes
            .iter()
            .map(|write| &write.key)
            .chain(result.policies.iter().map(|set| &set.key));
        let mut policies: Vec<Policy> = Vec::new();
        for key in written {
            let row = chain.state.policy(key).map_err(Problem::internal)?;
            // One that does not parse was never accepted by `validate`.
            let policy = row.and_then(|(_, text)| Policy::parse(&text).ok());
            policies.extend(policy.filter(|policy| !policies.contains(policy)));
        }
        Ok(policies)
    }
}

#[cfg(test)]
mod tests {
    use protocol::testing::TestNet;

    use super::*;

    #[test]
    fn each_role_reaches_what_it_should_and_nothing_else() {
        let net = TestNet::new(&["HospitalA", "HospitalB"], 1);
        let access = access("HospitalA");
        let may = |msp_id: &str, name: &str, path: &str| {
            access.permits(&Caller::new(net.identity(msp_id, name).certificate.clone()), path)
        };
        for path in ["/medledger.rpc.v1.Gateway/Submit", "/v1/submit", "/openapi.json"] {
            assert!(
                may("HospitalA", "client0", path) && may("HospitalA", "admin", path),
                "{path}"
            );
            for (msp_id, name) in [
                ("HospitalB", "client0"),
                ("HospitalA", "peer0"),
                ("HospitalA", "orderer0"),
            ] {
                assert!(!may(msp_id, name, path), "{msp_id} {name} {path}");
            }
        }
        let exchange = "/medledger.rpc.v1.Peer/Exchange";
        assert!(may("HospitalA", "peer0", exchange) && may("HospitalB", "peer1", exchange));
        assert!(!may("HospitalA", "client0", exchange) && !may("HospitalB", "orderer0", exchange));
        assert!(!may("HospitalA", "admin", "/anything/else"));
    }
}
