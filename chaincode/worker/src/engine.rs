//! The engine: a component is compiled once, a call gets an instance of its own.
//!
//! Deterministic: no threads, no relaxed SIMD, NaNs in one form, no import but the contract's world. Limits are in
//! [`Limits`]; each ends the call with its own word. Instances come out of a pool whose pages stay resident, so
//! that a small call costs tens of microseconds.

use std::time::{Duration, Instant};

use protocol::limits::{ARGUMENTS_BYTES_MAX, FUNCTION_NAME_BYTES_MAX, RESPONSE_BYTES_MAX};
use service::rpc;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig, Store, Trap};

use crate::failure::{Code, Failure};
use crate::guest::{Guest, Peer, Place, bindings};
use crate::limits::{COPY_BYTES_MAX, Limits, REJECTION_BYTES_MAX, ROUTE_KEYS_MAX, SUBJECT_BYTES_MAX};
use crate::metrics;
use crate::ticker::{Ticker, ticks};

/// Instances of core modules in one component: the contract, and what joins it to its imports.
const CORE_INSTANCES_MAX: u32 = 8;
const TABLES_MAX: u32 = 4;
/// How wasmtime says that a guest handed over more than the host copies at one time.
const COPIED_TOO_MUCH: &str = "data is being copied between the host and the guest";
/// Pages of an instance that are cleared and kept instead of given back to the system.
const KEEP_RESIDENT_BYTES: usize = 256 * 1024;

/// One call.
#[derive(Clone, Debug)]
pub enum Call {
    Route {
        function: String,
        arguments: Vec<u8>,
    },
    Invoke {
        function: String,
        arguments: Vec<u8>,
        context: rpc::Context,
        entries: Vec<rpc::Entry>,
    },
}

