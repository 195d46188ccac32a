//! Bounds that all nodes of the chain share, each with its reason. The bounds of a single node (queues, budgets,
//! timeouts) are in its configuration.

use crate::CommitIndex;

/// Highest index of a commit: one less than the type's maximum, so that every commit has a next index. A chain with ten
/// commits per second reaches it after thirteen years.
pub const MAX_COMMIT_INDEX: CommitIndex = CommitIndex::MAX - 1;

/// Serialized bytes of one signed block. A response chunk (4 MiB) holds at least four blocks of this size.
pub const MAX_BLOCK_BYTES: usize = 1 << 20;

/// Serialized bytes of the proof of an ended epoch: a commit, the votes of a quorum, and one block. It holds the votes of
/// a hundred authorities with large blocks.
pub const MAX_EPOCH_PROOF_BYTES: usize = 12 << 20;

/// Maximum size of an encoded checkpoint.
pub const MAX_CHECKPOINT_BYTES: usize = MAX_EPOCH_PROOF_BYTES + MAX_COMMITTEE_BYTES + 32;

/// Authorities in a committee. Bounds ancestors, votes and quorum signatures, which contain each authority at most
/// once.
pub const MAX_COMMITTEE_SIZE: usize = 1_000;

/// Blocks in one commit: ten rounds of the largest committee. A serialized commit stays under 512 KiB.
pub const MAX_BLOCKS_PER_COMMIT: usize = 10_000;

/// Serialized bytes of one commit: [`MAX_BLOCKS_PER_COMMIT`] references of 48 bytes and the fixed fields.
pub const MAX_COMMIT_BYTES: usize = 512 << 10;

/// Bytes of all blocks of one commit. A node fetches whole commits, so this bounds the memory of one commit.
pub const MAX_COMMIT_BLOCKS_BYTES: usize = 16 << 20;

/// Transactions in one block.
pub const MAX_TRANSACTIONS_PER_BLOCK: usize = 10_000;

/// Commit votes in one block. A block votes for the commits since its author's previous block, which are few.
pub const MAX_COMMIT_VOTES_PER_BLOCK: usize = 100;

/// Serialized bytes of a committee: [`MAX_COMMITTEE_SIZE`] members with keys, stake and a short address.
pub const MAX_COMMITTEE_BYTES: usize = 512 << 10;

/// Bytes of the text of one address.
pub const MAX_ADDRESS_BYTES: usize = 1_024;

/// Addresses in one node info: a host has a few interfaces and protocols, not hundreds.
pub const MAX_ADDRESSES_PER_NODE: usize = 8;

/// Serialized bytes of one signed node info: eight addresses of full length and the fixed fields.
pub const MAX_NODE_INFO_BYTES: usize = 10 << 10;

/// Bytes of the payload of one message that spreads among nodes: a proposal carries a whole block.
pub const MAX_MESSAGE_BYTES: usize = MAX_BLOCK_BYTES + (4 << 10);

/// Bytes of one piece of an object: a long object travels in pieces, each of which is proved when it arrives. A power of
/// two of at least one BLAKE3 chunk, so that each piece is a subtree.
pub const OBJECT_PIECE_BYTES: usize = 1 << 20;

/// Bytes of one object. Its pieces wait in memory until the last one is there.
pub const MAX_OBJECT_BYTES: usize = 64 << 20;

/// Chunks of one snapshot: 64 GiB in chunks of 1 MiB.
pub const MAX_SNAPSHOT_CHUNKS: usize = 65_536;

/// Bytes of an encoded manifest of a snapshot: the ids of [`MAX_SNAPSHOT_CHUNKS`] and the fixed fields.
pub const MAX_SNAPSHOT_MANIFEST_BYTES: usize = 32 * MAX_SNAPSHOT_CHUNKS + 256;
