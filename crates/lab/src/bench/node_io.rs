//! The interface between the benchmark and its nodes: the setup on standard input, the events on standard output.

use super::message_load::{Heard, MessageWork, Sent};
use serde::{Deserialize, Serialize};
use soma_p2p::{Address, CommitIndex, Config, PeerId};
use soma_p2p_cli::CliError;
use std::{
    io::{self, Write},
    path::PathBuf,
};

/// The job of a node in a benchmark.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// The chain's genesis file.
    pub(crate) genesis: PathBuf,
    /// The store, made if it is not there.
    pub(crate) store: PathBuf,
    /// The secret half of its network key.
    pub(crate) key: [u8; 32],
    /// Its configuration.
    pub(crate) config: Config,
    /// Whether transactions are opaque bytes instead of certificates.
    pub(crate) opaque: bool,
    /// What it has to do with messages besides.
    pub(crate) messages: MessageWork,
    /// The job.
    pub(crate) role: Role,
}

/// What a node does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Answers its peers until it is stopped.
    Serve,
    /// Fetches the chain up to a commit, measuring itself.
    Sync {
        /// The last commit.
        last: CommitIndex,
    },
    /// Starts, and does nothing until it is stopped.
    Start,
    /// Fetches the chain up to a commit from wherever it begins, measuring itself. The executor digests every block.
    Execute {
        /// The last commit.
        last: CommitIndex,
    },
    /// Hands over commits of its own, once it is connected to a peer both ways.
    Propose(SendRate),
    /// Takes commits up to one, noting when each comes.
    Take {
        /// The last commit.
        last: CommitIndex,
    },
}

/// What a node tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub(crate) enum Event {
    /// It listens.
    Ready {
        /// The peer's id.
        peer_id: PeerId,
        /// Where.
        address: Address,
    },
    /// How far its executor has got.
    Progress(Sample),
    /// Its executor has been given the last commit, which is durable.
    Synced(Synced),
    /// It has handed over all commits, and began each of them at this time.
    Handed(CommitTimes),
    /// Its executor was given these commits.
    Taken(CommitTimes),
    /// It has sent a load of messages.
    Sent(Sent),
    /// It has sent all loads.
    AllSent,
    /// Messages that it has heard, told when a sync has ended or before it stops.
    Heard {
        /// Every load.
        loads: Vec<Heard>,
    },
    /// It has fetched all objects.
    Fetched(Fetched),
    /// The first chunk of a snapshot has come in this life of the node.
    FirstChunk,
    /// Chunks that it has read for peers, told before it stops.
    ServedChunks {
        /// How many.
        chunks: u64,
    },
    /// It ends. Its resources: of a server since it was ready, of others since the start of the system.
    Stopped {
        /// CPU seconds, user and system.
        cpu_s: f64,
        /// Most memory that it has held, in MiB.
        peak_rss_mib: Option<f64>,
    },
}

/// How far an executor has got at some time.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds since the system was started.
    pub(crate) seconds: f64,
    /// Last commit that it was given.
    pub(crate) commit: CommitIndex,
    /// Blocks of all that it was given.
    pub(crate) blocks: u64,
    /// Bytes of these blocks.
    pub(crate) bytes: u64,
    /// CPU seconds that the process has used.
    pub(crate) cpu_s: f64,
}

/// A sync, from the start of the system until the executor had its last commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Synced {
    /// Received commits, and the time of the last one.
    pub(crate) end: Sample,
    /// CPU seconds, user and system.
    pub(crate) cpu_s: f64,
    /// Most memory that the process has held, in MiB.
    pub(crate) peak_rss_mib: Option<f64>,
}

/// Objects that a node has fetched.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Fetched {
    /// Objects, or chunks of a snapshot.
    pub(crate) objects: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// From the first call until the last object was there.
    pub(crate) seconds: f64,
    /// CPU seconds of this time, user and system.
    pub(crate) cpu_s: f64,
    /// Milliseconds of each call, if they were made one after the other.
    pub(crate) latencies_ms: Vec<f64>,
    /// Most memory that the process has held, in MiB.
    pub(crate) peak_rss_mib: Option<f64>,
}

/// Commits at a rate.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SendRate {
    /// How many, from the first of the chain on.
    pub(crate) commits: u32,
    /// How many in a second.
    pub(crate) per_second: u32,
}

/// When a node had to do with each commit, in nanoseconds of the machine's monotonic clock: from commit 1 on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CommitTimes {
    pub(crate) at_ns: Vec<u64>,
}

/// Tells the benchmark, which reads everything at once.
pub(crate) fn tell(event: &Event) -> Result<(), CliError> {
    let line = serde_json::to_string(event).map_err(CliError::failed)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(CliError::failed)
}
