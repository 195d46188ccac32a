//! Objects: whether what a peer sends is what its name says.

use crate::{
    context::EpochContext,
    signature_batch::SignatureBatch,
    transaction::{TransactionError, TransactionVerifier, check_transaction},
};
use bytes::{Bytes, BytesMut};
use soma_types::{
    EncodedCertificate, Fault, ObjectId, ObjectPart, ObjectTree, PeerFailure,
    limits::{MAX_OBJECT_BYTES, OBJECT_PIECE_BYTES},
};
use std::sync::Arc;

/// An object that is at least this part of its message is a slice of it. A smaller one is copied: otherwise one object
/// that is kept would keep a whole message in memory.
const SLICED_PART: usize = 4;

/// Joins the parts of one answer, and checks each object as it arrives.
#[derive(Debug)]
pub struct ObjectAssembly {
    ids: Vec<ObjectId>,
    /// Position of the next object.
    next: usize,
    /// The long object whose pieces are arriving.
    long: Option<LongObject>,
}

#[derive(Debug)]
struct LongObject {
    tree: ObjectTree,
    pieces: usize,
    bytes: BytesMut,
}

/// An object of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweredObject {
    /// Its position in the request.
    pub position: usize,
    /// Its bytes, whose digest is its id. `None`: the peer lacks it.
    pub bytes: Option<Bytes>,
}

impl ObjectAssembly {
    /// Of an answer to a request for these objects.
    pub fn new(ids: Vec<ObjectId>) -> Self {
        Self { ids, next: 0, long: None }
    }

    /// Takes the parts of one message. Returns the objects that are complete, in order.
    ///
    /// # Errors
    ///
    /// Fails if a part is not what its name says, or cannot come here: `(complete, failure)`. The objects before it
    /// count.
    pub fn take(&mut self, parts: Vec<ObjectPart>) -> Result<Vec<AnsweredObject>, (Vec<AnsweredObject>, PeerFailure)> {
        let bytes_of_message: usize = parts.iter().map(ObjectPart::size).sum();
        let whole = parts.iter().filter_map(|part| match part {
            ObjectPart::Whole(bytes) => Some(&**bytes),
            _ => None,
        });
        // Side by side: most objects are short.
        let mut digests = ObjectId::of_each(&whole.collect::<Vec<_>>()).into_iter();
        let mut complete = Vec::new();
        for part in parts {
            let taken = match part {
                ObjectPart::Whole(bytes) => {
                    let is_large = bytes.len() * SLICED_PART >= bytes_of_message;
                    let bytes = if is_large { bytes } else { Bytes::copy_from_slice(&bytes) };
                    self.take_object(digests.next(), bytes, &mut complete)
                }
                ObjectPart::Missing(count) => self.take_missing(count as usize, &mut complete),
                ObjectPart::Tree(tree) => self.take_tree(tree),
                ObjectPart::Piece(piece) => self.take_piece(piece, &mut complete),
            };
            if let Err(failure) = taken {
                return Err((complete, failure));
            }
        }
        Ok(complete)
    }

    /// Whether a long object has begun and is not complete. It takes memory for all of its bytes from its tree on.
    pub fn is_in_pieces(&self) -> bool {
        self.long.is_some()
    }

    fn expected(&self) -> Result<ObjectId, PeerFailure> {
        let expected = self.ids.get(self.next).filter(|_| self.long.is_none());
        expected.copied().ok_or_else(|| malformed("a part of an object that cannot come here"))
    }

    fn take_object(
        &mut self,
        digest: Option<ObjectId>,
        bytes: Bytes,
        complete: &mut Vec<AnsweredObject>,
    ) -> Result<(), PeerFailure> {
        let expected = self.expected()?;
        if digest != Some(expected) {
            return Err(wrong(format!("object {expected} has other bytes: {} of them", bytes.len())));
        }
        self.complete(Some(bytes), complete);
        Ok(())
    }

    fn take_missing(&mut self, count: usize, complete: &mut Vec<AnsweredObject>) -> Result<(), PeerFailure> {
        if self.long.is_some() || count == 0 || count > self.ids.len() - self.next {
            return Err(malformed("more objects are missing than were asked for"));
        }
        for _ in 0..count {
            self.complete(None, complete);
        }
        Ok(())
    }

    fn take_tree(&mut self, tree: ObjectTree) -> Result<(), PeerFailure> {
        let expected = self.expected()?;
        let id = tree.id();
        if id != expected {
            return Err(wrong(format!("object {expected} came with the tree of {id}")));
        }
        // The tree is proved, and with it how many pieces follow.
        let bytes = BytesMut::with_capacity((tree.bytes() as usize).min(MAX_OBJECT_BYTES));
        self.long = Some(LongObject { tree, pieces: 0, bytes });
        Ok(())
    }

