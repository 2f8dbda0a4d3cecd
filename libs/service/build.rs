//! Generates `rpc` from `proto/rpc.proto`. The ledger's messages are protocol's; they are not generated twice.

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=proto/rpc.proto");
    println!("cargo:rerun-if-changed=../protocol/proto/ledger.proto");
    tonic_prost_build::configure()
        .extern_path(".medledger.ledger.v1", "::protocol::ledger")
        .emit_rerun_if_changed(false)
        .compile_protos(&["proto/rpc.proto"], &["proto", "../protocol/proto"])
}
