//! What goes into StateSync and what comes out: settings, inputs, effects and the snapshot.

use super::{
    archive_route::{ArchiveRoute, ArchiveUse},
    cause::Progress,
    history::{BackfillProgress, HistoryStart},
    offered::{LocalCommitError, Offered},
};
use crate::peer_heights::{NoPeer, Outcome, Target};
use serde::{Deserialize, Serialize};
use soma_types::{CommitDigest, CommitIndex, CommitRef, Epoch, PeerFailure, PeerId, SegmentName, TimestampMs};
use std::time::Duration;
use strum::VariantNames;

/// Settings of StateSync. Defaults come from the seed documents (state_sync.md, "Configuration Parameters").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Commits in one answer, at most 100. A range has up to four times as many if commits are small and the peer is
    /// quick.
    pub commits_per_fetch: u32,
    /// Concurrent workers, without those that hedge the next range. The window of bytes in flight decides how many run.
    pub max_workers: usize,
    /// New ranges are planned up to this many beyond the last linked commit. It bounds the reorder buffer: splitting a
    /// range adds no commits.
    pub ranges_ahead: usize,
    /// Budget of bytes, reserved by workers or waiting to be written.
    pub bytes_in_flight: u64,
    /// Maximum bytes of one worker; a range is cut where it would exceed them. A range reserves a quarter until the
    /// size of commits is known, then twice its expected size, and all of it where that was too little.
    pub bytes_per_range: u64,
    /// How long a range waits when no peer can serve it.
    pub no_peer_wait: Duration,
    /// Maximum number of durable commits that the slowest executor has not taken. Fetching pauses at this lag.
    pub max_executor_lag: u32,
    /// Where a node with an empty store begins.
    pub start: Start,
    /// Whether commits come from an archive.
    pub archive: ArchiveUse,
    /// Whether the commits before the stored history are fetched.
    pub backfill: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            commits_per_fetch: 100,
            max_workers: 96,
            ranges_ahead: 256,
            bytes_in_flight: 128 << 20,
            bytes_per_range: 32 << 20,
            no_peer_wait: Duration::from_secs(1),
            max_executor_lag: 10_000,
            start: Start::Genesis,
            archive: ArchiveUse::Never,
            backfill: false,
        }
    }
}

/// Where a node with an empty store begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// With commit 1.
    #[default]
    Genesis,
    /// After the last epoch that has ended. Epoch proofs lead there from the genesis.
    LatestEpoch,
    /// After this commit, which ends an epoch. Epoch proofs lead there from the genesis.
    After(CommitRef),
}

/// The proven end of an epoch. The shell holds the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochSummary {
    /// The epoch.
    pub epoch: Epoch,
    /// Its last commit.
    pub commit: CommitRef,
}

/// The last commit linked in order: the end of the verified chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    /// Index and digest.
    pub commit: CommitRef,
    /// Its timestamp.
    pub timestamp_ms: TimestampMs,
    /// Epoch of the next commit.
    pub next_epoch: Epoch,
}

/// Identifies an attempt at a range, and the bytes that the shell keeps for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RangeKey(pub u64);

impl RangeKey {
    /// Keys with this bit name commits of the node's own consensus; the shell counts them.
    const LOCAL: u64 = 1 << 63;

    /// The key of the `n`th commit of the node's own consensus.
    pub fn local(n: u64) -> Self {
        Self(Self::LOCAL | n)
    }

    pub(super) fn is_local(self) -> bool {
        self.0 & Self::LOCAL != 0
    }
}

/// Summary of consecutive verified commits. The shell holds their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeSummary {
    /// Index of the first commit.
    pub first: CommitIndex,
    /// The last commit.
    pub last: CommitRef,
    /// The `previous_digest` of the first commit.
    pub previous: CommitDigest,
    /// Timestamp of the first commit. The commit before it decides whether it is right.
    pub first_timestamp_ms: TimestampMs,
    /// Timestamp of the leader block of the first commit.
    pub first_leader_timestamp_ms: TimestampMs,
    /// Timestamp of the last commit.
    pub last_timestamp_ms: TimestampMs,
    /// Epoch of all commits.
    pub epoch: Epoch,
    /// Whether the last commit ends its epoch. The next committee is then known.
    pub ends_epoch: bool,
    /// Bytes of commits, blocks and votes.
    pub bytes: u64,
    /// Number of blocks.
    pub blocks: u64,
}

/// Why a worker stopped before the end of its range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// The peer sent fewer commits than requested, as it may, or the range reached its byte budget.
    Cut,
    /// A commit belongs to another epoch than the committee of the worker.
    OtherEpoch {
        /// Index of the commit.
        index: CommitIndex,
        /// The epoch that the commit states.
        found: Epoch,
    },
    /// The worker failed.
    Failed(PeerFailure),
}

