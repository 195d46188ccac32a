//! BLAKE3 of many short messages at once, each in a lane of its own.
//!
//! BLAKE3 is fast where it compresses 16 chunks of 1 KiB side by side. One message has that many from 16 KiB on, and a
//! block of a few KiB is hashed one step after the other, at an eighth of that speed. The crate's kernels take chunks of any
//! messages, as long as they stand in the same place; this lays out the tree around them (BLAKE3's paper, section 2):
//!
//! ```text
//!   message     | chunk 0 | chunk 1 | last chunk |      whole chunks: one call for all that stand in the same place
//!                    \         /          |             last chunks:  their whole blocks in one call for each length,
//!                     \ parent /          |                           the last block of each alone, as it may be short
//!                          \    root     /              parents:      one call for all of a level
//! ```
//!
//! The kernels are not among what the crate promises to keep, so `Cargo.toml` takes one release only, and a property test
//! compares every digest with the one of `blake3::Hasher`.

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

/// Chunks of a message that fills the lanes by itself.
const LANES: usize = 16;

type Output = [u8; OUT_LEN];

/// The derive-key digest of each message, in their order.
pub(super) fn derive_key_each(key: &ContextKey, messages: &[&[u8]]) -> Vec<Output> {
    let mut forest = Forest::plant(key, messages);
    forest.hash_whole_chunks();
    forest.hash_last_chunks();
    forest.merge();
    forest.roots()
}

/// The trees of all messages, level by level: first the chaining values of their chunks, at last their roots.
struct Forest<'a> {
    platform: Platform,
    key: [u32; 8],
    trees: Vec<Tree<'a>>,
    /// Chaining values of all trees, each at its tree's place.
    values: Vec<Output>,
}

struct Tree<'a> {
    message: &'a [u8],
    /// Where its chaining values are.
    at: usize,
    /// How many it has on this level.
    width: usize,
}

impl<'a> Forest<'a> {
    fn plant(key: &ContextKey, messages: &[&'a [u8]]) -> Self {
        // A message with more chunks than there are messages fills more lanes by itself, too.
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

    /// All chunks but the last of each message.
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

    /// The last chunk of each message, which may be short, and is the root where it is the only one.
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

    /// Chaining values before the last block of chunks of one shape.
    fn chain_whole_blocks(&self, chunks: &[LastChunk<'_>]) -> Vec<[u32; 8]> {
        let Some(LastChunk { whole_blocks, counter, .. }) = chunks.first() else { return Vec::new() };
        /// The kernels know the length of what they hash when they are compiled.
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

    /// Pairs of chaining values become one, until each tree has its root. An odd one moves up as it is.
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

    /// Compresses inputs of one length and place, side by side.
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

/// The last chunk of a message: whole blocks, and a last one that may be short.
struct LastChunk<'a> {
    whole: &'a [u8],
    whole_blocks: usize,
    rest: &'a [u8],
    /// Its place in the message.
    counter: u64,
    /// Where its chaining value goes.
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

    /// What chunks have to share to go side by side.
    fn shape(&self) -> (usize, u64) {
        (self.whole_blocks, self.counter)
    }
}