    fn take_piece(&mut self, piece: Bytes, complete: &mut Vec<AnsweredObject>) -> Result<(), PeerFailure> {
        let Some(long) = &mut self.long else { return Err(malformed("a piece of no object")) };
        if !long.tree.proves(long.pieces, &piece) {
            let (id, at) = (long.tree.id(), long.pieces * OBJECT_PIECE_BYTES);
            return Err(wrong(format!("object {id} has other bytes from byte {at} on")));
        }
        long.pieces += 1;
        long.bytes.extend_from_slice(&piece);
        if long.pieces == long.tree.pieces().len() {
            let bytes = std::mem::take(&mut long.bytes).freeze();
            self.long = None;
            self.complete(Some(bytes), complete);
        }
        Ok(())
    }

    fn complete(&mut self, bytes: Option<Bytes>, complete: &mut Vec<AnsweredObject>) {
        complete.push(AnsweredObject { position: self.next, bytes });
        self.next += 1;
    }
}

fn wrong(reason: String) -> PeerFailure {
    PeerFailure::new(Fault::ProvableLie, reason)
}

fn malformed(reason: &str) -> PeerFailure {
    PeerFailure::new(Fault::Malformed, reason)
}

/// Checks encoded certificates with the committees of their epochs: signatures and quorum. All signatures are checked
/// together.
///
/// The result has one entry for each certificate, in order: the reason why it does not pass, if it does not.
pub fn check_certificates(
    contexts: &[Arc<EpochContext>],
    verifier: &dyn TransactionVerifier,
    certificates: &[Bytes],
) -> Vec<Result<(), String>> {
    let mut verdicts = Vec::with_capacity(certificates.len());
    let mut batch = SignatureBatch::new();
    for (owner, certificate) in certificates.iter().enumerate() {
        verdicts.push(check_certificate(contexts, verifier, certificate, owner, &mut batch));
    }
    if let Err(wrong) = batch.verify() {
        for owner in wrong {
            if let Some(verdict) = verdicts.get_mut(owner).filter(|verdict| verdict.is_ok()) {
                *verdict = Err(TransactionError::BadSignature.to_string());
            }
        }
    }
    verdicts
}

fn check_certificate(
    contexts: &[Arc<EpochContext>],
    verifier: &dyn TransactionVerifier,
    certificate: &[u8],
    owner: usize,
    batch: &mut SignatureBatch,
) -> Result<(), String> {
    let epoch = EncodedCertificate::decode(certificate).map_err(|error| error.to_string())?.epoch;
    let context = contexts.iter().find(|context| context.epoch() == epoch);
    let context = context.ok_or_else(|| format!("the committee of epoch {epoch} is not known here"))?;
    check_transaction(context, verifier, certificate, owner, batch).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// The parts of a long object.
    fn long_object(bytes: usize) -> (ObjectId, Vec<ObjectPart>) {
        let object: Bytes = (0..bytes).map(|at| (at % 251) as u8).collect();
        let slice = |range: std::ops::Range<u64>| object.slice(range.start as usize..range.end as usize);
        let Ok(tree) = ObjectTree::of(bytes as u64, |range| Ok::<_, Infallible>(slice(range)));
        let pieces = soma_types::object_pieces(bytes as u64).map(|range| ObjectPart::Piece(slice(range)));
        let parts = [ObjectPart::Tree(tree)].into_iter().chain(pieces).collect();
        (ObjectId::of(&[&object]), parts)
    }

    #[test]
    fn a_long_object_counts_from_its_tree_to_its_last_piece() {
        let (id, parts) = long_object(2 * OBJECT_PIECE_BYTES + 1);
        let mut assembly = ObjectAssembly::new(vec![id]);
        assert!(!assembly.is_in_pieces());
        for part in &parts[..3] {
            assert_eq!(assembly.take(vec![part.clone()]), Ok(Vec::new()));
            assert!(assembly.is_in_pieces());
        }
        let complete = assembly.take(vec![parts[3].clone()]).expect("the piece is right");
        assert!(complete.len() == 1 && !assembly.is_in_pieces());
    }

    #[test]
    fn what_came_before_a_wrong_part_counts() {
        let ids = [&b"first"[..], b"second"].map(|content| ObjectId::of(&[content]));
        let mut assembly = ObjectAssembly::new(ids.into());
        let parts = ["first", "other"].map(|content| ObjectPart::Whole(Bytes::from(content)));
        let (complete, failure) = assembly.take(parts.into()).expect_err("the second one is wrong");
        assert_eq!((complete.len(), failure.fault), (1, Fault::ProvableLie));
    }
}
