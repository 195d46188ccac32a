//! Names of an archive's segments: `CHAIN/EPOCH/FIRST-LAST`, and which of them lead on from a commit.
//!
//! docs/archive-format.md defines segments. Their names are here, because the planner of a sync works with names alone.

use crate::{ChainId, CommitIndex, Epoch};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The name of a segment, from its contents. The text is its path in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentName {
    /// The chain.
    pub chain: ChainId,
    /// The epoch of all commits.
    pub epoch: Epoch,
    /// The first commit.
    pub first: CommitIndex,
    /// The last commit.
    pub last: CommitIndex,
}

impl SegmentName {
    /// The text of an epoch in a name. Padded, so that names sort like numbers.
    pub fn epoch_text(epoch: Epoch) -> String {
        format!("{epoch:010}")
    }

    /// An epoch from its text in a name.
    pub fn parse_epoch(text: &str) -> Option<Epoch> {
        text.parse().ok().filter(|epoch| Self::epoch_text(*epoch) == text)
    }
}

/// The segments of a listing that lead on from a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRoute {
    /// The segments in order, each with the next commit that the one before lacks.
    pub names: Vec<SegmentName>,
    /// Whether there are segments behind a gap.
    pub has_later: bool,
}

impl SegmentRoute {
    /// Chooses, from commit to commit, the segment that reaches furthest. `listed` is in order, and of one epoch.
    pub fn new(listed: impl IntoIterator<Item = SegmentName>, mut next: CommitIndex) -> Self {
        let mut names = Vec::new();
        let mut listed = listed.into_iter().peekable();
        loop {
            let mut furthest: Option<SegmentName> = None;
            while let Some(name) = listed.next_if(|name| name.first <= next) {
                if name.last >= next && furthest.is_none_or(|furthest| name.last > furthest.last) {
                    furthest = Some(name);
                }
            }
            let Some(chosen) = furthest else { return Self { names, has_later: listed.next().is_some() } };
            names.push(chosen);
            let Some(after) = chosen.last.checked_add(1) else { return Self { names, has_later: false } };
            next = after;
        }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{:010}-{:010}", self.chain, Self::epoch_text(self.epoch), self.first, self.last)
    }
}

impl FromStr for SegmentName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut parts = text.split('/');
            let (chain, epoch, range) = (parts.next()?, parts.next()?, parts.next()?);
            let (first, last) = range.split_once('-')?;
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            Some(Self { chain: chain.parse().ok()?, epoch: Self::parse_epoch(epoch)?, first, last })
        };
        // One name for each range.
        let name = parse().filter(|name| name.first >= 1 && name.first <= name.last && name.to_string() == text);
        name.ok_or_else(|| format!("{text:?} is not CHAIN/EPOCH/FIRST-LAST"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_has_one_text_and_sorts_by_epoch_and_range() {
        let chain = ChainId([7; 32]);
        let names = [(0, 1, 9), (0, 10, 100), (9, 101, 200), (10, 201, 300), (10, 1_000_000, u32::MAX)];
        let names = names.map(|(epoch, first, last)| SegmentName { chain, epoch, first, last });
        let texts = names.map(|name| name.to_string());
        assert!(texts.is_sorted());
        assert_eq!(texts.each_ref().map(|text| text.parse::<SegmentName>().unwrap()), names);
        assert_eq!(texts[1], format!("{}/0000000000/0000000010-0000000100", "07".repeat(32)));
        let wrong = ["0/0000000001-0000000009", "0000000000/1-9", "0000000000/0000000009-0000000001"];
        for wrong in wrong.map(|text| format!("{chain}/{text}")).into_iter().chain(["".into(), "a/b/c".into()]) {
            assert!(wrong.parse::<SegmentName>().is_err(), "{wrong}");
        }
    }

    fn routed(ranges: &[(CommitIndex, CommitIndex)], next: CommitIndex) -> (Vec<(CommitIndex, CommitIndex)>, bool) {
        let name = |(first, last): &(CommitIndex, CommitIndex)| SegmentName {
            chain: ChainId([0; 32]),
            epoch: 0,
            first: *first,
            last: *last,
        };
        let mut names: Vec<_> = ranges.iter().map(name).collect();
        names.sort_unstable();
        let SegmentRoute { names, has_later } = SegmentRoute::new(names, next);
        (names.iter().map(|name| (name.first, name.last)).collect(), has_later)
    }

    #[test]
    fn segments_that_overlap_lead_on_and_a_gap_ends_the_route() {
        assert_eq!(routed(&[(1, 10), (11, 20), (21, 25)], 1), (vec![(1, 10), (11, 20), (21, 25)], false));
        assert_eq!(routed(&[(1, 10), (1, 30), (5, 40), (41, 41)], 1), (vec![(1, 30), (5, 40), (41, 41)], false));
        assert_eq!(routed(&[(1, 10), (11, 20)], 15), (vec![(11, 20)], false));
        assert_eq!(routed(&[(1, 10), (12, 20)], 1), (vec![(1, 10)], true));
        assert_eq!(routed(&[(2, 10)], 1), (vec![], true));
        assert_eq!(routed(&[(1, 10)], 11), (vec![], false));
        assert_eq!(routed(&[(1, u32::MAX)], 7), (vec![(1, u32::MAX)], false));
    }
}
