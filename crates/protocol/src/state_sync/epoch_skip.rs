//! The start of a node with an empty store that does not begin at the genesis: it skips ended epochs by their proofs.
//!
//! ```text
//!   Due --Pick--> Picking --FetchEpochs--> Fetching --SkipEpochs--> Writing --> Due, from the next epoch
//!    '-- peers know no further epoch, or the wanted commit is reached: ranges are planned from there
//! ```
//!
//! One answer is held at a time. No range is planned meanwhile.

use super::{Effect, EpochSummary, Progress, RETRY, RangeKey, Start, StateSync, Tip};
use crate::{
    core::Now,
    peer_heights::{NoPeer, Outcome},
};
use serde::{Deserialize, Serialize};
use soma_types::{Fault, PeerFailure, PeerId};
use std::time::Duration;

/// Peers that must know no further epoch before the node begins there. One alone may be behind, or lie.
const PEERS_THAT_AGREE: usize = 3;

/// Time after which fewer peers are enough, if no others are connected.
const PATIENCE: Duration = Duration::from_secs(5);

/// Peers that are remembered as tried. New identities of one peer make the list no longer.
const MAX_TRIED: usize = 64;

/// The state of skipping.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct EpochSkip {
    step: Step,
    /// Peers that know no further epoch, or have just failed; the last [`MAX_TRIED`].
    tried: Vec<PeerId>,
    /// The number of tried peers that know no further epoch.
    agreed: usize,
    /// When the first tried peer said so.
    agreed_since: Option<Duration>,
    no_peer: Option<NoPeer>,
    attempts: u32,
    failure: Option<Failure>,
}

#[derive(Serialize, Deserialize)]
enum Step {
    Due { not_before: Duration },
    Picking(RangeKey),
    Fetching(RangeKey, PeerId),
    Writing(RangeKey),
}

impl Default for Step {
    fn default() -> Self {
        Self::Due { not_before: Duration::ZERO }
    }
}

#[derive(Serialize, Deserialize)]
enum Failure {
    Disk(String),
    Peer(String),
}

impl EpochSkip {
    fn wait_until(&mut self, not_before: Duration) {
        self.step = Step::Due { not_before };
    }

    fn remember(&mut self, peer: PeerId) {
        self.tried.retain(|tried| *tried != peer);
        if self.tried.len() == MAX_TRIED {
            self.tried.remove(0);
        }
        self.tried.push(peer);
    }

    fn retry(&mut self, now: Now, failure: Failure) {
        self.failure = Some(failure);
        self.wait_until(now.monotonic + RETRY.wait(self.attempts));
        self.attempts += 1;
    }

    pub(super) fn wake_at(&self) -> Option<Duration> {
        match self.step {
            Step::Due { not_before } => Some(not_before),
            _ => None,
        }
    }

    /// Whether a pick with this key is for an answer with proofs.
    pub(super) fn is_picking(&self, picking: RangeKey) -> bool {
        matches!(self.step, Step::Picking(key) if key == picking)
    }
}

impl StateSync {
    /// The store holds no commits beyond the genesis, so the node begins where [`Config::start`](super::Config::start)
    /// says.
    pub fn with_empty_store(mut self) -> Self {
        self.is_empty = true;
        let is_reached = match self.config.start {
            Start::Genesis => true,
            Start::LatestEpoch => false,
            Start::After(commit) => self.tip.commit.index >= commit.index,
        };
        self.skip = (!is_reached).then(EpochSkip::default);
        self
    }

    /// Whether a commit of the node's own consensus must wait for the start.
    pub(super) fn is_skipping(&self) -> bool {
        self.skip.is_some()
    }

    /// Begins the next step, if it is due.
    pub(super) fn skip_further(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.skip.as_ref().and_then(EpochSkip::wake_at).is_none_or(|at| at > now.monotonic) {
            return;
        }
        let key = self.new_key();
        let Some(skip) = &mut self.skip else { return };
        skip.step = Step::Picking(key);
        // Every peer has commit 0. A peer that has pruned keeps its proofs.
        effects.push(Effect::Pick { key, start: 0, tried: skip.tried.clone(), hedge: false, next: true });
    }

    pub(super) fn on_skip_picked(
        &mut self,
        now: Now,
        key: RangeKey,
        picked: Result<PeerId, NoPeer>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(skip) = &mut self.skip else { return };
        match picked {
            // All others have answered.
            Ok(peer) if skip.tried.contains(&peer) && skip.agreed > 0 => {
                effects.push(Effect::Report { peer, start: 0, outcome: Outcome::Unused });
                let enough_at = skip.agreed_since.unwrap_or_default() + PATIENCE;
                if enough_at <= now.monotonic {
                    return self.no_further_epoch(now);
                }
                skip.wait_until(enough_at.min(now.monotonic + self.config.no_peer_wait));
            }
            Ok(peer) => {
                skip.no_peer = None;
                skip.step = Step::Fetching(key, peer);
                effects.push(Effect::FetchEpochs { key, peer, from: self.tip.next_epoch });
            }
            Err(_) if skip.agreed_since.is_some_and(|since| since + PATIENCE <= now.monotonic) => {
                self.no_further_epoch(now);
            }
            Err(reason) => {
                skip.no_peer = Some(reason);
                skip.wait_until(now.monotonic + self.config.no_peer_wait);
            }
        }
    }

