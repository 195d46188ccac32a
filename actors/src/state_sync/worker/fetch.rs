//! Requests of a SyncWorker to its peer.

use super::{
    SyncWorker,
    download::{BlocksPart, Download, read_blocks},
    failure::{call_outcome, ours},
};
use actix::{Context, SpawnHandle};
use bytes::Bytes;
use futures::FutureExt;
use soma_network::wire::{BlockRefs, CallError, CommitRange, FetchedCommits};
use soma_protocol::state_sync::worker::Input;
use soma_runtime::{ExitReason, Shell};
use soma_types::{CommitIndex, PeerFailure, PeerId};
use tokio::sync::mpsc;

impl SyncWorker {
    /// Runs a call on the I/O runtime and feeds what `finish` makes of its result.
    fn run<R: Send + 'static>(
        &mut self,
        call: impl Future<Output = R> + Send + 'static,
        finish: impl FnOnce(&mut Self, Result<R, ExitReason>) -> Input + 'static,
        context: &mut Context<Self>,
    ) -> SpawnHandle {
        let running = self.mailboxes.io.spawn(call);
        let finish = move |worker: &mut Self, result, origin, context: &mut Context<Self>| {
            let input = finish(worker, result);
            worker.feed(origin, input, context);
        };
        self.later(running, finish, context)
    }

    pub(super) fn fetch_commits(
        &mut self,
        peer: PeerId,
        start: CommitIndex,
        end: CommitIndex,
        max_bytes: u64,
        context: &mut Context<Self>,
    ) {
        let (link, call) = (self.link.clone(), self.call(peer));
        let fetching = async move {
            let link = link.ok_or_else(CallError::connection_gone)?;
            let range = CommitRange::new(start, end)?.within(max_bytes);
            link.api().fetch_commits(call, range).await
        };
        let finish = move |worker: &mut Self, result: Result<Result<FetchedCommits, CallError>, ExitReason>| {
            worker.fetching.remove(&start);
            let result = call_outcome(result).map(|fetched| {
                let bytes = fetched.size() as u64;
                worker.fetched.insert(start, fetched);
                bytes
            });
            Input::CommitsFetched { start, result }
        };
        let call = self.run(fetching, finish, context);
        self.fetching.insert(start, call);
    }

    /// Takes the available blocks from `from` on, up to the first missing one.
    pub(super) fn take_cached(&mut self, from: u32, to: u32, max_bytes: u64) -> Option<Input> {
        let mut bytes = 0;
        let mut taken = Vec::new();
        for reference in &self.refs[from as usize..to as usize] {
            let size = self.cached.get(reference).map_or(u64::MAX, |block| block.bytes().len() as u64);
            if size > max_bytes - bytes {
                break;
            }
            bytes += size;
            taken.extend(self.cached.remove(reference));
        }
        let received = taken.len() as u32;
        (received > 0).then(|| {
            self.taken.insert(from, taken);
            Input::BlocksFetched { from, received, bytes, ended: true, failure: None }
        })
    }

    pub(super) fn fetch_blocks(
        &mut self,
        peer: PeerId,
        from: u32,
        to: u32,
        max_bytes: u64,
        context: &mut Context<Self>,
    ) {
        if let Some(input) = self.take_cached(from, to, max_bytes) {
            return self.feed_later(input, context);
        }
        let (link, call) = (self.link.clone(), self.call(peer));
        // A block may be committed twice, and is asked for once in each request.
        let refs = BlockRefs::leading(&self.refs[from as usize..to as usize]);
        // One part on its way to this actor while the next is read.
        let (sender, parts) = mpsc::channel(1);
        let reading = async move {
            let result = match (link, refs) {
                (Some(link), Ok(refs)) => read_blocks(&link, call, refs, max_bytes, &sender).await,
                (None, _) => Err(CallError::connection_gone()),
                (_, Err(error)) => Err(error),
            };
            if let Err(error) = result {
                // A caller that no longer waits needs no reason.
                let _ = sender.send(BlocksPart { blocks: Vec::new(), end: Some(Err(error)) }).await;
            }
        };
        let reading = self.mailboxes.io.spawn(reading).boxed_local();
        self.take_part(from, Download { parts, reading }, context);
    }

    /// Waits for the next blocks of a download, which begin with `from`.
    pub(super) fn take_part(&mut self, from: u32, mut download: Download, context: &mut Context<Self>) {
        let waiting = async move {
            match download.parts.recv().await {
                Some(BlocksPart { blocks, end: None }) => (blocks, Ok(Some(download))),
                Some(BlocksPart { blocks, end: Some(end) }) => {
                    (blocks, end.map(|()| None).map_err(|error| error.failure()))
                }
                None => {
                    let exit = download.reading.await.err().unwrap_or(ExitReason::Normal);
                    (Vec::new(), Err(ours(format!("the call {exit}"))))
                }
            }
        };
        let finish = move |worker: &mut Self, part: (Vec<Bytes>, _), origin, context: &mut Context<Self>| {
            let (blocks, rest): (_, Result<Option<Download>, PeerFailure>) = part;
            let received = blocks.len() as u32;
            let bytes = blocks.iter().map(|block| block.len() as u64).sum();
            worker.received.insert(from, blocks);
            let (rest, failure) = match rest {
                Ok(rest) => (rest, None),
                Err(failure) => (None, Some(failure)),
            };
            worker.feed(
                origin,
                Input::BlocksFetched { from, received, bytes, ended: rest.is_none(), failure },
                context,
            );
            if let Some(rest) = rest {
                worker.take_part(from + received, rest, context);
            }
        };
        self.later(waiting, finish, context);
    }
}
