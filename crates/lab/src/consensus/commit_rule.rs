//! Which leaders are committed, and which are skipped. The argument for its safety is in the [module](super).

use super::dag::Dag;
use soma_p2p::{
    BlockRef, Committee, VerifiedBlock,
    types::{AuthorityIndex, Round},
};
use std::collections::{BTreeMap, BTreeSet};

/// What became of a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Its block is committed.
    Commit(VerifiedBlock),
    /// It has no block that is.
    Skip,
}

/// The leader of a round.
pub(crate) fn leader_of(committee: &Committee, round: Round) -> AuthorityIndex {
    let size = committee.authorities.len().max(1) as u64;
    (committee.epoch.wrapping_add(round.into()) % size) as AuthorityIndex
}

/// Decides the leaders of the rounds from `from` on, in order, up to the first that is open.
pub(crate) fn decide(dag: &Dag, committee: &Committee, from: Round) -> Vec<Decision> {
    let mut decided: BTreeMap<Round, Option<Decision>> = BTreeMap::new();
    for round in (from..dag.highest_round()).rev() {
        let direct = decide_directly(dag, committee, round);
        let decision =
            direct.or_else(|| match decided.range(round.saturating_add(3)..).find(|(_, later)| is_anchor(later)) {
                Some((_, Some(Decision::Commit(anchor)))) => Some(decide_by(dag, committee, round, anchor)),
                _ => None,
            });
        decided.insert(round, decision);
    }
    decided.into_values().map_while(|decision| decision).collect()
}

/// Whether the leader decides about earlier ones: it is committed, or may be.
fn is_anchor(decision: &Option<Decision>) -> bool {
    *decision != Some(Decision::Skip)
}

fn decide_directly(dag: &Dag, committee: &Committee, round: Round) -> Option<Decision> {
    let leader = leader_of(committee, round);
    let votes_for_none = |block: &&VerifiedBlock| {
        !block.ancestors.iter().any(|ancestor| (ancestor.round, ancestor.author) == (round, leader))
    };
    if committee.is_quorum(dag.round(round + 1).filter(votes_for_none).map(|block| block.author)) {
        return Some(Decision::Skip);
    }
    let certified = |block: &&VerifiedBlock| {
        let certificates =
            dag.round(round + 2).filter(|later| is_certificate(dag, committee, later, &block.reference()));
        committee.is_quorum(certificates.map(|certificate| certificate.author))
    };
    dag.round(round).filter(|block| block.author == leader).find(certified).cloned().map(Decision::Commit)
}

/// The decision that the history of a committed leader implies.
fn decide_by(dag: &Dag, committee: &Committee, round: Round, anchor: &VerifiedBlock) -> Decision {
    let leader = leader_of(committee, round);
    let history = history_in(dag, anchor, round + 2);
    let certified =
        |block: &&VerifiedBlock| history.iter().any(|later| is_certificate(dag, committee, later, &block.reference()));
    let block = dag.round(round).filter(|block| block.author == leader).find(certified);
    block.cloned().map_or(Decision::Skip, Decision::Commit)
}

/// Whether a block of two rounds later names votes of a quorum for the leader block.
fn is_certificate(dag: &Dag, committee: &Committee, later: &VerifiedBlock, leader: &BlockRef) -> bool {
    let named = later.ancestors.iter().filter(|vote| vote.round == leader.round + 1);
    let votes = named.filter_map(|vote| dag.get(vote)).filter(|vote| vote.ancestors.contains(leader));
    committee.is_quorum(votes.map(|vote| vote.author))
}

/// The blocks of a round in the history of a later block.
fn history_in<'a>(dag: &'a Dag, later: &VerifiedBlock, round: Round) -> Vec<&'a VerifiedBlock> {
    let mut open: BTreeSet<BlockRef> = later.ancestors.iter().copied().collect();
    let mut found = Vec::new();
    while let Some(reference) = open.pop_last() {
        let Some(block) = dag.get(&reference).filter(|block| block.round >= round) else { continue };
        if block.round == round {
            found.push(block);
        } else {
            open.extend(&block.ancestors);
        }
    }
    found
}
