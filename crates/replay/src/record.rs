//! The records of a trace.

use serde::{Deserialize, Serialize};
use soma_protocol::Now;
use soma_types::ContentDigest;

/// The start of each file of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the software that recorded the trace. Replay needs the same version.
    pub software: String,
    /// Identifies the run of the process: its start in milliseconds of Unix time, or a simulation's seed.
    pub run: u64,
    /// Number of this file in the run. The ring has dropped the missing files before it.
    pub file: u64,
}

/// One record. All records of a run share one sequence of numbers, in the order of their events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The whole state of a core. Replay starts here, or checks that the replayed core has the same state.
    State(State),
    /// A message to a core.
    Entry(Entry),
    /// Messages that were not recorded.
    Gap(Gap),
    /// An actor ended.
    Ended(Ended),
}

impl Record {
    /// The record's number in the run.
    pub fn number(&self) -> u64 {
        match self {
            Self::State(state) => state.number,
            Self::Entry(entry) => entry.number,
            Self::Gap(gap) => gap.number,
            Self::Ended(ended) => ended.number,
        }
    }
}

/// The state of a core before the records that follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Number of this record.
    pub number: u64,
    /// Time of the record.
    pub at: Now,
    /// Identifies one incarnation of one actor within the run.
    pub actor: u64,
    /// The name of its core.
    pub name: String,
    /// The core's node; empty if there is only one.
    pub node: String,
    /// The core in its serde encoding, with its configuration and seed.
    #[serde(with = "serde_bytes")]
    pub core: Vec<u8>,
}

/// A message to a core, and the core's decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Number of this record.
    pub number: u64,
    /// The time that the core was given.
    pub at: Now,
    /// The receiver: an incarnation of an actor.
    pub actor: u64,
    /// Name of the sender.
    pub sender: String,
    /// Number of the record that caused it.
    pub cause: Option<u64>,
    /// Number of the first record of its causal chain.
    pub span: u64,
    /// The core's input.
    #[serde(with = "serde_bytes")]
    pub input: Vec<u8>,
    /// The core's decision.
    pub decision: Decision,
}

/// The decision of a core on an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// The core returned effects.
    Effects {
        /// Digest of the effects' encoding.
        digest: ContentDigest,
        /// The effects' encoding, unless it is long.
        effects: Option<serde_bytes::ByteBuf>,
    },
    /// The core panicked, with this message.
    Panicked(String),
}

/// Records that are missing because the writer was behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Number of this record.
    pub number: u64,
    /// The incarnation of an actor whose messages are missing.
    pub actor: u64,
    /// Number of missing messages.
    pub missed: u64,
}

/// The end of an actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Number of this record.
    pub number: u64,
    /// Time of the end.
    pub at: Now,
    /// The name of its core.
    pub name: String,
    /// The actor's node.
    pub node: String,
    /// The reason for the end.
    pub exit: String,
}
