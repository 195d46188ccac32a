//! Taking a range from a segment of the archive.
//!
//! The segment comes whole. Its commits are the one answer of the worker, and its blocks the answer to each request
//! for blocks. So both pass the checks of a peer's answers.

use super::SyncWorker;
use crate::archiver::messages::{ReadError, ReadSegment};
use actix::Context;
use soma_archive::Segment;
use soma_network::wire::FetchedCommits;
use soma_protocol::state_sync::worker::Input;
use soma_runtime::{AskError, Shell};
use soma_types::{CommitIndex, Fault, PeerFailure, SegmentName, UnverifiedCommit};

impl SyncWorker {
    /// Reads the segment, and takes its commits from `start` on.
    pub(super) fn read_segment(
        &mut self,
        name: SegmentName,
        start: CommitIndex,
        max_bytes: u64,
        context: &mut Context<Self>,
    ) {
        let archiver = self.mailboxes.read_segment.clone();
        let reading = async move {
            let Some(mut archiver) = archiver else {
                return Err(PeerFailure::new(Fault::Ours, "this node has no archive"));
            };
            // A slow archive is waited for: the Archiver answers, or ends, and then there is no answer.
            let asking =
                soma_runtime::while_waiting(async move { archiver.ask(|reply| ReadSegment { name, reply }).await });
            match asking.await {
                Ok(Ok(segment)) => Ok(segment),
                Ok(Err(ReadError::Object(reason))) => Err(PeerFailure::new(Fault::Malformed, reason)),
                Ok(Err(ReadError::Unavailable(reason))) => Err(PeerFailure::new(Fault::Slow, reason)),
                Err(error) => Err(no_answer(error)),
            }
        };
        let finish = move |worker: &mut Self, read: Result<Segment, PeerFailure>, origin, context: &mut _| {
            let result = read.and_then(|segment| worker.take_segment(segment, start, max_bytes));
            worker.feed(origin, Input::CommitsFetched { start, result }, context);
        };
        self.later(reading, finish, context);
    }

    /// Splits a segment into the answers to come. Returns the bytes of commits and votes.
    fn take_segment(&mut self, segment: Segment, start: CommitIndex, max_bytes: u64) -> Result<u64, PeerFailure> {
        let malformed = |reason: String| PeerFailure::new(Fault::Malformed, reason);
        if segment.size() as u64 > max_bytes {
            return Err(malformed(format!("it has {} bytes, more than the listing said", segment.size())));
        }
        let skipped = start.saturating_sub(segment.first) as usize;
        // How many blocks belong to the commits before the range: their check follows with the rest.
        let mut blocks_before = 0;
        for bytes in segment.commits.iter().take(skipped) {
            let commit = UnverifiedCommit::decode(bytes.clone()).map_err(|error| malformed(error.to_string()))?;
            blocks_before += commit.blocks.len();
        }
        let Segment { mut commits, certifiers, mut blocks, .. } = segment;
        if skipped >= commits.len() || blocks_before > blocks.len() {
            return Err(malformed("it lacks commits or blocks that its name promises".into()));
        }
        self.segment_blocks = blocks.split_off(blocks_before);
        let fetched = FetchedCommits { commits: commits.split_off(skipped), certifier_blocks: certifiers };
        let bytes = fetched.size() as u64;
        self.fetched.insert(start, fetched);
        Ok(bytes)
    }

    /// Answers a request for blocks from the segment.
    pub(super) fn take_segment_blocks(&mut self, from: u32, to: u32, max_bytes: u64, context: &mut Context<Self>) {
        if let Some(input) = self.take_cached(from, to, max_bytes) {
            return self.feed_later(input, context);
        }
        let mut left = max_bytes;
        let wanted = self.segment_blocks.get(from as usize..).unwrap_or_default();
        let fits = |block: &&bytes::Bytes| match left.checked_sub(block.len() as u64) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        let blocks: Vec<_> = wanted.iter().take((to - from) as usize).take_while(fits).cloned().collect();
        let is_short = wanted.len() < (to - from) as usize && blocks.len() == wanted.len();
        let failure = is_short.then(|| PeerFailure::new(Fault::Malformed, "it lacks blocks of its commits"));
        let (received, bytes) = (blocks.len() as u32, blocks.iter().map(|block| block.len() as u64).sum());
        self.received.insert(from, blocks);
        self.feed_later(Input::BlocksFetched { from, received, bytes, ended: true, failure }, context);
    }
}

fn no_answer(error: AskError) -> PeerFailure {
    // The Archiver is being restarted, or has too much to do: the archive is tried again.
    PeerFailure::new(Fault::Slow, format!("no answer of the Archiver: {error}"))
}
