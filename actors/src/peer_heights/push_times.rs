//! How long a commit takes from its first push by a peer until it is durable here.

use soma_types::CommitIndex;
use std::{collections::BTreeMap, time::Duration};

/// Commits beyond its own height of which a node times the pushes. A node that is further behind does not follow the
/// head: its times would say how long it syncs. It also bounds the times that peers can make this node keep, and how
/// much too early a peer can announce a commit.
const HEAD_COMMITS: CommitIndex = 32;

/// The first push of each commit that is not durable yet.
#[derive(Debug, Default)]
pub(super) struct PushTimes {
    own_height: CommitIndex,
    /// At most [`HEAD_COMMITS`]: all are that close beyond the own height.
    first_pushes: BTreeMap<CommitIndex, Duration>,
}

impl PushTimes {
    /// Starts with the height of the store.
    pub(super) fn new(own_height: CommitIndex) -> Self {
        Self { own_height, ..Self::default() }
    }

    /// A peer has announced a commit.
    pub(super) fn pushed(&mut self, now: Duration, index: CommitIndex) {
        if index > self.own_height && index - self.own_height <= HEAD_COMMITS {
            self.first_pushes.entry(index).or_insert(now);
        }
    }

    /// All commits up to `height` are durable. Returns the times of those among them that were pushed.
    pub(super) fn durable(&mut self, now: Duration, height: CommitIndex) -> impl Iterator<Item = Duration> + use<> {
        self.own_height = self.own_height.max(height);
        let later = self.first_pushes.split_off(&height.saturating_add(1));
        let durable = std::mem::replace(&mut self.first_pushes, later);
        durable.into_values().map(move |pushed| now.saturating_sub(pushed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn times(pushes: &mut PushTimes, now: u32, height: CommitIndex) -> Vec<Duration> {
        pushes.durable(SECOND * now, height).collect()
    }

    #[test]
    fn commit_is_timed_once_from_its_first_push() {
        let mut pushes = PushTimes::new(10);
        pushes.pushed(SECOND, 11);
        pushes.pushed(SECOND * 2, 11);
        pushes.pushed(SECOND * 2, 12);
        assert_eq!(times(&mut pushes, 4, 11), [SECOND * 3]);
        pushes.pushed(SECOND * 5, 11);
        assert_eq!(times(&mut pushes, 5, 13), [SECOND * 3], "of commit 12; commit 11 was durable before its last push");
        assert_eq!(times(&mut pushes, 6, 13), Vec::<Duration>::new());
    }

    #[test]
    fn only_pushes_close_to_the_own_height_are_kept() {
        let mut pushes = PushTimes::new(10);
        for index in [1, 10, 10 + HEAD_COMMITS + 1, CommitIndex::MAX] {
            pushes.pushed(SECOND, index);
        }
        assert!(pushes.first_pushes.is_empty());
        (0..1_000).for_each(|index| pushes.pushed(SECOND, index));
        assert_eq!(pushes.first_pushes.len(), HEAD_COMMITS as usize);
        assert_eq!(times(&mut pushes, 2, CommitIndex::MAX).len(), HEAD_COMMITS as usize);
    }
}
