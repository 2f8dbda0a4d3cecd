//! Which workers there are. An entry of the settings is a name that may lead to many addresses, and to others later: it is
//! asked for again every few seconds, and each address has a link of its own.
//!
//! ```text
//! entry ─→ addresses ─┬─ new:  connected, primed
//!                     ├─ gone: given no more calls; what is under way on it ends, then its tasks
//!                     └─ none, or no answer: everything stays as it is
//! ```
//! Whichever address it is, the worker's certificate must be for the entry's host.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use service::duplex::Duplex;
use service::mux;
use service::resolve::Resolve;
use service::tls::{self, Target, Trust};
use service::{OnFailure, Role, Tasks};

use super::Workers;
use super::link::{Link, Transport};

/// A new worker is used after this at the latest; one that has gone is noticed by its connection anyway.
const RESOLVE_EVERY: Duration = Duration::from_secs(3);
/// Of one entry: what an answer may make us open.
const ADDRESSES_MAX: usize = 64;
/// Longer than a stream drains.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// A transport to this address, for this entry's name, with its tasks among these.
pub(super) type Connect = Box<dyn Fn(&Tasks, &str, SocketAddr) -> Result<Box<dyn Transport>, tls::Error> + Send + Sync>;

pub(super) struct Discovery {
    tasks: Tasks,
    workers: Arc<Workers>,
    entries: Vec<String>,
    resolver: Arc<dyn Resolve>,
    connect: Connect,
    /// By the entry's place and the address.
    known: BTreeMap<(usize, SocketAddr), Arc<Link>>,
}

/// Over mutual TLS: the certificate must be that of a worker of our own organisation, see `docs/decisions/0004`.
pub(super) fn over_tls(trust: Arc<Trust>) -> Connect {
    Box::new(move |tasks, entry, address| {
        let channel = trust.channel_by(&target(&trust, entry), Arc::new(address))?;
        Ok(Box::new(Duplex::start(tasks, channel, mux::Config::default())))
    })
}

pub(super) fn target(trust: &Trust, entry: &str) -> Target {
    Target::new(entry, Role::Worker, Some(trust.identity().msp_id()))
}

impl Discovery {
    pub(super) fn new(
        tasks: &Tasks,
        workers: &Arc<Workers>,
        entries: &[String],
        resolver: Arc<dyn Resolve>,
        connect: Connect,
    ) -> Self {
        Discovery {
            tasks: tasks.clone(),
            workers: Arc::clone(workers),
            entries: entries.to_vec(),
            resolver,
            connect,
            known: BTreeMap::new(),
        }
    }

    /// Until the tasks end. The links end with them.
    pub(super) async fn run(mut self) {
        let token = self.tasks.token().clone();
        while !token.is_cancelled() {
            tokio::select! {
                () = self.round() => {}
                () = token.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(RESOLVE_EVERY) => {}
                () = token.cancelled() => {}
            }
        }
    }

    /// Asks for all entries at once and does what follows.
    async fn round(&mut self) {
        let asked = self.entries.iter().map(|entry| self.resolver.resolve(entry));
        let answers: Vec<io::Result<_>> = join_all(asked).await;
        let mut unresolved = Vec::new();
        for (entry, answer) in answers.into_iter().enumerate() {
            match answer.map(places) {
                Ok(addresses) => self.settle(entry, &addresses),
                Err(error) => unresolved.push(format!("{}: {error}", self.entries[entry])),
            }
        }
        *self.workers.unresolved.lock() = unresolved;
        self.workers.replace(self.known.values().cloned().collect());
    }

    fn settle(&mut self, entry: usize, addresses: &BTreeSet<SocketAddr>) {
        let name = self.entries[entry].as_str();
        self.known.retain(|(of, address), link| {
            let stays = *of != entry || (addresses.contains(address) && !link.has_ended());
            if !stays {
                tracing::info!(worker = name, %address, "a worker is gone");
                link.end();
            }
            stays
        });
        for address in addresses {
            if self.known.contains_key(&(entry, *address)) {
                continue;
            }
            match self.link(name, *address) {
                Ok(link) => {
                    tracing::info!(worker = name, %address, "a worker has come");
                    self.known.insert((entry, *address), Arc::new(link));
                }
                Err(error) => tracing::warn!(worker = name, %address, %error, "no link to a worker"),
            }
        }
    }

    fn link(&self, name: &str, address: SocketAddr) -> Result<Link, tls::Error> {
        let part = self.tasks.part();
        let transport = (self.connect)(&part, name, address)?;
        let own = part.clone();
        // One that fails is made anew in the next round.
        self.tasks.spawn("a worker's link", OnFailure::Log, async move {
            own.wait(END_DEADLINE).await
        });
        Ok(Link::new(transport, Arc::clone(&self.workers.modules), part))
    }
}

/// A worker that has addresses of both families is one worker.
fn places(addresses: Vec<SocketAddr>) -> BTreeSet<SocketAddr> {
    let four = addresses.iter().any(SocketAddr::is_ipv4);
    let places: BTreeSet<_> = addresses.into_iter().filter(|place| place.is_ipv4() == four).collect();
    places.into_iter().take(ADDRESSES_MAX).collect()
}

#[cfg(test)]
mod tests;
