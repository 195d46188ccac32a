//! The executor: takes every commit in order, and takes snapshots.

use super::{
    Execution, Ledger, join, ledger_dir,
    state::{FORMAT, State},
};
use soma_p2p::{Builder, CommitRef, FjallStore, Handle, ObjectId, SnapshotDirectory, SnapshotError};
use soma_p2p_cli::{
    CliError,
    executor::Executed,
    node::{Execute, Parts},
};
use std::{
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};

/// Snapshots that a node keeps. A node that has begun to fetch the older one has the time between two to end.
const KEPT_SNAPSHOTS: usize = 2;

/// How long one attempt to join may take. A further one goes on with the chunks that there are.
const JOIN_TIME: Duration = Duration::from_secs(60);

/// An executor and its disk.
pub(crate) struct Executor {
    ledger: Ledger,
    snapshots: SnapshotDirectory,
    store: Arc<FjallStore>,
    execution: Execution,
    /// Whether snapshots go into the archive.
    archives: bool,
}

impl Executor {
    /// Opens the ledger and the snapshots of a node.
    pub(crate) fn open(parts: &Parts<'_>, execution: Execution) -> Result<Self, CliError> {
        let data_dir = &parts.config.data_dir;
        Ok(Self {
            ledger: Ledger::open(&ledger_dir(data_dir), &parts.config.p2p.pruning)?,
            snapshots: SnapshotDirectory::new(data_dir.join("snapshots"), parts.genesis.chain_id()),
            store: parts.store.clone(),
            execution,
            archives: parts.config.p2p.archive.write,
        })
    }

    /// Lets peers fetch the snapshots.
    pub(crate) fn serve_snapshots(&self, builder: Builder) -> Builder {
        builder.object_source(Arc::new(self.snapshots.clone()))
    }

    /// What the node runs on a thread of its own.
    pub(crate) fn into_task(mut self) -> Execute {
        Box::new(move |handle, progress| {
            let done = self.run(handle, progress).and_then(|()| self.ledger.save());
            if let Err(error) = done {
                tracing::error!(%error, "the executor cannot go on");
            }
        })
    }

    fn run(&mut self, handle: &Handle, progress: &watch::Sender<Executed>) -> Result<(), CliError> {
        if self.execution.join_snapshot && self.ledger.executed() == Executed::default() && !self.join(handle)? {
            return Ok(());
        }
        let executed = self.ledger.executed();
        progress.send_replace(executed);
        let mut archiving: Option<JoinHandle<()>> = None;
        let mut commits = handle.synced_commits(executed.next());
        while let Some(commit) = commits.blocking_next() {
            let commit = commit.map_err(CliError::failed)?;
            self.ledger.apply(&commit)?;
            if commit.commit_ref.index.is_multiple_of(self.execution.snapshot_every) {
                let snapshot = self.take_snapshot(commit.commit_ref)?;
                // One at a time: while the archive is slow, the snapshots in between stay out of it.
                if self.archives && archiving.as_ref().is_none_or(JoinHandle::is_finished) {
                    archiving = Some(tokio::runtime::Handle::current().spawn(archive(handle.clone(), snapshot)));
                }
            }
            progress.send_replace(self.ledger.executed());
        }
        Ok(())
    }

    fn take_snapshot(&self, commit: CommitRef) -> Result<ObjectId, CliError> {
        let mut writer = self.snapshots.write(commit, FORMAT);
        let written = writer.write_all(&self.ledger.state().encode()).and_then(|()| writer.finish());
        let kept = written.and_then(|manifest| self.snapshots.retain(KEPT_SNAPSHOTS).map(|()| manifest));
        let manifest = kept.map_err(|error| CliError::failed(format!("a snapshot cannot be written: {error}")))?;
        tracing::debug!(commit = commit.index, bytes = manifest.bytes, "took a snapshot");
        Ok(manifest.id())
    }

    /// Begins with a snapshot. `false` if the node stops before.
    fn join(&mut self, handle: &Handle) -> Result<bool, CliError> {
        let sink = Arc::new(join::Sink::new(self.snapshots.clone(), self.store.clone()));
        let runtime = tokio::runtime::Handle::current();
        let manifest = loop {
            match runtime.block_on(handle.fetch_snapshot(None, sink.clone(), JOIN_TIME)) {
                Ok(manifest) => break manifest,
                Err(SnapshotError::Stopped) => return Ok(false),
                Err(late @ SnapshotError::Late { .. }) => tracing::warn!(reason = %late, "has no state yet"),
                Err(error) => return Err(CliError::failed(format!("no snapshot to begin with: {error}"))),
            }
        };
        let mut bytes = Vec::new();
        let read = self.snapshots.open(manifest.clone()).read_to_end(&mut bytes);
        read.map_err(|error| CliError::failed(format!("the fetched snapshot: {error}")))?;
        let state = State::decode(&bytes).map_err(CliError::failed)?;
        if state.executed.index != manifest.commit.index {
            let (found, expected) = (state.executed.index, manifest.commit.index);
            return Err(CliError::failed(format!("a snapshot of commit {expected} has the state of commit {found}")));
        }
        tracing::info!(commit = manifest.commit.index, bytes = manifest.bytes, "began with a snapshot");
        self.ledger.restore(state)?;
        Ok(true)
    }
}

/// Writes a snapshot into the archive. The next one is as good, so a failure is only told.
async fn archive(handle: Handle, snapshot: ObjectId) {
    if let Err(error) = handle.archive_snapshot(snapshot).await {
        tracing::warn!(%error, %snapshot, "a snapshot is not in the archive");
    }
}
