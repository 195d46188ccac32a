//! What every block must hold by itself, wherever it comes from: the rules that certifier blocks and committed
//! blocks share. Signatures and transactions are checked elsewhere; here is only what costs nothing.

use crate::{EpochContext, QuorumError, TransactionError};
use soma_types::{AuthorityIndex, Block, BlockRef, Epoch, limits};

/// Which rule a block breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// It belongs to another epoch.
    #[error("it is of epoch {found}, not {expected}")]
    OtherEpoch {
        /// The epoch being checked.
        expected: Epoch,
        /// The block's.
        found: Epoch,
    },
    /// Its author is no authority.
    #[error("its author {author} is not in the committee of {size}")]
    UnknownAuthor {
        /// The author.
        author: AuthorityIndex,
        /// Members of the committee.
        size: usize,
    },
    /// Nobody makes blocks of round 0.
    #[error("round 0 is the genesis round")]
    GenesisRound,
    /// Over [`limits::MAX_TRANSACTIONS_PER_BLOCK`].
    #[error("{count} transactions, over the limit of {max}", max = limits::MAX_TRANSACTIONS_PER_BLOCK)]
    TooManyTransactions {
        /// Transactions in it.
        count: usize,
    },
    /// Over [`limits::MAX_COMMIT_VOTES_PER_BLOCK`].
    #[error("{count} commit votes, over the limit of {max}", max = limits::MAX_COMMIT_VOTES_PER_BLOCK)]
    TooManyVotes {
        /// Votes in it.
        count: usize,
    },
    /// Its first ancestor is not its author's own.
    #[error("its first ancestor is not its author's own last block")]
    NoOwnAncestor,
    /// An ancestor of another epoch.
    #[error("its ancestor {ancestor} is of another epoch")]
    AncestorOfOtherEpoch {
        /// The ancestor.
        ancestor: BlockRef,
    },
    /// An ancestor whose author is no authority.
    #[error("the author of its ancestor {ancestor} is not in the committee")]
    UnknownAncestorAuthor {
        /// The ancestor.
        ancestor: BlockRef,
    },
    /// Two ancestors of one author.
    #[error("its ancestor {ancestor} is the second of its author")]
    RepeatedAncestorAuthor {
        /// The later one.
        ancestor: BlockRef,
    },
    /// An ancestor of the same or a later round.
    #[error("its ancestor {ancestor} is not of a lower round")]
    AncestorNotLower {
        /// The ancestor.
        ancestor: BlockRef,
    },
    /// An ancestor of round 0 that is not the epoch's genesis block of its author.
    #[error("its ancestor {ancestor} of round 0 is not the epoch's genesis block")]
    NotGenesis {
        /// The ancestor.
        ancestor: BlockRef,
    },
    /// Too few of its ancestors are of the round before.
    #[error("its ancestors of the round before: {0}")]
    NoParentQuorum(QuorumError),
    /// A transaction in it is refused.
    #[error("its transaction {position}: {source}")]
    Transaction {
        /// Which, from 0.
        position: usize,
        /// Why.
        source: TransactionError,
    },
    /// Its author's signature, or a signature in one of its transactions, is wrong.
    #[error("its author's signature or one in its transactions is wrong")]
    BadSignature,
}

/// Checks the form of `block`: place, limits and ancestors.
pub(crate) fn check_block(context: &EpochContext, block: &Block) -> Result<(), BlockError> {
    if block.epoch != context.epoch() {
        return Err(BlockError::OtherEpoch { expected: context.epoch(), found: block.epoch });
    }
    if context.stake(block.author).is_none() {
        return Err(BlockError::UnknownAuthor { author: block.author, size: context.size() });
    }
    let Some(parent_round) = block.round.checked_sub(1) else { return Err(BlockError::GenesisRound) };
    if block.transactions.len() > limits::MAX_TRANSACTIONS_PER_BLOCK {
        return Err(BlockError::TooManyTransactions { count: block.transactions.len() });
    }
    if block.commit_votes.len() > limits::MAX_COMMIT_VOTES_PER_BLOCK {
        return Err(BlockError::TooManyVotes { count: block.commit_votes.len() });
    }

    if block.ancestors.first().map(|own| own.author) != Some(block.author) {
        return Err(BlockError::NoOwnAncestor);
    }
    let mut seen = vec![false; context.size()];
    let mut stake = 0;
    for &ancestor in &block.ancestors {
        if ancestor.epoch != block.epoch {
            return Err(BlockError::AncestorOfOtherEpoch { ancestor });
        }
        let (Some(member), Some(seen)) = (context.stake(ancestor.author), seen.get_mut(ancestor.author as usize))
        else {
            return Err(BlockError::UnknownAncestorAuthor { ancestor });
        };
        if std::mem::replace(seen, true) {
            return Err(BlockError::RepeatedAncestorAuthor { ancestor });
        }
        if ancestor.round > parent_round {
            return Err(BlockError::AncestorNotLower { ancestor });
        }
        if ancestor.round == 0 && context.genesis_refs().get(ancestor.author as usize) != Some(&ancestor) {
            return Err(BlockError::NotGenesis { ancestor });
        }
        if ancestor.round == parent_round {
            // Each member counts once: the sum is at most the committee's total, which fits.
            stake += member;
        }
    }
    context.check_quorum(stake).map_err(BlockError::NoParentQuorum)
}
