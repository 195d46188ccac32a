//! The chain builder.
//!
//! ```text
//!   round r:   every live authority signs a block on its own last one and the latest of each other
//!   leader(r): rotates by stake; if it made a block, the next commit takes it with its history not yet taken
//!   round r+1: every block votes for that commit: these are its certifier blocks
//!   rounds_per_commit rounds after r, at the earliest, the next leader is committed
//!   last commit of an epoch: its leader block hands over to the next committee; a new DAG begins
//! ```

use crate::{
    chain_spec::{ChainSpec, committee_of, live_stake, network_key, protocol_key},
    users::{self, Users},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use soma_types::{
    AuthorityIndex, Block, BlockRef, CertifiedCommit, ChainId, Commit, CommitRef, Committee, CommitteeError,
    EndOfEpoch, Epoch, Genesis, GenesisError, Round, Scope, SignedBlock, SigningKey, Stake, TimestampMs,
    TransactionBytes, TrustedCommit, VerifiedBlock, epoch_genesis_refs,
};
use std::collections::{BTreeMap, BTreeSet};

/// Rounds that are kept behind the leader: what is older has been committed, or will not be referred to any more.
const ROUNDS_KEPT: Round = 20;

/// Of a hundred rounds, how many a faulty authority sits out, as far as a quorum remains.
const FAULTY_SKIPS_PERCENT: u32 = 30;

/// Why a spec describes no chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Nobody could commit anything.
    #[error("authorities that are not silent hold {live} of {total} stake, which is less than the quorum of {quorum}")]
    NoQuorum {
        /// Stake of those who make blocks.
        live: Stake,
        /// Stake of all.
        total: Stake,
        /// Needed.
        quorum: Stake,
    },
    /// An epoch has to have a commit that is not its last.
    #[error("an epoch has at least 2 commits, not {0}")]
    EpochTooShort(u32),
    /// Something that there has to be at least one of.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// The stakes make no committee.
    #[error(transparent)]
    Committee(#[from] CommitteeError),
    /// Name and committee make no genesis.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
}

/// Makes commit after commit, without end, in memory that does not grow.
pub struct ChainBuilder {
    spec: ChainSpec,
    genesis: Genesis,
    chain: ChainId,
    rng: ChaCha8Rng,
    committee: Committee,
    protocol_keys: Vec<SigningKey>,
    tip: TrustedCommit,
    commits_in_epoch: u32,
    now_ms: TimestampMs,
    /// Last round made in this epoch.
    round: Round,
    /// The round of this epoch from which on a leader is committed.
    next_leader_round: Round,
    /// Blocks by round, the recent ones.
    dag: BTreeMap<Round, BTreeMap<AuthorityIndex, VerifiedBlock>>,
    /// Latest block of each authority; its genesis block at first.
    latest: Vec<BlockRef>,
    committed: BTreeSet<BlockRef>,
    /// Commits that each authority has not voted for yet.
    unvoted: Vec<Vec<CommitRef>>,
    nonce: u64,
}

impl ChainBuilder {
    /// A builder at genesis.
    pub fn new(spec: ChainSpec) -> Result<Self, SpecError> {
        if spec.commits_per_epoch < 2 {
            return Err(SpecError::EpochTooShort(spec.commits_per_epoch));
        }
        for (value, name) in [(spec.rounds_per_commit, "rounds_per_commit"), (spec.senders, "senders")] {
            if value == 0 {
                return Err(SpecError::Zero(name));
            }
        }
        let (committee, protocol_keys) = committee_of(&spec, 0);
        committee.validate()?;
        let live = live_stake(&spec, &committee);
        if live < committee.quorum() {
            return Err(SpecError::NoQuorum { live, total: committee.total_stake(), quorum: committee.quorum() });
        }
        let genesis = Genesis::new(&*spec.name, spec.start_timestamp_ms, committee.clone())?;
        let size = committee.authorities.len();
        Ok(Self {
            rng: ChaCha8Rng::seed_from_u64(spec.seed),
            now_ms: spec.start_timestamp_ms,
            chain: genesis.chain_id(),
            tip: genesis.commit(),
            genesis,
            committee,
            protocol_keys,
            commits_in_epoch: 0,
            round: 0,
            next_leader_round: spec.rounds_per_commit,
            dag: BTreeMap::new(),
            latest: epoch_genesis_refs(0, size),
            committed: BTreeSet::new(),
            unvoted: vec![Vec::new(); size],
            nonce: 0,
            spec,
        })
    }

    /// The chain's genesis.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The chain.
    pub fn chain_id(&self) -> ChainId {
        self.chain
    }

    /// Committee of an epoch.
    pub fn committee(&self, epoch: Epoch) -> Committee {
        committee_of(&self.spec, epoch).0
    }

    /// The key with which an authority signs blocks and certificates in an epoch.
    pub fn protocol_key(&self, epoch: Epoch, authority: AuthorityIndex) -> SigningKey {
        protocol_key(&self.spec, epoch, authority)
    }

    /// The key with which an authority's node authenticates its connections, in the first epoch and, unless the keys
    /// change, in all.
    pub fn network_key(&self, authority: AuthorityIndex) -> SigningKey {
        network_key(&self.spec, 0, authority)
    }

    /// The same in another epoch.
    pub fn network_key_in(&self, epoch: Epoch, authority: AuthorityIndex) -> SigningKey {
        network_key(&self.spec, epoch, authority)
    }

    /// Users whose transactions validators can put into blocks of their own. Each `group` makes others.
    pub fn users(&self, group: u64) -> Users {
        Users::new(self.spec.clone(), self.chain, group)
    }

    /// The next `count` commits.
    pub fn build(&mut self, count: usize) -> Vec<CertifiedCommit> {
        (0..count).map(|_| self.next_commit()).collect()
    }

    /// The next commit, with its blocks and the blocks that certify it.
    pub fn next_commit(&mut self) -> CertifiedCommit {
        let leader = loop {
            // The first round after a commit has been made already, to vote for it.
            while self.round < self.next_leader_round {
                self.make_round();
            }
            let leader = self.leader(self.round);
            match self.dag.get(&self.round).and_then(|blocks| blocks.get(&leader)) {
                Some(block) => break block.clone(),
                None => self.make_round(),
            }
        };
        let blocks = self.take_history(&leader);
        let commit = TrustedCommit::assume_trusted(Commit {
            index: self.tip.index + 1,
            previous_digest: self.tip.reference().digest,
            timestamp_ms: Commit::timestamp_after(leader.timestamp_ms, self.tip.timestamp_ms),
            leader: leader.reference(),
            blocks: blocks.iter().map(|block| block.reference()).collect(),
            epoch: leader.epoch,
        });
        self.tip = commit.clone();
        self.commits_in_epoch += 1;
        for (author, unvoted) in (0..).zip(&mut self.unvoted) {
            // Silent authorities never vote, so nothing would ever take what is kept for them.
            if !self.spec.silent.contains(&author) {
                unvoted.push(commit.reference());
            }
        }
        self.next_leader_round = self.round.saturating_add(self.spec.rounds_per_commit);
        self.make_round();
        let certifiers = self.dag[&self.round].values().cloned().collect();
        if leader.end_of_epoch.is_some() {
            self.start_epoch(leader.epoch + 1);
        }
        CertifiedCommit { commit, blocks, certifiers }
    }

    /// The leader of a round: drawn by stake, anew for each round, so that a silent authority of great stake never
    /// leads for long.
    fn leader(&self, round: Round) -> AuthorityIndex {
        let mut rng = ChaCha8Rng::from_seed(leader_seed(self.spec.seed, self.committee.epoch, round));
        let mut turn = rng.random_range(0..self.committee.total_stake());
        for (index, authority) in (0..).zip(&self.committee.authorities) {
            match turn.checked_sub(authority.stake) {
                Some(rest) => turn = rest,
                None => return index,
            }
        }
        0
    }

    /// The leader and its history that no commit has taken, in the order of (round, author).
    fn take_history(&mut self, leader: &VerifiedBlock) -> Vec<VerifiedBlock> {
        let mut taken = BTreeMap::new();
        let mut open = vec![leader.clone()];
        while let Some(block) = open.pop() {
            let reference = block.reference();
            if !self.committed.insert(reference) {
                continue;
            }
            for ancestor in &block.ancestors {
                if let Some(found) = self.dag.get(&ancestor.round).and_then(|blocks| blocks.get(&ancestor.author)) {
                    open.push(found.clone());
                }
            }
            taken.insert((reference.round, reference.author), block);
        }
        let oldest = self.round.saturating_sub(ROUNDS_KEPT.max(2 * self.spec.rounds_per_commit));
        self.dag = self.dag.split_off(&oldest);
        self.committed.retain(|reference| reference.round >= oldest);
        taken.into_values().collect()
    }

    fn makers(&mut self) -> Vec<AuthorityIndex> {
        let size = self.committee.authorities.len() as AuthorityIndex;
        let mut makers: Vec<_> = (0..size).filter(|index| !self.spec.silent.contains(index)).collect();
        for faulty in self.spec.faulty.clone() {
            let without: Vec<_> = makers.iter().copied().filter(|index| *index != faulty).collect();
            if self.rng.random_ratio(FAULTY_SKIPS_PERCENT, 100) && self.committee.is_quorum(without.iter().copied()) {
                makers = without;
            }
        }
        makers
    }

    fn make_round(&mut self) {
        self.round += 1;
        self.now_ms += self.spec.round_interval_ms;
        let leader = self.leader(self.round);
        let committed = self.round >= self.next_leader_round;
        let last_of_epoch = committed && self.commits_in_epoch + 1 == self.spec.commits_per_epoch;
        let parents = self.latest.clone();
        let mut blocks = BTreeMap::new();
        for author in self.makers() {
            let own = parents[author as usize];
            let others = (0..).zip(&parents).filter(|(index, _)| *index != author).map(|(_, parent)| *parent);
            // Who has made nothing in this epoch has only its genesis block, on which none but round 1 builds.
            let others = others.filter(|parent| self.round == 1 || parent.round > 0);
            let ends = author == leader && last_of_epoch;
            let block = Block {
                epoch: self.committee.epoch,
                round: self.round,
                author,
                timestamp_ms: self.now_ms + u64::from(author) % self.spec.round_interval_ms.max(1),
                ancestors: [own].into_iter().chain(others).collect(),
                transactions: (0..self.spec.transactions_per_block).map(|_| self.transaction()).collect(),
                commit_votes: std::mem::take(&mut self.unvoted[author as usize]),
                end_of_epoch: ends.then(|| self.end_of_epoch()),
            };
            let block = SignedBlock::sign(block, self.chain, &self.protocol_keys[author as usize]);
            self.latest[author as usize] = block.reference();
            blocks.insert(author, VerifiedBlock::assume_verified(block));
        }
        self.dag.insert(self.round, blocks);
    }

    fn transaction(&mut self) -> TransactionBytes {
        self.nonce += 1;
        let authorities = (&self.committee, self.protocol_keys.as_slice());
        users::transaction(&self.spec, self.chain, authorities, &mut self.rng, self.nonce)
    }

    fn end_of_epoch(&self) -> EndOfEpoch {
        let next_committee = self.committee(self.committee.epoch + 1);
        let digest = next_committee.digest();
        let (committee, keys) = (&self.committee, &self.protocol_keys);
        let certificate = users::quorum(self.chain, committee, keys, Scope::NextCommittee, digest.as_bytes());
        EndOfEpoch { next_committee, certificate }
    }

    fn start_epoch(&mut self, epoch: Epoch) {
        (self.committee, self.protocol_keys) = committee_of(&self.spec, epoch);
        let size = self.committee.authorities.len();
        self.commits_in_epoch = 0;
        self.round = 0;
        self.next_leader_round = self.spec.rounds_per_commit;
        self.dag.clear();
        self.latest = epoch_genesis_refs(epoch, size);
        self.committed.clear();
        self.unvoted = vec![Vec::new(); size];
    }
}

impl Iterator for ChainBuilder {
    type Item = CertifiedCommit;

    fn next(&mut self) -> Option<CertifiedCommit> {
        Some(self.next_commit())
    }
}

fn leader_seed(seed: u64, epoch: Epoch, round: Round) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&epoch.to_le_bytes());
    bytes[16..20].copy_from_slice(&round.to_le_bytes());
    bytes
}
