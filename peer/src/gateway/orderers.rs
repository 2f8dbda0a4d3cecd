//! Transactions to the orderers: any of them does, the least busy is asked first.
//!
//! An orderer that surely did nothing costs a try of the next one, also if it says no for good: one may lie. One
//! that may have ordered the transaction ends the search: whoever waits looks at the ledger before it is sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use protocol::ledger::Receipt;
use service::health::Health;
use service::lists::Broadcast;
use service::mux::{self, CallError, Mux};
use service::rpc::{BroadcastReply, BroadcastRequest, broadcast_reply};
use service::tls::{self, Target, Trust};
use service::under_way::UnderWay;
use service::{Code, OnFailure, Problem, Role, Tasks};
use tokio::time::Instant;

use crate::metrics::{BROADCASTS, ORDERERS_UP};

/// One broadcast, however much time the client has left: then it is UNKNOWN, the ledger is watched, and another orderer is
/// asked. Longer than a failover of the log, so that one of those is no reason to send everything twice.
const BROADCAST_TIMEOUT: Duration = Duration::from_secs(3);

/// An orderer that has not answered a call for so long is asked last: it may stand still, with its connections open.
const OVERDUE: Duration = Duration::from_secs(1);
/// …and for so long after a call that it never answered. Then some calls find out how it is now.
const SHUNNED: Duration = Duration::from_secs(10);

/// So long a peer that starts is not ready while no orderer is connected.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// One orderer.
#[async_trait]
pub trait Orderer: Send + Sync {
    fn is_up(&self) -> bool;
    fn waiting(&self) -> usize;
    async fn broadcast(&self, request: BroadcastRequest, timeout: Duration) -> Result<BroadcastReply, CallError>;
}

#[async_trait]
impl Orderer for Mux<Broadcast> {
    fn is_up(&self) -> bool {
        Mux::is_up(self)
    }

    fn waiting(&self) -> usize {
        self.depth().items
    }

    async fn broadcast(&self, request: BroadcastRequest, timeout: Duration) -> Result<BroadcastReply, CallError> {
        self.call(request, timeout).await
    }
}

pub struct Orderers {
    all: Vec<Asked>,
    turn: AtomicUsize,
}

/// An orderer with the calls that it has not answered yet.
struct Asked {
    orderer: Box<dyn Orderer>,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    under_way: UnderWay,
    shunned_until: Option<Instant>,
}

impl Asked {
    fn is_overdue(&self) -> bool {
        let calls = self.calls.lock();
        let shunned = calls.shunned_until.is_some_and(|until| Instant::now() < until);
        shunned || calls.under_way.oldest().is_some_and(|age| age >= OVERDUE)
    }

    async fn broadcast(&self, request: BroadcastRequest, timeout: Duration) -> Result<BroadcastReply, CallError> {
        let call = self.calls.lock().under_way.begin();
        let _ended = Ended { of: self, call };
        let reply = self.orderer.broadcast(request, timeout).await;
        match &reply {
            Ok(_) => self.calls.lock().shunned_until = None,
            Err(CallError::Deadline { .. }) => self.calls.lock().shunned_until = Some(Instant::now() + SHUNNED),
            // Away or full, which it says itself.
            Err(_) => {}
        }
        reply
    }
}

/// However a call ends, also when the caller does not wait any more.
struct Ended<'a> {
    of: &'a Asked,
    call: u64,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.of.calls.lock().under_way.end(self.call);
    }
}

/// What became of one round over the orderers.
#[derive(Debug)]
pub enum Sent {
    Ordered(Receipt),
    /// It may be in the log, now or later.
    Unknown(String),
    /// Surely not ordered.
    Refused(Problem),
}

impl Orderers {
    pub fn start(
        tasks: &Tasks,
        trust: &Arc<Trust>,
        addresses: &[String],
        health: &Health,
    ) -> Result<Arc<Self>, tls::Error> {
        let mut all: Vec<Box<dyn Orderer>> = Vec::new();
        for address in addresses {
            // Any member may run an orderer.
            let channel = trust.channel(&Target::new(address.clone(), Role::Orderer, None))?;
            all.push(Box::new(Mux::<Broadcast>::start(
                tasks,
                channel,
                mux::Config::default(),
            )));
        }
        let orderers = Self::over(all);
        let (watched, token, check) = (Arc::clone(&orderers), tasks.token().clone(), health.check("orderers"));
        let began = Instant::now();
        tasks.spawn("orderers' health", OnFailure::Log, async move {
            while tokio::time::timeout(Duration::from_millis(500), token.cancelled())
                .await
                .is_err()
            {
                let up = watched.all.iter().filter(|asked| asked.orderer.is_up()).count();
                ORDERERS_UP.set(up as i64);
                match (up, watched.all.len()) {
                    // Reads go on without them; at the start they are waited for.
                    (0, 1..) if began.elapsed() < START_PATIENCE => {}
                    (0, all) => check.degraded(format!(
                        "none of {all} orderers is connected: nothing is submitted here"
                    )),
                    (up, all) if up < all => check.degraded(format!("{up} of {all} orderers are connected")),
                    _ => check.ok(),
                }
            }
        });
        Ok(orderers)
    }

    pub(super) fn over(all: Vec<Box<dyn Orderer>>) -> Arc<Self> {
        let all = all.into_iter().map(|orderer| Asked {
            orderer,
            calls: Mutex::default(),
        });
        Arc::new(Orderers {
            all: all.collect(),
            turn: AtomicUsize::new(0),
        })
    }

