//! The core against a model of its world: a chain, peers that fail in every way, workers that end in any order.

use super::{plan::CUT_AHEAD, range::REPLACE_AFTER, results::WIDE_EVERY, *};
use crate::peer_heights::NoPeer;
use crate::peer_heights::Outcome;
use proptest::{prelude::*, test_runner::TestRunner};
use soma_types::{CommitDigest, Fault, PeerFailure, PeerId};
use std::{
    cell::Cell,
    collections::{BTreeSet, VecDeque},
};

const PEER: PeerId = PeerId([1; 32]);
const LIAR: PeerId = PeerId([2; 32]);

pub(super) fn at(ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(ms), unix_ms: ms }
}

pub(super) fn target(highest: CommitIndex) -> Input {
    Input::Target(Target { highest, proven: 0, doubt: None })
}

pub(super) fn digest(index: CommitIndex) -> CommitDigest {
    CommitDigest::of(&[&index.to_be_bytes()])
}

/// The chain that is synced: every `EPOCH` commits an epoch.
pub(super) const EPOCH: u32 = 30;

fn epoch_of(index: CommitIndex) -> Epoch {
    u64::from((index - 1) / EPOCH)
}

pub(super) fn verified(first: CommitIndex, last: CommitIndex, bytes: u64) -> RangeSummary {
    RangeSummary {
        first,
        last: CommitRef { index: last, digest: digest(last) },
        previous: digest(first - 1),
        first_timestamp_ms: u64::from(first),
        first_leader_timestamp_ms: u64::from(first),
        last_timestamp_ms: u64::from(last),
        epoch: epoch_of(first),
        ends_epoch: last.is_multiple_of(EPOCH),
        bytes,
        blocks: u64::from(last - first) + 1,
    }
}

fn genesis() -> Tip {
    Tip { commit: CommitRef { index: 0, digest: digest(0) }, timestamp_ms: 0, next_epoch: 0 }
}

pub(super) fn core(config: Config) -> StateSync {
    StateSync::new(config, genesis())
}

fn small() -> Config {
    Config { commits_per_fetch: 10, max_workers: 3, ranges_ahead: 6, ..Config::default() }
}

/// The same as the node's own consensus offers it.
pub(super) fn offered(commit: &RangeSummary) -> Offered {
    Offered { commit: commit.last, previous: commit.previous, epoch: commit.epoch, bytes: commit.bytes }
}

/// Hands over a commit of the node's own consensus, which passes its check if it comes to that.
pub(super) fn local(core: &mut StateSync, now: Now, key: RangeKey, commit: RangeSummary) -> Vec<Effect> {
    let mut effects = core.handle(now, Input::LocalCommit { key, commit: offered(&commit) });
    let check =
        effects.iter().position(|effect| matches!(effect, Effect::CheckLocal { key: checked, .. } if *checked == key));
    if let Some(check) = check {
        effects.remove(check);
        effects.extend(core.handle(now, Input::LocalChecked { key, result: Ok(commit) }));
    }
    effects
}

/// What the node's own consensus is answered.
pub(super) fn answer(effects: &[Effect]) -> Option<Result<(), LocalCommitError>> {
    effects.iter().find_map(|effect| match effect {
        Effect::LocalAnswer { result, .. } => Some(result.clone()),
        _ => None,
    })
}

/// Answers every pick with `PEER` and returns what is to be fetched.
fn fetches(core: &mut StateSync, effects: &[Effect]) -> Vec<Effect> {
    let mut all = Vec::new();
    for effect in effects {
        match effect {
            Effect::Pick { key, .. } => {
                let answered = core.handle(at(0), Input::Picked { key: *key, peer: Ok(PEER) });
                all.extend(fetches(core, &answered));
            }
            Effect::Fetch { .. } => all.push(effect.clone()),
            _ => {}
        }
    }
    all
}

/// Whether a first peer is to be selected for the range at `first`.
fn is_first_pick(effect: &Effect, first: CommitIndex) -> bool {
    matches!(effect, Effect::Pick { start, tried, hedge: false, .. } if *start == first && tried.is_empty())
}

pub(super) fn started(core: &mut StateSync, effects: &[Effect]) -> Vec<(RangeKey, CommitIndex, CommitIndex)> {
    let started = fetches(core, effects).into_iter().map(|effect| match effect {
        Effect::Fetch { key, start, end, .. } => (key, start, end),
        other => panic!("{other:?}"),
    });
    started.collect()
}

fn done(core: &mut StateSync, key: RangeKey, first: CommitIndex, last: CommitIndex) -> Vec<Effect> {
    core.handle(at(0), Input::WorkerDone { key, verified: Some(verified(first, last, 100)), shortfall: None })
}

#[test]
fn ranges_are_planned_upward_and_fetched_by_all_allowed_workers() {
    let mut core = core(small());
    let effects = core.handle(at(0), target(25));
    let ranges: Vec<_> = started(&mut core, &effects).into_iter().map(|(_, start, end)| (start, end)).collect();
    assert_eq!(ranges, [(1, 10), (11, 20), (21, 25)]);
}

#[test]
fn ranges_are_cut_when_their_turn_comes_to_the_size_that_is_known_by_then() {
    let mut core = core(Config { max_workers: 2, ..Config::default() });
    let effects = core.handle(at(0), target(1_320));
    let mut open = VecDeque::from(started(&mut core, &effects));
    let mut lengths = Vec::new();
    while let Some((key, start, end)) = open.pop_front() {
        lengths.push(end - start + 1);
        let verified = RangeSummary { epoch: 0, ends_epoch: false, ..verified(start, end, 100) };
        let effects = core.handle(at(0), Input::WorkerDone { key, verified: Some(verified), shortfall: None });
        open.extend(started(&mut core, &effects));
    }
    // Two at work and four in hand have the size for commits of which nothing is known; these turn out to be small.
    let (first, later) = lengths.split_at(2 + CUT_AHEAD);
    assert!(first.iter().all(|commits| *commits == 20), "{lengths:?}");
    let (_, whole) = later.split_last().unwrap();
    assert!(whole.iter().all(|commits| *commits == 400), "{lengths:?}");
}

#[test]
fn next_commits_are_fetched_even_when_later_ranges_fill_the_budget() {
    // As many ranges as there may be, or far fewer.
    for ranges_ahead in [4, 256] {
        let mut core = core(Config { bytes_in_flight: 32 << 20, ranges_ahead, ..Config::default() });
        for start in (601..1_000).step_by(100) {
            core.add_waiting(start, start + 99, Duration::ZERO);
        }
        let effects = core.handle(at(0), target(1_000));
        assert!(matches!(effects[..], [Effect::Pick { start: 1, .. }]), "{effects:?}");
    }
}

