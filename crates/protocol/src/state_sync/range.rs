//! A planned range and the attempts at it.
//!
//! ```text
//!   Waiting --select a peer--> Active --worker delivers--> Done --> linked
//!      ^                        |  |
//!      |<-------- failed -------'  '-- commits of an unknown epoch --> Held
//!      |<------------------- the committee is known ---------------------'
//!      '--the archive has it--> FromArchive --worker delivers--> Done
//! ```

use super::{Config, MAX_ANSWER_COMMITS, RETRY, RangeKey, RangeSummary, flow::Asked};
use crate::{core::Now, peer_heights::NoPeer};
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, Epoch, PeerId, SegmentName};
use std::time::Duration;

/// Maximum attempts at the next range. With the delays between them, a dozen peers are asked within a second at the
/// head.
pub const MAX_ATTEMPTS: usize = 12;

/// Maximum attempts at any other range.
const MAX_ATTEMPTS_BEHIND: usize = 2;

/// Answering attempts at a range beyond which no hedge starts: a further one would only share the link with them.
pub(super) const MAX_ANSWERING: usize = 2;

/// Silence after which an attempt is replaced when all [`MAX_ATTEMPTS`] are in use. It doubles each time all of them
/// have been replaced: if all peers are slow, one of them gets the time that it needs.
pub(super) const REPLACE_AFTER: Duration = Duration::from_millis(500);

/// Factor on the hedge delay of ranges behind the next one.
const DELAYS_BEHIND: u32 = 3;

/// A planned range. The plan has it under its first commit.
#[derive(Serialize, Deserialize)]
pub(super) struct Range {
    /// Last commit.
    pub(super) end: CommitIndex,
    pub(super) state: RangeState,
    /// Consecutive failures.
    pub(super) attempts: u32,
    /// Peers that failed since a part of the range last arrived, the latest first, at most [`MAX_ATTEMPTS`]. Others are
    /// preferred.
    pub(super) failed_at: Vec<PeerId>,
    /// Why no peer could serve the range at the last selection.
    pub(super) no_peer: Option<NoPeer>,
    /// The last failure.
    pub(super) last_failure: Option<String>,
    /// The reserve was too small for the first commit: the next attempt reserves the maximum.
    pub(super) outgrown: bool,
    /// The next attempt requests the commits behind the range as proof: the peer may lack votes for the last commit.
    pub(super) wide: bool,
    /// When no peer was available for a hedge.
    pub(super) no_hedge_at: Option<Duration>,
    /// Hedges of the current round that have not started.
    pub(super) further: usize,
    /// Attempts that were replaced by others.
    pub(super) replaced: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) enum RangeState {
    /// Waits to start, at least until this time.
    Waiting { not_before: Duration },
    /// Workers fetch the range, or peers are being selected for them. There is at least one attempt.
    Active(Vec<Attempt>),
    /// Verified. The shell holds the bytes under the key until the range is linked.
    Done { key: RangeKey, source: Source, verified: RangeSummary },
    /// A worker fetches the range from a segment of the archive.
    FromArchive { key: RangeKey, segment: SegmentName, reserve: u64 },
    /// The committee of this epoch is unknown.
    Held { epoch: Epoch },
}

/// Where the commits of a range came from.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) enum Source {
    Peer(PeerId),
    Archive(SegmentName),
}

/// One worker of a range, or the selection of its peer.
#[derive(Serialize, Deserialize)]
pub(super) struct Attempt {
    pub(super) key: RangeKey,
    /// Reserved bytes.
    pub(super) reserve: u64,
    /// The selected peer. `None` while PeerHeights selects one.
    pub(super) asked: Option<(PeerId, Asked)>,
    /// When data last arrived.
    pub(super) heard_at: Option<Duration>,
    /// Longest time between two arrivals.
    pub(super) pause: Duration,
    /// The download is complete and being checked.
    pub(super) downloaded: bool,
}

impl Attempt {
    pub(super) fn selecting(key: RangeKey, reserve: u64) -> Self {
        Self { key, reserve, asked: None, heard_at: None, pause: Duration::ZERO, downloaded: false }
    }

    pub(super) fn at(key: RangeKey, reserve: u64, peer: PeerId, asked: Asked) -> Self {
        Self { asked: Some((peer, asked)), ..Self::selecting(key, reserve) }
    }

    /// When the attempt counts as silent without more data.
    pub(super) fn silent_at(&self, delays: &Delays<impl Fn(PeerId) -> Duration>) -> Duration {
        match (self.asked, self.heard_at) {
            (Some((peer, _)), Some(heard_at)) => heard_at + delays.pause.unwrap_or_else(|| (delays.whole)(peer)),
            (Some((_, asked)), None) => asked.at + delays.first,
            (None, _) => Duration::ZERO,
        }
    }
}

/// Expected times of a download. An attempt that exceeds them is late.
pub(super) struct Delays<D> {
    /// Until the first answer.
    pub(super) first: Duration,
    /// Between two answers of a small download.
    pub(super) pause: Option<Duration>,
    /// Until the given peer has delivered all of the range.
    pub(super) whole: D,
}