    /// One round: each orderer at most once, until one has an answer that counts.
    pub async fn send(&self, request: &BroadcastRequest, deadline: Instant) -> Sent {
        let sent = self.round(request, deadline).await;
        let outcome = match &sent {
            Sent::Ordered(_) => "ordered",
            Sent::Unknown(_) => "unknown",
            Sent::Refused(problem) => problem.code.as_str(),
        };
        BROADCASTS.with_label_values(&[outcome]).inc();
        sent
    }

    async fn round(&self, request: &BroadcastRequest, deadline: Instant) -> Sent {
        let mut refusal: Option<Problem> = None;
        // One orderer may lie: what it refuses for good is so if nobody who answers orders it.
        let mut no: Option<Problem> = None;
        for at in self.order() {
            let left = deadline
                .saturating_duration_since(Instant::now())
                .min(BROADCAST_TIMEOUT);
            if left.is_zero() {
                break;
            }
            let problem = match self.all[at].broadcast(request.clone(), left).await {
                Ok(BroadcastReply {
                    outcome: Some(broadcast_reply::Outcome::Receipt(receipt)),
                    ..
                }) => {
                    return Sent::Ordered(receipt);
                }
                Ok(BroadcastReply {
                    outcome: Some(broadcast_reply::Outcome::Problem(problem)),
                    ..
                }) => problem.into(),
                Ok(BroadcastReply { outcome: None, .. }) => return Sent::Unknown("an empty reply".to_owned()),
                Err(error) if error.surely_undone() => Problem::from(error),
                Err(error) => return Sent::Unknown(error.to_string()),
            };
            if problem.code == Code::UnknownOutcome {
                return Sent::Unknown(problem.detail);
            }
            if !may_elsewhere(problem.code) {
                no.get_or_insert(problem);
                continue;
            }
            // Of several, the one that says when to come back.
            if refusal.as_ref().is_none_or(|other| other.retry_after.is_none()) {
                refusal = Some(problem);
            }
        }
        Sent::Refused(no.or(refusal).unwrap_or_else(|| {
            Problem::unavailable("no orderer is connected").with_retry_after(Duration::from_secs(1))
        }))
    }

    /// Connected ones first, those that answer before those that are overdue, the least busy of them first, in turn.
    fn order(&self) -> Vec<usize> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.all.len();
        let mut order: Vec<usize> = (0..count).map(|i| (turn + i) % count).collect();
        // Coarse, so that close ones take turns: whoever is asked by all at once is busy next.
        order.sort_by_cached_key(|&at| {
            let asked = &self.all[at];
            (!asked.orderer.is_up(), asked.is_overdue(), asked.orderer.waiting() / 64)
        });
        order
    }
}

/// Nothing was done, and another orderer, or the same a little later, may do it.
pub fn may_elsewhere(code: Code) -> bool {
    matches!(
        code,
        Code::ResourceExhausted | Code::Unavailable | Code::LogUnavailable | Code::DeadlineExceeded
    )
}

#[cfg(test)]
mod tests {
    use protocol::ledger::Receipt;

    use super::*;

    /// Gives a receipt, or says no in this word.
    struct Says(Option<Code>);

    #[async_trait]
    impl Orderer for Says {
        fn is_up(&self) -> bool {
            true
        }

        fn waiting(&self) -> usize {
            0
        }

        async fn broadcast(&self, _: BroadcastRequest, _: Duration) -> Result<BroadcastReply, CallError> {
            let outcome = match self.0 {
                Some(code) => broadcast_reply::Outcome::Problem(Problem::new(code, "no").into()),
                None => broadcast_reply::Outcome::Receipt(Receipt::default()),
            };
            Ok(BroadcastReply {
                id: 0,
                outcome: Some(outcome),
            })
        }
    }

    async fn sent(words: [Option<Code>; 2]) -> Sent {
        let all = words.map(|word| Box::new(Says(word)) as Box<dyn Orderer>);
        let deadline = Instant::now() + Duration::from_secs(5);
        Orderers::over(all.into())
            .send(&BroadcastRequest::default(), deadline)
            .await
    }

    /// Never answers.
    struct Frozen;

    #[async_trait]
    impl Orderer for Frozen {
        fn is_up(&self) -> bool {
            true
        }

        fn waiting(&self) -> usize {
            0
        }

        async fn broadcast(&self, _: BroadcastRequest, timeout: Duration) -> Result<BroadcastReply, CallError> {
            tokio::time::sleep(timeout).await;
            Err(CallError::Deadline { sent: true })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stands_still_costs_few_calls() {
        let orderers = Orderers::over(vec![Box::new(Frozen), Box::new(Says(None))]);
        let calls = (0..40).map(|number| {
            let orderers = Arc::clone(&orderers);
            async move {
                tokio::time::sleep(Duration::from_millis(200) * number).await;
                let began = Instant::now();
                let deadline = began + Duration::from_secs(20);
                orderers.send(&BroadcastRequest::default(), deadline).await;
                began.elapsed()
            }
        });
        let took = futures::future::join_all(calls).await;
        let slow = took.iter().filter(|took| **took >= OVERDUE).count();
        // Those of the first second, and every other one of them only.
        assert!(slow <= 3, "{slow} of 40");
    }

    #[tokio::test]
    async fn one_orderers_no_does_not_outweigh_anothers_receipt() {
        let no = Some(Code::BadSignature);
        for words in [[no, None], [None, no]] {
            assert!(matches!(sent(words).await, Sent::Ordered(_)), "{words:?}");
        }
        for words in [[no, no], [no, Some(Code::Unavailable)], [Some(Code::Unavailable), no]] {
            let sent = sent(words).await;
            assert!(
                matches!(&sent, Sent::Refused(problem) if problem.code == Code::BadSignature),
                "{words:?}"
            );
        }
    }
}