#[test]
fn ranges_that_come_out_of_order_are_written_in_order() {
    let mut core = core(small());
    let effects = core.handle(at(0), target(20));
    let ranges = started(&mut core, &effects);
    let (first, second) = (ranges[0].0, ranges[1].0);
    let effects = done(&mut core, second, 11, 20);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Write(_))), "commit 11 has to wait: {effects:?}");
    let effects = done(&mut core, first, 1, 10);
    assert!(effects.contains(&Effect::Write(vec![first, second])), "{effects:?}");
    assert_eq!(core.snapshot().applied, 0, "nothing counts before it is durable");
    let highest = CommitRef { index: 20, digest: digest(20) };
    let effects = core.handle(at(0), Input::Written(Ok(highest)));
    assert!(effects.contains(&Effect::Publish { keys: vec![first, second], highest }));
    assert!(effects.contains(&Effect::Announce(20)));
    assert_eq!((core.snapshot().applied, core.snapshot().progress), (20, Progress::Synced));
}

#[test]
fn a_claim_of_the_highest_index_there_is_plans_no_more_than_the_bound() {
    let mut core = core(small());
    let effects = core.handle(at(0), target(u32::MAX));
    assert_eq!(started(&mut core, &effects).len(), 3);
    assert_eq!(core.snapshot().ranges, 6);
    // The claim falls: what nobody has is not waited for.
    core.handle(at(0), target(0));
    assert_eq!(core.snapshot().ranges, 3, "only what is at work is left");
}

#[test]
fn a_gap_below_a_range_at_work_is_not_planned_beyond_the_target() {
    let mut core = core(small());
    let effects = core.handle(at(0), target(u32::MAX));
    let ranges = started(&mut core, &effects);
    let [_, (second, 11, 20), (_, 21, 30)] = ranges[..] else { panic!("{ranges:?}") };
    // Whoever claimed everything fails to serve the second range, and is still asked for the third.
    core.handle(at(0), target(10));
    let fault = StopReason::Failed(PeerFailure::new(Fault::DoesNotHave, "not here"));
    let effects = core.handle(at(0), Input::WorkerDone { key: second, verified: None, shortfall: Some(fault) });
    // Planned, found to be beyond the target, and planned anew at once, it would be asked for without end.
    let asks = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Pick { start: 11, .. }));
    assert!(!asks(&effects), "{effects:?}");
    assert_eq!(core.snapshot().ranges, 2, "only what is at work is left");
    // Once somebody claims it again it is fetched.
    let effects = core.handle(at(900), target(20));
    assert!(asks(&effects), "{effects:?}");
}

#[test]
fn a_worker_that_dies_returns_its_range_and_nobody_is_blamed() {
    let mut core = core(small());
    let effects = core.handle(at(0), target(10));
    let [(key, 1, 10)] = started(&mut core, &effects)[..] else { panic!() };
    let effects = core.handle(at(0), Input::WorkerFailed { key, reason: "panicked".into() });
    assert!(effects.contains(&Effect::Report { peer: PEER, start: 0, outcome: Outcome::Unused }));
    assert!(matches!(core.snapshot().progress, Progress::Retrying { needed: 1, attempts: 1, .. }));
    let wake = core.next_wake().unwrap();
    let effects = core.handle(Now { monotonic: wake, unix_ms: 0 }, Input::Wake);
    assert!(effects.iter().any(|effect| is_first_pick(effect, 1)), "{effects:?}");
}

#[test]
fn delivered_part_of_a_failing_peer_is_kept_and_the_rest_asked_elsewhere() {
    let mut core = core(small());
    let effects = core.handle(at(0), target(10));
    let [(key, ..)] = started(&mut core, &effects)[..] else { panic!() };
    let fault = StopReason::Failed(PeerFailure::new(Fault::Slow, "timed out"));
    let part = Input::WorkerDone { key, verified: Some(verified(1, 4, 10)), shortfall: Some(fault) };
    let effects = core.handle(at(0), part);
    assert!(effects.contains(&Effect::Write(vec![key])));
    // Something was lost on the way: no reason to doubt who delivers.
    let served =
        |effect: &Effect| matches!(effect, Effect::Report { peer: PEER, outcome: Outcome::Served { last: 4, .. }, .. });
    assert!(effects.iter().any(served), "{effects:?}");
    assert!(effects.iter().any(|effect| is_pick_without(effect, 5, PEER)));
}

#[test]
fn commits_of_an_unknown_epoch_are_held_until_its_committee_is_known() {
    let mut core = core(Config { commits_per_fetch: 20, ..small() });
    let effects = core.handle(at(0), target(60));
    let ranges = started(&mut core, &effects);
    assert_eq!(ranges.iter().map(|range| range.1).collect::<Vec<_>>(), [1, 21, 41]);
    // Commits 41 to 60 are of epoch 1, whose committee nobody knows yet.
    let other = StopReason::OtherEpoch { index: 41, found: 1 };
    let effects = core.handle(at(0), Input::WorkerDone { key: ranges[2].0, verified: None, shortfall: Some(other) });
    assert!(effects.contains(&Effect::Report { peer: PEER, start: 41, outcome: Outcome::Unused }), "not a fault");
    // The second range ends with the epoch: its rest and what was held can go on with the next committee.
    let effects = core.handle(
        at(0),
        Input::WorkerDone { key: ranges[1].0, verified: Some(verified(21, 30, 1)), shortfall: Some(StopReason::Cut) },
    );
    let next = fetches(&mut core, &effects);
    let epochs: Vec<_> = next
        .iter()
        .map(|effect| match effect {
            Effect::Fetch { start, epoch, .. } => (*start, *epoch),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(epochs, [(31, 1), (41, 1)]);
}

#[test]
fn a_false_claim_of_another_epoch_for_the_next_commit_is_the_peers_fault() {
    let mut core = core(small());
    let effects = core.handle(at(0), target(10));
    let [(key, ..)] = started(&mut core, &effects)[..] else { panic!() };
    let other = StopReason::OtherEpoch { index: 1, found: 7 };
    let effects = core.handle(at(0), Input::WorkerDone { key, verified: None, shortfall: Some(other) });
    let blamed = effects.iter().any(|effect| {
        matches!(effect, Effect::Report { outcome: Outcome::Failed(PeerFailure { fault: Fault::Unproven, .. }), .. })
    });
    assert!(blamed, "{effects:?}");
    assert!(effects.iter().any(|effect| is_pick_without(effect, 1, PEER)));
}

#[test]
fn certified_commits_that_do_not_follow_the_chain_are_not_linked() {
    let mut core = core(small());
    let effects = core.handle(at(0), target(10));
    let [(key, ..)] = started(&mut core, &effects)[..] else { panic!() };
    let fork = RangeSummary { previous: CommitDigest([9; 32]), ..verified(1, 10, 1) };
    let effects = core.handle(at(0), Input::WorkerDone { key, verified: Some(fork), shortfall: None });
    assert!(effects.contains(&Effect::Discard(key)));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Write(_))));
    assert_eq!(core.snapshot().linked, 0);
}

