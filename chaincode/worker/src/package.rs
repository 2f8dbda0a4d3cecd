//! From the core module that the compiler makes to the component that the ledger carries.

use wit_component::ComponentEncoder;

#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    #[error("not a contract's core module: {0}")]
    Encode(String),
}

/// The same bytes in give the same bytes out. Imports other than the contract's world are an error.
pub fn package(core_module: &[u8]) -> Result<Vec<u8>, PackageError> {
    let encode = || ComponentEncoder::default().validate(true).module(core_module)?.encode();
    encode().map_err(|error| PackageError::Encode(format!("{error:#}")))
}
