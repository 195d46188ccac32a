//! Every decoder of bytes that come from outside the process: from peers, from files that may be damaged or made up,
//! and from people.
//!
//! ```text
//!   DECODERS --name, check, seeds--> fuzz/fuzz_targets     any bytes, guided by coverage (`make fuzz`)
//!                                --> tests/properties.rs   a fixed number of damaged seeds (`make test`)
//!                                --> tests/allocation.rs   memory in proportion to the input (`make test`)
//! ```
//!
//! One list for all three, so that no decoder has a fuzz target and lacks the tests, or the other way round.
//!
//! [`Decoder::check`] decodes its input and panics if a promise is broken: that what decodes encodes to the very same
//! bytes, and that whatever is done with it next (verification, digests, showing it) ends in a value or in an error.

mod chain_types;
mod files;
mod messages;
mod seeds;
mod stored;
mod texts;

pub use seeds::Chain;

/// One decoder, or a few small ones that take the same bytes.
#[derive(Clone, Copy)]
pub struct Decoder {
    /// Its name, and that of its fuzz target.
    pub name: &'static str,
    /// Decodes any bytes, and nothing else: what the memory of is measured. Whether they are of the form.
    pub decode: fn(&[u8]) -> bool,
    /// Decodes any bytes and panics where a promise is broken. Whether they are of the form.
    pub check: fn(&[u8]) -> bool,
    /// Inputs of the form.
    pub seeds: fn(&Chain) -> Vec<Vec<u8>>,
    /// Whether every part of an input that is cut off at its end is refused. Not so for text, for protobuf, for what is
    /// read up to where it is torn, and where an input is tried as several types.
    pub refuses_truncated: bool,
}

/// All of them.
pub const DECODERS: &[Decoder] = &[
    chain_types::BLOCK,
    chain_types::COMMIT,
    chain_types::COMMITTEE,
    chain_types::GENESIS,
    chain_types::NODE_INFO,
    chain_types::CERTIFICATE,
    chain_types::PARTS,
    messages::MESSAGE,
    messages::TLS_CERTIFICATE,
    stored::STORED_VALUE,
    stored::JOURNAL,
    stored::IDENTITY,
    files::TRACE,
    files::TRACE_RECORD,
    files::CONFIG,
    texts::ADDRESS,
    texts::HEX,
];

/// The decoder of this name, for its fuzz target.
///
/// # Panics
///
/// If there is none: the target is then called otherwise than its decoder.
pub fn decoder(name: &str) -> &'static Decoder {
    let found = DECODERS.iter().find(|decoder| decoder.name == name);
    found.unwrap_or_else(|| panic!("no decoder is called {name:?}"))
}
