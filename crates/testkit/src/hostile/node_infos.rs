//! Node infos that are too many, made up, of others, of another time, or too large.

use crate::{address_of, hostile::Behaviour};
use bytes::Bytes;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use soma_network::wire::{KnownPeers, Seen, limits::MAX_KNOWN_PEERS};
use soma_types::{
    Access, Address, Capabilities, ChainId, Intent, NodeInfo, NodeRole, PeerId, ProtocolVersions, Scope, Signable,
    SignedNodeInfo, SigningKey, TimestampMs, codec,
    limits::{MAX_ADDRESS_BYTES, MAX_ADDRESSES_PER_NODE},
};
use std::net::{IpAddr, SocketAddr};

/// Infos in a flood.
const FLOOD: usize = 100_000;

/// Bytes of each info: so few that all infos fit into the largest message.
const FLOOD_BYTES: usize = 100;

/// An hour, and a day and an hour: beyond what any clock may be off by, and any info old.
const HOUR_MS: TimestampMs = 3_600_000;
const LONG_AGO_MS: TimestampMs = 25 * HOUR_MS;

/// Changes an answer as the behaviour has it. Answers whether it did.
pub(super) fn change(
    behaviour: Behaviour,
    said: &mut KnownPeers,
    caller: PeerId,
    key: &SigningKey,
    rng: &mut ChaCha8Rng,
) -> bool {
    let Ok(own) = SignedNodeInfo::decode(said.own_info.clone()) else { return false };
    let own = own.value().clone();
    let sign = |info: NodeInfo| SignedNodeInfo::sign(info, own.chain_id, key).bytes().clone();
    match behaviour {
        Behaviour::FloodsNodeInfos => {
            let piece = said.own_info.slice(..said.own_info.len().min(FLOOD_BYTES));
            said.known_peers = vec![piece; FLOOD];
        }
        Behaviour::InventsNodes => said.known_peers = (0..MAX_KNOWN_PEERS).map(|_| invented(&own, rng)).collect(),
        Behaviour::ForgesNodeInfos => {
            let others = said.known_peers.iter().filter_map(|info| SignedNodeInfo::decode(info.clone()).ok());
            let mut others: Vec<NodeInfo> = others.map(|info| info.value().clone()).collect();
            others.push(NodeInfo { peer_id: caller, ..own.clone() });
            let forged = others.into_iter().map(|other| NodeInfo {
                addresses: own.addresses.clone(),
                timestamp_ms: own.timestamp_ms + 1_000,
                ..other
            });
            said.known_peers = forged.map(sign).collect();
        }
        Behaviour::SendsExpiredNodeInfos => {
            said.own_info =
                sign(NodeInfo { timestamp_ms: own.timestamp_ms.saturating_sub(LONG_AGO_MS), ..own.clone() });
        }
        Behaviour::SendsFutureNodeInfos => {
            said.own_info = sign(NodeInfo { timestamp_ms: own.timestamp_ms + HOUR_MS, ..own.clone() });
        }
        Behaviour::SendsHugeAddresses => said.own_info = huge(&own, key),
        Behaviour::RepeatsAddresses => {
            let addresses = own.addresses.iter().cycle().take(MAX_ADDRESSES_PER_NODE).cloned().collect();
            said.own_info = sign(NodeInfo { addresses, ..own.clone() });
        }
        Behaviour::LiesAboutCallers => {
            let elsewhere = IpAddr::from([203, 0, 113, rng.random()]);
            said.seen = Seen { ip: Some(elsewhere), time_ms: own.timestamp_ms + HOUR_MS, reached: Some(false) };
        }
        _ => return false,
    }
    true
}

/// The info of a node that does not exist, in order in every other respect.
pub(super) fn invented(like: &NodeInfo, rng: &mut ChaCha8Rng) -> Bytes {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    let key = SigningKey::from_bytes(&seed);
    // Of a network that is reserved for documentation, without hosts.
    let address = SocketAddr::from(([192, 0, 2, rng.random()], rng.random_range(1..=u16::MAX)));
    let info = NodeInfo { peer_id: PeerId::from(&key), addresses: vec![address_of(address)], ..like.clone() };
    SignedNodeInfo::sign(info, like.chain_id, &key).bytes().clone()
}

