//! The shell's part in backfill: reads where the stored history begins, and has earlier commits written.

use super::{StateSync, history_reader::HistoryReader};
use crate::store_writer::messages::Prepend;
use actix::Context;
use soma_protocol::state_sync::{Below, HistoryStart, Input, RangeKey};
use soma_runtime::Shell;
use soma_store::{CorruptReason, Record, Store, StoreError, Watermarks};
use soma_types::{CommitIndex, Committee, Epoch, SignedBlock, TrustedCommit};
use soma_verify::EpochContext;
use std::sync::Arc;

impl StateSync {
    /// Reads where the stored history begins, with the committee of the commits below it.
    pub(super) fn read_history(&mut self, key: RangeKey, context: &mut Context<Self>) {
        let HistoryReader { store, offload } = self.mailboxes.history.clone();
        let reading = async move {
            match offload.run(move || history_start(&*store)).await {
                Ok(read) => read.map_err(|error| error.to_string()),
                Err(exit) => Err(exit.to_string()),
            }
        };
        let finish = move |sync: &mut Self, read: Result<_, String>, origin, context: &mut Context<Self>| {
            let result = read.and_then(|(history, committee): (HistoryStart, Option<Committee>)| {
                sync.committee_below = committee
                    .map(|committee| EpochContext::new(sync.settings.chain, committee).map(Arc::new))
                    .transpose()
                    .map_err(|error| format!("the committee of an earlier epoch is unusable: {error}"))?;
                Ok(history)
            });
            sync.feed(origin, Input::HistoryRead { key, result }, context);
        };
        self.later(reading, finish, context);
    }

    /// Has the commits under this key written below the stored history.
    pub(super) fn prepend(&mut self, key: RangeKey, context: &mut Context<Self>) {
        let commits = self.held.get(&key).cloned();
        let mut writer = self.mailboxes.prepend.clone();
        let writing = async move {
            let commits = commits.ok_or("its commits are not here: a bug of this node")?;
            match writer.ask(move |reply| Prepend { commits, reply }).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        };
        let finish = move |sync: &mut Self, result: Result<(), String>, origin, context: &mut Context<Self>| {
            sync.feed(origin, Input::Prepended { key, result }, context);
        };
        self.later(writing, finish, context);
    }
}

/// Where the stored history begins, and the committee of the commits below it, if it is known.
fn history_start(store: &dyn Store) -> Result<(HistoryStart, Option<Committee>), StoreError> {
    let Watermarks { highest_synced, lowest_available: lowest } = store.watermarks()?;
    let ended = HistoryStart { lowest, target: lowest, below: None };
    if lowest <= 1 || lowest > highest_synced.index {
        return Ok((ended, None));
    }
    let missing = |record: Record| StoreError::Corrupt { place: store.place(), record, reason: CorruptReason::Missing };
    let stored = |index| store.commit(index)?.ok_or_else(|| missing(Record::Commit(index)));
    let (above, genesis) = (stored(lowest)?, stored(0)?);
    let epoch = epoch_below(store, &above)?;
    let (Some(first), Some(committee)) = (first_of(store, epoch)?, store.committee(epoch)?) else {
        return Ok((ended, None));
    };
    let leader = store.blocks(&[above.leader])?.pop().flatten();
    let record = Record::BlockOfCommit { index: lowest, block: above.leader };
    let leader = SignedBlock::decode(leader.ok_or_else(|| missing(record))?).map_err(|error| StoreError::Corrupt {
        place: store.place(),
        record,
        reason: error.into(),
    })?;
    let below = Below {
        epoch,
        first,
        digest: above.previous_digest,
        timestamp_ms: above.timestamp_ms,
        leader_timestamp_ms: leader.timestamp_ms,
        genesis: genesis.reference().digest,
        genesis_timestamp_ms: genesis.timestamp_ms,
    };
    Ok((HistoryStart { lowest, target: target(store, epoch)?, below: Some(below) }, Some(committee)))
}

/// Epoch of the commit before `above`.
fn epoch_below(store: &dyn Store, above: &TrustedCommit) -> Result<Epoch, StoreError> {
    let Some(before) = above.epoch.checked_sub(1) else { return Ok(0) };
    let is_first = store.last_commit_of_epoch(before)? == Some(above.index - 1);
    Ok(if is_first { before } else { above.epoch })
}

