//! Chains that break one rule once, and that a quorum has certified all the same.
//!
//! ```text
//!   honest commit --edit--> blocks signed again --> commit made again --edit--> voted for again by everybody
//!                                                          |
//!                                     the commits after it chained to it and voted for again
//! ```

use bytes::Bytes;
use soma_testkit::{ChainBuilder, ChainSpec};
use soma_types::{
    AuthorityIndex, AuthoritySignature, Block, BlockRef, Certificate, CertifiedCommit, Commit, Committee, EndOfEpoch,
    Epoch, Genesis, HashedBlock, Intent, PublicKey, QuorumSignatures, Scope, Signature, Signed, SignedBlock,
    SignedTransaction, SigningKey, Transaction, TransactionBytes, TrustedCommit, UnverifiedCommit, VerifiedBlock,
    codec,
};
use std::collections::BTreeMap;

/// An honest chain, and the keys of everybody on it.
pub(crate) struct Chain {
    builder: ChainBuilder,
    pub(crate) commits: Vec<CertifiedCommit>,
}

/// A block in the making.
pub(crate) struct DraftBlock {
    pub(crate) block: Block,
    /// Instead of its author's.
    pub(crate) signature: Option<Signature>,
    /// Blocks that build on it are not told of its new name.
    pub(crate) is_stranger: bool,
    /// The name under which the commit has it, given its own.
    pub(crate) named: Option<fn(BlockRef) -> BlockRef>,
    /// Bytes that are sent instead of it, and named.
    pub(crate) bytes: Option<Bytes>,
}

/// What is changed in one commit.
#[derive(Clone, Copy)]
pub(crate) enum Edit {
    /// Its blocks, before they are signed.
    Blocks(fn(&Chain, &mut Vec<DraftBlock>)),
    /// The commit, before it is voted for.
    Commit(fn(&mut Commit)),
    /// The blocks that vote for it, before they are signed.
    Certifiers(fn(&Chain, &mut Vec<DraftBlock>)),
}

/// A commit as a peer serves it, and as consensus hands it over.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) commit: UnverifiedCommit,
    pub(crate) blocks: Vec<(BlockRef, Bytes)>,
    pub(crate) certifiers: Vec<Bytes>,
    /// `None` if blocks are not even that.
    pub(crate) certified: Option<CertifiedCommit>,
}

impl Chain {
    /// `commits` commits of four authorities of stake 1.
    pub(crate) fn new(commits: usize, commits_per_epoch: u32) -> Self {
        let spec = ChainSpec { commits_per_epoch, payload_bytes: 16, ..ChainSpec::default() };
        Self::of(spec, commits)
    }

    pub(crate) fn of(spec: ChainSpec, commits: usize) -> Self {
        let mut builder = ChainBuilder::new(spec).unwrap();
        let commits = builder.build(commits);
        Self { builder, commits }
    }

    pub(crate) fn genesis(&self) -> &Genesis {
        self.builder.genesis()
    }

    pub(crate) fn committee(&self, epoch: Epoch) -> Committee {
        self.builder.committee(epoch)
    }

    pub(crate) fn key(&self, epoch: Epoch, authority: AuthorityIndex) -> SigningKey {
        self.builder.protocol_key(epoch, authority)
    }

    fn intent(&self, scope: Scope) -> Intent {
        Intent { scope, chain: self.builder.chain_id() }
    }

    /// Signatures of these authorities, with the keys of others where there are no such authorities.
    pub(crate) fn signatures(
        &self,
        scope: Scope,
        epoch: Epoch,
        digest: &[u8; 32],
        authorities: &[AuthorityIndex],
    ) -> QuorumSignatures {
        let signatures = authorities.iter().map(|&authority| AuthoritySignature {
            authority,
            signature: self.intent(scope).sign(&self.key(epoch, authority % 4), digest),
        });
        QuorumSignatures { signatures: signatures.collect() }
    }

    /// A handover from `epoch` that these authorities sign.
    pub(crate) fn handover(&self, epoch: Epoch, next: Committee, authorities: &[AuthorityIndex]) -> EndOfEpoch {
        let certificate = self.signatures(Scope::NextCommittee, epoch, &next.digest().0, authorities);
        EndOfEpoch { next_committee: next, certificate }
    }

    /// A transaction of `epoch` that these authorities vouch for, changed after it was signed.
    pub(crate) fn transaction(
        &self,
        epoch: Epoch,
        authorities: &[AuthorityIndex],
        change: impl FnOnce(&mut Certificate),
    ) -> TransactionBytes {
        let sender = SigningKey::from_bytes(&[77; 32]);
        let transaction = Transaction { sender: PublicKey::from(&sender), nonce: 1, payload: vec![1, 2, 3] };
        let signature = self.intent(Scope::Transaction).sign(&sender, &transaction.digest().0);
        let signed_transaction = SignedTransaction { transaction, signature };
        let digest = Certificate::signed_digest(epoch, &signed_transaction);
        let quorum = self.signatures(Scope::Certificate, epoch, &digest.0, authorities);
        let mut certificate = Certificate { epoch, signed_transaction, quorum };
        change(&mut certificate);
        TransactionBytes(codec::encode(&certificate).into())
    }

