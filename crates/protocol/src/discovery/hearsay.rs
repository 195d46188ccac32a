//! What peers say of this node: from where they see it, what their clocks show, whether they could dial it. Each may
//! lie: for an address three networks must agree, for a clock the middle of the peers, for being unreachable half of
//! the networks.

use serde::{Deserialize, Serialize};
use soma_types::{NetworkGroup, PeerId, TimestampMs};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Networks that must say the same before this node takes an address for its own.
const MIN_WITNESSES: usize = 3;

/// Maximum difference of clocks: beyond it, peers refuse this node's signatures, or it refuses theirs.
const MAX_CLOCK_DIFFERENCE_MS: u64 = 30_000;

/// What a peer that was asked says of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// From where it sees this node come.
    pub ip: Option<IpAddr>,
    /// The peer's clock, in milliseconds since 1970; 0: it does not say.
    pub time_ms: TimestampMs,
    /// Whether it could dial this node where its info says; `None`: it has not tried.
    pub reached: Option<bool>,
}

#[derive(Serialize, Deserialize)]
struct Said {
    of: NetworkGroup,
    seen: Seen,
    /// How far the peer's clock is ahead of this node's.
    clock_ahead_ms: Option<i64>,
}

/// What connected peers said last.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Hearsay(BTreeMap<PeerId, Said>);

impl Hearsay {
    /// A peer of network `of` has answered.
    pub(super) fn said(&mut self, peer: PeerId, of: NetworkGroup, seen: Seen, now_ms: TimestampMs) {
        let ahead = || i64::try_from(i128::from(seen.time_ms) - i128::from(now_ms)).unwrap_or(i64::MAX);
        let clock_ahead_ms = (seen.time_ms > 0).then(ahead);
        self.0.insert(peer, Said { of, seen, clock_ahead_ms });
    }

    /// A peer is not connected any more.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.0.remove(&peer);
    }

    /// The address at which more than half of the peers see this node, from at least [`MIN_WITNESSES`] networks.
    pub(super) fn external_ip(&self) -> Option<IpAddr> {
        let mut witnesses: BTreeMap<IpAddr, (usize, BTreeSet<&NetworkGroup>)> = BTreeMap::new();
        let mut heard = 0;
        for said in self.0.values() {
            let Some(ip) = said.seen.ip else { continue };
            heard += 1;
            let (count, networks) = witnesses.entry(ip.to_canonical()).or_default();
            *count += 1;
            networks.insert(&said.of);
        }
        let agreed = |(_, (count, networks)): &(IpAddr, (usize, BTreeSet<_>))| {
            count * 2 > heard && networks.len() >= MIN_WITNESSES
        };
        witnesses.into_iter().find(agreed).map(|(ip, _)| ip)
    }

    /// By how many milliseconds this node's clock is ahead of the peers' (behind: negative), as the median of those has
    /// it, if that is too much; and how many they are.
    pub(super) fn clock_off(&self) -> Option<(i64, usize)> {
        let mut ahead: Vec<i64> = self.0.values().filter_map(|said| said.clock_ahead_ms).collect();
        ahead.sort_unstable();
        // Of an even number both in the middle have to say so: one of two peers does not decide.
        let median = *ahead.get(ahead.len().checked_sub(1)? / 2)?;
        let other = *ahead.get(ahead.len() / 2)?;
        let is_off = |ahead_ms: i64| ahead_ms.unsigned_abs() > MAX_CLOCK_DIFFERENCE_MS;
        let agree = is_off(median) && is_off(other) && median.signum() == other.signum();
        agree.then_some((median.saturating_neg(), ahead.len()))
    }

    /// How many peers could not dial this node, if none could, and they are of half of the networks or more.
    pub(super) fn unreachable(&self) -> Option<usize> {
        let failed = || self.0.values().filter(|said| said.seen.reached == Some(false));
        let networks: BTreeSet<_> = self.0.values().map(|said| &said.of).collect();
        let failed_from: BTreeSet<_> = failed().map(|said| &said.of).collect();
        let nobody_could = self.0.values().all(|said| said.seen.reached != Some(true));
        (nobody_could && !failed_from.is_empty() && failed_from.len() * 2 >= networks.len()).then(|| failed().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: TimestampMs = 1_000_000_000;

    fn told(words: &[(u8, Seen)]) -> Hearsay {
        let mut hearsay = Hearsay::default();
        for (number, (network, seen)) in words.iter().enumerate() {
            let peer = PeerId([number as u8; 32]);
            hearsay.said(peer, NetworkGroup::V4([198, *network]), *seen, NOW_MS);
        }
        hearsay
    }

    fn at(ip: &str) -> Seen {
        Seen { ip: Some(ip.parse().unwrap()), ..Seen::default() }
    }

    fn clock(ahead_ms: i64) -> Seen {
        Seen { time_ms: NOW_MS.saturating_add_signed(ahead_ms), ..Seen::default() }
    }

    fn reached(reached: Option<bool>) -> Seen {
        Seen { reached, ..Seen::default() }
    }

    #[test]
    fn an_address_is_learned_only_when_three_networks_and_most_peers_agree() {
        let ours = || at("203.0.113.7");
        let lie = || at("203.0.113.66");
        assert_eq!(told(&[(1, ours()), (2, ours())]).external_ip(), None, "too few");
        assert_eq!(told(&[(1, ours()), (1, ours()), (1, ours())]).external_ip(), None, "one network");
        let agreed = [(1, ours()), (2, ours()), (3, ours()), (4, lie()), (5, lie())];
        assert_eq!(told(&agreed).external_ip(), "203.0.113.7".parse().ok());
        let split = [(1, ours()), (2, ours()), (3, ours()), (4, lie()), (5, lie()), (6, lie())];
        assert_eq!(told(&split).external_ip(), None, "as many say something else");
    }

    #[test]
    fn a_clock_is_wrong_when_the_median_of_the_peers_says_so() {
        assert_eq!(told(&[]).clock_off(), None);
        assert_eq!(told(&[(1, clock(30_000))]).clock_off(), None, "within what clocks differ by");
        assert_eq!(told(&[(1, clock(31_000))]).clock_off(), Some((-31_000, 1)), "ours is behind");
        assert_eq!(told(&[(1, clock(-60_000)), (2, clock(-61_000))]).clock_off(), Some((61_000, 2)));
        assert_eq!(told(&[(1, clock(0)), (2, clock(90_000_000)), (3, clock(5))]).clock_off(), None, "one liar");
        assert_eq!(told(&[(1, clock(0)), (2, clock(-60_000))]).clock_off(), None, "one of two says so");
        assert_eq!(told(&[(1, clock(-60_000)), (2, clock(60_000))]).clock_off(), None, "they disagree");
        assert_eq!(told(&[(1, Seen::default())]).clock_off(), None, "nobody says");
    }

    #[test]
    fn a_node_is_unreachable_when_all_who_tried_failed() {
        assert_eq!(told(&[(1, reached(None))]).unreachable(), None);
        assert_eq!(told(&[(1, reached(None)), (2, reached(Some(false)))]).unreachable(), Some(1));
        assert_eq!(told(&[(1, reached(Some(true))), (2, reached(Some(false)))]).unreachable(), None);
        let one_of_three = [(1, reached(None)), (2, reached(Some(false))), (3, reached(None))];
        assert_eq!(told(&one_of_three).unreachable(), None, "one network's word");
    }
}