#[test]
fn fetching_waits_for_the_slowest_executor() {
    let mut core = core(Config { max_executor_lag: 64, ..small() });
    let executor =
        |core: &mut StateSync, reader, at_commit| core.handle(at(0), Input::Executor { reader, at: at_commit });
    executor(&mut core, 1, ExecutorAt::Next(1));
    executor(&mut core, 2, ExecutorAt::Next(11));
    let effects = core.handle(at(0), target(200));
    let mut starts: Vec<_> = started(&mut core, &effects);
    let mut ends = Vec::new();
    while let Some((key, start, end)) = starts.pop() {
        ends.push(end);
        let effects = done(&mut core, key, start, end);
        starts.extend(started(&mut core, &effects));
        if effects.iter().any(|effect| matches!(effect, Effect::Write(_))) || starts.is_empty() {
            let index = core.snapshot().linked;
            core.handle(at(0), Input::Written(Ok(CommitRef { index, digest: digest(index) })));
            let more = core.handle(at(0), Input::Wake);
            starts.extend(started(&mut core, &more));
        }
    }
    assert_eq!(ends.into_iter().max(), Some(64), "no commit beyond the lag");
    assert_eq!(core.snapshot().progress, Progress::ExecutorBehind { next: 1 });
    // Once it has gone, the other one decides; without any, nothing is waited for.
    let effects = executor(&mut core, 1, ExecutorAt::Ended);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Pick { start: 65, .. })));
    let failed = ExecutorAt::Failed { next: 11, reason: "damaged".into() };
    executor(&mut core, 2, failed);
    assert_eq!(core.snapshot().progress, Progress::Syncing);
}

#[test]
fn node_that_heard_no_peer_is_not_synced_and_says_what_is_missing() {
    let mut core = core(small());
    let progress = |core: &StateSync| core.snapshot().progress;
    assert_eq!(progress(&core), Progress::NoPeer { needed: 1, reason: NoPeer::NotConnected });
    for reason in [NoPeer::Unheard { peers: 3 }, NoPeer::ClaimsUnproven { peers: 3, claimed: 50 }] {
        core.handle(at(0), Input::Target(Target { highest: 0, proven: 0, doubt: Some(reason) }));
        assert_eq!(progress(&core), Progress::NoPeer { needed: 1, reason });
        assert_eq!(progress(&core).cause(), reason.name());
    }
    core.handle(at(0), target(0));
    assert_eq!(progress(&core), Progress::Synced);
}

#[test]
fn a_disk_that_fails_is_tried_again_and_nothing_is_announced_meanwhile() {
    let mut core = core(small());
    let effects = core.handle(at(0), target(10));
    let [(key, ..)] = started(&mut core, &effects)[..] else { panic!() };
    done(&mut core, key, 1, 10);
    let effects = core.handle(at(0), Input::Written(Err("disk full".into())));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Announce(_) | Effect::Publish { .. })));
    assert_eq!(core.snapshot().progress, Progress::Disk { reason: "disk full".into() });
    let wake = core.next_wake().unwrap();
    let effects = core.handle(Now { monotonic: wake, unix_ms: 0 }, Input::Wake);
    assert_eq!(effects, [Effect::Write(vec![key])]);
}

#[test]
fn without_peers_the_next_commit_waits_and_the_state_says_why() {
    let mut core = core(small());
    let effects = core.handle(at(0), target(10));
    let Effect::Pick { key, .. } = effects[0] else { panic!() };
    let reason = NoPeer::AllPruned { peers: 7, lowest: 120_000 };
    core.handle(at(0), Input::Picked { key, peer: Err(reason) });
    assert_eq!(core.snapshot().progress, Progress::NoPeer { needed: 1, reason });
    // A peer that became able to serve is asked at once, not at the next interval.
    let effects = core.handle(at(1), target(10));
    assert!(matches!(&effects[..], [pick] if is_first_pick(pick, 1)), "{effects:?}");
}

#[test]
fn own_commits_are_taken_in_order_and_refused_with_a_reason_otherwise() {
    let mut core = core(small());
    let local = |core: &mut StateSync, n, commit| local(core, at(0), RangeKey::local(n), commit);
    let effects = local(&mut core, 1, verified(2, 2, 1));
    assert_eq!(answer(&effects), Some(Err(LocalCommitError::Gap { index: 2, expected: 1 })));
    let effects = local(&mut core, 2, verified(1, 1, 1));
    assert_eq!(answer(&effects), None, "the answer comes when it is durable");
    let effects = core.handle(at(0), Input::Written(Ok(CommitRef { index: 1, digest: digest(1) })));
    assert_eq!(answer(&effects), Some(Ok(())));
    assert_eq!(answer(&local(&mut core, 3, verified(1, 1, 1))), Some(Ok(())), "what is there already is no error");
    let fork = RangeSummary { previous: CommitDigest([9; 32]), ..verified(2, 2, 1) };
    assert!(matches!(answer(&local(&mut core, 4, fork)), Some(Err(LocalCommitError::Fork { .. }))));
    let other = RangeSummary { epoch: 4, ..verified(2, 2, 1) };
    assert!(matches!(answer(&local(&mut core, 5, other)), Some(Err(LocalCommitError::OtherEpoch { .. }))));
}

#[test]
fn what_consensus_delivers_meanwhile_is_not_written_twice() {
    let mut core = core(small());
    let effects = core.handle(at(0), target(10));
    let [(key, ..)] = started(&mut core, &effects)[..] else { panic!() };
    for index in 1..=4 {
        local(&mut core, at(0), RangeKey::local(index.into()), verified(index, index, 1));
    }
    // The worker delivers 1 to 10, of which 1 to 4 are there: the rest is fetched once more, nothing is applied twice.
    let effects = done(&mut core, key, 1, 10);
    assert!(effects.contains(&Effect::Discard(key)));
    assert_eq!(core.snapshot().linked, 4);
    assert_eq!(core.snapshot().commits_discarded, 10);
}

/// Starts one range at `PEER`, waits until it is late, and has `LIAR` picked as the second. The keys of both.
fn late_range(core: &mut StateSync) -> (RangeKey, RangeKey) {
    let effects = core.handle(at(0), target(10));
    let [(first, 1, 10)] = started(core, &effects)[..] else { panic!("{effects:?}") };
    let wake = core.next_wake().unwrap();
    let effects = core.handle(Now { monotonic: wake, unix_ms: 0 }, Input::Wake);
    let [Effect::Pick { key, start: 1, ref tried, hedge: true, next: true }] = effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(*tried, [PEER]);
    let effects = core.handle(Now { monotonic: wake, unix_ms: 0 }, Input::Picked { key, peer: Ok(LIAR) });
    assert!(matches!(effects[..], [Effect::Fetch { peer: LIAR, start: 1, end: 10, .. }]), "{effects:?}");
    assert_eq!((core.snapshot().workers, core.snapshot().ranges), (2, 1));
    (first, key)
}

