//! BLAKE3 of many short messages in parallel SIMD lanes, one message per lane.
//!
//! BLAKE3 is fast when it compresses 16 chunks of 1 KiB in parallel. A message has that many chunks from 16 KiB on. A
//! block of a few KiB is hashed chunk by chunk, at an eighth of that speed. The crate's kernels also accept chunks of
//! different messages if the chunks have the same position. This module builds the hash trees around the kernels
//! (BLAKE3's paper, section 2):
//!
//! ```text
//!   message     | chunk 0 | chunk 1 | last chunk |      whole chunks: one call for all at the same position
//!                    \         /          |             last chunks:  one call for the whole blocks of each length,
//!                     \ parent /          |                           then each last block alone, as it may be short
//!                          \    root     /              parents:      one call for each level
//! ```
//!
//! The kernels are not a stable interface of the crate. `Cargo.toml` therefore accepts releases of 1.8 only, and a
//! property test compares every digest with the one of `blake3::Hasher`.

use blake3::{
    BLOCK_LEN, CHUNK_LEN, IncrementCounter, OUT_LEN,
    hazmat::{ContextKey, HasherExt},
    platform::{Platform, le_bytes_from_words_32, words_from_le_bytes_32},
};

// Domain flags of a compression (the paper, table 3).
const CHUNK_START: u8 = 1 << 0;
const CHUNK_END: u8 = 1 << 1;
const PARENT: u8 = 1 << 2;
const ROOT: u8 = 1 << 3;
const DERIVE_KEY_MATERIAL: u8 = 1 << 6;

/// Number of SIMD lanes. A message with this many chunks fills them alone.
const LANES: usize = 16;

type Output = [u8; OUT_LEN];

/// The derive-key digest of each message, in order.
pub(super) fn derive_key_each(key: &ContextKey, messages: &[&[u8]]) -> Vec<Output> {
    let mut forest = Forest::plant(key, messages);
    forest.hash_whole_chunks();
    forest.hash_last_chunks();
    forest.merge();
    forest.roots()
}

/// The hash trees of all messages, level by level: first the chaining values of the chunks, finally the roots.
struct Forest<'a> {
    platform: Platform,
    key: [u32; 8],
    trees: Vec<Tree<'a>>,
    /// Chaining values of all trees, each tree at its own offset.
    values: Vec<Output>,
}

struct Tree<'a> {
    message: &'a [u8],
    /// Offset of its chaining values.
    at: usize,
    /// Number of chaining values on this level.
    width: usize,
}

impl<'a> Forest<'a> {
    fn plant(key: &ContextKey, messages: &[&'a [u8]]) -> Self {
        // A message with more chunks than there are messages fills more lanes alone.
        let longest = messages.len().min(LANES) * CHUNK_LEN;
        let mut values = Vec::new();
        let tree = |&message: &&'a [u8]| {
            let at = values.len();
            if message.len() > longest {
                let digest = blake3::Hasher::new_from_context_key(key).update(message).finalize();
                values.push(*digest.as_bytes());
                return Tree { message: &[], at, width: 0 };
            }
            let width = message.len().div_ceil(CHUNK_LEN).max(1);
            values.resize(at + width, Output::default());
            Tree { message, at, width }
        };
        let trees = messages.iter().map(tree).collect();
        Self { platform: Platform::detect(), key: words_from_le_bytes_32(key), trees, values }
    }

    /// Hashes all chunks but the last of each message.
    fn hash_whole_chunks(&mut self) {
        let widest = self.trees.iter().map(|tree| tree.width).max().unwrap_or(0);
        for place in 0..widest.saturating_sub(1) {
            let with_one = self.trees.iter().filter(|tree| place + 1 < tree.width);
            let (targets, chunks): (Vec<_>, Vec<_>) =
                with_one.filter_map(|tree| Some((tree.at + place, tree.message.as_chunks().0.get(place)?))).unzip();
            let outputs = self.lanes::<CHUNK_LEN>(&chunks, place as u64, CHUNK_START, CHUNK_END);
            self.put(&targets, outputs);
        }
    }

