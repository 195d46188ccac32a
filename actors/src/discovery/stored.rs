//! The stored form of the address book: each peer's signed info, with this node's knowledge of it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::Bytes as Raw;
use soma_protocol::discovery::{KnownPeer, StoredPeer};
use soma_types::{NetworkGroup, PeerId, SignedNodeInfo, TimestampMs, codec, limits::MAX_NODE_INFO_BYTES};
use std::collections::BTreeMap;

/// More bytes than a stored peer has.
const MAX_RECORD_BYTES: usize = MAX_NODE_INFO_BYTES + (2 << 10);

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    info: &'a Raw,
    source: NetworkGroup,
    seen_live_ms: Option<TimestampMs>,
}

/// A stored peer with an unchecked info.
pub(crate) struct Record {
    pub(crate) info: Bytes,
    pub(crate) signed_ms: TimestampMs,
    peer: PeerId,
    source: NetworkGroup,
    seen_live_ms: Option<TimestampMs>,
}

/// As it is stored.
pub(crate) fn encode(peer: StoredPeer) -> Bytes {
    let StoredPeer { info, source, seen_live_ms } = peer;
    codec::encode(&Stored { info: Raw::new(&info.bytes.into_bytes()), source, seen_live_ms }).into()
}

/// The readable part of the stored book. An unreadable peer is forgotten, and others advertise it again.
pub(crate) fn decode(stored: Vec<(PeerId, Bytes)>) -> Vec<Record> {
    let record = |(peer, bytes): (PeerId, Bytes)| {
        let decoded = codec::decode::<Stored>(&bytes, "stored peer", MAX_RECORD_BYTES).and_then(|stored| {
            let info = Bytes::copy_from_slice(stored.info);
            let signed_ms = SignedNodeInfo::decode_bounded(info.clone())?.timestamp_ms;
            let Stored { source, seen_live_ms, .. } = stored;
            Ok(Record { info, signed_ms, peer, source, seen_live_ms })
        });
        if let Err(error) = &decoded {
            tracing::debug!(peer = %peer.short(), %error, "a peer in the stored address book is unreadable: forgotten");
        }
        decoded.ok()
    };
    stored.into_iter().filter_map(record).collect()
}

/// Joins the stored knowledge with the valid infos.
pub(crate) fn join(passed: Vec<KnownPeer>, records: Vec<Record>) -> Vec<StoredPeer> {
    let mut records: BTreeMap<_, _> = records.into_iter().map(|record| (record.peer, record)).collect();
    let join = |info: KnownPeer| {
        let Record { source, seen_live_ms, .. } = records.remove(&info.peer)?;
        Some(StoredPeer { info, source, seen_live_ms })
    };
    passed.into_iter().filter_map(join).collect()
}
