//! Flow: how many commits make a range, how many bytes are on their way at once, and how much of it from one peer.
//!
//! ```text
//!   bytes of a commit  (measured) --> commits in a range, its reserve
//!   time of a range    (measured, for each peer) --> the window: bytes asked for and not yet verified
//! ```
//!
//! The window is what a link needs to stay busy: bandwidth x delay. It grows while ranges come back about as soon as the
//! soonest of their peer did, with the time that a larger one has to take longer, and shrinks when they come late, for then
//! they wait in some queue: the link's, the peer's, or this node's own processor's. The budget of bytes in flight bounds
//! it, whatever it would be.

use super::{Config, Verified};
use crate::core::Now;
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, PeerId};
use std::{collections::BTreeMap, time::Duration};

/// Bytes that a range is to have: enough that what a range costs by itself is nothing, and few enough that several
/// verify side by side.
const RANGE_BYTES: u64 = 4 << 20;

/// Answers of commits that a range takes at most.
pub(super) const MAX_ANSWERS: u32 = 4;

/// Bytes that a range of several answers is to have if its peer is not known to be quick. One answer has at most a hundred
/// commits, which may be so small that a range costs more by itself than what is in it. Larger ones save little more over a
/// slow link, and are longer not done when all others are.
const BYTES_OF_SEVERAL: u64 = 5 << 18;

/// Longest that a quick peer takes for a mebibyte.
const QUICK: Duration = Duration::from_millis(200);

/// Commits in a range until it is known what they take: of the largest commits there may be, a hundred are 1.6 GB.
const FIRST_COMMITS: u32 = 20;

/// Least that a range reserves: room for one block of the largest size.
const MIN_RESERVE: u64 = 1 << 20;

/// Bytes on their way that are always worth it: they keep all cores checking signatures in large batches.
const MIN_WINDOW: u64 = 16 << 20;

/// Longest that a range should take at a slow peer; it gets shorter ones. Far less than a request may take.
const LONGEST: Duration = Duration::from_secs(5);

/// Bytes that a range is not cut below for a slow peer, whose ranges may be slow because it serves so many: votes and round
/// trips of ever smaller ones would take more than what they are for.
const LEAST_BYTES: u64 = 32 << 10;

/// How long the soonest range of a peer is what others are compared with: routes and loads change.
const SOONEST_AGE: Duration = Duration::from_secs(30);

/// Peers whose pace is remembered.
const MAX_PACES: usize = 256;

/// Hedge delay until it is known how long downloads take.
const FIRST_HEDGE_DELAY: Duration = Duration::from_secs(1);

/// Least hedge delay: less is noise.
const MIN_HEDGE_DELAY: Duration = Duration::from_millis(100);

/// The same for small downloads, such as the commits at the head: a second one costs next to nothing.
const MIN_SMALL_HEDGE_DELAY: Duration = Duration::from_millis(25);

/// Bytes up to which a download is small: mostly round trips.
const SMALL_BYTES: u64 = 256 << 10;

/// How many mean deviations beyond the mean one in twenty takes longer: two if times were normally distributed, and
/// they have a longer tail.
const DEVIATIONS: u32 = 3;

/// What ranges have taken so far.
#[derive(Serialize, Deserialize)]
pub(super) struct Flow {
    /// Bytes of a commit with its blocks, as far as is known: rises at once, falls slowly.
    bytes_per_commit: Option<u64>,
    window: u64,
    /// The window was full when ranges were last started. One that is not used says nothing, and does not grow.
    filled: bool,
    paces: BTreeMap<PeerId, Pace>,
    downloads: BTreeMap<PeerId, Downloads>,
    /// Those of all peers.
    any_download: Option<Downloads>,
    /// Small ones of all peers.
    small_download: Option<Downloads>,
    /// Times until the first answer to a range, of all peers.
    first_answer: Option<Downloads>,
    /// Longest times between two answers of a small download, of all peers.
    small_pause: Option<Downloads>,
}

/// How long downloads take: mean and mean deviation, the latest counting most.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Downloads {
    mean: Duration,
    deviation: Duration,
    /// When the latest one ended.
    at: Duration,
}

impl Downloads {
    /// With one more that took `time`. The weights are those of TCP's timer (RFC 6298).
    fn with(before: Option<Self>, time: Duration, at: Duration) -> Self {
        let Some(Self { mean, deviation, .. }) = before else { return Self { mean: time, deviation: time / 2, at } };
        Self { mean: (mean * 7 + time) / 8, deviation: (deviation * 3 + mean.abs_diff(time)) / 4, at }
    }

