//! Many clients at many gateways, each making one create after another, and the book of how they ended.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use medledger_cli::{calls, network::spec::RECORDS, patients};
use parking_lot::Mutex;
use protocol::{Digest, ledger::Receipt};
use service::{Code, OnFailure, Problem, Tasks, rpc::Finality};
use tokio::{sync::watch, time::Instant};

use super::{
    PATIENCE, World,
    client::{Client, End, Signed},
};

/// Of so many creates one waits for the receipt only.
const ORDERED_EVERY: u64 = 5;
/// Before a refused client comes again, as it was told or as it sees fit.
const COME_AGAIN: Duration = Duration::from_millis(100);

/// What an acknowledgement promised.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub tx_id: Digest,
    pub partition: u32,
    pub height: u64,
    pub index: u32,
    /// Of those that were told `committed`.
    pub committed: bool,
    pub receipt: Option<Receipt>,
}

/// How everything ended.
#[derive(Default)]
pub struct Book {
    pub acknowledged: Vec<Acknowledged>,
    /// Signed, and surely not ordered.
    pub refused: Vec<Digest>,
    pub invalid: Vec<(Digest, Problem)>,
    /// By gateway.
    pub unknown: Vec<(String, Signed)>,
    /// Refusals by word, also of what was never signed.
    pub words: BTreeMap<&'static str, u64>,
    /// From the call to a refusal for want of room.
    pub refusal_times: Vec<Duration>,
    /// Refusals for want of room that did not say when to come back.
    pub without_delay: u64,
}

pub struct Load {
    tasks: Tasks,
    shared: Arc<Shared>,
    clients: Vec<Arc<Client>>,
}

struct Shared {
    book: Mutex<Book>,
    next: AtomicU64,
    /// Acknowledged, by gateway.
    done: BTreeMap<String, watch::Sender<u64>>,
    gap: Mutex<Gap>,
    within: Duration,
    contract: &'static str,
    pause: Duration,
}

/// How long nothing at all was acknowledged, at most.
struct Gap {
    last: Instant,
    longest: Duration,
}

/// What to offer.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Creates under way at each gateway.
    pub at_once: usize,
    pub within: Duration,
    /// Between one create and the next of the same client.
    pub pause: Duration,
    /// Indexes of patients from here on: loads of one network never meet.
    pub first: u64,
}

impl Default for Offer {
    fn default() -> Self {
        Offer {
            at_once: 4,
            within: Duration::from_secs(20),
            pause: Duration::ZERO,
            first: 0,
        }
    }
}

impl Load {
    /// At all of the gateways, by their physicians, until it is stopped.
    pub fn start(world: &World, gateways: &[String], offer: Offer) -> Load {
        let clients: Vec<Arc<Client>> = gateways.iter().map(|peer| world.client(peer, "physician")).collect();
        let shared = Arc::new(Shared {
            book: Mutex::default(),
            next: AtomicU64::new(offer.first),
            done: gateways
                .iter()
                .map(|peer| (peer.clone(), watch::Sender::new(0)))
                .collect(),
            gap: Mutex::new(Gap::from_now()),
            within: offer.within,
            contract: RECORDS,
            pause: offer.pause,
        });
        let tasks = Tasks::new();
        for client in &clients {
            for _ in 0..offer.at_once {
                let (client, shared, token) = (client.clone(), shared.clone(), tasks.token().clone());
                tasks.spawn("client", OnFailure::StopProcess, async move {
                    while !token.is_cancelled() {
                        shared.one(&client).await;
                    }
                });
            }
        }
        Load { tasks, shared, clients }
    }

    fn done(&self, gateway: &str) -> &watch::Sender<u64> {
        self.shared.done.get(gateway).expect("a gateway of this load")
    }

    /// Until each of the gateways has acknowledged so many more, counted from now.
    pub async fn goes_on<S: AsRef<str>>(&self, gateways: &[S], more: u64, when: &str) {
        let from: Vec<u64> = gateways
            .iter()
            .map(|gateway| *self.done(gateway.as_ref()).borrow())
            .collect();
        for (gateway, from) in gateways.iter().map(AsRef::as_ref).zip(from) {
            let mut done = self.done(gateway).subscribe();
            let waited = tokio::time::timeout(PATIENCE, done.wait_for(|done| *done >= from + more)).await;
            if waited.is_err() {
                let now = *self.done(gateway).borrow();
                panic!(
                    "{when}: {gateway} acknowledged {} of {more} in {PATIENCE:?}; so far {}",
                    now - from,
                    self.words()
                );
            }
        }
    }

