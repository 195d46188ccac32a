//! Content that is named by its digest: what a node lacks and asks its peers for.
//!
//! ```text
//!   short object (1 piece)   --ObjectId::of-->  id
//!
//!   long object  piece 0   piece 1   piece 2
//!                   |         |         |      chaining values: the pieces of an ObjectTree
//!                    \       /         /
//!                     parent          /        as in every BLAKE3 tree
//!                          \         /
//!                           root = id
//! ```
//!
//! The tree is that of BLAKE3 itself. So the id of an object does not depend on how it travels, and each piece of a long
//! object is proved when it arrives.

use crate::{
    ObjectId,
    limits::{MAX_OBJECT_BYTES, OBJECT_PIECE_BYTES},
};
use blake3::hazmat::{
    ChainingValue, ContextKey, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range};

/// What an object is. Kinds from [`FIRST_OF_EMBEDDER`](Self::FIRST_OF_EMBEDDER) on belong to the embedder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKind(pub u32);

impl ObjectKind {
    /// A transaction, in the embedder's form.
    pub const TRANSACTION: Self = Self(1);
    /// An encoded [`Certificate`](crate::Certificate). Its signatures are checked, too.
    pub const CERTIFICATE: Self = Self(2);
    /// An object of the executor's state.
    pub const OBJECT: Self = Self(3);
    /// A chunk of a snapshot.
    pub const SNAPSHOT_CHUNK: Self = Self(4);
    /// The manifest of a snapshot.
    pub const SNAPSHOT_MANIFEST: Self = Self(5);

    /// The first kind that means what the embedder wants it to mean.
    pub const FIRST_OF_EMBEDDER: u32 = 256;
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TRANSACTION => f.write_str("transaction"),
            Self::CERTIFICATE => f.write_str("certificate"),
            Self::OBJECT => f.write_str("object"),
            Self::SNAPSHOT_CHUNK => f.write_str("snapshot-chunk"),
            Self::SNAPSHOT_MANIFEST => f.write_str("snapshot-manifest"),
            Self(number) => write!(f, "kind-{number}"),
        }
    }
}

/// One part of an answer to a request for objects. The parts of an answer go through the requested ids in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectPart {
    /// The next object, of at most [`OBJECT_PIECE_BYTES`].
    Whole(Bytes),
    /// The responder lacks so many of the next objects, at least one.
    Missing(u32),
    /// The next object is longer. Its pieces follow.
    Tree(ObjectTree),
    /// The next piece of it.
    Piece(Bytes),
}

impl ObjectPart {
    /// Bytes of content.
    pub fn size(&self) -> usize {
        match self {
            Self::Whole(bytes) | Self::Piece(bytes) => bytes.len(),
            Self::Missing(_) => 0,
            Self::Tree(tree) => tree.pieces.len() * size_of::<ChainingValue>(),
        }
    }
}

/// The chaining values of the pieces of a long object. They prove each piece by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectTree {
    /// Bytes of the object: more than one piece, at most [`MAX_OBJECT_BYTES`].
    bytes: u64,
    /// One for each piece of [`OBJECT_PIECE_BYTES`]. The last piece may be shorter.
    pieces: Vec<ChainingValue>,
}

impl ObjectTree {
    /// A received tree. Its pieces prove nothing until [`id`](Self::id) is compared.
    ///
    /// Returns `None` if the object is no long one, or the number of pieces does not fit its bytes.
    pub fn new(bytes: u64, pieces: Vec<[u8; 32]>) -> Option<Self> {
        let is_long = bytes > OBJECT_PIECE_BYTES as u64 && bytes <= MAX_OBJECT_BYTES as u64;
        let fits = pieces.len() as u64 == bytes.div_ceil(OBJECT_PIECE_BYTES as u64);
        (is_long && fits).then_some(Self { bytes, pieces })
    }

    /// The tree of a long object, piece by piece.
    ///
    /// `read` returns the piece in a range of bytes.
    ///
    /// # Errors
    /// Fails if `read` does.
    ///
    /// # Panics
    /// If the object is no long one.
    pub fn of<E>(bytes: u64, mut read: impl FnMut(Range<u64>) -> Result<Bytes, E>) -> Result<Self, E> {
        assert!(bytes > OBJECT_PIECE_BYTES as u64, "an object of {bytes} bytes has one piece");
        let pieces = pieces(bytes).map(|range| Ok(chaining_value(range.start, &read(range)?)));
        Ok(Self { bytes, pieces: pieces.collect::<Result<_, E>>()? })
    }

    /// Bytes of the object.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The chaining value of each piece.
    pub fn pieces(&self) -> &[[u8; 32]] {
        &self.pieces
    }

