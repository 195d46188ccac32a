//! The calls between peers as typed Rust, the same on both sides.

use crate::wire::{CallError, FrameStream, Hello, ObjectIds, ObjectStream, Status, error::malformed, limits::*};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use soma_types::{
    BlockRef, ChainId, CommitIndex, CommitRef, Epoch, PeerId, SnapshotInfo, TimestampMs,
    limits::{MAX_BLOCK_BYTES, MAX_NODE_INFO_BYTES},
};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};

/// The context of a call: the other side and the timeout.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The authenticated other side: the responder for a caller, the caller for a responder.
    pub peer: PeerId,
    /// The caller's chain; `None` if the call does not name one.
    pub chain: Option<ChainId>,
    /// For a responder, the caller's IP address. `None` for a caller, or if it is unknown.
    pub remote: Option<IpAddr>,
    /// Time until the caller gives up. A responder treats it as advice and has its own deadlines.
    pub timeout: Duration,
}

/// Response to `GetKnownPeers`: signed node infos as bytes, not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPeers {
    /// The responder's own info.
    pub own_info: Bytes,
    /// Infos of other nodes, at most [`MAX_KNOWN_PEERS`].
    pub known_peers: Vec<Bytes>,
    /// The responder's observation of the caller.
    pub seen: Seen,
}

impl KnownPeers {
    /// Checks the limits of a response.
    ///
    /// # Errors
    /// Fails if there are too many infos, or one is too long.
    pub fn checked(self) -> Result<Self, CallError> {
        if self.known_peers.len() > MAX_KNOWN_PEERS {
            let message = format!("{} known peers: at most {MAX_KNOWN_PEERS} are allowed", self.known_peers.len());
            return Err(malformed(message));
        }
        let largest = self.known_peers.iter().chain([&self.own_info]).map(Bytes::len).max().unwrap_or(0);
        if largest > MAX_NODE_INFO_BYTES {
            return Err(malformed(format!("a node info of {largest} bytes is over the limit")));
        }
        Ok(self)
    }
}

/// A responder's observation of its caller. It is an unproven hint: the responder may lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The caller's IP address; `None` if not stated.
    pub ip: Option<IpAddr>,
    /// The responder's clock in Unix milliseconds; 0 if not stated.
    pub time_ms: TimestampMs,
    /// Whether the responder could dial the caller at its advertised address; `None` if not stated.
    pub reached: Option<bool>,
}

/// The commits that a peer claims to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Availability {
    /// Highest index.
    pub highest_synced: CommitIndex,
    /// Lowest index that is not pruned.
    pub lowest_available: CommitIndex,
}

/// A requested range of commits: from 1 on, not empty, at most [`MAX_COMMITS_PER_FETCH`] commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitRange {
    start: CommitIndex,
    end: CommitIndex,
    max_bytes: usize,
}

impl CommitRange {
    /// Checks the bounds. A range that is too long is cut, because a response may be shorter anyway.
    ///
    /// # Errors
    /// Fails if the range starts at 0 or after its end.
    pub fn new(start: CommitIndex, end: CommitIndex) -> Result<Self, CallError> {
        if start == 0 || start > end {
            let message = format!("commits {start} to {end}: a range starts at 1 or later and not after its end");
            return Err(CallError::new(Status::InvalidArgument, message));
        }
        let end = end.min(start.saturating_add(MAX_COMMITS_PER_FETCH as u32 - 1));
        Ok(Self { start, end, max_bytes: MAX_COMMITS_RESPONSE_BYTES })
    }

    /// The range with a lower limit on the bytes of the response. The protocol's limit stays the maximum.
    pub fn within(self, max_bytes: u64) -> Self {
        let max_bytes = max_bytes.clamp(1, MAX_COMMITS_RESPONSE_BYTES as u64) as usize;
        Self { max_bytes, ..self }
    }

    /// First index.
    pub fn start(&self) -> CommitIndex {
        self.start
    }

    /// Last index.
    pub fn end(&self) -> CommitIndex {
        self.end
    }

    /// Maximum bytes of commits and certifier blocks in the response.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }
}

/// Response to `FetchCommits`: encoded commits and certifier blocks, not yet verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchedCommits {
    /// Commits from the range's start on.
    pub commits: Vec<Bytes>,
    /// Certifier blocks of the last commit.
    pub certifier_blocks: Vec<Bytes>,
}