/// Whether a peer is to be selected for the range, and not this one.
fn is_pick_without(effect: &Effect, first: CommitIndex, peer: PeerId) -> bool {
    matches!(effect, Effect::Pick { start, tried, .. } if *start == first && *tried == [peer])
}

fn reports(effects: &[Effect]) -> Vec<(PeerId, Outcome)> {
    let report = |effect: &Effect| match effect {
        Effect::Report { peer, outcome, .. } => Some((*peer, outcome.clone())),
        _ => None,
    };
    effects.iter().filter_map(report).collect()
}

#[test]
fn late_range_is_asked_of_a_second_peer_and_the_first_delivery_wins() {
    for second_wins in [true, false] {
        let mut core = core(small());
        let (first, second) = late_range(&mut core);
        let (winner, loser) = if second_wins { (second, first) } else { (first, second) };
        let effects = core.handle(
            at(1_200),
            Input::WorkerDone { key: winner, verified: Some(verified(1, 10, 100)), shortfall: None },
        );
        assert!(effects.contains(&Effect::Cancel(loser)) && effects.contains(&Effect::Write(vec![winner])));
        let (slow, fast) = if second_wins { (PEER, LIAR) } else { (LIAR, PEER) };
        // The second was asked just now: it has lost nothing.
        let lost = if second_wins { Outcome::LostHedge { silent: true } } else { Outcome::Unused };
        let expected = [(slow, lost), (fast, Outcome::Served { last: 10, bytes: 100 })];
        assert_eq!(reports(&effects), expected);
        assert_eq!((core.snapshot().workers, core.snapshot().bytes_in_flight), (0, 100));
    }
}

#[test]
fn silent_peers_delay_the_next_commit_by_a_few_hedge_delays_only() {
    let mut core = core(small());
    let mut effects = core.handle(at(0), target(1));
    // At the head, where a commit takes 5 ms.
    for commit in 1..=20 {
        let [Effect::Pick { key, .. }] = effects[..] else { panic!("{effects:?}") };
        let ms = u64::from(commit) * 100;
        core.handle(at(ms), Input::Picked { key, peer: Ok(PEER) });
        core.handle(at(ms + 5), Input::Progress { key, downloaded: true });
        let served = Input::WorkerDone { key, verified: Some(verified(commit, commit, 100)), shortfall: None };
        core.handle(at(ms + 5), served);
        core.handle(at(ms + 5), Input::Written(Ok(CommitRef { index: commit, digest: digest(commit) })));
        effects = core.handle(at(ms + 100), target(commit + 1));
    }
    let begun = Duration::from_millis(2_100);
    let mut silent = Vec::new();
    let mut now = begun;
    // Rounds of 1, 1, 2, 4, 8 peers; there may be 12 at once.
    let mut rounds = Vec::new();
    let pick = |effects: &[Effect]| {
        let picks = effects.iter().filter_map(|effect| match effect {
            Effect::Pick { key, start: 21, tried, .. } => Some((*key, tried.clone())),
            _ => None,
        });
        picks.collect::<Vec<_>>()
    };
    while silent.len() < MAX_ATTEMPTS - 1 {
        match &pick(&effects)[..] {
            [] => {
                rounds.push(silent.len());
                now = core.next_wake().unwrap();
                effects = core.handle(Now { monotonic: now, unix_ms: 0 }, Input::Wake);
            }
            [(key, tried)] => {
                assert_eq!(*tried, silent);
                let peer = PeerId([100 + silent.len() as u8; 32]);
                silent.push(peer);
                effects = core.handle(Now { monotonic: now, unix_ms: 0 }, Input::Picked { key: *key, peer: Ok(peer) });
            }
            several => panic!("{several:?}"),
        }
    }
    assert_eq!(rounds, [1, 2, 4, 8]);
    assert!(now < begun + Duration::from_millis(300), "{:?}", now - begun);
    let waited = now - begun;
    // The others were asked just now.
    assert_eq!(core.late(), Some(Late { commit: 21, silent: 8, waited }));
    // The twelfth is silent, too: the one that was asked first makes room in time.
    let [(key, _)] = pick(&effects)[..] else { panic!("{effects:?}") };
    let peer = PeerId([100 + silent.len() as u8; 32]);
    core.handle(Now { monotonic: now, unix_ms: 0 }, Input::Picked { key, peer: Ok(peer) });
    silent.push(peer);
    assert_eq!(core.next_wake().unwrap(), begun + REPLACE_AFTER);
    now = begun + REPLACE_AFTER;
    let effects = core.handle(Now { monotonic: now, unix_ms: 0 }, Input::Wake);
    assert_eq!(reports(&effects), [(silent.remove(0), Outcome::LostHedge { silent: true })]);
    // An honest one delivers: all others lose what they had.
    let [(key, _)] = pick(&effects)[..] else { panic!("{effects:?}") };
    core.handle(Now { monotonic: now, unix_ms: 0 }, Input::Picked { key, peer: Ok(PEER) });
    let served = Input::WorkerDone { key, verified: Some(verified(21, 21, 100)), shortfall: None };
    let effects = core.handle(Now { monotonic: now, unix_ms: 0 }, served);
    let mut expected: Vec<_> = silent.iter().map(|peer| (*peer, Outcome::LostHedge { silent: true })).collect();
    expected.push((PEER, Outcome::Served { last: 21, bytes: 100 }));
    assert_eq!(reports(&effects), expected);
    assert_eq!((core.snapshot().workers, core.late()), (0, None));
}

#[test]
fn peers_that_stop_after_a_first_answer_count_as_silent() {
    let mut core = core(small());
    let (first, second) = late_range(&mut core);
    for key in [first, second] {
        core.handle(at(1_100), Input::Progress { key, downloaded: false });
    }
    let now = core.next_wake().unwrap();
    let mut effects = core.handle(Now { monotonic: now, unix_ms: 0 }, Input::Wake);
    let mut asked = Vec::new();
    while let Some(key) = effects.iter().find_map(|effect| match effect {
        Effect::Pick { key, start: 1, .. } => Some(*key),
        _ => None,
    }) {
        asked.push(key);
        let peer = PeerId([100 + asked.len() as u8; 32]);
        effects = core.handle(Now { monotonic: now, unix_ms: 0 }, Input::Picked { key, peer: Ok(peer) });
    }
    assert_eq!(asked.len(), 2, "as many again");
    // Only peers that still bring something make others superfluous.
    let effects = core.handle(
        Now { monotonic: now + Duration::from_millis(1), unix_ms: 0 },
        Input::Progress { key: asked[0], downloaded: false },
    );
    assert!(!effects.contains(&Effect::Cancel(asked[1])), "{effects:?}");
}

