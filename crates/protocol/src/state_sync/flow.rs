//! Flow control: the length of ranges, the window of bytes in flight, and hedge delays.
//!
//! ```text
//!   bytes of a commit (measured) --> commits in a range, its reserve
//!   time of a range   (measured for each peer) --> the window: bytes requested and not yet verified
//!   time of downloads (mean and deviation) --> hedge delays
//! ```
//!
//! The window should be the bandwidth-delay product of the links. It grows while a range takes at most twice its due
//! time: that of its peer's fastest range, plus the time for its extra bytes. It shrinks when a range takes over
//! three times as long, because a queue has built up: in the link, in the peer, or at this node's processor. The
//! budget of bytes in flight bounds the window.

use super::{Config, RangeSummary};
use crate::core::Now;
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, PeerId};
use std::{collections::BTreeMap, time::Duration};

/// Target size of a range: large enough that its fixed cost does not matter, small enough that several verify in
/// parallel.
const RANGE_BYTES: u64 = 4 << 20;

/// Maximum answers with commits in a range.
pub(super) const MAX_ANSWERS: u32 = 4;

/// Target size of a range of several answers, unless its peer is known to be quick. Ranges of one answer may be so
/// small that their fixed cost dominates. Larger ranges save little more over a slow link, and finish last.
const BYTES_OF_SEVERAL: u64 = 5 << 18;

/// A peer is quick if a mebibyte takes at most this long.
const QUICK: Duration = Duration::from_millis(200);

/// Commits in a range until their size is known: a hundred commits of the maximum size are 1.6 GB.
const FIRST_COMMITS: u32 = 20;

/// Minimum reserve of a range: one block of the maximum size.
const MIN_RESERVE: u64 = 1 << 20;

/// Minimum window. It keeps all cores busy with large batches of signatures.
const MIN_WINDOW: u64 = 16 << 20;

/// Maximum time of a range; slow peers get shorter ranges. It is far below the request timeout.
const LONGEST: Duration = Duration::from_secs(5);

/// Minimum size of a range for a slow peer, which may be slow because it serves many ranges. In smaller ranges votes
/// and round trips would cost more than the commits.
const LEAST_BYTES: u64 = 32 << 10;

/// How long the fastest range of a peer is the reference for others: routes and loads change.
const FASTEST_AGE: Duration = Duration::from_secs(30);

/// Maximum number of peers with measurements.
const MAX_PEERS: usize = 256;

/// Hedge delay before the first measurement.
const FIRST_HEDGE_DELAY: Duration = Duration::from_secs(1);

/// Minimum hedge delay: less is noise.
const MIN_HEDGE_DELAY: Duration = Duration::from_millis(100);

/// Minimum hedge delay of small downloads, such as commits at the head: a hedge costs almost nothing there.
const MIN_SMALL_HEDGE_DELAY: Duration = Duration::from_millis(25);

/// Maximum size of a small download. Round trips are most of its time.
const SMALL_BYTES: u64 = 256 << 10;

/// Mean deviations beyond the mean that one of twenty downloads exceeds. Two would suffice for a normal distribution,
/// but download times have a longer tail.
const DEVIATIONS: u32 = 3;

/// Measurements of all ranges so far.
#[derive(Serialize, Deserialize)]
pub(super) struct Flow {
    /// Estimated bytes of a commit with its blocks: rises at once, falls slowly.
    bytes_per_commit: Option<u64>,
    window: u64,
    /// The window was full when ranges last started. An unused window does not grow.
    filled: bool,
    paces: BTreeMap<PeerId, RangeTimes>,
    /// Downloads of each peer.
    downloads: BTreeMap<PeerId, TimeEstimate>,
    /// Downloads of all peers.
    any_download: Option<TimeEstimate>,
    /// Small downloads of all peers.
    small_download: Option<TimeEstimate>,
    /// Times until the first answer to a range, of all peers.
    first_answer: Option<TimeEstimate>,
    /// Longest times between two answers of a small download, of all peers.
    small_pause: Option<TimeEstimate>,
}

/// Moving mean and mean deviation of times. Not a speed: the tail decides when a hedge is due.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct TimeEstimate {
    mean: Duration,
    deviation: Duration,
    /// When the latest sample ended.
    at: Duration,
}

impl TimeEstimate {
    /// Adds a sample, with the weights of TCP's retransmission timer (RFC 6298).
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
    /// Bytes that the peer had served until then.
    served: u64,
}

