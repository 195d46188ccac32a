//! What chain to build, and the committees and keys that follow from it.

use crate::{
    address_of,
    keys::{Purpose, key},
};
use soma_types::{Address, Authority, AuthorityIndex, Committee, Epoch, PublicKey, SigningKey, Stake, TimestampMs};
use std::collections::BTreeSet;

/// What a transaction in a block is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// A certificate: signed by its sender and by a quorum. What nodes accept unless they bring a verifier of their
    /// own.
    #[default]
    Certified,
    /// Random bytes with no signature in them, for nodes whose transaction verifier takes any.
    Opaque,
}

/// What chain to build.
#[derive(Clone, Debug)]
pub struct ChainSpec {
    /// Seed of keys, payloads and faults.
    pub seed: u64,
    /// Name in the genesis.
    pub name: String,
    /// Stake of each authority.
    pub stakes: Vec<Stake>,
    /// Addresses of the authorities; /ip4/127.0.0.1/tcp/9000 and up where none is given.
    pub addresses: Vec<Address>,
    /// Transactions in each block.
    pub transactions_per_block: usize,
    /// What they are.
    pub payload: Payload,
    /// Bytes of each transaction's payload; an opaque one is nothing else.
    pub payload_bytes: usize,
    /// Users who send transactions in turn, at least 1.
    pub senders: u32,
    /// From one committed leader to the next, at least so many rounds, at least 1: the blocks of a commit are about
    /// as many times as many as the authorities.
    pub rounds_per_commit: u32,
    /// Commits in each epoch.
    pub commits_per_epoch: u32,
    /// Whether the authorities' nodes have other network keys in each epoch: as if all had been replaced.
    pub network_keys_change: bool,
    /// Whether the committee of every epoch is that of the first: no new protocol keys, no other stakes.
    pub committee_is_fixed: bool,
    /// When the chain began.
    pub start_timestamp_ms: TimestampMs,
    /// Time between rounds.
    pub round_interval_ms: u64,
    /// Authorities that never make a block.
    pub silent: BTreeSet<AuthorityIndex>,
    /// Authorities that sit out rounds at random; what they make is valid.
    pub faulty: BTreeSet<AuthorityIndex>,
}

impl Default for ChainSpec {
    fn default() -> Self {
        Self {
            seed: 0,
            name: "testkit".into(),
            stakes: vec![1; 4],
            addresses: Vec::new(),
            transactions_per_block: 1,
            payload: Payload::Certified,
            payload_bytes: 128,
            senders: 16,
            rounds_per_commit: 1,
            commits_per_epoch: 500,
            network_keys_change: false,
            committee_is_fixed: false,
            start_timestamp_ms: 1_700_000_000_000,
            round_interval_ms: 100,
            silent: BTreeSet::new(),
            faulty: BTreeSet::new(),
        }
    }
}

/// Stake of the authorities that make blocks.
pub(crate) fn live_stake(spec: &ChainSpec, committee: &Committee) -> Stake {
    let size = committee.authorities.len() as AuthorityIndex;
    committee.stake_of((0..size).filter(|index| !spec.silent.contains(index)))
}

/// In each epoch one authority, in turn, has a new protocol key.
pub(crate) fn protocol_key(spec: &ChainSpec, epoch: Epoch, authority: AuthorityIndex) -> SigningKey {
    let size = spec.stakes.len().max(1) as u64;
    // How often its turn has come: in epochs `authority`, `authority + size`, ..., but not at genesis.
    let version = match u64::from(authority) {
        _ if spec.committee_is_fixed => 0,
        0 => epoch / size,
        authority => (epoch + size - authority) / size,
    };
    key(spec.seed, Purpose::Protocol, authority, version)
}

pub(crate) fn network_key(spec: &ChainSpec, epoch: Epoch, authority: AuthorityIndex) -> SigningKey {
    key(spec.seed, Purpose::Network, authority, if spec.network_keys_change { epoch } else { 0 })
}

/// The committee of an epoch, and its protocol keys.
pub(crate) fn committee_of(spec: &ChainSpec, epoch: Epoch) -> (Committee, Vec<SigningKey>) {
    let keys: Vec<_> = (0..spec.stakes.len() as AuthorityIndex).map(|index| protocol_key(spec, epoch, index)).collect();
    let authorities = (0..).zip(&spec.stakes).zip(&keys).map(|((index, stake), protocol): ((AuthorityIndex, _), _)| {
        let port = 9_000 + index as u16;
        let address = spec.addresses.get(index as usize).cloned();
        Authority {
            stake: *stake,
            protocol_key: PublicKey::from(protocol),
            network_key: PublicKey::from(&network_key(spec, epoch, index)),
            address: address.unwrap_or_else(|| address_of(([127, 0, 0, 1], port).into())),
        }
    });
    let mut committee = Committee { epoch, authorities: authorities.collect() };
    // One authority, in turn, has more say than at genesis, as long as those who make blocks remain a quorum.
    if epoch > 0 && !spec.stakes.is_empty() && !spec.committee_is_fixed {
        let favoured = (epoch % spec.stakes.len() as u64) as usize;
        committee.authorities[favoured].stake += 1;
        if live_stake(spec, &committee) < committee.quorum() {
            committee.authorities[favoured].stake -= 1;
        }
    }
    (committee, keys)
}
