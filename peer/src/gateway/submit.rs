//! A transaction from intent to the finality that its client waits for.
//!
//! ```text
//! intent ─→ endorse ─→ broadcast ─→ ordered ─→ judged ─→ attested
//!             ▲                        │ unknown: watch the ledger, send the same again
//!             └── lost to a conflict ──┴─ under the same tx_id, a bounded number of times
//! ```
//! What may have happened is never called failed: without an answer in time the client gets
//! `unknown_outcome` and the tx_id, and asks for the status or submits the same proposal again.
//!
//! Whoever has seen a transaction can have copies of it ordered, changed or not. So two judgements
//! count: VALID, wherever it is, and the one at the place that our own receipt names.

mod judge;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use prost::Message as _;
use protocol::hash::digest;
use protocol::identity::Role;
use protocol::ledger::{self, Kind, Receipt, ReceiptContent};
use protocol::limits::TRANSACTION_BYTES_MAX;
use protocol::signature::Purpose;
use protocol::transaction::Checker;
use protocol::{Digest, canonical, code};
use service::rpc::{self, BroadcastRequest, Finality, Submission, submit_request::Intent};
use service::telemetry::Seldom;
use service::{Caller, Code, Problem};
use tokio::time::Instant;

use super::Gateway;
use super::endorse::{self, Endorsements};
use super::gate::Permit;
use super::orderers::{Sent, may_elsewhere};
use crate::committer::validate::judge_heights;
use crate::endorser::check::Checked;
use crate::ledger::{TxStatus, TxWatch};
use crate::metrics::{JUDGED, RECEIPT_FAULTS, REENDORSEMENTS, Request, stage};
use judge::Verdict;

/// How long the ledger is watched after an unknown outcome before the same transaction is sent again.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(1);
/// Broadcasts of one transaction whose outcome stays unknown.
const BROADCASTS_MAX: usize = 8;

/// A refusal, with the tx_id once there is one.
pub(super) struct Refusal {
    pub tx_id: Option<Digest>,
    pub problem: Problem,
}

/// One transaction under way.
struct Course<'a> {
    gateway: &'a Gateway,
    checked: Checked,
    watch: TxWatch,
    wait: Finality,
    deadline: Instant,
    endorsements: u32,
    /// The last judgement of a copy that is not known to be ours.
    stranger: Option<TxStatus>,
}

/// Where a broadcast led.
enum Ordered {
    Receipt(Receipt, Place),
    /// No receipt, but it is VALID.
    Seen(TxStatus),
}

/// Height and index, in the proposal's partition.
type Place = (u64, u32);

impl Gateway {
    pub(super) async fn submit(&self, request: rpc::SubmitRequest, caller: &Caller) -> rpc::SubmitReply {
        match self.admit("submit", caller, request.encoded_len()) {
            Ok(place) => self.submitted(request, caller, place).await,
            Err(problem) => refusal(None, problem),
        }
    }

    /// After admission.
    pub(super) async fn submitted(
        &self,
        request: rpc::SubmitRequest,
        caller: &Caller,
        place: Permit,
    ) -> rpc::SubmitReply {
        let metric = Request::begin("submit");
        let wait = request.wait();
        match self.try_submit(request, caller).await {
            Ok((tx_id, submission)) => {
                metric.end("ok");
                // A quorum takes its time however little there is to do, and a retry finds its end here.
                if wait != Finality::Attested && submission.endorsements > 0 {
                    place.served();
                }
                let outcome = Some(rpc::submit_reply::Outcome::Submission(submission));
                rpc::SubmitReply {
                    id: 0,
                    tx_id: tx_id.to_vec(),
                    outcome,
                }
            }
            Err(Refusal { tx_id, problem }) => {
                metric.end(problem.code.as_str());
                refusal(tx_id, problem)
            }
        }
    }

