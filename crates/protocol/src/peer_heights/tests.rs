use super::*;
use crate::LostReason;
use soma_types::PeerFailure;
use std::collections::BTreeSet;

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

fn at(ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(ms), unix_ms: ms }
}

/// A core that knows peers 1, 2, ... with these heights (highest, lowest).
fn with_peers(heights: &[(CommitIndex, CommitIndex)]) -> PeerHeights {
    let mut core = PeerHeights::new(Config::default(), 0, Vec::new());
    for (number, (highest, lowest)) in (1..).zip(heights) {
        let peer = peer(number);
        let effects = core.handle(at(0), Input::Peer(PeerEvent::Connected(peer)));
        assert!(effects.contains(&Effect::Query(peer)), "a new peer is asked at once: {effects:?}");
        core.handle(at(0), Input::Queried { peer, answer: Ok((*highest, *lowest)) });
    }
    core
}

fn pick(core: &mut PeerHeights, now: Now, start: CommitIndex) -> Result<PeerId, NoPeer> {
    let effects = core.handle(now, Input::Pick { key: 1, start, tried: vec![], hedge: false, next: false });
    effects
        .into_iter()
        .find_map(|effect| match effect {
            Effect::Picked { peer, .. } => Some(peer),
            _ => None,
        })
        .expect("every pick is answered")
}

fn fail(core: &mut PeerHeights, now: Now, peer: PeerId, start: CommitIndex, fault: Fault) -> Vec<Effect> {
    let outcome = Outcome::Failed(PeerFailure::new(fault, "test"));
    core.handle(now, Input::Report { peer, start, outcome })
}

#[test]
fn peer_that_has_the_start_of_a_range_may_serve_it_and_a_pruned_one_not() {
    let mut core = with_peers(&[(100, 50), (60, 1)]);
    assert_eq!(pick(&mut core, at(0), 20), Ok(peer(2)));
    assert_eq!(pick(&mut core, at(0), 80), Ok(peer(1)));
    assert_eq!(pick(&mut core, at(0), 101), Err(NoPeer::NobodyHasIt { peers: 2 }));
    let mut pruned = with_peers(&[(100, 50), (100, 70)]);
    assert_eq!(pick(&mut pruned, at(0), 20), Err(NoPeer::AllPruned { peers: 2, lowest: 50 }));
    assert_eq!(pick(&mut PeerHeights::new(Config::default(), 0, Vec::new()), at(0), 1), Err(NoPeer::NotConnected));
}

#[test]
fn peer_that_pruned_meanwhile_is_asked_again_and_not_blamed() {
    let mut core = with_peers(&[(1_000, 50)]);
    assert_eq!(pick(&mut core, at(0), 60), Ok(peer(1)));
    let effects = fail(&mut core, at(1), peer(1), 60, Fault::DoesNotHave);
    assert_eq!(core.snapshot().peers[0].failures, 0);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Target(_))), "its height stands: {effects:?}");
    assert!(effects.contains(&Effect::Query(peer(1))), "it is asked where it begins: {effects:?}");
    assert_eq!(pick(&mut core, at(1), 60), Err(NoPeer::AllPruned { peers: 1, lowest: 61 }));
    core.handle(at(2), Input::Queried { peer: peer(1), answer: Ok((1_010, 70)) });
    assert_eq!(pick(&mut core, at(2), 70), Ok(peer(1)));
    for index in 0..MAX_PRUNED_REFUSALS {
        fail(&mut core, at(3), peer(1), 70 + index, Fault::DoesNotHave);
    }
    assert_eq!(core.snapshot().peers[0].failures, 1, "it serves nothing of what it says");
}

#[test]
fn ranges_in_flight_are_spread_over_peers() {
    let mut core = with_peers(&[(100, 1), (100, 1), (100, 1)]);
    let picked: BTreeSet<_> = (0..3).map(|_| pick(&mut core, at(0), 1).unwrap()).collect();
    assert_eq!(picked.len(), 3);
}

#[test]
fn unserved_claim_of_the_highest_index_falls_and_honest_targets_remain() {
    let mut core = with_peers(&[(100, 1), (u32::MAX, 1)]);
    let liar = pick(&mut core, at(0), 101).unwrap();
    assert_eq!(liar, peer(2));
    let effects = fail(&mut core, at(0), liar, 101, Fault::DoesNotHave);
    assert!(effects.contains(&Effect::Target(Target { highest: 100, proven: 0, doubt: None })), "{effects:?}");
    assert_eq!(pick(&mut core, at(1), 101), Err(NoPeer::ClaimsUnproven { peers: 1, claimed: u32::MAX }));
    // It claims again, and is asked again, but each time later.
    let mut waits = Vec::new();
    let mut now = 0;
    for _ in 0..4 {
        let waited = (1..).find(|ms| pick(&mut core, at(now + ms), 101).is_ok()).unwrap();
        now += waited;
        waits.push(waited);
        fail(&mut core, at(now), liar, 101, Fault::DoesNotHave);
    }
    assert!(waits.is_sorted_by(|a, b| a < b), "{waits:?}");
    let snapshot = core.snapshot();
    assert_eq!(snapshot.bans, 0, "an unproven claim is no proof of a lie");
}