/// What a node says of itself that listens at `address`.
pub(super) fn own_info(key: &SigningKey, chain: ChainId, address: &Address, timestamp_ms: TimestampMs) -> NodeInfo {
    NodeInfo {
        peer_id: PeerId::from(key),
        addresses: vec![address.clone()],
        chain_id: chain,
        timestamp_ms,
        protocol_versions: ProtocolVersions::SUPPORTED,
        capabilities: Capabilities { role: NodeRole::FullNode, archive: false, lowest_commit: 1 },
        access: Access::Public,
    }
}

/// A node info as it is encoded, with addresses that no [`Address`] can be.
#[derive(Serialize)]
struct HugeInfo {
    peer_id: PeerId,
    addresses: Vec<String>,
    chain_id: ChainId,
    timestamp_ms: TimestampMs,
    protocol_versions: ProtocolVersions,
    capabilities: Capabilities,
    access: Access,
}

/// The same with an address that is longer than any may be.
fn huge(own: &NodeInfo, key: &SigningKey) -> Bytes {
    let info = HugeInfo {
        peer_id: own.peer_id,
        addresses: vec![format!("/dns/{}/tcp/9000", "a".repeat(MAX_ADDRESS_BYTES))],
        chain_id: own.chain_id,
        timestamp_ms: own.timestamp_ms,
        protocol_versions: own.protocol_versions,
        capabilities: own.capabilities,
        access: own.access,
    };
    let mut bytes = codec::encode(&info);
    let intent = Intent { scope: Scope::NodeInfo, chain: own.chain_id };
    let signature = intent.sign(key, &NodeInfo::body_digest(&bytes));
    bytes.extend_from_slice(&signature.0);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use soma_types::CodecError;
    use soma_verify::{NodeInfoError, verify_node_info};

    const CHAIN: ChainId = ChainId([1; 32]);
    const NOW_MS: TimestampMs = 1_700_000_000_000;

    fn said(behaviour: Behaviour) -> KnownPeers {
        let key = SigningKey::from_bytes(&[7; 32]);
        let info = own_info(&key, CHAIN, &"/ip4/127.0.0.1/tcp/9000".parse().unwrap(), NOW_MS);
        let own_info = SignedNodeInfo::sign(info, CHAIN, &key).bytes().clone();
        let mut said = KnownPeers { own_info, known_peers: Vec::new(), seen: Seen::default() };
        assert!(change(behaviour, &mut said, PeerId([8; 32]), &key, &mut ChaCha8Rng::seed_from_u64(1)));
        said
    }

    fn verdict(info: &Bytes) -> Result<SignedNodeInfo, NodeInfoError> {
        verify_node_info(CHAIN, info.clone(), NOW_MS)
    }

    #[test]
    fn each_info_is_wrong_in_the_one_way_that_its_behaviour_says() {
        let flood = said(Behaviour::FloodsNodeInfos);
        assert_eq!(flood.known_peers.len(), FLOOD);
        assert!(flood.checked().is_err());
        let invented = said(Behaviour::InventsNodes);
        assert!(invented.known_peers.iter().all(|info| verdict(info).is_ok()));
        let forged = said(Behaviour::ForgesNodeInfos).known_peers.pop().unwrap();
        assert!(matches!(verdict(&forged), Err(NodeInfoError::Key(_) | NodeInfoError::BadSignature { .. })));
        let expired = said(Behaviour::SendsExpiredNodeInfos).own_info;
        assert!(matches!(verdict(&expired), Err(NodeInfoError::TooOld { .. })));
        let future = said(Behaviour::SendsFutureNodeInfos).own_info;
        assert!(matches!(verdict(&future), Err(NodeInfoError::TooNew { .. })));
        let huge = said(Behaviour::SendsHugeAddresses).own_info;
        assert!(matches!(verdict(&huge), Err(NodeInfoError::Codec(CodecError::Malformed { .. }))));
        let lies = said(Behaviour::LiesAboutCallers);
        assert!(verdict(&lies.own_info).is_ok() && lies.seen.ip.is_some() && lies.seen.reached == Some(false));
    }
}