    async fn try_submit(&self, request: rpc::SubmitRequest, caller: &Caller) -> Result<(Digest, Submission), Refusal> {
        let before = |problem| Refusal { tx_id: None, problem };
        self.has_come().map_err(before)?;
        let wait = match request.wait() {
            Finality::Unspecified => Finality::Committed,
            named => named,
        };
        let deadline = Instant::now() + self.limits.timeout(request.timeout_ms);
        let checked = match request.intent {
            Some(Intent::Signed(signed)) => self.endorser.check(signed, Kind::Submit),
            Some(Intent::Call(call)) => self.on_behalf(call, caller, deadline).await,
            None => Err(Problem::invalid("intent", "is missing: a signed proposal or a call")),
        };
        let checked = checked.map_err(before)?;
        let tx_id = checked.tx_id;
        let after = |problem| Refusal {
            tx_id: Some(tx_id),
            problem,
        };
        if let Some(stop) = self.ledger.stopped(checked.partition) {
            return Err(after(Problem::new(Code::PartitionStopped, stop.to_string())));
        }
        // Before anything is sent, so that no judgement is missed.
        let watch = self.ledger.watch(tx_id);
        let mut course = Course {
            gateway: self,
            checked,
            watch,
            wait,
            deadline,
            endorsements: 0,
            stranger: None,
        };
        let submission = course.run().await.map_err(after)?;
        Ok((tx_id, submission))
    }
}

