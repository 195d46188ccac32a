use super::{
    pace::MAX_PACES,
    places::{Class, MAX_PROVEN},
    *,
};
use crate::peer_heights::PROVEN_FOR;

const OURS: ChainId = ChainId([1; 32]);

fn at(millis: u64) -> Now {
    Now { monotonic: Duration::from_millis(millis), unix_ms: 0 }
}

fn config(max_calls_per_peer: usize, max_calls: usize) -> Config {
    Config { chain: OURS, allowlist: BTreeSet::new(), max_calls_per_peer, max_calls, rates: Rates::default() }
}

/// A core that limits nothing but how fast peers call.
fn paced(rates: Rates) -> Serving {
    Serving::new(Config { rates, ..config(usize::MAX, usize::MAX) })
}

/// What answers the call of a stranger.
fn admitted(call: u64) -> [Effect; 1] {
    [Effect::Admit { call, class: Class::New }]
}

fn arrive(core: &mut Serving, call: u64, peer: u8, chain: Option<ChainId>) -> Vec<Effect> {
    core.handle(at(0), Input::Arrived { call, peer: PeerId([peer; 32]), chain, rpc: Rpc::FetchBlocks })
}

/// One call of peer 7, which ends at once. The hint if it is refused.
fn ask(core: &mut Serving, millis: u64, peer: u8, rpc: Rpc, bytes: u64) -> Option<(Paced, Duration)> {
    let arrived = Input::Arrived { call: 1, peer: PeerId([peer; 32]), chain: Some(OURS), rpc };
    match core.handle(at(millis), arrived)[..] {
        [Effect::Admit { call: 1, class: Class::New }] => {
            core.handle(at(millis), Input::Finished { call: 1, bytes, blocks: 0 });
            None
        }
        [Effect::Refuse { call: 1, refusal: Refusal::TooFast { what, retry_after } }] => Some((what, retry_after)),
        ref other => panic!("admitted or too fast was expected, not {other:?}"),
    }
}

#[test]
fn a_peer_that_calls_too_much_is_refused_and_others_are_not() {
    let mut core = Serving::new(config(1, 2));
    assert_eq!(arrive(&mut core, 1, 7, Some(OURS)), admitted(1));
    let refusal = Refusal::TooMany { calls: 1 };
    assert_eq!(arrive(&mut core, 2, 7, Some(OURS)), [Effect::Refuse { call: 2, refusal }]);
    assert_eq!(arrive(&mut core, 3, 8, Some(OURS)), admitted(3));
    assert!(matches!(arrive(&mut core, 4, 9, Some(OURS))[..], [Effect::Refuse { call: 4, .. }]));
    core.handle(at(0), Input::Finished { call: 1, bytes: 10, blocks: 2 });
    assert_eq!(arrive(&mut core, 5, 7, Some(OURS)), admitted(5));
    assert_eq!((core.snapshot().blocks_sent, core.snapshot().bytes_sent), (2, 10));
}

/// How many calls of each of these peers are answered, if each makes one after the other until all are refused.
fn taken(core: &mut Serving, peers: &[u8], rpc: Rpc) -> Vec<usize> {
    let mut calls = vec![0; peers.len()];
    for call in 0..10_000 {
        let number = call as usize % peers.len();
        let peer = PeerId([peers[number]; 32]);
        let call = u64::from(rpc == Rpc::PushCommit) << 32 | u64::from(peers[number]) << 16 | call;
        let effects = core.handle(at(0), Input::Arrived { call, peer, chain: Some(OURS), rpc });
        if matches!(effects[..], [Effect::Admit { .. }]) {
            calls[number] += 1;
        }
    }
    calls
}

/// One core with the default places, where peer 1 is trusted, 2 is a validator, 3 and 4 have been of use.
fn shared() -> Serving {
    let allowlist = [PeerId([1; 32])].into();
    let mut core = Serving::new(Config { allowlist, ..config(128, 512) });
    core.handle(at(0), Input::Committee { validators: vec![PeerId([2; 32])] });
    core.handle(at(0), Input::Useful { peers: vec![PeerId([3; 32]), PeerId([4; 32])] });
    core
}

#[test]
fn greedy_strangers_leave_places_to_all_others_and_to_a_newcomer() {
    let mut core = shared();
    let strangers: Vec<_> = (100..150).collect();
    let of_strangers = taken(&mut core, &strangers, Rpc::FetchBlocks);
    assert!(of_strangers.iter().all(|calls| (3..=6).contains(calls)), "{of_strangers:?}");
    // What each class is guaranteed, it gets; a validator as many as a peer may have.
    assert_eq!(taken(&mut core, &[2], Rpc::FetchBlocks), [128]);
    assert!(taken(&mut core, &[3, 4], Rpc::FetchBlocks).iter().all(|calls| *calls >= 32));
    assert!(taken(&mut core, &[7], Rpc::FetchBlocks) >= vec![2]);
    assert!(core.snapshot().active <= 512);
}

