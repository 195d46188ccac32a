//! Batched verification of signatures, at less than a third of the cost of single checks.
//!
//! A batch accepts exactly the signatures that ZIP 215 accepts (cofactored, points in any encoding). The grouping does
//! not change the verdict, so no two nodes ever differ about a signature (ADR 8). Batches contain only signatures below
//! a digest that a quorum has certified. A signature that alone decides about trust is checked strictly, elsewhere.
//!
//! Signatures of one key share most of the work for the key, and a committee has few keys. The random factors of the
//! equation come from a digest of all checked input. An attacker therefore cannot choose a signature to fit the
//! factors, and the same input always has the same verdict.

use ed25519_zebra::{VerificationKey, VerificationKeyBytes, batch};
use rand_core::{Infallible, TryCryptoRng, TryRng};
use soma_types::{INTENT_MESSAGE_BYTES, PublicKey, Signature};
use std::collections::BTreeSet;

/// Signatures in one equation; a group may be half as large again. Larger groups gain little (an equation's own cost is
/// already a fortieth), use more memory, and make the search for a bad signature longer.
pub const BATCH_GROUP: usize = 4_096;

/// Bytes per update of the digest. BLAKE3 hashes many chunks of 1 KiB in parallel, and a signature is less than a
/// chunk.
const TRANSCRIPT_PIECE: usize = 32 << 10;

/// Signatures to check together. Each has an owner: a position in the caller's list.
#[derive(Debug)]
pub struct SignatureBatch {
    owners: Vec<usize>,
    keys: Vec<[u8; 32]>,
    messages: Vec<[u8; INTENT_MESSAGE_BYTES]>,
    signatures: Vec<[u8; Signature::BYTES]>,
}

impl SignatureBatch {
    /// An empty batch.
    #[allow(clippy::new_without_default)] // Without a default, `mem::take` cannot silently drop a batch.
    pub fn new() -> Self {
        Self { owners: Vec::new(), keys: Vec::new(), messages: Vec::new(), signatures: Vec::new() }
    }

    /// Adds the signature of `key` on an intent message. For a key that is not a point of the curve it counts as bad.
    pub fn push(&mut self, owner: usize, key: &PublicKey, message: [u8; INTENT_MESSAGE_BYTES], signature: &Signature) {
        self.owners.push(owner);
        self.keys.push(key.0);
        self.messages.push(message);
        self.signatures.push(signature.0);
    }

    /// Number of signatures.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Whether there are no signatures.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Drops the signatures of owners from `end` on. Owners were added in ascending order.
    pub(crate) fn keep_owners_below(&mut self, end: usize) {
        let kept = self.owners.partition_point(|owner| *owner < end);
        self.owners.truncate(kept);
        self.keys.truncate(kept);
        self.messages.truncate(kept);
        self.signatures.truncate(kept);
    }

    /// The owner of each signature, in the order of their addition.
    pub(crate) fn owners(&self) -> &[usize] {
        &self.owners
    }

    /// Checks all signatures.
    ///
    /// # Errors
    /// Returns the owners of bad signatures, ascending and without repetition.
    pub fn verify(self) -> Result<(), Vec<usize>> {
        Self::verify_each(&[&self]).remove(0)
    }

    /// Checks the signatures of several batches together, with a verdict for each batch.
    ///
    /// If an equation fails although each of its signatures passes alone, all of them fail: the bad one cannot be
    /// found, so none is trusted.
    pub fn verify_each(batches: &[&Self]) -> Vec<Result<(), Vec<usize>>> {
        Self::verify_each_by(batches, holds, Self::is_signed)
    }

