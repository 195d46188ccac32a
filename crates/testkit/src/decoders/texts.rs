//! What people write, and what else comes as text.

use super::decoder::Decoder;
use soma_p2p::SeedPeer;
use soma_types::{
    Address, BlockDigest, ChainId, CommitDigest, PeerId, PublicKey, SubDagDigest, TransactionDigest, limits,
};
use std::{fmt::Display, str::FromStr};

fn address(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let parsed = text.parse::<Address>();
    if let Ok(address) = &parsed {
        assert_eq!(address.as_str(), text, "an address has one text");
        assert!(text.len() <= limits::MAX_ADDRESS_BYTES);
        let (host, _) = address.host_and_port();
        assert!(!host.is_empty(), "{text:?} has no host");
    }
    let seed_peer = text.parse::<SeedPeer>();
    if let Ok(peer) = &seed_peer {
        assert_eq!(peer.to_string().parse().as_ref(), Ok(peer), "a seed peer comes back");
    }
    parsed.is_ok() || seed_peer.is_ok()
}

pub(crate) const ADDRESS: Decoder = Decoder {
    name: "address",
    decode: |bytes| {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        text.parse::<Address>().is_ok() || text.parse::<SeedPeer>().is_ok()
    },
    check: address,
    seeds: |chain| {
        let peer = PeerId::from(&chain.network_key);
        let addresses = [
            "/ip4/127.0.0.1/tcp/9000",
            "/ip6/2001:db8::1/tcp/65535",
            "/ip6/::ffff:1.2.3.4/tcp/1",
            "/dns/node.example/tcp/9000",
            "/dns4/node.example/tcp/9000/tls",
            "/ip4/127.0.0.1/udp/9000/quic-v1",
            "/p2p/12D3KooWLRPJA3RkqMzCkGWDLqRoKqLQ3SmGqBJfrkbrjQDZdYcV",
            "/unix/tmp%2Fsocket",
            "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234",
        ];
        let seed_peer = format!("{peer}@/ip4/127.0.0.1/tcp/9000").into_bytes();
        addresses.iter().map(|text| text.as_bytes().to_vec()).chain([seed_peer]).collect()
    },
    refuses_truncated: false,
};

/// Parses a text as one type; what comes out is written in lower case, and is the same text but for that.
fn hex<T: FromStr + Display>(text: &str, checks: bool) -> bool {
    let Ok(value) = text.parse::<T>() else { return false };
    assert!(!checks || value.to_string() == text.to_ascii_lowercase(), "{text:?} comes back");
    true
}

fn hex_texts(bytes: &[u8], checks: bool) -> bool {
    if let Ok(key) = <[u8; 32]>::try_from(bytes) {
        let key = PublicKey(key);
        assert!(key.verifying_key().is_err() || key.check_encoding().is_ok(), "{key} passes as a point only");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let forms = [
        hex::<PeerId>(text, checks),
        hex::<PublicKey>(text, checks),
        hex::<ChainId>(text, checks),
        hex::<CommitDigest>(text, checks),
        hex::<BlockDigest>(text, checks),
        hex::<TransactionDigest>(text, checks),
        hex::<SubDagDigest>(text, checks),
    ];
    assert!(forms == [false; 7] || forms == [true; 7], "64 hex digits are all of these, and nothing else is any");
    forms[0]
}

pub(crate) const HEX: Decoder = Decoder {
    name: "hex",
    decode: |bytes| hex_texts(bytes, false),
    check: |bytes| hex_texts(bytes, true),
    seeds: |chain| {
        let id = chain.chain_id().to_string();
        let upper = id.to_ascii_uppercase().into_bytes();
        vec![id.into_bytes(), upper, PeerId::from(&chain.network_key).0.to_vec()]
    },
    refuses_truncated: true,
};
