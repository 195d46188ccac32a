//! A small consensus for `soma-lab localnet`: validators that make the chain themselves. **A demonstration**: it is
//! short, safe and live, and no more. Time is not defended, and leaders take turns whatever their stake.
//!
//! ```text
//!   message, own commit, wake --Input--> Machine --Output--> persist own block, publish, commit for the node
//!                                          |
//!            Dag: accepted and pending blocks, commit rule: which leaders, Chain: commits, their votes
//! ```
//!
//! In each round a validator signs at most one block. It builds on a quorum of blocks of the round before. The leader
//! of round `r` takes turns. A block of `r + 1` *votes* for the leader block that it names. A block of `r + 2` is a
//! *certificate* for a leader block if the blocks of `r + 1` that it names, and that vote for the block, are of a
//! quorum. Leaders are decided in the order of rounds:
//!
//! - **direct**: commit with certificates of a quorum of authors; skip if blocks of a quorum of `r + 1` vote for none;
//! - **indirect**: else the first leader from `r + 3` on that is not skipped decides, once it is committed: commit if
//!   its history has a certificate, skip if not.
//!
//! # Safety
//!
//! At most `f` of the stake `3f + 1` is faulty. Two quorums have an honest author in common, who has one block in a
//! round, with one ancestor of each author.
//!
//! 1. No two blocks of one leader and round are certified: a common honest voter would have named both.
//! 2. If a block is committed directly, a quorum has certificates in `r + 2`. Each block of `r + 3` names a quorum of
//!    `r + 2`, so one of those certificates. So every later block has one in its history: nobody skips indirectly.
//! 3. If a round is skipped directly, the honest of that quorum never vote for its leader. What remains is no quorum:
//!    there is no certificate, and nobody commits.
//! 4. Take the highest round on which two validators differ. By 2 and 3, both decide it indirectly, one with anchor `A`,
//!    the other with `B`. If `A = B`, they look at one history and agree. If `A` is lower, the other one has skipped it:
//!    they differ on a higher round, a contradiction.
//!
//! Equal decisions make equal commits: the blocks of a commit depend on its leader's history and the commits before.
//!
//! # Liveness
//!
//! A validator waits for the leader's block, but at most 200 ms. With a quorum alive and messages that arrive within
//! that time, a round whose leader and next two rounds are timely is committed directly. Blocks that do
//! not arrive are requested. A validator that was away takes commits from sync, and its own blocks from its log.
//!
//! # Epochs
//!
//! After about `commits_per_epoch` commits, validators publish signatures on the next committee: the same members. Each
//! leader that has a quorum of them hands over in its block. The first commit with such a block is the last one of the
//! epoch. Blocks go on, for their votes, until that commit is durable. Then the next epoch begins with round 1.

mod block_log;
mod chain;
mod commit_rule;
mod dag;
mod interface;
mod machine;
mod payload;
mod proposer;
mod requests;
#[cfg(test)]
mod tests;

pub(crate) use block_log::BlockLog;
pub(crate) use interface::{Config, GC_ROUNDS, Input, Output, Start};
pub(crate) use machine::Machine;
pub(crate) use payload::validate;