    /// [`verify_each`](Self::verify_each) with the given checks of a group and of one signature.
    fn verify_each_by(
        batches: &[&Self],
        holds: impl Fn(&[&Self], &[Entry]) -> bool,
        is_signed: impl Fn(&Self, usize) -> bool,
    ) -> Vec<Result<(), Vec<usize>>> {
        let all: Vec<Entry> = (0..)
            .zip(batches)
            .flat_map(|(batch, signatures)| (0..signatures.len()).map(move |position| Entry { batch, position }))
            .collect();
        let mut culprits = vec![BTreeSet::new(); batches.len()];
        // Groups of similar size: a small group at the end would be expensive per signature, and so would two halves of
        // slightly more than one group.
        let groups = ((all.len() + BATCH_GROUP / 2) / BATCH_GROUP).max(1);
        for group in all.chunks(all.len().div_ceil(groups).max(1)) {
            if holds(batches, group) {
                continue;
            }
            let mut blame = |entry: &Entry| {
                culprits[entry.batch].insert(batches[entry.batch].owners[entry.position]);
            };
            let mut blamed = false;
            // A bad signature in one batch is no reason to check the other batches' signatures one by one.
            for part in group.chunk_by(|one, other| one.batch == other.batch).filter(|part| !holds(batches, part)) {
                let mut bad = part.iter().filter(|entry| !is_signed(batches[entry.batch], entry.position)).peekable();
                match bad.peek() {
                    Some(_) => bad.for_each(&mut blame),
                    None => part.iter().for_each(&mut blame),
                }
                blamed = true;
            }
            if !blamed {
                group.iter().for_each(&mut blame);
            }
        }
        let verdict = |bad: BTreeSet<usize>| if bad.is_empty() { Ok(()) } else { Err(bad.into_iter().collect()) };
        culprits.into_iter().map(verdict).collect()
    }

    /// Checks one signature alone.
    fn is_signed(&self, position: usize) -> bool {
        let signature = ed25519_zebra::Signature::from(self.signatures[position]);
        VerificationKey::try_from(self.keys[position])
            .is_ok_and(|key| key.verify(&signature, &self.messages[position]).is_ok())
    }
}

/// One signature of several batches, by its position.
struct Entry {
    batch: usize,
    position: usize,
}

/// Whether all signatures of the group are valid.
fn holds(batches: &[&SignatureBatch], group: &[Entry]) -> bool {
    let mut verifier = batch::Verifier::new();
    let mut transcript = blake3::Hasher::new_derive_key("soma-p2p 2026 v1 factors of a signature batch");
    let mut piece = Vec::with_capacity(TRANSCRIPT_PIECE);
    for entry in group {
        let SignatureBatch { keys, messages, signatures, .. } = batches[entry.batch];
        let (key, message, signature) = (keys[entry.position], &messages[entry.position], signatures[entry.position]);
        if piece.len() + key.len() + message.len() + signature.len() > TRANSCRIPT_PIECE {
            transcript.update(&piece);
            piece.clear();
        }
        for part in [&key[..], message, &signature] {
            piece.extend_from_slice(part);
        }
        verifier.queue((VerificationKeyBytes::from(key), ed25519_zebra::Signature::from(signature), message));
    }
    verifier.verify(Factors::new(transcript.update(&piece).finalize_xof())).is_ok()
}

/// Random bytes from a digest.
struct Factors {
    source: blake3::OutputReader,
    buffer: [u8; 1_024],
    used: usize,
}

impl Factors {
    fn new(source: blake3::OutputReader) -> Self {
        let buffer = [0; 1_024];
        Self { source, used: buffer.len(), buffer }
    }
}

impl TryRng for Factors {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for byte in bytes {
            if self.used == self.buffer.len() {
                self.source.fill(&mut self.buffer);
                self.used = 0;
            }
            *byte = self.buffer[self.used];
            self.used += 1;
        }
        Ok(())
    }
}

/// BLAKE3's output is indistinguishable from random bytes without its input, and an input cannot be chosen for its
/// output.
impl TryCryptoRng for Factors {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use soma_types::{ChainId, Intent, Scope, SigningKey};

    /// The least number of signatures with more than one group.
    const TWO_GROUPS: usize = BATCH_GROUP + BATCH_GROUP / 2;

    const INTENT: Intent = Intent { scope: Scope::Block, chain: ChainId([7; 32]) };

