//! Objects from peers, and the manifests of snapshots.

use super::decoder::Decoder;
use bytes::Bytes;
use soma_network::wire::{
    ObjectProgress,
    codec::{decode, encode},
    proto::{FetchObjectsResponse, GetSnapshotsResponse},
};
use soma_types::{
    ChainId, ObjectId, ObjectPart, ObjectTree, SnapshotInfo, SnapshotManifest,
    limits::{MAX_OBJECT_BYTES, MAX_SNAPSHOT_CHUNKS, OBJECT_PIECE_BYTES},
};
use soma_verify::ObjectAssembly;

/// Objects that the answer is to.
const REQUESTED: u32 = 4;

fn content(number: u32) -> Vec<u8> {
    vec![number as u8; 10 * number as usize]
}

fn requested() -> Vec<ObjectId> {
    (0..REQUESTED).map(|number| ObjectId::of(&[&content(number)])).collect()
}

/// The parts of one message of an answer.
fn parts(bytes: &[u8]) -> Option<Vec<ObjectPart>> {
    let message = decode::<FetchObjectsResponse>(Bytes::copy_from_slice(bytes)).ok()?;
    message.parts.into_iter().map(|part| ObjectPart::try_from(part).ok()).collect()
}

pub(crate) const OBJECT_PARTS: Decoder = Decoder {
    name: "object_parts",
    decode: |bytes| parts(bytes).is_some(),
    check: |bytes| {
        if let Ok(message) = decode::<GetSnapshotsResponse>(Bytes::copy_from_slice(bytes)) {
            let _ = message.snapshots.into_iter().map(SnapshotInfo::try_from).collect::<Vec<_>>();
        }
        let Some(parts) = parts(bytes) else { return false };
        let again = FetchObjectsResponse { parts: parts.iter().cloned().map(Into::into).collect() };
        assert_eq!(self::parts(&encode(&again)), Some(parts.clone()), "what was received can be sent");
        for part in &parts {
            if let ObjectPart::Tree(tree) = part {
                assert!((OBJECT_PIECE_BYTES as u64 + 1..=MAX_OBJECT_BYTES as u64).contains(&tree.bytes()));
                let _ = tree.id();
            }
        }
        let is_right = ObjectProgress::new(REQUESTED as usize).take(&parts).is_ok();
        let ids = requested();
        match ObjectAssembly::new(ids.clone()).take(parts) {
            Ok(objects) => {
                for object in objects {
                    let id = object.bytes.map(|bytes| ObjectId::of(&[&bytes]));
                    assert!(id.is_none_or(|id| id == ids[object.position]), "an object is what its id says");
                }
            }
            Err((objects, failure)) => {
                assert!(failure.fault.bans() && objects.len() <= ids.len());
            }
        }
        is_right
    },
    seeds: |_| {
        let whole = (0..REQUESTED).map(|number| ObjectPart::Whole(content(number).into())).collect();
        let missing = vec![ObjectPart::Missing(REQUESTED)];
        let tree = ObjectTree::new(OBJECT_PIECE_BYTES as u64 + 1, vec![[7; 32]; 2]);
        let tree = tree.map(ObjectPart::Tree).into_iter().collect();
        let message =
            |parts: Vec<ObjectPart>| FetchObjectsResponse { parts: parts.into_iter().map(Into::into).collect() };
        [whole, missing, tree].map(|parts| encode(&message(parts))).into()
    },
    refuses_truncated: false,
};

pub(crate) const SNAPSHOT_MANIFEST: Decoder = Decoder {
    name: "snapshot_manifest",
    decode: |bytes| SnapshotManifest::decode(bytes).is_ok(),
    check: |bytes| {
        let Ok(manifest) = SnapshotManifest::decode(bytes) else { return false };
        assert_eq!(manifest.encode(), bytes, "a manifest has one encoding");
        let chunks = manifest.chunks.len();
        assert!(chunks <= MAX_SNAPSHOT_CHUNKS);
        let covered = (0..chunks).map(|chunk| manifest.range(chunk)).map(|range| range.end - range.start).sum::<u64>();
        assert_eq!(covered, manifest.bytes, "the chunks are the state");
        true
    },
    seeds: |chain| {
        let commit = chain.genesis.commit().reference();
        let chain_id: ChainId = chain.genesis.chain_id();
        let manifest = |bytes: u64, chunks: Vec<ObjectId>| {
            SnapshotManifest { chain_id, commit, format: 1, bytes, chunk_bytes: 10, chunks }.encode()
        };
        vec![manifest(0, Vec::new()), manifest(35, requested())]
    },
    refuses_truncated: true,
};