/// First commit of `epoch`, if the end of the epoch before is known.
fn first_of(store: &dyn Store, epoch: Epoch) -> Result<Option<CommitIndex>, StoreError> {
    let Some(before) = epoch.checked_sub(1) else { return Ok(Some(1)) };
    Ok(store.last_commit_of_epoch(before)?.map(|last| last.saturating_add(1)))
}

/// First commit of the lowest epoch whose beginning and committee are known, given that those of `epoch` are. The ends
/// of all epochs from some epoch on are known, so halving finds it.
fn target(store: &dyn Store, epoch: Epoch) -> Result<CommitIndex, StoreError> {
    let (mut lowest, mut known) = (0, epoch);
    while lowest < known {
        let middle = lowest + (known - lowest) / 2;
        match first_of(store, middle)?.zip(store.committee(middle)?) {
            // The beginning of epoch 0 is known in every store, but a store that began at a checkpoint lacks its end.
            Some(_) if middle > 0 || store.last_commit_of_epoch(0)?.is_some() => known = middle,
            _ => lowest = middle + 1,
        }
    }
    Ok(first_of(store, known)?.unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_store::MemStore;
    use soma_testkit::{ChainBuilder, ChainSpec};
    use soma_types::EndedEpoch;

    /// A store that has skipped the epochs from `from` to 3, of 10 commits each, and holds 5 commits.
    fn store(from: usize) -> (MemStore, Vec<soma_types::CertifiedCommit>) {
        let spec = ChainSpec { commits_per_epoch: 10, transactions_per_block: 0, ..ChainSpec::default() };
        let mut builder = ChainBuilder::new(spec).unwrap();
        let commits = builder.build(45);
        let whole = MemStore::new(builder.genesis());
        whole.apply(&commits).unwrap();
        let ended = |epoch: usize| {
            let last = &commits[epoch * 10 + 9];
            EndedEpoch {
                proof: whole.epoch_proof(epoch as Epoch).unwrap().unwrap(),
                last_commit: last.commit.clone(),
                next_committee: last.end_of_epoch().unwrap().next_committee.clone(),
            }
        };
        let store = MemStore::new(builder.genesis());
        store.skip_epochs(&(from..4).map(ended).collect::<Vec<_>>()).unwrap();
        store.apply(&commits[40..]).unwrap();
        (store, commits)
    }

    #[test]
    fn history_begins_where_the_store_says_and_can_be_extended_to_commit_1() {
        let (store, commits) = store(0);
        for (lowest, epoch) in [(41, 3), (36, 3), (31, 2), (30, 2), (2, 0)] {
            let stored = store.watermarks().unwrap().lowest_available as usize;
            let batch: Vec<_> = commits[lowest - 1..stored - 1].iter().collect();
            if !batch.is_empty() {
                store.prepend(&batch).unwrap();
            }
            let (history, committee) = history_start(&store).unwrap();
            let below = history.below.unwrap();
            assert_eq!((history.lowest, history.target), (lowest as CommitIndex, 1));
            assert_eq!((below.epoch, below.first, committee.unwrap().epoch), (epoch, epoch as u32 * 10 + 1, epoch));
            assert_eq!(below.digest, commits[lowest - 2].commit.reference().digest);
        }
        store.prepend(&[&commits[0]]).unwrap();
        assert_eq!(history_start(&store).unwrap().0, HistoryStart { lowest: 1, target: 1, below: None });
    }

    #[test]
    fn store_that_began_at_a_checkpoint_cannot_be_extended() {
        let (store, _) = store(3);
        assert_eq!(history_start(&store).unwrap().0, HistoryStart { lowest: 41, target: 41, below: None });
    }

    #[test]
    fn history_ends_at_the_lowest_epoch_with_a_known_committee() {
        // Epoch 1 is known by its last commit alone, as after a checkpoint.
        let (store, _) = store(1);
        let (history, _) = history_start(&store).unwrap();
        assert_eq!((history.lowest, history.target, history.below.unwrap().epoch), (41, 21, 3));
    }
}
