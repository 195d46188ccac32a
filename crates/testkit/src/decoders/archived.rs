//! Objects of an archive. Other programs with access to the storage may have changed them.

use super::{
    decoder::Decoder,
    seeds::{Chain, context},
};
use bytes::Bytes;
use soma_archive::{Segment, Verification, check_segment, next_segment};
use soma_store::{MemStore, Store};

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
