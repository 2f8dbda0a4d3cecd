//! Generates `rpc` from `proto/rpc.proto`. The ledger's messages are protocol's; they are not generated twice.

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=proto/rpc.proto");
    println!("cargo:rerun-if-changed=../protocol/proto/ledger.proto");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    // Messages know their name, and `rpc::bounded` their fields: it counts before it decodes.
    let mut config = prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .extern_path(".medledger.ledger.v1", "::protocol::ledger")
        .codec_path("crate::rpc::Codec")
        .file_descriptor_set_path(out.join("rpc.descriptor"))
        .emit_rerun_if_changed(false)
        .compile_with_config(config, &["proto/rpc.proto"], &["proto", "../protocol/proto"])
}
