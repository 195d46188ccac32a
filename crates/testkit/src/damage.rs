//! Damaged copies of bytes.

use bytes::Bytes;

/// A copy of `bytes` with one bit flipped; `bit` counts over all bytes and wraps around.
pub fn flip_bit(bytes: &[u8], bit: usize) -> Bytes {
    let mut flipped = bytes.to_vec();
    let bits = flipped.len() * 8;
    if bits > 0 {
        let bit = bit % bits;
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
    flipped.into()
}
