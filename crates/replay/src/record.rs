//! What a trace is made of.

use serde::{Deserialize, Serialize};
use soma_protocol::Now;
use soma_types::ContentDigest;

/// The start of each file of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the software that recorded, for whoever must replay with the same one.
    pub software: String,
    /// Names the run of the process: its start in milliseconds of Unix time; a simulation's seed.
    pub run: u64,
    /// Number of this file in the run. Files before it that are not there any more were dropped by the ring.
    pub file: u64,
}

/// One record. All records of a run are numbered in one sequence, in the order in which they came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The whole state of a core: replay starts here, and a replay that gets here checks that it is equal.
    State(State),
    /// A message that a core was given.
    Entry(Entry),
    /// Messages that could not be recorded.
    Gap(Gap),
    /// An actor ended.
    Ended(Ended),
}

impl Record {
    /// Its number in the run.
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
    /// When.
    pub at: Now,
    /// Names one incarnation of one actor within the run.
    pub actor: u64,
    /// The name of its core.
    pub name: String,
    /// The node it belongs to; empty where there is only one.
    pub node: String,
    /// The core with its configuration, seed and all, as its serde implementation writes it.
    #[serde(with = "serde_bytes")]
    pub core: Vec<u8>,
}

/// A message on its way into a core, and what the core made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Number of this record.
    pub number: u64,
    /// The time that the core was told.
    pub at: Now,
    /// To whom.
    pub actor: u64,
    /// From whom.
    pub sender: String,
    /// The record that it follows from.
    pub cause: Option<u64>,
    /// The first record of its causal chain.
    pub span: u64,
    /// The core's input.
    #[serde(with = "serde_bytes")]
    pub input: Vec<u8>,
    /// What came of it.
    pub decision: Decision,
}

/// What a core made of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// It decided on effects.
    Effects {
        /// Digest of their encoding.
        digest: ContentDigest,
        /// Their encoding, unless it is long.
        effects: Option<serde_bytes::ByteBuf>,
    },
    /// It panicked.
    Panicked(String),
}

/// Records that are missing because the writer was behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Number of this record.
    pub number: u64,
    /// Whose messages.
    pub actor: u64,
    /// How many.
    pub missed: u64,
}

/// The end of an actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Number of this record.
    pub number: u64,
    /// When.
    pub at: Now,
    /// The name of its core.
    pub name: String,
    /// The node it belonged to.
    pub node: String,
    /// How it ended, in words.
    pub exit: String,
}
