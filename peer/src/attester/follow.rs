//! Follows the attest topic. Only the newest of every organisation counts, so it begins a bounded
//! way before the end, and no gap in it is a reason to stop.

use std::{sync::Arc, time::Duration};

use ledger_log::{Log, ReadError, TopicPartition};
use protocol::{canonical, ledger::AttestationList, limits::ATTESTATIONS_PER_RECORD_MAX};
use tokio_util::sync::CancellationToken;

use super::attestations::Attestations;

/// Records read before the end: some seconds' worth under load, hours' when idle.
const TAIL_RECORDS: u64 = 1024;
const PAUSE: Duration = Duration::from_millis(500);

pub async fn run(attestations: Arc<Attestations>, log: Arc<dyn Log>, topic: TopicPartition, token: CancellationToken) {
    let following = async {
        let mut from = None;
        loop {
            let failure = follow(&attestations, &*log, &topic, &mut from).await;
            match failure {
                ReadError::Unavailable(cause) => tracing::debug!(cause, "the attest topic is away"),
                failure => {
                    tracing::warn!(%failure, "the attest topic goes on elsewhere");
                    from = None;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = following => {}
        () = token.cancelled() => {}
    }
}

/// Until the log fails. `from` is where to go on.
async fn follow(
    attestations: &Arc<Attestations>,
    log: &dyn Log,
    topic: &TopicPartition,
    from: &mut Option<u64>,
) -> ReadError {
    let start = match *from {
        Some(from) => from,
        None => match log.bounds(topic).await {
            Ok((low, high)) => high.saturating_sub(TAIL_RECORDS).max(low),
            Err(failure) => return failure,
        },
    };
    let mut reader = match log.read(topic, start).await {
        Ok(reader) => reader,
        Err(failure) => return failure,
    };
    *from = Some(start);
    loop {
        match reader.next(Duration::from_secs(1)).await {
            Ok(records) => {
                for record in records {
                    *from = Some(record.offset + 1);
                    if let Ok(list) = canonical::decode::<AttestationList>(&record.value)
                        && list.attestations.len() <= ATTESTATIONS_PER_RECORD_MAX
                    {
                        let attestations = Arc::clone(attestations);
                        // Anyone who may write to the topic makes signatures to verify: not on the runtime's threads.
                        let verified = tokio::task::spawn_blocking(move || attestations.offer(list.attestations));
                        let _ = verified.await;
                    }
                }
            }
            Err(failure) => return failure,
        }
    }
}
