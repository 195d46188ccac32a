use super::*;
use crate::{ChosenPeers, connections::DialPurpose, core::LostReason};
use bytes::Bytes;

const OWN: u8 = 99;
const START_MS: TimestampMs = 1_000_000_000_000;
const HOUR_MS: u64 = 3600 * 1000;

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

fn at(ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(ms), unix_ms: START_MS + ms }
}

/// Each in a network of its own.
fn address(number: u8) -> Address {
    format!("/ip4/198.{number}.2.1/tcp/9000").parse().unwrap()
}

fn own_bytes() -> Opaque {
    Bytes::from_static(b"own").into()
}

fn info(number: u8, signed_ms: u64) -> KnownPeer {
    KnownPeer {
        peer: peer(number),
        timestamp_ms: START_MS + signed_ms,
        addresses: vec![address(number)],
        access: Access::Public,
        bytes: Opaque::from(Bytes::from(vec![number, signed_ms as u8])),
    }
}

fn config(seeds: &[u8]) -> Config {
    Config {
        own_id: peer(OWN),
        seeds: seeds.iter().map(|number| (peer(*number), vec![address(*number)])).collect(),
        allowlist: BTreeSet::new(),
        denylist: BTreeSet::new(),
        addresses: vec![address(OWN)],
        listen_port: Some(9000),
        interval: Duration::from_secs(5),
        peers_to_query: 2,
        target_connections: 4,
        max_per_group: 2,
        max_answer: 3,
        seed: 1,
    }
}

/// It has an info, and its first round behind it.
fn started(config: Config) -> Discovery {
    let mut core = Discovery::new(config);
    let first = core.handle(at(0), Input::Wake);
    assert!(first.iter().any(|effect| matches!(effect, Effect::SignOwnInfo { .. })));
    core.handle(at(0), Input::OwnInfo { bytes: own_bytes(), timestamp_ms: at(0).unix_ms });
    core
}

fn core(seeds: &[u8]) -> Discovery {
    started(config(seeds))
}

fn dials(effects: &[Effect], wanted: DialPurpose) -> Vec<PeerId> {
    let dialled = effects.iter().filter_map(|effect| match effect {
        Effect::Dial { peer, purpose, .. } if *purpose == wanted => Some(*peer),
        _ => None,
    });
    dialled.collect()
}

fn dialled(effects: &[Effect]) -> Vec<PeerId> {
    dials(effects, DialPurpose::Link)
}

fn probed(effects: &[Effect]) -> Vec<PeerId> {
    dials(effects, DialPurpose::Probe)
}

fn connect(core: &mut Discovery, ms: u64, number: u8) -> Vec<Effect> {
    let ip = address(number).ip();
    core.handle(at(ms), Input::Peer { event: PeerEvent::Connected(peer(number)), ip })
}

fn lost(number: u8) -> Input {
    Input::Peer { event: PeerEvent::Lost { peer: peer(number), reason: LostReason::Closed }, ip: None }
}

fn told(core: &mut Discovery, ms: u64, by: u8, infos: Vec<KnownPeer>) -> Vec<Effect> {
    told_from(core, ms, by, address(by).ip(), infos)
}

fn told_from(core: &mut Discovery, ms: u64, by: u8, remote: Option<IpAddr>, infos: Vec<KnownPeer>) -> Vec<Effect> {
    let answer = Ok(Answer { infos, seen: Seen::default() });
    core.handle(at(ms), Input::Answered { peer: peer(by), remote, answer })
}

fn asked(core: &mut Discovery, ms: u64, by: u8, info: Option<KnownPeer>) -> Vec<Effect> {
    let remote = "198.51.100.1".parse().ok();
    core.handle(at(ms), Input::Asked { key: 1, peer: peer(by), remote, info })
}

/// What an asker that says nothing of itself is told.
fn answer(core: &mut Discovery, ms: u64, asker: u8) -> Vec<Opaque> {
    let effects = asked(core, ms, asker, None);
    let answered = effects.into_iter().find_map(|effect| match effect {
        Effect::Answer { peers, .. } => Some(peers),
        _ => None,
    });
    answered.expect("every question is answered")
}

