use super::{
    super::{
        Config, Input, Tip,
        tests::{EPOCH, at, digest, target, verified},
    },
    *,
};
use crate::core::Core;
use soma_types::CommitRef;

const PEER: PeerId = PeerId([1; 32]);

/// The last commit of the node.
const TIP: CommitIndex = 4 * EPOCH + 10;

/// The lowest stored commit.
const LOWEST: CommitIndex = 3 * EPOCH + 1;

fn history(lowest: CommitIndex) -> HistoryStart {
    let epoch = u64::from((lowest.max(2) - 2) / EPOCH);
    let below = Below {
        epoch,
        first: epoch as CommitIndex * EPOCH + 1,
        digest: digest(lowest - 1),
        timestamp_ms: lowest.into(),
        leader_timestamp_ms: lowest.into(),
        genesis: digest(0),
        genesis_timestamp_ms: 0,
    };
    HistoryStart { lowest, target: 1, below: (lowest > 1).then_some(below) }
}

/// A core that has every advertised commit.
fn synced(config: Config) -> StateSync {
    let commit = CommitRef { index: TIP, digest: digest(TIP) };
    let mut core =
        StateSync::new(Config { backfill: true, ..config }, Tip { commit, timestamp_ms: TIP.into(), next_epoch: 4 });
    core.claimed.doubt = None;
    core
}

/// The keys of the requests to read the store.
fn reads(effects: &[Effect]) -> Vec<RangeKey> {
    let key = |effect: &Effect| match effect {
        Effect::ReadHistory(key) => Some(*key),
        _ => None,
    };
    effects.iter().filter_map(key).collect()
}

/// The selection of a peer for backfill, with its first commit.
fn pick(effects: &[Effect]) -> Option<(RangeKey, CommitIndex)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Pick { key, start, hedge: false, next: false, .. } => Some((*key, *start)),
        _ => None,
    })
}

/// Tells the core where the history begins. Returns the selection that follows.
fn tell(core: &mut StateSync, ms: u64, history: HistoryStart) -> Option<(RangeKey, CommitIndex)> {
    let effects = core.handle(at(ms), Input::Wake);
    let [key] = reads(&effects)[..] else { panic!("{effects:?}") };
    pick(&core.handle(at(ms), Input::HistoryRead { key, result: Ok(history) }))
}

/// Selects the peer. Returns the first and the last commit of the worker.
fn fetch(core: &mut StateSync, ms: u64, key: RangeKey) -> (CommitIndex, CommitIndex) {
    let effects = core.handle(at(ms), Input::Picked { key, peer: Ok(PEER) });
    let fetch = effects.iter().find_map(|effect| match effect {
        Effect::Fetch { key: fetched, start, end, .. } if *fetched == key => Some((*start, *end)),
        _ => None,
    });
    fetch.unwrap_or_else(|| panic!("{effects:?}"))
}

fn outcomes(effects: &[Effect]) -> Vec<Outcome> {
    let outcome = |effect: &Effect| match effect {
        Effect::Report { outcome, .. } => Some(outcome.clone()),
        _ => None,
    };
    effects.iter().filter_map(outcome).collect()
}

fn done(core: &mut StateSync, ms: u64, key: RangeKey, verified: Option<RangeSummary>) -> Vec<Effect> {
    core.handle(at(ms), Input::WorkerDone { key, verified, shortfall: None })
}

fn failed(core: &mut StateSync, ms: u64, key: RangeKey, fault: Fault) -> Vec<Effect> {
    let shortfall = Some(StopReason::Failed(PeerFailure::new(fault, "it failed".to_owned())));
    core.handle(at(ms), Input::WorkerDone { key, verified: None, shortfall })
}

fn is_prepended(effects: &[Effect], key: RangeKey) -> bool {
    effects.contains(&Effect::Prepend(key))
}

#[test]
fn ranges_go_down_to_commit_1_and_cross_no_beginning_of_an_epoch() {
    let mut core = synced(Config::default());
    let (mut lowest, mut ranges) = (LOWEST, Vec::new());
    while lowest > 1 {
        let (key, start) = tell(&mut core, 0, history(lowest)).unwrap();
        let (first, last) = fetch(&mut core, 0, key);
        assert_eq!((first, last), (start, lowest - 1));
        assert!(is_prepended(&done(&mut core, 0, key, Some(verified(first, last, 100))), key));
        let effects = core.handle(at(0), Input::Prepended { key, result: Ok(()) });
        assert!(effects.contains(&Effect::Discard(key)));
        assert_eq!(core.snapshot().backfill.unwrap().lowest, first);
        // The store is read again at once.
        let Step::Reading(again) = core.backfill.step else { panic!("{effects:?}") };
        core.backfill.step = Step::Unknown { not_before: Duration::ZERO };
        assert_eq!(reads(&effects), [again]);
        ranges.push((first, last));
        lowest = first;
    }
    assert!(ranges.iter().all(|(first, last)| (first - 1) / EPOCH == (last - 1) / EPOCH), "{ranges:?}");
    assert_eq!(ranges.first().map(|range| range.1), Some(LOWEST - 1));
    assert!(tell(&mut core, 0, history(1)).is_none());
    let progress = core.snapshot().backfill.unwrap();
    assert_eq!((progress.lowest, progress.target, progress.is_complete), (1, 1, true));
}

