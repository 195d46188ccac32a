//! Checks of node infos.

use crate::context::is_signed;
use bytes::Bytes;
use soma_types::{
    ChainId, CodecError, Fault, Intent, KeyError, PeerId, ProtocolVersions, PublicKey, Scope, SignedNodeInfo,
    TimestampMs,
};

/// How far a node info may be ahead of this node's clock: more than clocks with NTP ever differ.
pub const MAX_CLOCK_SKEW_MS: u64 = 30_000;

/// Maximum age of a node info. Nodes sign a new one well within a day, so an older one belongs to a node that has left.
pub const MAX_NODE_INFO_AGE_MS: u64 = 24 * 60 * 60 * 1_000;

/// The reason why a node info is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeInfoError {
    /// The bytes are not a node info, or exceed a limit.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The node is on another chain.
    #[error("node {peer} is on chain {found}, and this is chain {expected}")]
    OtherChain {
        /// The node.
        peer: PeerId,
        /// This node's chain.
        expected: ChainId,
        /// The other node's chain.
        found: ChainId,
    },
    /// The info is from the future: one of the two clocks is wrong.
    #[error(
        "the info of node {peer} is {ahead_ms} ms ahead of our clock, over the limit of {MAX_CLOCK_SKEW_MS} ms: check both clocks"
    )]
    TooNew {
        /// The node.
        peer: PeerId,
        /// Difference to this node's clock.
        ahead_ms: u64,
    },
    /// The info is too old.
    #[error("the info of node {peer} is {age_ms} ms old, over the limit of {MAX_NODE_INFO_AGE_MS} ms")]
    TooOld {
        /// The node.
        peer: PeerId,
        /// Its age.
        age_ms: u64,
    },
    /// The range of versions is empty.
    #[error("node {peer} has an empty range of versions, {min} to {max}", min = versions.min, max = versions.max)]
    NoVersions {
        /// The node.
        peer: PeerId,
        /// The range.
        versions: ProtocolVersions,
    },
    /// The peer id is not a valid key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The described node did not sign the info.
    #[error("the info of node {peer} is not signed by it")]
    BadSignature {
        /// The node.
        peer: PeerId,
    },
}

impl NodeInfoError {
    /// The reason in one word, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Codec(CodecError::TooLarge { .. }) => "too-large",
            Self::Codec(_) | Self::NoVersions { .. } | Self::Key(_) => "malformed",
            Self::OtherChain { .. } => "other-chain",
            Self::TooNew { .. } => "too-new",
            Self::TooOld { .. } => "too-old",
            Self::BadSignature { .. } => "bad-signature",
        }
    }

    /// The kind of fault of the peer that sent the info. It also holds for a peer that only passed the info on, because
    /// every node checks an info before it passes it on.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Codec(_) | Self::NoVersions { .. } | Self::Key(_) => Fault::Malformed,
            // A wrong configuration or clock, perhaps of this node: no lie.
            Self::OtherChain { .. } | Self::TooNew { .. } | Self::TooOld { .. } => Fault::Unproven,
            Self::BadSignature { .. } => Fault::ProvableLie,
        }
    }
}

/// Checks a received node info: form, chain, age and the node's own signature.
///
/// # Errors
/// Fails if one of these checks fails.
pub fn verify_node_info(chain: ChainId, bytes: Bytes, now_ms: TimestampMs) -> Result<SignedNodeInfo, NodeInfoError> {
    let info = SignedNodeInfo::decode_bounded(bytes)?;
    let peer = info.peer_id;
    if info.chain_id != chain {
        return Err(NodeInfoError::OtherChain { peer, expected: chain, found: info.chain_id });
    }
    let ahead_ms = info.timestamp_ms.saturating_sub(now_ms);
    if ahead_ms > MAX_CLOCK_SKEW_MS {
        return Err(NodeInfoError::TooNew { peer, ahead_ms });
    }
    let age_ms = now_ms.saturating_sub(info.timestamp_ms);
    if age_ms > MAX_NODE_INFO_AGE_MS {
        return Err(NodeInfoError::TooOld { peer, age_ms });
    }
    let versions = info.protocol_versions;
    if versions.min > versions.max {
        return Err(NodeInfoError::NoVersions { peer, versions });
    }
    let key = PublicKey::from(peer).verifying_key()?;
    if !is_signed(&key, Intent { scope: Scope::NodeInfo, chain }, info.body_digest(), info.signature()) {
        return Err(NodeInfoError::BadSignature { peer });
    }
    Ok(info)
}
