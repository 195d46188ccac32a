//! Checks of what nodes say of themselves.

use crate::context::is_signed;
use bytes::Bytes;
use soma_types::{
    ChainId, CodecError, Fault, Intent, KeyError, PeerId, ProtocolVersions, PublicKey, Scope, SignedNodeInfo,
    TimestampMs,
};

/// How far ahead of our clock a node info may be: what clocks kept by NTP never differ by.
pub const MAX_CLOCK_SKEW_MS: u64 = 30_000;

/// How old a node info may be. Nodes sign a new one well within a day; older ones are of nodes that are gone.
pub const MAX_NODE_INFO_AGE_MS: u64 = 24 * 60 * 60 * 1_000;

/// Why a node info is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeInfoError {
    /// Bytes that are no node info, or one over a limit.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A node of another chain.
    #[error("node {peer} is on chain {found}, and this is chain {expected}")]
    OtherChain {
        /// The node.
        peer: PeerId,
        /// Ours.
        expected: ChainId,
        /// Its own.
        found: ChainId,
    },
    /// From the future: one of the two clocks is wrong.
    #[error(
        "the info of node {peer} is {ahead_ms} ms ahead of our clock, over the limit of {MAX_CLOCK_SKEW_MS} ms: check both clocks"
    )]
    TooNew {
        /// The node.
        peer: PeerId,
        /// By how much.
        ahead_ms: u64,
    },
    /// Long past.
    #[error("the info of node {peer} is {age_ms} ms old, over the limit of {MAX_NODE_INFO_AGE_MS} ms")]
    TooOld {
        /// The node.
        peer: PeerId,
        /// Its age.
        age_ms: u64,
    },
    /// A range of versions that holds none.
    #[error("node {peer} speaks versions {min} to {max}, which are none", min = versions.min, max = versions.max)]
    NoVersions {
        /// The node.
        peer: PeerId,
        /// What it says.
        versions: ProtocolVersions,
    },
    /// An id that is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not signed by the node it describes.
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

    /// The fault of whoever sent the info, be it the node itself or one that passes it on: every node checks what
    /// it passes on.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Codec(_) | Self::NoVersions { .. } | Self::Key(_) => Fault::Malformed,
            // A mistake in somebody's configuration or clock, perhaps ours: nobody lied.
            Self::OtherChain { .. } | Self::TooNew { .. } | Self::TooOld { .. } => Fault::Unproven,
            Self::BadSignature { .. } => Fault::ProvableLie,
        }
    }
}

/// Checks a received node info: form, chain, age and its node's own signature.
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
