//! Bounds of the protocol. A caller that asks for more blocks is refused, and for more commits
//! gets fewer; an answer with more is malformed.

use soma_types::limits::{MAX_BLOCK_BYTES, MAX_COMMIT_BYTES, MAX_COMMITTEE_SIZE, MAX_NODE_INFO_BYTES};
use std::time::Duration;

/// Commits in one answer.
pub const MAX_COMMITS_PER_FETCH: usize = 100;

/// Blocks in one request.
pub const MAX_BLOCKS_PER_FETCH: usize = 1_000;

/// Bytes of blocks in one chunk of an answer.
pub const MAX_CHUNK_BYTES: usize = 4 << 20;

/// Bytes of commits and certifier blocks in one answer. Room for the votes of a hundred authorities with large
/// blocks; the responder picks the smallest blocks that make a quorum, and fewer commits where these do not fit.
pub const MAX_COMMITS_RESPONSE_BYTES: usize = 12 << 20;

/// Peers in one answer, the responder not counted.
pub const MAX_KNOWN_PEERS: usize = 200;

/// What an answer with known peers says of the caller, at most: the tag and length of the whole, 18 bytes of an IP
/// address, 11 of a time and 2 of whether it was reached.
pub const MAX_CALLER_SEEN_BYTES: usize = 2 + 18 + 11 + 2;

/// What framing may add to the payload of one message: at most 8 bytes (tag and length) for each of the entries in
/// the longest list, what is said of the caller, and a gRPC header. Encoders bound payloads, decoders messages: this keeps the two in step.
pub const MESSAGE_OVERHEAD_BYTES: usize = 64 << 10;

/// Greatest request message: the longest list of block references.
pub const MAX_REQUEST_BYTES: usize = MAX_BLOCKS_PER_FETCH * 64 + MESSAGE_OVERHEAD_BYTES;

/// Greatest answer message.
pub const MAX_RESPONSE_BYTES: usize = MAX_COMMITS_RESPONSE_BYTES + MESSAGE_OVERHEAD_BYTES;

/// Fields in one message: the longest list, commits and certifier blocks, and some that a later version may add. An empty
/// entry has two bytes on the wire and thirty times as many in memory, so that bytes alone do not bound what an answer
/// costs.
pub const MAX_MESSAGE_FIELDS: usize = MAX_COMMITS_PER_FETCH + MAX_COMMITTEE_SIZE + 100;

/// Longest that a responder's hint to call again later is passed on: it may not put itself out of use, nor overflow
/// a clock to which the hint is added.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Bytes of a responder's error message that are kept: it goes to logs.
pub const MAX_STATUS_MESSAGE_BYTES: usize = 512;

const _: () = {
    assert!(MAX_BLOCK_BYTES <= MAX_CHUNK_BYTES, "a chunk holds at least one block");
    assert!(MAX_COMMIT_BYTES <= MAX_COMMITS_RESPONSE_BYTES / 2, "an answer holds at least one commit and its votes");
    assert!((MAX_KNOWN_PEERS + 1) * MAX_NODE_INFO_BYTES <= MAX_RESPONSE_BYTES);
    assert!((MAX_KNOWN_PEERS + 1) * 8 + MAX_CALLER_SEEN_BYTES < MESSAGE_OVERHEAD_BYTES, "an answer with peers fits");
    assert!(MAX_NODE_INFO_BYTES <= MAX_REQUEST_BYTES);
    assert!(MAX_CHUNK_BYTES <= MAX_RESPONSE_BYTES);
    assert!(MAX_BLOCKS_PER_FETCH <= MAX_MESSAGE_FIELDS && MAX_KNOWN_PEERS < MAX_MESSAGE_FIELDS);
};
