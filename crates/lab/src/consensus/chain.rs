//! The commits of one epoch: made from committed leaders, certified by the votes in blocks, then durable in the node.

use super::{dag::Dag, interface::GC_ROUNDS};
use soma_p2p::{
    CertifiedCommit, Commit, CommitIndex, CommitRef, CommittedSubDag, Committee, TrustedCommit, VerifiedBlock,
    types::{AuthorityIndex, Epoch, Round, TimestampMs, limits},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Commits that wait for votes or for the disk. No further one is made meanwhile: a block has room for the votes.
const MAX_WAITING: usize = limits::MAX_COMMIT_VOTES_PER_BLOCK / 2;

/// A commit that is not durable yet.
struct Made {
    commit: TrustedCommit,
    blocks: Vec<VerifiedBlock>,
    /// Whether the node has been given it.
    is_certified: bool,
}

/// The chain as one validator sees it.
pub(crate) struct Chain {
    epoch: Epoch,
    /// The last commit made, or taken from peers.
    tip: CommitRef,
    timestamp_ms: TimestampMs,
    last_leader: Round,
    commits_in_epoch: u32,
    has_ended: bool,
    /// Rounds and authors whose block is in a commit, above the floor.
    committed: BTreeSet<(Round, AuthorityIndex)>,
    waiting: VecDeque<Made>,
    /// The votes for commits that are not durable: at most one of each author for each index.
    votes: BTreeMap<(CommitIndex, AuthorityIndex), (CommitRef, VerifiedBlock)>,
}

/// What a durable commit is to this validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    /// Known before.
    Old,
    /// Its own.
    Own,
    /// One that it had not made.
    Adopted,
    /// Another one than it made.
    Diverged(CommitRef),
}

impl Chain {
    /// The chain after `tip`, which has `commits_in_epoch` commits of the epoch.
    pub(crate) fn new(epoch: Epoch, tip: CommitRef, timestamp_ms: TimestampMs, commits_in_epoch: u32) -> Self {
        Self {
            epoch,
            tip,
            timestamp_ms,
            last_leader: 0,
            commits_in_epoch,
            has_ended: false,
            committed: BTreeSet::new(),
            waiting: VecDeque::new(),
            votes: BTreeMap::new(),
        }
    }

    /// The first round whose leader is not decided.
    pub(crate) fn next_leader(&self) -> Round {
        self.last_leader.saturating_add(1)
    }

    /// The highest round of which no block is committed any more.
    pub(crate) fn floor(&self) -> Round {
        self.last_leader.saturating_sub(GC_ROUNDS)
    }

    pub(crate) fn commits_in_epoch(&self) -> u32 {
        self.commits_in_epoch
    }

    /// Whether the last commit of the epoch has been made.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether another commit may be made.
    pub(crate) fn has_room(&self) -> bool {
        !self.has_ended && self.waiting.len() < MAX_WAITING
    }

    /// Whether the block is in a commit.
    pub(crate) fn is_committed(&self, block: &VerifiedBlock) -> bool {
        self.committed.contains(&(block.round, block.author))
    }

    /// Notes a commit of the past, without a check.
    pub(crate) fn recall(&mut self, sub_dag: &CommittedSubDag) {
        self.committed.extend(sub_dag.blocks.iter().map(|block| (block.round, block.author)));
        self.last_leader = sub_dag.leader.round;
    }

    /// Makes the commit of a leader. `dag` has its history.
    pub(crate) fn commit(&mut self, dag: &Dag, leader: &VerifiedBlock) -> CommitRef {
        let blocks = self.take_history(dag, leader);
        let commit = TrustedCommit::assume_trusted(Commit {
            index: self.tip.index.saturating_add(1),
            previous_digest: self.tip.digest,
            timestamp_ms: Commit::timestamp_after(leader.timestamp_ms, self.timestamp_ms),
            leader: leader.reference(),
            blocks: blocks.iter().map(|block| block.reference()).collect(),
            epoch: self.epoch,
        });
        self.advance(&CommittedSubDag::new(&commit, blocks.clone()));
        let reference = commit.reference();
        self.waiting.push_back(Made { commit, blocks, is_certified: false });
        reference
    }

