//! The executor of `soma-p2p node`: it takes every commit in order, as a real one would, and keeps a running digest
//! of all it was given. Where it has got is saved now and then; after a crash it goes on from there.

use crate::{error::CliError, files};
use serde::{Deserialize, Serialize};
use soma_p2p::{CommitIndex, Handle, SubDagDigest, SyncedCommits};
use std::{fs, path::Path};
use tokio::sync::watch;

/// Commits between two saves.
const SAVE_EVERY: CommitIndex = 1_000;

/// How far the executor has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Executed {
    /// Last commit taken.
    pub(crate) index: CommitIndex,
    /// Digest over all up to it.
    pub(crate) digest: SubDagDigest,
}

/// The same as text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ExecutedText {
    /// Last commit taken.
    pub(crate) index: CommitIndex,
    /// Hex digest over all up to it.
    pub(crate) digest: String,
}

impl From<Executed> for ExecutedText {
    fn from(executed: Executed) -> Self {
        Self { index: executed.index, digest: executed.digest.to_string() }
    }
}

impl Executed {
    /// Where the executor stopped, or the beginning.
    pub(crate) fn load(path: &Path) -> Result<Self, CliError> {
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

/// Executes until the system stops, then saves.
pub(crate) async fn run(system: Handle, from: Executed, progress: watch::Sender<Executed>, path: std::path::PathBuf) {
    let mut executed = from;
    let mut commits: SyncedCommits = system.synced_commits(from.index.saturating_add(1));
    while let Some(commit) = commits.next().await {
        match commit {
            Ok(commit) => {
                executed.digest.push(&commit);
                executed.index = commit.commit_ref.index;
                progress.send_replace(executed);
                if executed.index.is_multiple_of(SAVE_EVERY) {
                    executed.save(&path);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the executor cannot go on");
                break;
            }
        }
    }
    executed.save(&path);
}
