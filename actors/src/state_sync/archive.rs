//! The shell's part in archives: asks the Archiver for segments, and reports durable commits to it.

use super::{StateSync, commit_feed::Commits};
use crate::archiver::messages::{CommitsDurable, ListSegments};
use actix::Context;
use soma_protocol::state_sync::{ArchiveRoute, Input, RangeKey};
use soma_runtime::Shell;
use soma_types::{CommitIndex, CommitRef, Epoch, SegmentName};

impl StateSync {
    /// Asks the Archiver which segments lead on.
    pub(super) fn list_archive(
        &mut self,
        key: RangeKey,
        epoch: Epoch,
        next: CommitIndex,
        avoid: Vec<SegmentName>,
        context: &mut Context<Self>,
    ) {
        let archiver = self.mailboxes.archive.as_ref().map(|archive| archive.list.clone());
        let asking = async move {
            let mut archiver = archiver.ok_or("this node has no archive")?;
            let answer = archiver.ask(|reply| ListSegments { epoch, next, avoid, reply }).await;
            let answer = answer.map_err(|error| format!("no answer of the Archiver: {error}"))?;
            answer.map_err(|error| error.to_string())
        };
        let finish = move |sync: &mut Self, result: Result<ArchiveRoute, String>, origin, context: &mut _| {
            sync.feed(origin, Input::ArchiveListed { key, result }, context);
            sync.show_progress();
        };
        self.later(asking, finish, context);
    }

    /// Tells the Archiver that these commits are durable.
    pub(super) fn tell_archiver(&self, commits: &[Commits], highest: CommitRef) {
        let Some(archive) = &self.mailboxes.archive else { return };
        let all = || commits.iter().flat_map(|commits| commits.iter());
        let bytes = all().map(|commit| commit.size() as u64).sum();
        let ended = all().filter(|commit| commit.end_of_epoch().is_some()).map(|commit| commit.commit.index).last();
        // A later message makes up for one that gets lost.
        let _ = archive.durable.post(CommitsDurable { highest: highest.index, bytes, ended });
    }
}
