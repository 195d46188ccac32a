//! Requests for objects by their ids, and the form of answers.

use crate::wire::{
    CallError, Status,
    error::malformed,
    limits::{MAX_OBJECTS_PER_FETCH, MAX_SNAPSHOTS},
};
use futures::stream::BoxStream;
use soma_types::{ObjectId, ObjectKind, ObjectPart, SnapshotInfo, limits::OBJECT_PIECE_BYTES};

/// Requested objects of one kind: not empty, at most [`MAX_OBJECTS_PER_FETCH`], without repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectIds {
    kind: ObjectKind,
    ids: Vec<ObjectId>,
}

impl ObjectIds {
    /// Checks the number of ids and that none is repeated.
    ///
    /// # Errors
    /// Fails if there are no or too many ids, or if one is repeated.
    pub fn new(kind: ObjectKind, ids: Vec<ObjectId>) -> Result<Self, CallError> {
        let refuse = |message: String| Err(CallError::new(Status::InvalidArgument, message));
        if ids.is_empty() || ids.len() > MAX_OBJECTS_PER_FETCH {
            return refuse(format!("{} object ids: 1 to {MAX_OBJECTS_PER_FETCH} are allowed", ids.len()));
        }
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => refuse(format!("object {} is requested twice", pair[0])),
            None => Ok(Self { kind, ids }),
        }
    }

    /// What the objects are.
    pub fn kind(&self) -> ObjectKind {
        self.kind
    }

    /// The ids, in the requested order.
    pub fn as_slice(&self) -> &[ObjectId] {
        &self.ids
    }

    /// The ids, in the requested order.
    pub fn into_vec(self) -> Vec<ObjectId> {
        self.ids
    }
}

/// Parts of the requested objects in order, several at a time. Dropping the stream ends the call.
pub type ObjectStream = BoxStream<'static, Result<Vec<ObjectPart>, CallError>>;

/// Follows the parts of one answer, and checks their form.
#[derive(Debug)]
pub struct ObjectProgress {
    /// Requested objects that are not answered.
    left: usize,
    /// Pieces of the present object that are still to come, and the bytes of the last one.
    pieces: Option<(usize, usize)>,
}

impl ObjectProgress {
    /// Of an answer to a request for this many objects.
    pub fn new(requested: usize) -> Self {
        Self { left: requested, pieces: None }
    }

    /// Whether every object is answered.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Checks the parts of one message.
    ///
    /// # Errors
    /// Fails if there are none, they have too many bytes, or one of them cannot come next.
    pub fn take(&mut self, parts: &[ObjectPart]) -> Result<(), CallError> {
        if parts.is_empty() || parts.len() > MAX_OBJECTS_PER_FETCH {
            let message = format!("{} parts of objects: 1 to {MAX_OBJECTS_PER_FETCH} are allowed", parts.len());
            return Err(malformed(message));
        }
        let bytes: usize = parts.iter().map(ObjectPart::size).sum();
        if bytes > OBJECT_PIECE_BYTES {
            return Err(malformed(format!("{bytes} bytes of objects: at most {OBJECT_PIECE_BYTES} are allowed")));
        }
        parts.iter().try_for_each(|part| self.take_part(part))
    }

    fn take_part(&mut self, part: &ObjectPart) -> Result<(), CallError> {
        match (self.pieces, part) {
            (None, ObjectPart::Whole(_)) if self.left > 0 => self.left -= 1,
            (None, ObjectPart::Missing(count)) if (1..=self.left as u64).contains(&(*count).into()) => {
                self.left -= *count as usize;
            }
            (None, ObjectPart::Tree(tree)) if self.left > 0 => {
                let last = tree.bytes() as usize - (tree.pieces().len() - 1) * OBJECT_PIECE_BYTES;
                self.pieces = Some((tree.pieces().len(), last));
            }
            (Some((1, last)), ObjectPart::Piece(piece)) if piece.len() == last => {
                self.pieces = None;
                self.left -= 1;
            }
            (Some((pieces, last)), ObjectPart::Piece(piece)) if pieces > 1 && piece.len() == OBJECT_PIECE_BYTES => {
                self.pieces = Some((pieces - 1, last));
            }
            (_, part) => return Err(malformed(format!("{} cannot come here", describe(part)))),
        }
        Ok(())
    }
}

/// Checks the number of snapshots in an answer.
///
/// # Errors
/// Fails if there are too many.
pub(crate) fn checked_snapshots(snapshots: Vec<SnapshotInfo>) -> Result<Vec<SnapshotInfo>, CallError> {
    if snapshots.len() > MAX_SNAPSHOTS {
        return Err(malformed(format!("{} snapshots: at most {MAX_SNAPSHOTS} are allowed", snapshots.len())));
    }
    Ok(snapshots)
}

