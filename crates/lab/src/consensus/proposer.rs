//! When a validator makes its next block, and on what it builds.

use super::{
    chain::Chain,
    commit_rule::leader_of,
    dag::Dag,
    interface::{Config, LEADER_TIMEOUT_MS},
};
use soma_p2p::{
    Block, BlockRef, CommitRef, Committee, EpochContext, TransactionBytes, VerifiedBlock,
    types::{EndOfEpoch, Round, limits},
};

/// Nobody waits for a leader whose last block is that many rounds old: it is dead, and would cost a timeout each turn.
const SILENT_ROUNDS: Round = 10;

/// Pause before a validator that is behind makes a block: most of what it lacks arrives at once.
const CATCH_UP_MS: u64 = 20;

/// Bytes of a block besides its transactions: votes, and of each member an ancestor, a signature and a committee entry.
const OVERHEAD_BYTES: usize = 16 << 10;
const OVERHEAD_BYTES_PER_MEMBER: usize = 512;

/// Rounds whose blocks one commit usually has, with a margin: together they must not exceed what a commit may have.
const ROUNDS_PER_COMMIT: usize = 8;

/// The validator's own part in an epoch.
pub(crate) struct Proposer {
    /// Its last block.
    last: Option<VerifiedBlock>,
    /// When the pace allows the next one.
    due_ms: u64,
    /// The highest round with blocks of a quorum, and since when.
    parents: (Round, u64),
    /// Commits that no block has voted for yet.
    unvoted: Vec<CommitRef>,
}

impl Proposer {
    pub(crate) fn new() -> Self {
        Self { last: None, due_ms: 0, parents: (0, 0), unvoted: Vec::new() }
    }

    pub(crate) fn last(&self) -> Option<&VerifiedBlock> {
        self.last.as_ref()
    }

    fn last_round(&self) -> Round {
        self.last.as_ref().map_or(0, |block| block.round)
    }

    /// Has the next block vote for a commit.
    pub(crate) fn vote(&mut self, commit: CommitRef) {
        self.unvoted.push(commit);
    }

    /// When the next block is due, and the round on which it builds. `None` while too few blocks are there.
    pub(crate) fn due(&mut self, now_ms: u64, dag: &Dag, committee: &Committee) -> Option<(u64, Round)> {
        let has_quorum = |round: &Round| committee.is_quorum(dag.round(*round).map(|block| block.author));
        let known = self.parents.0.max(1);
        let parents = (known..=dag.highest_round()).rev().find(has_quorum).unwrap_or(self.parents.0);
        if parents > self.parents.0 {
            self.parents = (parents, now_ms);
        }
        let (parents, since_ms) = self.parents;
        // Nobody can use a block on one that is not complete.
        let is_complete = self.last.as_ref().is_none_or(|last| dag.is_present(&last.reference()));
        if parents < self.last_round() || !is_complete {
            return None;
        }
        let is_behind = parents > self.last_round();
        let paced_ms = if is_behind { since_ms + CATCH_UP_MS } else { self.due_ms };
        let leader = leader_of(committee, parents);
        let latest = dag.latest_of(leader, parents).map_or(0, |block| block.round);
        let waits = parents > 0 && latest < parents && latest + SILENT_ROUNDS > parents;
        let led_ms = if waits { since_ms + LEADER_TIMEOUT_MS } else { 0 };
        Some((paced_ms.max(led_ms), parents))
    }

    /// The next block, on blocks of the round `parents`.
    pub(crate) fn make(
        &mut self,
        now_ms: u64,
        (context, config): (&EpochContext, &Config),
        (dag, chain): (&Dag, &Chain),
        parents: Round,
        transactions: Vec<TransactionBytes>,
        end_of_epoch: Option<EndOfEpoch>,
    ) -> Block {
        let genesis = context.genesis_refs();
        let mut ancestors: Vec<BlockRef> = Vec::with_capacity(context.size());
        ancestors.extend(self.last.as_ref().map(|last| last.reference()).or(genesis.get(config.own as usize).copied()));
        for (author, genesis) in (0..).zip(genesis).filter(|(author, _)| *author != config.own) {
            if parents == 0 {
                ancestors.push(*genesis);
            } else if let Some(latest) = dag.latest_of(author, parents)
                && (latest.round == parents || !chain.is_committed(latest))
            {
                ancestors.push(latest.reference());
            }
        }
        let times = ancestors.iter().filter_map(|ancestor| dag.find(ancestor)).chain(&self.last);
        let timestamp_ms = times.map(|block| block.timestamp_ms).fold(now_ms, u64::max);
        let votes = self.unvoted.len().min(limits::MAX_COMMIT_VOTES_PER_BLOCK);
        // Keeps the pace on average, but after a delay never makes many blocks at once.
        self.due_ms = (self.due_ms + config.pace_ms).max(now_ms + config.pace_ms / 2);
        Block {
            epoch: context.epoch(),
            round: parents + 1,
            author: config.own,
            timestamp_ms,
            ancestors,
            transactions: fitting(transactions, context.size()),
            commit_votes: self.unvoted.drain(..votes).collect(),
            end_of_epoch,
        }
    }

    /// Notes a block of this validator, also one that it does not remember: it never makes a second one of that round.
    pub(crate) fn note_own(&mut self, block: &VerifiedBlock) {
        if block.round > self.last_round() {
            self.last = Some(block.clone());
        }
    }
}

/// The first transactions that fit into a block of a committee of `size`.
fn fitting(transactions: Vec<TransactionBytes>, size: usize) -> Vec<TransactionBytes> {
    let in_block = limits::MAX_BLOCK_BYTES.saturating_sub(OVERHEAD_BYTES + size * OVERHEAD_BYTES_PER_MEMBER);
    let mut room = in_block.min(limits::MAX_COMMIT_BLOCKS_BYTES / (ROUNDS_PER_COMMIT * size.max(1)));
    let fits = |transaction: &TransactionBytes| {
        let bytes = transaction.0.len() + size_of::<u64>();
        let fits = bytes <= room;
        room = room.saturating_sub(bytes);
        fits
    };
    transactions.into_iter().take(limits::MAX_TRANSACTIONS_PER_BLOCK).take_while(fits).collect()
}