#[test]
fn peers_that_stop_after_a_first_answer_make_room_for_others() {
    let mut core = core(small());
    let (first, second) = late_range(&mut core);
    let mut now = Duration::from_millis(1_100);
    let at = |now| Now { monotonic: now, unix_ms: 0 };
    for key in [first, second] {
        core.handle(at(now), Input::Progress { key, downloaded: false });
    }
    let mut asked = 2;
    let mut effects = Vec::new();
    while !effects.contains(&Effect::Cancel(first)) {
        let picks = effects.iter().filter_map(|effect| match effect {
            Effect::Pick { key, start: 1, .. } => Some(*key),
            _ => None,
        });
        let mut more = Vec::new();
        for key in picks.collect::<Vec<_>>() {
            asked += 1;
            more.extend(core.handle(at(now), Input::Picked { key, peer: Ok(PeerId([100 + asked; 32])) }));
            more.extend(core.handle(at(now), Input::Progress { key, downloaded: false }));
        }
        if more.is_empty() {
            now = core.next_wake().expect("another peer is to be asked");
            more = core.handle(at(now), Input::Wake);
        }
        effects = more;
    }
    assert_eq!(usize::from(asked), MAX_ATTEMPTS, "all that may be asked at once");
    assert_eq!(reports(&effects), [(PEER, Outcome::LostHedge { silent: true })]);
}

#[test]
fn next_range_starts_although_a_liar_keeps_all_workers() {
    let mut core = core(small());
    let effects = core.handle(at(0), Input::Target(Target { highest: 1_000, proven: 1_000, doubt: None }));
    let next = effects.iter().find_map(|effect| match effect {
        Effect::Pick { key, start: 1, .. } => Some(*key),
        _ => None,
    });
    let nobody = Err(NoPeer::AllPaused { peers: 1 });
    let mut more = core.handle(at(0), Input::Picked { key: next.unwrap(), peer: nobody });
    more.extend(effects.into_iter().filter(|effect| !is_first_pick(effect, 1)));
    // Later ranges take all places while the next one waits.
    assert_eq!(started(&mut core, &more).len(), small().max_workers);
    let effects = core.handle(at(1_000), Input::Wake);
    assert!(effects.iter().any(|effect| is_first_pick(effect, 1)), "{effects:?}");
    assert_eq!(core.workers(), small().max_workers + 1);
}

#[test]
fn hedges_of_a_linked_range_are_cancelled_and_no_more_are_started() {
    let mut core = core(Config { commits_per_fetch: 1, ..small() });
    let effects = core.handle(at(0), target(1));
    let [(first, 1, 1)] = started(&mut core, &effects)[..] else { panic!("{effects:?}") };
    let wake = Now { monotonic: core.next_wake().unwrap(), unix_ms: 0 };
    let effects = core.handle(wake, Input::Wake);
    let [Effect::Pick { key, .. }] = effects[..] else { panic!("{effects:?}") };
    core.handle(wake, Input::Picked { key, peer: Ok(LIAR) });
    // The node's own consensus makes the commit meanwhile.
    let effects = local(&mut core, wake, RangeKey::local(1), verified(1, 1, 1));
    assert!(effects.contains(&Effect::Cancel(key)) && !effects.contains(&Effect::Cancel(first)), "{effects:?}");
    assert_eq!(reports(&effects), [(LIAR, Outcome::Unused)]);
    assert_eq!(core.snapshot().workers, 1);
    assert_eq!(
        core.handle(at(20_000), Input::Wake).iter().filter(|effect| matches!(effect, Effect::Pick { .. })).count(),
        0
    );
}

#[test]
fn peer_with_less_of_a_late_range_ends_sooner_and_neither_is_blamed() {
    let mut core = core(small());
    let (first, second) = late_range(&mut core);
    core.handle(at(1_100), Input::Progress { key: first, downloaded: false });
    let done = Input::WorkerDone { key: second, verified: Some(verified(1, 4, 100)), shortfall: Some(StopReason::Cut) };
    let effects = core.handle(at(1_200), done);
    let [(PEER, Outcome::Unused), (LIAR, Outcome::Served { last: 4, .. })] = &reports(&effects)[..] else {
        panic!("{effects:?}")
    };
}

#[test]
fn a_range_that_is_cut_for_a_slow_peer_reserves_what_is_left_of_it() {
    let mut core = core(Config { max_workers: 1, ..Config::default() });
    let effects = core.handle(at(0), target(2_000));
    let [(key, 1, 20)] = started(&mut core, &effects)[..] else { panic!("{effects:?}") };
    // 20 commits of 30 KiB take ten seconds: of the next 20, ten are asked for.
    let verified = RangeSummary { epoch: 0, ends_epoch: false, ..verified(1, 20, 600 << 10) };
    let effects = core.handle(at(10_000), Input::WorkerDone { key, verified: Some(verified), shortfall: None });
    let fetches = fetches(&mut core, &effects);
    let [Effect::Fetch { start: 21, end: 30, max_bytes, .. }] = fetches[..] else { panic!("{fetches:?}") };
    assert_eq!(max_bytes, 1 << 20, "the least there is; all 20 would have had 1.2 MB");
}

#[test]
fn when_one_of_two_workers_fails_the_other_continues_without_blame() {
    for (fails, blamed) in [(0, PEER), (1, LIAR)] {
        let mut core = core(small());
        let (first, second) = late_range(&mut core);
        let (failing, other) = [(first, second), (second, first)][fails];
        let fault = StopReason::Failed(PeerFailure::new(Fault::ProvableLie, "a lie"));
        let effects =
            core.handle(at(1_100), Input::WorkerDone { key: failing, verified: None, shortfall: Some(fault) });
        let [(peer, Outcome::Failed(PeerFailure { fault: Fault::ProvableLie, .. }))] = &reports(&effects)[..] else {
            panic!("{effects:?}")
        };
        assert_eq!((*peer, core.snapshot().workers), (blamed, 1));
        let effects = done(&mut core, other, 1, 10);
        assert!(effects.contains(&Effect::Write(vec![other])), "{effects:?}");
    }
}

#[test]
fn a_range_that_has_come_and_is_being_checked_is_asked_of_nobody_else() {
    let mut core = core(small());
    let effects = core.handle(at(0), target(10));
    let [(key, ..)] = started(&mut core, &effects)[..] else { panic!("{effects:?}") };
    core.handle(at(20), Input::Progress { key, downloaded: true });
    assert_eq!(core.next_wake(), Some(at(0).monotonic + STUCK_AFTER), "it asks nobody, and says so if that lasts");
    assert_eq!(core.handle(at(60_000), Input::Wake), []);
}

