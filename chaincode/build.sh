#!/bin/sh
# Builds the contracts' core modules for wasm32-unknown-unknown and prints their directory. `medledger` makes components
# of them where it needs them (`medledger contract package`).
#
# The same sources give the same bytes, and so the same digest, wherever they lie: paths are mapped away.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$root=/medledger"
cargo build --quiet --release --target wasm32-unknown-unknown -p medical-records -p misbehave
echo "$target/wasm32-unknown-unknown/release"