/// Connected to peer 1, its seed, and to some others, all known.
fn connected_to(core: &mut Discovery, numbers: impl IntoIterator<Item = u8>) {
    for number in numbers {
        connect(core, 1, number);
        told(core, 1, number, vec![info(number, 0)]);
    }
}

#[test]
fn a_new_peer_is_asked_at_once_and_those_it_names_are_dialled() {
    let mut core = core(&[1]);
    let effects = connect(&mut core, 1, 1);
    assert_eq!(effects, [Effect::Query { peer: peer(1), own_info: own_bytes() }]);
    let effects = told(&mut core, 2, 1, vec![info(1, 0), info(2, 0), info(3, 0), info(OWN, 0)]);
    let mut peers = dialled(&effects);
    peers.sort();
    assert_eq!(peers, [peer(2), peer(3)], "not itself, not whom it has");
}

#[test]
fn only_peers_seen_live_are_passed_on_unchanged_and_never_to_themselves() {
    let mut core = core(&[1]);
    connect(&mut core, 1, 1);
    told(&mut core, 2, 1, vec![info(1, 0), info(2, 0)]);
    assert_eq!(answer(&mut core, 10, 7), [info(1, 0).bytes], "2 is hearsay");
    assert_eq!(answer(&mut core, 10, 1), Vec::<Opaque>::new());
    connect(&mut core, 11, 2);
    assert_eq!(answer(&mut core, 12, 7), [info(1, 0).bytes, info(2, 0).bytes]);
}

#[test]
fn peer_not_reached_for_an_hour_or_failed_since_is_not_passed_on() {
    let mut core = core(&[1]);
    connected_to(&mut core, 1..=3);
    core.handle(at(2), lost(2));
    core.handle(at(2), lost(3));
    assert_eq!(answer(&mut core, 3, 7).len(), 3, "they were live lately");
    let failure = DialFailure::Unreachable { reason: "gone".into() };
    core.handle(at(4), Input::DialFailed { peer: peer(2), failure });
    assert_eq!(answer(&mut core, 5, 7), [info(1, 0).bytes, info(3, 0).bytes]);
    assert_eq!(answer(&mut core, HOUR_MS + 10, 7), [info(1, 0).bytes]);
}

#[test]
fn private_peers_are_never_passed_on_and_trusted_ones_to_trusted_peers() {
    let mut core = started(Config { allowlist: BTreeSet::from([peer(8)]), ..config(&[1]) });
    connect(&mut core, 1, 1);
    connect(&mut core, 1, 2);
    let private = KnownPeer { access: Access::Private, ..info(1, 0) };
    let trusted = KnownPeer { access: Access::Trusted, ..info(2, 0) };
    told(&mut core, 2, 1, vec![private, trusted]);
    assert_eq!(answer(&mut core, 10, 7), Vec::<Opaque>::new());
    assert_eq!(answer(&mut core, 10, 8), [info(2, 0).bytes]);
}

#[test]
fn an_answer_holds_no_more_than_its_bound() {
    let mut core = core(&[1]);
    connected_to(&mut core, 1..=9);
    assert_eq!(answer(&mut core, 10, 20).len(), 3);
}

#[test]
fn who_asks_is_taken_in_and_dialled_back_but_nobody_else_in_its_name() {
    let mut core = core(&[1]);
    let effects = asked(&mut core, 1, 5, Some(info(5, 0)));
    assert_eq!(dialled(&effects), [peer(5)], "there are few links");
    let effects = asked(&mut core, 1, 5, Some(info(6, 0)));
    assert_eq!(dialled(&effects), Vec::<PeerId>::new());
    assert_eq!(core.snapshot().known, 1);
}