fn describe(part: &ObjectPart) -> String {
    match part {
        ObjectPart::Whole(bytes) => format!("an object of {} bytes", bytes.len()),
        ObjectPart::Missing(count) => format!("{count} missing objects"),
        ObjectPart::Tree(tree) => format!("an object of {} bytes in pieces", tree.bytes()),
        ObjectPart::Piece(bytes) => format!("a piece of {} bytes", bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proto;
    use bytes::Bytes;
    use prost::Message;
    use soma_types::{CommitDigest, CommitRef, ObjectTree};

    const PIECE: usize = OBJECT_PIECE_BYTES;

    fn whole(bytes: usize) -> ObjectPart {
        ObjectPart::Whole(vec![0; bytes].into())
    }

    fn piece(bytes: usize) -> ObjectPart {
        ObjectPart::Piece(vec![0; bytes].into())
    }

    fn tree(bytes: usize) -> ObjectPart {
        let pieces = bytes.div_ceil(PIECE);
        ObjectPart::Tree(ObjectTree::new(bytes as u64, vec![[0; 32]; pieces]).expect("a long object"))
    }

    /// Whether an answer to a request for this many objects is complete, or the error.
    fn answer(requested: usize, messages: &[Vec<ObjectPart>]) -> Result<bool, String> {
        let mut progress = ObjectProgress::new(requested);
        for parts in messages {
            progress.take(parts).map_err(|error| error.message)?;
        }
        Ok(progress.is_complete())
    }

    #[test]
    fn an_answer_is_complete_when_each_object_is_there_or_missing() {
        let parts = [vec![whole(0), ObjectPart::Missing(2)], vec![tree(PIECE + 1)], vec![piece(PIECE)], vec![piece(1)]];
        for length in 0..parts.len() {
            assert_eq!(answer(4, &parts[..length]), Ok(false), "{length} messages");
        }
        assert_eq!(answer(4, &parts), Ok(true));
    }

    #[test]
    fn parts_that_no_correct_responder_sends_are_malformed() {
        let wrong: [(&str, usize, Vec<Vec<ObjectPart>>); 11] = [
            ("nothing", 1, vec![vec![]]),
            ("more than asked for", 1, vec![vec![whole(1), whole(1)]]),
            ("none missing", 1, vec![vec![ObjectPart::Missing(0)]]),
            ("more missing than asked for", 2, vec![vec![whole(1), ObjectPart::Missing(2)]]),
            ("missing beyond any list", 2, vec![vec![ObjectPart::Missing(u32::MAX)]]),
            ("a piece of nothing", 1, vec![vec![piece(1)]]),
            ("too many bytes", 1, vec![vec![whole(PIECE + 1)]]),
            ("another object between pieces", 2, vec![vec![tree(PIECE + 1)], vec![whole(1)]]),
            ("a short piece", 1, vec![vec![tree(PIECE + 1)], vec![piece(PIECE - 1)]]),
            ("a last piece that is too long", 1, vec![vec![tree(PIECE + 1)], vec![piece(PIECE)], vec![piece(2)]]),
            ("too many parts", 1, vec![vec![ObjectPart::Whole(Bytes::new()); MAX_OBJECTS_PER_FETCH + 1]]),
        ];
        for (what, requested, messages) in wrong {
            assert!(answer(requested, &messages).is_err(), "{what}");
        }
    }

    #[test]
    fn a_request_has_ids_but_not_too_many_and_none_twice() {
        let ids = |count: usize| (0..count).map(|id| ObjectId::of(&[&id.to_le_bytes()])).collect::<Vec<_>>();
        let request = |ids| ObjectIds::new(ObjectKind::OBJECT, ids);
        assert!(request(ids(MAX_OBJECTS_PER_FETCH)).is_ok());
        assert!(request(ids(MAX_OBJECTS_PER_FETCH + 1)).is_err());
        assert!(request(Vec::new()).is_err());
        assert!(request([ids(2), ids(1)].concat()).is_err());
    }
    /// A field with bytes, of fewer than 128.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }

    #[test]
    fn messages_about_objects_are_unchanged() {
        let request = ObjectIds::new(ObjectKind::OBJECT, vec![ObjectId([0xa0; 32])]).expect("one id");
        let request = proto::FetchObjectsRequest::from(request).encode_to_vec();
        assert_eq!(request, [vec![0x08, 3], field(2, &[0xa0; 32])].concat());
        let tree = ObjectTree::new(PIECE as u64 + 1, vec![[0xb0; 32], [0xb1; 32]]).expect("two pieces");
        let parts = [
            (ObjectPart::Whole("soma".into()), field(1, b"soma")),
            (ObjectPart::Missing(2), vec![0x10, 2]),
            (
                ObjectPart::Tree(tree),
                field(3, &[vec![0x08, 0x81, 0x80, 0x40], field(2, &[[0xb0; 32], [0xb1; 32]].concat())].concat()),
            ),
            (ObjectPart::Piece("piece".into()), field(4, b"piece")),
        ];
        for (part, expected) in parts {
            let answer = proto::FetchObjectsResponse { parts: vec![part.into()] };
            assert_eq!(answer.encode_to_vec(), field(1, &expected));
        }
        let snapshot = SnapshotInfo {
            commit: CommitRef { index: 5, digest: CommitDigest([8; 32]) },
            format: 1,
            bytes: 7,
            manifest: ObjectId([0xa0; 32]),
        };
        let expected = [vec![0x08, 5], field(2, &[8; 32]), vec![0x18, 1, 0x20, 7], field(5, &[0xa0; 32])].concat();
        let answer = proto::GetSnapshotsResponse { snapshots: vec![snapshot.into()] };
        assert_eq!(answer.encode_to_vec(), field(1, &expected));
    }
}