    /// How many were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.done.values().map(|done| *done.borrow()).sum()
    }

    /// The longest time without any acknowledgement since this was asked last.
    pub fn take_longest_gap(&self) -> Duration {
        let mut gap = self.shared.gap.lock();
        gap.acknowledged();
        std::mem::replace(&mut *gap, Gap::from_now()).longest
    }

    pub fn words(&self) -> String {
        let book = self.shared.book.lock();
        format!(
            "{} acknowledged, {} unknown, refused: {:?}",
            book.acknowledged.len(),
            book.unknown.len(),
            book.words
        )
    }

    /// Lets every client finish what it is at.
    pub async fn stop(self) -> Book {
        self.tasks.cancel();
        let within = self.shared.within * 2 + PATIENCE;
        self.tasks.wait(within).await.expect("every call ends by its deadline");
        self.clients.iter().for_each(|client| client.session.close());
        std::mem::take(&mut *self.shared.book.lock())
    }
}

impl Gap {
    fn from_now() -> Gap {
        Gap {
            last: Instant::now(),
            longest: Duration::ZERO,
        }
    }

    fn acknowledged(&mut self) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
    }
}

impl Shared {
    async fn one(&self, client: &Client) {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let call = calls::create(self.contract, &patients::patient(patients::SEED, index));
        let wait = if index.is_multiple_of(ORDERED_EVERY) {
            Finality::Ordered
        } else {
            Finality::Committed
        };
        let called = Instant::now();
        let (signed, end) = client.send(call, wait, self.within).await;
        let refused = matches!(end, End::Refused(_));
        self.enter(client.peer(), signed, end, called.elapsed());
        if refused {
            tokio::time::sleep(COME_AGAIN).await;
        } else if !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
    }

    fn enter(&self, gateway: &str, signed: Option<Signed>, end: End, took: Duration) {
        let mut book = self.book.lock();
        match (end, signed) {
            (End::Done(done), Some(signed)) => {
                book.acknowledged.push(Acknowledged {
                    tx_id: signed.tx_id,
                    partition: done.partition,
                    height: done.height,
                    index: done.index,
                    committed: done.reached() != Finality::Ordered,
                    receipt: done.receipt,
                });
                drop(book);
                self.gap.lock().acknowledged();
                if let Some(count) = self.done.get(gateway) {
                    count.send_modify(|count| *count += 1);
                }
            }
            (End::Refused(problem), signed) => {
                *book.words.entry(problem.code.as_str()).or_default() += 1;
                if problem.code == Code::ResourceExhausted {
                    book.refusal_times.push(took);
                    book.without_delay += u64::from(problem.retry_after.is_none());
                }
                book.refused.extend(signed.map(|signed| signed.tx_id));
            }
            (End::Invalid(problem), Some(signed)) => {
                *book.words.entry(problem.code.as_str()).or_default() += 1;
                book.invalid.push((signed.tx_id, problem));
            }
            (End::Unknown(_), Some(signed)) => book.unknown.push((gateway.to_owned(), signed)),
            (end, None) => panic!("nothing was signed, and yet: {end:?}"),
        }
    }
}

impl Book {
    /// Everything of another load.
    pub fn join(&mut self, other: Book) {
        self.acknowledged.extend(other.acknowledged);
        self.refused.extend(other.refused);
        self.invalid.extend(other.invalid);
        self.unknown.extend(other.unknown);
        for (word, count) in other.words {
            *self.words.entry(word).or_default() += count;
        }
        self.refusal_times.extend(other.refusal_times);
        self.without_delay += other.without_delay;
    }

    /// The share `of` of all refusals for want of room came within.
    pub fn refusals_within(&self, of: f64) -> Duration {
        let mut times = self.refusal_times.clone();
        times.sort();
        let at = ((times.len() as f64 * of) as usize).min(times.len().saturating_sub(1));
        times.get(at).copied().unwrap_or_default()
    }
}
