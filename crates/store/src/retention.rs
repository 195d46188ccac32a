//! Which part of the chain a node keeps.

use crate::{Store, StoreError};
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, Epoch, TimestampMs};
use std::time::Duration;

/// What a node keeps of the chain behind its last commit. The largest window counts; without any, a node keeps all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// The last commits, this many.
    pub commits: Option<CommitIndex>,
    /// The commits of the last epochs, this many; the current one is the first.
    pub epochs: Option<Epoch>,
    /// The commits of this time before the last one, by the timestamps of the chain. The wall clock does not count:
    /// during a catch-up it would prune too little, and after a standstill too much.
    pub time: Option<Duration>,
}

impl Retention {
    /// Whether nothing is pruned.
    pub fn keeps_all(&self) -> bool {
        *self == Self::default()
    }

    /// The lowest commit to keep for an executor that takes commit `next` next. The windows then begin at its last
    /// commit: it may go on behind that after a crash, and find what the windows promise.
    ///
    /// # Errors
    /// Fails if the store cannot be read or is damaged.
    pub fn lowest_kept_for(&self, store: &dyn Store, next: CommitIndex) -> Result<CommitIndex, StoreError> {
        let behind = store.watermarks()?.highest_synced.index.saturating_add(1).saturating_sub(next);
        Ok(self.lowest_kept(store)?.saturating_sub(behind))
    }

    /// The lowest commit to keep, of those that `store` has.
    ///
    /// # Errors
    /// Fails if the store cannot be read or is damaged.
    pub fn lowest_kept(&self, store: &dyn Store) -> Result<CommitIndex, StoreError> {
        let watermarks = store.watermarks()?;
        let (lowest, highest) = (watermarks.lowest_available, watermarks.highest_synced.index);
        let mut kept = None;
        if let Some(commits) = self.commits {
            keep(&mut kept, highest.saturating_add(1).saturating_sub(commits));
        }
        if let Some(epochs) = self.epochs {
            keep(&mut kept, first_of_epochs(store, highest, epochs)?);
        }
        if let Some(time) = self.time {
            keep(&mut kept, first_of_time(store, lowest, highest, time)?);
        }
        Ok(kept.map_or(lowest, |kept| kept.clamp(lowest, highest.max(lowest))))
    }
}

/// Lets `kept` reach down to `index`.
fn keep(kept: &mut Option<CommitIndex>, index: CommitIndex) {
    *kept = Some(kept.map_or(index, |kept| kept.min(index)));
}

/// The first commit of the last `epochs` epochs.
fn first_of_epochs(store: &dyn Store, highest: CommitIndex, epochs: Epoch) -> Result<CommitIndex, StoreError> {
    let Some(last) = store.commit(highest)? else { return Ok(0) };
    match last.epoch.checked_sub(epochs) {
        Some(before) => Ok(store.last_commit_of_epoch(before)?.map_or(0, |last| last.saturating_add(1))),
        None => Ok(0),
    }
}

/// The first commit from `lowest` on that is not older than `time` before the last one. Timestamps never fall, so it is
/// found by halving.
fn first_of_time(
    store: &dyn Store,
    lowest: CommitIndex,
    highest: CommitIndex,
    time: Duration,
) -> Result<CommitIndex, StoreError> {
    let timestamp = |index| Ok::<_, StoreError>(store.commit(index)?.map(|commit| commit.timestamp_ms));
    let Some(last) = timestamp(highest)? else { return Ok(0) };
    let oldest = last.saturating_sub(TimestampMs::try_from(time.as_millis()).unwrap_or(TimestampMs::MAX));
    let (mut first, mut end) = (lowest, highest);
    while first < end {
        let middle = first + (end - first) / 2;
        match timestamp(middle)? {
            Some(timestamp) if timestamp < oldest => first = middle + 1,
            _ => end = middle,
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemStore;
    use soma_testkit::{ChainBuilder, ChainSpec};

    #[test]
    fn largest_window_counts_and_none_keeps_all() {
        let spec = ChainSpec { commits_per_epoch: 100, transactions_per_block: 0, ..ChainSpec::default() };
        let mut builder = ChainBuilder::new(spec).unwrap();
        let store = MemStore::new(builder.genesis());
        let lowest = |commits, epochs, time: Option<u64>| {
            let retention = Retention { commits, epochs, time: time.map(Duration::from_millis) };
            retention.lowest_kept(&store).unwrap()
        };
        assert_eq!(lowest(Some(10), Some(1), Some(1)), 1, "an empty store keeps what comes");
        let commits = builder.build(350);
        store.apply(&commits).unwrap();

        assert!(Retention::default().keeps_all());
        assert_eq!(lowest(None, None, None), 1);
        assert_eq!(lowest(Some(10), None, None), 341);
        assert_eq!(lowest(Some(1_000), None, None), 1);
        assert_eq!(lowest(Some(0), None, None), 350, "the last commit stays");
        assert_eq!([1, 2, 4, 9].map(|epochs| lowest(None, Some(epochs), None)), [301, 201, 1, 1]);
        let timestamp = |index: usize| commits[index - 1].commit.timestamp_ms;
        let time = timestamp(350) - timestamp(280);
        let first = (1..=350).find(|index| timestamp(*index) >= timestamp(280)).unwrap() as CommitIndex;
        assert_eq!(lowest(None, None, Some(time)), first);
        assert_eq!(lowest(Some(10), Some(2), Some(time)), 201);
        assert_eq!(lowest(Some(10), None, Some(time)), first);

        while !store.prune(250).unwrap().is_complete {}
        assert_eq!(lowest(None, Some(9), None), 250);
        assert_eq!(lowest(None, None, None), 250);
    }

    #[test]
    fn window_is_behind_an_executor_that_lags_so_that_it_can_go_back() {
        let spec = ChainSpec { commits_per_epoch: 100, transactions_per_block: 0, ..ChainSpec::default() };
        let mut builder = ChainBuilder::new(spec).unwrap();
        let store = MemStore::new(builder.genesis());
        store.apply(&builder.build(350)).unwrap();
        let retention = Retention { commits: Some(10), ..Retention::default() };
        let lowest = |next| retention.lowest_kept_for(&store, next).unwrap();
        assert_eq!([351, 350, 301, 11, 1].map(lowest), [341, 340, 291, 1, 0]);
    }
}
