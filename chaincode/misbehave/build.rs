//! A small shadow stack: a fresh instance costs what its memory costs, and 64 KiB are plenty here.
//! Running over it is an access below address 0, which traps.

#[allow(clippy::print_stdout)] // How a build script speaks.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("wasm32") {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=65536");
    }
}
