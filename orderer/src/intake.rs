//! Takes lists of transactions in: room for each, then the checks side by side, then its partition's queue.

use std::time::Duration;

use protocol::ledger::Receipt;
use rayon::prelude::*;
use service::{
    Caller,
    problem::{Code, Problem},
    rpc::BroadcastRequest,
};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    Orderer,
    admission::Admitted,
    batcher::Entry,
    metrics,
    room::Held,
    ticket::{Answer, Ticket, unknown_outcome},
};

/// Until markers are acknowledged, and while ending.
pub(crate) const CLOSED_RETRY: Duration = Duration::from_millis(500);
/// Of a list, so many are checked one after another: those under one signed root find it verified.
const CHECK_RUN: usize = 16;

impl Orderer {
    /// Takes a list in. Every item is answered exactly once: now if it is refused, else when the log has it.
    pub fn offer(&self, caller: &Caller, items: Vec<(BroadcastRequest, Answer)>) {
        let since = Instant::now();
        let mut entered = Vec::with_capacity(items.len());
        for (request, answer) in items {
            match self.enter(caller, &request) {
                Ok(held) => entered.push((request, answer, held)),
                Err(problem) => refuse(answer, problem),
            }
        }
        if entered.is_empty() {
            return;
        }
        let orderer = self.clone();
        let judge = move |parallel| {
            orderer.judge(entered, parallel);
            metrics::CHECK_SECONDS.observe(since.elapsed().as_secs_f64());
        };
        // What waits here for a thread holds its room already.
        match &self.shared.pool {
            Some(pool) => pool.spawn(move || judge(true)),
            None => judge(false),
        }
    }

    /// A list of one.
    pub async fn broadcast(&self, caller: &Caller, request: BroadcastRequest) -> Result<Receipt, Problem> {
        let (sender, result) = oneshot::channel();
        let answer: Answer = Box::new(move |result| {
            let _ = sender.send(result); // the caller may have gone
        });
        self.offer(caller, vec![(request, answer)]);
        result
            .await
            .unwrap_or_else(|_| Err(unknown_outcome("the orderer gave no answer")))
    }

    fn enter(&self, caller: &Caller, request: &BroadcastRequest) -> Result<Held, Problem> {
        if self.shared.token.is_cancelled() {
            return Err(Problem::unavailable("the orderer is ending").with_retry_after(CLOSED_RETRY));
        }
        if !self.is_open() {
            return Err(Problem::unavailable("the orderer is starting").with_retry_after(CLOSED_RETRY));
        }
        if !self.shared.log.reachable() {
            // Said now rather than after the append's deadline: nothing was sent, nothing is unknown.
            let problem = Problem::new(Code::LogUnavailable, "the log does not answer, nothing was ordered");
            return Err(problem.with_retry_after(CLOSED_RETRY));
        }
        self.shared.admission.enter(caller, request)
    }

    /// Checks all, then puts those that pass into the queues, in the list's order.
    fn judge(&self, entered: Vec<(BroadcastRequest, Answer, Held)>, parallel: bool) {
        let now_ms = service::time::unix_ms();
        let check = |(request, answer, held): (BroadcastRequest, Answer, Held)| {
            (self.shared.admission.check(request, now_ms), answer, held)
        };
        let checked: Vec<_> = match parallel && entered.len() > CHECK_RUN {
            true => entered.into_par_iter().with_min_len(CHECK_RUN).map(check).collect(),
            false => entered.into_iter().map(check).collect(),
        };
        for (verdict, answer, held) in checked {
            match verdict {
                Ok(admitted) => self.queue(admitted, answer, held),
                Err(problem) => refuse(answer, problem),
            }
        }
    }

    fn queue(&self, admitted: Admitted, answer: Answer, held: Held) {
        let Admitted {
            partition,
            tx_id,
            transaction,
            certificates,
        } = admitted;
        metrics::ADMITTED.with_label_values(&[held.organisation()]).inc();
        metrics::ADMITTED_BYTES
            .with_label_values(&[held.organisation()])
            .inc_by(transaction.len() as u64);
        let tag = Ticket::new(tx_id, answer, held);
        if let Some(queue) = self.shared.queues.get(partition as usize) {
            // While ending nobody listens: the ticket then says so itself.
            let _ = queue.send(Entry {
                transaction,
                certificates,
                tag,
            });
        }
    }
}

fn refuse(answer: Answer, problem: Problem) {
    metrics::REFUSED.with_label_values(&[problem.code.as_str()]).inc();
    answer(Err(problem));
}