#[test]
fn asker_of_a_well_linked_node_is_probed_first_and_passed_on_only_then() {
    let mut core = core(&[1]);
    connected_to(&mut core, [1, 2]);
    let effects = asked(&mut core, 2, 5, Some(info(5, 0)));
    assert_eq!((dialled(&effects), probed(&effects)), (vec![], vec![peer(5)]));
    assert_eq!(answer(&mut core, 3, 7).len(), 2);
    let effects = core.handle(at(4), Input::Probed { peer: peer(5), result: Ok(address(5).ip()) });
    assert!(effects.contains(&Effect::Query { peer: peer(5), own_info: own_bytes() }));
    assert_eq!(answer(&mut core, 5, 7).len(), 3);
    assert_eq!(probed(&asked(&mut core, 6, 5, Some(info(5, 1)))), [], "it was reached just now");
}

#[test]
fn an_asker_is_told_whether_it_could_be_reached() {
    let mut core = core(&[1]);
    connected_to(&mut core, [1, 2]);
    let said = |core: &mut Discovery, ms| {
        let effects = asked(core, ms, 5, Some(info(5, 0)));
        effects.into_iter().find_map(|effect| match effect {
            Effect::Answer { seen, .. } => Some((seen.reached, seen.time_ms)),
            _ => None,
        })
    };
    assert_eq!(said(&mut core, 2), Some((None, at(2).unix_ms)));
    let failure = DialFailure::Unreachable { reason: "no route".into() };
    core.handle(at(3), Input::Probed { peer: peer(5), result: Err(failure) });
    assert_eq!(said(&mut core, 4), Some((Some(false), at(4).unix_ms)));
    core.handle(at(5), Input::Probed { peer: peer(5), result: Ok(address(5).ip()) });
    assert_eq!(said(&mut core, 6), Some((Some(true), at(6).unix_ms)));
}

#[test]
fn the_newest_info_of_a_peer_counts() {
    let mut core = core(&[1]);
    connect(&mut core, 1, 1);
    for signed_ms in [5, 9, 7] {
        told(&mut core, 1, 1, vec![info(1, signed_ms)]);
    }
    assert_eq!(answer(&mut core, 10, 7), [info(1, 9).bytes]);
}

#[test]
fn seeds_are_dialled_every_second_until_one_answers_with_failures_shown() {
    let mut core = core(&[1]);
    let failure = DialFailure::OtherChain { reason: "x".into() };
    core.handle(at(1), Input::DialFailed { peer: peer(1), failure: failure.clone() });
    let trouble = Trouble::SeedsOnOtherChain { failures: vec![(peer(1), failure)] };
    assert_eq!(core.snapshot().trouble, Some(trouble));
    assert_eq!(core.next_wake(), Some(Duration::from_secs(1)));
    assert_eq!(dialled(&core.handle(at(1_000), Input::Wake)), [peer(1)]);
    connect(&mut core, 1_001, 1);
    assert_eq!(core.snapshot().trouble, None);
    core.handle(at(2_000), Input::Wake);
    assert_eq!(core.next_wake(), Some(Duration::from_secs(7)), "the interval of a node that is connected");
}

#[test]
fn a_node_without_links_says_which_trouble_it_is_in() {
    let unreachable = || DialFailure::Unreachable { reason: "refused".into() };
    let wrong_key = || DialFailure::WrongKey { reason: "k".into() };
    let cause = |seeds: &[u8], failures: &[DialFailure]| {
        let mut core = core(seeds);
        core.handle(at(1), Input::Book { stored: vec![], unreadable: vec![] });
        core.handle(at(1), Input::Committee(vec![(peer(20), address(20))]));
        for (seed, failure) in seeds.iter().zip(failures) {
            core.handle(at(1), Input::DialFailed { peer: peer(*seed), failure: failure.clone() });
        }
        core.snapshot().trouble.map(|trouble| trouble.cause())
    };
    assert_eq!(cause(&[], &[]), Some("nobody-known"));
    assert_eq!(cause(&[1, 2], &[unreachable()]), None, "one is still to be heard of");
    assert_eq!(cause(&[1, 2], &[unreachable(), unreachable()]), Some("seeds-unreachable"));
    assert_eq!(cause(&[1, 2], &[unreachable(), wrong_key()]), Some("seeds-have-other-keys"));
    let other_chain = DialFailure::OtherChain { reason: "c".into() };
    assert_eq!(cause(&[1, 2], &[other_chain.clone(), other_chain.clone()]), Some("seeds-on-other-chain"));
    assert_eq!(cause(&[1, 2], &[other_chain, wrong_key()]), Some("seeds-unreachable"), "no single mistake");
}

