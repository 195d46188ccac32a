//! What the store keeps in its own forms, and the journal of the database, which it checks itself.

use super::{decoder::Decoder, seeds::Chain};
use soma_store::{FjallStore, Store, decoders};
use soma_types::{BlockDigest, BlockRef, CommitDigest, CommitRef, codec};
use std::fs;

/// Bytes of one entry of a round, and of a digest.
const ENTRY_BYTES: usize = 52;
const DIGEST_BYTES: usize = 32;

/// The block that the first entry of a round names, if there is one.
fn first_block(bytes: &[u8]) -> BlockRef {
    let author = bytes.first_chunk().map_or(0, |author| u32::from_be_bytes(*author));
    let digest = bytes.get(4..).and_then(|rest| rest.first_chunk().copied()).unwrap_or_default();
    BlockRef { epoch: 0, round: 1, author, digest: BlockDigest(digest) }
}

/// The commit for which the first group of votes is.
fn first_commit(bytes: &[u8]) -> CommitRef {
    let index = bytes.first_chunk().map_or(0, |index| u32::from_be_bytes(*index));
    let digest = bytes.get(4..).and_then(|rest| rest.first_chunk::<DIGEST_BYTES>().copied()).unwrap_or_default();
    CommitRef { index, digest: CommitDigest(digest) }
}

fn stored_values(bytes: &[u8]) -> bool {
    let filed = decoders::filed(bytes);
    if let Some(filed) = &filed {
        assert_eq!(filed, bytes, "a place in a file has one encoding");
    }
    let round = decoders::round(bytes, &first_block(bytes));
    assert_eq!(round.is_ok(), bytes.len().is_multiple_of(ENTRY_BYTES), "a round is a list of entries");
    let voters = decoders::voters(bytes, first_commit(bytes));
    if let Ok(voters) = &voters {
        assert!(voters.len() * 36 <= bytes.len(), "each voter has its bytes");
    }
    let commits = decoders::commits(bytes);
    if let Ok(commits) = &commits {
        let encoded = commits.iter().flat_map(|commit| [&(commit.len() as u32).to_be_bytes()[..], commit].concat());
        assert!(encoded.eq(bytes.iter().copied()), "commits have one encoding");
    }
    let watermarks = decoders::watermarks(bytes);
    if let Ok(watermarks) = &watermarks {
        assert_eq!(codec::encode(watermarks), bytes, "watermarks have one encoding");
    }
    let [_, _, is_round] = decoders::keys(bytes);
    assert_eq!(is_round, bytes.len() == 12, "keys are told by their length");
    filed.is_some() || round.is_ok() || voters.is_ok() || commits.is_ok() || watermarks.is_ok()
}

/// The files of a store of the first commits of the chain that end with `extension`.
fn files(chain: &Chain, extension: &str) -> Vec<Vec<u8>> {
    let written = || -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("store");
        let store = FjallStore::open(&path, &chain.genesis)?;
        for certified in &chain.commits[..2] {
            store.apply(std::slice::from_ref(certified))?;
        }
        drop(store);
        // Opening it again cuts the journal to its length.
        drop(FjallStore::open(&path, &chain.genesis)?);
        let (mut open, mut files) = (vec![path], Vec::new());
        while let Some(next) = open.pop() {
            if next.is_dir() {
                for entry in fs::read_dir(&next)? {
                    open.push(entry?.path());
                }
            } else if next.extension().is_some_and(|found| found == extension) {
                files.push(fs::read(&next)?);
            }
        }
        Ok(files)
    };
    // Seeds are made on a working disk, or not at all.
    written().expect("a store can be written in the directory for temporary files")
}

pub(crate) const STORED_VALUE: Decoder = Decoder {
    name: "stored_value",
    decode: |bytes| {
        let filed = decoders::filed(bytes).is_some();
        let round = decoders::round(bytes, &first_block(bytes)).is_ok();
        let voters = decoders::voters(bytes, first_commit(bytes)).is_ok();
        filed || round || voters || decoders::commits(bytes).is_ok() || decoders::watermarks(bytes).is_ok()
    },
    check: stored_values,
    seeds: |chain| {
        let certified = &chain.commits[0];
        let commit = certified.commit.reference();
        // As `rounds`, `votes` and `commits` of the store write them.
        let (mut round, mut votes) = (Vec::new(), commit.index.to_be_bytes().to_vec());
        votes.extend(commit.digest.0);
        votes.extend(0u64.to_be_bytes());
        votes.extend(2u32.to_be_bytes());
        votes.extend((certified.certifiers.len() as u32).to_be_bytes());
        for (offset, block) in (0u32..).step_by(1_000).zip(&certified.certifiers) {
            let name = [&block.author.to_be_bytes()[..], block.reference().digest.as_bytes()].concat();
            votes.extend(&name);
            round.extend(name);
            round.extend([1, 0, offset, 1_000].iter().flat_map(|number| number.to_be_bytes()));
        }
        let watermarks = soma_store::Watermarks { highest_synced: commit, lowest_available: 1 };
        let numbers = [1u32, 0, 1_000].iter().flat_map(|number| number.to_be_bytes()).collect();
        let filed = [vec![1], numbers, vec![7; 8]].concat();
        let commits = chain.commits.iter().take(3).map(|certified| certified.commit.bytes());
        let commits = commits.flat_map(|bytes| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()).collect();
        vec![round, votes, commits, codec::encode(&watermarks), filed]
    },
    // A part of a list is a list.
    refuses_truncated: false,
};

pub(crate) const JOURNAL: Decoder = Decoder {
    name: "journal",
    decode: |bytes| decoders::journal(bytes).0 > 0,
    check: |bytes| {
        let (whole, _) = decoders::journal(bytes);
        assert!(whole <= bytes.len());
        assert_eq!(decoders::journal(&bytes[..whole]), (whole, false), "what is whole stays so by itself");
        whole > 0
    },
    seeds: |chain| files(chain, "jnl").into_iter().map(|journal| cut_zeros(&journal)).collect(),
    // What is whole before the cut is still there.
    refuses_truncated: false,
};

/// Journals are made large and written from their beginning.
fn cut_zeros(journal: &[u8]) -> Vec<u8> {
    let end = journal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    journal[..end].to_vec()
}

pub(crate) const IDENTITY: Decoder = Decoder {
    name: "identity",
    decode: |bytes| decoders::identity(bytes).is_ok(),
    check: |bytes| {
        let Ok((format, genesis)) = decoders::identity(bytes) else { return false };
        let mut encoded = decoders::encode_identity(&genesis);
        // Behind the eight bytes of magic. Opening writes the latest format.
        encoded[8..12].copy_from_slice(&format.to_le_bytes());
        assert_eq!(encoded, bytes, "an identity has one encoding");
        true
    },
    seeds: |chain| vec![decoders::encode_identity(&chain.genesis)],
    refuses_truncated: true,
};
