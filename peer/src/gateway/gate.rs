//! The gate before all work: a bound on what is under way, fair between callers, answered at once.
//!
//! Nothing queues here. Whoever does not get in is told when to come back; whoever got in keeps its
//! place until its answer. Once half of the places are taken, a caller that holds more than its share
//! (places / callers) gets no further one, so that one busy client cannot shut out the others.
//!
//! How many places there are follows from how long the served ones took. If most of a while took longer
//! than the target, they waited for one another, and there are more of them under way than is of use: then
//! there are as many places as are served in the target's time (Little's law). Otherwise places come back, up
//! to the bound. Most, not all: under load a few are always quick; not the mean: a few may hang.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metric::Gauge;
use parking_lot::Mutex;
use protocol::Digest;
use service::Problem;

use tokio::time::Instant;

use crate::metrics::{IN_FLIGHT, IN_FLIGHT_BYTES, IN_FLIGHT_MAX};

/// Places that stay however slow everything is: fewer would measure nothing.
const PLACES_MIN: usize = 64;
/// How long is looked at least before the places change, and how many must have been served meanwhile.
/// What a change did is seen only after those who came before it, so it is looked for the target at least.
const WINDOW: Duration = Duration::from_millis(200);
const WINDOW_SERVED_MIN: u32 = 16;

pub struct Gate {
    /// Places that one caller may hold, however empty it is.
    each_max: usize,
    bytes_max: usize,
    retry_after: Duration,
    state: Mutex<State>,
    in_flight: Gauge,
    in_flight_max: Gauge,
    in_flight_bytes: Gauge,
}

struct State {
    taken: usize,
    bytes: usize,
    /// What callers hold; without entries for those who hold nothing.
    callers: HashMap<Digest, Held>,
    pace: Pace,
}

#[derive(Clone, Copy, Default)]
struct Held {
    places: usize,
    bytes: usize,
}

/// How many places there are. Pure: time is an argument.
#[derive(Debug)]
struct Pace {
    places: usize,
    places_max: usize,
    /// `None`: the bound is all there is.
    target: Option<Duration>,
    began: Instant,
    served: u32,
    /// Of those, how many took longer than the target.
    late: u32,
}

impl Pace {
    fn new(places_max: usize, target: Option<Duration>, now: Instant) -> Self {
        let places_max = places_max.max(1);
        Pace {
            places: places_max,
            places_max,
            target,
            began: now,
            served: 0,
            late: 0,
        }
    }

    /// Something that came `took` ago was served in full.
    fn served(&mut self, took: Duration, now: Instant) {
        let Some(target) = self.target else { return };
        self.served += 1;
        self.late += u32::from(took > target);
        let window = now - self.began;
        let is_slow = self.late > self.served / 2;
        let length = if is_slow { WINDOW.max(target) } else { WINDOW };
        if window < length || self.served < WINDOW_SERVED_MIN {
            return;
        }
        self.places = if is_slow {
            let in_target = f64::from(self.served) * target.as_secs_f64() / window.as_secs_f64();
            (in_target as usize).max(PLACES_MIN).min(self.places)
        } else {
            self.places + self.places / 8 + 1
        };
        *self = Pace {
            places: self.places.min(self.places_max),
            ..Pace::new(self.places_max, self.target, now)
        };
    }
}

/// A place; given back on drop.
pub struct Permit {
    gate: Arc<Gate>,
    caller: Digest,
    bytes: usize,
    entered: Instant,
}

impl Gate {
    pub fn new(name: &'static str, places: usize, bytes_max: usize, retry_after: Duration) -> Arc<Self> {
        Self::paced(name, places, bytes_max, retry_after, None)
    }

    /// For what is held long and costs much while it is: `each_max` of the places for one caller.
    pub fn shared(name: &'static str, places: usize, each_max: usize, retry_after: Duration) -> Arc<Self> {
        Self::build(name, places, each_max, usize::MAX, retry_after, None)
    }

    /// With fewer places while most of what is served takes longer than `target`.
    pub fn paced(
        name: &'static str,
        places: usize,
        bytes_max: usize,
        retry_after: Duration,
        target: Option<Duration>,
    ) -> Arc<Self> {
        Self::build(name, places, usize::MAX, bytes_max, retry_after, target)
    }

