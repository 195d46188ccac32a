//! Which segments of an epoch lead on from a commit.

use crate::name::SegmentName;
use soma_types::CommitIndex;

/// The segments that lead on from a commit.
pub(crate) struct Route {
    pub(crate) names: Vec<SegmentName>,
    /// Whether there are segments behind a gap.
    pub(crate) has_later: bool,
}

/// Chooses, from commit to commit, the segment that reaches furthest. `listed` is in order.
pub(crate) fn route(listed: impl IntoIterator<Item = SegmentName>, mut next: CommitIndex) -> Route {
    let mut names = Vec::new();
    let mut listed = listed.into_iter().peekable();
    loop {
        let mut furthest: Option<SegmentName> = None;
        while let Some(name) = listed.next_if(|name| name.first <= next) {
            if name.last >= next && furthest.is_none_or(|furthest| name.last > furthest.last) {
                furthest = Some(name);
            }
        }
        let Some(chosen) = furthest else { return Route { names, has_later: listed.next().is_some() } };
        names.push(chosen);
        let Some(after) = chosen.last.checked_add(1) else { return Route { names, has_later: false } };
        next = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_types::ChainId;

    fn routed(ranges: &[(CommitIndex, CommitIndex)], next: CommitIndex) -> (Vec<(CommitIndex, CommitIndex)>, bool) {
        let name = |(first, last): &(CommitIndex, CommitIndex)| SegmentName {
            chain: ChainId([0; 32]),
            epoch: 0,
            first: *first,
            last: *last,
        };
        let mut names: Vec<_> = ranges.iter().map(name).collect();
        names.sort_unstable();
        let Route { names, has_later } = route(names, next);
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
