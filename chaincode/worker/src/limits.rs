//! Every limit of a call. Sizes that end up in a transaction are the protocol's; what is here is the machine's.
//!
//! Limits may differ between workers without harm: each ends the call, and none can be observed by a contract
//! and so change its result.

use protocol::limits::{ARGUMENTS_BYTES_MAX, RESPONSE_BYTES_MAX, TRANSACTION_BYTES_MAX, VALUE_BYTES_MAX};
use serde::Deserialize;
use service::settings::Broken;

/// Of `worker.toml`, `[limits]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Fuel of one call, about one per instruction: 50 million are 50 to 100 ms.
    pub fuel_max: u64,
    /// Linear memory of one call, all of it.
    pub memory_bytes_max: usize,
    /// Elements of the tables of one call.
    pub table_elements_max: usize,
    pub stack_bytes_max: usize,
    /// From the start of a call to its end, with all waiting for answers.
    pub call_ms_max: u64,
    /// Questions to the peer in one call.
    pub questions_max: u32,
    /// Guests that run at the same time. 0: two for each core, at least four.
    pub running_max: usize,
    /// Guests that wait for an answer at the same time; each has a thread. Beyond it a question ends its call as busy.
    pub waiting_max: usize,
    /// Calls that wait for a thread; beyond it they are refused as busy.
    pub queue_items_max: usize,
    pub queue_bytes_max: usize,
    /// Compiled modules that are kept.
    pub modules_max: usize,
    /// How long a call waits for its module to come and be compiled.
    pub module_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel_max: 50_000_000,
            memory_bytes_max: 8 * 1024 * 1024,
            table_elements_max: 4096,
            stack_bytes_max: 512 * 1024,
            call_ms_max: 2_000,
            questions_max: 128,
            running_max: 0,
            waiting_max: 256,
            queue_items_max: 4096,
            queue_bytes_max: 64 * 1024 * 1024,
            modules_max: 16,
            module_ms_max: 15_000,
        }
    }
}

impl Limits {
    pub fn check(&self) -> Result<(), Broken> {
        let rule = |holds: bool, field: &str, rule: &str| {
            if holds {
                Ok(())
            } else {
                Err(Broken::new(format!("limits.{field}"), rule))
            }
        };
        rule(self.fuel_max > 0, "fuel_max", "at least 1")?;
        rule(
            self.memory_bytes_max >= MEMORY_BYTES_MIN,
            "memory_bytes_max",
            "at least 4 MiB: a response and its making",
        )?;
        rule(self.memory_bytes_max <= 1 << 30, "memory_bytes_max", "at most 1 GiB")?;
        rule(
            (64 * 1024..=4 << 20).contains(&self.stack_bytes_max),
            "stack_bytes_max",
            "64 KiB to 4 MiB",
        )?;
        rule(
            (16..=1 << 20).contains(&self.table_elements_max),
            "table_elements_max",
            "16 to 1,048,576",
        )?;
        rule((1..=60_000).contains(&self.call_ms_max), "call_ms_max", "1 to 60,000")?;
        rule(self.running_max <= 1024, "running_max", "at most 1,024")?;
        rule((1..=1024).contains(&self.waiting_max), "waiting_max", "1 to 1,024")?;
        rule(self.queue_items_max > 0, "queue_items_max", "at least 1")?;
        rule(
            self.queue_bytes_max >= 2 * ARGUMENTS_BYTES_MAX,
            "queue_bytes_max",
            "at least two calls' arguments",
        )?;
        rule(self.modules_max > 0, "modules_max", "at least 1")?;
        rule(self.module_ms_max > 0, "module_ms_max", "at least 1")
    }

    /// `running_max` with its default filled in.
    pub fn running(&self) -> usize {
        match self.running_max {
            0 => std::thread::available_parallelism().map_or(4, |cores| (2 * cores.get()).max(4)),
            running => running,
        }
    }
}

/// What an answer and a response need beside each other.
pub const MEMORY_BYTES_MIN: usize = 4 * 1024 * 1024;
/// Writes, policies and events of one call together: what a transaction has room for beside proposal, reads and
/// endorsements.
pub const OUTPUT_BYTES_MAX: usize = TRANSACTION_BYTES_MAX * 3 / 4;
/// Calls of `put`, `delete`, `set-policy` and `emit` in one call, repeated ones too: each is work for the host.
pub const OUTPUT_CALLS_MAX: usize = 4096;
/// One answer of the peer. A peer cuts its pages at half of it, so that one large value more still fits.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Keys that a route may name; the peer reads them all before the call.
pub const ROUTE_KEYS_MAX: usize = 256;
/// A subject is hashed into a partition key, so this bounds nothing but work.
pub const SUBJECT_BYTES_MAX: usize = 256;
/// Rows of a page; a contract that asks for more gets so many.
pub const PAGE_ROWS_MAX: u32 = 256;
/// What a contract's rejection may say.
pub const REJECTION_BYTES_MAX: usize = 1024;
/// What the host copies out of a guest at one time.
pub const COPY_BYTES_MAX: usize = RESPONSE_BYTES_MAX + 64 * 1024;

const _: () = assert!(VALUE_BYTES_MAX < OUTPUT_BYTES_MAX);
const _: () = assert!(OUTPUT_BYTES_MAX < COPY_BYTES_MAX);
const _: () = assert!(2 * VALUE_BYTES_MAX < ANSWER_BYTES_MAX);
