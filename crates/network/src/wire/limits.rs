//! Limits of the protocol. A request for too many blocks is refused, and a request for too many commits gets fewer. A
//! response over a limit is malformed.

use soma_types::limits::{
    MAX_BLOCK_BYTES, MAX_COMMIT_BYTES, MAX_COMMITTEE_SIZE, MAX_EPOCH_PROOF_BYTES, MAX_MESSAGE_BYTES,
    MAX_NODE_INFO_BYTES,
};
use std::time::Duration;

/// Commits in one response.
pub const MAX_COMMITS_PER_FETCH: usize = 100;

/// Blocks in one request.
pub const MAX_BLOCKS_PER_FETCH: usize = 1_000;

/// Objects in one request, and parts of objects in one message of a response.
pub const MAX_OBJECTS_PER_FETCH: usize = 1_000;

/// Snapshots in one response.
pub const MAX_SNAPSHOTS: usize = 16;

/// Bytes of blocks in one chunk of a response.
pub const MAX_CHUNK_BYTES: usize = 4 << 20;

/// Bytes of commits and certifier blocks in one response. It holds the votes of a hundred authorities with large
/// blocks. The responder picks the smallest blocks that form a quorum, and fewer commits if these do not fit.
pub const MAX_COMMITS_RESPONSE_BYTES: usize = 12 << 20;

/// Epoch proofs in one response. With a hundred authorities a proof has about 350 KB, so that bytes end most responses
/// first.
pub const MAX_EPOCH_PROOFS_PER_FETCH: usize = 100;

/// Bytes of epoch proofs in one response; the largest proof fits.
pub const MAX_EPOCH_PROOFS_BYTES: usize = 12 << 20;

/// Node infos in one response, without the responder's own.
pub const MAX_KNOWN_PEERS: usize = 200;

/// Maximum encoding of the observation of the caller in a response with known peers: tag and length of the message,
/// 18 bytes for an IP address, 11 for a time, and 2 for whether the caller was reached.
pub const MAX_CALLER_SEEN_BYTES: usize = 2 + 18 + 11 + 2;

/// Maximum bytes that framing adds to the payload of one message. That is at most 8 bytes (tag and length) per entry of
/// the longest list, the observation of the caller, and a gRPC header. Encoders bound payloads and decoders bound
/// messages; this constant keeps the two consistent.
pub const MESSAGE_OVERHEAD_BYTES: usize = 64 << 10;

/// Maximum request message: the longest list of block references.
pub const MAX_REQUEST_BYTES: usize = MAX_BLOCKS_PER_FETCH * 64 + MESSAGE_OVERHEAD_BYTES;

/// Maximum response message.
pub const MAX_RESPONSE_BYTES: usize = MAX_COMMITS_RESPONSE_BYTES + MESSAGE_OVERHEAD_BYTES;

/// Messages in one frame of `Broadcast`: as many as a busy sender has ready at once.
pub const MAX_MESSAGES_PER_FRAME: usize = 1_024;

/// Ids in each list of one frame of `Broadcast`. More go into the next frame.
pub const MAX_IDS_PER_FRAME: usize = 1_024;

/// Authors in both lists of one frame of `Broadcast` together.
pub const MAX_AUTHORS_PER_FRAME: usize = 256;

/// Bytes of all payloads in a frame of `Broadcast` with several messages. A longer message has a frame of its own, so
/// that the memory for a frame is small unless a message needs more.
pub const MAX_BATCH_BYTES: usize = 256 << 10;

/// Maximum encoding of a message of `Broadcast` without its payload: tag and length, epoch (11 bytes), author (36),
/// tag and length of the payload, and signature (66).
pub const BROADCAST_MESSAGE_OVERHEAD_BYTES: usize = 128;

/// Maximum encoding of an author in a list.
const BROADCAST_AUTHOR_BYTES: usize = 40;

/// Maximum encoding of everything in a frame of `Broadcast` but messages.
const BROADCAST_CONTROL_BYTES: usize =
    3 * (32 * MAX_IDS_PER_FRAME + 8) + BROADCAST_AUTHOR_BYTES * MAX_AUTHORS_PER_FRAME;

/// Maximum frame of `Broadcast`: one message of the largest size, or many small ones, and full lists.
pub const MAX_FRAME_BYTES: usize =
    MAX_MESSAGE_BYTES + MAX_MESSAGES_PER_FRAME * BROADCAST_MESSAGE_OVERHEAD_BYTES + BROADCAST_CONTROL_BYTES;

/// Maximum fields in one message: the longest list (messages and authors of a frame of `Broadcast`), and some for later
/// versions. An empty entry has two bytes on the wire and up to a hundred times as many in memory, so a limit on bytes
/// does not bound the memory.
pub const MAX_MESSAGE_FIELDS: usize = MAX_MESSAGES_PER_FRAME + MAX_AUTHORS_PER_FRAME + 100;

/// Maximum retry hint of a responder. The limit keeps the responder in use, and prevents an overflow when the hint is
/// added to a clock.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Maximum bytes that are kept of a responder's error message, because the message is logged.
pub const MAX_STATUS_MESSAGE_BYTES: usize = 512;

const _: () = {
    assert!(MAX_BLOCK_BYTES <= MAX_CHUNK_BYTES, "a chunk holds at least one block");
    assert!(MAX_COMMIT_BYTES <= MAX_COMMITS_RESPONSE_BYTES / 2, "an answer holds at least one commit and its votes");
    assert!((MAX_KNOWN_PEERS + 1) * MAX_NODE_INFO_BYTES <= MAX_RESPONSE_BYTES);
    assert!((MAX_KNOWN_PEERS + 1) * 8 + MAX_CALLER_SEEN_BYTES < MESSAGE_OVERHEAD_BYTES, "an answer with peers fits");
    assert!(MAX_NODE_INFO_BYTES <= MAX_REQUEST_BYTES);
    assert!(MAX_CHUNK_BYTES <= MAX_RESPONSE_BYTES);
    assert!(MAX_EPOCH_PROOF_BYTES <= MAX_EPOCH_PROOFS_BYTES && MAX_EPOCH_PROOFS_BYTES <= MAX_RESPONSE_BYTES);
    assert!(MAX_EPOCH_PROOFS_PER_FETCH <= MAX_MESSAGE_FIELDS);
    assert!(MAX_COMMITS_PER_FETCH + MAX_COMMITTEE_SIZE <= MAX_MESSAGE_FIELDS);
    assert!(MAX_BATCH_BYTES <= MAX_MESSAGE_BYTES, "a frame with one message is the largest");
    assert!(MAX_BLOCKS_PER_FETCH <= MAX_MESSAGE_FIELDS && MAX_KNOWN_PEERS < MAX_MESSAGE_FIELDS);
    assert!(MAX_OBJECTS_PER_FETCH <= MAX_MESSAGE_FIELDS && MAX_OBJECTS_PER_FETCH * 32 < MAX_REQUEST_BYTES);
    assert!(MAX_OBJECTS_PER_FETCH * 16 < MESSAGE_OVERHEAD_BYTES, "a message with many short objects fits");
};
