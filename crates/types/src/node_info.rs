//! What a node says of itself to others, in its own hand.

use crate::{
    Address, ChainId, CodecError, CommitIndex, NodeInfoDigest, PeerId, Scope, Signable, Signed, TimestampMs, codec,
    limits,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Range of protocol versions that a node speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolVersions {
    /// Oldest.
    pub min: u32,
    /// Newest.
    pub max: u32,
}

impl ProtocolVersions {
    /// What this library speaks: `soma.p2p.v1`.
    pub const SUPPORTED: Self = Self { min: 1, max: 1 };
}

/// A node's part in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// Takes part in consensus.
    Validator,
    /// Follows the chain.
    FullNode,
}

/// What a node can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Its part in the network.
    pub role: NodeRole,
    /// Whether it keeps every commit since genesis.
    pub archive: bool,
    /// Lowest commit that it served when it signed this; 1 for an archive.
    pub lowest_commit: CommitIndex,
}

/// Whom a node's address may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Everybody.
    Public,
    /// Only peers on the allowlist.
    Trusted,
    /// Nobody: it dials, and is not to be passed on.
    Private,
}

/// A node's description of itself. Passed on byte for byte, never signed by anyone else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Whom it describes and whose signature it bears.
    pub peer_id: PeerId,
    /// Where it listens, best first; at most [`limits::MAX_ADDRESSES_PER_NODE`], each once.
    #[serde(deserialize_with = "codec::list")]
    pub addresses: Vec<Address>,
    /// The chain that it is on.
    pub chain_id: ChainId,
    /// When it was signed; the newest one counts.
    pub timestamp_ms: TimestampMs,
    /// Versions of the protocol that it speaks.
    pub protocol_versions: ProtocolVersions,
    /// What it can be asked for.
    pub capabilities: Capabilities,
    /// Whom its addresses may be told.
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

/// A node info with its node's signature; a claim until it is verified.
pub type SignedNodeInfo = Signed<NodeInfo>;

impl SignedNodeInfo {
    /// Decodes received bytes and checks the addresses: few, and each once. An address that stands there eight times would
    /// be dialled eight times.
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
