//! The kinds of blocks with which speed is measured, so that every benchmark means the same by their names.

use crate::{ChainBuilder, ChainSpec, Payload, SpecError};
use std::{fmt, str::FromStr};

/// Commits of the chain that is built to see how long blocks are; the first one is shorter than the others.
const PROBE_COMMITS: usize = 16;

/// A kind of block: its mean length and how many signatures it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "simulation", derive(serde::Serialize, serde::Deserialize))]
pub enum BlockKind {
    /// 600 bytes, its author's signature.
    S,
    /// 4,096 bytes, its author's signature.
    L,
    /// 1,500 bytes with one certificate: the signatures of its author, of a sender and of a quorum of three.
    C,
}

impl BlockKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::S, Self::L, Self::C];

    /// Mean length of a signed block in bytes.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::S => 600,
            Self::L => 4_096,
            Self::C => 1_500,
        }
    }

    /// Signatures in one block.
    pub fn signatures(self) -> usize {
        match self {
            Self::S | Self::L => 1,
            Self::C => 5,
        }
    }

    /// What a transaction in such a block is.
    pub fn payload(self) -> Payload {
        match self {
            Self::S | Self::L => Payload::Opaque,
            Self::C => Payload::Certified,
        }
    }

    /// `like` with blocks of this kind: one transaction in each, of the length that makes the mean block as long as
    /// it is to be. The committee should be the default one: its size decides how many sign a certificate.
    pub fn spec(self, like: ChainSpec) -> Result<ChainSpec, SpecError> {
        let mut spec = ChainSpec { transactions_per_block: 1, payload: self.payload(), payload_bytes: 256, ..like };
        let found = mean_block_bytes(&spec)?;
        // One byte of payload is one byte of block.
        spec.payload_bytes = (spec.payload_bytes + self.block_bytes()).saturating_sub(found);
        Ok(spec)
    }
}

fn mean_block_bytes(spec: &ChainSpec) -> Result<usize, SpecError> {
    let commits = ChainBuilder::new(spec.clone())?.build(PROBE_COMMITS);
    let blocks = || commits.iter().flat_map(|commit| &commit.blocks);
    Ok(blocks().map(|block| block.bytes().len()).sum::<usize>() / blocks().count().max(1))
}

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::S => "S",
            Self::L => "L",
            Self::C => "C",
        })
    }
}

/// A name that is no kind's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of block: there are S, L and C")]
pub struct UnknownKind(String);

impl FromStr for BlockKind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.to_string() == name).ok_or_else(|| UnknownKind(name.into()))
    }
}
