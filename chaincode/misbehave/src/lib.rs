//! Hostile guests: what a worker must survive. Each function breaks one limit; the worker's tests say
//! which error each must end in, and that others are served meanwhile.
//!
//! Never part of a channel. The table is written by hand because `sdk::contract!` cannot misbehave in `route`.

use std::hint::black_box;

use sdk::{Ctx, Function, Rejection, Routed};

fn routed(query: bool) -> Result<Routed, Rejection> {
    Ok(Routed {
        subject: "someone".into(),
        keys: vec![b"here".to_vec()],
        query,
    })
}

macro_rules! function {
    ($name:literal, $run:expr) => {
        function!($name, false, |_| routed(false), $run)
    };
    (query $name:literal, $run:expr) => {
        function!($name, true, |_| routed(true), $run)
    };
    ($name:literal, $query:literal, $route:expr, $run:expr) => {
        Function {
            name: $name,
            query: $query,
            parameters: &[],
            route: $route,
            invoke: $run,
        }
    };
}

const DONE: Result<Vec<u8>, Rejection> = Ok(Vec::new());

pub const FUNCTIONS: &[Function] = &[
    function!("behave", |ctx, _| Ok(ctx.get_bytes("here").unwrap_or(b"null".to_vec()))),
    // Fuel.
    function!("loop", |_, _| spin()),
    // Wall time: copying costs little fuel for its time.
    function!("copy", |_, _| copy()),
    // Memory.
    function!("memory", |_, _| hoard()),
    // Stack.
    function!("recursion", |_, _| Ok(vec![recurse(black_box(1)) as u8])),
    // Traps.
    function!("trap", |_, _| panic!("on purpose")),
    function!("divide", |_, _| Ok(vec![1 / black_box(0u8)])),
    // Output.
    function!("response", |_, _| Ok(vec![b'x'; 3 << 20])),
    function!("writes", |ctx, _| {
        for number in 0..u32::MAX {
            ctx.put_bytes(number.to_be_bytes(), b"x");
        }
        DONE
    }),
    function!("value", |ctx, _| {
        ctx.put_bytes("key", &vec![0; 2 << 20]);
        DONE
    }),
    function!("same", |ctx, _| {
        // One key again and again is one write, and still work for the host.
        for _ in 0..u32::MAX {
            ctx.put_bytes("key", &[0; 1024]);
        }
        DONE
    }),
    function!("events", |ctx, _| {
        for _ in 0..u32::MAX {
            ctx.host().emit("event", &[0; 1024]);
        }
        DONE
    }),
    function!("key", |ctx, _| {
        ctx.put_bytes([b'k'; 513], b"x");
        DONE
    }),
    function!("policy", |ctx, _| {
        ctx.set_policy("here", &"x".repeat(1 << 20));
        DONE
    }),
    // Questions.
    function!("ask", |ctx, _| {
        for number in 0..u32::MAX {
            let _ = ctx.get_bytes(number.to_be_bytes());
        }
        DONE
    }),
    function!("ask-once", |ctx, _| Ok(ctx
        .get_bytes("elsewhere")
        .unwrap_or(b"null".to_vec()))),
    // What its place forbids.
    function!(query "query-writes", |ctx, _| {
        ctx.put_bytes("key", b"x");
        DONE
    }),
    function!("submit-history", |ctx, _| {
        let _ = ctx.history("here", 0, 1);
        DONE
    }),
    function!("submit-list", |ctx, _| {
        let _ = ctx.list("here", None, 1);
        DONE
    }),
    // In route.
    function!("route-loop", false, |_| spin().and_then(|_| routed(false)), |_, _| DONE),
    function!("route-amplify", false, |_| Ok(amplify()), |_, _| DONE),
    function!(
        "route-subject",
        false,
        |_| Ok(Routed {
            subject: "x".repeat(1 << 20),
            keys: Vec::new(),
            query: false
        }),
        |_, _| DONE
    ),
    function!("route-reads", false, |_| reads_in_route(), |_, _| DONE),
];

sdk::export!(FUNCTIONS);

fn spin() -> Result<Vec<u8>, Rejection> {
    let mut number = 0u64;
    loop {
        number = black_box(number.wrapping_add(1));
    }
}

fn copy() -> Result<Vec<u8>, Rejection> {
    let (mut to, from) = (vec![0u8; 1 << 20], vec![1u8; 1 << 20]);
    loop {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
    }
}

fn hoard() -> Result<Vec<u8>, Rejection> {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1u8; 64 * 1024]));
    }
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    // Not a tail call, and nothing in linear memory: it is the machine's stack that must end.
    black_box(recurse(depth.wrapping_mul(3))).wrapping_add(depth)
}

/// One megabyte, named 60,000 times: copied out, it would be 60 GB of the host's memory.
fn amplify() -> Routed {
    let mut big = vec![b'k'; 1 << 20];
    let keys = (0..60_000)
        // SAFETY: not safe, and that is the point: all vectors share one allocation. Nothing frees them in time,
        // the host ends the call while it reads the list. Outside WASM nobody calls it.
        .map(|_| unsafe { Vec::from_raw_parts(big.as_mut_ptr(), big.len(), big.len()) })
        .collect();
    std::mem::forget(big);
    Routed {
        subject: "someone".into(),
        keys,
        query: false,
    }
}

#[cfg(target_arch = "wasm32")]
fn reads_in_route() -> Result<Routed, Rejection> {
    let _ = sdk::wasm::bindings::medledger::contract::ledger::get(b"here");
    routed(false)
}

#[cfg(not(target_arch = "wasm32"))]
fn reads_in_route() -> Result<Routed, Rejection> {
    routed(false)
}

/// Keeps the signature of `Function::invoke` in sight for the closures above.
const _: fn(&mut Ctx, &[u8]) -> Result<Vec<u8>, Rejection> = |_, _| DONE;
