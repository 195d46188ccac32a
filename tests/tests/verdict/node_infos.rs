//! Node infos: whether one is believed does not depend on who tells it, or when.

use crate::{
    CHAIN, SERVER,
    ways::{NOW_MS, Running, Scripted, in_virtual_time, start, store_with},
};
use bytes::Bytes;
use soma_network::wire::Call;
use soma_p2p::{PeerId, PeerList, Store};
use soma_tests::key;
use soma_types::{
    Access, Capabilities, ChainId, NetworkGroup, NodeInfo, NodeRole, ProtocolVersions, Signature, Signed,
    SignedNodeInfo, SigningKey, codec,
};
use std::{net::Ipv4Addr, time::Duration};
use tokio::time::sleep;

/// A rule, and what breaks it: of the info, or of its bytes.
pub(crate) struct Rule {
    pub(crate) id: &'static str,
    name: &'static str,
    info: fn(&mut NodeInfo),
    bytes: fn(&mut Vec<u8>),
}

const fn of_info(id: &'static str, name: &'static str, info: fn(&mut NodeInfo)) -> Rule {
    Rule { id, name, info, bytes: |_| () }
}

pub(crate) const RULES: &[Rule] = &[
    Rule { id: "N1", name: "bytes that are none", info: |_| (), bytes: |bytes| bytes.truncate(70) },
    of_info("N1", "an address that is repeated", |info| info.addresses = vec![at(1), at(1)]),
    of_info("N1", "nine addresses", |info| info.addresses = (1..=9).map(at).collect()),
    of_info("N2", "of another chain", |info| info.chain_id = ChainId([9; 32])),
    of_info("N3", "from the future", |info| info.timestamp_ms = NOW_MS + 60_000),
    of_info("N4", "a day old", |info| info.timestamp_ms = NOW_MS - 25 * 60 * 60 * 1_000),
    of_info("N5", "versions that are none", |info| info.protocol_versions = ProtocolVersions { min: 2, max: 1 }),
    of_info("N6", "a peer id that is no key", |info| info.peer_id = PeerId([0xff; 32])),
    Rule {
        id: "N7",
        name: "not signed",
        info: |_| (),
        bytes: |bytes| {
            let signature = bytes.len() - Signature::BYTES;
            bytes[signature] ^= 1;
        },
    },
    of_info("N8", "without an address", |info| info.addresses.clear()),
];

fn at(port: u16) -> soma_types::Address {
    format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
}

/// What a node says of itself, with the rule broken, if one is.
fn info_of(number: u8, rule: Option<&Rule>) -> Bytes {
    let key: SigningKey = key(number);
    let mut info = NodeInfo {
        peer_id: PeerId::from(&key),
        addresses: vec![at(9_000 + u16::from(number))],
        chain_id: CHAIN.genesis().chain_id(),
        timestamp_ms: NOW_MS,
        protocol_versions: ProtocolVersions::SUPPORTED,
        capabilities: Capabilities { role: NodeRole::FullNode, archive: false, lowest_commit: 1 },
        access: Access::Public,
    };
    if let Some(rule) = rule {
        (rule.info)(&mut info);
    }
    let chain = info.chain_id;
    let signed: SignedNodeInfo = Signed::sign(info, chain, &key);
    let mut bytes = signed.bytes().to_vec();
    if let Some(rule) = rule {
        (rule.bytes)(&mut bytes);
    }
    bytes.into()
}

/// Who is told of, and who asks.
const TOLD: u8 = 8;
const CALLER: u8 = 9;

/// Whether the node knows a peer after a while.
async fn knows(running: &Running, number: u8) -> bool {
    sleep(Duration::from_secs(1)).await;
    let known = running.system.handle().known_peers().await;
    known.iter().any(|entry| entry.peer == PeerId::from(&key(number)))
}

/// Rules about the time at which an info comes: what a node has believed once it believes after a restart, however long
/// it was down and whatever its clock says then.
const OF_TIME: [&str; 2] = ["N3", "N4"];

/// Whether an info is believed: told by its owner, by another peer, by a caller, and read back after a restart.
fn believed(rule: Option<&Rule>) -> [bool; 4] {
    let genesis = CHAIN.genesis();
    let with = |server: Scripted, store| async move { start(genesis, store, 100, vec![(SERVER, server)]).await };
    let honest = || Scripted::new(genesis, &[], 0);
    let by_owner = in_virtual_time(async {
        let server = Scripted { own_info: info_of(SERVER, rule), ..honest() };
        let running = with(server, store_with(genesis, &[])).await;
        knows(&running, SERVER).await
    });
    let by_another = in_virtual_time(async {
        let known_peers = vec![info_of(TOLD, rule)];
        let server = Scripted { own_info: info_of(SERVER, None), known_peers, ..honest() };
        let running = with(server, store_with(genesis, &[])).await;
        knows(&running, TOLD).await
    });
    let by_caller = in_virtual_time(async {
        let running = with(honest(), store_with(genesis, &[])).await;
        sleep(Duration::from_millis(100)).await;
        let link = running.dial(CALLER).await;
        let chain = Some(genesis.chain_id());
        let peer = running.system.handle().peer_id();
        let call = Call { peer, chain, remote: None, timeout: Duration::from_secs(5) };
        link.api().get_known_peers(call, info_of(CALLER, rule)).await.unwrap();
        knows(&running, CALLER).await
    });
    let after_restart = in_virtual_time(async {
        let store = store_with(genesis, &[]);
        let source = NetworkGroup::of_ip(Ipv4Addr::LOCALHOST.into());
        let info = info_of(TOLD, rule);
        let stored = codec::encode(&(serde_bytes::Bytes::new(&info), source, None::<u64>));
        store.update_peers(PeerList::Infos, &[(PeerId::from(&key(TOLD)), stored.into())], &[]).unwrap();
        let running = with(honest(), store).await;
        knows(&running, TOLD).await
    });
    [by_owner, by_another, by_caller, after_restart]
}

#[test]
fn verdict_on_a_node_info_is_the_same_whoever_tells_it() {
    assert_eq!(believed(None), [true; 4]);
    for rule in RULES {
        let after_restart = OF_TIME.contains(&rule.id);
        assert_eq!(believed(Some(rule)), [false, false, false, after_restart], "{} {}", rule.id, rule.name);
    }
}