#[test]
fn node_knows_nobody_once_both_its_committee_and_its_address_book_say_so() {
    let book = || Input::Book { stored: vec![], unreadable: vec![] };
    let committee = || Input::Committee(vec![(peer(20), address(20))]);
    for (first, second) in [(book(), committee()), (committee(), book())] {
        let mut core = core(&[]);
        core.handle(at(1), first);
        assert_eq!(core.trouble(), None);
        core.handle(at(1), second);
        assert_eq!(core.trouble(), Some(Trouble::NobodyKnown));
    }
}

#[test]
fn validator_without_seeds_that_reaches_no_other_validator_says_so() {
    let mut core = core(&[]);
    core.handle(at(1), Input::Book { stored: vec![], unreadable: vec![] });
    assert_eq!(core.snapshot().trouble, None, "its committee is not known yet");
    let effects = core.handle(at(1), Input::Committee([OWN, 20, 21].map(|n| (peer(n), address(n))).to_vec()));
    assert_eq!(dialled(&effects), [peer(20), peer(21)]);
    assert_eq!(core.snapshot().trouble, None, "they are being dialled");
    let failure = DialFailure::Unreachable { reason: "refused".into() };
    core.handle(at(2), Input::DialFailed { peer: peer(20), failure });
    let trouble = Trouble::SeedsUnreachable { failures: vec![], known: 2 };
    assert_eq!(core.snapshot().trouble, Some(trouble.clone()));
    let said = trouble.to_string();
    assert!(said.contains("no seed peer is configured") && said.contains("any of 2 other peers"), "{said}");
}

#[test]
fn a_wrong_clock_and_an_address_that_nobody_reaches_are_told() {
    let mut core = core(&[1]);
    connect(&mut core, 1, 1);
    let say = |core: &mut Discovery, seen| {
        let answer = Ok(Answer { infos: vec![], seen });
        core.handle(at(2), Input::Answered { peer: peer(1), remote: address(1).ip(), answer });
        core.snapshot().trouble
    };
    let time_ms = at(2).unix_ms + 45_000;
    let behind = say(&mut core, Seen { time_ms, ..Seen::default() }).unwrap();
    assert_eq!(behind, Trouble::ClockOff { ahead_ms: -45_000, peers: 1 });
    assert!(behind.to_string().contains("45 s behind those of 1 peers"), "{behind}");
    let unreachable = say(&mut core, Seen { reached: Some(false), ..Seen::default() }).unwrap();
    assert_eq!(unreachable, Trouble::Unreachable { addresses: vec![address(OWN)], peers: 1 });
    assert_eq!(say(&mut core, Seen { reached: Some(true), ..Seen::default() }), None);
}

#[test]
fn node_without_an_address_uses_the_one_that_its_peers_agree_on() {
    let mut core = started(Config { addresses: vec![], ..config(&[1]) });
    connected_to(&mut core, 1..=3);
    let ours = |peer_number: u8| {
        let seen = Seen { ip: "203.0.113.7".parse().ok(), ..Seen::default() };
        let answer = Ok(Answer { infos: vec![], seen });
        Input::Answered { peer: peer(peer_number), remote: address(peer_number).ip(), answer }
    };
    assert_eq!(core.handle(at(2), ours(1)), []);
    assert_eq!(core.handle(at(2), ours(2)), []);
    let learned: Address = "/ip4/203.0.113.7/tcp/9000".parse().unwrap();
    assert_eq!(core.handle(at(2), ours(3)), [Effect::SignOwnInfo { addresses: vec![learned] }]);
    assert_eq!(core.handle(at(3), ours(3)), [], "once");
}