impl Course<'_> {
    async fn run(&mut self) -> Result<Submission, Problem> {
        let tx_id = self.checked.tx_id;
        if let Some(status) = self.valid_already()? {
            return self.finish(status, Vec::new(), None).await;
        }
        loop {
            self.endorsements += 1;
            let began = Instant::now();
            let endorsed = self.endorse().await?;
            stage("endorse", began);
            let snapshot = endorsed.snapshot;
            let (transaction, response) = self.transaction(endorsed)?;
            let mut broken = 0;
            let (receipt, status) = loop {
                let began = Instant::now();
                let (receipt, place) = match self.order(&transaction).await? {
                    Ordered::Receipt(receipt, place) => (receipt, place),
                    Ordered::Seen(status) => break (None, status),
                };
                stage("order", began);
                if self.wait == Finality::Ordered {
                    match self.too_late(snapshot, place).await {
                        None => return Ok(self.ordered(receipt, place, response)),
                        Some(status) => break (Some(receipt), status),
                    }
                }
                let began = Instant::now();
                match self.judgement(place).await? {
                    Some(status) => {
                        stage("commit", began);
                        break (Some(receipt), status);
                    }
                    // Under its tx_id it is VALID at most once, however often it is sent.
                    None if broken + 1 < BROADCASTS_MAX => broken += 1,
                    None => return Err(self.unknown_outcome("receipts for places where it is not")),
                }
            };
            JUDGED.with_label_values(&[status.code.word()]).inc();
            let bound = self.checked.proposal.height_bound;
            match judge::judge(status, self.endorsements, self.gateway.limits.endorsements_max, bound) {
                Verdict::Valid => return self.finish(status, response, receipt).await,
                Verdict::Elsewhere => match self.gateway.ledger.status(&tx_id) {
                    Some(valid) if valid.code == code::Code::Valid => {
                        return self.finish(valid, response, receipt).await;
                    }
                    _ => return Err(judge::invalid(status)),
                },
                Verdict::Again => {
                    REENDORSEMENTS.inc();
                    self.breathe().await;
                }
                Verdict::Refused(problem) => return Err(problem),
            }
        }
    }

    /// Where a retry finds what it retries. A proposal that was made here a moment ago is none.
    fn valid_already(&self) -> Result<Option<TxStatus>, Problem> {
        let (ledger, tx_id) = (&self.gateway.ledger, &self.checked.tx_id);
        match ledger.chains.get(self.checked.partition as usize) {
            Some(chain) if self.checked.routed.is_none() => {
                let is_valid = chain.state.is_valid(tx_id).map_err(Problem::internal)?;
                Ok(is_valid.then(|| ledger.status(tx_id)).flatten())
            }
            _ => Ok(None),
        }
    }

    async fn endorse(&self) -> Result<Endorsements, Problem> {
        let gateway = self.gateway;
        let channel = &gateway.ledger.checker.channel;
        let contract = channel.contracts.get(&self.checked.proposal.contract);
        let contract = contract.ok_or_else(|| Problem::new(Code::UnknownContract, "").with_field("contract"))?;
        let policy = channel.policy(contract, &self.checked.proposal.function);
        let timeout = gateway.limits.endorse_timeout();
        endorse::endorse(
            &gateway.teams,
            &*gateway.chain,
            policy,
            &self.checked,
            timeout,
            self.deadline,
        )
        .await
    }

    /// The transaction and the certificates that it cites, each once.
    fn transaction(&self, endorsed: Endorsements) -> Result<(BroadcastRequest, Vec<u8>), Problem> {
        let transaction = ledger::Transaction {
            proposal: self.checked.bytes.clone(),
            client: Some(self.checked.signature.clone()),
            result: endorsed.result,
            endorsements: endorsed.signatures,
        };
        let creator: &[u8] = &self.checked.certificate;
        let mut certificates = BTreeMap::new();
        certificates.insert(self.checked.proposal.creator.as_slice(), creator);
        for (signature, der) in transaction.endorsements.iter().zip(&endorsed.certificates) {
            certificates.insert(&signature.certificate, der);
        }
        let certificates = certificates.into_values().map(<[u8]>::to_vec).collect();
        let bytes = transaction.encode_to_vec();
        if bytes.len() > TRANSACTION_BYTES_MAX {
            return Err(Problem::new(
                Code::OutputTooLarge,
                format!("a transaction has at most {TRANSACTION_BYTES_MAX} bytes"),
            ));
        }
        Ok((
            BroadcastRequest {
                id: 0,
                transaction: bytes,
                certificates,
            },
            endorsed.response,
        ))
    }

    /// Sends until there is a receipt, or it is VALID. Refusals of orderers that did nothing are waited
    /// out for a moment: the work of endorsing is done, and the gate bounds how many wait.
    async fn order(&mut self, request: &BroadcastRequest) -> Result<Ordered, Problem> {
        let patience = Instant::now() + Duration::from_millis(self.gateway.limits.order_patience_ms);
        let mut unknown = 0;
        loop {
            match self.gateway.orderers.send(request, self.deadline).await {
                Sent::Ordered(receipt) => match place(&self.gateway.ledger.checker, &receipt, &self.checked) {
                    Some(place) => return Ok(Ordered::Receipt(receipt, place)),
                    None => {
                        self.report("no_proof", "a receipt that proves nothing");
                        unknown += 1;
                    }
                },
                // It was sent before: what this orderer did not do, another may have done.
                Sent::Refused(problem) if unknown > 0 => {
                    tracing::debug!(code = %problem.code, "not ordered again");
                    unknown += 1;
                }
                Sent::Refused(problem) => {
                    let pause = pause(problem.retry_after);
                    let again = Instant::now() + pause;
                    if !may_elsewhere(problem.code) || again >= patience.min(self.deadline) {
                        return Err(problem);
                    }
                    tokio::time::sleep(pause).await;
                }
                Sent::Unknown(why) => {
                    tracing::debug!(
                        tx_id = hex::encode(self.checked.tx_id),
                        why,
                        "outcome of a broadcast unknown"
                    );
                    unknown += 1;
                }
            }
            if unknown > 0 {
                let patience = match unknown {
                    0..BROADCASTS_MAX => self.deadline.min(Instant::now() + UNKNOWN_PATIENCE),
                    _ => self.deadline,
                };
                if let Some(status) = self.judged(None, patience).await {
                    return Ok(Ordered::Seen(status));
                }
            }
            if Instant::now() >= self.deadline {
                return Err(if unknown > 0 {
                    self.unknown_outcome("no receipt and no judgement in time")
                } else {
                    Problem::new(Code::DeadlineExceeded, "not ordered in time")
                });
            }
        }
    }

    /// The judgement of the transaction with this receipt; of copies elsewhere nothing follows. `None`: the chain has
    /// something else at its place, so whoever signed the receipt broke his word.
    async fn judgement(&mut self, place: Place) -> Result<Option<TxStatus>, Problem> {
        let (ledger, partition, deadline) = (&self.gateway.ledger, self.checked.partition, self.deadline);
        let passed = async {
            // Otherwise the wait for the judgement ends by itself.
            if !ledger.reached(partition, place.0, deadline).await {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            status = self.judged(Some(place), deadline) => if status.is_some() { return Ok(status) },
            () = passed => {}
        }
        // A flood of copies may have hidden it from whoever watches.
        let tx_id = self.checked.tx_id;
        let Some(block) = ledger.block(partition, place.0) else {
            return Err(self.unknown_outcome("ordered, and not judged here in time"));
        };
        match block.transactions.get(place.1 as usize) {
            Some(&(found, code)) if found == tx_id => Ok(Some(TxStatus {
                partition,
                height: place.0,
                index: place.1,
                code,
            })),
            _ => {
                self.report("not_there", "a receipt for a place where it is not");
                Ok(None)
            }
        }
    }

    /// A receipt that an honest orderer does not give: counted, and now and then said.
    fn report(&self, reason: &'static str, what: &'static str) {
        static SAID: LazyLock<Seldom> = LazyLock::new(Seldom::default);
        RECEIPT_FAULTS.with_label_values(&[reason]).inc();
        if SAID.may(reason) {
            let (tx_id, partition) = (hex::encode(self.checked.tx_id), self.checked.partition);
            tracing::warn!(tx_id, partition, "{what}");
        }
    }

    /// The next judgement that counts: at the place that the receipt names, or VALID.
    async fn judged(&mut self, place: Option<Place>, deadline: Instant) -> Option<TxStatus> {
        loop {
            let status = self.watch.next(deadline).await?;
            let is_ours = status.partition == self.checked.partition && place == Some((status.height, status.index));
            if is_ours || status.code == code::Code::Valid {
                return Some(status);
            }
            self.stranger = Some(status);
        }
    }

    fn unknown_outcome(&self, why: &str) -> Problem {
        let detail = match self.stranger {
            Some(TxStatus { height, code, .. }) => {
                format!("{why}; a copy at height {height} was judged {}", code.word())
            }
            None => why.to_owned(),
        };
        Problem::new(Code::UnknownOutcome, detail)
    }

    /// Who lost twice to the same neighbours waits a different while than they do.
    async fn breathe(&self) {
        if self.endorsements > 1 {
            let ms = rand::random_range(0..=10 * u64::from(self.endorsements));
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    /// The judgement that follows from heights alone, before anybody has made it.
    async fn too_late(&self, snapshot: u64, (height, index): Place) -> Option<TxStatus> {
        let config = &self.gateway.ledger.checker.channel.config;
        let code = judge_heights(config, height, self.checked.proposal.height_bound, snapshot)?;
        // Endorsed before this peer has come there, it would be as late again.
        let partition = self.checked.partition;
        self.gateway.ledger.reached(partition, height, self.deadline).await;
        Some(TxStatus {
            partition,
            height,
            index,
            code,
        })
    }

    fn ordered(&self, receipt: Receipt, (height, index): Place, response: Vec<u8>) -> Submission {
        Submission {
            reached: Finality::Ordered.into(),
            code: String::new(),
            partition: self.checked.partition,
            height,
            index,
            response,
            endorsements: self.endorsements,
            receipt: Some(receipt),
        }
    }

    /// VALID here; waits for the quorum if asked to. Without it in time the answer says what was reached.
    async fn finish(
        &self,
        status: TxStatus,
        response: Vec<u8>,
        receipt: Option<Receipt>,
    ) -> Result<Submission, Problem> {
        let mut reached = Finality::Committed;
        let began = Instant::now();
        if self.wait == Finality::Attested
            && self
                .gateway
                .ledger
                .attested_reached(status.partition, status.height, self.deadline)
                .await
        {
            reached = Finality::Attested;
            stage("attest", began);
        }
        Ok(Submission {
            reached: reached.into(),
            code: status.code.word().to_owned(),
            partition: status.partition,
            height: status.height,
            index: status.index,
            response,
            endorsements: self.endorsements,
            receipt,
        })
    }
}

fn refusal(tx_id: Option<Digest>, problem: Problem) -> rpc::SubmitReply {
    let outcome = Some(rpc::submit_reply::Outcome::Problem(problem.into()));
    rpc::SubmitReply {
        id: 0,
        tx_id: tx_id.map(|id| id.to_vec()).unwrap_or_default(),
        outcome,
    }
}

/// What an orderer asked for, a little jittered, within bounds.
fn pause(retry_after: Option<Duration>) -> Duration {
    let asked = retry_after
        .unwrap_or(Duration::from_millis(100))
        .clamp(Duration::from_millis(5), Duration::from_millis(500));
    asked.mul_f64(rand::random_range(0.5..1.0))
}

/// Where the transaction stands, as an orderer signed it. Every block brings its orderer's certificate along, so this
/// peer knows those of all that append; a receipt by anybody else is none.
fn place(checker: &Checker, receipt: &Receipt, checked: &Checked) -> Option<Place> {
    let content: ReceiptContent = canonical::decode(&receipt.content).ok()?;
    let mine = content.channel == checker.channel.id
        && content.epoch == 0
        && content.partition == checked.partition
        && content.tx_id == checked.tx_id;
    let signature = receipt.signature.as_ref()?;
    let orderer = checker.certificates.known(&digest(&signature.certificate)?)?;
    let (key, channel) = (&orderer.public_key, &checker.channel.id);
    let verified = checker
        .verifier
        .verify(key, Purpose::Receipt, channel, &receipt.content, signature);
    let signed = orderer.role == Role::Orderer && verified.is_ok();
    (mine && signed).then_some((content.height, content.index))
}