impl FetchedCommits {
    /// Checks the limits of a response to `range`.
    ///
    /// # Errors
    /// Fails if there are no or too many commits, or too many bytes.
    pub fn checked(self, range: CommitRange) -> Result<Self, CallError> {
        if self.commits.is_empty() || self.commits.len() > MAX_COMMITS_PER_FETCH {
            let message = format!("{} commits: 1 to {MAX_COMMITS_PER_FETCH} are allowed", self.commits.len());
            return Err(malformed(message));
        }
        let bytes = self.size();
        let limit = range.max_bytes();
        if bytes > limit {
            return Err(malformed(format!("{bytes} bytes of commits and votes are over the limit of {limit}")));
        }
        Ok(self)
    }

    /// Bytes of all commits and certifier blocks.
    pub fn size(&self) -> usize {
        self.commits.iter().chain(&self.certifier_blocks).map(Bytes::len).sum()
    }
}

/// Requested epoch proofs, of `from_epoch` and the epochs after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochProofsFrom {
    from_epoch: Epoch,
    max_bytes: usize,
}

impl EpochProofsFrom {
    /// A request for as many proofs as a response may have.
    pub fn new(from_epoch: Epoch) -> Self {
        Self { from_epoch, max_bytes: MAX_EPOCH_PROOFS_BYTES }
    }

    /// The request with a lower limit on the bytes of the response. The protocol's limit stays the maximum.
    pub fn within(self, max_bytes: u64) -> Self {
        let max_bytes = max_bytes.clamp(1, MAX_EPOCH_PROOFS_BYTES as u64) as usize;
        Self { max_bytes, ..self }
    }

    /// The first epoch.
    pub fn from_epoch(&self) -> Epoch {
        self.from_epoch
    }

    /// Maximum bytes of the proofs in the response.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }
}

/// Response to `GetEpochProofs`: encoded proofs of consecutive epochs, not yet decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochProofs {
    /// The proofs, from the requested epoch on.
    pub proofs: Vec<Bytes>,
}

impl EpochProofs {
    /// Checks the limits of a response to `request`.
    ///
    /// # Errors
    /// Fails if there are no or too many proofs, or too many bytes.
    pub fn checked(self, request: EpochProofsFrom) -> Result<Self, CallError> {
        let count = self.proofs.len();
        if count == 0 || count > MAX_EPOCH_PROOFS_PER_FETCH {
            return Err(malformed(format!("{count} epoch proofs: 1 to {MAX_EPOCH_PROOFS_PER_FETCH} are allowed")));
        }
        let (bytes, limit) = (self.size(), request.max_bytes());
        if bytes > limit {
            return Err(malformed(format!("{bytes} bytes of epoch proofs are over the limit of {limit}")));
        }
        Ok(self)
    }

    /// Bytes of all proofs.
    pub fn size(&self) -> usize {
        self.proofs.iter().map(Bytes::len).sum()
    }
}

/// Requested blocks: not empty, at most [`MAX_BLOCKS_PER_FETCH`], without repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRefs(Vec<BlockRef>);

impl BlockRefs {
    /// Checks the number of references and that none is repeated.
    ///
    /// # Errors
    /// Fails if there are no or too many references, or if one is repeated.
    pub fn new(refs: Vec<BlockRef>) -> Result<Self, CallError> {
        let refuse = |message: String| Err(CallError::new(Status::InvalidArgument, message));
        if refs.is_empty() || refs.len() > MAX_BLOCKS_PER_FETCH {
            return refuse(format!("{} block references: 1 to {MAX_BLOCKS_PER_FETCH} are allowed", refs.len()));
        }
        // Each commit names its blocks in order, so sorting costs little more than merging.
        let mut sorted: Vec<&BlockRef> = refs.iter().collect();
        sorted.sort();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => refuse(format!("block {} is requested twice", pair[0])),
            None => Ok(Self(refs)),
        }
    }

    /// The leading references up to the first repeated one. The rest needs another request.
    ///
    /// # Errors
    ///
    /// Fails if there are no or too many references.
    pub fn leading(refs: &[BlockRef]) -> Result<Self, CallError> {
        Self::new(refs.to_vec()).or_else(|error| {
            let mut seen = BTreeSet::new();
            let distinct = refs.iter().take_while(|reference| seen.insert(**reference)).count();
            if distinct < refs.len() { Self::new(refs[..distinct].to_vec()) } else { Err(error) }
        })
    }

    /// The references, in the requested order.
    pub fn as_slice(&self) -> &[BlockRef] {
        &self.0
    }

    /// The references, in the requested order.
    pub fn into_vec(self) -> Vec<BlockRef> {
        self.0
    }
}

/// Chunks of encoded blocks in the requested order, each of at most [`MAX_CHUNK_BYTES`]. Dropping the stream ends the
/// call.
pub type BlockStream = BoxStream<'static, Result<Vec<Bytes>, CallError>>;

