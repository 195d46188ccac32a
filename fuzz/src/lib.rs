//! Fuzz targets: one for each of [`soma_testkit::decoders::DECODERS`], of the same name. What they do is said there.
//!
//! `make fuzz` runs them all with a stable toolchain; `cargo +nightly fuzz run NAME` runs one with AddressSanitizer.

#![deny(missing_docs)]

pub use soma_testkit::decoders::{Decoder, decoder};

/// The whole of a fuzz target.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        static DECODER: std::sync::LazyLock<&'static $crate::Decoder> =
            std::sync::LazyLock::new(|| $crate::decoder($name));
        libfuzzer_sys::fuzz_target!(|input: &[u8]| {
            (DECODER.check)(input);
        });
    };
}