    fn hedge_delay(&self, least: Duration) -> Duration {
        (self.mean + self.deviation * DEVIATIONS).max(least)
    }
}

/// When a peer was asked for a range.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) at: Duration,
    /// What it had served until then.
    served: u64,
}

/// How soon one peer's ranges come.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Pace {
    soonest: Duration,
    /// Bytes of that range.
    bytes: u64,
    /// When that was.
    at: Duration,
    /// Time for a mebibyte of the latest range.
    per_mib: Duration,
    /// Bytes of all its ranges so far.
    served: u64,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            bytes_per_commit: None,
            window: MIN_WINDOW,
            filled: false,
            paces: BTreeMap::new(),
            downloads: BTreeMap::new(),
            any_download: None,
            small_download: None,
            first_answer: None,
            small_pause: None,
        }
    }
}

impl Flow {
    /// Commits in a new range.
    pub(super) fn commits(&self, config: &Config) -> u32 {
        let in_answer = config.commits_per_fetch.max(1);
        let Some(bytes) = self.bytes_per_commit else { return FIRST_COMMITS.min(in_answer) };
        let fitting = RANGE_BYTES / bytes.max(1);
        if fitting < u64::from(in_answer) {
            return fitting.max(1) as u32;
        }
        in_answer * (fitting / u64::from(in_answer)).min(MAX_ANSWERS.into()) as u32
    }

    /// Commits that `peer` is asked for at once.
    fn commits_from(&self, config: &Config, peer: PeerId) -> u32 {
        let Some(bytes) = self.bytes_per_commit else { return u32::MAX };
        let pace = self.paces.get(&peer);
        let in_answer = u64::from(config.commits_per_fetch.max(1));
        let usual = match pace {
            Some(pace) if pace.per_mib <= QUICK => u64::MAX,
            _ => in_answer * (BYTES_OF_SEVERAL / bytes.max(1) / in_answer).max(1),
        };
        let micros = pace.map_or(0, |pace| pace.per_mib.as_micros().saturating_mul(u128::from(bytes)) >> 20);
        let in_time = LONGEST.as_micros().checked_div(micros).unwrap_or(u128::MAX);
        let least = (LEAST_BYTES / bytes.max(1)).max(1);
        in_time.max(least.into()).min(usual.into()).min(u32::MAX.into()) as u32
    }

    /// Bytes that so many commits will have.
    pub(super) fn expected(&self, commits: u32) -> u64 {
        self.bytes_per_commit.map_or(MIN_RESERVE, |bytes| bytes.saturating_mul(commits.into()))
    }

    /// Bytes that a range of so many commits may have.
    pub(super) fn reserve(&self, config: &Config, commits: u32) -> u64 {
        // Until it is known what commits take: some ranges at once, also over a long link; what is larger is cut, and asked for
        // again with room for anything.
        let usual =
            self.bytes_per_commit.map_or(config.bytes_per_range / 4, |_| self.expected(commits).saturating_mul(2));
        usual.max(MIN_RESERVE).min(config.bytes_per_range)
    }

    /// Bytes to have on their way.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// Notes whether the window was what kept more ranges from being started.
    pub(super) fn note_filled(&mut self, filled: bool) {
        self.filled = filled;
    }

    /// `peer` is asked for a range.
    pub(super) fn asked(&self, now: Now, peer: PeerId) -> Asked {
        Asked { at: now.monotonic, served: self.paces.get(&peer).map_or(0, |pace| pace.served) }
    }

