//! A small builder of chains with valid structure and invalid signatures: the store checks none.

use bytes::Bytes;
use soma_types::{
    Authority, AuthorityIndex, Block, BlockRef, CertifiedCommit, Commit, CommitRef, Committee, EndOfEpoch, Epoch,
    Genesis, PublicKey, QuorumSignatures, Round, Signature, Signed, SignedBlock, SigningKey, Stake, TransactionBytes,
    TrustedCommit, VerifiedBlock,
};

/// A committee with these stakes, and made-up keys.
pub fn committee(epoch: Epoch, stakes: &[Stake]) -> Committee {
    let authorities = stakes
        .iter()
        .zip(1u8..)
        .map(|(&stake, seed)| Authority {
            stake,
            protocol_key: PublicKey::from(&SigningKey::from_bytes(&[seed; 32])),
            network_key: PublicKey::from(&SigningKey::from_bytes(&[seed + 100; 32])),
            address: "/ip4/127.0.0.1/tcp/9000".parse().unwrap(),
        })
        .collect();
    Committee { epoch, authorities }
}

/// A genesis with a committee of these stakes.
pub fn genesis(name: &str, stakes: &[Stake]) -> Genesis {
    Genesis::new(name, 1_000, committee(0, stakes)).unwrap()
}

/// Grows one chain.
#[derive(Clone)]
pub struct Chain {
    /// Root of the chain.
    pub genesis: Genesis,
    /// Stakes of every committee.
    pub stakes: Vec<Stake>,
    /// Epoch of the next commit.
    pub epoch: Epoch,
    /// Round of the last leader.
    pub round: Round,
    /// The last commit.
    pub last: CommitRef,
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

impl Chain {
    /// A chain of four authorities with equal stakes.
    pub fn new() -> Self {
        Self::with_stakes(&[1, 1, 1, 1])
    }

    /// A chain of authorities with these stakes.
    pub fn with_stakes(stakes: &[Stake]) -> Self {
        let genesis = genesis("test", stakes);
        let last = genesis.commit().reference();
        Self { genesis, stakes: stakes.to_vec(), epoch: 0, round: 0, last }
    }

    /// A block of this epoch with `payload` bytes of transactions.
    pub fn block(&self, round: Round, author: AuthorityIndex, votes: &[CommitRef], payload: usize) -> VerifiedBlock {
        self.make(round, author, votes, payload, None)
    }

    fn make(
        &self,
        round: Round,
        author: AuthorityIndex,
        votes: &[CommitRef],
        payload: usize,
        end_of_epoch: Option<EndOfEpoch>,
    ) -> VerifiedBlock {
        let transactions =
            if payload == 0 { Vec::new() } else { vec![TransactionBytes(noise(payload, round, author))] };
        let block = Block {
            epoch: self.epoch,
            round,
            author,
            timestamp_ms: 1_000 + u64::from(round),
            ancestors: Vec::new(),
            transactions,
            commit_votes: votes.to_vec(),
            end_of_epoch,
        };
        VerifiedBlock::assume_verified(SignedBlock::from(Signed::with_signature(block, Signature::ZERO)))
    }

    /// The next commit, of exactly these blocks; the last one leads.
    pub fn commit_of(&mut self, blocks: Vec<VerifiedBlock>) -> CertifiedCommit {
        let refs: Vec<BlockRef> = blocks.iter().map(|block| block.reference()).collect();
        let leader = blocks.last().unwrap();
        self.round = self.round.max(leader.round);
        let commit = TrustedCommit::assume_trusted(Commit {
            index: self.last.index + 1,
            previous_digest: self.last.digest,
            timestamp_ms: leader.timestamp_ms,
            leader: leader.reference(),
            blocks: refs,
            epoch: self.epoch,
        });
        self.last = commit.reference();
        CertifiedCommit { commit, blocks, certifiers: Vec::new() }
    }

    /// The next commit: one block each of the first two authorities, without votes.
    pub fn commit(&mut self) -> CertifiedCommit {
        let round = self.round + 1;
        self.commit_of(vec![self.block(round, 0, &[], 10), self.block(round, 1, &[], 20)])
    }

    /// The next commit, with blocks of at least this many bytes, which vote for the last one.
    pub fn large(&mut self, bytes: usize) -> CertifiedCommit {
        let (round, last) = (self.round + 1, self.last);
        let blocks = (0..4).map(|author| self.block(round, author, &[last], bytes / 4)).collect();
        self.commit_of(blocks)
    }

    /// The next commit with a certifier block of each of `authors`, of ever more bytes.
    pub fn certified(&mut self, authors: &[AuthorityIndex]) -> CertifiedCommit {
        let mut certified = self.commit();
        certified.certifiers = self.votes(&[certified.commit.reference()], authors);
        certified
    }

    /// A block of each of `authors` that votes for `commits`, one round over the last commit, the later the larger.
    pub fn votes(&self, commits: &[CommitRef], authors: &[AuthorityIndex]) -> Vec<VerifiedBlock> {
        authors.iter().zip(1..).map(|(&author, size)| self.block(self.round + 1, author, commits, 30 * size)).collect()
    }

    /// `count` commits, each certified by all authorities but the last.
    pub fn grow(&mut self, count: usize) -> Vec<CertifiedCommit> {
        let authors: Vec<AuthorityIndex> = (0..self.stakes.len() as AuthorityIndex - 1).collect();
        (0..count).map(|_| self.certified(&authors)).collect()
    }

    /// The last commit of the epoch, certified; the chain goes on in the next one.
    pub fn end_epoch(&mut self) -> CertifiedCommit {
        let next_committee = committee(self.epoch + 1, &self.stakes);
        let certificate = QuorumSignatures::default();
        let end = EndOfEpoch { next_committee, certificate };
        let block = self.make(self.round + 1, 0, &[], 0, Some(end));
        let mut last = self.commit_of(vec![block]);
        let authors: Vec<AuthorityIndex> = (0..self.stakes.len() as AuthorityIndex).collect();
        last.certifiers = self.votes(&[last.commit.reference()], &authors);
        self.epoch += 1;
        self.round = 0;
        last
    }
}

/// Bytes that compress badly, the same for the same arguments.
fn noise(length: usize, round: Round, author: AuthorityIndex) -> Bytes {
    let mut state = (u64::from(round) << 32 | u64::from(author)) ^ 0x9e37_79b9_7f4a_7c15;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect::<Vec<_>>().into()
}
