//! The state and its rules. Equal commits make equal states, byte by byte.

use serde::{Deserialize, Serialize};
use soma_p2p::{
    CommittedSubDag, ObjectId,
    types::{CodecError, EncodedCertificate, codec},
};
use soma_p2p_cli::executor::Executed;
use std::collections::BTreeMap;

/// Version of the encoding: the format of a snapshot.
pub(super) const FORMAT: u32 = 1;

/// Longest state that is decoded.
const MAX_STATE_BYTES: usize = 256 << 20;

/// What the author of a block gets.
const REWARD: u64 = 1;

/// What a user has at first: enough for millions of transactions.
const GRANT: u64 = 1_000_000_000_000;

/// An account: a user, an author of blocks, or one of 65,536 that payloads name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Account {
    /// The user with this key.
    User([u8; 32]),
    /// The validator with this index.
    Author(u32),
    /// The account with this number.
    Numbered(u16),
}

/// Accounts and balances after a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The commit.
    pub(super) executed: Executed,
    /// Balances.
    pub(super) accounts: BTreeMap<Account, u64>,
}

impl State {
    /// Executes a commit: each author is rewarded, and each certified transaction moves money. Tells of each account
    /// that changes.
    pub(super) fn apply(&mut self, sub_dag: &CommittedSubDag, mut changed: impl FnMut(Account)) {
        for block in &sub_dag.blocks {
            self.add(Account::Author(block.author), REWARD, &mut changed);
            for transaction in &block.transactions {
                // Whether it is certified, the node has checked. Other bytes are no transactions of this ledger.
                if let Ok(certificate) = EncodedCertificate::decode(&transaction.0) {
                    self.transfer(Account::User(certificate.sender.0), certificate.payload, &mut changed);
                }
            }
        }
        self.executed.digest.push(sub_dag);
        self.executed.index = sub_dag.commit_ref.index;
    }

    fn add(&mut self, account: Account, amount: u64, changed: &mut impl FnMut(Account)) {
        let balance = self.accounts.entry(account).or_default();
        *balance = balance.saturating_add(amount);
        changed(account);
    }

    /// The first two bytes of a payload name the receiver, and the next two the amount. A user who has less pays nothing.
    fn transfer(&mut self, sender: Account, payload: &[u8], changed: &mut impl FnMut(Account)) {
        let Some(&[a, b, c, d]) = payload.first_chunk() else { return };
        let amount = u64::from(u16::from_be_bytes([c, d]));
        let balance = self.accounts.entry(sender).or_insert(GRANT);
        changed(sender);
        if let Some(rest) = balance.checked_sub(amount) {
            *balance = rest;
            self.add(Account::Numbered(u16::from_be_bytes([a, b])), amount, changed);
        }
    }

    /// The bytes of a snapshot.
    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes [`encode`](Self::encode).
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, "ledger", MAX_STATE_BYTES)
    }

    /// Names the state: two nodes with equal digests have equal states.
    pub(super) fn digest(&self) -> ObjectId {
        ObjectId::of(&[&self.encode()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_testkit::{ChainBuilder, ChainSpec};

    #[test]
    fn executing_commits_moves_money_and_makes_only_rewards_and_grants() {
        let mut chain = ChainBuilder::new(ChainSpec { transactions_per_block: 3, ..ChainSpec::default() }).unwrap();
        let mut state = State::default();
        let (mut blocks, mut changes) = (0, 0);
        for _ in 0..20 {
            let commit = chain.next_commit().sub_dag();
            blocks += commit.blocks.len() as u64;
            state.apply(&commit, |_| changes += 1);
        }
        let users = state.accounts.keys().filter(|account| matches!(account, Account::User(_))).count() as u64;
        assert!(users > 0 && changes > blocks, "transactions are executed");
        assert_eq!(state.accounts.values().sum::<u64>(), blocks * REWARD + users * GRANT);
        assert_eq!(State::decode(&state.encode()).unwrap(), state);
    }
}