#[test]
fn no_more_peers_are_dialled_than_wanted() {
    let mut core = core(&[1]);
    connect(&mut core, 1, 1);
    let effects = told(&mut core, 2, 1, (1..=50).map(|number| info(number, 0)).collect());
    assert_eq!(dialled(&effects).len(), 3, "with the seed that makes the target of 4");
}

#[test]
fn no_network_gets_more_than_its_share_of_links_except_local_machines() {
    let crowd = |network: &str| -> Vec<KnownPeer> {
        let member = |number: u8| format!("{network}.{number}/tcp/9000").parse().unwrap();
        (10..60).map(|number| KnownPeer { addresses: vec![member(number)], ..info(number, 0) }).collect()
    };
    let mut core = core(&[1]);
    connect(&mut core, 1, 1);
    assert_eq!(dialled(&told(&mut core, 2, 1, crowd("/ip4/203.0.113"))).len(), 2);
    let near = Config { seeds: vec![(peer(1), vec!["/ip4/10.0.0.1/tcp/1".parse().unwrap()])], ..config(&[]) };
    let mut core = started(near);
    connect(&mut core, 1, 1);
    let near_by = "10.0.0.1".parse().ok();
    assert_eq!(dialled(&told_from(&mut core, 2, 1, near_by, crowd("/ip4/10.0.0"))).len(), 3);
}

#[test]
fn addresses_near_by_are_taken_only_from_who_is_as_near() {
    let somewhere = |address: &str| KnownPeer { addresses: vec![address.parse().unwrap()], ..info(7, 0) };
    let (loopback, local) = ("/ip4/127.0.0.1/tcp/1", "/ip4/192.168.0.7/tcp/1");
    let taken = |source: &str, address: &str| {
        let mut core = core(&[1]);
        connect(&mut core, 1, 1);
        // Whatever it says of itself: what counts is where it really is.
        told_from(&mut core, 2, 1, source.parse().ok(), vec![somewhere(address)]);
        core.snapshot().known == 1
    };
    assert!(taken("127.0.0.1", loopback) && taken("127.0.0.1", local));
    assert!(!taken("192.168.0.1", loopback) && taken("192.168.0.1", "/ip4/192.168.0.9/tcp/1"));
    assert!(!taken("198.51.100.1", loopback) && !taken("198.51.100.1", local) && !taken("nowhere", local));
    assert!(!taken("192.168.0.1", "/ip4/0.0.0.0/tcp/1"), "which is this machine");
}

#[test]
fn restart_does_not_bring_in_local_addresses_from_remote_peers() {
    let addresses = vec![address(7), "/ip4/127.0.0.1/tcp/1".parse().unwrap()];
    let known_after = |source: &str| {
        let info = KnownPeer { addresses: addresses.clone(), ..info(7, 0) };
        let source = NetworkGroup::of_ip(source.parse().unwrap());
        let mut core = core(&[1]);
        let stored = vec![StoredPeer { info, source, seen_live_ms: None }];
        core.handle(at(1), Input::Book { stored, unreadable: vec![] });
        core.book()[0].addresses.clone()
    };
    assert_eq!(known_after("198.51.100.1"), [address(7)]);
    assert_eq!(known_after("127.0.0.1"), addresses);
}

#[test]
fn denied_peers_are_not_taken_in() {
    let mut core = started(Config { denylist: BTreeSet::from([peer(7)]), ..config(&[1]) });
    connect(&mut core, 1, 1);
    told(&mut core, 2, 1, vec![info(7, 0)]);
    asked(&mut core, 3, 7, Some(info(7, 0)));
    let stored = StoredPeer { info: info(7, 0), source: NetworkGroup::V4([198, 1]), seen_live_ms: None };
    core.handle(at(4), Input::Book { stored: vec![stored], unreadable: vec![] });
    assert_eq!(core.snapshot().known, 0);
}

