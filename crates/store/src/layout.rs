//! How the chain lies in tables of bytes: the tables, their keys and the order of keys.
//!
//! Numbers in keys are big-endian, so that keys sort as the numbers do. Values are the bytes as received (commits,
//! blocks, node infos) or the workspace's canonical codec (all else).
//!
//! | table      | key                                                        | value                     |
//! |------------|------------------------------------------------------------|---------------------------|
//! | blocks     | epoch u64, round u32, author u32, digest (48 bytes)        | block with its signature  |
//! | votes      | commit index u32, commit digest, block key (84 bytes)      | nothing                   |
//! | committees | epoch u64                                                  | committee                 |
//! | epochs     | epoch u64                                                  | index of its last commit  |
//! | commits    | index u32                                                  | commit                    |
//! | peers      | peer id                                                    | signed node info          |
//! | meta       | name                                                       | chain id, watermarks      |
//!
//! A vote's key begins with all of the commit that it is for: the votes for one commit are one short run of keys,
//! and votes for another digest at the same index cost a reader nothing.

use soma_types::{AuthorityIndex, BlockDigest, BlockRef, CommitIndex, CommitRef, Epoch, Round};

/// One sorted map of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// Blocks by reference.
    Blocks,
    /// Votes by commit and block.
    Votes,
    /// Committees by epoch.
    Committees,
    /// Last commits by epoch.
    Epochs,
    /// Commits by index.
    Commits,
    /// The address book.
    Peers,
    /// Chain id and watermarks.
    Meta,
}

impl Table {
    /// All tables.
    pub(crate) const ALL: [Self; 7] =
        [Self::Blocks, Self::Votes, Self::Committees, Self::Epochs, Self::Commits, Self::Peers, Self::Meta];

    /// Its name on disk. Part of the format.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::Votes => "votes",
            Self::Committees => "committees",
            Self::Epochs => "epochs",
            Self::Commits => "commits",
            Self::Peers => "peers",
            Self::Meta => "meta",
        }
    }
}

/// Key in [`Table::Meta`] of the chain id.
pub(crate) const META_CHAIN_ID: &[u8] = b"chain_id";
/// Key in [`Table::Meta`] of the watermarks.
pub(crate) const META_WATERMARKS: &[u8] = b"watermarks";

/// Bytes of the key of a block.
const BLOCK_KEY_BYTES: usize = 48;
/// Bytes of the key of a vote before the block's.
const VOTE_PREFIX_BYTES: usize = 36;

/// Key of a commit.
pub(crate) fn commit_key(index: CommitIndex) -> [u8; 4] {
    index.to_be_bytes()
}

/// Key of what belongs to an epoch.
pub(crate) fn epoch_key(epoch: Epoch) -> [u8; 8] {
    epoch.to_be_bytes()
}

/// The epoch in its key.
pub(crate) fn parse_epoch_key(key: &[u8]) -> Option<Epoch> {
    key.try_into().ok().map(Epoch::from_be_bytes)
}

/// Key of a block: sorted as [`BlockRef`] is.
pub(crate) fn block_key(block: &BlockRef) -> [u8; BLOCK_KEY_BYTES] {
    let mut key = [0; BLOCK_KEY_BYTES];
    key[..8].copy_from_slice(&block.epoch.to_be_bytes());
    key[8..12].copy_from_slice(&block.round.to_be_bytes());
    key[12..16].copy_from_slice(&block.author.to_be_bytes());
    key[16..].copy_from_slice(block.digest.as_bytes());
    key
}

/// What the keys of all votes for `commit` begin with.
pub(crate) fn vote_prefix(commit: CommitRef) -> [u8; VOTE_PREFIX_BYTES] {
    let mut prefix = [0; VOTE_PREFIX_BYTES];
    prefix[..4].copy_from_slice(&commit.index.to_be_bytes());
    prefix[4..].copy_from_slice(commit.digest.as_bytes());
    prefix
}

/// Key of the vote of `block` for `commit`.
pub(crate) fn vote_key(commit: CommitRef, block: &BlockRef) -> Vec<u8> {
    [&vote_prefix(commit)[..], &block_key(block)[..]].concat()
}

/// The block in the key of a vote.
pub(crate) fn parse_vote_key(key: &[u8]) -> Option<BlockRef> {
    let block = key.get(VOTE_PREFIX_BYTES..)?;
    let (epoch, block) = block.split_first_chunk()?;
    let (round, block) = block.split_first_chunk()?;
    let (author, digest) = block.split_first_chunk()?;
    Some(BlockRef {
        epoch: Epoch::from_be_bytes(*epoch),
        round: Round::from_be_bytes(*round),
        author: AuthorityIndex::from_be_bytes(*author),
        digest: BlockDigest(digest.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_types::CommitDigest;

    #[test]
    fn keys_sort_as_the_refs_do_and_read_back() {
        let block = |epoch, round, author, digest| BlockRef { epoch, round, author, digest: BlockDigest([digest; 32]) };
        let sorted = [
            block(0, 1, 0, 9),
            block(0, 1, 1, 0),
            block(0, 256, 0, 0),
            block(1, 1, 0, 0),
            block(1, 1, 0, 1),
            block(256, 0, 0, 0),
        ];
        assert!(sorted.is_sorted());
        assert!(sorted.map(|block| block_key(&block)).is_sorted());
        let commit = CommitRef { index: 7, digest: CommitDigest([3; 32]) };
        for block in sorted {
            let key = vote_key(commit, &block);
            assert!(key.starts_with(&vote_prefix(commit)));
            assert_eq!(parse_vote_key(&key), Some(block));
            assert_eq!(parse_vote_key(&key[..83]), None);
        }
        assert_eq!(parse_epoch_key(&epoch_key(5)), Some(5));
        assert_eq!(parse_epoch_key(&[0; 7]), None);
    }
}