#[test]
fn useful_peers_are_reported_once_in_an_interval_and_claimers_are_not() {
    let mut core = with_peers(&[(100, 1), (100, 1), (100, 1), (100, 1)]);
    let useful = |effects: Vec<Effect>| {
        effects.into_iter().find_map(|effect| match effect {
            Effect::Useful(peers) => Some(peers),
            _ => None,
        })
    };
    let push = |core: &mut PeerHeights, number, index| core.handle(at(1), Input::Pushed { peer: peer(number), index });
    push(&mut core, 1, 101);
    push(&mut core, 2, u32::MAX);
    push(&mut core, 3, 101);
    fail(&mut core, at(2), peer(3), 101, Fault::DoesNotHave);
    assert_eq!(useful(core.handle(at(3), Input::OwnHeight(101))), Some(vec![peer(1)]));
    // Not news any more.
    push(&mut core, 4, 101);
    let served = Outcome::Served { last: 50, bytes: 1_000 };
    let report = Input::Report { peer: peer(2), start: 1, outcome: served };
    assert_eq!(useful(core.handle(at(4), report)), None, "told of a moment ago");
    let interval = Config::default().query_interval.as_millis() as u64;
    assert_eq!(useful(core.handle(at(3 + interval), Input::Wake)), Some(vec![peer(2)]));
    assert_eq!(useful(core.handle(at(3 + 2 * interval), Input::Wake)), None);
}

#[test]
fn a_lie_bans_longer_each_time_and_the_innocent_keep_their_score() {
    let mut core = with_peers(&[(100, 1), (100, 1)]);
    let mut durations = Vec::new();
    let mut now = 0;
    for _ in 0..3 {
        core.handle(at(now), Input::Peer(PeerEvent::Connected(peer(2))));
        let effects = fail(&mut core, at(now), peer(2), 1, Fault::ProvableLie);
        let bans = banned(&effects);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::SaveStandings { .. })), "kept at once");
        durations.extend(bans.iter().map(|(_, duration)| duration.as_secs()));
        now += bans[0].1.as_millis() as u64;
    }
    assert_eq!(durations, [600, 1_200, 2_400]);
    let snapshot = core.snapshot();
    assert_eq!(snapshot.peers.len(), 1, "who is banned is not asked");
    assert_eq!((snapshot.peers[0].peer, snapshot.peers[0].score), (peer(1), 100));
}

#[test]
fn peer_that_lies_and_is_gone_when_it_is_found_out_is_banned_once() {
    let mut core = with_peers(&[(100, 1)]);
    pick(&mut core, at(0), 1).unwrap();
    core.handle(at(1), Input::Peer(PeerEvent::Lost { peer: peer(1), reason: LostReason::Closed }));
    let effects = fail(&mut core, at(2), peer(1), 1, Fault::ProvableLie);
    assert_eq!(banned(&effects).len(), 1, "{effects:?}");
    // What it had sent of another range is wrong, too.
    assert_eq!(banned(&fail(&mut core, at(3), peer(1), 50, Fault::ProvableLie)), []);
    // A peer that only calls floods its connection.
    assert_eq!(banned(&fail(&mut core, at(4), peer(7), 0, Fault::Malformed)).len(), 1);
}

fn banned(effects: &[Effect]) -> Vec<(PeerId, Duration)> {
    let ban = |effect: &Effect| match effect {
        Effect::Ban { peer, duration, .. } => Some((*peer, *duration)),
        _ => None,
    };
    effects.iter().filter_map(ban).collect()
}

