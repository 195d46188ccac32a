//! Many signatures at once, at about half the price of one by one.
//!
//! Which signatures pass: whatever [`VerifyingKey::verify`] accepts always passes, in every grouping. Beyond that, a
//! group may let through a signature that is off by a point of small order. Only the key's owner can make such a
//! one, so it forges nothing; but it does mean that a batch alone must not decide what nodes have to agree on.
//! Here it never does: what goes into a batch is pinned by a digest that a quorum has certified, and those who
//! voted checked the signatures one by one. So culprits are sought with `verify` too, not `verify_strict`: a
//! signature is blamed only if it breaks the equation of its group, and a group that fails always has a culprit.

use ed25519_dalek::{Verifier, VerifyingKey, verify_batch};
use soma_types::{INTENT_MESSAGE_BYTES, Signature};
use std::collections::BTreeSet;

/// Signatures in one group. More gain little (the price per signature falls with the logarithm), cost memory, and
/// make the search for a culprit longer.
pub const BATCH_GROUP: usize = 1_024;

/// Signatures to be checked together, each with its owner: the position of what it belongs to in the caller's list.
#[derive(Debug, Default)]
pub struct SignatureBatch {
    owners: Vec<usize>,
    keys: Vec<VerifyingKey>,
    messages: Vec<[u8; INTENT_MESSAGE_BYTES]>,
    signatures: Vec<ed25519_dalek::Signature>,
}

impl SignatureBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the signature of `key` on an intent message.
    pub fn push(
        &mut self,
        owner: usize,
        key: VerifyingKey,
        message: [u8; INTENT_MESSAGE_BYTES],
        signature: &Signature,
    ) {
        self.owners.push(owner);
        self.keys.push(key);
        self.messages.push(message);
        self.signatures.push(ed25519_dalek::Signature::from_bytes(&signature.0));
    }

    /// Signatures added.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Checks all signatures. On failure the owners of the bad ones, each once, ascending.
    pub fn verify(self) -> Result<(), Vec<usize>> {
        let mut culprits = BTreeSet::new();
        let groups = self
            .messages
            .chunks(BATCH_GROUP)
            .zip(self.signatures.chunks(BATCH_GROUP))
            .zip(self.keys.chunks(BATCH_GROUP).zip(self.owners.chunks(BATCH_GROUP)));
        for ((messages, signatures), (keys, owners)) in groups {
            let slices: Vec<&[u8]> = messages.iter().map(|message| message.as_slice()).collect();
            if verify_batch(&slices, signatures, keys).is_ok() {
                continue;
            }
            let each = messages.iter().zip(signatures).zip(keys.iter().zip(owners));
            culprits.extend(each.filter_map(|((message, signature), (key, owner))| {
                key.verify(message, signature).is_err().then_some(*owner)
            }));
        }
        if culprits.is_empty() { Ok(()) } else { Err(culprits.into_iter().collect()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_types::{ChainId, Intent, Scope, SigningKey};

    const INTENT: Intent = Intent { scope: Scope::Block, chain: ChainId([7; 32]) };

    fn batch(count: usize, bad: &[usize]) -> SignatureBatch {
        let key = SigningKey::from_bytes(&[1; 32]);
        let mut batch = SignatureBatch::new();
        for position in 0..count {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&(position as u64).to_le_bytes());
            let mut signature = INTENT.sign(&key, &digest);
            if bad.contains(&position) {
                signature.0[40] ^= 1;
            }
            // Two signatures to each owner.
            batch.push(position / 2, key.verifying_key(), INTENT.message(&digest), &signature);
        }
        batch
    }

    #[test]
    fn good_signatures_pass_in_any_number() {
        for count in [0, 1, 2, BATCH_GROUP, BATCH_GROUP + 1] {
            let batch = batch(count, &[]);
            assert_eq!((batch.len(), batch.is_empty()), (count, count == 0));
            assert_eq!(batch.verify(), Ok(()));
        }
    }

    #[test]
    fn the_owners_of_bad_signatures_are_told_once_each_and_ascending() {
        assert_eq!(batch(1, &[0]).verify(), Err(vec![0]));
        assert_eq!(batch(10, &[7, 2, 6]).verify(), Err(vec![1, 3]));
        let over = BATCH_GROUP + 6;
        assert_eq!(batch(over, &[over - 1, 4]).verify(), Err(vec![2, (over - 1) / 2]));
    }

    #[test]
    fn a_signature_that_is_no_curve_point_or_no_scalar_is_bad_and_does_not_panic() {
        let mut batch = batch(3, &[]);
        let key = SigningKey::from_bytes(&[1; 32]).verifying_key();
        batch.push(5, key, INTENT.message(&[0; 32]), &Signature([0xff; 64]));
        batch.push(6, key, INTENT.message(&[0; 32]), &Signature::ZERO);
        assert_eq!(batch.verify(), Err(vec![5, 6]));
    }
}
