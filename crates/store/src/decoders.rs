//! The decoders of stored bytes, for fuzz targets and property tests. Each accepts any bytes and returns the decoded
//! value.

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

/// Decodes the position of a value in a file, and encodes it again.
pub fn filed(bytes: &[u8]) -> Option<Bytes> {
    match Stored::decode(Bytes::copy_from_slice(bytes))? {
        Stored::Filed(extent) => Some(Stored::filed(extent)),
        Stored::Here(_) => None,
    }
}

/// Whether the value of a round contains `block`.
///
/// # Errors
/// Fails if the bytes are not the value of a round.
pub fn round(bytes: &[u8], block: &BlockRef) -> Result<bool, StoreError> {
    let record = Record::Round { epoch: block.epoch, round: block.round };
    rounds::find(bytes, block)
        .map(|location| location.is_some())
        .map_err(|reason| record.corrupt(Place::Memory, reason))
}

/// The commits of one value, of which the first is commit 1.
///
/// # Errors
/// Fails if the bytes are not such a value.
pub fn commits(bytes: &[u8]) -> Result<Vec<Bytes>, StoreError> {
    let mut found = CommitBytes::new(1..=CommitIndex::MAX, usize::MAX);
    found.add(&commit_key(1), Bytes::copy_from_slice(bytes));
    let (commits, whole) = found.finish();
    whole.map(|()| commits).map_err(|(index, reason)| Record::Commit(index).corrupt(Place::Memory, reason))
}

/// The blocks that vote for `commit` in one value of the votes.
///
/// # Errors
/// Fails if the bytes are not such a value.
pub fn voters(bytes: &[u8], commit: CommitRef) -> Result<Vec<BlockRef>, StoreError> {
    votes::voters(bytes, commit).map_err(|reason| Record::Votes(commit.index).corrupt(Place::Memory, reason))
}

/// Decodes the watermarks.
///
/// # Errors
/// Fails if the bytes are not watermarks.
pub fn watermarks(bytes: &[u8]) -> Result<Watermarks, CodecError> {
    codec::decode(bytes, "watermarks", 64)
}

/// Whether `bytes` are a key of a commit, of an epoch, and of a round.
pub fn keys(bytes: &[u8]) -> [bool; 3] {
    [parse_commit_key(bytes).is_some(), parse_epoch_key(bytes).is_some(), parse_round_key(bytes).is_some()]
}

/// For a journal of the database: the length of its leading whole batches, and whether a whole batch follows a broken
/// one.
pub fn journal(bytes: &[u8]) -> (usize, bool) {
    journal::whole(bytes)
}

/// Decodes the file that identifies a store's chain.
///
/// # Errors
/// Fails if the bytes are not such a file of this version.
pub fn identity(bytes: &[u8]) -> Result<(u32, Genesis), StoreError> {
    directory::decode_identity(Path::new("store"), bytes).map(|identity| (identity.format, identity.genesis))
}

/// Encodes that file.
pub fn encode_identity(genesis: &Genesis) -> Vec<u8> {
    directory::encode_identity(genesis)
}
