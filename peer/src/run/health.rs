//! How the ledger is, for people and for whoever routes requests: looked at every second.

use std::{sync::Arc, time::Duration};

use service::{
    Tasks,
    health::{Health, State},
};

use crate::{ledger::Ledger, metrics::ledger as metrics};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The databases are asked for their sizes once in so many looks.
const SIZES_EVERY: u32 = 10;

pub(super) async fn watch(tasks: Tasks, health: Health, ledger: Arc<Ledger>) {
    let (log, partitions, attested) = (
        health.check(ledger_log::NAME),
        health.check("partitions"),
        health.check("attestations"),
    );
    for look in 0u32.. {
        if ledger.log_reachable() {
            log.ok();
        } else {
            log.degraded("the log cannot be reached; reads go on being served");
        }
        partitions.set(stopped(&ledger));
        attested.set(contradicted(&ledger));
        if look.is_multiple_of(SIZES_EVERY) {
            sizes(Arc::clone(&ledger)).await;
        }
        if tokio::time::timeout(LOOK_EVERY, tasks.token().cancelled())
            .await
            .is_ok()
        {
            return;
        }
    }
}

/// The others go on being served. With no data partition that goes on there is nothing new to be had here, and
/// requests are better sent to another peer.
fn stopped(ledger: &Ledger) -> State {
    let chains = ledger.chains();
    let stopped: Vec<_> = chains.iter().filter(|chain| !chain.stopped.is_empty()).collect();
    let reason = stopped
        .iter()
        .map(|chain| format!("{}: {}", chain_name(chain.partition), chain.stopped))
        .collect::<Vec<_>>()
        .join("; ");
    let data = stopped.iter().filter(|chain| chain.partition != protocol::CONTROL);
    match (stopped.len(), data.count()) {
        (0, _) => State::Ok,
        (_, data) if data == ledger.chains.len() => State::Failed { reason },
        _ => State::Degraded { reason },
    }
}

fn contradicted(ledger: &Ledger) -> State {
    let against = ledger.attestations.against();
    if against.is_empty() {
        return State::Ok;
    }
    let names: Vec<String> = against
        .iter()
        .map(|(partition, name)| format!("{name} on {}", chain_name(*partition)))
        .collect();
    State::Degraded {
        reason: format!("attest other headers than the ones here: {}", names.join(", ")),
    }
}

fn chain_name(partition: u32) -> String {
    if partition == protocol::CONTROL {
        "the control chain".to_owned()
    } else {
        format!("partition {partition}")
    }
}

/// Asking takes the database's lock: not on the runtime's threads.
async fn sizes(ledger: Arc<Ledger>) {
    let work = move || {
        for chain in &ledger.chains {
            match chain.state.bytes() {
                Ok(bytes) => metrics::state_bytes(chain.partition, bytes),
                Err(error) => tracing::debug!(partition = chain.partition, %error, "its size is not known"),
            }
        }
    };
    let _done = tokio::task::spawn_blocking(work).await;
}
