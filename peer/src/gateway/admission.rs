//! The gate before all work: a bound on what is under way, fair between callers, answered at once.
//!
//! Nothing queues here. Whoever does not get in is told when to come back; whoever got in keeps its
//! place until its answer. Once half of the places are taken, a caller that holds more than its share
//! (places / callers) gets no further one, so that one busy client cannot shut out the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGauge;
use protocol::Digest;
use service::Problem;

use super::metrics::{IN_FLIGHT, IN_FLIGHT_BYTES};

pub struct Gate {
    places: usize,
    bytes_max: usize,
    retry_after: Duration,
    state: Mutex<State>,
    in_flight: IntGauge,
    in_flight_bytes: IntGauge,
}

#[derive(Default)]
struct State {
    taken: usize,
    bytes: usize,
    /// Places by caller; without entries for those who hold none.
    callers: HashMap<Digest, usize>,
}

/// A place; given back on drop.
pub struct Permit {
    gate: Arc<Gate>,
    caller: Digest,
    bytes: usize,
}

impl Gate {
    pub fn new(name: &'static str, places: usize, bytes_max: usize, retry_after: Duration) -> Arc<Self> {
        Arc::new(Gate {
            places: places.max(1),
            bytes_max,
            retry_after,
            state: Mutex::default(),
            in_flight: IN_FLIGHT.with_label_values(&[name]),
            in_flight_bytes: IN_FLIGHT_BYTES.with_label_values(&[name]),
        })
    }

    pub fn enter(self: &Arc<Self>, caller: &Digest, bytes: usize) -> Result<Permit, Problem> {
        let mut state = self.state.lock();
        let held = state.callers.get(caller).copied().unwrap_or(0);
        if state.taken >= self.places {
            return Err(self.refuse("too many requests are under way"));
        }
        // An empty gate takes anything, so that no size is refused for ever.
        if state.bytes > 0 && state.bytes + bytes > self.bytes_max {
            return Err(self.refuse("the requests under way hold too many bytes"));
        }
        let callers = state.callers.len() + usize::from(held == 0);
        // As if one more were waiting outside: whoever is alone leaves room for those who come.
        if state.taken >= self.places / 2 && held >= self.places.div_ceil(callers + 1) {
            return Err(self.refuse("this client has more than its share of the requests under way"));
        }
        state.taken += 1;
        state.bytes += bytes;
        *state.callers.entry(*caller).or_default() += 1;
        drop(state);
        self.in_flight.inc();
        self.in_flight_bytes.add(bytes as i64);
        Ok(Permit {
            gate: Arc::clone(self),
            caller: *caller,
            bytes,
        })
    }

    fn refuse(&self, why: &str) -> Problem {
        Problem::exhausted(self.retry_after, why)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.taken -= 1;
        state.bytes -= self.bytes;
        if let Some(held) = state.callers.get_mut(&self.caller) {
            *held -= 1;
            if *held == 0 {
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
}