#[test]
fn a_ban_lasts_over_a_restart_and_then_ends() {
    let mut core = with_peers(&[(100, 1)]);
    let effects = fail(&mut core, at(0), peer(1), 1, Fault::Malformed);
    let saved = effects.into_iter().find_map(|effect| match effect {
        Effect::SaveStandings { put, .. } => Some(put),
        _ => None,
    });
    // The time since the start begins anew, that of the day goes on.
    let mut core = PeerHeights::new(Config::default(), 0, saved.unwrap());
    let now = Now { monotonic: Duration::ZERO, unix_ms: 200_000 };
    let effects = core.handle(now, Input::Peer(PeerEvent::Connected(peer(1))));
    assert_eq!(banned(&effects), [(peer(1), Duration::from_secs(400))]);
    let now = Now { monotonic: Duration::from_secs(400), unix_ms: 600_000 };
    let effects = core.handle(now, Input::Peer(PeerEvent::Connected(peer(1))));
    assert!(banned(&effects).is_empty() && effects.contains(&Effect::Query(peer(1))), "{effects:?}");
    assert!((50..60).contains(&core.snapshot().peers[0].score), "forgiven, not forgotten: {:?}", core.snapshot());
}

#[test]
fn a_peer_on_the_allowlist_is_not_disconnected_only_not_asked() {
    let config = Config { allowlist: BTreeSet::from([peer(1)]), ..Config::default() };
    let mut core = PeerHeights::new(config, 0, Vec::new());
    core.handle(at(0), Input::Peer(PeerEvent::Connected(peer(1))));
    core.handle(at(0), Input::Queried { peer: peer(1), answer: Ok((100, 1)) });
    assert_eq!(banned(&fail(&mut core, at(0), peer(1), 1, Fault::ProvableLie)), []);
    // Of its other ranges some are late, too: that ends nothing.
    fail(&mut core, at(1), peer(1), 1, Fault::Slow);
    core.handle(at(2), Input::Report { peer: peer(1), start: 1, outcome: Outcome::LostHedge { silent: false } });
    assert_eq!(pick(&mut core, at(599_999), 1), Err(NoPeer::AllPaused { peers: 1 }));
    assert_eq!(pick(&mut core, at(600_000), 1), Ok(peer(1)));
}

#[test]
fn a_peer_that_says_when_it_wants_to_be_asked_again_is_not_asked_before() {
    let mut core = with_peers(&[(100, 1)]);
    let busy =
        |retry_after| Outcome::Failed(PeerFailure { fault: Fault::Overloaded, reason: "busy".into(), retry_after });
    let hint = Some(Duration::from_secs(7));
    core.handle(at(0), Input::Report { peer: peer(1), start: 1, outcome: busy(hint) });
    assert_eq!(pick(&mut core, at(6_999), 1), Err(NoPeer::AllPaused { peers: 1 }));
    assert_eq!(pick(&mut core, at(7_000), 1), Ok(peer(1)));
    assert_eq!(core.snapshot().peers[0].score, 100, "to say so is what it should do");
    // It refuses many ranges at once: that is one failure, not many.
    for _ in 0..10 {
        core.handle(at(7_000), Input::Report { peer: peer(1), start: 1, outcome: busy(Some(Duration::from_secs(1))) });
    }
    assert_eq!(pick(&mut core, at(8_000), 1), Ok(peer(1)));
    // Nobody is believed to be busy for ever.
    core.handle(at(8_000), Input::Report { peer: peer(1), start: 1, outcome: busy(Some(Duration::MAX)) });
    assert_eq!(pick(&mut core, at(68_000), 1), Ok(peer(1)));
}

/// Serves all that is picked, first one range for each peer and with each that is served one more, up to `many` at
/// once, for a minute: how many ranges each peer served. Peers take them one after the other, each so many
/// milliseconds for one.
fn serve(core: &mut PeerHeights, many: usize, ms_per_range: &BTreeMap<PeerId, u64>) -> BTreeMap<PeerId, usize> {
    let mut ends: BTreeSet<(u64, usize, PeerId)> = BTreeSet::new();
    let mut free_at: BTreeMap<PeerId, u64> = BTreeMap::new();
    let mut served = BTreeMap::new();
    let (mut now, mut number) = (0, 0);
    while now < 60_000 {
        while ends.len() < many.min(ms_per_range.len() + served.values().sum::<usize>()) {
            let peer = pick(core, at(now), 1).unwrap();
            let end = free_at.get(&peer).copied().unwrap_or(0).max(now) + ms_per_range[&peer];
            free_at.insert(peer, end);
            number += 1;
            ends.insert((end, number, peer));
        }
        let Some((end, _, peer)) = ends.pop_first() else { break };
        now = end;
        *served.entry(peer).or_insert(0) += 1;
        let outcome = Outcome::Served { last: 100, bytes: 4 << 20 };
        core.handle(at(now), Input::Report { peer, start: 1, outcome });
    }
    served
}