#[test]
fn nothing_is_fetched_without_the_setting_or_below_the_target() {
    let mut core = synced(Config::default());
    core.config.backfill = false;
    assert!(core.handle(at(0), Input::Wake).is_empty());
    assert_eq!(core.snapshot().backfill, None);

    let mut core = synced(Config::default());
    let unknown = HistoryStart { target: LOWEST, below: None, ..history(LOWEST) };
    assert!(tell(&mut core, 0, unknown).is_none());
    assert!(core.snapshot().backfill.unwrap().is_complete, "the committees before are unknown");
}

#[test]
fn backfill_gives_way_to_ranges_and_writes() {
    let mut core = synced(Config::default());
    let effects = core.handle(at(0), target(TIP + 5));
    let [key] = reads(&effects)[..] else { panic!("{effects:?}") };
    let picks: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Pick { key, start, .. } => Some((*key, *start)),
            _ => None,
        })
        .collect();
    let [(range, start)] = picks[..] else { panic!("{picks:?}") };
    assert_eq!(start, TIP + 1);
    let none = |effects: Vec<Effect>| assert_eq!(pick(&effects), None, "{effects:?}");
    none(core.handle(at(0), Input::HistoryRead { key, result: Ok(history(LOWEST)) }));
    none(core.handle(at(0), Input::Picked { key: range, peer: Ok(PEER) }));
    none(done(&mut core, 0, range, Some(verified(TIP + 1, TIP + 5, 100))));
    let last = CommitRef { index: TIP + 5, digest: digest(TIP + 5) };
    let effects = core.handle(at(0), Input::Written(Ok(last)));
    assert!(pick(&effects).is_some(), "{effects:?}");
}

#[test]
fn node_without_commits_of_its_own_does_not_backfill() {
    let mut core = synced(Config::default()).with_empty_store();
    assert!(reads(&core.handle(at(0), Input::Wake)).is_empty());
}

#[test]
fn range_that_does_not_end_below_the_history_is_the_fault_of_its_peer() {
    let other = |change: fn(&mut RangeSummary)| {
        let mut core = synced(Config::default());
        let (key, _) = tell(&mut core, 0, history(LOWEST)).unwrap();
        let (first, last) = fetch(&mut core, 0, key);
        let mut summary = verified(first, last, 100);
        change(&mut summary);
        let effects = done(&mut core, 0, key, Some(summary));
        assert!(!is_prepended(&effects, key) && effects.contains(&Effect::Discard(key)));
        assert_eq!(core.bytes_in_flight(), 0);
        let [Outcome::Failed(failure)] = &outcomes(&effects)[..] else { panic!("{effects:?}") };
        failure.fault
    };
    assert_eq!(other(|summary| summary.last.digest = digest(7)), Fault::Unproven);
    assert_eq!(other(|summary| summary.epoch += 1), Fault::Unproven);
    // A quorum certified both timestamps.
    assert_eq!(other(|summary| summary.last_timestamp_ms = 1_000_000), Fault::Ours);
}

#[test]
fn first_commit_of_the_chain_must_follow_the_genesis() {
    for (genesis, timestamp_ms, expected) in
        [(digest(0), 0, None), (digest(9), 0, Some(Fault::Unproven)), (digest(0), 50, Some(Fault::Ours))]
    {
        let mut core = synced(Config::default());
        let mut history = history(6);
        let below = history.below.as_mut().unwrap();
        (below.genesis, below.genesis_timestamp_ms) = (genesis, timestamp_ms);
        let (key, _) = tell(&mut core, 0, history).unwrap();
        assert_eq!(fetch(&mut core, 0, key), (1, 5));
        let effects = done(&mut core, 0, key, Some(verified(1, 5, 100)));
        let fault = outcomes(&effects).into_iter().find_map(|outcome| match outcome {
            Outcome::Failed(failure) => Some(failure.fault),
            _ => None,
        });
        assert_eq!(fault, expected);
    }
}