    /// Learns from a range that `peer` has served.
    pub(super) fn learn(&mut self, now: Now, peer: PeerId, asked: Asked, verified: &Verified, budget: u64) {
        let bytes = verified.bytes.max(1);
        let commits = u64::from(verified.last.index.saturating_sub(verified.first)) + 1;
        let sample = (bytes / commits).max(1);
        self.bytes_per_commit =
            Some(self.bytes_per_commit.map_or(sample, |known| sample.max((known * 7 + sample) / 8)));

        let time = now.monotonic.saturating_sub(asked.at);
        let micros = time.as_micros();
        let per_mib = Duration::from_micros(((micros << 20) / u128::from(bytes)) as u64);
        let known = self.paces.get(&peer);
        let served = known.map_or(0, |pace| pace.served).saturating_add(bytes);
        let meanwhile = served.saturating_sub(asked.served).max(bytes);
        let known = known.filter(|pace| now.monotonic < pace.at + SOONEST_AGE);
        // What this range has more to carry than the soonest took its part of the time in which all that came did.
        let due = known.map_or(time, |pace| {
            let more = u128::from(bytes.saturating_sub(pace.bytes));
            pace.soonest + Duration::from_micros((micros * more / u128::from(meanwhile)) as u64)
        });
        if time <= due * 2 {
            if self.filled {
                self.window = (self.window + bytes).min(budget);
            }
        } else if time > due * 3 {
            self.window = self.window.saturating_sub(bytes).max(MIN_WINDOW);
        }
        let pace = match known {
            Some(pace) if pace.soonest <= time => Pace { per_mib, served, ..*pace },
            _ => Pace { soonest: time, bytes, at: now.monotonic, per_mib, served },
        };
        if self.paces.len() >= MAX_PACES && !self.paces.contains_key(&peer) {
            // Whoever has not been as soon as once for the longest time has most likely gone.
            let oldest = self.paces.iter().min_by_key(|(_, pace)| pace.at).map(|(peer, _)| *peer);
            oldest.map(|peer| self.paces.remove(&peer));
        }
        self.paces.insert(peer, pace);
    }

    /// Whether so many commits are a small download.
    fn is_small(&self, commits: CommitIndex) -> bool {
        self.bytes_per_commit.is_some() && self.expected(commits) <= SMALL_BYTES
    }

    /// Learns from a download of so many commits that `peer` has served, with `pause` as the longest time between two answers.
    pub(super) fn learn_download(
        &mut self,
        now: Now,
        peer: PeerId,
        asked: Asked,
        commits: CommitIndex,
        pause: Duration,
    ) {
        let (time, at) = (now.monotonic.saturating_sub(asked.at), now.monotonic);
        if self.is_small(commits) {
            self.small_pause = Some(Downloads::with(self.small_pause, pause, at));
            self.small_download = Some(Downloads::with(self.small_download, time, at));
            return;
        }
        self.any_download = Some(Downloads::with(self.any_download, time, at));
        if self.downloads.len() >= MAX_PACES && !self.downloads.contains_key(&peer) {
            let oldest = self.downloads.iter().min_by_key(|(_, downloads)| downloads.at).map(|(peer, _)| *peer);
            oldest.map(|peer| self.downloads.remove(&peer));
        }
        let known = self.downloads.get(&peer).copied();
        self.downloads.insert(peer, Downloads::with(known, time, at));
    }

    /// Learns from the first answer of a peer that was asked for a range.
    pub(super) fn learn_first_answer(&mut self, now: Now, asked: Asked) {
        let (time, at) = (now.monotonic.saturating_sub(asked.at), now.monotonic);
        self.first_answer = Some(Downloads::with(self.first_answer, time, at));
    }

    /// How long a peer that was asked for so many commits is waited for until it counts as silent: first answers are about
    /// as large, whatever is asked for and whatever peers claim.
    pub(super) fn silence_delay(&self, commits: CommitIndex) -> Duration {
        let least = if self.is_small(commits) { MIN_SMALL_HEDGE_DELAY } else { MIN_HEDGE_DELAY };
        self.first_answer.as_ref().map_or(FIRST_HEDGE_DELAY, |first| first.hedge_delay(least))
    }

    /// How long a peer that brings a small download counts as silent after its last answer. `None` for a large one, or
    /// until it is known.
    pub(super) fn pause_delay(&self, commits: CommitIndex) -> Option<Duration> {
        let pause = self.small_pause.as_ref().filter(|_| self.is_small(commits));
        pause.map(|pause| pause.hedge_delay(MIN_SMALL_HEDGE_DELAY))
    }

    /// Whether the peer has served anything lately.
    pub(super) fn has_served(&self, peer: PeerId) -> bool {
        self.paces.contains_key(&peer)
    }

    /// How long so many commits from `peer` are waited for before another peer is asked as well. Small downloads are
    /// measured against those of all peers: a peer that is slower than usual gets no more time for that.
    pub(super) fn hedge_delay(&self, peer: PeerId, commits: CommitIndex) -> Duration {
        match &self.small_download {
            Some(small) if self.is_small(commits) => small.hedge_delay(MIN_SMALL_HEDGE_DELAY),
            _ => {
                let known = self.downloads.get(&peer).or(self.any_download.as_ref());
                known.map_or(FIRST_HEDGE_DELAY, |known| known.hedge_delay(MIN_HEDGE_DELAY))
            }
        }
    }

