//! The type of a decoder, as the list of all decoders holds it.

use super::seeds::Chain;

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
