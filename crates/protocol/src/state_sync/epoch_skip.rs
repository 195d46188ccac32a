//! The start of a node with an empty store, if it is not to begin at the genesis: it skips ended epochs by their proofs.
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

/// The state of skipping.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct EpochSkip {
    step: Step,
    /// Peers that know no further epoch, or have just failed. At most as many as are connected.
    tried: Vec<PeerId>,
    /// How many of them know no further epoch.
    agreed: usize,
    /// When the first of them said so.
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
        if !self.skip.as_ref().and_then(EpochSkip::wake_at).is_some_and(|at| at <= now.monotonic) {
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
                skip.tried.push(peer);
                skip.agreed += 1;
                skip.agreed_since.get_or_insert(now.monotonic);
                skip.wait_until(now.monotonic);
                if skip.agreed >= PEERS_THAT_AGREE {
                    self.no_further_epoch(now);
                }
                Outcome::Unused
            }
            Err(failure) => {
                skip.tried.push(peer);
                skip.retry(now, Failure::Peer(failure.reason.clone()));
                Outcome::Failed(failure)
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
mod tests {
    use super::{
        super::{
            Config, Input, LocalCommitError,
            tests::{EPOCH, answer, at, core, digest, local, target, verified},
        },
        *,
    };
    use crate::core::Core;
    use soma_types::{CommitRef, Epoch};

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn last_of(epoch: Epoch) -> CommitRef {
        let index = (epoch as u32 + 1) * EPOCH;
        CommitRef { index, digest: digest(index) }
    }

    /// A core that skips, and the pick that it waits for.
    struct Skipping {
        core: StateSync,
        pick: Option<RangeKey>,
    }

    impl std::ops::Deref for Skipping {
        type Target = StateSync;

        fn deref(&self) -> &StateSync {
            &self.core
        }
    }

    fn skipping(start: Start) -> Skipping {
        let core = core(Config { start, ..Config::default() }).with_empty_store();
        Skipping { core, pick: None }
    }

    impl Skipping {
        fn handle(&mut self, ms: u64, input: Input) -> Vec<Effect> {
            let effects = self.core.handle(at(ms), input);
            for effect in &effects {
                if let Effect::Pick { key, start: 0, .. } = effect {
                    self.pick = Some(*key);
                }
            }
            effects
        }

        /// Lets the core wake, and picks this peer if it asks for one. Returns the epoch that it asks the peer for.
        fn asks(&mut self, ms: u64, peer: PeerId) -> Option<(RangeKey, Epoch)> {
            self.handle(ms, Input::Wake);
            let key = self.pick.take()?;
            let effects = self.handle(ms, Input::Picked { key, peer: Ok(peer) });
            effects.iter().find_map(|effect| match effect {
                Effect::FetchEpochs { key, from, .. } => Some((*key, *from)),
                _ => None,
            })
        }

        /// Lets the core ask, and answers with the proofs of `epochs` further epochs.
        fn fetches(&mut self, ms: u64, peer: PeerId, epochs: u64) -> Vec<Effect> {
            let (key, from) = self.asks(ms, peer).expect("the core asks");
            let epochs = (from..from + epochs).map(|epoch| EpochSummary { epoch, commit: last_of(epoch) });
            self.handle(ms, Input::EpochsFetched { key, result: Ok((epochs.collect(), 100)) })
        }

        /// Answers the request to skip epochs, which must be there. Returns their number.
        fn skips(&mut self, ms: u64, effects: &[Effect]) -> usize {
            let skip = effects.iter().find_map(|effect| match effect {
                Effect::SkipEpochs { key, count } => Some((*key, *count)),
                _ => None,
            });
            let (key, count) = skip.expect("the core skips");
            let next_epoch = self.snapshot().epoch + count as u64;
            let tip = Tip { commit: last_of(next_epoch - 1), timestamp_ms: 7, next_epoch };
            self.handle(ms, Input::EpochsSkipped { key, result: Ok(tip) });
            count
        }
    }

    #[test]
    fn node_begins_after_the_last_epoch_of_which_three_peers_know_the_end() {
        let mut core = skipping(Start::LatestEpoch);
        let effects = core.handle(0, target(1_000));
        assert!(matches!(effects[..], [Effect::Pick { start: 0, .. }]), "no range of commits: {effects:?}");
        let Effect::Pick { key, .. } = effects[0] else { panic!() };
        core.handle(0, Input::Picked { key, peer: Err(NoPeer::NotConnected) });
        assert_eq!(core.progress(), Progress::NoPeer { needed: 1, reason: NoPeer::NotConnected });

        let effects = core.fetches(1_000, peer(1), 100);
        assert_eq!(core.skips(1_000, &effects), 100);
        let effects = core.fetches(1_000, peer(2), 7);
        assert_eq!(core.skips(1_000, &effects), 7);
        assert_eq!((core.snapshot().applied, core.snapshot().epoch), (107 * EPOCH, 107));
        assert_eq!(core.progress(), Progress::SkippingEpochs { epoch: 107 });
        for known in 1..=3 {
            assert!(core.is_skipping());
            core.fetches(1_000, peer(known), 0);
        }
        assert!(!core.is_skipping());
        let effects = core.handle(1_000, target(107 * EPOCH + 5));
        assert!(matches!(effects[..], [Effect::Pick { start, .. }] if start == 107 * EPOCH + 1), "{effects:?}");
    }

    #[test]
    fn later_epoch_that_one_peer_proves_counts_whatever_others_know() {
        let mut core = skipping(Start::LatestEpoch);
        for behind in [1, 2] {
            core.fetches(0, peer(behind), 0);
        }
        let effects = core.fetches(0, peer(3), 1);
        core.skips(0, &effects);
        for known in [1, 2] {
            core.fetches(0, peer(known), 0);
        }
        assert!(core.is_skipping(), "peers agree about this epoch anew");
    }

    #[test]
    fn only_connected_peer_is_believed_after_a_while() {
        let mut core = skipping(Start::LatestEpoch);
        core.fetches(0, peer(1), 0);
        let patience = PATIENCE.as_millis() as u64;
        for ms in [0, 1_000, patience - 1] {
            assert_eq!(core.asks(ms, peer(1)), None, "it is not asked again");
            assert!(core.is_skipping());
        }
        core.asks(patience, peer(1));
        assert!(!core.is_skipping());
    }

    #[test]
    fn node_that_trusts_a_commit_begins_after_it_and_nowhere_else() {
        let mut core = skipping(Start::After(last_of(2)));
        let effects = core.fetches(0, peer(1), 2);
        assert_eq!(core.skips(0, &effects), 2);
        let effects = core.fetches(0, peer(1), 5);
        assert_eq!(core.skips(0, &effects), 1);
        assert!(!core.is_skipping());
        assert_eq!(core.snapshot().applied, 3 * EPOCH);
        let config = Config { start: Start::After(last_of(2)), ..Config::default() };
        let restarted = StateSync::new(config, core.tip);
        assert!(!restarted.with_empty_store().is_skipping());

        let other = CommitRef { digest: digest(7), ..last_of(2) };
        let between = CommitRef { index: EPOCH + 1, digest: digest(EPOCH + 1) };
        for (wrong, part) in [(other, "the digest is wrong"), (between, "ends no epoch")] {
            let mut core = skipping(Start::After(wrong));
            let effects = core.fetches(0, peer(1), 5);
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::SkipEpochs { .. })));
            let failed = effects.iter().find_map(|effect| match effect {
                Effect::Report { outcome: Outcome::Failed(failure), .. } => Some(failure.fault),
                _ => None,
            });
            assert_eq!(failed, Some(Fault::Unproven));
            let Progress::Retrying { reason, .. } = core.progress() else { panic!() };
            assert!(reason.contains(part), "{reason}");
        }

        let mut core = skipping(Start::After(last_of(9)));
        for known in 1..=3 {
            core.fetches(0, peer(known), 0);
        }
        let Progress::Retrying { reason, .. } = core.progress() else { panic!() };
        assert!(reason.contains("no peer knows that epoch 0 has ended"), "{reason}");
        assert!(core.asks(10_000, peer(1)).is_some(), "it tries again");
    }

    #[test]
    fn failed_peer_is_reported_and_another_one_asked() {
        let mut core = skipping(Start::LatestEpoch);
        let (key, _) = core.asks(0, peer(1)).unwrap();
        let lie = PeerFailure::new(Fault::ProvableLie, "the last commit of epoch 0: no quorum");
        let effects = core.handle(0, Input::EpochsFetched { key, result: Err(lie.clone()) });
        let report = Effect::Report { peer: peer(1), start: 0, outcome: Outcome::Failed(lie) };
        assert_eq!(effects, [report]);
        assert!(matches!(core.progress(), Progress::Retrying { attempts: 1, .. }));
        assert_eq!(core.next_wake(), Some(RETRY.min));
        let effects = core.handle(RETRY.min.as_millis() as u64, Input::Wake);
        assert!(matches!(&effects[..], [Effect::Pick { tried, .. }] if *tried == [peer(1)]), "{effects:?}");
    }

    #[test]
    fn failed_write_of_skipped_epochs_is_shown_and_tried_again() {
        let mut core = skipping(Start::LatestEpoch);
        let effects = core.fetches(0, peer(1), 3);
        let Some(Effect::SkipEpochs { key, .. }) = effects.first().cloned() else { panic!("{effects:?}") };
        core.handle(0, Input::EpochsSkipped { key, result: Err("disk full".into()) });
        assert_eq!(core.progress(), Progress::Disk { reason: "disk full".into() });
        assert_eq!(core.snapshot().applied, 0);
        let effects = core.fetches(1_000, peer(1), 3);
        core.skips(1_000, &effects);
        assert_eq!(core.snapshot().applied, 3 * EPOCH);
    }

    #[test]
    fn node_whose_peers_pruned_its_start_skips_further() {
        let mut core = skipping(Start::LatestEpoch);
        for known in 1..=3 {
            core.fetches(0, peer(known), 0);
        }
        let effects = core.handle(0, target(1_000));
        let Some(Effect::Pick { key, start: 1, .. }) = effects.first().cloned() else { panic!("{effects:?}") };
        core.handle(0, Input::Picked { key, peer: Err(NoPeer::AllPruned { peers: 3, lowest: 900 }) });
        assert!(core.is_skipping());
        assert!(core.asks(0, peer(1)).is_none(), "not at once");
        let effects = core.fetches(1_000, peer(1), 3);
        core.skips(1_000, &effects);

        // A node with commits does not skip any.
        let mut core = core_with_commits();
        let effects = core.handle(0, target(1_000));
        let Some(Effect::Pick { key, .. }) = effects.first().cloned() else { panic!("{effects:?}") };
        core.handle(0, Input::Picked { key, peer: Err(NoPeer::AllPruned { peers: 3, lowest: 900 }) });
        assert!(!core.is_skipping());
    }

    fn core_with_commits() -> Skipping {
        Skipping { core: core(Config { start: Start::LatestEpoch, ..Config::default() }), pick: None }
    }

    #[test]
    fn commit_of_own_consensus_waits_for_the_start() {
        let mut core = skipping(Start::LatestEpoch);
        let answered = answer(&local(&mut core.core, at(0), RangeKey::local(1), verified(1, 1, 10)));
        assert_eq!(answered, Some(Err(LocalCommitError::Unavailable)));
    }
}
