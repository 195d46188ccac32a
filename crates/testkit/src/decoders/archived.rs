//! Objects of an archive. Other programs with access to the storage may have changed them.

use super::{
    decoder::Decoder,
    seeds::{Chain, context},
};
use bytes::Bytes;
use soma_archive::{Segment, Verification, check_segment, next_segment};
use soma_store::{MemStore, Store};
use soma_types::{SegmentName, SegmentRoute};

fn decode(bytes: &[u8]) -> Option<Segment> {
    Segment::decode(Bytes::copy_from_slice(bytes)).ok()
}

pub(crate) const SEGMENT: Decoder = Decoder {
    name: "segment",
    decode: |bytes| decode(bytes).is_some(),
    check: |bytes| {
        let Some(segment) = decode(bytes) else { return false };
        assert_eq!(segment.encode().as_deref(), Ok(bytes), "a segment has one encoding");
        assert!(segment.first >= 1 && segment.first <= segment.last());
        if let Ok(checked) = check_segment(context(), &Verification::Certified, segment) {
            drop(checked);
        }
        true
    },
    seeds: |chain: &Chain| {
        let store = MemStore::new(&chain.genesis);
        // The store takes what the builder made, and has the first commit then.
        let segment = store.apply(&chain.commits).and_then(|_| next_segment(&store, 1, true));
        segment
            .ok()
            .flatten()
            .and_then(|segment| segment.encode().ok())
            .map(|bytes| bytes.to_vec())
            .into_iter()
            .collect()
    },
    // A cut object fails the checksum.
    refuses_truncated: true,
};

fn parse(bytes: &[u8]) -> Option<SegmentName> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

pub(crate) const SEGMENT_NAME: Decoder = Decoder {
    name: "segment_name",
    decode: |bytes| parse(bytes).is_some(),
    check: |bytes| {
        let Some(name) = parse(bytes) else { return false };
        assert_eq!(name.to_string().as_bytes(), bytes, "a name has one text");
        let route = SegmentRoute::new([name], name.first);
        assert_eq!(route.names, [name], "a listed segment leads on from its first commit");
        true
    },
    seeds: |chain: &Chain| {
        let name = |(epoch, first, last)| SegmentName { chain: chain.genesis.chain_id(), epoch, first, last };
        let names = [(0, 1, 1), (7, 12_001, 13_000), (u64::MAX, u32::MAX, u32::MAX)];
        names.map(|of| name(of).to_string().into_bytes()).to_vec()
    },
    refuses_truncated: true,
};
