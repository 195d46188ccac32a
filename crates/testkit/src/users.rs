//! Users of a test chain, whose transactions a quorum has certified. They hold every authority's key.

use crate::{
    chain_spec::{ChainSpec, Payload, committee_of},
    keys::{Purpose, key},
};
use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use soma_types::{
    AuthorityIndex, AuthoritySignature, Certificate, ChainId, Committee, Epoch, Intent, PublicKey, QuorumSignatures,
    Scope, SignedTransaction, SigningKey, Transaction, TransactionBytes, codec,
};

/// Makes certified transactions for an embedder that makes the blocks itself, as many as it likes.
pub struct Users {
    spec: ChainSpec,
    chain: ChainId,
    committee: Committee,
    keys: Vec<SigningKey>,
    rng: ChaCha8Rng,
    nonce: u64,
}

impl Users {
    pub(crate) fn new(spec: ChainSpec, chain: ChainId, group: u64) -> Self {
        let (committee, keys) = committee_of(&spec, 0);
        let rng = ChaCha8Rng::seed_from_u64(spec.seed ^ (group + 1).rotate_right(16));
        Self { spec, chain, committee, keys, rng, nonce: group << 32 }
    }

    /// The next transaction, valid in this epoch.
    pub fn transaction(&mut self, epoch: Epoch) -> TransactionBytes {
        if epoch != self.committee.epoch {
            (self.committee, self.keys) = committee_of(&self.spec, epoch);
        }
        self.nonce += 1;
        transaction(&self.spec, self.chain, (&self.committee, &self.keys), &mut self.rng, self.nonce)
    }
}

/// The transaction with this nonce, with a payload drawn from `rng`.
pub(crate) fn transaction(
    spec: &ChainSpec,
    chain: ChainId,
    (committee, keys): (&Committee, &[SigningKey]),
    rng: &mut ChaCha8Rng,
    nonce: u64,
) -> TransactionBytes {
    let mut payload = vec![0; spec.payload_bytes];
    rng.fill_bytes(&mut payload);
    if spec.payload == Payload::Opaque {
        return TransactionBytes(payload.into());
    }
    let sender = (nonce % u64::from(spec.senders)) as AuthorityIndex;
    let sender = key(spec.seed, Purpose::Sender, sender, 0);
    let transaction = Transaction { sender: PublicKey::from(&sender), nonce, payload };
    let intent = Intent { scope: Scope::Transaction, chain };
    let signature = intent.sign(&sender, transaction.digest().as_bytes());
    let signed_transaction = SignedTransaction { transaction, signature };
    let epoch = committee.epoch;
    let digest = Certificate::signed_digest(epoch, &signed_transaction);
    let quorum = quorum(chain, committee, keys, Scope::Certificate, digest.as_bytes());
    TransactionBytes(Bytes::from(codec::encode(&Certificate { epoch, signed_transaction, quorum })))
}

/// Signatures of the first authorities that make a quorum.
pub(crate) fn quorum(
    chain: ChainId,
    committee: &Committee,
    keys: &[SigningKey],
    scope: Scope,
    digest: &[u8; 32],
) -> QuorumSignatures {
    let intent = Intent { scope, chain };
    let mut stake = 0;
    let mut signatures = Vec::new();
    for ((authority, member), key) in (0..).zip(&committee.authorities).zip(keys) {
        if stake >= committee.quorum() {
            break;
        }
        stake += member.stake;
        signatures.push(AuthoritySignature { authority, signature: intent.sign(key, digest) });
    }
    QuorumSignatures { signatures }
}
