//! Compiles `proto/` with protox, a compiler in Rust, so no protoc has to be installed. The folder here is a link to
//! the one at the top, so that the package has it, too.

#[cfg(not(feature = "tls"))]
fn main() {}

#[cfg(feature = "tls")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::{env, path::PathBuf};

    // Read at run time: the build directory may be shared with another checkout than the one that compiled this script.
    let proto = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo:rerun-if-changed={}", proto.display());
    let descriptors = protox::compile(["soma/p2p/v1/p2p.proto"], [&proto])?;
    tonic_prost_build::configure()
        // Commits and blocks as `Bytes` are slices of the received frame, not copies.
        .bytes(".")
        .codec_path("crate::wire::codec::BoundedCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