/// Times of one peer's ranges. `peer_heights::work` compares peers by bytes while busy; here the latency of single
/// ranges shows whether a queue has built up, so the two are no one measure.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct RangeTimes {
    /// Time of the fastest range of late.
    soonest: Duration,
    /// Bytes of the fastest range.
    bytes: u64,
    /// When the fastest range ended.
    at: Duration,
    /// Time for a mebibyte of the latest range.
    per_mib: Duration,
    /// Bytes of all ranges so far.
    served: u64,
}

impl RangeTimes {
    /// How long a range of `bytes` should take. While `meanwhile` bytes came from the peer in `time`, the bytes that
    /// this range has more than the fastest one took their share.
    fn due(&self, time: Duration, bytes: u64, meanwhile: u64) -> Duration {
        let more = u128::from(bytes.saturating_sub(self.bytes));
        self.soonest + Duration::from_micros((time.as_micros() * more / u128::from(meanwhile)) as u64)
    }
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

    /// Maximum commits to request from `peer` at once.
    fn commits_from(&self, config: &Config, peer: PeerId) -> u32 {
        let Some(bytes) = self.bytes_per_commit else { return u32::MAX };
        let times = self.paces.get(&peer);
        let in_answer = u64::from(config.commits_per_fetch.max(1));
        let usual = match times {
            Some(times) if times.per_mib <= QUICK => u64::MAX,
            _ => in_answer * (BYTES_OF_SEVERAL / bytes.max(1) / in_answer).max(1),
        };
        let micros = times.map_or(0, |times| times.per_mib.as_micros().saturating_mul(u128::from(bytes)) >> 20);
        let in_time = LONGEST.as_micros().checked_div(micros).unwrap_or(u128::MAX);
        let least = (LEAST_BYTES / bytes.max(1)).max(1);
        in_time.max(least.into()).min(usual.into()).min(u32::MAX.into()) as u32
    }

    /// Expected bytes of this many commits.
    pub(super) fn expected(&self, commits: u32) -> u64 {
        self.bytes_per_commit.map_or(MIN_RESERVE, |bytes| bytes.saturating_mul(commits.into()))
    }

    /// Bytes that a range of this many commits reserves.
    pub(super) fn reserve(&self, config: &Config, commits: u32) -> u64 {
        // Before the first measurement a quarter lets some ranges run in parallel. A range that needs more is cut,
        // and its rest reserves the maximum.
        let usual =
            self.bytes_per_commit.map_or(config.bytes_per_range / 4, |_| self.expected(commits).saturating_mul(2));
        usual.max(MIN_RESERVE).min(config.bytes_per_range)
    }

    /// Bytes to keep in flight.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// Records whether the window kept more ranges from starting.
    pub(super) fn note_filled(&mut self, filled: bool) {
        self.filled = filled;
    }

    /// The state of `peer` when a range is requested from it.
    pub(super) fn asked(&self, now: Now, peer: PeerId) -> Asked {
        Asked { at: now.monotonic, served: self.paces.get(&peer).map_or(0, |times| times.served) }
    }

    /// Learns from a range that `peer` has served. `budget` bounds the window.
    pub(super) fn learn(&mut self, now: Now, peer: PeerId, asked: Asked, verified: &RangeSummary, budget: u64) {
        let bytes = verified.bytes.max(1);
        let commits = u64::from(verified.last.index.saturating_sub(verified.first)) + 1;
        self.estimate_commit_size((bytes / commits).max(1));

        let time = now.monotonic.saturating_sub(asked.at);
        let known = self.paces.get(&peer);
        let served = known.map_or(0, |times| times.served).saturating_add(bytes);
        let meanwhile = served.saturating_sub(asked.served).max(bytes);
        let known = known.filter(|times| now.monotonic < times.at + FASTEST_AGE).copied();
        let due = known.map_or(time, |times| times.due(time, bytes, meanwhile));
        self.adjust_window(time, due, bytes, budget);

        let per_mib = Duration::from_micros(((time.as_micros() << 20) / u128::from(bytes)) as u64);
        let times = match known {
            Some(times) if times.soonest <= time => RangeTimes { per_mib, served, ..times },
            _ => RangeTimes { soonest: time, bytes, at: now.monotonic, per_mib, served },
        };
        self.remember_times(peer, times);
    }

    fn estimate_commit_size(&mut self, sample: u64) {
        let estimate = self.bytes_per_commit.map_or(sample, |known| sample.max((known * 7 + sample) / 8));
        self.bytes_per_commit = Some(estimate);
    }

    /// Grows a full window by a range that came in time, and shrinks it by a late one.
    fn adjust_window(&mut self, time: Duration, due: Duration, bytes: u64, budget: u64) {
        if time <= due * 2 {
            if self.filled {
                self.window = (self.window + bytes).min(budget);
            }
        } else if time > due * 3 {
            self.window = self.window.saturating_sub(bytes).max(MIN_WINDOW);
        }
    }

