//! The calls between peers as typed Rust, the same on both sides.

use crate::wire::{CallError, Status, limits::*};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use soma_types::{BlockRef, ChainId, CommitIndex, CommitRef, PeerId, TimestampMs};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};

/// The other side of a call, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// For a caller whom it calls, for a responder who calls: authenticated either way.
    pub peer: PeerId,
    /// The caller's chain; `None` where it did not say.
    pub chain: Option<ChainId>,
    /// For a responder, where the caller's connection comes from; for a caller, and where it is not known, `None`.
    pub remote: Option<IpAddr>,
    /// Time until the caller gives up. A responder takes it as advice and has deadlines of its own.
    pub timeout: Duration,
}

/// Answer to `GetKnownPeers`: signed node infos, as bytes and not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPeers {
    /// The responder's own.
    pub own_info: Bytes,
    /// Others', at most [`MAX_KNOWN_PEERS`].
    pub known_peers: Vec<Bytes>,
    /// What the responder sees of the caller.
    pub seen: Seen,
}

/// What a responder sees of its caller. Hints: nothing proves them, and a responder may say what it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Where the caller's connection comes from; `None`: not said.
    pub ip: Option<IpAddr>,
    /// The responder's clock, in milliseconds since 1970; 0: not said.
    pub time_ms: TimestampMs,
    /// Whether the responder could dial the caller where the caller says that it listens; `None`: not said.
    pub reached: Option<bool>,
}

/// Which commits a peer says it can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Availability {
    /// Highest index.
    pub highest_synced: CommitIndex,
    /// Lowest index that it has not pruned.
    pub lowest_available: CommitIndex,
}

/// Commits asked for: from 1, not empty, at most [`MAX_COMMITS_PER_FETCH`] of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitRange {
    start: CommitIndex,
    end: CommitIndex,
    max_bytes: usize,
}

impl CommitRange {
    /// Checks the bounds; a range that is too long is cut, for the answer may be shorter anyway.
    pub fn new(start: CommitIndex, end: CommitIndex) -> Result<Self, CallError> {
        if start == 0 || start > end {
            let message = format!("commits {start} to {end}: a range starts at 1 or later and not behind its end");
            return Err(CallError::new(Status::InvalidArgument, message));
        }
        let end = end.min(start.saturating_add(MAX_COMMITS_PER_FETCH as u32 - 1));
        Ok(Self { start, end, max_bytes: MAX_COMMITS_RESPONSE_BYTES })
    }

    /// The same with an answer of at most so many bytes, as far as the protocol allows.
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

    /// Bytes of commits and certifier blocks in the answer.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }
}

/// Answer to `FetchCommits`: encoded commits and certifier blocks, not yet verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchedCommits {
    /// Commits from the range's start on.
    pub commits: Vec<Bytes>,
    /// Blocks whose votes certify the last of them.
    pub certifier_blocks: Vec<Bytes>,
}

/// Blocks asked for: not empty, at most [`MAX_BLOCKS_PER_FETCH`], none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRefs(Vec<BlockRef>);

impl BlockRefs {
    /// Checks the number and that none stands twice.
    pub fn new(refs: Vec<BlockRef>) -> Result<Self, CallError> {
        let refuse = |message: String| Err(CallError::new(Status::InvalidArgument, message));
        if refs.is_empty() || refs.len() > MAX_BLOCKS_PER_FETCH {
            return refuse(format!("{} block references: 1 to {MAX_BLOCKS_PER_FETCH} are allowed", refs.len()));
        }
        // The blocks of each commit come in order: sorting is little more than joining them.
        let mut sorted: Vec<&BlockRef> = refs.iter().collect();
        sorted.sort();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => refuse(format!("block {} is asked for twice", pair[0])),
            None => Ok(Self(refs)),
        }
    }

    /// The leading references, up to the first that stands twice: the rest is for another request.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), but for references that stand twice.
    pub fn leading(refs: &[BlockRef]) -> Result<Self, CallError> {
        Self::new(refs.to_vec()).or_else(|error| {
            let mut seen = BTreeSet::new();
            let distinct = refs.iter().take_while(|reference| seen.insert(**reference)).count();
            if distinct < refs.len() { Self::new(refs[..distinct].to_vec()) } else { Err(error) }
        })
    }

    /// The references, in the order asked.
    pub fn as_slice(&self) -> &[BlockRef] {
        &self.0
    }

    /// The references, in the order asked.
    pub fn into_vec(self) -> Vec<BlockRef> {
        self.0
    }
}

/// Chunks of encoded blocks in the order asked, each of at most [`MAX_CHUNK_BYTES`]. Dropping it ends the call.
pub type BlockStream = BoxStream<'static, Result<Vec<Bytes>, CallError>>;

/// What a peer can be asked. A link to a peer implements it by calling; the gRPC adapter by answering.
#[async_trait]
pub trait PeerApi: Send + Sync {
    /// Exchanges node infos.
    async fn get_known_peers(&self, call: Call, own_info: Bytes) -> Result<KnownPeers, CallError>;

    /// Which commits the responder can serve.
    async fn get_commit_availability(&self, call: Call) -> Result<Availability, CallError>;

    /// Index and digest of one commit, of the highest synced one for `None`.
    async fn get_commit_info(&self, call: Call, index: Option<CommitIndex>) -> Result<CommitRef, CallError>;

    /// Commits with the votes for the last of them.
    async fn fetch_commits(&self, call: Call, range: CommitRange) -> Result<FetchedCommits, CallError>;

    /// Blocks by reference. The call's timeout covers the whole stream.
    async fn fetch_blocks(&self, call: Call, refs: BlockRefs) -> Result<BlockStream, CallError>;

    /// Tells the responder that the caller has the commit of this index.
    async fn push_commit(&self, call: Call, index: CommitIndex) -> Result<(), CallError>;
}
