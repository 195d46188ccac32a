//! A node's signed description of itself.

use crate::{
    Address, ChainId, CodecError, CommitIndex, NodeInfoDigest, PeerId, Scope, Signable, Signed, TimestampMs, codec,
    limits,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Range of supported protocol versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolVersions {
    /// The oldest version.
    pub min: u32,
    /// The newest version.
    pub max: u32,
}

impl ProtocolVersions {
    /// The versions that this library supports: `soma.p2p.v1`.
    pub const SUPPORTED: Self = Self { min: 1, max: 1 };
}

/// A node's role in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// Participates in consensus.
    Validator,
    /// Follows the chain.
    FullNode,
}

/// The data that a node serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Its role in the network.
    pub role: NodeRole,
    /// Whether the node keeps every commit since genesis.
    pub archive: bool,
    /// Lowest commit that the node served at the time of signing; 1 for an archive.
    pub lowest_commit: CommitIndex,
}

/// Peers that may learn a node's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// All peers.
    Public,
    /// Only peers on the allowlist.
    Trusted,
    /// No peers: the node only dials, and its info is not passed on.
    Private,
}

/// A node's description of itself. Other nodes pass it on byte for byte and cannot sign it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The described node, which also signs the info.
    pub peer_id: PeerId,
    /// Its listen addresses, best first; at most [`limits::MAX_ADDRESSES_PER_NODE`], without repetition.
    #[serde(deserialize_with = "codec::list")]
    pub addresses: Vec<Address>,
    /// The node's chain.
    pub chain_id: ChainId,
    /// Time of signing. The newest info of a node counts.
    pub timestamp_ms: TimestampMs,
    /// Supported versions of the protocol.
    pub protocol_versions: ProtocolVersions,
    /// The data that the node serves.
    pub capabilities: Capabilities,
    /// Peers that may learn its addresses.
    pub access: Access,
}

impl Signable for NodeInfo {
    const SCOPE: Scope = Scope::NodeInfo;
    const WHAT: &'static str = "node info";
    const MAX_BYTES: usize = limits::MAX_NODE_INFO_BYTES;

    fn decode_body(body: &Bytes) -> Result<Self, CodecError> {
        codec::decode(body, Self::WHAT, Self::MAX_BYTES)
    }

    fn body_digest(body: &[u8]) -> [u8; 32] {
        NodeInfoDigest::of(&[body]).0
    }
}

/// A node info with its node's signature. It is a claim until it is verified.
pub type SignedNodeInfo = Signed<NodeInfo>;

impl SignedNodeInfo {
    /// Decodes received bytes and checks that the addresses are few and distinct. An address that is repeated eight
    /// times would be dialled eight times.
    ///
    /// # Errors
    /// Fails if the bytes are not a node info, or if it has too many or repeated addresses.
    pub fn decode_bounded(bytes: Bytes) -> Result<Self, CodecError> {
        let info = Self::decode(bytes)?;
        let count = info.addresses.len();
        if count > limits::MAX_ADDRESSES_PER_NODE {
            return Err(CodecError::TooLarge {
                what: "list of addresses",
                size: count,
                limit: limits::MAX_ADDRESSES_PER_NODE,
            });
        }
        let different: BTreeSet<_> = info.addresses.iter().collect();
        if different.len() < count {
            let reason = format!("{} of its {count} addresses are repeated", count - different.len());
            return Err(CodecError::Malformed { what: "list of addresses", reason });
        }
        Ok(info)
    }
}
