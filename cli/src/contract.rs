//! `medledger contract`: from a compiled core module to the component that the ledger carries.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::Subcommand;
use protocol::{Digest, limits::MODULE_BYTES_MAX, sha256};
use serde_json::json;

use crate::{network::layout::write_whole, output::Output};

#[derive(Debug, Subcommand)]
pub enum ContractCommand {
    /// Make a contract's component, which the ledger carries, from its core module
    ///
    /// Prints the component's digest, by which a genesis names it: the same sources give the same digest, so
    /// whoever reads the sources can tell that they are what runs.
    Package {
        /// The core module, which `cargo build --target wasm32-unknown-unknown` makes; a component stays as it is
        #[arg(value_name = "CORE.wasm")]
        core: PathBuf,
        /// The component's file; what is there is replaced
        #[arg(short, long = "out", value_name = "COMPONENT.wasm")]
        out: PathBuf,
    },
}

pub fn run(command: ContractCommand, output: Output) -> Result<()> {
    let ContractCommand::Package { core, out } = command;
    let (component, digest) = component(&core)?;
    write_whole(&out, &component, false)?;
    let (digest, bytes) = (hex::encode(digest), component.len());
    let shown = json!({"component": out, "bytes": bytes, "digest": digest});
    output.show(&shown, || {
        format!("{} ({bytes} bytes)\ndigest {digest}\n", out.display())
    })
}

/// The component of a core module or component file, and its digest.
pub fn component(file: &Path) -> Result<(Vec<u8>, Digest)> {
    let file = locate(file)?;
    let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
    let component = if is_component(&bytes) {
        bytes
    } else {
        worker::package(&bytes).with_context(|| format!("packaging {}", file.display()))?
    };
    ensure!(
        component.len() <= MODULE_BYTES_MAX,
        "the component of {} has {} bytes; at most {MODULE_BYTES_MAX} are allowed",
        file.display(),
        component.len()
    );
    let digest = sha256(&component);
    Ok((component, digest))
}

/// WebAssembly's layer: 0 is a core module, 1 a component.
fn is_component(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm") && bytes.get(6) == Some(&1)
}

/// A bare name is a contract that was built here.
fn locate(file: &Path) -> Result<PathBuf> {
    if file.components().count() > 1 || file.exists() {
        return Ok(file.to_owned());
    }
    let mut places: Vec<PathBuf> = std::env::var_os("MEDLEDGER_CONTRACTS")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    let here = std::env::current_exe().context("where this program is")?;
    // target/release/medledger and target/release/deps/test-…
    let targets = here.ancestors().skip(2).take(2);
    places.extend(targets.map(|target| target.join("wasm32-unknown-unknown/release")));
    places.extend(here.parent().map(Path::to_owned));
    // Cargo writes a package's dashes as underscores.
    let name = file.to_string_lossy();
    let names = [name.to_string(), name.replace('-', "_")];
    let mut candidates = places
        .iter()
        .flat_map(|place| names.iter().map(|name| place.join(name)));
    let found = candidates.find(|candidate| candidate.is_file());
    found.with_context(|| {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        format!(
            "{} is no file here, and no contract that was built: it is not in {}; `make contracts` builds ours",
            file.display(),
            places.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_told_apart() {
        assert!(is_component(b"\0asm\x0d\0\x01\0"));
        assert!(!is_component(b"\0asm\x01\0\0\0"));
        assert!(!is_component(b""));
    }

    #[test]
    fn a_contract_that_was_not_built_is_named_with_what_to_do() {
        let error = component(Path::new("no_such_contract.wasm"))
            .expect_err("absent")
            .to_string();
        assert!(
            error.contains("make contracts") && error.contains("no_such_contract.wasm"),
            "{error}"
        );
    }
}
