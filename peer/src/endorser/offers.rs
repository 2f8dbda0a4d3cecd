//! Attestations that other peers offer. Each is a signature to verify, so they are bounded by organisation, wait in
//! turn, and are verified beside the runtime's threads.
//!
//! Nothing is lost by dropping an offer: peers say their newest every second.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message as _;
use protocol::ledger::Attestation;
use protocol::limits::{
    EXCHANGE_BURST_BYTES_MAX, EXCHANGE_BYTES_PER_SECOND_MAX, ITEM_OVERHEAD_BYTES, ORGANISATIONS_MAX,
};
use service::quota::{self, Quota};
use service::{OnFailure, Problem, Tasks};
use tokio::sync::Semaphore;

type Verify = Arc<dyn Fn(Vec<Attestation>) + Send + Sync>;

pub(super) struct Offers {
    tasks: Tasks,
    verify: Verify,
    quota: Quota<String>,
    /// Organisations with an offer that waits or is verified: one each, so that as many wait as there are members.
    under_way: Mutex<HashSet<String>>,
    /// One offer at a time, of all: the other cores are for transactions.
    running: Arc<Semaphore>,
}

impl Offers {
    pub(super) fn new(tasks: &Tasks, verify: impl Fn(Vec<Attestation>) + Send + Sync + 'static) -> Arc<Self> {
        let config = quota::Config {
            bytes_per_second: EXCHANGE_BYTES_PER_SECOND_MAX,
            burst_bytes: EXCHANGE_BURST_BYTES_MAX,
            identities_max: ORGANISATIONS_MAX,
        };
        Arc::new(Offers {
            tasks: tasks.clone(),
            verify: Arc::new(verify),
            quota: Quota::new("organisation", config),
            under_way: Mutex::default(),
            running: Arc::new(Semaphore::new(1)),
        })
    }

    /// Charges the organisation for what its peer offers and gets, and verifies the offer in its turn; one that comes
    /// while another of the same organisation is under way is dropped.
    pub(super) fn take(
        self: &Arc<Self>,
        organisation: &str,
        offered: Vec<Attestation>,
        reply_bytes: usize,
    ) -> Result<(), Problem> {
        let weights = offered.iter().map(|offer| offer.encoded_len() + ITEM_OVERHEAD_BYTES);
        let bytes = ITEM_OVERHEAD_BYTES + reply_bytes + weights.sum::<usize>();
        self.quota.check(&organisation.to_owned(), bytes)?;
        if offered.is_empty() || !self.under_way.lock().insert(organisation.to_owned()) {
            return Ok(());
        }
        let turn = Turn {
            offers: Arc::clone(self),
            organisation: organisation.to_owned(),
        };
        self.tasks.spawn("offered attestations", OnFailure::Log, async move {
            let (tasks, verify) = (turn.offers.tasks.clone(), Arc::clone(&turn.offers.verify));
            let Ok(running) = Arc::clone(&turn.offers.running).acquire_owned().await else {
                return;
            };
            tasks.spawn_blocking("offered attestations", OnFailure::Log, move || {
                let _until_done = (turn, running);
                verify(offered);
            });
        });
        Ok(())
    }
}

/// Ends the turn when it is dropped.
struct Turn {
    offers: Arc<Offers>,
    organisation: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.offers.under_way.lock().remove(&self.organisation);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use service::Code;

    use super::*;

    fn offer(word: &[u8]) -> Vec<Attestation> {
        vec![Attestation {
            content: word.to_vec(),
            signature: None,
        }]
    }

    /// On one thread: were an offer verified on it, nothing here would go on.
    #[tokio::test]
    async fn one_offer_of_an_organisation_waits_and_none_shuts_out_the_others() {
        let tasks = Tasks::new();
        let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let offers = Offers::new(&tasks, move |offered| {
            begin.send(offered[0].content.clone()).expect("heard");
            let _ = released.lock().recv_timeout(Duration::from_secs(10));
        });
        let mut next = async || {
            let begun = tokio::time::timeout(Duration::from_secs(10), begun.recv()).await;
            begun.expect("in time").expect("verified")
        };
        let take = |organisation: &str, word: &[u8]| offers.take(organisation, offer(word), 0).expect("in the quota");
        take("HospitalA", b"a1");
        assert_eq!(next().await, b"a1");
        for _ in 0..100 {
            take("HospitalA", b"more of a");
        }
        take("HospitalB", b"b1");
        take("HospitalB", b"more of b");
        release.send(()).expect("waits");
        assert_eq!(next().await, b"b1");
        release.send(()).expect("waits");
        tasks.cancel();
        tasks.wait(Duration::from_secs(10)).await.expect("ends");
        assert!(offers.under_way.lock().is_empty());
        drop(offers);
        assert_eq!(begun.recv().await, None, "nothing else was verified");
    }

    #[tokio::test]
    async fn an_organisation_has_its_quota() {
        let tasks = Tasks::new();
        let offers = Offers::new(&tasks, |_| {});
        // Twice as much is far from coming back while this runs.
        let most = EXCHANGE_BURST_BYTES_MAX as usize / 4 * 3;
        assert_eq!(offers.take("HospitalA", Vec::new(), most), Ok(()));
        let refused = offers.take("HospitalA", Vec::new(), most).expect_err("used up");
        assert_eq!(refused.code, Code::ResourceExhausted);
        assert!(refused.retry_after.is_some());
        assert_eq!(offers.take("HospitalB", Vec::new(), most), Ok(()));
        // Each signature counts, however short.
        let many = vec![Attestation::default(); most / ITEM_OVERHEAD_BYTES];
        offers.take("HospitalB", many, 0).expect_err("used up");
        tasks.cancel();
    }
}