#[test]
fn where_nobody_else_can_be_asked_the_one_that_is_late_is_waited_for() {
    let mut core = core(small());
    let effects = core.handle(at(0), target(10));
    let [(first, ..)] = started(&mut core, &effects)[..] else { panic!("{effects:?}") };
    for picked in [Ok(PEER), Err(NoPeer::AllPaused { peers: 1 })] {
        let now = Now { monotonic: core.next_wake().unwrap(), unix_ms: 0 };
        let effects = core.handle(now, Input::Wake);
        let [Effect::Pick { key, .. }] = effects[..] else { panic!("{effects:?}") };
        let effects = core.handle(now, Input::Picked { key, peer: picked });
        let given_back = picked.is_ok().then_some((PEER, Outcome::Unused));
        assert_eq!(reports(&effects), Vec::from_iter(given_back));
        assert!(core.next_wake().unwrap() > now.monotonic, "asked again later, not at once");
    }
    assert!(done(&mut core, first, 1, 10).contains(&Effect::Write(vec![first])));
}

#[test]
fn what_is_at_hand_is_kept_for_the_executor_furthest_behind() {
    let mut core = core(small());
    assert_eq!(core.slowest_executor(), None);
    for (reader, next) in [(1, 50), (2, 7)] {
        core.handle(at(0), Input::Executor { reader, at: ExecutorAt::Next(next) });
    }
    assert_eq!(core.slowest_executor(), Some(7));
    core.handle(at(0), Input::Executor { reader: 2, at: ExecutorAt::Ended });
    assert_eq!(core.slowest_executor(), Some(50));
}

#[test]
fn failed_executor_stream_is_shown_until_an_executor_gets_past_it() {
    let mut core = core(small());
    let executor = |core: &mut StateSync, reader, at_commit| {
        core.handle(at(0), Input::Executor { reader, at: at_commit });
        core.snapshot().executor_failure
    };
    let failure = ExecutorFailure { next: 7, reason: "damaged".into() };
    executor(&mut core, 1, ExecutorAt::Next(5));
    let failed = ExecutorAt::Failed { next: 7, reason: "damaged".into() };
    assert_eq!(executor(&mut core, 1, failed), Some(failure.clone()));
    assert_eq!(core.slowest_executor(), None, "nothing is waited for");
    assert_eq!(executor(&mut core, 2, ExecutorAt::Next(7)), Some(failure), "the same commit again");
    assert_eq!(executor(&mut core, 2, ExecutorAt::Next(8)), None);
}

#[test]
fn own_commits_are_checked_in_their_order_each_with_the_epoch_due() {
    let mut core = core(small());
    let keys: Vec<_> = (0..3).map(RangeKey::local).collect();
    let last = RangeSummary { ends_epoch: true, ..verified(1, 1, 1) };
    let next = RangeSummary { epoch: 1, ..verified(2, 2, 1) };
    let check = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::CheckLocal { key, epoch } => Some((*key, *epoch)),
            _ => None,
        })
    };
    let offer =
        |core: &mut StateSync, key, commit| core.handle(at(0), Input::LocalCommit { key, commit: offered(&commit) });
    assert_eq!(check(&offer(&mut core, keys[0], last)), Some((keys[0], 0)));
    assert!(offer(&mut core, keys[1], next).is_empty(), "its epoch is not known before the first is checked");
    assert!(offer(&mut core, keys[2], verified(4, 4, 1)).is_empty());
    let effects = core.handle(at(0), Input::LocalChecked { key: keys[0], result: Ok(last) });
    assert_eq!(check(&effects), Some((keys[1], 1)));
    let effects = core.handle(at(0), Input::LocalChecked { key: keys[1], result: Ok(next) });
    assert_eq!(answer(&effects), Some(Err(LocalCommitError::Gap { index: 4, expected: 3 })));
    assert_eq!(core.snapshot().linked, 2);
}

#[test]
fn own_commit_that_fails_its_check_is_refused_and_not_linked() {
    let mut core = core(small());
    let (first, second) = (RangeKey::local(1), RangeKey::local(2));
    core.handle(at(0), Input::LocalCommit { key: first, commit: offered(&verified(1, 1, 1)) });
    let invalid = || LocalCommitError::Invalid { index: 1, reason: "no good".into() };
    let effects = core.handle(at(0), Input::LocalChecked { key: first, result: Err(invalid()) });
    assert_eq!(answer(&effects), Some(Err(invalid())));
    assert!(effects.contains(&Effect::Discard(first)));
    assert_eq!(core.snapshot().linked, 0);
    // The right one is taken after it.
    assert_eq!(answer(&local(&mut core, at(0), second, verified(1, 1, 1))), None);
    assert_eq!(core.snapshot().linked, 1);
}

#[test]
fn first_timestamp_of_a_range_is_the_later_of_leaders_and_tips() {
    for (leader, timestamp, is_right) in
        [(7, 10, true), (10, 10, true), (12, 12, true), (7, 9, false), (7, 11, false), (12, 10, false), (12, 13, false)]
    {
        let tip = Tip { timestamp_ms: 10, ..genesis() };
        let range =
            RangeSummary { first_timestamp_ms: timestamp, first_leader_timestamp_ms: leader, ..verified(1, 10, 100) };
        // From a peer.
        let mut core = StateSync::new(small(), tip);
        let effects = core.handle(at(0), target(10));
        let [(key, ..)] = started(&mut core, &effects)[..] else { panic!() };
        let effects = core.handle(at(0), Input::WorkerDone { key, verified: Some(range), shortfall: None });
        assert_eq!(core.snapshot().linked, if is_right { 10 } else { 0 }, "{leader} {timestamp}");
        assert!(
            !reports(&effects).iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_))),
            "nobody is blamed"
        );
        // From the node's own consensus.
        let mut core = StateSync::new(small(), tip);
        let one = RangeSummary { last: verified(1, 1, 1).last, ..range };
        let answered = answer(&local(&mut core, at(0), RangeKey::local(1), one));
        assert_eq!(matches!(answered, Some(Err(LocalCommitError::Invalid { .. }))), !is_right, "{answered:?}");
        assert_eq!(core.snapshot().linked, u32::from(is_right));
    }
}

#[test]
fn chain_at_the_highest_index_stands_still_and_does_not_overflow() {
    let last = MAX_COMMIT_INDEX;
    let commit = CommitRef { index: last - 1, digest: digest(last - 1) };
    let mut core = StateSync::new(small(), Tip { commit, ..genesis() });
    let at_last = RangeSummary {
        epoch: 0,
        ends_epoch: false,
        first_timestamp_ms: 1,
        first_leader_timestamp_ms: 1,
        ..verified(last, last, 1)
    };
    let effects = core.handle(at(0), target(CommitIndex::MAX));
    let [(key, start, end)] = started(&mut core, &effects)[..] else { panic!("{effects:?}") };
    assert_eq!((start, end), (last, last));
    core.handle(at(0), Input::WorkerDone { key, verified: Some(at_last), shortfall: None });
    core.handle(at(0), Input::Written(Ok(at_last.last)));
    assert_eq!((core.snapshot().applied, core.snapshot().progress), (last, Progress::Synced));
    let beyond = RangeSummary { previous: digest(last), epoch: 0, ..verified(last, CommitIndex::MAX, 1) };
    let answered = answer(&local(&mut core, at(0), RangeKey::local(1), beyond));
    assert!(matches!(answered, Some(Err(LocalCommitError::Invalid { .. }))), "{answered:?}");
    core.handle(at(0), Input::Executor { reader: 1, at: ExecutorAt::Next(CommitIndex::MAX) });
    assert_eq!(core.snapshot().progress, Progress::Synced);
}