    /// Hashes the last chunk of each message. It may be short, and it is the root if it is the only chunk.
    fn hash_last_chunks(&mut self) {
        let mut order: Vec<_> = self.trees.iter().filter(|tree| tree.width > 0).map(LastChunk::of).collect();
        order.sort_unstable_by_key(LastChunk::shape);
        for alike in order.chunk_by(|a, b| a.shape() == b.shape()) {
            let chained = self.chain_whole_blocks(alike);
            for (chunk, mut value) in alike.iter().zip(chained) {
                let (start, end) = (if chunk.whole_blocks == 0 { CHUNK_START } else { 0 }, CHUNK_END);
                let root = if chunk.counter == 0 { ROOT } else { 0 };
                let mut block = [0; BLOCK_LEN];
                block[..chunk.rest.len()].copy_from_slice(chunk.rest);
                let flags = start | end | root | DERIVE_KEY_MATERIAL;
                self.platform.compress_in_place(&mut value, &block, chunk.rest.len() as u8, chunk.counter, flags);
                self.values[chunk.target] = le_bytes_from_words_32(&value);
            }
        }
    }

    /// Chaining values before the last block, for chunks of one shape.
    fn chain_whole_blocks(&self, chunks: &[LastChunk<'_>]) -> Vec<[u32; 8]> {
        let Some(LastChunk { whole_blocks, counter, .. }) = chunks.first() else { return Vec::new() };
        /// The kernels take the input's length as a constant.
        macro_rules! of_length {
            ($($blocks:literal)*) => {
                match *whole_blocks {
                    $($blocks => {
                        let blocks: Vec<_> = chunks.iter().filter_map(|chunk| chunk.whole.first_chunk()).collect();
                        self.lanes::<{ $blocks * BLOCK_LEN }>(&blocks, *counter, CHUNK_START, 0)
                    })*
                    _ => return vec![self.key; chunks.len()],
                }
            };
        }
        let outputs = of_length!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        outputs.iter().map(words_from_le_bytes_32).collect()
    }

    /// Merges pairs of chaining values until each tree has its root. An odd value moves up unchanged.
    fn merge(&mut self) {
        while self.trees.iter().any(|tree| tree.width > 1) {
            for root in [false, true] {
                let (mut targets, mut parents) = (Vec::new(), Vec::<[u8; BLOCK_LEN]>::new());
                for tree in self.trees.iter().filter(|tree| tree.width > 1 && root == (tree.width == 2)) {
                    let pairs = self.values[tree.at..][..tree.width].as_chunks::<2>().0;
                    targets.extend((0..pairs.len()).map(|pair| tree.at + pair));
                    parents
                        .extend(pairs.iter().filter_map(|pair| <[u8; BLOCK_LEN]>::try_from(pair.as_flattened()).ok()));
                }
                let parents: Vec<_> = parents.iter().collect();
                let flags = if root { PARENT | ROOT } else { PARENT };
                let outputs = self.lanes::<BLOCK_LEN>(&parents, 0, flags, 0);
                self.put(&targets, outputs);
            }
            for tree in self.trees.iter_mut().filter(|tree| tree.width > 1) {
                if tree.width % 2 == 1 {
                    self.values[tree.at + tree.width / 2] = self.values[tree.at + tree.width - 1];
                }
                tree.width = tree.width.div_ceil(2);
            }
        }
    }

    fn roots(&self) -> Vec<Output> {
        self.trees.iter().map(|tree| self.values[tree.at]).collect()
    }

    /// Compresses inputs of the same length and position in parallel lanes.
    fn lanes<const N: usize>(&self, inputs: &[&[u8; N]], counter: u64, first: u8, last: u8) -> Vec<Output> {
        let mut outputs = vec![Output::default(); inputs.len()];
        self.platform.hash_many(
            inputs,
            &self.key,
            counter,
            IncrementCounter::No,
            DERIVE_KEY_MATERIAL,
            first,
            last,
            outputs.as_flattened_mut(),
        );
        outputs
    }

    fn put(&mut self, targets: &[usize], outputs: Vec<Output>) {
        for (&target, output) in targets.iter().zip(outputs) {
            self.values[target] = output;
        }
    }
}

/// The last chunk of a message: whole blocks, and a last block that may be short.
struct LastChunk<'a> {
    whole: &'a [u8],
    whole_blocks: usize,
    rest: &'a [u8],
    /// Position of the chunk in the message.
    counter: u64,
    /// Position of its chaining value.
    target: usize,
}

impl<'a> LastChunk<'a> {
    fn of(tree: &Tree<'a>) -> Self {
        let place = tree.width - 1;
        let chunk = &tree.message[place * CHUNK_LEN..];
        let whole_blocks = chunk.len().saturating_sub(1) / BLOCK_LEN;
        let (whole, rest) = chunk.split_at(whole_blocks * BLOCK_LEN);
        Self { whole, whole_blocks, rest, counter: place as u64, target: tree.at + place }
    }

    /// Chunks of the same shape can share the lanes.
    fn shape(&self) -> (usize, u64) {
        (self.whole_blocks, self.counter)
    }
}
