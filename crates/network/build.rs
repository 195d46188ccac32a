//! Compiles `proto/` with protox, in Rust: no installed protoc.

use std::{env, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked for when it runs: a build directory may be used for another checkout than the one that compiled this script.
    let proto = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", proto.display());
    let descriptors = protox::compile(["soma/p2p/v1/p2p.proto"], [&proto])?;
    tonic_prost_build::configure()
        // Commits and blocks as `Bytes`: slices of the received frame, not copies.
        .bytes(".")
        .codec_path("crate::wire::codec::BoundedCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
