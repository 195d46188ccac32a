//! The executor of `soma-p2p node`: it takes every commit in order, as a real one would, and keeps a running digest
//! of all it was given. Where it has got is saved now and then; after a crash it goes on from there.

use crate::{
    error::CliError,
    files,
    record::{self, Entry, Record},
};
use serde::{Deserialize, Serialize};
use soma_p2p::{CommitIndex, FjallStore, Handle, PruningConfig, Store, SubDagDigest, SyncedCommits};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Number of commits between two saves, where enough time passes.
const SAVE_EVERY: CommitIndex = 1_000;

/// Minimum time between two such saves. A save costs two writes of the disk's journal, 8 ms, and a sync passes
/// [`SAVE_EVERY`] commits 30 times in a second.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Commits between two saves of a node with the smallest window, of 100 commits. A node that prunes saves its state twice
/// in a window, so that a crash never sets the executor back to a pruned commit.
const SAVE_EVERY_AT_LEAST: CommitIndex = 50;

/// How far the executor has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executed {
    /// Last commit taken.
    pub index: CommitIndex,
    /// Digest over all up to it.
    pub digest: SubDagDigest,
}

/// The same as text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecutedText {
    /// Last commit taken.
    pub index: CommitIndex,
    /// Hex digest over all up to it.
    pub digest: String,
}

impl From<Executed> for ExecutedText {
    fn from(executed: Executed) -> Self {
        Self { index: executed.index, digest: executed.digest.to_string() }
    }
}

impl Executed {
    /// The commit to begin with. Without state, it is 0: the first one that the node has.
    pub fn next(self) -> CommitIndex {
        if self.index == 0 { 0 } else { self.index.saturating_add(1) }
    }

    /// Where the executor stopped, or the beginning.
    pub fn load(path: &Path) -> Result<Self, CliError> {
        let wrong = |error: String| {
            CliError::input(format!("{} is not valid: {error}; remove it to execute from the start", path.display()))
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(CliError::input(format!("{} cannot be read: {error}", path.display()))),
        };
        let saved: ExecutedText = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { index: saved.index, digest: saved.digest.parse().map_err(|error| wrong(format!("{error}")))? })
    }

    fn save(self, path: &Path) {
        let text = serde_json::to_vec(&ExecutedText::from(self)).unwrap_or_default();
        if let Err(error) = files::replace(path, &text) {
            tracing::error!(path = %path.display(), %error, "executor state not saved; it will start further back");
        }
    }
}

/// When an executor saves its state.
#[derive(Clone, Copy, Debug)]
pub struct SaveRule {
    /// Largest number of commits between two saves, if there is one.
    at_most: Option<CommitIndex>,
}

impl SaveRule {
    /// Twice in a window at least on a node that prunes.
    pub fn of(pruning: &PruningConfig) -> Self {
        let at_most = match pruning.commits {
            _ if pruning.keeps_all() => None,
            // Windows of epochs and of time may be shorter.
            None => Some(SAVE_EVERY_AT_LEAST),
            Some(commits) => Some((commits / 2).max(SAVE_EVERY_AT_LEAST)),
        };
        Self { at_most }
    }

    /// Whether to save the state after this commit.
    pub fn is_due(self, index: CommitIndex, saved_at: Instant) -> bool {
        let must = self.at_most.is_some_and(|commits| index.is_multiple_of(commits));
        must || index.is_multiple_of(SAVE_EVERY) && saved_at.elapsed() >= SAVE_INTERVAL
    }
}

/// Where an executor keeps how far it has got.
#[derive(Clone)]
pub enum Keep {
    /// A file with its state, saved now and then: after a crash it is given again what came since.
    State {
        /// The file.
        path: PathBuf,
        /// When.
        rule: SaveRule,
    },
    /// A record of every commit, which is its state: what stands in it has been executed, and what does not has not.
    Record(Arc<Record>),
}

impl Keep {
    /// Saves the state, and where it stands; more often on a node that prunes.
    pub fn state(path: PathBuf, pruning: &PruningConfig) -> Result<(Self, Executed), CliError> {
        let executed = Executed::load(&path)?;
        Ok((Self::State { path, rule: SaveRule::of(pruning) }, executed))
    }

    /// Keeps a record, and where it ends.
    pub fn record(path: &Path) -> Result<(Self, Executed), CliError> {
        let record = Record::open(path)?;
        let last = record::read(path)?.into_iter().rev().find_map(|entry| match entry {
            Entry::Given { index, digest } => Some(Executed { index, digest }),
            _ => None,
        });
        Ok((Self::Record(Arc::new(record)), last.unwrap_or_default()))
    }

    /// Notes what the store has before anything is fetched.
    pub fn opened(&self, store: &FjallStore) -> Result<(), CliError> {
        let height = store.watermarks().map_err(CliError::failed)?.highest_synced.index;
        self.note(&Entry::Opened { height })
    }

    /// Notes that a commit of the node's own consensus is durable.
    pub fn acknowledged(&self, index: CommitIndex) -> Result<(), CliError> {
        self.note(&Entry::Acknowledged { index })
    }

    fn note(&self, entry: &Entry) -> Result<(), CliError> {
        match self {
            Self::State { .. } => Ok(()),
            Self::Record(record) => record.append(entry),
        }
    }

    /// Notes what has been executed. `saved_at` is when the state was last saved.
    fn executed(&self, executed: Executed, saved_at: &mut Instant) -> Result<(), CliError> {
        if let Self::State { path, rule } = self
            && rule.is_due(executed.index, *saved_at)
        {
            executed.save(path);
            *saved_at = Instant::now();
        }
        self.note(&Entry::Given { index: executed.index, digest: executed.digest })
    }
}

/// Executes until the system stops. For a thread of its own: it writes to a disk that may never answer, which must hold
/// up neither signals nor the admin endpoint.
pub fn run(system: &Handle, from: Executed, progress: &watch::Sender<Executed>, keep: &Keep) {
    let (mut executed, mut saved_at) = (from, Instant::now());
    let mut commits: SyncedCommits = system.synced_commits(from.next());
    while let Some(commit) = commits.blocking_next() {
        let done = commit.map_err(CliError::failed).and_then(|commit| {
            executed.digest.push(&commit);
            executed.index = commit.commit_ref.index;
            keep.executed(executed, &mut saved_at)
        });
        if let Err(error) = done {
            tracing::error!(%error, "the executor cannot go on");
            break;
        }
        progress.send_replace(executed);
    }
    if let Keep::State { path, .. } = keep {
        executed.save(path);
    }
}
