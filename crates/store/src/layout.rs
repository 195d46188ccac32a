//! The layout of the chain in tables of bytes: the tables, their keys and the order of keys.
//!
//! Numbers in keys are big-endian, so that keys sort like their numbers. Values are received bytes (blocks, node
//! infos), lists with big-endian numbers (commits, rounds, votes), or the workspace's canonical codec (all else).
//!
//! | table      | key                                    | value                                           |
//! |------------|----------------------------------------|-------------------------------------------------|
//! | segments   | first commit of its batch u32,         | consecutive blocks with their signatures:       |
//! |            | number in the batch u32                | [`segments`](crate::segments)                   |
//! | rounds     | epoch u64, round u32                   | author, digest and location of each block:      |
//! |            |                                        | [`rounds`](crate::rounds)                       |
//! | votes      | commit index u32 rounded down,         | voters' authors and digests by commit, epoch    |
//! |            | first commit of the voters' batch u32  | and round: [`votes`](crate::votes)              |
//! | committees | epoch u64                              | committee                                       |
//! | epochs     | epoch u64                              | index of its last commit                        |
//! | commits    | index u32 of the first                 | consecutive commits of one batch:               |
//! |            |                                        | [`commits`](crate::commits)                     |
//! | peers      | peer id                                | signed node info                                |
//! | late       | first commit of a batch u32,           | nothing: the later batch commits blocks that    |
//! |            | first commit of a later batch u32      | the first one holds                             |
//! | proofs     | epoch u64                              | last commit of a pruned epoch, with its votes   |
//! | standings  | peer id                                | peer's history, in the encoding of PeerHeights  |
//! | meta       | name                                   | chain id, watermarks, progress of pruning, the  |
//! |            |                                        | last prepended batch                            |
//!
//! Segments, votes and commits of a large batch are in [files](crate::block_files), and these tables only have their
//! positions. Each value of these tables begins with a byte that tells the two cases apart.
//!
//! Data that grows with the chain is written in the order of its keys, or nearly so. The database then moves it to its
//! last level without rewriting it. Values are few and large, because an entry costs far more than its bytes
//! (docs/adr/0007).

use crate::PeerList;
use soma_types::{CommitIndex, Epoch, Round};

/// One sorted map of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// Blocks in the order of the chain, many in a value.
    Segments,
    /// Locations of blocks, by round.
    Rounds,
    /// Votes by commit.
    Votes,
    /// Committees by epoch.
    Committees,
    /// Last commits by epoch.
    Epochs,
    /// Commits by index.
    Commits,
    /// The address book.
    Peers,
    /// Standings of peers.
    Standings,
    /// Chain id, watermarks and progress of pruning.
    Meta,
    /// Batches with blocks that later batches commit.
    Late,
    /// Proofs of pruned epochs.
    Proofs,
}

#[cfg_attr(not(feature = "fjall"), allow(dead_code, reason = "only the store on disk has files and names of tables"))]
impl Table {
    /// All tables.
    pub(crate) const ALL: [Self; 11] = [
        Self::Segments,
        Self::Rounds,
        Self::Votes,
        Self::Committees,
        Self::Epochs,
        Self::Commits,
        Self::Peers,
        Self::Standings,
        Self::Meta,
        Self::Late,
        Self::Proofs,
    ];

    /// The table of a list of peers.
    pub(crate) fn of(list: PeerList) -> Self {
        match list {
            PeerList::Infos => Self::Peers,
            PeerList::Standings => Self::Standings,
        }
    }

    /// Whether the values of large batches are in [files](crate::block_files).
    pub(crate) fn is_filed(self) -> bool {
        matches!(self, Self::Segments | Self::Votes | Self::Commits)
    }

    /// Name on disk. Part of the format.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Segments => "segments",
            Self::Rounds => "rounds",
            Self::Votes => "votes",
            Self::Committees => "committees",
            Self::Epochs => "epochs",
            Self::Commits => "commits",
            Self::Peers => "peers",
            Self::Standings => "standings",
            Self::Meta => "meta",
            Self::Late => "late",
            Self::Proofs => "proofs",
        }
    }
}