impl StopReason {
    /// Whether the failure proves the peer hostile.
    pub(crate) fn bans(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.fault.bans())
    }
}

impl From<PeerFailure> for StopReason {
    fn from(failure: PeerFailure) -> Self {
        Self::Failed(failure)
    }
}

/// Inputs of StateSync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
pub enum Input {
    /// From the shell: the requested wake time has come.
    Wake,
    /// From PeerHeights: the advertised heights, or news that more peers can serve.
    Target(Target),
    /// From PeerHeights, answering [`Effect::Pick`].
    Picked {
        /// The range.
        key: RangeKey,
        /// The selected peer, or why no peer can serve the range.
        peer: Result<PeerId, NoPeer>,
    },
    /// From a worker: the verified part, and why the worker stopped before the end. The shell holds the bytes.
    WorkerDone {
        /// The range.
        key: RangeKey,
        /// The verified commits, from the start of the range on.
        verified: Option<RangeSummary>,
        /// Why commits are missing.
        shortfall: Option<StopReason>,
    },
    /// From a worker: its peer has sent data.
    Progress {
        /// The key of the worker.
        key: RangeKey,
        /// Whether the download is complete and being checked.
        downloaded: bool,
    },
    /// From the supervisor or the shell: a worker ended without a result, or could not start.
    WorkerFailed {
        /// The range.
        key: RangeKey,
        /// The error.
        reason: String,
    },
    /// From the reader of an executor's stream.
    Executor {
        /// The number of the reader.
        reader: u64,
        /// Its position.
        at: ExecutorAt,
    },
    /// From the StoreWriter, answering [`Effect::Write`].
    Written(Result<CommitRef, String>),
    /// From the node's own consensus.
    LocalCommit {
        /// The key under which the shell holds the bytes.
        key: RangeKey,
        /// What the commit states; nothing is checked yet.
        commit: Offered,
    },
    /// From the Verifier, answering [`Effect::CheckLocal`].
    LocalChecked {
        /// The commit.
        key: RangeKey,
        /// The verified commit, or the rule that it breaks.
        result: Result<RangeSummary, LocalCommitError>,
    },
    /// From the shell, answering [`Effect::FetchEpochs`].
    EpochsFetched {
        /// The key of the request.
        key: RangeKey,
        /// The verified ends of consecutive epochs, and the bytes of their proofs. Empty if the peer knows that the
        /// first epoch has not ended.
        result: Result<(Vec<EpochSummary>, u64), PeerFailure>,
    },
    /// From the StoreWriter, answering [`Effect::SkipEpochs`].
    EpochsSkipped {
        /// The key of the request.
        key: RangeKey,
        /// The end of the last skipped epoch, or the store's error.
        result: Result<Tip, String>,
    },
    /// From the Archiver, answering [`Effect::ListArchive`].
    ArchiveListed {
        /// The key of the request.
        key: RangeKey,
        /// The segments that lead on, or why the archive cannot be listed.
        result: Result<ArchiveRoute, String>,
    },
    /// From the shell, answering [`Effect::ReadHistory`].
    HistoryRead {
        /// The key of the request.
        key: RangeKey,
        /// Where the stored history begins, or the store's error.
        result: Result<HistoryStart, String>,
    },
    /// From the StoreWriter, answering [`Effect::Prepend`].
    Prepended {
        /// The key of the commits.
        key: RangeKey,
        /// Durable, or the store's error.
        result: Result<(), String>,
    },
}

/// Position of an executor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutorAt {
    /// The executor has finished all commits before this one and gets this one next.
    Next(CommitIndex),
    /// Its stream was dropped, or ended with the system.
    Ended,
    /// Its stream ended because a commit cannot be read.
    Failed {
        /// The commit.
        next: CommitIndex,
        /// The store's error.
        reason: String,
    },
}

/// The error that ended an executor's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorFailure {
    /// The commit that the executor would have got next.
    pub next: CommitIndex,
    /// The store's error.
    pub reason: String,
}

