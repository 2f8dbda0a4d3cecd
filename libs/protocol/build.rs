//! Generates the messages of `proto/ledger.proto`.

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=proto/ledger.proto");
    prost_build::Config::new().compile_protos(&["proto/ledger.proto"], &["proto"])
}
