//! The nouns of the scenario language: nodes and times.

use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// A node by its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeName {
    /// A member of the committee: its consensus makes the commits that are made while the simulation runs.
    Validator(u32),
    /// A node that only follows.
    Full(u32),
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Validator(number) => write!(f, "validator({number})"),
            Self::Full(number) => write!(f, "full({number})"),
        }
    }
}

impl NodeName {
    /// How traces call it: a name that needs no quotes in a shell.
    pub fn in_traces(self) -> String {
        match self {
            Self::Validator(number) => format!("validator-{number}"),
            Self::Full(number) => format!("full-{number}"),
        }
    }
}

/// The validator of this number, from 0.
pub fn validator(number: u32) -> NodeName {
    NodeName::Validator(number)
}

/// The full node of this number, from 0.
pub fn full(number: u32) -> NodeName {
    NodeName::Full(number)
}

/// This many seconds of virtual time.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// This many milliseconds of virtual time.
pub const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A time as the scenario language has it.
pub(super) struct Time(pub(super) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            whole if whole % 1000 == 0 => write!(f, "secs({})", whole / 1000),
            milliseconds => write!(f, "millis({milliseconds})"),
        }
    }
}
