//! How fast each peer calls: token buckets, each kept as the time at which it is full again.
//!
//! ```text
//!   now                full_at              now + burst
//!    |--- what was taken ---|---- what is left ----|
//! ```
//!
//! Taking something moves `full_at` by the time that the rate needs to bring it back. A bucket whose `full_at` is
//! beyond `now + burst` is in debt.

use super::{Paced, Rates, Refusal, Rpc};
use serde::{Deserialize, Serialize};
use soma_types::PeerId;
use std::{collections::BTreeMap, time::Duration};

/// Peers whose pace is kept: far more than connections are admitted by default. Beyond, the one that has taken least
/// is forgotten.
pub(super) const MAX_PACES: usize = 1_024;

/// How often paces that say nothing any more are dropped.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// One bucket. It has no size of its own, so that other rates may apply after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    full_at: Duration,
}

/// How long `rate` per second needs for `amount`. No time at all for the rate 0, which means any.
fn time_for(amount: u64, rate: u64) -> Duration {
    let nanos = (u128::from(amount) * 1_000_000_000).checked_div(u128::from(rate)).unwrap_or_default();
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Bucket {
    /// How long until `time` fits into the rest of the bucket.
    fn wait(&self, now: Duration, time: Duration, burst: Duration) -> Option<Duration> {
        let full_at = self.full_at.max(now).saturating_add(time);
        let wait = full_at.saturating_sub(now.saturating_add(burst));
        (!wait.is_zero()).then_some(wait)
    }

    fn take(&mut self, now: Duration, time: Duration) {
        self.full_at = self.full_at.max(now).saturating_add(time);
    }
}

/// The buckets of one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pace {
    calls: Bucket,
    pushes: Bucket,
    peer_queries: Bucket,
    bytes: Bucket,
}

impl Pace {
    /// Takes a call of this kind if the rate allows it. A refused call takes nothing.
    pub(super) fn call(&mut self, now: Duration, rates: &Rates, rpc: Rpc) -> Result<(), Refusal> {
        // Bytes are paid after they were sent, so only an earlier debt must be gone.
        free(Paced::Bytes, self.bytes, now, Duration::ZERO, rates.burst)?;
        let each = time_for(1, rates.calls);
        free(Paced::Calls, self.calls, now, each, rates.burst)?;
        let kind = match rpc {
            Rpc::PushCommit => Some((Paced::Pushes, &mut self.pushes, rates.pushes)),
            Rpc::GetKnownPeers => Some((Paced::PeerQueries, &mut self.peer_queries, rates.peer_queries)),
            Rpc::GetCommitAvailability
            | Rpc::GetCommitInfo
            | Rpc::FetchCommits
            | Rpc::FetchBlocks
            | Rpc::FetchObjects
            | Rpc::GetSnapshots
            | Rpc::GetEpochProofs
            | Rpc::Broadcast => None,
        };
        if let Some((what, bucket, rate)) = kind {
            let each = time_for(1, rate);
            free(what, *bucket, now, each, rates.burst)?;
            bucket.take(now, each);
        }
        self.calls.take(now, each);
        Ok(())
    }

    /// Charges the bytes of an answer.
    pub(super) fn sent(&mut self, now: Duration, rates: &Rates, bytes: u64) {
        self.bytes.take(now, time_for(bytes, rates.bytes));
    }

    /// When all buckets are full.
    fn full_at(&self) -> Duration {
        let Self { calls, pushes, peer_queries, bytes } = self;
        calls.full_at.max(pushes.full_at).max(peer_queries.full_at).max(bytes.full_at)
    }
}

fn free(what: Paced, bucket: Bucket, now: Duration, time: Duration, burst: Duration) -> Result<(), Refusal> {
    match bucket.wait(now, time, burst) {
        None => Ok(()),
        Some(wait) => {
            // The hint travels in milliseconds. A caller that obeys it must not come a moment too early.
            let millis = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
            Err(Refusal::TooFast { what, retry_after: Duration::from_millis(millis) })
        }
    }
}

/// The paces of all peers that have lately called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Paces {
    peers: BTreeMap<PeerId, Pace>,
    swept: Duration,
}

impl Paces {
    /// The pace of `peer`. A peer that is not known has full buckets, so those that are full need not be kept.
    pub(super) fn of(&mut self, now: Duration, peer: PeerId) -> &mut Pace {
        if now.saturating_sub(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.peers.retain(|_, pace| pace.full_at() > now);
        }
        if self.peers.len() >= MAX_PACES && !self.peers.contains_key(&peer) {
            let least = self.peers.iter().min_by_key(|(_, pace)| pace.full_at()).map(|(peer, _)| *peer);
            if let Some(least) = least {
                self.peers.remove(&least);
            }
        }
        self.peers.entry(peer).or_default()
    }

    /// How many are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }
}