    fn remember_times(&mut self, peer: PeerId, times: RangeTimes) {
        make_room(&mut self.paces, peer, |times| times.at);
        self.paces.insert(peer, times);
    }

    /// Whether this many commits are a small download.
    fn is_small(&self, commits: CommitIndex) -> bool {
        self.bytes_per_commit.is_some() && self.expected(commits) <= SMALL_BYTES
    }

    /// Learns from a complete download of this many commits. `pause` is the longest time between two answers.
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
            self.small_pause = Some(TimeEstimate::with(self.small_pause, pause, at));
            self.small_download = Some(TimeEstimate::with(self.small_download, time, at));
            return;
        }
        self.any_download = Some(TimeEstimate::with(self.any_download, time, at));
        make_room(&mut self.downloads, peer, |times| times.at);
        let known = self.downloads.get(&peer).copied();
        self.downloads.insert(peer, TimeEstimate::with(known, time, at));
    }

    /// Learns from the first answer to a range request.
    pub(super) fn learn_first_answer(&mut self, now: Now, asked: Asked) {
        let (time, at) = (now.monotonic.saturating_sub(asked.at), now.monotonic);
        self.first_answer = Some(TimeEstimate::with(self.first_answer, time, at));
    }

    /// A peer counts as silent if its first answer takes longer than this. First answers have about the same size,
    /// however many commits are requested or advertised.
    pub(super) fn silence_delay(&self, commits: CommitIndex) -> Duration {
        let least = if self.is_small(commits) { MIN_SMALL_HEDGE_DELAY } else { MIN_HEDGE_DELAY };
        self.first_answer.as_ref().map_or(FIRST_HEDGE_DELAY, |first| first.hedge_delay(least))
    }

    /// A peer counts as silent in a small download if its next answer takes longer than this. `None` for large
    /// downloads, and before the first measurement.
    pub(super) fn pause_delay(&self, commits: CommitIndex) -> Option<Duration> {
        let pause = self.small_pause.as_ref().filter(|_| self.is_small(commits));
        pause.map(|pause| pause.hedge_delay(MIN_SMALL_HEDGE_DELAY))
    }

    /// Whether the peer has served a range that is still remembered.
    pub(super) fn has_served(&self, peer: PeerId) -> bool {
        self.paces.contains_key(&peer)
    }

    /// Hedge delay for a request of so many commits to `peer`. Small downloads are compared with those of all peers,
    /// so that a slow peer gets no extra time.
    pub(super) fn hedge_delay(&self, peer: PeerId, commits: CommitIndex) -> Duration {
        match &self.small_download {
            Some(small) if self.is_small(commits) => small.hedge_delay(MIN_SMALL_HEDGE_DELAY),
            _ => {
                let known = self.downloads.get(&peer).or(self.any_download.as_ref());
                known.map_or(FIRST_HEDGE_DELAY, |known| known.hedge_delay(MIN_HEDGE_DELAY))
            }
        }
    }

    /// Last commit to request from `peer` of a range from `start` to `end`.
    pub(super) fn end_for(&self, config: &Config, peer: PeerId, start: CommitIndex, end: CommitIndex) -> CommitIndex {
        end.min(start.saturating_add(self.commits_from(config, peer) - 1))
    }
}