#[test]
fn unreached_peers_are_probed_each_interval_and_failing_ones_left_alone() {
    let mut core = core(&[1]);
    connect(&mut core, 1, 1);
    let mut effects = told(&mut core, 2, 1, (1..=20).map(|number| info(number, 0)).collect());
    for peer in dialled(&effects) {
        core.handle(at(3), Input::Peer { event: PeerEvent::Connected(peer), ip: None });
    }
    let mut tried: BTreeMap<PeerId, usize> = BTreeMap::new();
    for round in 1..=100 {
        effects = core.handle(at(round * 5_000), Input::Wake);
        let probes = probed(&effects);
        assert!(probes.len() <= dialling::PROBES_PER_INTERVAL, "{probes:?}");
        for peer in probes {
            *tried.entry(peer).or_default() += 1;
            let failure = DialFailure::Unreachable { reason: "gone".into() };
            core.handle(at(round * 5_000 + 1), Input::Probed { peer, result: Err(failure) });
        }
    }
    assert_eq!(tried.len(), 16, "all that are not connected");
    assert!(tried.values().all(|times| (1..=6).contains(times)), "{tried:?}: pauses of 30 s, 1 min, 2 min ...");
}

#[test]
fn a_tried_peer_that_is_gone_does_not_stay_tried() {
    let mut core = core(&[1]);
    connected_to(&mut core, [1, 2]);
    core.handle(at(2), lost(2));
    assert_eq!(core.snapshot().seen_live, 2);
    for ms in 3..6 {
        let failure = DialFailure::Unreachable { reason: "gone".into() };
        core.handle(at(ms), Input::Probed { peer: peer(2), result: Err(failure) });
    }
    assert_eq!(core.snapshot().seen_live, 1);
}

#[test]
fn a_node_without_a_network_does_not_blame_its_peers() {
    let mut core = core(&[1]);
    connected_to(&mut core, [1, 2]);
    for number in [1, 2] {
        core.handle(at(2), lost(number));
    }
    for ms in 3..60 {
        let failure = DialFailure::Unreachable { reason: "no route".into() };
        core.handle(at(ms), Input::DialFailed { peer: peer(2), failure });
    }
    assert_eq!(core.snapshot().seen_live, 2);
}

#[test]
fn new_validators_become_trusted_and_those_that_left_stop_being_so() {
    let mut core = core(&[1]);
    connect(&mut core, 1, 1);
    told(&mut core, 2, 1, vec![KnownPeer { access: Access::Trusted, ..info(1, 0) }]);
    let trusts = |core: &mut Discovery, number| !answer(core, 10, number).is_empty();
    core.handle(at(3), Input::Committee(vec![(peer(20), address(20))]));
    assert!(trusts(&mut core, 20) && !trusts(&mut core, 21));
    core.handle(at(4), Input::Committee(vec![(peer(21), address(21))]));
    assert!(!trusts(&mut core, 20) && trusts(&mut core, 21));
}

#[test]
fn validators_keep_links_to_each_other_beyond_the_target() {
    let mut core = core(&[]);
    let validators: Vec<_> = [OWN, 20, 21, 22, 23, 24, 25].map(|number| (peer(number), address(number))).to_vec();
    let effects = core.handle(at(1), Input::Committee(validators.clone()));
    assert_eq!(dialled(&effects).len(), 6, "all but itself");
    let effects = core.handle(at(2), Input::Committee(validators[1..].to_vec()));
    assert_eq!(dialled(&effects), [], "it is none of them any more");
}

#[test]
fn the_book_is_saved_and_who_was_not_heard_of_for_a_day_leaves_it() {
    let mut core = core(&[1]);
    connect(&mut core, 1, 1);
    asked(&mut core, 1, 5, Some(info(5, 0)));
    let effects = core.handle(at(5_000), Input::Wake);
    let source = NetworkGroup::V4([198, 51]);
    let saved = vec![StoredPeer { info: info(5, 0), source, seen_live_ms: None }];
    assert!(effects.contains(&Effect::SaveBook { put: saved, remove: vec![] }), "{effects:?}");
    let effects = core.handle(at(25 * HOUR_MS), Input::Wake);
    assert!(effects.contains(&Effect::SaveBook { put: vec![], remove: vec![peer(5)] }), "{effects:?}");
    assert_eq!(core.snapshot().known, 0);
}

