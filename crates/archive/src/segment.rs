//! The bytes of a segment. docs/archive-format.md defines them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use soma_types::{ChainId, CommitIndex, Epoch, SegmentDigest, SegmentName};

/// First bytes of every segment.
const MAGIC: &[u8; 8] = b"soma-arc";

/// The version of the format.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes before the first commit.
const HEADER_BYTES: usize = 8 + 4 + 32 + 8 + 4 * 4;

/// Bytes of the checksum at the end.
const CHECKSUM_BYTES: usize = 32;

/// Maximum size of a segment. A writer ends one far below, but a single commit may have 16 MiB of blocks, and its votes
/// another 12 MiB.
pub const MAX_SEGMENT_BYTES: usize = 48 << 20;

/// Consecutive commits of one epoch, as received. Nothing is checked but the form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The chain.
    pub chain: ChainId,
    /// The epoch of all commits.
    pub epoch: Epoch,
    /// Index of the first commit.
    pub first: CommitIndex,
    /// The encoded commits, at least one.
    pub commits: Vec<Bytes>,
    /// Blocks with the votes that certify the last commit.
    pub certifiers: Vec<Bytes>,
    /// The blocks of each commit, in its order.
    pub blocks: Vec<Bytes>,
}

/// The reason why bytes are no segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The object does not begin like a segment.
    #[error("it is no segment of an archive")]
    NotASegment,
    /// A newer program wrote the segment.
    #[error("it has format {found}, and this program reads format {FORMAT_VERSION}: use a newer one")]
    NewerFormat {
        /// The version of the segment.
        found: u32,
    },
    /// The bytes were changed or cut off.
    #[error("its checksum is wrong: the object is damaged or cut off")]
    Checksum,
    /// A length points beyond the end, or bytes are left over.
    #[error("its lengths do not fit its {bytes} bytes")]
    Length {
        /// Bytes of the object.
        bytes: usize,
    },
    /// The segment is larger than any writer makes one.
    #[error("it has more than {MAX_SEGMENT_BYTES} bytes")]
    TooLarge,
    /// The segment has no commits, or too many for their indices.
    #[error("it has {commits} commits from {first} on")]
    Range {
        /// Index of the first commit.
        first: CommitIndex,
        /// Number of commits.
        commits: usize,
    },
}

impl Segment {
    /// Index of the last commit.
    pub fn last(&self) -> CommitIndex {
        let behind = CommitIndex::try_from(self.commits.len()).unwrap_or(CommitIndex::MAX).saturating_sub(1);
        self.first.saturating_add(behind)
    }

    /// The name under which an archive keeps the segment.
    pub fn name(&self) -> SegmentName {
        SegmentName { chain: self.chain, epoch: self.epoch, first: self.first, last: self.last() }
    }

    fn lists(&self) -> [&Vec<Bytes>; 3] {
        [&self.commits, &self.certifiers, &self.blocks]
    }

    /// Bytes of the object.
    pub fn size(&self) -> usize {
        let items = self.lists().into_iter().flatten();
        HEADER_BYTES + items.map(|item| 4 + item.len()).sum::<usize>() + CHECKSUM_BYTES
    }

    /// The object.
    ///
    /// # Errors
    /// Fails if they are over [`MAX_SEGMENT_BYTES`], which no segment of a valid chain is.
    pub fn encode(&self) -> Result<Bytes, SegmentError> {
        let (lists, size) = (self.lists(), self.size());
        if size > MAX_SEGMENT_BYTES {
            return Err(SegmentError::TooLarge);
        }
        let mut bytes = BytesMut::with_capacity(size);
        bytes.put_slice(MAGIC);
        bytes.put_u32_le(FORMAT_VERSION);
        bytes.put_slice(&self.chain.0);
        bytes.put_u64_le(self.epoch);
        bytes.put_u32_le(self.first);
        // Each item has four bytes at least, so their numbers and lengths fit.
        lists.iter().for_each(|list| bytes.put_u32_le(list.len() as u32));
        for item in lists.into_iter().flatten() {
            bytes.put_u32_le(item.len() as u32);
            bytes.put_slice(item);
        }
        let checksum = SegmentDigest::of(&[&bytes]);
        bytes.put_slice(&checksum.0);
        Ok(bytes.freeze())
    }

    /// Reads the bytes of an object. Commits and blocks are slices of these bytes.
    ///
    /// # Errors
    /// Fails if the bytes are no whole segment.
    pub fn decode(mut bytes: Bytes) -> Result<Self, SegmentError> {
        let size = bytes.len();
        if size > MAX_SEGMENT_BYTES {
            return Err(SegmentError::TooLarge);
        }
        if !bytes.starts_with(MAGIC) {
            return Err(SegmentError::NotASegment);
        }
        let length = || SegmentError::Length { bytes: size };
        if size < HEADER_BYTES + CHECKSUM_BYTES {
            return Err(SegmentError::Checksum);
        }
        let checksum = bytes.split_off(size - CHECKSUM_BYTES);
        // Before the checksum: another version may have another one.
        let found = (&bytes[MAGIC.len()..]).get_u32_le();
        if found != FORMAT_VERSION {
            return Err(SegmentError::NewerFormat { found });
        }
        if SegmentDigest::of(&[&bytes]).0[..] != checksum[..] {
            return Err(SegmentError::Checksum);
        }
        bytes.advance(MAGIC.len() + 4);
        let mut chain = ChainId::default();
        bytes.copy_to_slice(&mut chain.0);
        let (epoch, first) = (bytes.get_u64_le(), bytes.get_u32_le());
        let counts = [bytes.get_u32_le(), bytes.get_u32_le(), bytes.get_u32_le()];
        let mut lists = [Vec::new(), Vec::new(), Vec::new()];
        for (list, count) in lists.iter_mut().zip(counts) {
            for _ in 0..count {
                list.push(take(&mut bytes).ok_or_else(length)?);
            }
        }
        if !bytes.is_empty() {
            return Err(length());
        }
        let [commits, certifiers, blocks] = lists;
        let behind = CommitIndex::try_from(commits.len()).ok().and_then(|count| count.checked_sub(1));
        if first == 0 || behind.and_then(|behind| first.checked_add(behind)).is_none() {
            return Err(SegmentError::Range { first, commits: commits.len() });
        }
        Ok(Self { chain, epoch, first, commits, certifiers, blocks })
    }
}

/// An item with its length before it.
fn take(bytes: &mut Bytes) -> Option<Bytes> {
    if bytes.len() < 4 {
        return None;
    }
    let length = bytes.get_u32_le() as usize;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}
