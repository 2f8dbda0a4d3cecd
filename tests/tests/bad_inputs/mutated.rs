//! One flipped bit at a time in messages that were right: never accepted as something else, never a crash.

use futures::stream::{self, StreamExt as _};
use medledger_tests::network::{
    PATIENCE,
    client::{End, Signed},
};
use protocol::{Digest, sha256};
use service::{
    Tasks,
    lists::Broadcast,
    mux::{self, Mux},
    rpc::{BroadcastRequest, Finality, SignedProposal, broadcast_reply},
};

use super::{Here, unchanged};

/// Of every message about this many bits are flipped, spread over it.
const FLIPS: usize = 400;

pub async fn run(here: &Here) {
    unchanged(here, "a flipped bit in a broadcast", broadcasts(here)).await;
    unchanged(here, "a flipped bit in a signed proposal", proposals(here)).await;
    here.world.check_logs(&[]);
}

/// Messages that differ from a good one in a bit, and still decode.
fn flips<M: prost::Message + Default>(good: &M) -> Vec<(usize, M)> {
    let bytes = good.encode_to_vec();
    let step = (bytes.len() / FLIPS).max(1);
    let flips = (0..bytes.len()).step_by(step).filter_map(|at| {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at / step % 8);
        Some((at, M::decode(&flipped[..]).ok()?))
    });
    let flips: Vec<(usize, M)> = flips.collect();
    assert!(
        flips.len() > FLIPS / 4,
        "only {} of {FLIPS} mutations decode",
        flips.len()
    );
    flips
}

async fn broadcasts(here: &Here) {
    let tx = here.world.draft(&here.client, here.fresh()).await.build();
    let good = tx.request();
    let peer = here.world.identity("HospitalA", "peer0");
    let tasks = Tasks::new();
    let orderer: Mux<Broadcast> = Mux::start(&tasks, here.world.dial(&peer, "orderer1"), mux::Config::default());
    let flipped = flips(&good).into_iter().filter(|(_, request)| !is_same(request, &good));
    let answers = stream::iter(flipped).map(|(at, request)| {
        let orderer = orderer.clone();
        async move { (at, orderer.call(request, PATIENCE).await) }
    });
    let answers: Vec<_> = answers.buffer_unordered(64).collect().await;
    for (at, answer) in answers {
        let reply = answer.unwrap_or_else(|error| panic!("byte {at} flipped: no answer: {error}"));
        match reply.outcome {
            Some(broadcast_reply::Outcome::Problem(problem)) => {
                assert!(
                    !["internal", "resource_exhausted", ""].contains(&problem.code.as_str()),
                    "byte {at} flipped: {problem:?}"
                );
            }
            outcome => panic!("byte {at} of a broadcast flipped, and it is taken for {outcome:?}"),
        }
    }
    tasks.cancel();
}

/// The id is the stream's own, and certificates that nobody cites change nothing.
fn is_same(request: &BroadcastRequest, good: &BroadcastRequest) -> bool {
    request.transaction == good.transaction && good.certificates.iter().all(|der| request.certificates.contains(der))
}

async fn proposals(here: &Here) {
    let signed = here
        .client
        .sign(here.fresh(), protocol::ledger::Kind::Submit, PATIENCE)
        .await
        .expect("a plan");
    let flipped = flips(&signed.proposal)
        .into_iter()
        .filter(|(_, proposal)| *proposal != signed.proposal);
    let ends = stream::iter(flipped).map(|(at, proposal): (usize, SignedProposal)| {
        let tx_id: Digest = sha256(&proposal.proposal);
        let signed = Signed { tx_id, proposal };
        async move { (at, here.client.submit(&signed, Finality::Committed, PATIENCE).await) }
    });
    let ends: Vec<_> = ends.buffer_unordered(32).collect().await;
    for (at, end) in ends {
        match end {
            End::Refused(problem) => {
                let word = problem.code.as_str();
                assert!(
                    !["internal", "resource_exhausted"].contains(&word),
                    "byte {at} flipped: {problem:?}"
                );
            }
            end => panic!("byte {at} of a signed proposal flipped, and it ended with {end:?}"),
        }
    }
}
