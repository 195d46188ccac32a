//! A consensus of one authority: each block commits the block before it.

use anyhow::Result;
use bytes::Bytes;
use soma_p2p::{
    Block, CertifiedCommit, ChainId, Commit, Committee, Genesis, PublicKey, SignedBlock, SigningKey, TransactionBytes,
    TrustedCommit, VerifiedBlock,
    types::{Authority, epoch_genesis_refs},
};
use std::time::{SystemTime, UNIX_EPOCH};

/// The genesis of a chain with one authority.
pub(crate) fn genesis(consensus_key: &SigningKey, network_key: &SigningKey) -> Result<Genesis> {
    let authority = Authority {
        stake: 1,
        protocol_key: PublicKey::from(consensus_key),
        network_key: PublicKey::from(network_key),
        // Full nodes dial validators here. This example's full node has a seed instead.
        address: "/ip4/127.0.0.1/tcp/9000".parse()?,
    };
    let committee = Committee { epoch: 0, authorities: vec![authority] };
    Ok(Genesis::new("small node", now_ms(), committee)?)
}

pub(crate) struct Consensus {
    chain: ChainId,
    key: SigningKey,
    /// The latest commit.
    tip: TrustedCommit,
    /// The latest block, which the next commit takes.
    leader: Option<VerifiedBlock>,
}

impl Consensus {
    pub(crate) fn new(genesis: &Genesis, key: SigningKey) -> Self {
        Self { chain: genesis.chain_id(), key, tip: genesis.commit(), leader: None }
    }

    /// Commits the block before, and puts `transactions` into the block that certifies the commit.
    pub(crate) fn next_commit(&mut self, transactions: Vec<String>) -> CertifiedCommit {
        let leader = self.leader.take().unwrap_or_else(|| self.block(None, Vec::new()));
        let commit = TrustedCommit::assume_trusted(Commit {
            index: self.tip.index + 1,
            previous_digest: self.tip.reference().digest,
            timestamp_ms: Commit::timestamp_after(leader.timestamp_ms, self.tip.timestamp_ms),
            leader: leader.reference(),
            blocks: vec![leader.reference()],
            epoch: leader.epoch,
        });
        self.tip = commit.clone();
        // The vote in the next block certifies the commit: this authority alone is a quorum.
        let certifier = self.block(Some(&leader), transactions);
        self.leader = Some(certifier.clone());
        CertifiedCommit { commit, blocks: vec![leader], certifiers: vec![certifier] }
    }

    /// The block after `parent`, with a vote for the latest commit.
    fn block(&self, parent: Option<&VerifiedBlock>, transactions: Vec<String>) -> VerifiedBlock {
        let block = Block {
            epoch: 0,
            round: parent.map_or(1, |parent| parent.round + 1),
            author: 0,
            timestamp_ms: now_ms(),
            ancestors: parent.map_or_else(|| epoch_genesis_refs(0, 1), |parent| vec![parent.reference()]),
            transactions: transactions.into_iter().map(|text| TransactionBytes(Bytes::from(text))).collect(),
            commit_votes: parent.map(|_| self.tip.reference()).into_iter().collect(),
            end_of_epoch: None,
        };
        VerifiedBlock::assume_verified(SignedBlock::sign(block, self.chain, &self.key))
    }
}

#[expect(clippy::disallowed_methods, reason = "a consensus reads the clock; an actor gets the time")]
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