    fn build(
        name: &'static str,
        places: usize,
        each_max: usize,
        bytes_max: usize,
        retry_after: Duration,
        target: Option<Duration>,
    ) -> Arc<Self> {
        let state = State {
            taken: 0,
            bytes: 0,
            callers: HashMap::new(),
            pace: Pace::new(places, target, Instant::now()),
        };
        let in_flight_max = IN_FLIGHT_MAX.with_label_values(&[name]);
        in_flight_max.set(state.pace.places as i64);
        Arc::new(Gate {
            each_max,
            bytes_max,
            retry_after,
            state: Mutex::new(state),
            in_flight: IN_FLIGHT.with_label_values(&[name]),
            in_flight_max,
            in_flight_bytes: IN_FLIGHT_BYTES.with_label_values(&[name]),
        })
    }

    pub fn enter(self: &Arc<Self>, caller: &Digest, bytes: usize) -> Result<Permit, Problem> {
        let mut state = self.state.lock();
        let held = state.callers.get(caller).copied().unwrap_or_default();
        let places = state.pace.places;
        if state.taken >= places {
            return Err(self.refuse("too many requests are under way"));
        }
        if held.places >= self.each_max {
            return Err(self.refuse("this client has as many under way as one may have"));
        }
        // An empty gate takes anything, so that no size is refused for ever.
        if state.bytes > 0 && state.bytes + bytes > self.bytes_max {
            return Err(self.refuse("the requests under way hold too many bytes"));
        }
        let callers = state.callers.len() + usize::from(held.places == 0);
        // As if one more were waiting outside: whoever is alone leaves room for those who come.
        if state.taken >= places / 2 && held.places >= places.div_ceil(callers + 1) {
            return Err(self.refuse("this client has more than its share of the requests under way"));
        }
        // Few that are large shut out others as well as many.
        let crowded = state.bytes + bytes > self.bytes_max / 2;
        if crowded && held.places > 0 && held.bytes + bytes > self.bytes_max.div_ceil(callers + 1) {
            return Err(self.refuse("this client has more than its share of the bytes under way"));
        }
        state.taken += 1;
        state.bytes += bytes;
        let held = state.callers.entry(*caller).or_default();
        held.places += 1;
        held.bytes += bytes;
        drop(state);
        self.in_flight.inc();
        self.in_flight_bytes.add(bytes as i64);
        Ok(Permit {
            gate: Arc::clone(self),
            caller: *caller,
            bytes,
            entered: Instant::now(),
        })
    }

    fn refuse(&self, why: &str) -> Problem {
        Problem::exhausted(self.retry_after, why)
    }
}

