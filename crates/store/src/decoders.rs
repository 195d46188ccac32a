//! The decoders of what lies on disk, for fuzz targets and property tests: each takes any bytes, and says what it made
//! of them.

use crate::{
    Place, Record, StoreError, Watermarks,
    block_files::Stored,
    commits::CommitBytes,
    directory, journal,
    layout::{commit_key, parse_commit_key, parse_epoch_key, parse_round_key},
    rounds, votes,
};
use bytes::Bytes;
use soma_types::{BlockRef, CodecError, CommitIndex, CommitRef, Genesis, codec};
use std::path::Path;

/// Where a value lies that is in a file: what it decodes to, encoded again.
pub fn filed(bytes: &[u8]) -> Option<Bytes> {
    match Stored::decode(Bytes::copy_from_slice(bytes))? {
        Stored::Filed(extent) => Some(Stored::filed(extent)),
        Stored::Here(_) => None,
    }
}

/// Whether a round's value is one, and then whether `block` is in it.
pub fn round(bytes: &[u8], block: &BlockRef) -> Result<bool, StoreError> {
    let record = Record::Round { epoch: block.epoch, round: block.round };
    rounds::find(bytes, block)
        .map(|location| location.is_some())
        .map_err(|reason| record.corrupt(Place::Memory, reason))
}

/// Bytes of the commits of one value, the first of which is commit 1.
pub fn commits(bytes: &[u8]) -> Result<Vec<Bytes>, StoreError> {
    let mut found = CommitBytes::new(1..=CommitIndex::MAX, usize::MAX);
    found.add(&commit_key(1), Bytes::copy_from_slice(bytes));
    let (commits, whole) = found.finish();
    whole.map(|()| commits).map_err(|(index, reason)| Record::Commit(index).corrupt(Place::Memory, reason))
}

/// The blocks that vote for `commit` by one value of the votes.
pub fn voters(bytes: &[u8], commit: CommitRef) -> Result<Vec<BlockRef>, StoreError> {
    votes::voters(bytes, commit).map_err(|reason| Record::Votes(commit.index).corrupt(Place::Memory, reason))
}

/// The watermarks.
pub fn watermarks(bytes: &[u8]) -> Result<Watermarks, CodecError> {
    codec::decode(bytes, "watermarks", 64)
}

/// Keys of the tables: whether `bytes` are one of a commit, of an epoch, of a round.
pub fn keys(bytes: &[u8]) -> [bool; 3] {
    [parse_commit_key(bytes).is_some(), parse_epoch_key(bytes).is_some(), parse_round_key(bytes).is_some()]
}

/// A journal of the database: how many of its first bytes are whole batches, and whether one follows behind a broken one.
pub fn journal(bytes: &[u8]) -> (usize, bool) {
    journal::whole(bytes)
}

/// The file that names the chain of a store.
pub fn identity(bytes: &[u8]) -> Result<Genesis, StoreError> {
    directory::decode_identity(Path::new("store"), bytes)
}

/// The bytes of that file.
pub fn encode_identity(genesis: &Genesis) -> Vec<u8> {
    directory::encode_identity(genesis)
}