    /// The id of the object with these pieces.
    pub fn id(&self) -> ObjectId {
        let (left, right) = self.halves(0..self.bytes);
        let mode = Mode::DeriveKeyMaterial(ObjectId::context_key());
        ObjectId(*merge_subtrees_root(&self.value(left), &self.value(right), mode).as_bytes())
    }

    /// Whether these are the bytes of a piece.
    pub fn proves(&self, index: usize, piece: &[u8]) -> bool {
        let start = index as u64 * OBJECT_PIECE_BYTES as u64;
        let length = self.bytes.saturating_sub(start).min(OBJECT_PIECE_BYTES as u64);
        // A piece that exists has bytes, as every subtree must.
        let expected = self.pieces.get(index).filter(|_| piece.len() as u64 == length);
        expected.is_some_and(|expected| *expected == chaining_value(start, piece))
    }

    /// A range of more than one piece, cut where BLAKE3 cuts it.
    fn halves(&self, range: Range<u64>) -> (Range<u64>, Range<u64>) {
        let middle = range.start + left_subtree_len(range.end - range.start);
        (range.start..middle, middle..range.end)
    }

    fn value(&self, range: Range<u64>) -> ChainingValue {
        if range.end - range.start <= OBJECT_PIECE_BYTES as u64 {
            return self.pieces[(range.start / OBJECT_PIECE_BYTES as u64) as usize];
        }
        let (left, right) = self.halves(range);
        let mode = Mode::DeriveKeyMaterial(ObjectId::context_key());
        merge_subtrees_non_root(&self.value(left), &self.value(right), mode)
    }
}

/// The ranges of the pieces of an object of so many bytes.
pub fn pieces(bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let length = OBJECT_PIECE_BYTES as u64;
    (0..bytes.div_ceil(length)).map(move |index| index * length..bytes.min((index + 1) * length))
}

fn chaining_value(start: u64, piece: &[u8]) -> ChainingValue {
    let key: &ContextKey = ObjectId::context_key();
    blake3::Hasher::new_from_context_key(key).set_input_offset(start).update(piece).finalize_non_root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn content(bytes: usize) -> Bytes {
        (0..bytes).map(|at| (at / 1_000 + at) as u8).collect()
    }

    fn tree(object: &Bytes) -> ObjectTree {
        let read = |range: Range<u64>| Ok::<_, Infallible>(object.slice(range.start as usize..range.end as usize));
        ObjectTree::of(object.len() as u64, read).expect("nothing fails")
    }

    #[test]
    fn the_tree_of_an_object_of_any_length_has_the_id_of_its_bytes() {
        let piece = OBJECT_PIECE_BYTES;
        for bytes in [piece + 1, 2 * piece - 1, 2 * piece, 2 * piece + 1, 3 * piece, 5 * piece + 17, 8 * piece] {
            let object = content(bytes);
            assert_eq!(tree(&object).id(), ObjectId::of(&[&object]), "{bytes} bytes");
        }
    }

    #[test]
    fn each_piece_is_proved_alone_and_a_changed_moved_or_cut_one_is_not() {
        let object = content(2 * OBJECT_PIECE_BYTES + 5);
        let tree = tree(&object);
        let ranges: Vec<_> = pieces(object.len() as u64).collect();
        let piece = |index: usize| object.slice(ranges[index].start as usize..ranges[index].end as usize);
        for index in 0..3 {
            assert!(tree.proves(index, &piece(index)), "piece {index}");
            assert!(!tree.proves(index, &piece(index)[1..]), "piece {index}, cut");
            let mut changed = piece(index).to_vec();
            changed[0] ^= 1;
            assert!(!tree.proves(index, &changed), "piece {index}, changed");
        }
        assert!(!tree.proves(0, &piece(1)) && !tree.proves(1, &piece(0)) && !tree.proves(3, &[]));
    }

    #[test]
    fn a_received_tree_has_one_piece_for_each_part_of_its_bytes() {
        let piece = OBJECT_PIECE_BYTES as u64;
        assert!(ObjectTree::new(piece + 1, vec![[0; 32]; 2]).is_some());
        assert!(ObjectTree::new(piece + 1, vec![[0; 32]; 1]).is_none());
        assert!(ObjectTree::new(piece + 1, vec![[0; 32]; 3]).is_none());
        assert!(ObjectTree::new(piece, vec![[0; 32]; 1]).is_none(), "a short object travels whole");
        assert!(ObjectTree::new(0, Vec::new()).is_none());
        let longest = MAX_OBJECT_BYTES as u64;
        assert!(ObjectTree::new(longest, vec![[0; 32]; (longest / piece) as usize]).is_some());
        assert!(ObjectTree::new(longest + 1, vec![[0; 32]; (longest / piece) as usize + 1]).is_none());
    }
}
