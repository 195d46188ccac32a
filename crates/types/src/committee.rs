//! Committees: the authorities that may author blocks in an epoch, and their stakes.

use crate::{Address, AuthorityIndex, CodecError, CommitteeDigest, Epoch, PublicKey, Stake, codec, limits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One member of a committee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Voting power, at least 1.
    pub stake: Stake,
    /// Signs blocks and certificates.
    pub protocol_key: PublicKey,
    /// Authenticates its connections: its [`PeerId`](crate::PeerId).
    pub network_key: PublicKey,
    /// Where it listens.
    pub address: Address,
}

/// The authorities of one epoch. Has been checked by [`Committee::validate`] wherever it did not come from disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committee {
    /// The epoch in which it serves.
    pub epoch: Epoch,
    /// Members, by authority index.
    #[serde(deserialize_with = "codec::list")]
    pub authorities: Vec<Authority>,
}

/// Why a list of authorities is no committee.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitteeError {
    /// No member, or too many.
    #[error("a committee has 1 to {max} authorities, this one {size}", max = limits::MAX_COMMITTEE_SIZE)]
    Size {
        /// Members.
        size: usize,
    },
    /// A member without a say.
    #[error("authority {authority} has no stake")]
    NoStake {
        /// Its index.
        authority: AuthorityIndex,
    },
    /// Stakes with a sum beyond the range.
    #[error("the stakes add up to more than 2^63 - 1")]
    StakeOverflow,
    /// A key that is none.
    #[error("authority {authority}: {key} is no ed25519 public key")]
    BadKey {
        /// Its index.
        authority: AuthorityIndex,
        /// The bytes.
        key: PublicKey,
    },
    /// Two members with one key.
    #[error("authority {authority} has the same key as one before it")]
    RepeatedKey {
        /// The later one's index.
        authority: AuthorityIndex,
    },
}

impl Committee {
    /// Checks what every committee must hold: size, stakes, keys that are points of the curve and all different. A
    /// committee that passes has at most [`limits::MAX_COMMITTEE_BYTES`] encoded.
    ///
    /// # Errors
    ///
    /// The first rule that the committee breaks.
    pub fn validate(&self) -> Result<(), CommitteeError> {
        let size = self.authorities.len();
        if size == 0 || size > limits::MAX_COMMITTEE_SIZE {
            return Err(CommitteeError::Size { size });
        }
        let mut total: Stake = 0;
        let mut keys = BTreeSet::new();
        for (authority, member) in (0..).zip(&self.authorities) {
            if member.stake == 0 {
                return Err(CommitteeError::NoStake { authority });
            }
            total = total.checked_add(member.stake).ok_or(CommitteeError::StakeOverflow)?;
            for key in [member.protocol_key, member.network_key] {
                key.verifying_key().map_err(|_| CommitteeError::BadKey { authority, key })?;
            }
            if !keys.insert((0, member.protocol_key)) || !keys.insert((1, member.network_key)) {
                return Err(CommitteeError::RepeatedKey { authority });
            }
        }
        if total > Stake::MAX / 2 {
            return Err(CommitteeError::StakeOverflow);
        }
        Ok(())
    }

    /// The member at `index`.
    pub fn authority(&self, index: AuthorityIndex) -> Option<&Authority> {
        self.authorities.get(index as usize)
    }

    /// Stake of all members. Does not overflow for a validated committee.
    pub fn total_stake(&self) -> Stake {
        self.authorities.iter().map(|member| member.stake).fold(0, Stake::saturating_add)
    }

    /// The least stake that any two sets of have an honest member in common: total - (total - 1) / 3.
    pub fn quorum(&self) -> Stake {
        let total = self.total_stake();
        total - total.saturating_sub(1) / 3
    }

    /// Stake of the distinct `authorities`; others than members count nothing.
    pub fn stake_of(&self, authorities: impl IntoIterator<Item = AuthorityIndex>) -> Stake {
        let distinct: BTreeSet<_> = authorities.into_iter().collect();
        // As `total_stake`: a committee that is only decoded may have any stakes.
        let stakes = distinct.into_iter().filter_map(|index| self.authority(index)).map(|member| member.stake);
        stakes.fold(0, Stake::saturating_add)
    }

    /// Whether the distinct `authorities` hold a quorum.
    pub fn is_quorum(&self, authorities: impl IntoIterator<Item = AuthorityIndex>) -> bool {
        self.stake_of(authorities) >= self.quorum()
    }

    /// Names this committee: what the epoch before signs to hand over to it.
    pub fn digest(&self) -> CommitteeDigest {
        CommitteeDigest::of(&[&self.encode()])
    }

    /// The bytes that [`decode`](Self::decode) reads.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes bytes of [`encode`](Self::encode). They are not checked: see [`validate`](Self::validate).
    ///
    /// # Errors
    ///
    /// The bytes are no committee, or more than [`limits::MAX_COMMITTEE_BYTES`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, "committee", limits::MAX_COMMITTEE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;

    fn committee(stakes: &[Stake]) -> Committee {
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
        Committee { epoch: 0, authorities }
    }

    #[test]
    fn a_quorum_is_more_than_two_thirds() {
        for (stakes, quorum) in [(vec![1, 1, 1, 1], 3), (vec![1], 1), (vec![1, 1, 1], 3), (vec![10, 20, 30, 40], 67)] {
            assert_eq!(committee(&stakes).quorum(), quorum, "{stakes:?}");
        }
    }

    #[test]
    fn a_repeated_signer_counts_once_and_a_stranger_not_at_all() {
        let committee = committee(&[1, 1, 1, 1]);
        assert_eq!(committee.stake_of([0, 0, 0, 9]), 1);
        assert!(!committee.is_quorum([1, 1, 1]));
        assert!(committee.is_quorum([3, 1, 0]));
    }

    #[test]
    fn stakes_of_a_committee_that_nobody_validated_add_up_without_overflow() {
        let any = committee(&[u64::MAX, 1, u64::MAX]);
        assert_eq!(any.total_stake(), u64::MAX);
        assert_eq!(any.stake_of([0, 1, 2]), u64::MAX);
        assert!(any.is_quorum([0, 1]));
    }

    #[test]
    fn what_is_no_committee_is_refused_with_the_reason() {
        assert_eq!(committee(&[]).validate(), Err(CommitteeError::Size { size: 0 }));
        assert_eq!(committee(&[1, 0]).validate(), Err(CommitteeError::NoStake { authority: 1 }));
        assert_eq!(committee(&[u64::MAX, 1]).validate(), Err(CommitteeError::StakeOverflow));
        let mut twice = committee(&[1, 1]);
        twice.authorities[1].protocol_key = twice.authorities[0].protocol_key;
        assert_eq!(twice.validate(), Err(CommitteeError::RepeatedKey { authority: 1 }));
        let mut bad = committee(&[1, 1]);
        bad.authorities[1].network_key = PublicKey([0xff; 32]);
        assert!(matches!(bad.validate(), Err(CommitteeError::BadKey { authority: 1, .. })));
        assert_eq!(committee(&[3, 1]).validate(), Ok(()));
    }
}
