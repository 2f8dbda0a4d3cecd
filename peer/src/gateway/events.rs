//! Events of VALID transactions from a height on, in the order of the chain; a client that was away resumes.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{self, Stream};
use protocol::{block, code, transaction};
use service::{Caller, Problem, rpc};

use super::Gateway;
use super::blocks::{Follow, no_partition};
use crate::ledger::{BlockInfo, Ledger};

/// An event, and its number among those of its transaction.
pub(super) type Numbered = (rpc::EventsReply, u32);

/// What an encounter was, or a facility said of its beds or of itself, is read by whom the contract's queries would tell it
/// too (`rights.rs` of medical-records); others learn that there was one. The ministry's report reads the log, and not this
/// stream.
fn is_told(event: &str, practitioner_role: Option<&str>) -> bool {
    let treats = matches!(practitioner_role, Some("physician" | "nurse" | "paramedic"));
    match event.split('.').next() {
        Some("encounter" | "site") => treats,
        Some("beds") => treats || practitioner_role == Some("registrar"),
        _ => true,
    }
}

struct State {
    /// The caller's, from the certificate.
    practitioner_role: Option<String>,
    follow: Follow,
    ledger: Arc<Ledger>,
    contract: String,
    ready: VecDeque<Numbered>,
}

impl Gateway {
    pub(super) async fn events(
        &self,
        request: rpc::EventsRequest,
        caller: &Caller,
    ) -> Result<impl Stream<Item = Result<Numbered, Problem>> + Send + 'static, Problem> {
        let partition = request.partition;
        if partition >= self.ledger.checker.channel.partitions() {
            return Err(no_partition());
        }
        let follow = self.follow(caller, partition, request.from_height, true).await?;
        let (ledger, contract) = (Arc::clone(&self.ledger), request.contract);
        let state = State {
            practitioner_role: caller.attributes.get("practitioner_role").cloned(),
            follow,
            ledger,
            contract,
            ready: VecDeque::new(),
        };
        Ok(stream::unfold(Some(state), |state| async move {
            let mut state = state?;
            loop {
                if let Some(event) = state.ready.pop_front() {
                    return Some((Ok(event), Some(state)));
                }
                match state.follow.next().await {
                    Ok((block, Some(record))) => {
                        let mut events = events_of(&state.ledger, &block, &record.value, &state.contract);
                        for (event, _) in &mut events {
                            if !is_told(&event.r#type, state.practitioner_role.as_deref()) {
                                event.payload.clear();
                            }
                        }
                        state.ready.extend(events);
                    }
                    Ok((_, None)) => return Some((Err(Problem::internal("a block without its record")), None)),
                    Err(problem) => return Some((Err(problem), None)),
                }
            }
        }))
    }
}

/// Of the transactions that are VALID in this block.
fn events_of(ledger: &Ledger, info: &BlockInfo, raw: &[u8], contract: &str) -> Vec<Numbered> {
    if !info.transactions.iter().any(|(_, code)| *code == code::Code::Valid) {
        return Vec::new();
    }
    let (partition, height) = (info.header.partition, info.header.height);
    let opened = block::open(&ledger.checker, partition, raw);
    let mut events = Vec::new();
    for (index, (bytes, (tx_id, code))) in (0u32..).zip(opened.transactions.iter().zip(&info.transactions)) {
        if *code != code::Code::Valid {
            continue;
        }
        let Ok(tx) = transaction::decode(bytes) else { continue };
        if !contract.is_empty() && tx.proposal.contract != contract {
            continue;
        }
        for (number, event) in (0u32..).zip(tx.result.events) {
            let reply = rpc::EventsReply {
                partition,
                height,
                index,
                tx_id: tx_id.to_vec(),
                contract: tx.proposal.contract.clone(),
                r#type: event.r#type,
                payload: event.payload,
            };
            events.push((reply, number));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::is_told;

    #[test]
    fn what_an_encounter_was_is_for_those_who_treat() {
        for role in ["physician", "nurse", "paramedic"] {
            assert!(is_told("encounter.added", Some(role)), "{role}");
        }
        for role in [None, Some("registrar"), Some("reporting_officer")] {
            assert!(
                !is_told("encounter.added", role) && !is_told("site.stated", role),
                "{role:?}"
            );
            assert!(
                is_told("record.created", role) && is_told("beds.stated", role) == (role == Some("registrar")),
                "{role:?}"
            );
        }
    }
}