impl Permit {
    /// It went all the way, so what it took says how much waits there. A refusal says nothing.
    pub fn served(&self) {
        let now = Instant::now();
        let mut state = self.gate.state.lock();
        state.pace.served(now - self.entered, now);
        self.gate.in_flight_max.set(state.pace.places as i64);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.taken -= 1;
        state.bytes -= self.bytes;
        if let Some(held) = state.callers.get_mut(&self.caller) {
            held.places -= 1;
            held.bytes -= self.bytes;
            if held.places == 0 {
                state.callers.remove(&self.caller);
            }
        }
        drop(state);
        self.gate.in_flight.dec();
        self.gate.in_flight_bytes.sub(self.bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use service::Code;

    use super::*;

    fn gate(places: usize, bytes: usize) -> Arc<Gate> {
        Gate::new("test", places, bytes, Duration::from_millis(200))
    }

    #[test]
    fn beyond_the_bound_the_answer_is_429_with_a_delay() {
        let gate = gate(2, 1_000);
        let held: Vec<Permit> = (1..3).map(|who| gate.enter(&[who; 32], 10).expect("a place")).collect();
        let refused = gate.enter(&[1; 32], 10).err().expect("full");
        assert_eq!(refused.code, Code::ResourceExhausted);
        assert_eq!(refused.retry_after, Some(Duration::from_millis(200)));
        drop(held);
        assert!(gate.enter(&[1; 32], 10).is_ok());
        assert!(gate.state.lock().callers.is_empty(), "callers at rest are forgotten");
    }

    #[test]
    fn bytes_are_bounded_but_no_size_is_refused_for_ever() {
        let gate = gate(10, 100);
        let large = gate.enter(&[1; 32], 500).expect("alone");
        assert!(gate.enter(&[1; 32], 1).is_err());
        drop(large);
        assert!(gate.enter(&[1; 32], 1).is_ok());
    }

    #[test]
    fn a_busy_client_does_not_shut_out_others() {
        let gate = gate(100, usize::MAX);
        let mut busy = Vec::new();
        while let Ok(permit) = gate.enter(&[1; 32], 1) {
            busy.push(permit);
        }
        assert_eq!(busy.len(), 50);
        assert!(gate.enter(&[2; 32], 1).is_ok());
        assert!(gate.enter(&[3; 32], 1).is_ok());
    }

    #[test]
    fn a_client_with_large_requests_does_not_shut_out_others() {
        let gate = gate(100, 1_000);
        let mut busy = Vec::new();
        while let Ok(permit) = gate.enter(&[1; 32], 100) {
            busy.push(permit);
        }
        assert_eq!(busy.len(), 5);
        let other: Vec<Permit> = (0..3).map(|_| gate.enter(&[2; 32], 100).expect("its share")).collect();
        assert!(gate.enter(&[2; 32], 100).is_err());
        drop((busy, other));
        assert!(gate.state.lock().callers.is_empty());
    }

    #[test]
    fn one_client_holds_no_more_than_one_may() {
        let gate = Gate::shared("test", 100, 2, Duration::from_millis(200));
        let held = [gate.enter(&[1; 32], 0), gate.enter(&[1; 32], 0)];
        assert!(held.iter().all(Result::is_ok) && gate.enter(&[1; 32], 0).is_err());
        assert!(gate.enter(&[2; 32], 0).is_ok());
        drop(held);
        assert!(gate.enter(&[1; 32], 0).is_ok());
    }

    const TARGET: Duration = Duration::from_secs(1);

    /// As many come as are let in, `rate` a second are served in turn, for so many seconds. Returns how
    /// long the last one took.
    async fn serve(gate: &Arc<Gate>, rate: u32, seconds: u32) -> Duration {
        let mut under_way = std::collections::VecDeque::new();
        let mut took = Duration::ZERO;
        let mut who = 0_u32;
        for _ in 0..rate * seconds {
            // Of many callers, so that shares bind nobody.
            let caller = |who: u32| protocol::sha256(&who.to_be_bytes());
            while let Ok(permit) = gate.enter(&caller(who), 1) {
                under_way.push_back(permit);
                who += 1;
            }
            tokio::time::advance(Duration::from_secs(1) / rate).await;
            let permit = under_way.pop_front().expect("one is under way");
            took = permit.entered.elapsed();
            permit.served();
        }
        took
    }

    #[tokio::test(start_paused = true)]
    async fn the_slower_the_service_the_fewer_are_let_in_and_back() {
        let gate = Gate::paced("test", 1_024, usize::MAX, Duration::from_millis(200), Some(TARGET));
        let took = serve(&gate, 2_000, 5).await;
        assert!(took < TARGET, "{took:?}");
        assert_eq!(gate.state.lock().pace.places, 1_024, "nothing waits too long");
        let took = serve(&gate, 200, 20).await;
        assert!(took < TARGET * 3 / 2, "{took:?}");
        assert!((150..300).contains(&gate.state.lock().pace.places));
        serve(&gate, 20, 60).await;
        assert_eq!(gate.state.lock().pace.places, PLACES_MIN);
        serve(&gate, 2_000, 20).await;
        assert_eq!(gate.state.lock().pace.places, 1_024, "they come back");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_and_those_that_are_refused_take_no_places() {
        let gate = Gate::paced("test", 1_024, usize::MAX, Duration::from_millis(200), Some(TARGET));
        let hangs = gate.enter(&[1; 32], 1).expect("a place");
        for _ in 0..1_000 {
            let served = gate.enter(&[2; 32], 1).expect("a place");
            drop(gate.enter(&[3; 32], 1).expect("a place"));
            tokio::time::advance(Duration::from_millis(20)).await;
            served.served();
        }
        hangs.served();
        assert_eq!(gate.state.lock().pace.places, 1_024);
    }
}
