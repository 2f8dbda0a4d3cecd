//! Microseconds per entry of the state digest: `cargo run --release --example lattice`.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use protocol::{
    lattice::{Kind, Lattice},
    ledger::Version,
    sha256,
};

fn main() {
    const ENTRIES: u32 = 200_000;
    let value_hash = sha256(b"value");
    let mut key = *b"medical-records\0................................................";
    let mut lattice = Lattice::new();
    let start = Instant::now();
    for index in 0..ENTRIES {
        key[16..20].copy_from_slice(&index.to_be_bytes());
        let version = Version {
            epoch: 0,
            height: u64::from(index / 500),
            index: index % 500,
        };
        lattice.add(Kind::State, &key, &version, &value_hash);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.2} µs per entry", seconds * 1e6 / f64::from(ENTRIES));
    let start = Instant::now();
    for _ in 0..ENTRIES / 10 {
        std::hint::black_box(lattice.digest());
    }
    println!(
        "{:.2} µs per digest",
        start.elapsed().as_secs_f64() * 1e7 / f64::from(ENTRIES)
    );
}