#[test]
fn node_down_for_days_dials_from_its_book_and_passes_no_unseen_peer_on() {
    let stored =
        |number, seen_live_ms| StoredPeer { info: info(number, 0), source: NetworkGroup::V4([198, 1]), seen_live_ms };
    let mut core = Discovery::new(config(&[]));
    let days = 3 * 24 * HOUR_MS;
    core.handle(at(days), Input::OwnInfo { bytes: own_bytes(), timestamp_ms: at(days).unix_ms });
    let book = vec![stored(2, Some(START_MS)), stored(3, None)];
    let mut dialled = dialled(&core.handle(at(days), Input::Book { stored: book, unreadable: vec![] }));
    dialled.sort();
    assert_eq!(dialled, [peer(2), peer(3)]);
    assert_eq!((core.snapshot().known, core.snapshot().seen_live), (2, 1));
    assert_eq!(answer(&mut core, days + 1, 7), Vec::<Opaque>::new());
    connect(&mut core, days + 2, 2);
    assert_eq!(answer(&mut core, days + 3, 7), [info(2, 0).bytes]);
    core.handle(at(days + 25 * HOUR_MS), Input::Wake);
    assert_eq!(core.snapshot().known, 1, "whom it has a link to");
}

#[test]
fn neither_a_day_offline_nor_a_changed_clock_empties_the_address_book() {
    let mut core = core(&[1]);
    connected_to(&mut core, [1, 2]);
    for number in [1, 2] {
        core.handle(at(2), lost(number));
    }
    for hour in 1..50 {
        core.handle(at(hour * HOUR_MS), Input::Wake);
    }
    assert_eq!(core.snapshot().known, 2, "nobody could be heard");
    connect(&mut core, 50 * HOUR_MS, 1);
    let jumped = Now { unix_ms: at(150 * HOUR_MS).unix_ms, ..at(50 * HOUR_MS + 5_000) };
    core.handle(jumped, Input::Wake);
    assert_eq!(core.snapshot().known, 2, "the clock was set");
}

#[test]
fn what_cannot_be_read_and_what_finds_no_room_leaves_the_store() {
    let mut core = core(&[1]);
    core.handle(at(1), Input::Book { stored: vec![], unreadable: vec![peer(9)] });
    let effects = core.handle(at(5_000), Input::Wake);
    assert!(effects.contains(&Effect::SaveBook { put: vec![], remove: vec![peer(9)] }), "{effects:?}");
}

#[test]
fn a_peer_near_by_keeps_its_address_there_whoever_passes_its_info_on() {
    let both = |signed_ms| KnownPeer {
        addresses: vec!["/ip4/192.168.0.7/tcp/1".parse().unwrap(), address(7)],
        ..info(7, signed_ms)
    };
    let mut core = core(&[1]);
    connect(&mut core, 1, 1);
    told_from(&mut core, 2, 1, "192.168.0.1".parse().ok(), vec![both(0)]);
    core.handle(at(3), Input::Probed { peer: peer(7), result: Ok("192.168.0.7".parse().ok()) });
    assert_eq!(core.snapshot().seen_live, 1);
    told(&mut core, 4, 1, vec![both(1)]);
    assert_eq!(core.book()[0].addresses, both(1).addresses);
    assert_eq!(core.snapshot().seen_live, 1, "it has not moved");
}

#[test]
fn the_address_at_which_a_peer_was_found_comes_first() {
    let mut core = core(&[1]);
    connect(&mut core, 1, 1);
    let two = KnownPeer { addresses: vec![address(70), address(7)], ..info(7, 0) };
    told(&mut core, 2, 1, vec![two.clone()]);
    core.handle(at(3), Input::Probed { peer: peer(7), result: Ok(address(7).ip()) });
    assert_eq!(core.book()[0].addresses, [address(7), address(70)]);
    told(&mut core, 4, 1, vec![KnownPeer { timestamp_ms: START_MS + 1, ..two }]);
    assert_eq!(core.book()[0].addresses, [address(7), address(70)], "also in its next info");
}