#[test]
fn the_faster_peer_gets_more_ranges_and_the_slower_one_is_not_forgotten() {
    let mut core = with_peers(&[(100, 1), (100, 1)]);
    let served = serve(&mut core, 11, &BTreeMap::from([(peer(1), 100), (peer(2), 1_000)]));
    // The one can serve 600 in that time, the other 60.
    assert!(served[&peer(1)] > 570 && served[&peer(2)] > 40, "{served:?}");
}

#[test]
fn equally_fast_peers_all_have_something_to_serve_all_the_time() {
    let mut core = with_peers(&[(100, 1), (100, 1), (100, 1), (100, 1)]);
    let served = serve(&mut core, 40, &(1..=4).map(|number| (peer(number), 500)).collect());
    // Each can serve 120 in that time.
    assert!(served.values().all(|ranges| *ranges > 110), "{served:?}");
}

#[test]
fn peer_that_loses_a_hedge_pauses_and_only_repeated_loss_costs_score() {
    let mut core = with_peers(&[(100, 1)]);
    let lose = |core: &mut PeerHeights, ms| {
        core.handle(at(ms), Input::Report { peer: peer(1), start: 1, outcome: Outcome::LostHedge { silent: false } });
        core.snapshot().peers[0].score
    };
    // Many ranges that were at work when it stalled are one stall.
    for _ in 0..10 {
        assert_eq!(lose(&mut core, 0), 100);
    }
    assert_eq!(pick(&mut core, at(499), 1), Err(NoPeer::AllPaused { peers: 1 }));
    assert_eq!(pick(&mut core, at(500), 1), Ok(peer(1)));
    assert_eq!(lose(&mut core, 500), 100);
    assert_eq!(pick(&mut core, at(1_499), 1), Err(NoPeer::AllPaused { peers: 1 }));
    assert_eq!(lose(&mut core, 1_500), 90);
}

fn served(core: &mut PeerHeights, now: Now, peer: PeerId) {
    core.handle(now, Input::Report { peer, start: 1, outcome: Outcome::Served { last: 100, bytes: 1 << 20 } });
}

#[test]
fn silent_peer_that_loses_a_hedge_loses_its_place_and_its_word_at_once() {
    let mut core = with_peers(&[(100, 1), (1_000, 1)]);
    for id in [peer(1), peer(2)] {
        pick(&mut core, at(0), 1).unwrap();
        served(&mut core, at(0), id);
    }
    let lost = Input::Report { peer: peer(2), start: 101, outcome: Outcome::LostHedge { silent: true } };
    let effects = core.handle(at(1), lost);
    assert!(effects.contains(&Effect::Target(Target { highest: 100, proven: 100, doubt: None })), "{effects:?}");
    // Its pause ends, and it is one of the unproven.
    for _ in 0..100 {
        let effects = core.handle(at(2_000), Input::Pick { key: 1, start: 1, tried: vec![], hedge: true, next: true });
        assert!(matches!(effects[..], [Effect::Picked { peer: Ok(id), .. }] if id == peer(1)), "{effects:?}");
        served(&mut core, at(2_000), peer(1));
    }
}

#[test]
fn claim_that_no_other_proven_peer_shares_does_not_count_as_proven() {
    let mut core = with_peers(&[(100, 1), (101, 1), (u32::MAX, 1)]);
    let mut effects = Vec::new();
    for id in [peer(1), peer(2), peer(3)] {
        effects =
            core.handle(at(0), Input::Report { peer: id, start: 1, outcome: Outcome::Served { last: 100, bytes: 1 } });
    }
    assert!(effects.contains(&Effect::Target(Target { highest: u32::MAX, proven: 101, doubt: None })), "{effects:?}");
}

#[test]
fn silent_newcomers_get_no_more_of_the_work_together_than_one_would() {
    let mut core = with_peers(&[(100, 1); 40]);
    served(&mut core, at(0), peer(1));
    // None of the others ever answers.
    let mut to_newcomers = 0;
    for _ in 0..500 {
        match pick(&mut core, at(1), 1).unwrap() {
            proven if proven == peer(1) => served(&mut core, at(1), proven),
            _ => to_newcomers += 1,
        }
    }
    assert_eq!(to_newcomers, 2);
}