    /// How far a range from `start` goes that is asked of `peer`, of one that goes to `end`.
    pub(super) fn end_for(&self, config: &Config, peer: PeerId, start: CommitIndex, end: CommitIndex) -> CommitIndex {
        end.min(start.saturating_add(self.commits_from(config, peer) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_types::{CommitDigest, CommitRef};

    const PEER: PeerId = PeerId([1; 32]);
    const OTHER: PeerId = PeerId([2; 32]);
    const BUDGET: u64 = 64 << 20;

    fn asked(flow: &Flow, peer: PeerId, at_ms: u64) -> Asked {
        flow.asked(Now { monotonic: Duration::from_millis(at_ms), unix_ms: 0 }, peer)
    }

    /// `peer` has served a range, and nothing else meanwhile.
    fn served(flow: &mut Flow, peer: PeerId, at_ms: u64, took_ms: u64, commits: u32, bytes: u64) {
        let asked = asked(flow, peer, at_ms - took_ms);
        learn(flow, peer, asked, at_ms, commits, bytes);
    }

    /// `PEER` has served a range, the last of so many that it served in that time.
    fn served_last_of(flow: &mut Flow, many: u64, at_ms: u64, took_ms: u64, bytes: u64) {
        let asked = asked(flow, PEER, at_ms - took_ms);
        let asked = Asked { served: asked.served.saturating_sub((many - 1) * bytes), ..asked };
        learn(flow, PEER, asked, at_ms, 100, bytes);
    }

    fn learn(flow: &mut Flow, peer: PeerId, asked: Asked, at_ms: u64, commits: u32, bytes: u64) {
        let digest = CommitDigest::default();
        let verified = Verified {
            first: 1,
            last: CommitRef { index: commits, digest },
            previous: digest,
            first_timestamp_ms: 0,
            first_leader_timestamp_ms: 0,
            last_timestamp_ms: 0,
            epoch: 0,
            ends_epoch: false,
            bytes,
            blocks: 1,
        };
        let now = Now { monotonic: Duration::from_millis(at_ms), unix_ms: 0 };
        flow.learn(now, peer, asked, &verified, BUDGET);
    }

    #[test]
    fn until_commits_are_known_a_range_may_have_a_part_of_what_a_range_may_and_then_twice_of_what_they_take() {
        let (mut flow, config) = (Flow::default(), Config::default());
        assert_eq!((flow.commits(&config), flow.reserve(&config, 20)), (FIRST_COMMITS, config.bytes_per_range / 4));
        served(&mut flow, PEER, 10, 10, 100, 3 << 20);
        assert_eq!(flow.commits(&config), 100);
        let reserve = flow.reserve(&config, 100);
        assert!(((6 << 20) - 1_000..=6 << 20).contains(&reserve), "{reserve}");
        assert_eq!(flow.reserve(&config, 1), MIN_RESERVE, "room for the largest block");
        assert_eq!(flow.reserve(&config, 10_000), config.bytes_per_range);
    }

    #[test]
    fn ranges_have_several_whole_answers_of_commits_where_these_are_small() {
        let config = Config::default();
        for (kib, commits) in [(30, 100), (21, 100), (20, 200), (13, 300), (10, 400), (1, 400)] {
            let mut flow = Flow::default();
            served(&mut flow, PEER, 10, 10, 100, 100 * (kib << 10));
            assert_eq!(flow.commits(&config), commits, "of {kib} KiB");
        }
    }

    #[test]
    fn only_a_peer_that_is_known_to_be_quick_is_asked_for_much_in_several_answers() {
        let (mut flow, config) = (Flow::default(), Config::default());
        // 4 KiB to a commit: 400 commits are 1.6 MiB, and 300 are 1.2.
        served(&mut flow, PEER, 1_000, 78, 100, 100 * (4 << 10));
        served(&mut flow, OTHER, 1_000, 79, 100, 100 * (4 << 10));
        assert_eq!(flow.end_for(&config, PEER, 1, 400), 400, "200 ms for a MiB");
        assert_eq!(flow.end_for(&config, OTHER, 1, 400), 300, "more");
        assert_eq!(flow.end_for(&config, PeerId([3; 32]), 1, 400), 300, "nothing is known of it");
        // One answer at least.
        served(&mut flow, OTHER, 2_000, 400, 100, 100 * (40 << 10));
        assert_eq!(flow.end_for(&config, OTHER, 1, 100), 100);
    }

    #[test]
    fn ranges_have_fewer_commits_where_these_are_large() {
        let (mut flow, config) = (Flow::default(), Config::default());
        served(&mut flow, PEER, 10, 10, 10, 10 << 20);
        assert_eq!(flow.commits(&config), 4);
        served(&mut flow, PEER, 20, 10, 1, 16 << 20);
        assert_eq!(flow.commits(&config), 1);
    }

    #[test]
    fn the_window_grows_while_it_is_filled_and_ranges_come_as_soon_as_ever() {
        let mut flow = Flow::default();
        flow.note_filled(false);
        served(&mut flow, PEER, 400, 400, 100, 1 << 20);
        assert_eq!(flow.window(), MIN_WINDOW, "a window that is not filled is large enough");
        flow.note_filled(true);
        for round in 1..100 {
            served(&mut flow, PEER, 400 + round, 400, 100, 1 << 20);
        }
        assert_eq!(flow.window(), BUDGET, "as far as the budget goes");
    }

    #[test]
    fn the_window_shrinks_while_ranges_wait_in_a_queue_and_never_below_what_keeps_the_cores_busy() {
        let mut flow = Flow::default();
        flow.note_filled(true);
        for round in 0..10 {
            served(&mut flow, PEER, 1_000 + round, 100, 100, 4 << 20);
        }
        let grown = flow.window();
        served(&mut flow, PEER, 2_000, 250, 100, 4 << 20);
        assert_eq!(flow.window(), grown, "somewhat later is no queue yet");
        served(&mut flow, PEER, 2_001, 400, 100, 4 << 20);
        assert!(flow.window() < grown);
        for round in 0..100 {
            served(&mut flow, PEER, 3_000 + round, 400, 100, 4 << 20);
        }
        assert_eq!(flow.window(), MIN_WINDOW);
        // What was soonest long ago is no measure any more.
        served(&mut flow, PEER, 60_000, 400, 100, 4 << 20);
        assert!(flow.window() > MIN_WINDOW);
    }

    #[test]
    fn a_range_that_is_larger_than_the_soonest_is_not_late_for_what_it_has_more_to_carry() {
        let mut flow = Flow::default();
        flow.note_filled(true);
        // A link of 4 MiB/s with a delay of 400 ms.
        served(&mut flow, PEER, 1_000, 425, 20, 100 << 10);
        for round in 1..=6 {
            served(&mut flow, PEER, round * 2_000, 1_150, 400, 3 << 20);
        }
        let grown = flow.window();
        served_last_of(&mut flow, 2, 14_000, 1_900, 3 << 20);
        assert_eq!(flow.window(), grown + (3 << 20), "two of them share the link");
        served_last_of(&mut flow, 6, 20_000, 4_900, 3 << 20);
        assert_eq!(flow.window(), grown, "six of them wait for each other");
    }

    #[test]
    fn a_slow_peer_is_asked_for_less_at_once_and_a_fast_one_is_not() {
        let (mut flow, config) = (Flow::default(), Config::default());
        served(&mut flow, OTHER, 60_000, 100, 100, 1 << 20);
        served(&mut flow, PEER, 60_000, 50_000, 100, 1 << 20);
        assert_eq!(flow.end_for(&config, PEER, 11, 110), 20);
        served(&mut flow, PEER, 60_000_000, 50_000_000, 100, 1 << 20);
        assert_eq!(flow.end_for(&config, PEER, 11, 110), 13, "no less than 32 KiB");
        assert_eq!(flow.end_for(&config, OTHER, 11, 110), 110);
        assert_eq!(flow.end_for(&config, PeerId([3; 32]), 11, 110), 110, "nothing is known of it");
    }

    #[test]
    fn the_paces_of_no_more_peers_are_remembered_than_may_be() {
        let mut flow = Flow::default();
        for number in 0..1_000u32 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_le_bytes());
            served(&mut flow, PeerId(id), 1_000 + u64::from(number), 10, 1, 100);
        }
        assert_eq!(flow.paces.len(), MAX_PACES);
    }
}