#[test]
fn node_is_stuck_once_available_commits_stay_not_durable_for_a_while() {
    let after = |ms: u64| Now { monotonic: STUCK_AFTER + Duration::from_millis(ms), unix_ms: 1_000_000 + ms };
    let mut core = core(small());
    let stuck = |core: &StateSync| core.snapshot().stuck_since_ms;
    core.handle(at(0), target(0));
    core.handle(after(0), Input::Wake);
    assert_eq!((stuck(&core), core.next_wake()), (None, None), "nothing to do");
    core.handle(after(10), target(10));
    assert_eq!(core.next_wake(), Some(after(10).monotonic + STUCK_AFTER));
    core.handle(Now { monotonic: after(10).monotonic + STUCK_AFTER, unix_ms: 2_000_000 }, Input::Wake);
    assert_eq!(stuck(&core), Some(1_000_010), "since there was something to do");
    // A commit that becomes durable ends it.
    let now = Now { monotonic: after(20).monotonic + STUCK_AFTER, unix_ms: 2_000_010 };
    local(&mut core, now, RangeKey::local(1), verified(1, 1, 1));
    core.handle(now, Input::Written(Ok(CommitRef { index: 1, digest: digest(1) })));
    assert_eq!(stuck(&core), None);
}

/// What happens to one worker of the model.
#[derive(Clone, Debug)]
enum Fate {
    Delivers,
    DeliversPart(u32),
    Fails(Fault),
    FailsAfter(u32, Fault),
    Dies,
    NoPeer,
}

fn fate() -> impl Strategy<Value = Fate> {
    let fault = prop::sample::select(vec![
        Fault::ProvableLie,
        Fault::Malformed,
        Fault::Unproven,
        Fault::DoesNotHave,
        Fault::Slow,
        Fault::Overloaded,
        Fault::Ours,
    ]);
    prop_oneof![
        6 => Just(Fate::Delivers),
        2 => (1u32..10).prop_map(Fate::DeliversPart),
        1 => fault.clone().prop_map(Fate::Fails),
        1 => (1u32..10, fault).prop_map(|(commits, fault)| Fate::FailsAfter(commits, fault)),
        1 => Just(Fate::Dies),
        1 => Just(Fate::NoPeer),
    ]
}

/// What a range of the model may hold: some more than a write batch.
const RANGE_BYTES: u64 = 20 * COMMIT_BYTES;

/// Bytes of each commit of the model.
const COMMIT_BYTES: u64 = 512 << 10;

#[derive(Clone, Debug)]
struct World {
    config: Config,
    head: CommitIndex,
    fates: Vec<Fate>,
    /// Which of the open things happens next.
    order: Vec<prop::sample::Index>,
    disk_fails: Vec<bool>,
    local: Vec<bool>,
    /// Milliseconds that a step takes.
    times: Vec<u64>,
}

fn world() -> impl Strategy<Value = World> {
    let config = (1u32..12, 1usize..5, 1usize..8, 1u64..6).prop_map(|(commits, workers, ahead, ranges)| Config {
        commits_per_fetch: commits,
        max_workers: workers,
        ranges_ahead: ahead,
        bytes_in_flight: RANGE_BYTES * ranges,
        bytes_per_range: RANGE_BYTES,
        no_peer_wait: Duration::from_millis(10),
        ..Config::default()
    });
    let order = prop::collection::vec(any::<prop::sample::Index>(), 64);
    let bools = |count| prop::collection::vec(prop::bool::weighted(0.15), count);
    let times = prop::collection::vec(prop_oneof![4 => Just(1u64), 1 => 200u64..2_000], 64);
    (config, 1u32..120, prop::collection::vec(fate(), 64), order, bools(16), bools(64), times).prop_map(
        |(config, head, fates, order, disk_fails, local, times)| World {
            config,
            head,
            fates,
            order,
            disk_fails,
            local,
            times,
        },
    )
}

