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

#[test]
fn peers_that_fail_again_and_again_are_remembered_up_to_a_bound() {
    let mut core = skipping(Start::LatestEpoch);
    let mut ms = 0;
    for turn in 0..1_000_u32 {
        ms += 20_000;
        // Some under new identities each time.
        let peer = if turn % 2 == 0 { peer(1) } else { PeerId([turn.to_le_bytes(); 8].concat().try_into().unwrap()) };
        let (key, _) = core.asks(ms, peer).unwrap();
        let slow = PeerFailure::new(Fault::Slow, "no answer");
        core.handle(ms, Input::EpochsFetched { key, result: Err(slow) });
        let tried = &core.skip.as_ref().unwrap().tried;
        assert!(tried.len() <= MAX_TRIED && tried.last() == Some(&peer));
    }
}

#[test]
fn peer_without_a_proof_is_not_blamed() {
    let mut core = skipping(Start::LatestEpoch);
    let (key, _) = core.asks(0, peer(1)).unwrap();
    let lacks = PeerFailure::new(Fault::DoesNotHave, "no proof of epoch 0");
    let effects = core.handle(0, Input::EpochsFetched { key, result: Err(lacks) });
    assert_eq!(effects, [Effect::Report { peer: peer(1), start: 0, outcome: Outcome::Unused }]);
    let Progress::Retrying { reason, .. } = core.progress() else { panic!() };
    assert_eq!(reason, "no proof of epoch 0");
}
