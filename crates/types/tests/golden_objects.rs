//! The wire format of objects and snapshots, pinned as in `golden.rs`.

use soma_types::{ChainId, CommitDigest, CommitRef, ObjectId, ObjectTree, SnapshotManifest};

const MIB: usize = 1 << 20;

/// Byte `i` is `i mod 251`.
fn long_object() -> Vec<u8> {
    (0..3 * MIB + 5).map(|at| (at % 251) as u8).collect()
}

#[test]
fn ids_of_objects_are_unchanged() {
    assert_eq!(
        ObjectId::of(&[b"soma"]).to_string(),
        "8148a03065a3c4b7d30803b0d25a4efb943cde2b3ab9ff528b978596300c6be1"
    );
    assert_eq!(ObjectId::of(&[b""]).to_string(), "6960a825c3e1f7a6ca67722e3d4cd43e2c716846bf906f63e661ad2bb0b8f1ec");
    assert_eq!(
        ObjectId::of(&[&long_object()]).to_string(),
        "fb54a449811bb7a46d3fd1c59e2ca55e8b74d6ac3edf7d04a5f314c46b9cbb21"
    );
}

#[test]
fn tree_of_a_long_object_is_unchanged() {
    let object = long_object();
    let read = |range: std::ops::Range<u64>| {
        Ok::<_, std::convert::Infallible>(object[range.start as usize..range.end as usize].to_vec().into())
    };
    let tree = ObjectTree::of(object.len() as u64, read).unwrap();
    let pieces: Vec<_> = tree.pieces().iter().map(hex::encode).collect();
    assert_eq!(pieces, GOLDEN_PIECES);
    assert_eq!(tree.id(), ObjectId::of(&[&object]));
}

#[test]
fn snapshot_manifest_is_its_fields_in_order() {
    let manifest = SnapshotManifest {
        chain_id: ChainId([0xc1; 32]),
        commit: CommitRef { index: 500, digest: CommitDigest([8; 32]) },
        format: 1,
        bytes: MIB as u64 + 5,
        chunk_bytes: MIB as u64,
        chunks: vec![ObjectId([0xa0; 32]), ObjectId([0xa1; 32])],
    };
    let parts = [
        "c1".repeat(32),
        "f4010000".to_owned(),
        "08".repeat(32),
        "01000000".to_owned(),
        "0500100000000000".to_owned(),
        "0000100000000000".to_owned(),
        "0200000000000000".to_owned(),
        "a0".repeat(32),
        "a1".repeat(32),
    ];
    assert_eq!(hex::encode(manifest.encode()), parts.concat());
    assert_eq!(SnapshotManifest::decode(&manifest.encode()), Ok(manifest.clone()));
    assert_eq!(manifest.id().to_string(), "3f893c0de5cebfff9f025a55a09ea8eaf19f78daa834f803037a942ebc17506a");
}

const GOLDEN_PIECES: [&str; 4] = [
    "faae400d8086730e9be7eb2eb5fda8ee3d456e4d75a1f86f446c397a4cb17643",
    "86ae5d8cba0ce2eb25f4a75e82c9b4a6b555fcd7457993ddb1fbaead404f414c",
    "0fc8238d7674537916ce38966430629a989036cf76f94dfcdb86d6aed5e4ed2c",
    "7b36875b91d81d7e62c34fbc58211aa9ac7c70fb6842552290c86cd329b99637",
];