impl Range {
    pub(super) fn waiting(end: CommitIndex, not_before: Duration) -> Self {
        Self {
            end,
            state: RangeState::Waiting { not_before },
            attempts: 0,
            failed_at: Vec::new(),
            no_peer: None,
            last_failure: None,
            outgrown: false,
            wide: false,
            no_hedge_at: None,
            further: 0,
            replaced: 0,
        }
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, RangeState::Active(_))
    }

    pub(super) fn is_from_archive(&self) -> bool {
        matches!(self.state, RangeState::FromArchive { .. })
    }

    /// Whether workers fetch the range.
    pub(super) fn is_under_way(&self) -> bool {
        self.is_active() || self.is_from_archive()
    }

    /// Whether the range waits and may start now.
    pub(super) fn is_due(&self, now: Now) -> bool {
        matches!(self.state, RangeState::Waiting { not_before } if not_before <= now.monotonic)
    }

    /// Whether the range is requested as one answer: with the maximum reserve, or with the commits behind it.
    pub(super) fn is_single(&self) -> bool {
        self.outgrown || self.wide
    }

    /// Last commit of the next attempt.
    pub(super) fn end_of_attempt(&self, start: CommitIndex, config: &Config) -> CommitIndex {
        let end_of_answer = start.saturating_add(config.commits_per_fetch.max(1) - 1);
        if self.is_single() { self.end.min(end_of_answer) } else { self.end }
    }

    /// Commits of the next attempt.
    pub(super) fn commits_of_attempt(&self, start: CommitIndex, config: &Config) -> CommitIndex {
        self.end_of_attempt(start, config).saturating_sub(start).saturating_add(1)
    }

    /// Last commit that may be requested as proof.
    pub(super) fn proof_end(&self, start: CommitIndex) -> CommitIndex {
        if self.wide { start.saturating_add(MAX_ANSWER_COMMITS - 1).max(self.end) } else { self.end }
    }

    /// Bytes that the range holds or may hold now.
    pub(super) fn bytes(&self) -> u64 {
        match &self.state {
            RangeState::Active(attempts) => attempts.iter().map(|attempt| attempt.reserve).sum(),
            RangeState::Done { verified, .. } => verified.bytes,
            RangeState::FromArchive { reserve, .. } => *reserve,
            RangeState::Waiting { .. } | RangeState::Held { .. } => 0,
        }
    }

    /// Returns the range to the queue. A blamed peer costs no wait, because PeerHeights selects another one; other
    /// failures back off.
    pub(super) fn fail(&mut self, now: Now, peer: Option<PeerId>, is_blamed: bool, reason: String) {
        let delay = match is_blamed {
            true => Duration::ZERO,
            false => RETRY.wait(self.attempts),
        };
        self.attempts += 1;
        if let Some(peer) = peer.filter(|peer| !self.failed_at.contains(peer)) {
            self.failed_at.truncate(MAX_ATTEMPTS - 1);
            self.failed_at.insert(0, peer);
        }
        self.no_peer = None;
        self.last_failure = Some(reason);
        self.state = RangeState::Waiting { not_before: now.monotonic + delay };
    }

    pub(super) fn attempts(&self) -> &[Attempt] {
        match &self.state {
            RangeState::Active(attempts) => attempts,
            _ => &[],
        }
    }

    pub(super) fn attempt_mut(&mut self, key: RangeKey) -> Option<&mut Attempt> {
        match &mut self.state {
            RangeState::Active(attempts) => attempts.iter_mut().find(|attempt| attempt.key == key),
            _ => None,
        }
    }

    /// Removes an attempt. The state stays `Active` even without attempts: the caller replaces it.
    pub(super) fn take_attempt(&mut self, key: RangeKey) -> Option<Attempt> {
        let RangeState::Active(attempts) = &mut self.state else { return None };
        let at = attempts.iter().position(|attempt| attempt.key == key)?;
        Some(attempts.remove(at))
    }

    /// Peers that serve the range now.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.attempts().iter().filter_map(|attempt| attempt.asked.map(|(peer, _)| peer))
    }

    /// When the next hedge is due, if one is allowed.
    pub(super) fn hedge_at(&self, is_next: bool, delays: &Delays<impl Fn(PeerId) -> Duration>) -> Option<Duration> {
        let attempts = self.attempts();
        let last = attempts.last()?;
        let (peer, asked) = last.asked?;
        if attempts.iter().any(|attempt| attempt.downloaded) {
            return None;
        }
        let delay = match last.heard_at {
            None if is_next => delays.first,
            _ => (delays.whole)(peer),
        };
        let late_at = match attempts.len() {
            1.. if self.further > 0 => asked.at,
            MAX_ATTEMPTS.. => self.replace_at()?,
            MAX_ATTEMPTS_BEHIND.. if !is_next => return None,
            _ if !is_next => asked.at + delay * DELAYS_BEHIND,
            _ => asked.at + delay,
        };
        let late_at = late_at.max(self.no_hedge_at.map_or(Duration::ZERO, |at| at + delay));
        Some(late_at.max(self.enough_answer_until(delays)))
    }

    /// Until when enough attempts answer, so that a hedge would gain nothing. Zero if too few do.
    fn enough_answer_until(&self, delays: &Delays<impl Fn(PeerId) -> Duration>) -> Duration {
        let answering = self.attempts().iter().filter(|attempt| attempt.heard_at.is_some());
        let mut silent_at: Vec<_> = answering.map(|attempt| attempt.silent_at(delays)).collect();
        silent_at.sort_unstable_by(|one, other| other.cmp(one));
        silent_at.get(MAX_ANSWERING - 1).copied().unwrap_or_default()
    }

    /// The attempt that has been silent for longest, and since when.
    pub(super) fn longest_silent(&self) -> Option<(RangeKey, PeerId, Duration)> {
        let since = |attempt: &Attempt| {
            let (peer, asked) = attempt.asked?;
            Some((attempt.key, peer, attempt.heard_at.unwrap_or(asked.at)))
        };
        self.attempts().iter().filter_map(since).min_by_key(|(_, _, since)| *since)
    }

    /// When the attempt that has been silent for longest is replaced.
    fn replace_at(&self) -> Option<Duration> {
        let turns = (self.replaced as usize / MAX_ATTEMPTS).min(16);
        let (_, _, since) = self.longest_silent()?;
        Some(since + REPLACE_AFTER * (1 << turns))
    }
}