    /// Signatures of `keys` keys in turn, two per owner.
    fn batch(count: usize, keys: u8, bad: &[usize]) -> SignatureBatch {
        let keys: Vec<_> = (1..=keys).map(|number| SigningKey::from_bytes(&[number; 32])).collect();
        let mut batch = SignatureBatch::new();
        for position in 0..count {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&(position as u64).to_le_bytes());
            let key = &keys[position % keys.len()];
            let mut signature = INTENT.sign(key, &digest);
            if bad.contains(&position) {
                signature.0[40] ^= 1;
            }
            batch.push(position / 2, &PublicKey::from(key), INTENT.message(&digest), &signature);
        }
        batch
    }

    #[test]
    fn good_signatures_pass_in_any_number() {
        for count in [0, 1, 2, TWO_GROUPS - 1, TWO_GROUPS] {
            let batch = batch(count, 3, &[]);
            assert_eq!((batch.len(), batch.is_empty()), (count, count == 0));
            assert_eq!(batch.verify(), Ok(()));
        }
    }

    #[test]
    fn owners_of_bad_signatures_are_reported_once_and_ascending() {
        assert_eq!(batch(1, 1, &[0]).verify(), Err(vec![0]));
        assert_eq!(batch(10, 3, &[7, 2, 6]).verify(), Err(vec![1, 3]));
        // The first and the last signature of two groups, and both sides of the border between them.
        let (last, cut) = (TWO_GROUPS - 1, TWO_GROUPS / 2);
        let bad = [0, cut - 1, cut, last];
        assert_eq!(batch(TWO_GROUPS, 2, &bad).verify(), Err(bad.map(|position| position / 2).to_vec()));
    }

    #[test]
    fn in_joint_verification_only_batches_with_a_bad_signature_fail() {
        let (good, bad, empty) = (batch(40, 3, &[]), batch(30, 2, &[29]), SignatureBatch::new());
        let verdicts = SignatureBatch::verify_each(&[&good, &bad, &empty, &good]);
        assert_eq!(verdicts, [Ok(()), Err(vec![14]), Ok(()), Ok(())]);
        assert_eq!(SignatureBatch::verify_each(&[]), []);
    }

    #[test]
    fn signature_that_is_no_curve_point_or_scalar_is_bad_and_does_not_panic() {
        let mut batch = batch(3, 1, &[]);
        let key = PublicKey::from(&SigningKey::from_bytes(&[1; 32]));
        batch.push(5, &key, INTENT.message(&[0; 32]), &Signature([0xff; 64]));
        batch.push(6, &key, INTENT.message(&[0; 32]), &Signature::ZERO);
        // y = 2 is not on the curve.
        let mut no_point = [0; 32];
        no_point[0] = 2;
        batch.push(7, &PublicKey(no_point), INTENT.message(&[0; 32]), &Signature([1; 64]));
        assert_eq!(batch.verify(), Err(vec![5, 6, 7]));
    }

    #[test]
    fn equation_that_fails_without_a_culprit_fails_every_batch_in_it() {
        let (one, other) = (batch(4, 1, &[]), batch(2, 1, &[]));
        let verdicts = SignatureBatch::verify_each_by(&[&one, &other], |_, _| false, |_, _| true);
        assert_eq!(verdicts, [Err(vec![0, 1]), Err(vec![0])]);
        // The joint equation fails, but each batch's own equation holds.
        let both_fail = |_: &[&SignatureBatch], group: &[Entry]| group.len() < 6;
        let verdicts = SignatureBatch::verify_each_by(&[&one, &other], both_fail, |_, _| true);
        assert_eq!(verdicts, [Err(vec![0, 1]), Err(vec![0])]);
    }

    /// Points of small order in all encodings, as keys or as the first half of signatures. Strict, plain and cofactored
    /// rules differ for them.
    fn odd_point() -> impl Strategy<Value = [u8; 32]> {
        let edge = |head: u8, rest: u8, tail: u8| {
            let mut bytes = [rest; 32];
            (bytes[0], bytes[31]) = (head, tail);
            bytes
        };
        prop::sample::select(vec![
            edge(0, 0, 0),
            edge(0, 0, 0x80),
            edge(1, 0, 0),
            edge(1, 0, 0x80),
            edge(0xec, 0xff, 0x7f),
            edge(0xec, 0xff, 0xff),
            edge(0xed, 0xff, 0x7f),
            edge(0xee, 0xff, 0xff),
        ])
    }

    proptest! {
        #[test]
        fn signature_passes_in_a_batch_exactly_when_it_passes_alone(
            odd in prop::collection::vec((odd_point(), odd_point(), prop::bool::ANY), 1..4),
            good in 0usize..4,
        ) {
            let mut together = batch(good, 2, &[]);
            let mut alone = Vec::new();
            for (number, (key, point, zero)) in odd.into_iter().enumerate() {
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(&point);
                signature[32] = u8::from(!zero);
                let mut single = SignatureBatch::new();
                let message = INTENT.message(&[number as u8; 32]);
                single.push(0, &PublicKey(key), message, &Signature(signature));
                together.push(100 + number, &PublicKey(key), message, &Signature(signature));
                prop_assert_eq!(single.is_signed(0), single.verify().is_ok());
                let mut single = SignatureBatch::new();
                single.push(0, &PublicKey(key), message, &Signature(signature));
                if single.verify().is_err() {
                    alone.push(100 + number);
                }
            }
            prop_assert_eq!(together.verify().err().unwrap_or_default(), alone);
        }
    }
}