#[test]
fn one_greedy_peer_gets_as_much_as_it_leaves() {
    let mut core = Serving::new(config(usize::MAX, 512));
    // Half of the places are guaranteed to others.
    assert_eq!(taken(&mut core, &[7], Rpc::FetchCommits), [128]);
    let mut core = Serving::new(config(usize::MAX, 512));
    let of_three = taken(&mut core, &[7, 8, 9], Rpc::FetchCommits);
    assert!(of_three.iter().all(|calls| (64..=65).contains(calls)), "{of_three:?}");
}

#[test]
fn pushes_and_questions_have_places_of_their_own() {
    let mut core = shared();
    taken(&mut core, &(100..200).collect::<Vec<_>>(), Rpc::FetchBlocks);
    let pushes = taken(&mut core, &[200], Rpc::PushCommit);
    assert!(pushes[0] >= 100, "{pushes:?}");
    assert!(core.snapshot().short <= 512);
}

#[test]
fn useful_peer_is_new_again_after_a_while_and_remembered_ones_are_bounded() {
    let mut callers = Callers::default();
    let peer = |number: u32| {
        let mut peer = [0; 32];
        peer[..4].copy_from_slice(&number.to_le_bytes());
        PeerId(peer)
    };
    let none = BTreeSet::new();
    let second = Duration::from_secs(1);
    callers.were_useful(second, vec![peer(0)]);
    callers.were_useful(2 * second, (1..=MAX_PROVEN as u32).map(peer).collect());
    let class = |callers: &Callers, now, number| callers.class(now, &none, peer(number));
    assert_eq!(class(&callers, 2 * second, 0), Class::New);
    assert_eq!(class(&callers, 2 * second, 1), Class::Proven);
    assert_eq!(class(&callers, 2 * second + PROVEN_FOR, 1), Class::New);
}

#[test]
fn call_of_another_chain_is_refused_and_one_without_a_chain_may_only_look() {
    let looks = [Rpc::GetKnownPeers, Rpc::GetCommitAvailability, Rpc::GetCommitInfo];
    let does = [Rpc::FetchCommits, Rpc::FetchBlocks, Rpc::PushCommit, Rpc::GetEpochProofs, Rpc::Broadcast];
    let mut core = Serving::new(config(10, 10));
    let mut arrived = |chain, rpc| {
        let peer = PeerId([7; 32]);
        core.handle(at(0), Input::Arrived { call: 1, peer, chain, rpc })
    };
    for rpc in looks {
        assert_eq!(arrived(None, rpc), admitted(1), "{rpc:?}");
    }
    let other = looks.into_iter().chain(does).map(|rpc| (Some(ChainId([2; 32])), rpc));
    for (theirs, rpc) in other.chain(does.map(|rpc| (None, rpc))) {
        let refusal = Refusal::OtherChain { ours: OURS, theirs };
        assert_eq!(arrived(theirs, rpc), [Effect::Refuse { call: 1, refusal }], "{rpc:?}");
    }
    let silent = Refusal::OtherChain { ours: OURS, theirs: None }.to_string();
    assert!(silent.ends_with("and the caller does not say on which"), "{silent}");
}

#[test]
fn a_caller_that_names_no_chain_is_under_the_same_limits() {
    let mut core = paced(Rates { peer_queries: 1, burst: Duration::from_secs(1), ..Rates::default() });
    let asks = |call| Input::Arrived { call, peer: PeerId([7; 32]), chain: None, rpc: Rpc::GetKnownPeers };
    assert_eq!(core.handle(at(0), asks(1)), admitted(1));
    core.handle(at(0), Input::Finished { call: 1, bytes: 0, blocks: 0 });
    let refused = core.handle(at(0), asks(2));
    let [Effect::Refuse { call: 2, refusal: Refusal::TooFast { what, .. } }] = refused[..] else { panic!("admitted") };
    assert_eq!(what, Paced::PeerQueries);
}

#[test]
fn a_peer_that_calls_too_fast_is_told_when_and_whoever_obeys_is_answered() {
    let mut core = paced(Rates { calls: 3, burst: Duration::from_secs(2), ..Rates::default() });
    for _ in 0..6 {
        assert_eq!(ask(&mut core, 0, 7, Rpc::FetchBlocks, 0), None, "a burst of two seconds");
    }
    for _ in 0..10 {
        let refused = ask(&mut core, 0, 7, Rpc::GetCommitInfo, 0);
        assert_eq!(refused, Some((Paced::Calls, Duration::from_millis(334))), "refusals cost nothing");
    }
    assert_eq!(ask(&mut core, 0, 8, Rpc::FetchBlocks, 0), None, "another peer has its own bucket");
    assert!(ask(&mut core, 333, 7, Rpc::FetchBlocks, 0).is_some());
    assert_eq!(ask(&mut core, 334, 7, Rpc::FetchBlocks, 0), None);
    assert!(ask(&mut core, 334, 7, Rpc::FetchBlocks, 0).is_some());
}