    pub(super) fn on_epochs_fetched(
        &mut self,
        now: Now,
        key: RangeKey,
        result: Result<(Vec<EpochSummary>, u64), PeerFailure>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(skip) = &mut self.skip else { return };
        let Step::Fetching(expected, peer) = skip.step else { return };
        if expected != key {
            return;
        }
        let result = result.and_then(|(epochs, bytes)| {
            let count = wanted(self.config.start, &epochs)?;
            Ok((epochs[..count].last().copied(), count, bytes))
        });
        let outcome = match result {
            Ok((Some(last), count, bytes)) => {
                (skip.agreed, skip.agreed_since) = (0, None);
                skip.tried.clear();
                skip.step = Step::Writing(key);
                effects.push(Effect::SkipEpochs { key, count });
                Outcome::Served { last: last.commit.index, bytes }
            }
            Ok((None, ..)) => {
                skip.remember(peer);
                skip.agreed += 1;
                skip.agreed_since.get_or_insert(now.monotonic);
                skip.wait_until(now.monotonic);
                if skip.agreed >= PEERS_THAT_AGREE {
                    self.no_further_epoch(now);
                }
                Outcome::Unused
            }
            Err(failure) => {
                skip.remember(peer);
                skip.retry(now, Failure::Peer(failure.reason.clone()));
                match failure.fault {
                    // A peer that began at a checkpoint has no earlier proofs, and is honest.
                    Fault::DoesNotHave => Outcome::Unused,
                    _ => Outcome::Failed(failure),
                }
            }
        };
        effects.push(Effect::Report { peer, start: 0, outcome });
    }

    /// The peers know no later epoch.
    fn no_further_epoch(&mut self, now: Now) {
        let Some(skip) = &mut self.skip else { return };
        match self.config.start {
            Start::After(commit) => {
                skip.tried.clear();
                (skip.agreed, skip.agreed_since) = (0, None);
                let reason = format!(
                    "no peer knows that epoch {} has ended, and commit {} of `start` is not reached",
                    self.tip.next_epoch, commit.index
                );
                skip.retry(now, Failure::Peer(reason));
            }
            _ => self.skip = None,
        }
    }

    pub(super) fn on_epochs_skipped(&mut self, now: Now, key: RangeKey, result: Result<Tip, String>) {
        let Some(skip) = &mut self.skip else { return };
        if !matches!(skip.step, Step::Writing(expected) if expected == key) {
            return;
        }
        match result {
            Ok(tip) => {
                (self.applied, self.tip) = (tip.commit, tip);
                self.proven = self.proven.max(tip.commit.index);
                (skip.attempts, skip.failure) = (0, None);
                skip.wait_until(now.monotonic);
                if matches!(self.config.start, Start::After(commit) if tip.commit.index >= commit.index) {
                    self.skip = None;
                }
            }
            Err(reason) => skip.retry(now, Failure::Disk(reason)),
        }
    }

    /// All peers have pruned the next commit. Later epochs may have ended meanwhile.
    pub(super) fn on_all_pruned(&mut self, now: Now) {
        if self.is_empty && self.config.start == Start::LatestEpoch && self.skip.is_none() {
            let mut skip = EpochSkip::default();
            skip.wait_until(now.monotonic + self.config.no_peer_wait);
            self.skip = Some(skip);
        }
    }

    /// What skipping does, or why it makes no progress.
    pub(super) fn skip_progress(&self) -> Option<Progress> {
        let (skip, needed) = (self.skip.as_ref()?, self.tip.commit.index + 1);
        Some(match (&skip.failure, skip.no_peer) {
            (Some(Failure::Disk(reason)), _) => Progress::Disk { reason: reason.clone() },
            (_, Some(reason)) => Progress::NoPeer { needed, reason },
            (Some(Failure::Peer(reason)), None) => {
                Progress::Retrying { needed, attempts: skip.attempts, reason: reason.clone() }
            }
            (None, None) => Progress::SkippingEpochs { epoch: self.tip.next_epoch },
        })
    }
}

/// The number of leading epochs to skip.
fn wanted(start: Start, epochs: &[EpochSummary]) -> Result<usize, PeerFailure> {
    let Start::After(wanted) = start else { return Ok(epochs.len()) };
    let count = epochs.partition_point(|ended| ended.commit.index < wanted.index);
    let Some(ended) = epochs.get(count) else { return Ok(count) };
    // The proofs are valid, so this node's setting is wrong, or keys of old validators have leaked.
    let unproven = |reason| Err(PeerFailure::new(Fault::Unproven, reason));
    if ended.commit.index > wanted.index {
        return unproven(format!(
            "commit {} of `start` ends no epoch: epoch {} ends with commit {}; give the last commit of an epoch",
            wanted.index, ended.epoch, ended.commit.index
        ));
    }
    if ended.commit.digest != wanted.digest {
        return unproven(format!(
            "commit {} has digest {}, and `start` says {}: the digest is wrong, or the peer serves another history",
            wanted.index, ended.commit.digest, wanted.digest
        ));
    }
    Ok(count + 1)
}

#[cfg(test)]
mod tests;
