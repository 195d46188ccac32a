//! Segments: consecutive blocks in the order of the chain, about a hundred per value.
//!
//! ```text
//!   commit 1: a b c   commit 2: d e f   its certifier blocks: g h       (one batch)
//!   segment 1.0: a b c d      segment 1.1: e f g h
//! ```
//!
//! A segment belongs to the batch that wrote it and never changes. The [rounds](crate::rounds) have the location of
//! each block in it.

use crate::layout::pair_key;
use bytes::Bytes;
use soma_types::CommitIndex;
use std::fmt;

/// Maximum length of a segment with several blocks. A longer block is a segment of its own.
///
/// A block that is kept in memory keeps its whole segment. docs/adr/0007 has the cost of other lengths.
pub(crate) const SEGMENT_BYTES: usize = 64 << 10;

/// Identifies one segment; sorted like the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentId {
    /// The first commit of the batch that wrote the segment.
    pub batch: CommitIndex,
    /// Number of the segment in the batch, from 0.
    pub number: u32,
}

impl SegmentId {
    pub(crate) fn key(self) -> [u8; 8] {
        pair_key(self.batch, self.number)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.batch, self.number)
    }
}

/// Location of a block's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) segment: SegmentId,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// A new segment.
pub(crate) struct Segment<'a> {
    pub(crate) id: SegmentId,
    /// Its blocks.
    pub(crate) pieces: Vec<&'a [u8]>,
    /// Its length.
    pub(crate) bytes: usize,
}

impl Segment<'_> {
    /// The segment's bytes, copied: the blocks are slices of received chunks, which would stay in memory with them.
    pub(crate) fn concat(&self) -> Bytes {
        self.pieces.concat().into()
    }
}

/// Packs the blocks of one batch into segments.
pub(crate) struct Packer<'a> {
    segments: Vec<Segment<'a>>,
    /// The segment in progress.
    next: Segment<'a>,
}

impl<'a> Packer<'a> {
    /// A packer for the batch that begins with this commit.
    pub(crate) fn new(batch: CommitIndex) -> Self {
        let id = SegmentId { batch, number: 0 };
        Self { segments: Vec::new(), next: Segment { id, pieces: Vec::new(), bytes: 0 } }
    }

    /// Adds a block. Returns its future location.
    pub(crate) fn push(&mut self, block: &'a [u8]) -> Location {
        if self.next.bytes + block.len() > SEGMENT_BYTES {
            self.end_segment();
        }
        let next = &mut self.next;
        // Far below 4 GiB: a block has at most 1 MiB, and so have the blocks before it in the segment.
        let (offset, length) = (next.bytes as u32, block.len() as u32);
        next.bytes += block.len();
        next.pieces.push(block);
        Location { segment: next.id, offset, length }
    }

    /// The segments.
    pub(crate) fn finish(mut self) -> Vec<Segment<'a>> {
        self.end_segment();
        self.segments
    }

    fn end_segment(&mut self) {
        if self.next.pieces.is_empty() {
            return;
        }
        let SegmentId { batch, number } = self.next.id;
        let next = Segment { id: SegmentId { batch, number: number + 1 }, pieces: Vec::new(), bytes: 0 };
        self.segments.push(std::mem::replace(&mut self.next, next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_fill_in_order_and_a_long_block_has_its_own() {
        let lengths = [1, SEGMENT_BYTES - 1, 1, SEGMENT_BYTES * 3, 0, SEGMENT_BYTES, 7];
        let blocks: Vec<Vec<u8>> = lengths.iter().zip(1..).map(|(length, fill)| vec![fill; *length]).collect();
        let mut packer = Packer::new(5);
        let locations: Vec<_> = blocks.iter().map(|block| packer.push(block)).collect();
        let segments = packer.finish();
        let numbers: Vec<_> = locations.iter().map(|location| location.segment.number).collect();
        assert_eq!(numbers, [0, 0, 1, 2, 3, 3, 4]);
        assert!(segments.iter().map(|segment| segment.id.key()).is_sorted());
        for (block, location) in blocks.iter().zip(&locations) {
            let segment = segments.iter().find(|segment| segment.id == location.segment).unwrap();
            let (start, end) = (location.offset as usize, (location.offset + location.length) as usize);
            assert_eq!(&segment.concat()[start..end], &block[..]);
        }
        assert_eq!(segments.len(), 5);
        assert!(segments.iter().all(|segment| segment.concat().len() == segment.bytes));
        assert!(Packer::new(1).finish().is_empty());
    }
}
