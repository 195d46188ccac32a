//! Durable commits for executors: the highest one, and the latest commits as they were verified. An executor that
//! keeps up need not read it back.

use soma_protocol::state_sync::FEED_BYTES;
use soma_replay::Flow;
use soma_types::{CertifiedCommit, CommitIndex, CommitRef};
use std::{collections::VecDeque, mem, sync::Arc};
use tokio::sync::watch;

/// Consecutive commits with their blocks.
pub type Commits = Arc<Vec<CertifiedCommit>>;

/// The writing end, for StateSync.
#[derive(Clone, Debug)]
pub struct CommitFeed(watch::Sender<DurableHead>);

/// The end of the durable chain.
#[derive(Debug)]
pub struct DurableHead {
    highest: CommitIndex,
    /// In order, without gaps; up to the highest, if there are any.
    recent: VecDeque<Recent>,
    bytes: u64,
}

/// Commits that became durable together.
#[derive(Debug)]
struct Recent {
    commits: Commits,
    bytes: u64,
    /// The work that made them durable, if an executor will take them.
    flow: Flow,
}

impl CommitFeed {
    /// Commits up to `highest` are in the store, and none is in memory.
    pub fn new(highest: CommitIndex) -> Self {
        Self(watch::channel(DurableHead { highest, recent: VecDeque::new(), bytes: 0 }).0)
    }

    /// The reading end.
    pub fn subscribe(&self) -> watch::Receiver<DurableHead> {
        self.0.subscribe()
    }

    /// Index of the highest durable commit.
    pub fn highest(&self) -> CommitIndex {
        self.0.borrow().highest
    }

    /// An incarnation of StateSync begins with what the store holds.
    pub(crate) fn begin(&self, highest: CommitIndex) {
        // Freed when the readers may read again.
        let mut given_up = VecDeque::new();
        self.0.send_if_modified(|latest| {
            let higher = highest > latest.highest;
            if higher {
                // What the last incarnation had written and not published is in the store only.
                (latest.highest, latest.bytes) = (highest, 0);
                given_up = mem::take(&mut latest.recent);
            }
            higher
        });
    }

    /// These commits are durable, up to `highest`. An executor takes them on behalf of `flow`.
    pub(crate) fn extend(&self, commits: impl IntoIterator<Item = Commits>, highest: CommitRef, flow: &Flow) {
        let mut pushed_out = Vec::new();
        self.0.send_if_modified(|latest| {
            // Never back: an abandoned incarnation may still send an old height.
            if highest.index <= latest.highest {
                return false;
            }
            for commits in commits {
                let bytes = commits.iter().map(|commit| commit.size() as u64).sum();
                latest.recent.push_back(Recent { commits, bytes, flow: flow.clone() });
                latest.bytes += bytes;
            }
            latest.highest = highest.index;
            while latest.bytes > FEED_BYTES
                && let Some(first) = latest.take_first()
            {
                pushed_out.push(first);
            }
            true
        });
    }

    /// Every followed executor has taken the commits before `next`. A later reader uses the store.
    pub(crate) fn taken(&self, next: CommitIndex) {
        // Freed when the readers may read again.
        let mut taken = Vec::new();
        self.0.send_if_modified(|latest| {
            while latest.recent.front().is_some_and(|recent| last(&recent.commits) < next) {
                taken.extend(latest.take_first());
            }
            // Nothing that a reader waits for.
            false
        });
    }
}

/// Index of the last of `commits`.
fn last(commits: &Commits) -> CommitIndex {
    commits.last().map_or(0, |last| last.commit.index)
}

impl DurableHead {
    fn take_first(&mut self) -> Option<Recent> {
        let first = self.recent.pop_front()?;
        self.bytes -= first.bytes;
        Some(first)
    }

    /// Index of the highest durable commit.
    pub fn highest(&self) -> CommitIndex {
        self.highest
    }

    /// The recent commits that include `index`.
    pub fn holding(&self, index: CommitIndex) -> Option<Commits> {
        self.recent_with(index).map(|recent| recent.commits.clone())
    }