#[test]
fn next_range_goes_to_a_newcomer_if_no_proven_peer_can_serve_it() {
    let mut core = with_peers(&[(100, 1); 3]);
    pick(&mut core, at(0), 1).unwrap();
    served(&mut core, at(0), peer(1));
    // A peer that has served is asked for many ranges, and answers none.
    served(&mut core, at(0), peer(2));
    let has_many = |core: &PeerHeights| core.snapshot().peers[1].in_flight > 2;
    while !has_many(&core) {
        pick(&mut core, at(1), 1).unwrap();
    }
    let lost = Input::Report { peer: peer(2), start: 1, outcome: Outcome::LostHedge { silent: true } };
    core.handle(at(2), lost);
    let mut hedge = |next| {
        let pick = Input::Pick { key: 1, start: 1, tried: vec![peer(1)], hedge: true, next };
        match &core.handle(at(2), pick)[..] {
            [Effect::Picked { peer, .. }] => *peer,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(hedge(false), Err(NoPeer::Untested { peers: 3 }));
    assert_eq!(hedge(true), Ok(peer(3)));
}

#[test]
fn newcomers_are_tried_all_at_once_while_nobody_has_served() {
    let mut core = with_peers(&[(100, 1); 40]);
    let picked: BTreeSet<_> = (0..40).map(|_| pick(&mut core, at(0), 1).unwrap()).collect();
    assert_eq!(picked.len(), 40);
}

#[test]
fn hedge_of_a_newcomers_range_goes_to_a_peer_that_has_served() {
    let mut core = with_peers(&[(100, 1); 10]);
    served(&mut core, at(0), peer(5));
    for newcomer in [1, 2, 3] {
        let pick = Input::Pick { key: 1, start: 1, tried: vec![peer(newcomer)], hedge: true, next: true };
        let effects = core.handle(at(1), pick);
        assert!(matches!(effects[..], [Effect::Picked { peer: Ok(id), .. }] if id == peer(5)), "{effects:?}");
    }
}

#[test]
fn what_is_our_own_fault_costs_the_peer_nothing() {
    let mut core = with_peers(&[(100, 1)]);
    pick(&mut core, at(0), 1).unwrap();
    assert_eq!(fail(&mut core, at(0), peer(1), 1, Fault::Ours), []);
    let snapshot = core.snapshot();
    assert_eq!((snapshot.peers[0].score, snapshot.peers[0].in_flight), (100, 0));
    assert_eq!(pick(&mut core, at(0), 1), Ok(peer(1)));
}

#[test]
fn a_slow_peer_is_given_a_pause_and_then_asked_again() {
    let mut core = with_peers(&[(100, 1)]);
    pick(&mut core, at(0), 1).unwrap();
    fail(&mut core, at(0), peer(1), 1, Fault::Slow);
    assert_eq!(pick(&mut core, at(1), 1), Err(NoPeer::AllPaused { peers: 1 }));
    let wake = core.next_wake().unwrap();
    assert_eq!(wake, Duration::from_millis(500));
    let effects = core.handle(Now { monotonic: wake, unix_ms: 0 }, Input::Wake);
    assert!(
        effects.contains(&Effect::Target(Target { highest: 100, proven: 0, doubt: None })),
        "StateSync hears that somebody is able again: {effects:?}"
    );
    assert_eq!(pick(&mut core, at(500), 1), Ok(peer(1)));
}

#[test]
fn peers_behind_get_one_push_at_a_time_and_always_the_latest_commit() {
    let mut core = with_peers(&[(5, 1), (50, 1)]);
    let effects = core.handle(at(0), Input::OwnHeight(10));
    assert_eq!(effects, [Effect::Push { peer: peer(1), index: 10 }], "who has more is not told");
    assert_eq!(core.handle(at(0), Input::OwnHeight(11)), []);
    assert_eq!(core.handle(at(0), Input::OwnHeight(12)), []);
    let effects = core.handle(at(0), Input::PushDone { peer: peer(1), heard: true });
    assert_eq!(effects, [Effect::Push { peer: peer(1), index: 12 }]);
}

#[test]
fn a_push_raises_the_target_at_once() {
    let mut core = with_peers(&[(5, 1)]);
    let effects = core.handle(at(0), Input::Pushed { peer: peer(1), index: 9 });
    assert_eq!(effects, [Effect::Target(Target { highest: 9, proven: 0, doubt: None })]);
    assert_eq!(core.handle(at(0), Input::Pushed { peer: peer(9), index: 99 }), [], "nor by strangers");
}

#[test]
fn the_same_seed_makes_the_same_choices() {
    let choices = |seed| {
        let mut core = PeerHeights::new(Config { seed, ..Config::default() }, 0, Vec::new());
        for number in 1..=10 {
            core.handle(at(0), Input::Peer(PeerEvent::Connected(peer(number))));
            core.handle(at(0), Input::Queried { peer: peer(number), answer: Ok((100, 1)) });
        }
        (0..30).map(|_| pick(&mut core, at(0), 1).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(choices(1), choices(1));
    assert_ne!(choices(1), choices(2));
}
