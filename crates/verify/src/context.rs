//! The input of all checks of one epoch, computed once: the committee's keys as curve points, its quorum and its
//! genesis blocks.

use ed25519_dalek::VerifyingKey;
use soma_types::{
    AuthorityIndex, BlockRef, ChainId, Committee, CommitteeError, Epoch, Intent, PublicKey, QuorumSignatures, Scope,
    Signature, Stake, epoch_genesis_refs,
};

/// One epoch of one chain, with a valid committee. Made once per epoch and shared as `Arc<EpochContext>`.
#[derive(Clone, Debug)]
pub struct EpochContext {
    chain: ChainId,
    committee: Committee,
    keys: Vec<VerifyingKey>,
    quorum: Stake,
    genesis: Vec<BlockRef>,
}

/// The reason why signers or authors are not a quorum of a committee.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuorumError {
    /// The signers are not in strictly ascending order.
    #[error("authority {authority} does not come after the signer before it")]
    NotAscending {
        /// The signer that is out of order.
        authority: AuthorityIndex,
    },
    /// A signer is not in the committee.
    #[error("authority {authority} is not in the committee of {size}")]
    UnknownAuthority {
        /// The signer's index.
        authority: AuthorityIndex,
        /// Members of the committee.
        size: usize,
    },
    /// The stake is less than a quorum.
    #[error("the signers hold a stake of {stake}, and a quorum is {quorum}")]
    TooLittleStake {
        /// Stake of the signers.
        stake: Stake,
        /// Stake of a quorum.
        quorum: Stake,
    },
}

impl EpochContext {
    /// Checks the committee and decompresses its keys.
    ///
    /// # Errors
    /// Fails if the committee is invalid.
    pub fn new(chain: ChainId, committee: Committee) -> Result<Self, CommitteeError> {
        committee.validate()?;
        let keys = (0..)
            .zip(&committee.authorities)
            .map(|(authority, member)| {
                let key = member.protocol_key;
                key.verifying_key().map_err(|_| CommitteeError::BadKey { authority, key })
            })
            .collect::<Result<_, _>>()?;
        let quorum = committee.quorum();
        let genesis = epoch_genesis_refs(committee.epoch, committee.authorities.len());
        Ok(Self { chain, committee, keys, quorum, genesis })
    }

    /// The chain.
    pub fn chain(&self) -> ChainId {
        self.chain
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.committee.epoch
    }

    /// The valid committee of the epoch.
    pub fn committee(&self) -> &Committee {
        &self.committee
    }

    /// Number of authorities in the committee.
    pub fn size(&self) -> usize {
        self.keys.len()
    }

    /// Stake of a quorum.
    pub fn quorum(&self) -> Stake {
        self.quorum
    }

    /// The protocol key of a member, as a point of the curve.
    pub fn key(&self, authority: AuthorityIndex) -> Option<&VerifyingKey> {
        self.keys.get(authority as usize)
    }

    /// The protocol key of a member.
    pub fn public_key(&self, authority: AuthorityIndex) -> Option<&PublicKey> {
        self.committee.authority(authority).map(|member| &member.protocol_key)
    }

    /// The stake of a member.
    pub fn stake(&self, authority: AuthorityIndex) -> Option<Stake> {
        self.committee.authority(authority).map(|member| member.stake)
    }

    /// References of the blocks of round 0, by author.
    pub fn genesis_refs(&self) -> &[BlockRef] {
        &self.genesis
    }

    /// The intent of signatures for `scope` on this chain.
    pub fn intent(&self, scope: Scope) -> Intent {
        Intent { scope, chain: self.chain }
    }

    /// Checks that the signers are members in strictly ascending order and hold a quorum. Does not check their
    /// signatures.
    ///
    /// # Errors
    /// Fails if the signers are not ascending, not members, or hold less than a quorum.
    pub fn check_signers(&self, quorum: &QuorumSignatures) -> Result<(), QuorumError> {
        let mut stake = 0;
        let mut last = None;
        for authority in quorum.signatures.iter().map(|signed| signed.authority) {
            if last >= Some(authority) {
                return Err(QuorumError::NotAscending { authority });
            }
            last = Some(authority);
            let size = self.size();
            // Distinct members of a valid committee: the sum is at most the total and does not overflow.
            stake += self.stake(authority).ok_or(QuorumError::UnknownAuthority { authority, size })?;
        }
        self.check_quorum(stake)
    }

    /// Checks that `stake` is at least a quorum.
    pub(crate) fn check_quorum(&self, stake: Stake) -> Result<(), QuorumError> {
        if stake < self.quorum {
            return Err(QuorumError::TooLittleStake { stake, quorum: self.quorum });
        }
        Ok(())
    }

    /// Whether `signature` is the member's signature on `digest`, by the strict rules.
    pub(crate) fn is_signed_by(
        &self,
        authority: AuthorityIndex,
        scope: Scope,
        digest: &[u8; 32],
        signature: &Signature,
    ) -> bool {
        self.key(authority).is_some_and(|key| is_signed(key, self.intent(scope), digest, signature))
    }
}

/// Whether `signature` is `key`'s signature on `digest`, by the strict rules: no point of small order, and only
/// canonical encodings.
pub(crate) fn is_signed(key: &VerifyingKey, intent: Intent, digest: &[u8; 32], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    key.verify_strict(&intent.message(digest), &signature).is_ok()
}