/// Effects of StateSync, for its shell to carry out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Ask PeerHeights for a peer that has the start of the range.
    Pick {
        /// The range.
        key: RangeKey,
        /// Its first commit.
        start: CommitIndex,
        /// Peers that serve the range now, or have just failed to.
        tried: Vec<PeerId>,
        /// Whether this is a hedge. A hedge goes to a proven peer, if there is one.
        hedge: bool,
        /// Whether this is the next range in order, for which all others wait.
        next: bool,
    },
    /// Start a worker.
    Fetch {
        /// The range.
        key: RangeKey,
        /// The peer to fetch from.
        peer: PeerId,
        /// First commit.
        start: CommitIndex,
        /// Last commit.
        end: CommitIndex,
        /// Commits up to here may be requested as proof. It is beyond `end` after a failure, because a peer may have
        /// the commits of the range without votes for the last.
        proof_end: CommitIndex,
        /// Epoch of the committee that certifies the commits.
        epoch: Epoch,
        /// Maximum bytes of the worker.
        max_bytes: u64,
    },
    /// Report to PeerHeights how a peer served a range.
    Report {
        /// The peer.
        peer: PeerId,
        /// First commit that the peer did not deliver.
        start: CommitIndex,
        /// How the peer served.
        outcome: Outcome,
    },
    /// Cancel the worker with this key: another worker continues the range alone.
    Cancel(RangeKey),
    /// Drop the bytes under a key.
    Discard(RangeKey),
    /// Write the commits under these keys, in this order, as one batch.
    Write(Vec<RangeKey>),
    /// Hand the durable commits under these keys to the executor, and drop them.
    Publish {
        /// Keys in chain order.
        keys: Vec<RangeKey>,
        /// The highest commit.
        highest: CommitRef,
    },
    /// Announce the durable height to PeerHeights, which pushes it to peers.
    Announce(CommitIndex),
    /// Have the Verifier check a commit of the node's own consensus.
    CheckLocal {
        /// The commit.
        key: RangeKey,
        /// Epoch of the committee that certifies the commit.
        epoch: Epoch,
    },
    /// Fetch and verify epoch proofs.
    FetchEpochs {
        /// The key of the request.
        key: RangeKey,
        /// The peer to ask.
        peer: PeerId,
        /// The first epoch.
        from: Epoch,
    },
    /// Write the first fetched epochs as skipped, and drop the others.
    SkipEpochs {
        /// The key of the request.
        key: RangeKey,
        /// The number of epochs, at least one.
        count: usize,
    },
    /// Ask the Archiver for the segments of an epoch that lead on from a commit.
    ListArchive {
        /// The key of the request.
        key: RangeKey,
        /// The epoch.
        epoch: Epoch,
        /// The commit.
        next: CommitIndex,
        /// Segments to leave out.
        avoid: Vec<SegmentName>,
    },
    /// Start a worker that fetches a range from a segment of the archive.
    FetchSegment {
        /// The range.
        key: RangeKey,
        /// The segment.
        segment: SegmentName,
        /// First commit.
        start: CommitIndex,
        /// Last commit, at most that of the segment.
        end: CommitIndex,
        /// Epoch of the committee that certifies the commits.
        epoch: Epoch,
        /// Maximum bytes of the worker.
        max_bytes: u64,
    },
    /// Tell the operator that a segment is damaged or breaks a rule.
    SegmentFault {
        /// The segment.
        segment: SegmentName,
        /// The damage, or the rule.
        reason: String,
    },
    /// Read where the stored history begins.
    ReadHistory(RangeKey),
    /// Write the commits under this key below the stored history. Keep them until they are discarded.
    Prepend(RangeKey),
    /// Answer the node's own consensus.
    LocalAnswer {
        /// The commit.
        key: RangeKey,
        /// Accepted and durable, or why not.
        result: Result<(), LocalCommitError>,
    },
}

/// StateSync's state as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Highest durable commit.
    pub applied: CommitIndex,
    /// Highest verified and linked commit, durable or not.
    pub linked: CommitIndex,
    /// Highest commit that a peer advertises.
    pub target: CommitIndex,
    /// Epoch of the next commit.
    pub epoch: Epoch,
    /// Running workers.
    pub workers: usize,
    /// Planned ranges that are not linked.
    pub ranges: usize,
    /// Bytes reserved or waiting to be written.
    pub bytes_in_flight: u64,
    /// Commits verified by workers since start, kept or not.
    pub commits_fetched: u64,
    /// Blocks verified by workers since start, kept or not.
    pub blocks_fetched: u64,
    /// Bytes verified by workers since start, kept or not.
    pub bytes_fetched: u64,
    /// Verified commits that the archive served since start.
    pub commits_from_archive: u64,
    /// Verified commits that were already linked on arrival.
    pub commits_discarded: u64,
    /// Workers that ended without a result since start.
    pub worker_failures: u64,
    /// What StateSync is doing.
    pub progress: Progress,
    /// Time of the last progress, in milliseconds since 1970. Set once there is work and no commit has become durable
    /// for [`STUCK_AFTER`](super::STUCK_AFTER).
    pub stuck_since_ms: Option<TimestampMs>,
    /// Peers that delay the next commit.
    pub late: Option<Late>,
    /// The next commit of the slowest executor.
    pub slowest_executor: Option<CommitIndex>,
    /// The last failure of an executor's stream, until an executor passes the failed commit.
    pub executor_failure: Option<ExecutorFailure>,
    /// Progress of fetching the commits before the stored history. Set once it has begun.
    pub backfill: Option<BackfillProgress>,
}

/// Peers that delay the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// The commit.
    pub commit: CommitIndex,
    /// Number of silent peers.
    pub silent: usize,
    /// Time since the first peer was asked.
    pub waited: Duration,
}
