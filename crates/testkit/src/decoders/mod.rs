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

mod archived;
mod chain_types;
mod decoder;
mod files;
mod messages;
mod objects;
mod seeds;
mod stored;
mod texts;

pub use decoder::Decoder;
pub use seeds::Chain;

/// All of them.
pub const DECODERS: &[Decoder] = &[
    chain_types::BLOCK,
    chain_types::COMMIT,
    chain_types::COMMITTEE,
    chain_types::GENESIS,
    chain_types::NODE_INFO,
    chain_types::CERTIFICATE,
    chain_types::PARTS,
    chain_types::EPOCH_PROOF,
    chain_types::CHECKPOINT,
    messages::MESSAGE,
    messages::BROADCAST_FRAME,
    messages::TLS_CERTIFICATE,
    objects::OBJECT_PARTS,
    objects::SNAPSHOT_MANIFEST,
    stored::STORED_VALUE,
    stored::JOURNAL,
    stored::IDENTITY,
    files::TRACE,
    files::TRACE_RECORD,
    files::CONFIG,
    archived::SEGMENT,
    archived::SEGMENT_NAME,
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
