//! The format of docs/archive-format.md: a segment of an earlier program stays readable, and is written alike.
//!
//! `BLESS=1 cargo test -p soma-archive --test golden` writes it anew, after a change of the format's version.

use bytes::Bytes;
use soma_archive::{Position, Segment, Verification, check_segment, next_segment};
use soma_store::{MemStore, Store};
use soma_testkit::{ChainBuilder, ChainSpec};
use soma_types::SegmentDigest;
use soma_verify::CertificateVerifier;
use std::{fs, path::Path, sync::Arc};

/// The file, under the end of its name in an archive.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/0000000000/0000000001-0000000003");

fn chain() -> ChainBuilder {
    let spec = ChainSpec { commits_per_epoch: 3, transactions_per_block: 0, ..ChainSpec::default() };
    ChainBuilder::new(spec).unwrap()
}

#[test]
fn golden_segment_is_written_and_read_as_documented() {
    let mut builder = chain();
    let store = MemStore::new(builder.genesis());
    store.apply(&builder.build(3)).unwrap();
    let segment = next_segment(&store, 1, false).unwrap().unwrap();
    let written = segment.encode().unwrap();
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(Path::new(FILE).parent().unwrap()).unwrap();
        fs::write(FILE, &written).unwrap();
    }
    let golden = Bytes::from(fs::read(FILE).unwrap());
    assert!(written == golden, "the bytes differ from {FILE}");
    assert_eq!(Segment::decode(golden.clone()).unwrap(), segment);
    assert!(segment.name().to_string().ends_with("/0000000000/0000000001-0000000003"));

    // Byte by byte, as the document has it.
    assert_eq!(&golden[..8], b"soma-arc");
    assert_eq!(golden[8..12], 1u32.to_le_bytes());
    assert_eq!(golden[12..44], builder.chain_id().0);
    assert_eq!(golden[44..52], 0u64.to_le_bytes());
    assert_eq!(golden[52..56], 1u32.to_le_bytes());
    let counts = [segment.commits.len(), segment.certifiers.len(), segment.blocks.len()];
    let mut offset = 56;
    for count in counts {
        assert_eq!(golden[offset..offset + 4], (count as u32).to_le_bytes());
        offset += 4;
    }
    for item in segment.commits.iter().chain(&segment.certifiers).chain(&segment.blocks) {
        assert_eq!(golden[offset..offset + 4], (item.len() as u32).to_le_bytes());
        assert_eq!(golden[offset + 4..offset + 4 + item.len()], item[..]);
        offset += 4 + item.len();
    }
    assert_eq!(golden[offset..], SegmentDigest::of(&[&golden[..offset]]).0);
}

#[test]
fn golden_segment_is_valid() {
    let builder = chain();
    let segment = Segment::decode(fs::read(FILE).unwrap().into()).unwrap();
    let mut position = Position::genesis(builder.genesis()).unwrap();
    let full = Verification::Full(Arc::new(CertificateVerifier));
    let checked = check_segment(position.context(), &full, segment).unwrap();
    assert_eq!(checked.fault, None);
    assert_eq!(position.advance(checked).unwrap().len(), 3);
    assert_eq!(position.epoch(), 1);
}