#[test]
fn asker_that_keeps_changing_its_addresses_is_dialled_once_a_second() {
    let mut core = core(&[1]);
    connected_to(&mut core, [1, 2]);
    let dials = (0..100).map(|number| {
        let elsewhere = KnownPeer { addresses: vec![address(100 + number)], ..info(5, number.into()) };
        let effects = asked(&mut core, 10 + u64::from(number) * 100, 5, Some(elsewhere));
        let failure = DialFailure::Unreachable { reason: "nobody".into() };
        core.handle(at(11 + u64::from(number) * 100), Input::Probed { peer: peer(5), result: Err(failure) });
        probed(&effects).len()
    });
    assert!((5..=11).contains(&dials.sum::<usize>()), "in ten seconds");
}

/// Infos of so many identities in the networks 20.x to 29.x, or in one of them.
fn crowd(count: u32, networks: u32) -> Vec<KnownPeer> {
    let member = |number: u32| {
        let mut id = [0xee; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let (network, host) = (number % networks, number / networks);
        let address = format!("/ip4/{}.{}.{}.{}/tcp/9000", 20 + network / 250, network % 250, host / 250, host % 250);
        KnownPeer { peer: PeerId(id), addresses: vec![address.parse().unwrap()], ..info(2, 0) }
    };
    (0..count).map(member).collect()
}

#[test]
fn source_with_many_identities_gets_an_eighth_of_the_address_book() {
    let mut core = core(&[1]);
    connect(&mut core, 1, 1);
    told(&mut core, 2, 1, crowd(1_000, 1));
    assert_eq!(core.snapshot().known, 64, "one network, one teller: one bucket");
    told(&mut core, 3, 1, crowd(20_000, 2_000));
    let known = core.snapshot().known;
    assert!(
        (8 * 64..=16 * 64).contains(&known),
        "{known}: one teller has 16 buckets of 128, of which some are the same"
    );
}

#[test]
fn a_flood_of_hearsay_does_not_displace_peers_seen_live() {
    let mut core = core(&[1]);
    connected_to(&mut core, 1..=3);
    for teller in 1..=3 {
        told(&mut core, 2, teller, crowd(4_000, 500));
    }
    let mut live = answer(&mut core, 10, 7);
    live.sort_by_key(Opaque::size);
    assert_eq!(live, [info(1, 0).bytes, info(2, 0).bytes, info(3, 0).bytes]);
}

#[test]
fn the_longest_infos_fill_no_more_than_their_own_buckets() {
    let mut core = core(&[1]);
    let tellers = 1..=60;
    connected_to(&mut core, tellers.clone());
    let long = Opaque::from(Bytes::from(vec![0; 10 << 10]));
    for teller in tellers {
        let infos = crowd(1_000, 1_000).into_iter().map(|info| {
            let mut id = info.peer;
            id.0[31] = teller;
            KnownPeer { peer: id, bytes: long.clone(), ..info }
        });
        told(&mut core, 2, teller, infos.collect());
    }
    let known = core.snapshot().known;
    assert!((500..=128 * 6 + 60).contains(&known), "{known}: 6 of 10 KiB in each of 128 buckets, and the tellers");
}

#[test]
fn seeds_and_trusted_peers_chosen_at_run_time_are_dialled_at_once() {
    let mut core = core(&[1]);
    told(&mut core, 0, 1, vec![info(3, 0)]);
    let chosen = ChosenPeers {
        seeds: [(peer(2), vec![address(2)]), (peer(OWN), vec![address(OWN)])].into(),
        trusted: [peer(3)].into(),
    };
    let effects = core.handle(at(1), Input::ChosenPeers(chosen));
    let dialled = dialled(&effects);
    assert!(dialled.contains(&peer(2)), "{effects:?}");
    assert!(!dialled.contains(&peer(1)), "it is no seed any longer: {effects:?}");
    assert!(!dialled.contains(&peer(OWN)), "a node is not its own seed: {effects:?}");
}
