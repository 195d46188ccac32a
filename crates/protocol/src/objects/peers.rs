//! What is known of each peer: how soon it answers, what it lacks, and whether it may be asked.

use crate::Backoff;
use serde::{Deserialize, Serialize};
use soma_types::{ObjectId, ObjectKind};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// An object that somebody wants.
pub(super) type Key = (ObjectKind, ObjectId);

/// How long a peer that lacked an object is not asked for it again.
pub(super) const LACKS_FOR: Duration = Duration::from_secs(2);

/// Objects that a peer is remembered to lack. Beyond, the oldest is forgotten.
pub(super) const MAX_LACKED: usize = 4_096;

/// Pauses after failures in a row.
const PAUSE: Backoff = Backoff { min: Duration::from_millis(500), max: Duration::from_secs(60) };

/// Pause after a failure of this node.
pub(super) const OWN_PAUSE: Duration = Duration::from_millis(100);

/// A call counts as late when it has brought nothing for so many times the usual wait.
const LATE_FACTOR: u32 = 4;

/// Bounds of that time: below, it would measure the scheduler; above, an object is needed sooner.
const LATE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The usual wait for a peer that has not answered yet.
const UNKNOWN_WAIT: Duration = Duration::from_millis(50);

/// What a failure in a row adds to the expected time of an answer.
const FAILURE_COST: Duration = Duration::from_millis(50);

/// How many more times a peer that lacks everything counts its expected time.
const MISS_COST: u32 = 9;

/// Weight of the past in moving averages, of which the latest value is one part.
const SMOOTHING: u32 = 8;

/// A moving average of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Average(Option<Duration>);

impl Average {
    fn add(&mut self, time: Duration) {
        self.0 = Some(self.0.map_or(time, |average| (average * (SMOOTHING - 1) + time) / SMOOTHING));
    }
}

/// One connected peer.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Peer {
    /// It has no objects at all.
    pub(super) is_unsupported: bool,
    /// Number of the last call to it: of equal peers, the one that was not asked for longest is next.
    pub(super) last_call: u64,
    /// Wait for the next part of an answer.
    wait: Average,
    /// Time for one object, the wait not included.
    each: Average,
    /// Parts in a thousand of the asked objects that it has had.
    hit_rate: Option<u32>,
    failures: u32,
    pub(super) paused_until: Duration,
    lacked: BTreeMap<Key, Duration>,
    /// The same, the oldest first.
    lacked_in_order: VecDeque<(Key, Duration)>,
}

impl Peer {
    /// Whether it said lately that it lacks the object.
    pub(super) fn lacks(&self, key: &Key, now: Duration) -> bool {
        self.lacked.get(key).is_some_and(|until| *until > now)
    }

    /// When one more object would be here after so many that are asked for, as a number to compare peers by. Peers that
    /// were not asked yet are tried.
    pub(super) fn expected(&self, asked: usize) -> Duration {
        let objects = u32::try_from(asked).unwrap_or(u32::MAX);
        let time =
            self.each.0.unwrap_or_default().saturating_mul(objects).saturating_add(self.wait.0.unwrap_or_default());
        let misses = 1_000 - self.hit_rate.unwrap_or(1_000);
        time.saturating_add(FAILURE_COST.saturating_mul(self.failures)).saturating_mul(1_000 + MISS_COST * misses)
    }

    /// How long to wait for the next part of an answer before another peer is asked.
    pub(super) fn patience(&self) -> Duration {
        (self.wait.0.unwrap_or(UNKNOWN_WAIT) * LATE_FACTOR).clamp(LATE.0, LATE.1)
    }

    /// A call to it has brought nothing for this long. It counts as one that lacks what it was asked for, so that a peer
    /// that never answers is asked last.
    pub(super) fn is_late(&mut self, wait: Duration) {
        self.wait.add(wait);
        self.hit(0);
    }

    /// Of a thousand objects it had so many.
    fn hit(&mut self, hits: u32) {
        self.hit_rate = Some(self.hit_rate.map_or(hits, |rate| (rate * (SMOOTHING - 1) + hits) / SMOOTHING));
    }

    /// A part of an answer has arrived after this wait.
    pub(super) fn arrived(&mut self, wait: Duration, found: usize, missing: usize) {
        self.failures = 0;
        self.wait.add(wait);
        if let Some(hits) = (found * 1_000).checked_div(found + missing) {
            self.hit(hits as u32);
        }
        if found > 1 {
            self.each.add(wait / found as u32);
        }
    }

    pub(super) fn lacks_now(&mut self, key: Key, now: Duration) {
        let until = now + LACKS_FOR;
        self.lacked.insert(key, until);
        self.lacked_in_order.push_back((key, until));
        while self.lacked_in_order.len() > MAX_LACKED
            || self.lacked_in_order.front().is_some_and(|(_, until)| *until <= now)
        {
            let Some((key, until)) = self.lacked_in_order.pop_front() else { break };
            // It may have been asked and lacked again meanwhile.
            if self.lacked.get(&key) == Some(&until) {
                self.lacked.remove(&key);
            }
        }
    }

    /// A call has failed on this node's side. The peer is not to blame, and is asked again a little later: otherwise the
    /// failure could repeat itself without a pause.
    pub(super) fn failed_here(&mut self, now: Duration) {
        self.paused_until = self.paused_until.max(now + OWN_PAUSE);
    }

    /// A call has failed. The peer names a pause, or gets one.
    pub(super) fn failed(&mut self, now: Duration, retry_after: Option<Duration>) {
        let pause = retry_after.unwrap_or_else(|| PAUSE.wait(self.failures));
        self.failures = self.failures.saturating_add(1);
        self.paused_until = self.paused_until.max(now + pause);
    }
}