#[test]
fn failed_attempts_back_off_and_prefer_other_peers() {
    let mut core = synced(Config::default());
    let (mut key, _) = tell(&mut core, 0, history(LOWEST)).unwrap();
    let mut ms = 0;
    for attempt in 0..4 {
        fetch(&mut core, ms, key);
        let effects = failed(&mut core, ms, key, Fault::Slow);
        assert!(matches!(outcomes(&effects)[..], [Outcome::Failed(_)]));
        assert_eq!(pick(&effects), None, "not at once");
        let wake = core.next_wake().unwrap();
        assert_eq!(wake, Duration::from_millis(ms) + RETRY.wait(attempt));
        ms = wake.as_millis() as u64;
        let effects = core.handle(at(ms), Input::Wake);
        let tried = effects.iter().find_map(|effect| match effect {
            Effect::Pick { tried, .. } => Some(tried.clone()),
            _ => None,
        });
        assert_eq!(tried, Some(vec![PEER]));
        key = pick(&effects).unwrap().0;
        assert!(core.snapshot().backfill.unwrap().problem.is_some(), "the status shows it");
    }
    // A peer that has pruned is no worse for other ranges.
    fetch(&mut core, ms, key);
    assert_eq!(outcomes(&failed(&mut core, ms, key, Fault::DoesNotHave)), [Outcome::Unused]);
}

#[test]
fn cut_range_is_requested_again_in_the_length_that_came() {
    let mut core = synced(Config::default());
    let (key, _) = tell(&mut core, 0, history(LOWEST)).unwrap();
    let (first, last) = fetch(&mut core, 0, key);
    let effects = done(&mut core, 0, key, Some(verified(first, first + 4, 500)));
    assert!(matches!(outcomes(&effects)[..], [Outcome::Served { .. }]), "{effects:?}");
    assert!(effects.contains(&Effect::Discard(key)));
    let (key, start) = pick(&effects).unwrap();
    assert_eq!(start, last - 4);
    let effects = core.handle(at(0), Input::Picked { key, peer: Ok(PEER) });
    let proof_end = effects.iter().find_map(|effect| match effect {
        Effect::Fetch { proof_end, .. } => Some(*proof_end),
        _ => None,
    });
    assert!(proof_end > Some(last), "later commits may prove it");
    assert!(is_prepended(&done(&mut core, 0, key, Some(verified(last - 4, last, 500))), key));
}

#[test]
fn commit_too_large_for_its_reserve_gets_the_most_that_a_range_may_have() {
    let mut core = synced(Config::default());
    let (key, _) = tell(&mut core, 0, history(LOWEST)).unwrap();
    fetch(&mut core, 0, key);
    let (key, start) = pick(&done(&mut core, 0, key, None)).unwrap();
    assert_eq!(start, LOWEST - 1);
    let effects = core.handle(at(0), Input::Picked { key, peer: Ok(PEER) });
    let max_bytes = effects.iter().find_map(|effect| match effect {
        Effect::Fetch { max_bytes, .. } => Some(*max_bytes),
        _ => None,
    });
    assert_eq!(max_bytes, Some(core.config.bytes_per_range));
    assert_eq!(core.bytes_in_flight(), core.config.bytes_per_range);
    assert_eq!(pick(&done(&mut core, 0, key, None)), None, "it backs off");
}

#[test]
fn failed_write_is_retried_without_another_fetch() {
    let mut core = synced(Config::default());
    let (key, _) = tell(&mut core, 0, history(LOWEST)).unwrap();
    let (first, last) = fetch(&mut core, 0, key);
    done(&mut core, 0, key, Some(verified(first, last, 100)));
    for attempt in 0..3 {
        let now = core.last_now.as_millis() as u64;
        let effects = core.handle(at(now), Input::Prepended { key, result: Err("disk full".into()) });
        assert!(effects.is_empty(), "{effects:?}");
        assert_eq!(core.snapshot().backfill.unwrap().problem.as_deref(), Some("disk full"));
        let wake = core.next_wake().unwrap();
        assert_eq!(wake, Duration::from_millis(now) + RETRY.wait(attempt));
        let effects = core.handle(Now { monotonic: wake, unix_ms: 0 }, Input::Wake);
        assert!(is_prepended(&effects, key));
    }
    let effects = core.handle(at(60_000), Input::Prepended { key, result: Ok(()) });
    assert!(effects.contains(&Effect::Discard(key)));
    assert_eq!(core.snapshot().backfill.unwrap().problem, None);
}

#[test]
fn lost_worker_returns_its_range_and_no_peer_is_blamed() {
    let mut core = synced(Config::default());
    let (key, start) = tell(&mut core, 0, history(LOWEST)).unwrap();
    fetch(&mut core, 0, key);
    let effects = core.handle(at(0), Input::WorkerFailed { key, reason: "it panicked".into() });
    assert_eq!(outcomes(&effects), [Outcome::Unused]);
    assert_eq!(core.bytes_in_flight(), 0);
    let wake = core.next_wake().unwrap();
    assert_eq!(pick(&core.handle(Now { monotonic: wake, unix_ms: 0 }, Input::Wake)).map(|pick| pick.1), Some(start));
}

#[test]
fn backfill_takes_no_bytes_of_the_next_range() {
    let config = Config { bytes_in_flight: 32 << 20, ..Config::default() };
    let mut core = synced(config);
    assert_eq!(tell(&mut core, 0, history(LOWEST)), None);
    assert!(core.snapshot().backfill.unwrap().problem.unwrap().contains("bytes_in_flight"));
}
