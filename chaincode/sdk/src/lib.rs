//! What a contract is written against.
//!
//! A contract is a table of functions with typed parameters; arguments are a JSON array, a response
//! is a JSON value. The table says, for each function, whether it only reads, whom it is about and
//! which keys it will read, so that the peer can bring those entries along.
//!
//! ```
//! use sdk::{Ctx, Rejection};
//!
//! fn set(ctx: &mut Ctx, name: String, value: u32) -> Result<u32, Rejection> {
//!     if value > 100 {
//!         return Err(Rejection::new("value", "is at most 100"));
//!     }
//!     ctx.put("value", &value);
//!     let _ = name;
//!     Ok(value)
//! }
//!
//! fn get(ctx: &mut Ctx, _name: String) -> Result<Option<u32>, Rejection> {
//!     Ok(ctx.get("value"))
//! }
//!
//! sdk::contract! {
//!     /// Sets a value.
//!     submit "set" => set(name: String, value: u32), subject = name, reads = [];
//!     /// Reads it.
//!     query "get" => get(name: String), subject = name, reads = ["value"];
//! }
//! # fn main() {
//! let mut ledger = sdk::testing::Ledger::new(FUNCTIONS);
//! let anna = sdk::testing::person("HospitalA", "Anna", &[]);
//! ledger.submit(&anna, "set", serde_json::json!(["x", 7])).unwrap();
//! assert_eq!(ledger.query(&anna, "get", serde_json::json!(["x"])).unwrap(), 7);
//! # }
//! ```
//!
//! Promises: a rejection names a field and a rule and cannot carry a value (rules are `&'static str`);
//! a contract's tests run natively, without WASM, against [`testing::Ledger`].

pub mod arguments;
mod context;
mod locate;
mod rejection;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
#[cfg(target_arch = "wasm32")]
pub mod wasm;

pub use context::{Attribute, Call, Change, Changes, Ctx, Host, Listing, Page, Person};
pub use rejection::{Refusal, Rejection};

/// What the platform must know before a call runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Whom the call is about; empty for a query across subjects.
    pub subject: String,
    pub keys: Vec<Vec<u8>>,
    pub query: bool,
}

/// One line of a contract's table.
pub struct Function {
    pub name: &'static str,
    pub query: bool,
    pub parameters: &'static [&'static str],
    pub route: fn(&[u8]) -> Result<Routed, Rejection>,
    pub invoke: fn(&mut Ctx, &[u8]) -> Result<Vec<u8>, Rejection>,
}

fn find<'f>(functions: &'f [Function], name: &str) -> Result<&'f Function, Rejection> {
    functions
        .iter()
        .find(|function| function.name == name)
        .ok_or_else(Rejection::unknown_function)
}

/// `route` of the contract's world.
pub fn route(functions: &[Function], name: &str, arguments: &[u8]) -> Result<Routed, Rejection> {
    (find(functions, name)?.route)(arguments)
}

/// `invoke` of the contract's world.
pub fn invoke(functions: &[Function], ctx: &mut Ctx, name: &str, arguments: &[u8]) -> Result<Vec<u8>, Rejection> {
    (find(functions, name)?.invoke)(ctx, arguments)
}

/// The response of a function, as JSON.
pub fn response<T: serde::Serialize>(value: &T) -> Vec<u8> {
    // A type whose keys are not strings is the contract's bug: it traps.
    serde_json::to_vec(value).expect("a response is JSON")
}

/// Declares a contract: `FUNCTIONS`, and for wasm32 the exports of the world.
///
/// `submit|query "name" => function(parameter: Type, …), subject = expression, reads = [key, …];`
/// The expressions may use the parameters. Trailing parameters of type `Option` may be left out by callers.
#[macro_export]
macro_rules! contract {
    ($(
        $(#[$doc:meta])*
        $kind:ident $name:literal => $run:ident ( $($parameter:ident : $type:ty),* $(,)? ),
            subject = $subject:expr, reads = [ $($key:expr),* $(,)? ];
    )+) => {
        /// The contract's table of functions.
        pub const FUNCTIONS: &[$crate::Function] = &[$(
            $crate::Function {
                name: $name,
                query: $crate::__is_query!($kind),
                parameters: &[$(stringify!($parameter)),*],
                route: |arguments| {
                    let ($($parameter,)*): ($($type,)*) =
                        $crate::arguments::decode(arguments, &[$(stringify!($parameter)),*])?;
                    $(let _ = &$parameter;)*
                    Ok($crate::Routed {
                        keys: vec![$(AsRef::<[u8]>::as_ref(&$key).to_vec()),*],
                        query: $crate::__is_query!($kind),
                        subject: String::from($subject),
                    })
                },
                invoke: |ctx, arguments| {
                    let ($($parameter,)*): ($($type,)*) =
                        $crate::arguments::decode(arguments, &[$(stringify!($parameter)),*])?;
                    Ok($crate::response(&$run(ctx, $($parameter),*)?))
                },
            },
        )+];

        $crate::export!(FUNCTIONS);
    };
}

/// Exports a table of functions as the contract's world; nothing outside wasm32. `contract!` does it.
#[macro_export]
macro_rules! export {
    ($functions:expr) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Component;
            impl $crate::wasm::Contract for Component {
                const FUNCTIONS: &'static [$crate::Function] = $functions;
            }
    $crate::wasm::bindings::export_world!(Component with_types_in $crate::wasm::bindings);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __is_query {
    (submit) => {
        false
    };
    (query) => {
        true
    };
}