    /// The leader and its history that no commit has, in the order of (round, author).
    ///
    /// From the top down, and of two blocks in one place the one with the greater digest: so the result depends on the
    /// history and the earlier commits alone.
    fn take_history(&self, dag: &Dag, leader: &VerifiedBlock) -> Vec<VerifiedBlock> {
        let floor = leader.round.saturating_sub(GC_ROUNDS);
        let mut open = BTreeMap::from([(leader.reference(), leader.clone())]);
        let mut taken = BTreeMap::new();
        let mut bytes = 0;
        while let Some((reference, block)) = open.pop_last() {
            let place = (reference.round, reference.author);
            let is_too_much = taken.len() >= limits::MAX_BLOCKS_PER_COMMIT
                || bytes + block.bytes().len() > limits::MAX_COMMIT_BLOCKS_BYTES;
            if is_too_much || self.committed.contains(&place) || taken.contains_key(&place) {
                continue;
            }
            bytes += block.bytes().len();
            for ancestor in block.ancestors.iter().filter(|ancestor| ancestor.round > floor) {
                if let Some(found) = dag.get(ancestor) {
                    open.insert(*ancestor, found.clone());
                }
            }
            taken.insert(place, block);
        }
        taken.into_values().collect()
    }

    fn advance(&mut self, sub_dag: &CommittedSubDag) {
        self.recall(sub_dag);
        self.tip = sub_dag.commit_ref;
        self.timestamp_ms = sub_dag.timestamp_ms;
        self.commits_in_epoch += 1;
        self.has_ended = sub_dag.blocks.iter().any(|block| block.end_of_epoch.is_some());
        self.committed = self.committed.split_off(&(self.floor().saturating_add(1), 0));
    }

    /// Counts the votes in a block.
    pub(crate) fn count_votes(&mut self, block: &VerifiedBlock) {
        let durable = self.durable_index();
        let window = durable.saturating_add(1)..=durable.saturating_add(limits::MAX_COMMIT_VOTES_PER_BLOCK as u32);
        for vote in block.commit_votes.iter().filter(|vote| window.contains(&vote.index)) {
            self.votes.insert((vote.index, block.author), (*vote, block.clone()));
        }
    }

    fn durable_index(&self) -> CommitIndex {
        self.tip.index.saturating_sub(self.waiting.len() as u32)
    }

    /// The commits that a quorum has voted for by now, in order, each once.
    pub(crate) fn certified(&mut self, committee: &Committee) -> Vec<CertifiedCommit> {
        let mut certified = Vec::new();
        for made in self.waiting.iter_mut().skip_while(|made| made.is_certified) {
            let own = made.commit.reference();
            let votes = self.votes.range((own.index, 0)..=(own.index, AuthorityIndex::MAX));
            let votes: Vec<_> = votes.filter(|(_, (vote, _))| *vote == own).map(|(_, (_, block))| block).collect();
            if !committee.is_quorum(votes.iter().map(|block| block.author)) {
                break;
            }
            made.is_certified = true;
            let certifiers = votes.into_iter().cloned().collect();
            certified.push(CertifiedCommit { commit: made.commit.clone(), blocks: made.blocks.clone(), certifiers });
        }
        certified
    }

    /// A commit is durable in the node.
    pub(crate) fn on_durable(&mut self, sub_dag: &CommittedSubDag) -> Durable {
        let reference = sub_dag.commit_ref;
        if reference.index != self.durable_index().saturating_add(1) {
            return Durable::Old;
        }
        let durable = match self.waiting.pop_front() {
            Some(made) if made.commit.reference() != reference => return Durable::Diverged(made.commit.reference()),
            Some(_) => Durable::Own,
            None => {
                self.advance(sub_dag);
                Durable::Adopted
            }
        };
        self.votes = self.votes.split_off(&(reference.index.saturating_add(1), 0));
        durable
    }
}
