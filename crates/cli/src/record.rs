//! What happened at one node, line by line, over all its lives: `soma-p2p chaos` counts from it.
//!
//! ```text
//! opened 120                    by the node: what its store has as it starts, before it fetches anything
//! given 121 3f2a...             by the node: its executor was given commit 121; the digest of all up to it
//! acknowledged 122              by the node: a commit of its own consensus is durable
//! killed 7                      by the parent: the network's 7th kill ended it
//! announced 122 validator-0     by the parent: who has heard from it that it has commit 122
//! stored 4711                   by the parent, before the first start and at the end: the store has commits 1 to 4711
//! ```
//!
//! A line is written as a whole or did not happen: one that a kill has cut off is removed.

use crate::error::CliError;
use soma_p2p::{CommitIndex, SubDagDigest};
use std::{
    fmt,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    str::FromStr,
};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The node starts with this height on its disk.
    Opened {
        /// Highest synced commit of the store.
        height: CommitIndex,
    },
    /// Its executor was given this commit.
    Given {
        /// The commit.
        index: CommitIndex,
        /// Digest of all commits up to it.
        digest: SubDagDigest,
    },
    /// It has said to its consensus that this commit is durable.
    Acknowledged {
        /// The commit.
        index: CommitIndex,
    },
    /// It was killed, as the so manieth of its network.
    Killed {
        /// Counts the kills of the network, from 1.
        number: u32,
    },
    /// Another node has heard of this commit from it.
    Announced {
        /// The commit.
        index: CommitIndex,
        /// Name of the node that heard it.
        to: String,
    },
    /// The store has all commits up to this one, and no process has it open.
    Stored {
        /// Highest synced commit of the store.
        height: CommitIndex,
    },
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { height } => write!(f, "opened {height}"),
            Self::Given { index, digest } => write!(f, "given {index} {digest}"),
            Self::Acknowledged { index } => write!(f, "acknowledged {index}"),
            Self::Killed { number } => write!(f, "killed {number}"),
            Self::Announced { index, to } => write!(f, "announced {index} {to}"),
            Self::Stored { height } => write!(f, "stored {height}"),
        }
    }
}

/// A line that is no entry.
#[derive(Debug, thiserror::Error)]
#[error("{line:?} is no entry of a record")]
pub struct NoEntry {
    line: String,
}

impl FromStr for Entry {
    type Err = NoEntry;

    fn from_str(line: &str) -> Result<Self, NoEntry> {
        let words: Vec<_> = line.split(' ').collect();
        let number = words.get(1).and_then(|word| word.parse().ok());
        match (words.as_slice(), number) {
            (["opened", _], Some(height)) => Some(Self::Opened { height }),
            (["stored", _], Some(height)) => Some(Self::Stored { height }),
            // Executors begin with commit 1.
            (["given", _, digest], Some(index)) if index > 0 => {
                digest.parse().ok().map(|digest| Self::Given { index, digest })
            }
            (["acknowledged", _], Some(index)) => Some(Self::Acknowledged { index }),
            (["killed", _], Some(number)) => Some(Self::Killed { number }),
            (["announced", _, to], Some(index)) => Some(Self::Announced { index, to: (*to).to_owned() }),
            _ => None,
        }
        .ok_or_else(|| NoEntry { line: line.to_owned() })
    }
}

/// A record that is written. What a kill leaves behind of a write to a file is there for the next process, which is all
/// that is needed here: only a node's store has to survive the machine.
#[derive(Debug)]
pub struct Record {
    file: File,
    path: PathBuf,
}

impl Record {
    /// Opens or makes a record, without the line that a kill has cut off.
    pub fn open(path: &Path) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| CliError::failed(format!("record {}: {error}", path.display()));
        let file = File::options().create(true).append(true).open(path).map_err(failed)?;
        let bytes = fs::read(path).map_err(failed)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(failed)?;
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// Adds a line, with one write.
    pub fn append(&self, entry: &Entry) -> Result<(), CliError> {
        let written = (&self.file).write_all(format!("{entry}\n").as_bytes());
        written.map_err(|error| CliError::failed(format!("record {}: {error}", self.path.display())))
    }
}

/// All lines of a record, but the one that a kill has cut off.
pub fn read(path: &Path) -> Result<Vec<Entry>, CliError> {
    let failed = |error: String| CliError::failed(format!("record {}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let whole = text.split_inclusive('\n').enumerate().filter(|(_, line)| line.ends_with('\n'));
    whole
        .map(|(at, line)| line.trim_end().parse().map_err(|error| failed(format!("line {}: {error}", at + 1))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_reads_back_without_the_line_that_a_kill_tore() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.log");
        let entries = [
            Entry::Opened { height: 3 },
            Entry::Given { index: 4, digest: SubDagDigest::default() },
            Entry::Acknowledged { index: 5 },
            Entry::Killed { number: 2 },
            Entry::Announced { index: 5, to: "validator-0".into() },
            Entry::Stored { height: 5 },
        ];
        let record = Record::open(&path).unwrap();
        entries.iter().for_each(|entry| record.append(entry).unwrap());
        (&record.file).write_all(b"given 6 00").unwrap();
        assert_eq!(read(&path).unwrap(), entries);
        Record::open(&path).unwrap().append(&entries[0]).unwrap();
        assert_eq!(read(&path).unwrap(), [&entries[..], &entries[..1]].concat());
    }

    #[test]
    fn a_line_that_is_no_entry_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.log");
        fs::write(&path, "opened 3\ngiven 4 zz\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("record.log: line 2: \"given 4 zz\""), "{error}");
    }
}