/// Makes room for `peer` in full measurements: the peer with the oldest one has most likely gone.
fn make_room<T>(measured: &mut BTreeMap<PeerId, T>, peer: PeerId, at: impl Fn(&T) -> Duration) {
    if measured.len() >= MAX_PEERS && !measured.contains_key(&peer) {
        let oldest = measured.iter().min_by_key(|(_, measurement)| at(measurement)).map(|(peer, _)| *peer);
        oldest.map(|peer| measured.remove(&peer));
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

    /// `peer` has served one range, and nothing else in that time.
    fn served(flow: &mut Flow, peer: PeerId, at_ms: u64, took_ms: u64, commits: u32, bytes: u64) {
        let asked = asked(flow, peer, at_ms - took_ms);
        learn(flow, peer, asked, at_ms, commits, bytes);
    }

    /// `PEER` has served so many ranges in that time; this is the last.
    fn served_last_of(flow: &mut Flow, many: u64, at_ms: u64, took_ms: u64, bytes: u64) {
        let asked = asked(flow, PEER, at_ms - took_ms);
        let asked = Asked { served: asked.served.saturating_sub((many - 1) * bytes), ..asked };
        learn(flow, PEER, asked, at_ms, 100, bytes);
    }

    fn learn(flow: &mut Flow, peer: PeerId, asked: Asked, at_ms: u64, commits: u32, bytes: u64) {
        let digest = CommitDigest::default();
        let verified = RangeSummary {
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
    fn reserve_is_a_quarter_of_the_maximum_then_twice_the_measured_size() {
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
    fn ranges_of_small_commits_have_several_whole_answers() {
        let config = Config::default();
        for (kib, commits) in [(30, 100), (21, 100), (20, 200), (13, 300), (10, 400), (1, 400)] {
            let mut flow = Flow::default();
            served(&mut flow, PEER, 10, 10, 100, 100 * (kib << 10));
            assert_eq!(flow.commits(&config), commits, "of {kib} KiB");
        }
    }

    #[test]
    fn only_quick_peers_get_large_ranges_of_several_answers() {
        let (mut flow, config) = (Flow::default(), Config::default());
        // 4 KiB to a commit: 400 commits are 1.6 MiB, and 300 are 1.2.
        served(&mut flow, PEER, 1_000, 78, 100, 100 * (4 << 10));
        served(&mut flow, OTHER, 1_000, 79, 100, 100 * (4 << 10));
        assert_eq!(flow.end_for(&config, PEER, 1, 400), 400, "200 ms for a MiB");
        assert_eq!(flow.end_for(&config, OTHER, 1, 400), 300, "more");
        assert_eq!(flow.end_for(&config, PeerId([3; 32]), 1, 400), 300, "an unknown peer");
        // One answer at least.
        served(&mut flow, OTHER, 2_000, 400, 100, 100 * (40 << 10));
        assert_eq!(flow.end_for(&config, OTHER, 1, 100), 100);
    }

    #[test]
    fn ranges_of_large_commits_have_fewer_commits() {
        let (mut flow, config) = (Flow::default(), Config::default());
        served(&mut flow, PEER, 10, 10, 10, 10 << 20);
        assert_eq!(flow.commits(&config), 4);
        served(&mut flow, PEER, 20, 10, 1, 16 << 20);
        assert_eq!(flow.commits(&config), 1);
    }

    #[test]
    fn full_window_grows_while_ranges_come_in_time() {
        let mut flow = Flow::default();
        flow.note_filled(false);
        served(&mut flow, PEER, 400, 400, 100, 1 << 20);
        assert_eq!(flow.window(), MIN_WINDOW, "an unfilled window does not grow");
        flow.note_filled(true);
        for round in 1..100 {
            served(&mut flow, PEER, 400 + round, 400, 100, 1 << 20);
        }
        assert_eq!(flow.window(), BUDGET, "up to the budget");
    }

    #[test]
    fn window_shrinks_while_ranges_queue_but_keeps_the_cores_busy() {
        let mut flow = Flow::default();
        flow.note_filled(true);
        for round in 0..10 {
            served(&mut flow, PEER, 1_000 + round, 100, 100, 4 << 20);
        }
        let grown = flow.window();
        served(&mut flow, PEER, 2_000, 250, 100, 4 << 20);
        assert_eq!(flow.window(), grown, "slightly late means no queue");
        served(&mut flow, PEER, 2_001, 400, 100, 4 << 20);
        assert!(flow.window() < grown);
        for round in 0..100 {
            served(&mut flow, PEER, 3_000 + round, 400, 100, 4 << 20);
        }
        assert_eq!(flow.window(), MIN_WINDOW);
        // An old fastest range is no reference any more.
        served(&mut flow, PEER, 60_000, 400, 100, 4 << 20);
        assert!(flow.window() > MIN_WINDOW);
    }

    #[test]
    fn larger_range_gets_time_for_its_extra_bytes() {
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
    fn slow_peer_gets_shorter_ranges() {
        let (mut flow, config) = (Flow::default(), Config::default());
        served(&mut flow, OTHER, 60_000, 100, 100, 1 << 20);
        served(&mut flow, PEER, 60_000, 50_000, 100, 1 << 20);
        assert_eq!(flow.end_for(&config, PEER, 11, 110), 20);
        served(&mut flow, PEER, 60_000_000, 50_000_000, 100, 1 << 20);
        assert_eq!(flow.end_for(&config, PEER, 11, 110), 13, "no less than 32 KiB");
        assert_eq!(flow.end_for(&config, OTHER, 11, 110), 110);
        assert_eq!(flow.end_for(&config, PeerId([3; 32]), 11, 110), 110, "an unknown peer");
    }

    #[test]
    fn number_of_measured_peers_is_bounded() {
        let mut flow = Flow::default();
        for number in 0..1_000u32 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_le_bytes());
            served(&mut flow, PeerId(id), 1_000 + u64::from(number), 10, 1, 100);
        }
        assert_eq!(flow.paces.len(), MAX_PEERS);
    }
}