/// Checks that a chunk of blocks is not empty and within the limits of a chunk and of each block.
///
/// # Errors
/// Fails if the chunk is empty or exceeds a limit.
pub fn checked_chunk(blocks: Vec<Bytes>) -> Result<Vec<Bytes>, CallError> {
    if blocks.is_empty() {
        return Err(malformed("a chunk without blocks".into()));
    }
    if let Some(block) = blocks.iter().find(|block| block.len() > MAX_BLOCK_BYTES) {
        return Err(malformed(format!("a block of {} bytes is over the limit", block.len())));
    }
    let bytes: usize = blocks.iter().map(Bytes::len).sum();
    if bytes > MAX_CHUNK_BYTES {
        return Err(malformed(format!("a chunk of {bytes} bytes is over the limit")));
    }
    Ok(blocks)
}

/// The calls between peers. A link implements them as the caller, the gRPC adapter as the responder.
#[async_trait]
pub trait PeerApi: Send + Sync {
    /// Exchanges node infos.
    ///
    /// # Errors
    /// Fails if the call fails or the response breaks the protocol.
    async fn get_known_peers(&self, call: Call, own_info: Bytes) -> Result<KnownPeers, CallError>;

    /// The commits that the responder can serve.
    ///
    /// # Errors
    /// Fails if the call fails or the response breaks the protocol.
    async fn get_commit_availability(&self, call: Call) -> Result<Availability, CallError>;

    /// Index and digest of one commit; `None` asks for the highest synced one.
    ///
    /// # Errors
    /// Fails if the call fails or the response breaks the protocol.
    async fn get_commit_info(&self, call: Call, index: Option<CommitIndex>) -> Result<CommitRef, CallError>;

    /// Commits with the votes for the last one.
    ///
    /// # Errors
    /// Fails if the call fails or the response breaks the protocol.
    async fn fetch_commits(&self, call: Call, range: CommitRange) -> Result<FetchedCommits, CallError>;

    /// Blocks by reference. The call's timeout covers the whole stream.
    ///
    /// # Errors
    /// Fails if the call fails before its first chunk. A later failure is the stream's last item.
    async fn fetch_blocks(&self, call: Call, refs: BlockRefs) -> Result<BlockStream, CallError>;

    /// Announces to the responder that the caller has the commit of this index.
    ///
    /// # Errors
    /// Fails if the call fails.
    async fn push_commit(&self, call: Call, index: CommitIndex) -> Result<(), CallError>;

    /// What proves how consecutive epochs ended.
    ///
    /// # Errors
    /// Fails if the call fails or the response breaks the protocol.
    async fn get_epoch_proofs(&self, call: Call, request: EpochProofsFrom) -> Result<EpochProofs, CallError>;

    /// Objects by their ids, in the order asked. The call's timeout covers the whole stream. By default a peer does not
    /// know this call.
    ///
    /// # Errors
    /// Fails with [`Status::Unimplemented`] if the peer has no objects at all, and otherwise if the call fails before its
    /// first message. A later failure is the stream's last item.
    async fn fetch_objects(&self, _: Call, _: ObjectIds) -> Result<ObjectStream, CallError> {
        Err(CallError::new(Status::Unimplemented, "this peer has no objects"))
    }

    /// Snapshots of the executor's state that the responder serves as objects, at most
    /// [`MAX_SNAPSHOTS`](crate::wire::limits::MAX_SNAPSHOTS). By default a peer does not know this call.
    ///
    /// # Errors
    /// Fails with [`Status::Unimplemented`] if the peer has no objects at all, and otherwise if the call fails or the
    /// response breaks the protocol.
    async fn get_snapshots(&self, _: Call) -> Result<Vec<SnapshotInfo>, CallError> {
        Err(CallError::new(Status::Unimplemented, "this peer has no objects"))
    }

    /// Opens a stream of frames in both directions. A caller passes its hello and its frames, and gets the peer's. A
    /// responder gets the caller's and returns its own.
    ///
    /// The call's timeout covers only the exchange of hellos. The stream then lasts until one side ends it or the
    /// connection ends. Both directions end together: if one half ends, fails or is dropped, the other one ends. By
    /// default a peer does not know this call.
    ///
    /// # Errors
    /// Fails with [`Status::Unimplemented`] if the peer does not know this call, and otherwise if the call fails or the
    /// peer's hello breaks the protocol.
    async fn broadcast(&self, _: Call, _: Hello, _: FrameStream) -> Result<(Hello, FrameStream), CallError> {
        Err(CallError::new(Status::Unimplemented, "this peer does not spread messages"))
    }
}