#[test]
fn however_a_peer_times_its_calls_it_gets_its_rate_and_one_burst() {
    let rates = Rates { calls: 10, burst: Duration::from_secs(2), ..Rates::default() };
    for step in [1, 7, 49, 100, 101, 999] {
        let mut core = paced(rates.clone());
        let answered = (0..60_000).step_by(step).filter(|now| ask(&mut core, *now, 7, Rpc::FetchBlocks, 0).is_none());
        let answered = answered.count() as u64;
        let asked = 60_000_u64.div_ceil(step as u64);
        assert!(answered <= 620, "{answered} with {step} ms between");
        assert!(answered >= asked.min(599), "{answered} of {asked} with {step} ms between");
    }
}

#[test]
fn pushes_and_peer_questions_have_smaller_rates_of_their_own() {
    let rates = Rates { pushes: 2, peer_queries: 1, burst: Duration::from_secs(1), ..Rates::default() };
    let mut core = paced(rates);
    for _ in 0..2 {
        assert_eq!(ask(&mut core, 0, 7, Rpc::PushCommit, 0), None);
    }
    assert_eq!(ask(&mut core, 0, 7, Rpc::PushCommit, 0), Some((Paced::Pushes, Duration::from_millis(500))));
    assert_eq!(ask(&mut core, 0, 7, Rpc::GetKnownPeers, 0), None);
    assert_eq!(ask(&mut core, 0, 7, Rpc::GetKnownPeers, 0), Some((Paced::PeerQueries, Duration::from_secs(1))));
    for _ in 0..100 {
        assert_eq!(ask(&mut core, 0, 7, Rpc::FetchCommits, 0), None);
    }
}

#[test]
fn peer_that_exceeded_its_byte_rate_waits_until_the_excess_is_paid_off() {
    let mut core = paced(Rates { bytes: 1_000, burst: Duration::from_secs(2), ..Rates::default() });
    assert_eq!(ask(&mut core, 0, 7, Rpc::FetchBlocks, 2_000), None);
    assert_eq!(ask(&mut core, 0, 7, Rpc::FetchBlocks, 5_000), None, "the bucket is empty, and not in debt");
    assert_eq!(ask(&mut core, 0, 7, Rpc::FetchBlocks, 0), Some((Paced::Bytes, Duration::from_secs(5))));
    assert_eq!(ask(&mut core, 0, 8, Rpc::FetchBlocks, 0), None);
    assert!(ask(&mut core, 4_999, 7, Rpc::PushCommit, 0).is_some());
    assert_eq!(ask(&mut core, 5_000, 7, Rpc::FetchBlocks, 0), None);
}

#[test]
fn any_number_of_bytes_is_served_where_the_operator_sets_no_rate() {
    let mut core = paced(Rates::default());
    for _ in 0..100 {
        assert_eq!(ask(&mut core, 0, 7, Rpc::FetchBlocks, u64::MAX / 200), None);
    }
}

#[test]
fn a_peer_that_syncs_as_fast_as_any_does_not_meet_the_default_rates() {
    let mut core = paced(Rates::default());
    // Ranges of large commits: each takes one request for commits and four for blocks, 300 ranges a second.
    for millis in 0..20_000 {
        for call in 0..5 {
            let rpc = if call == 0 { Rpc::FetchCommits } else { Rpc::FetchBlocks };
            if millis % 10 < 3 {
                assert_eq!(ask(&mut core, millis, 7, rpc, 1 << 20), None);
            }
        }
        if millis % 10 == 0 {
            assert_eq!(ask(&mut core, millis, 7, Rpc::PushCommit, 0), None);
        }
        if millis % 200 == 0 {
            assert_eq!(ask(&mut core, millis, 7, Rpc::GetKnownPeers, 0), None);
        }
    }
}

#[test]
fn rates_of_quiet_peers_are_dropped_and_the_kept_ones_are_bounded() {
    let mut core = paced(Rates { calls: 1, burst: Duration::from_secs(100), ..Rates::default() });
    for number in 0..3 * MAX_PACES as u32 {
        let mut peer = [0; 32];
        peer[..4].copy_from_slice(&number.to_le_bytes());
        core.handle(at(0), Input::Arrived { call: 1, peer: PeerId(peer), chain: Some(OURS), rpc: Rpc::FetchBlocks });
        core.handle(at(0), Input::Finished { call: 1, bytes: 1, blocks: 0 });
        assert!(core.paces.len() <= MAX_PACES);
    }
    assert_eq!(ask(&mut core, 1_000, 7, Rpc::FetchBlocks, 0), None);
    assert_eq!(core.paces.len(), 1);
}