    /// The same, with the work that made them durable.
    pub fn holding_with_flow(&self, index: CommitIndex) -> Option<(Commits, Flow)> {
        self.recent_with(index).map(|recent| (recent.commits.clone(), recent.flow.clone()))
    }

    fn recent_with(&self, index: CommitIndex) -> Option<&Recent> {
        let place = self.recent.partition_point(|recent| last(&recent.commits) < index);
        let recent = self.recent.get(place)?;
        (recent.commits.first()?.commit.index <= index).then_some(recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_testkit::{ChainBuilder, ChainSpec};

    fn indices(commits: Option<Commits>) -> Vec<CommitIndex> {
        commits.iter().flat_map(|commits| commits.iter().map(|commit| commit.commit.index)).collect()
    }

    fn extend(commit_feed: &CommitFeed, ranges: &[&[CertifiedCommit]]) {
        let highest = ranges.last().unwrap().last().unwrap().commit.reference();
        commit_feed.extend(ranges.iter().map(|range| Arc::new(range.to_vec())), highest, &Flow::NONE);
    }

    #[test]
    fn the_latest_commits_are_at_hand_and_never_more_than_their_bytes() {
        let spec = ChainSpec { payload_bytes: 100_000, ..ChainSpec::default() };
        let chain = ChainBuilder::new(spec).unwrap().build(100);
        let commit_feed = CommitFeed::new(0);
        extend(&commit_feed, &[&chain[..3], &chain[3..5]]);
        let latest = commit_feed.subscribe();
        assert_eq!(indices(latest.borrow().holding(1)), [1, 2, 3]);
        assert_eq!(indices(latest.borrow().holding(4)), [4, 5]);
        assert!(latest.borrow().holding(6).is_none());
        for range in chain[5..].chunks(2) {
            extend(&commit_feed, &[range]);
        }
        assert!(latest.borrow().holding(1).is_none(), "pushed out by later ones");
        assert!(latest.borrow().bytes <= FEED_BYTES);
        assert_eq!(indices(latest.borrow().holding(100)), [100]);
    }

    #[test]
    fn what_every_executor_has_taken_is_not_kept() {
        let chain = ChainBuilder::new(ChainSpec::default()).unwrap().build(10);
        let commit_feed = CommitFeed::new(0);
        extend(&commit_feed, &[&chain[..3], &chain[3..6]]);
        let mut latest = commit_feed.subscribe();
        commit_feed.taken(3);
        assert_eq!(indices(latest.borrow().holding(3)), [1, 2, 3], "3 is asked for next");
        commit_feed.taken(4);
        assert!(latest.borrow().holding(3).is_none());
        assert_eq!(indices(latest.borrow().holding(4)), [4, 5, 6]);
        commit_feed.taken(7);
        assert_eq!((latest.borrow().bytes, latest.borrow().highest()), (0, 6));
        assert!(!latest.has_changed().unwrap(), "nothing to wake for");
        extend(&commit_feed, &[&chain[6..]]);
        assert_eq!(indices(latest.borrow_and_update().holding(7)), [7, 8, 9, 10]);
    }

    #[test]
    fn the_end_never_goes_back_and_what_the_store_alone_holds_is_not_at_hand() {
        let chain = ChainBuilder::new(ChainSpec::default()).unwrap().build(10);
        let commit_feed = CommitFeed::new(0);
        extend(&commit_feed, &[&chain[..5]]);
        extend(&commit_feed, &[&chain[..3]]);
        commit_feed.begin(4);
        assert_eq!((commit_feed.highest(), indices(commit_feed.subscribe().borrow().holding(5)).len()), (5, 5));
        commit_feed.begin(7);
        assert_eq!((commit_feed.highest(), indices(commit_feed.subscribe().borrow().holding(5))), (7, vec![]));
        extend(&commit_feed, &[&chain[7..]]);
        assert_eq!(indices(commit_feed.subscribe().borrow().holding(9)), [8, 9, 10]);
    }
}