impl Call {
    /// For metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Call::Route { .. } => "route",
            Call::Invoke { .. } => "invoke",
        }
    }

    /// What it holds while it waits.
    pub fn bytes(&self) -> usize {
        match self {
            Call::Route { arguments, .. } => arguments.len(),
            Call::Invoke { arguments, entries, .. } => {
                arguments.len()
                    + entries
                        .iter()
                        .map(|entry| entry.key.len() + entry.value.len())
                        .sum::<usize>()
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Routed(rpc::Routed),
    Done(rpc::Done),
}

/// A compiled contract.
#[derive(Clone)]
pub struct Module(bindings::ContractPre<Guest>);

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("these limits do not make an engine: {0}")]
    Limits(String),
    #[error("no thread for the clock: {0}")]
    Thread(#[from] std::io::Error),
}

impl From<wasmtime::Error> for StartError {
    fn from(error: wasmtime::Error) -> Self {
        StartError::Limits(format!("{error:#}"))
    }
}

pub struct Engine {
    wasm: wasmtime::Engine,
    linker: Linker<Guest>,
    limits: Limits,
    _ticker: Ticker,
}

impl Engine {
    /// `instances_max`: calls at the same time, which is the size of the pool.
    pub fn new(limits: &Limits, instances_max: usize) -> Result<Self, StartError> {
        let wasm = wasmtime::Engine::new(&config(limits, instances_max))?;
        let mut linker = Linker::new(&wasm);
        bindings::Contract::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
        let ticker = Ticker::start(wasm.clone())?;
        Ok(Self {
            wasm,
            linker,
            limits: limits.clone(),
            _ticker: ticker,
        })
    }

    /// Compiles a component and checks that it is a contract. Takes as long as it takes: not on a thread that serves.
    pub fn compile(&self, component: &[u8]) -> Result<Module, Failure> {
        let started = Instant::now();
        let invalid = |detail| move |_| Failure::new(Code::ModuleInvalid, detail);
        let component = Component::new(&self.wasm, component).map_err(invalid("it does not compile"))?;
        let instance = self
            .linker
            .instantiate_pre(&component)
            .map_err(invalid("it imports what no contract may"))?;
        let module = bindings::ContractPre::new(instance).map_err(invalid("it does not export route and invoke"))?;
        metrics::COMPILE_SECONDS.observe(started.elapsed().as_secs_f64());
        Ok(Module(module))
    }

    /// Runs one call on this thread, to its end. The fuel it took comes along, and the peer that was asked.
    pub fn call(&self, module: &Module, call: Call, peer: Box<dyn Peer>) -> (Result<Outcome, Failure>, Box<dyn Peer>) {
        let started = Instant::now();
        let kind = call.kind();
        let deadline = started + Duration::from_millis(self.limits.call_ms_max);
        let mut store = Store::new(
            &self.wasm,
            Guest::new(place(&call), self.limits.clone(), deadline, peer),
        );
        let outcome = match self.prepare(&mut store, &call) {
            Ok(()) => self.run(module, &mut store, call),
            Err(failure) => Err(failure),
        };
        let fuel = self.limits.fuel_max - store.get_fuel().unwrap_or(0).min(self.limits.fuel_max);
        let outcome = outcome.map(|outcome| match outcome {
            Outcome::Done(done) => Outcome::Done(rpc::Done { fuel, ..done }),
            routed => routed,
        });
        metrics::FUEL.inc_by(fuel);
        metrics::SECONDS
            .with_label_values(&[kind])
            .observe(started.elapsed().as_secs_f64());
        let word = outcome.as_ref().map_or_else(|failure| failure.code.as_str(), |_| "ok");
        metrics::CALLS.with_label_values(&[kind, word]).inc();
        (outcome, store.into_data().into_peer())
    }

    fn prepare(&self, store: &mut Store<Guest>, call: &Call) -> Result<(), Failure> {
        let (Call::Route { function, arguments }
        | Call::Invoke {
            function, arguments, ..
        }) = call;
        if function.len() > FUNCTION_NAME_BYTES_MAX {
            return Err(Failure::new(Code::UnknownFunction, "no function has so long a name"));
        }
        if arguments.len() > ARGUMENTS_BYTES_MAX {
            return Err(Failure::new(Code::BadArguments, "larger than arguments may be"));
        }
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(COPY_BYTES_MAX);
        store.set_epoch_deadline(ticks(Duration::from_millis(self.limits.call_ms_max)));
        store
            .set_fuel(self.limits.fuel_max)
            .map_err(|_| Failure::new(Code::Trapped, "no fuel"))
    }

    fn run(&self, module: &Module, store: &mut Store<Guest>, call: Call) -> Result<Outcome, Failure> {
        let contract = match module.0.instantiate(&mut *store) {
            Ok(contract) => contract,
            Err(error) => return Err(failed(store, &error, true)),
        };
        match call {
            Call::Route { function, arguments } => match contract.call_route(&mut *store, &function, &arguments) {
                Ok(Ok(routed)) => checked_route(routed).map(Outcome::Routed),
                Ok(Err(rejection)) => Err(rejected(rejection)),
                Err(error) => Err(failed(store, &error, false)),
            },
            Call::Invoke {
                function,
                arguments,
                context,
                entries,
            } => {
                store.data_mut().bring(entries);
                let context = context_of(context);
                match contract.call_invoke(&mut *store, &context, &function, &arguments) {
                    Ok(Ok(response)) if response.len() > RESPONSE_BYTES_MAX => {
                        Err(Failure::too_large("the response is larger than one may be"))
                    }
                    Ok(Ok(response)) => Ok(Outcome::Done(store.data_mut().done(response))),
                    Ok(Err(rejection)) => Err(rejected(rejection)),
                    Err(error) => Err(failed(store, &error, false)),
                }
            }
        }
    }
}

fn place(call: &Call) -> Place {
    match call {
        Call::Route { .. } => Place::Route,
        Call::Invoke { context, .. } if context.query => Place::Query,
        Call::Invoke { .. } => Place::Submit,
    }
}

fn config(limits: &Limits, instances_max: usize) -> Config {
    let instances = u32::try_from(instances_max)
        .unwrap_or(u32::MAX / CORE_INSTANCES_MAX)
        .min(u32::MAX / CORE_INSTANCES_MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances * CORE_INSTANCES_MAX)
        .total_memories(instances)
        .total_tables(instances * TABLES_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(1)
        .max_memories_per_module(1)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .table_elements(limits.table_elements_max)
        .max_memory_size(limits.memory_bytes_max)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .wasm_component_model(true)
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(limits.stack_bytes_max)
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_tail_call(false)
        // A slot of the pool is as large as a memory may be. Every access is checked, as the slot is smaller than what 32
        // bits reach; so no guard is needed, and a memory that grew is not protected anew after each call, which
        // cost a third of it: with several threads `mprotect` interrupts all cores.
        .memory_reservation(limits.memory_bytes_max as u64)
        .memory_guard_size(0)
        .guard_before_linear_memory(false)
        .memory_init_cow(true);
    config
}

/// Why the guest ended. What the host said comes first: it knows its own reason.
fn failed(store: &mut Store<Guest>, error: &wasmtime::Error, starting: bool) -> Failure {
    if let Some(stop) = store.data_mut().take_stop() {
        return stop;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Failure::new(Code::FuelExhausted, "the call used up its fuel"),
        Some(Trap::Interrupt) => Failure::timed_out(),
        Some(Trap::StackOverflow) => Failure::new(Code::StackExhausted, "the call went deeper than its stack"),
        Some(Trap::UnreachableCodeReached) => Failure::new(Code::Trapped, "the contract gave up: it panicked"),
        Some(Trap::MemoryOutOfBounds) => {
            Failure::new(Code::Trapped, "it went outside its memory, or over its stack there")
        }
        Some(Trap::IntegerDivisionByZero) => Failure::new(Code::Trapped, "it divided by zero"),
        Some(_) => Failure::new(Code::Trapped, "it did what a machine does not do"),
        None if error.is::<wasmtime::PoolConcurrencyLimitError>() => Failure::new(Code::Busy, "no instance is free"),
        None if starting => Failure::new(Code::ModuleInvalid, "it does not start within the limits"),
        // The type is not public; its text is wasmtime's own.
        None if error.chain().any(|cause| cause.to_string().contains(COPIED_TOO_MUCH)) => {
            Failure::too_large("more was handed over at one time than may be")
        }
        None => Failure::new(Code::Trapped, "it broke the rules of the component model"),
    }
}

fn checked_route(routed: bindings::Routed) -> Result<rpc::Routed, Failure> {
    if routed.subject.len() > SUBJECT_BYTES_MAX {
        return Err(Failure::too_large("the subject is longer than one may be"));
    }
    if routed.keys.len() > ROUTE_KEYS_MAX {
        return Err(Failure::too_large("the route names more keys than it may"));
    }
    routed.keys.iter().try_for_each(|key| crate::guest::check_key(key))?;
    if routed.subject.is_empty() && !routed.query {
        return Err(Failure::forbidden("only a query can be about nobody"));
    }
    Ok(rpc::Routed {
        subject: routed.subject,
        keys: routed.keys,
        query: routed.query,
    })
}

fn rejected(rejection: bindings::Rejection) -> Failure {
    use bindings::medledger::contract::types::Refusal;
    if rejection.field.len() + rejection.reason.len() > REJECTION_BYTES_MAX {
        return Failure::too_large("the rejection is longer than one may be");
    }
    let code = match rejection.kind {
        Refusal::Rejected => Code::Rejected,
        Refusal::BadArguments => Code::BadArguments,
        Refusal::UnknownFunction => Code::UnknownFunction,
    };
    Failure {
        code,
        detail: rejection.reason.into(),
        field: rejection.field,
    }
}

fn context_of(context: rpc::Context) -> bindings::Context {
    use bindings::medledger::contract::types::Attribute;
    bindings::Context {
        tx_id: context.tx_id,
        query: context.query,
        client_time_ms: context.client_time_ms,
        organisation: context.organisation,
        common_name: context.common_name,
        role: context.role,
        attributes: context
            .attributes
            .into_iter()
            .map(|attribute| Attribute {
                name: attribute.name,
                value: attribute.value,
            })
            .collect(),
        asserted: context.asserted,
    }
}
