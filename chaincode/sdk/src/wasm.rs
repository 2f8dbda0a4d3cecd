//! The contract's world for wasm32: bindings of `wit/contract.wit`, joined to the table of functions.

pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "contract",
        pub_export_macro: true,
        export_macro_name: "export_world",
        default_bindings_module: "sdk::wasm::bindings",
    });
}

use bindings::medledger::contract::{ledger, types};

use crate::{Attribute, Call, Change, Changes, Ctx, Function, Host, Listing, Page, Person, Refusal, Rejection};

/// What `contract!` implements for the exported component.
pub trait Contract {
    const FUNCTIONS: &'static [Function];
}

impl<C: Contract> bindings::Guest for C {
    fn route(function: String, arguments: Vec<u8>) -> Result<types::Routed, types::Rejection> {
        let routed = crate::route(C::FUNCTIONS, &function, &arguments).map_err(rejection)?;
        Ok(types::Routed {
            subject: routed.subject,
            keys: routed.keys,
            query: routed.query,
        })
    }

    fn invoke(context: types::Context, function: String, arguments: Vec<u8>) -> Result<Vec<u8>, types::Rejection> {
        let call = call(context);
        crate::invoke(C::FUNCTIONS, &mut Ctx::new(&call, &mut Peer), &function, &arguments).map_err(rejection)
    }
}

fn call(context: types::Context) -> Call {
    Call {
        tx_id: context.tx_id,
        query: context.query,
        client_time_ms: context.client_time_ms,
        person: Person {
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
        },
    }
}

fn rejection(rejection: Rejection) -> types::Rejection {
    let (kind, field, reason) = rejection.into_parts();
    let kind = match kind {
        Refusal::UnknownFunction => types::Refusal::UnknownFunction,
        Refusal::BadArguments => types::Refusal::BadArguments,
        Refusal::Rejected => types::Refusal::Rejected,
    };
    types::Rejection { kind, field, reason }
}

/// The ledger, through the worker, at the peer.
struct Peer;

impl Host for Peer {
    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        ledger::get(key)
    }

    fn get_range(&mut self, start: &[u8], end: &[u8], limit: u32) -> Page {
        let page = ledger::get_range(start, end, limit);
        Page {
            entries: page.entries.into_iter().map(|entry| (entry.key, entry.value)).collect(),
            more: page.more,
        }
    }

    fn history(&mut self, key: &[u8], skip: u32, limit: u32) -> Changes {
        let page = ledger::history(key, skip, limit);
        Changes {
            changes: page.changes.into_iter().map(change).collect(),
            more: page.more,
        }
    }

    fn list(&mut self, suffix: &[u8], after: Option<&[u8]>, limit: u32) -> Listing {
        let listing = ledger::list(suffix, after, limit);
        Listing {
            values: listing.values,
            next: listing.next,
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        ledger::put(key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        ledger::delete(key);
    }

    fn set_policy(&mut self, key: &[u8], policy: &str) {
        ledger::set_policy(key, policy);
    }

    fn emit(&mut self, kind: &str, payload: &[u8]) {
        ledger::emit(kind, payload);
    }
}

fn change(change: ledger::Change) -> Change {
    Change {
        tx_id: change.tx_id,
        partition: change.partition,
        height: change.height,
        index: change.index,
        client_time_ms: change.client_time_ms,
        person: Person {
            organisation: change.organisation,
            common_name: change.common_name,
            role: change.role,
            attributes: Vec::new(),
            asserted: change.asserted,
        },
        function: change.function,
        value: change.value,
    }
}
