//! What StateSync is made from.

use super::{
    CommitFeed, Settings, StateSync,
    history_reader::HistoryReader,
    shell::{ArchiverMailboxes, Mailboxes, StartState},
    worker::WorkerMailboxes,
};
use crate::wiring::{Resources, by_receiver};
use soma_protocol::{
    Core,
    state_sync::worker::SyncWorker,
    state_sync::{Config, StateSync as StateSyncCore, Tip},
};
use soma_runtime::{ChildSpec, Slot};
use soma_store::{CorruptReason, Record, Store, StoreError, Watermarks};
use soma_types::Epoch;
use soma_verify::EpochContext;
use std::sync::Arc;

/// How StateSync is made: from where the chain stands in the store.
pub fn spec(
    slot: Slot<StateSync>,
    resources: &Resources,
    core: Config,
    settings: Settings,
    commit_feed: CommitFeed,
) -> ChildSpec<StateSync> {
    const NAME: &str = StateSyncCore::NAME;
    const WORKER: &str = SyncWorker::NAME;
    let node = resources.clone();
    ChildSpec::new(slot, resources.mailbox_capacity, move || {
        let (node, core, settings) = (node.clone(), core.clone(), settings.clone());
        let commit_feed = commit_feed.clone();
        async move {
            let start = node.read(start_state).await?;
            let actors = &node.actors;
            let workers = WorkerMailboxes {
                links: node.links.links(),
                io: node.io.clone(),
                read_segment: node.archive.as_ref().map(|_| actors.archiver.mailbox(WORKER)),
                verify_commits: actors.verifier.mailbox(WORKER),
                verify_blocks: actors.verifier.mailbox(WORKER),
                verify_sub_dags: actors.verifier.mailbox(WORKER),
                cache_update: actors.state_sync.mailbox(WORKER),
                progress: actors.state_sync.mailbox(WORKER),
            };
            let mailboxes = Mailboxes {
                workers,
                pick: actors.peer_heights.mailbox(NAME),
                apply: actors.store_writer.mailbox(NAME),
                skip_epochs: actors.store_writer.mailbox(NAME),
                prepend: actors.store_writer.mailbox(NAME),
                history: HistoryReader { store: node.store.clone(), offload: node.offload.clone() },
                verify_local: actors.verifier.mailbox(NAME),
                verify_epochs: actors.verifier.mailbox(NAME),
                commit_feed,
                committee_subscribers: by_receiver([
                    actors.connections.ordered_sender(NAME),
                    actors.discovery.ordered_sender(NAME),
                    actors.grpc_adapter.ordered_sender(NAME),
                    actors.broadcast.ordered_sender(NAME),
                    actors.objects.ordered_sender(NAME),
                ]),
                report: actors.peer_heights.ordered_sender(NAME),
                own_height: actors.peer_heights.ordered_sender(NAME),
                archive: node.archive.as_ref().map(|_| ArchiverMailboxes {
                    list: actors.archiver.mailbox(NAME),
                    durable: actors.archiver.ordered_sender(NAME),
                }),
            };
            Ok(StateSync::new(core, settings, start, mailboxes, node.runtime_context.clone()))
        }
    })
}

/// Where the chain stands in the store.
fn start_state(store: &dyn Store) -> Result<StartState, StoreError> {
    let missing = |record| move || StoreError::Corrupt { place: store.place(), record, reason: CorruptReason::Missing };
    let Watermarks { highest_synced: commit, lowest_available } = store.watermarks()?;
    let stored = store.commit(commit.index)?.ok_or_else(missing(Record::Commit(commit.index)))?;
    // Not the latest one that the store knows: a batch that is being written shows that before its commits.
    let epoch = stored.epoch;
    let next_epoch = epoch + Epoch::from(store.last_commit_of_epoch(epoch)? == Some(commit.index));
    let committee = store.committee(next_epoch)?.ok_or_else(missing(Record::Committee(next_epoch)))?;
    // Checked before it was stored: what fails now was changed on disk.
    let committee =
        EpochContext::new(store.chain_id(), committee).map_err(|_| missing(Record::Committee(next_epoch))())?;
    let tip = Tip { commit, timestamp_ms: stored.timestamp_ms, next_epoch };
    let is_empty = lowest_available > commit.index;
    Ok(StartState { tip, last_commit: stored, is_empty, committee: Arc::new(committee) })
}
