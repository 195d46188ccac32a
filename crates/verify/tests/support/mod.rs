//! A valid chain, of which each test breaks one part. The support signs and certifies the broken part again, so that
//! only the rule under test is broken.

// Each test binary uses a different part of this module.
#![allow(dead_code)]

use bytes::Bytes;
use soma_testkit::{ChainBuilder, ChainSpec};
use soma_types::{
    AuthorityIndex, AuthoritySignature, Block, BlockRef, Certificate, CertifiedCommit, Commit, CommitRef, Committee,
    EndOfEpoch, Epoch, Intent, PublicKey, QuorumSignatures, Scope, SignedBlock, SignedTransaction, SigningKey,
    Transaction, TransactionBytes, TrustedCommit, VerifiedBlock, codec,
};
use soma_verify::{BlocksError, CertificateVerifier, EpochContext, verify_blocks};
use std::sync::LazyLock;

/// Commits in each epoch of the chain.
pub(crate) const PER_EPOCH: usize = 6;

pub(crate) static CHAIN: LazyLock<Chain> = LazyLock::new(Chain::new);

/// Two epochs of a chain with four authorities of stake 1; any three are a quorum.
pub(crate) struct Chain {
    pub(crate) builder: ChainBuilder,
    pub(crate) commits: Vec<CertifiedCommit>,
    pub(crate) context: EpochContext,
}

impl Chain {
    fn new() -> Self {
        let spec = ChainSpec { commits_per_epoch: PER_EPOCH as u32, payload_bytes: 16, ..ChainSpec::default() };
        let mut builder = ChainBuilder::new(spec).unwrap();
        let commits = builder.build(2 * PER_EPOCH);
        let context = EpochContext::new(builder.chain_id(), builder.committee(0)).unwrap();
        Self { builder, commits, context }
    }

    /// The context of another epoch.
    pub(crate) fn context_of(&self, epoch: Epoch) -> EpochContext {
        EpochContext::new(self.builder.chain_id(), self.builder.committee(epoch)).unwrap()
    }

    /// The commit at `index`, from 1.
    pub(crate) fn commit(&self, index: usize) -> &CertifiedCommit {
        &self.commits[index - 1]
    }

    /// The last commit of epoch 0.
    pub(crate) fn last_of_epoch(&self) -> &CertifiedCommit {
        self.commit(PER_EPOCH)
    }

    pub(crate) fn protocol_key(&self, authority: AuthorityIndex) -> SigningKey {
        self.builder.protocol_key(0, authority)
    }

    pub(crate) fn intent(&self, scope: Scope) -> Intent {
        Intent { scope, chain: self.builder.chain_id() }
    }

    /// Signs a block with its author's key, or authority 0's if the author is not in the committee.
    pub(crate) fn sign(&self, block: Block) -> SignedBlock {
        let author = if block.author < 4 { block.author } else { 0 };
        SignedBlock::sign(block, self.builder.chain_id(), &self.protocol_key(author))
    }

    /// A copy of `block`, changed and signed again.
    pub(crate) fn changed(&self, block: &Block, change: impl FnOnce(&mut Block)) -> SignedBlock {
        let mut block = block.clone();
        change(&mut block);
        self.sign(block)
    }

    /// Signatures of the given authorities.
    pub(crate) fn votes(&self, scope: Scope, digest: &[u8; 32], authorities: &[AuthorityIndex]) -> QuorumSignatures {
        let signatures = authorities.iter().map(|&authority| AuthoritySignature {
            authority,
            signature: self.intent(scope).sign(&self.protocol_key(authority % 4), digest),
        });
        QuorumSignatures { signatures: signatures.collect() }
    }

    /// A handover to `next_committee`, signed by the given authorities.
    pub(crate) fn handover(&self, next_committee: Committee, authorities: &[AuthorityIndex]) -> EndOfEpoch {
        let certificate = self.votes(Scope::NextCommittee, &next_committee.digest().0, authorities);
        EndOfEpoch { next_committee, certificate }
    }

    /// A certificate of `epoch`, signed by the given authorities.
    pub(crate) fn certificate(&self, epoch: Epoch, authorities: &[AuthorityIndex]) -> Certificate {
        let sender = SigningKey::from_bytes(&[77; 32]);
        let transaction = Transaction { sender: PublicKey::from(&sender), nonce: 1, payload: vec![1, 2, 3] };
        let signature = self.intent(Scope::Transaction).sign(&sender, &transaction.digest().0);
        let signed_transaction = SignedTransaction { transaction, signature };
        let digest = Certificate::signed_digest(epoch, &signed_transaction);
        let quorum = self.votes(Scope::Certificate, &digest.0, authorities);
        Certificate { epoch, signed_transaction, quorum }
    }

    /// Certifier blocks of the chain's third commit, changed to vote for `commit`.
    pub(crate) fn certifiers(&self, commit: CommitRef) -> Vec<Bytes> {
        let certifiers = self.commit(3).certifiers.iter();
        certifiers.map(|block| bytes(&self.changed(block, |block| block.commit_votes = vec![commit]))).collect()
    }

    /// A commit of `blocks` with the last one as the leader, at the index and time of `like`.
    pub(crate) fn commit_of(&self, like: &Commit, blocks: &[VerifiedBlock]) -> TrustedCommit {
        let blocks: Vec<BlockRef> = blocks.iter().map(|block| block.reference()).collect();
        TrustedCommit::assume_trusted(Commit { leader: *blocks.last().unwrap(), blocks, ..like.clone() })
    }
}

pub(crate) fn bytes(block: &SignedBlock) -> Bytes {
    block.bytes().clone()
}

pub(crate) fn all_bytes(blocks: &[VerifiedBlock]) -> Vec<Bytes> {
    blocks.iter().map(|block| bytes(block)).collect()
}

pub(crate) fn commit_bytes(commits: &[CertifiedCommit]) -> Vec<Bytes> {
    commits.iter().map(|certified| certified.commit.bytes().clone()).collect()
}

pub(crate) fn transaction(certificate: &Certificate) -> TransactionBytes {
    TransactionBytes(codec::encode(certificate).into())
}

pub(crate) fn verified(block: SignedBlock) -> VerifiedBlock {
    VerifiedBlock::assume_verified(block)
}

/// Verifies one block as if a trusted commit named it.
pub(crate) fn verify_one(block: &SignedBlock) -> Result<Vec<VerifiedBlock>, BlocksError> {
    verify_blocks(&CHAIN.context, &CertificateVerifier, &[block.reference()], vec![bytes(block)])
}