/// Key in [`Table::Meta`] of the chain id.
pub(crate) const META_CHAIN_ID: &[u8] = b"chain_id";
/// Key in [`Table::Meta`] of the watermarks.
pub(crate) const META_WATERMARKS: &[u8] = b"watermarks";
/// Key in [`Table::Meta`] of the [progress](crate::progress::Progress) of pruning.
pub(crate) const META_PRUNED: &[u8] = b"pruned";
/// Key in [`Table::Meta`] of what is known of [prepended](crate::prepend::Prepended) batches. The check of the journals
/// recognizes such a batch by this key.
pub(crate) const META_PREPENDED: &[u8] = b"prepended";
/// Key in [`Table::Meta`] of the first batch from which on [`Table::Late`] is complete.
pub(crate) const META_LATE_FROM: &[u8] = b"late_from";

/// Commits that share a value: those between two multiples of this number, if they came in one batch. More per value
/// hardly cost less, and reading one commit reads the whole value.
pub(crate) const COMMITS_PER_VALUE: CommitIndex = 16;

/// The lowest index that may share a value with `index`.
pub(crate) fn first_beside(index: CommitIndex) -> CommitIndex {
    index - index % COMMITS_PER_VALUE
}

/// Key of a commit. No other table has keys of four bytes, by which the check of the journals recognizes commits.
pub(crate) fn commit_key(index: CommitIndex) -> [u8; 4] {
    index.to_be_bytes()
}

/// Parses the key of a commit.
pub(crate) fn parse_commit_key(key: &[u8]) -> Option<CommitIndex> {
    key.try_into().ok().map(CommitIndex::from_be_bytes)
}

/// Key of an epoch's data.
pub(crate) fn epoch_key(epoch: Epoch) -> [u8; 8] {
    epoch.to_be_bytes()
}

/// Parses the key of an epoch.
pub(crate) fn parse_epoch_key(key: &[u8]) -> Option<Epoch> {
    key.try_into().ok().map(Epoch::from_be_bytes)
}

/// Key of the blocks of a round.
pub(crate) fn round_key(epoch: Epoch, round: Round) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&epoch.to_be_bytes());
    key[8..].copy_from_slice(&round.to_be_bytes());
    key
}

/// Parses the key of a round.
pub(crate) fn parse_round_key(key: &[u8]) -> Option<(Epoch, Round)> {
    let (epoch, round) = key.split_first_chunk()?;
    Some((Epoch::from_be_bytes(*epoch), Round::from_be_bytes(round.try_into().ok()?)))
}

/// A key of two numbers.
pub(crate) fn pair_key(first: u32, second: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&first.to_be_bytes());
    key[4..].copy_from_slice(&second.to_be_bytes());
    key
}

/// Parses a key of two numbers.
pub(crate) fn parse_pair_key(key: &[u8]) -> Option<(u32, u32)> {
    let (first, second) = key.split_first_chunk()?;
    Some((u32::from_be_bytes(*first), u32::from_be_bytes(second.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_like_their_numbers_and_read_back() {
        let rounds = [(0, 1), (0, 255), (0, 256), (1, 0), (1, 7), (256, 0)];
        assert!(rounds.is_sorted());
        let keys = rounds.map(|(epoch, round)| round_key(epoch, round));
        assert!(keys.is_sorted());
        assert_eq!(keys.map(|key| parse_round_key(&key)), rounds.map(Some));
        assert_eq!(parse_round_key(&[0; 11]), None);
        let pairs = [(0, 1), (0, 256), (1, 0), (256, 0)];
        let keys = pairs.map(|(first, second)| pair_key(first, second));
        assert!(keys.is_sorted());
        assert_eq!(keys.map(|key| parse_pair_key(&key)), pairs.map(Some));
        assert_eq!(parse_pair_key(&[0; 9]), None);
        assert_eq!(parse_epoch_key(&epoch_key(5)), Some(5));
        assert_eq!(parse_epoch_key(&[0; 7]), None);
        assert_eq!(parse_commit_key(&commit_key(9)), Some(9));
        assert_eq!(parse_commit_key(&[0; 5]), None);
    }
}
