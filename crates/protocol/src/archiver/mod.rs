//! Archiver: writes the node's history into an archive, one segment after another, and reads segments for StateSync.
//!
//! ```text
//!   Locate --Located--> Write --Written--> Write, while complete segments are left
//!     ^                   |                    '--> Waiting, until a segment is complete
//!     '-- backs off <-- failed, or another writer was faster
//!
//!   Read --> running --ReadDone-->       at most MAX_READS at once, MAX_WAITING wait
//! ```
//!
//! Always:
//! - One segment at a time is on its way, so an archive that is slow or down costs the node no memory.
//! - A commit counts as archived once the archive has confirmed its segment. StoreWriter prunes no other.
//! - A failure never stops the node: the Archiver tries again, and says since when it fails.

mod reads;
mod upload;

use crate::core::{Core, Now};
use reads::Reads;
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, TimestampMs};
use std::time::Duration;
use strum::VariantNames;
use upload::Upload;

pub use reads::{MAX_READS, MAX_WAITING};

/// Settings of the Archiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Where the archive is. Without credentials.
    pub place: String,
    /// Whether the node writes to the archive.
    pub writes: bool,
    /// Bytes that it writes in a second; 0: any number.
    pub max_bytes_per_second: u64,
    /// Commits that complete a segment.
    pub segment_commits: CommitIndex,
    /// Bytes of blocks that complete a segment.
    pub segment_bytes: u64,
}

/// Inputs of the Archiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
pub enum Input {
    /// From the shell: the requested wake time has come.
    Wake,
    /// From StateSync: further commits are durable.
    Durable {
        /// The last one.
        highest: CommitIndex,
        /// Bytes of their blocks.
        bytes: u64,
        /// The last commit of an epoch, if one is among them.
        ended: Option<CommitIndex>,
    },
    /// From the storage, answering [`Effect::Locate`].
    Located {
        /// The first stored commit that the archive lacks, or the error.
        result: Result<CommitIndex, String>,
    },
    /// From the storage, answering [`Effect::Write`].
    Written {
        /// What was written, or the error.
        result: Result<Written, String>,
    },
    /// From StateSync: list an epoch, or read a segment.
    Read {
        /// The job's number in the shell.
        job: u64,
    },
    /// From the storage: the read has ended and is answered.
    ReadDone {
        /// The job.
        job: u64,
        /// Bytes of the segment; 0 for a listing.
        bytes: u64,
        /// The error, if the read failed.
        error: Option<String>,
    },
}

/// The result of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Written {
    /// The archive has the segment.
    Segment {
        /// Its last commit.
        last: CommitIndex,
        /// Its bytes.
        bytes: u64,
        /// Whether this node wrote it. Another writer may have been faster.
        is_new: bool,
    },
    /// No segment is complete yet.
    NotYet,
}

/// Effects of the Archiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Find the first stored commit that the archive lacks.
    Locate,
    /// Write the segment that begins with this commit, if it is complete.
    Write {
        /// The commit.
        first: CommitIndex,
    },
    /// Tell StoreWriter that the archive has all commits before this one.
    Archived {
        /// The commit.
        next: CommitIndex,
    },
    /// Begin the read.
    Run(u64),
    /// Tell StateSync that too many reads wait.
    Refuse(u64),
}

/// What writing is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The node does not write to the archive.
    Off,
    /// Looking for the first commit that the archive lacks.
    Locating,
    /// Writing a segment, or waiting for the bandwidth limit.
    Writing,
    /// The archive has every complete segment.
    UpToDate,
    /// The last attempt failed. The next one follows.
    Failing,
}

/// Why the archive cannot be used, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The last error.
    pub reason: String,
    /// Time of the first error in a row, in milliseconds since 1970.
    pub since_ms: TimestampMs,
    /// Errors in a row.
    pub attempts: u32,
}

impl Failure {
    /// Adds an error to those in a row.
    fn add(failure: &mut Option<Self>, now: Now, reason: String) {
        let (since_ms, attempts) =
            failure.as_ref().map_or((now.unix_ms, 0), |failure| (failure.since_ms, failure.attempts));
        *failure = Some(Self { reason, since_ms, attempts: attempts.saturating_add(1) });
    }
}

/// The Archiver's state as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Where the archive is.
    pub place: String,
    /// What writing is at.
    pub state: State,
    /// The first commit that the archive lacks. `None` until it is located.
    pub next: Option<CommitIndex>,
    /// Durable commits that the archive lacks, those of an incomplete segment included.
    pub behind: Option<CommitIndex>,
    /// Segments written since start.
    pub segments_written: u64,
    /// Bytes written since start.
    pub bytes_written: u64,
    /// Why writing fails, until it succeeds.
    pub failure: Option<Failure>,
    /// Segments read since start.
    pub segments_read: u64,
    /// Bytes read since start.
    pub bytes_read: u64,
    /// Why reading fails, until it succeeds.
    pub read_failure: Option<Failure>,
}

/// The core of the Archiver.
#[derive(Serialize, Deserialize)]
pub struct Archiver {
    config: Config,
    upload: Upload,
    reads: Reads,
}

impl Archiver {
    /// Begins with nothing known of the archive. `highest` is the last durable commit.
    pub fn new(config: Config, highest: CommitIndex) -> Self {
        Self { upload: Upload::new(config.writes, highest), config, reads: Reads::default() }
    }
}

impl Core for Archiver {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = Snapshot;

    const NAME: &'static str = "archiver";

    fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            // The step after every input starts what is due.
            Input::Wake => {}
            Input::Durable { highest, bytes, ended } => {
                self.upload.on_durable(&self.config, highest, bytes, ended);
                effects.extend(self.upload.archived());
            }
            Input::Located { result } => effects.extend(self.upload.on_located(now, result)),
            Input::Written { result } => effects.extend(self.upload.on_written(now, &self.config, result)),
            Input::Read { job } => effects.extend(self.reads.on_read(job)),
            Input::ReadDone { job, bytes, error } => effects.extend(self.reads.on_done(now, job, bytes, error)),
        }
        effects.extend(self.upload.advance(now));
        effects
    }

    fn wake() -> Option<Input> {
        Some(Input::Wake)
    }

    fn next_wake(&self) -> Option<Duration> {
        self.upload.wake_at()
    }

    fn snapshot(&self) -> Snapshot {
        let Upload { next, failure, segments, bytes_written, .. } = &self.upload;
        Snapshot {
            place: self.config.place.clone(),
            state: self.upload.state(),
            next: *next,
            behind: self.upload.behind(),
            segments_written: *segments,
            bytes_written: *bytes_written,
            failure: failure.clone(),
            segments_read: self.reads.segments,
            bytes_read: self.reads.bytes,
            read_failure: self.reads.failure.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