/// Runs the model to its end and checks, at every step, what must always hold. The most batches that were asked for
/// at once.
fn run(world: &World) -> Result<usize, TestCaseError> {
    let mut core = core(world.config.clone());
    let mut open: Vec<Effect> = core.handle(at(0), target(world.head));
    let (mut now, mut step, mut written, mut applied) = (0u64, 0usize, 0u32, 0u32);
    let mut held: BTreeMap<RangeKey, (CommitIndex, CommitIndex)> = BTreeMap::new();
    let mut discarded = BTreeSet::new();
    let (mut failed, mut answers, mut most_batches) = (false, Vec::new(), 0);
    let mut local = 0u64;
    while applied < world.head {
        step += 1;
        prop_assert!(step < 5_000, "no progress: {:?}", core.snapshot());
        now += world.times.get(step % world.times.len().max(1)).copied().unwrap_or(1);
        // A fault-free world in the end: every fate is used once, then all deliver.
        let fate = world.fates.get(step).cloned().unwrap_or(Fate::Delivers);
        let things = open.len() + answers.len();
        let pick = world.order.get(step % world.order.len()).map_or(0, |index| index.index(things.max(1)));
        let input = if things == 0 {
            let Some(wake) = core.next_wake() else {
                return Err(TestCaseError::fail(format!("asleep for ever: {:?}", core.snapshot())));
            };
            now = now.max(wake.as_millis() as u64 + 1);
            Input::Wake
        } else if pick >= open.len() {
            // In whatever order the two futures are polled that wait for them.
            Input::Written(answers.remove(pick - open.len()))
        } else {
            // The StoreWriter writes in the order in which it is asked.
            let write = open.iter().position(|effect| matches!(effect, Effect::Write(_)));
            let pick = write.filter(|_| matches!(open[pick], Effect::Write(_))).unwrap_or(pick);
            match open.remove(pick) {
                Effect::Pick { key, .. } if matches!(fate, Fate::NoPeer) => {
                    Input::Picked { key, peer: Err(NoPeer::NotConnected) }
                }
                Effect::Pick { key, .. } => {
                    let peer = PeerId([100 + (step % 7) as u8; 32]);
                    Input::Picked { key, peer: Ok(if step % 3 == 0 { LIAR } else { peer }) }
                }
                Effect::Fetch { key, start, end, epoch, max_bytes, .. } => {
                    worker(&mut held, key, start, end, epoch, max_bytes, &fate)
                }
                Effect::Write(keys) => {
                    let ranges: Vec<_> = keys.iter().map(|key| held[key]).collect();
                    let (first, last) = (ranges[0].0, ranges[ranges.len() - 1].1);
                    prop_assert!(
                        ranges.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0),
                        "written in order, each once"
                    );
                    let fails = world.disk_fails.get(step / 8).copied().unwrap_or(false);
                    // An answer that is lost is a failure of a batch that is there.
                    if (!fails || step % 2 == 0) && first <= written + 1 {
                        written = written.max(last);
                    }
                    prop_assert!(first <= written + 1 || failed, "a gap, although nothing before it failed");
                    failed = fails || first > written + 1;
                    let highest = CommitRef { index: written, digest: digest(written) };
                    answers.push(if failed { Err("disk".into()) } else { Ok(highest) });
                    continue;
                }
                Effect::CheckLocal { key, .. } => {
                    let (first, last) = held[&key];
                    Input::LocalChecked { key, result: Ok(verified(first, last, 1)) }
                }
                _ => continue,
            }
        };
        let mut effects = core.handle(at(now), input);
        // The node's own consensus makes the next commit now and then.
        let tip = core.snapshot().linked;
        if world.local.get(step).copied().unwrap_or(false) && tip < world.head {
            local += 1;
            let key = RangeKey::local(local);
            held.insert(key, (tip + 1, tip + 1));
            let commit = offered(&verified(tip + 1, tip + 1, 1));
            effects.extend(core.handle(at(now), Input::LocalCommit { key, commit }));
        }
        for effect in effects {
            match effect {
                Effect::Publish { keys, highest } => {
                    prop_assert!(highest.index > applied, "the watermark only moves up");
                    applied = highest.index;
                    for key in keys {
                        prop_assert!(held.remove(&key).is_some(), "published what is held, once");
                    }
                }
                Effect::Discard(key) => {
                    held.remove(&key);
                    discarded.insert(key);
                }
                // Its worker ends, wherever it was.
                Effect::Cancel(key) => {
                    held.remove(&key);
                    open.retain(|effect| !matches!(effect, Effect::Fetch { key: open, .. } if *open == key));
                }
                Effect::Announce(index) => prop_assert_eq!(index, applied, "announced only what is durable"),
                Effect::Report { outcome: Outcome::Failed(PeerFailure { reason, .. }), .. } => {
                    prop_assert_eq!(reason, "failed", "nobody is blamed but for what the model made fail");
                }
                Effect::Report { .. } | Effect::LocalAnswer { .. } => {}
                other => open.push(other),
            }
        }
        let batches = open.iter().filter(|effect| matches!(effect, Effect::Write(_))).count() + answers.len();
        most_batches = most_batches.max(batches);
        let snapshot = core.snapshot();
        prop_assert!(snapshot.workers <= most_workers(world.config.max_workers));
        // A range may be split, down to single commits, but new ones are planned only below the bound.
        let span = world.config.ranges_ahead * (flow::MAX_ANSWERS * world.config.commits_per_fetch) as usize;
        prop_assert!(snapshot.ranges <= span + world.config.max_workers);
        let budget = world.config.bytes_in_flight.max(world.config.bytes_per_range);
        prop_assert!(snapshot.bytes_in_flight <= budget + local, "{} > {budget}", snapshot.bytes_in_flight);
        prop_assert!(snapshot.applied == applied && snapshot.linked >= applied);
    }
    Ok(most_batches)
}

/// What a worker of the model answers; it knows the committees that the core believes to be right.
fn worker(
    held: &mut BTreeMap<RangeKey, (CommitIndex, CommitIndex)>,
    key: RangeKey,
    start: CommitIndex,
    end: CommitIndex,
    epoch: Epoch,
    max_bytes: u64,
    fate: &Fate,
) -> Input {
    if matches!(fate, Fate::Dies) {
        return Input::WorkerFailed { key, reason: "died".into() };
    }
    if let Fate::Fails(fault) = fate {
        let shortfall = StopReason::Failed(PeerFailure::new(*fault, "failed"));
        return Input::WorkerDone { key, verified: None, shortfall: Some(shortfall) };
    }
    if epoch_of(start) != epoch {
        let shortfall = StopReason::OtherEpoch { index: start, found: epoch_of(start) };
        return Input::WorkerDone { key, verified: None, shortfall: Some(shortfall) };
    }
    let epoch_end = (epoch as u32 + 1) * EPOCH;
    let part = match fate {
        Fate::DeliversPart(commits) | Fate::FailsAfter(commits, _) => start + commits - 1,
        _ => end,
    };
    let last = end.min(epoch_end).min(part);
    held.insert(key, (start, last));
    let shortfall = match fate {
        Fate::FailsAfter(_, fault) => Some(StopReason::Failed(PeerFailure::new(*fault, "failed"))),
        _ if last < end => Some(StopReason::Cut),
        _ => None,
    };
    let bytes = (u64::from(last - start) + 1) * COMMIT_BYTES;
    Input::WorkerDone { key, verified: Some(verified(start, last, bytes.min(max_bytes))), shortfall }
}

#[test]
fn every_commit_is_applied_once_in_order_within_bounds_whatever_fails() {
    let config = ProptestConfig { cases: 400, max_shrink_iters: 2_000, ..ProptestConfig::default() };
    let most_batches = Cell::new(0);
    let result = TestRunner::new(config).run(&world(), |world| {
        most_batches.set(most_batches.get().max(run(&world)?));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    assert_eq!(most_batches.get(), 2, "the bound was reached, and held");
}

#[test]
fn range_that_could_not_be_had_is_asked_for_with_its_successors() {
    let asked = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Fetch { key, start, end, proof_end, .. } => Some((*key, *start, *end, *proof_end)),
            _ => None,
        })
    };
    for has_served in [true, false] {
        let mut core = core(small());
        let effects = core.handle(at(0), target(10));
        let mut fetch = asked(&fetches(&mut core, &effects)).expect("a fetch");
        if has_served {
            done(&mut core, fetch.0, 1, 10);
            let effects = core.handle(at(0), target(20));
            fetch = asked(&fetches(&mut core, &effects)).expect("a fetch");
        }
        // Whoever has served before is believed to have the commits at once; others only after a few attempts.
        for _ in 0..if has_served { 1 } else { WIDE_EVERY } {
            let (key, _, end, proof_end) = fetch;
            assert_eq!(proof_end, end, "nothing more than the range at first");
            let reason = "commit cannot be served";
            let shortfall = Some(StopReason::Failed(PeerFailure::new(Fault::DoesNotHave, reason)));
            let effects = core.handle(at(0), Input::WorkerDone { key, verified: None, shortfall });
            fetch = asked(&fetches(&mut core, &effects)).expect("another fetch");
        }
        let (_, start, end, proof_end) = fetch;
        assert_eq!((end, proof_end), (start + 9, start + MAX_ANSWER_COMMITS - 1));
    }
}