    /// The chain with an edit in the commit at index `at`, whole and certified otherwise.
    pub(crate) fn with(&self, at: usize, edit: Option<Edit>) -> Vec<Item> {
        let mut previous = self.genesis().commit();
        let mut items = Vec::new();
        for (index, honest) in (1..).zip(&self.commits) {
            let item = self.forge(&previous, honest, edit.filter(|_| index == at));
            previous = TrustedCommit::assume_trusted(item.commit.clone());
            items.push(item);
        }
        items
    }

    fn forge(&self, previous: &TrustedCommit, honest: &CertifiedCommit, edit: Option<Edit>) -> Item {
        let mut drafts: Vec<_> = honest.blocks.iter().map(|block| DraftBlock::of(block)).collect();
        if let Some(Edit::Blocks(edit)) = edit {
            edit(self, &mut drafts);
        }
        // Blocks come after those they build on.
        let mut renamed = BTreeMap::new();
        let mut blocks = Vec::new();
        for (draft, honest) in drafts.into_iter().zip(&honest.blocks) {
            let (named, bytes, block) = self.sign(draft, Some(honest.reference()), &mut renamed);
            blocks.push((named, bytes, block));
        }
        let refs: Vec<BlockRef> = blocks.iter().map(|(named, ..)| *named).collect();
        let leader = blocks.last().expect("a leader");
        let leader_ms = leader.2.as_ref().map_or(0, |leader| leader.timestamp_ms);
        let mut commit = Commit {
            index: honest.commit.index,
            previous_digest: previous.reference().digest,
            timestamp_ms: Commit::timestamp_after(leader_ms, previous.timestamp_ms),
            leader: leader.0,
            blocks: refs,
            epoch: honest.commit.epoch,
        };
        if let Some(Edit::Commit(edit)) = edit {
            edit(&mut commit);
        }
        let commit = UnverifiedCommit::from(commit);
        let mut certifiers: Vec<_> = honest.certifiers.iter().map(|block| DraftBlock::of(block)).collect();
        for certifier in &mut certifiers {
            certifier.block.commit_votes = vec![commit.reference()];
        }
        if let Some(Edit::Certifiers(edit)) = edit {
            edit(self, &mut certifiers);
        }
        let certifiers: Vec<_> =
            certifiers.into_iter().map(|draft| self.sign(draft, None, &mut BTreeMap::new())).collect();
        let typed = |signed: &[(BlockRef, Bytes, Option<SignedBlock>)]| -> Option<Vec<VerifiedBlock>> {
            signed.iter().map(|(.., block)| block.clone().map(VerifiedBlock::assume_verified)).collect()
        };
        let certified = typed(&blocks).zip(typed(&certifiers)).map(|(blocks, certifiers)| CertifiedCommit {
            commit: TrustedCommit::assume_trusted(commit.clone()),
            blocks,
            certifiers,
        });
        Item {
            commit,
            blocks: blocks.into_iter().map(|(named, bytes, _)| (named, bytes)).collect(),
            certifiers: certifiers.into_iter().map(|(_, bytes, _)| bytes).collect(),
            certified,
        }
    }

    /// The name under which a block is committed, its bytes, and the block if these are one.
    fn sign(
        &self,
        draft: DraftBlock,
        honest: Option<BlockRef>,
        renamed: &mut BTreeMap<BlockRef, BlockRef>,
    ) -> (BlockRef, Bytes, Option<SignedBlock>) {
        let DraftBlock { mut block, signature, is_stranger, named, bytes } = draft;
        for ancestor in &mut block.ancestors {
            *ancestor = renamed.get(ancestor).copied().unwrap_or(*ancestor);
        }
        if let Some(bytes) = bytes {
            let digest = HashedBlock::hash_each(vec![bytes.clone()]).remove(0).unwrap().digest();
            let named = BlockRef { epoch: block.epoch, round: block.round, author: block.author, digest };
            return (named, bytes, None);
        }
        // A key of the right epoch wherever there is one: what is under test is another rule.
        let epoch = honest.map_or(block.epoch, |honest| honest.epoch);
        let key = self.key(epoch, block.author % 4);
        let signed = match signature {
            Some(signature) => SignedBlock::from(Signed::with_signature(block, signature)),
            None => SignedBlock::sign(block, self.builder.chain_id(), &key),
        };
        if let (Some(honest), false) = (honest, is_stranger) {
            renamed.insert(honest, signed.reference());
        }
        let own = signed.reference();
        (named.map_or(own, |named| named(own)), signed.bytes().clone(), Some(signed))
    }
}

impl DraftBlock {
    /// The same block once more.
    pub(crate) fn again(&self) -> Self {
        Self { block: self.block.clone(), signature: None, is_stranger: false, named: None, bytes: None }
    }

    fn of(block: &SignedBlock) -> Self {
        let block = block.value().clone();
        Self { block, signature: None, is_stranger: false, named: None, bytes: None }
    }
}
