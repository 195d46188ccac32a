use super::*;
use bytes::Bytes;

const OWN: u8 = 99;

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

fn at(ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(ms), unix_ms: 1_000_000_000 + ms }
}

fn address(number: u8) -> Address {
    format!("/ip4/192.0.2.{number}/tcp/9000").parse().unwrap()
}

fn own_bytes() -> Opaque {
    Bytes::from_static(b"own").into()
}

fn info(number: u8, timestamp_ms: TimestampMs) -> KnownPeer {
    KnownPeer {
        peer: peer(number),
        timestamp_ms,
        addresses: vec![address(number)],
        access: Access::Public,
        bytes: Opaque::from(Bytes::from(vec![number, timestamp_ms as u8])),
    }
}

fn core(seeds: &[u8]) -> Discovery {
    let mut core = Discovery::new(Config {
        own_id: peer(OWN),
        seeds: seeds.iter().map(|number| (peer(*number), vec![address(*number)])).collect(),
        interval: Duration::from_secs(5),
        peers_to_query: 2,
        target_connections: 4,
        max_answer: 3,
        seed: 1,
    });
    let first = core.handle(at(0), Input::Wake);
    assert!(first.contains(&Effect::SignOwnInfo));
    core.handle(at(0), Input::OwnInfo { bytes: own_bytes(), timestamp_ms: at(0).unix_ms });
    core
}

fn dialled(effects: &[Effect]) -> Vec<PeerId> {
    let dialled = effects.iter().filter_map(|effect| match effect {
        Effect::Dial { peer, .. } => Some(*peer),
        _ => None,
    });
    dialled.collect()
}

fn answer(core: &mut Discovery, asker: u8, asker_info: Option<KnownPeer>) -> Vec<Opaque> {
    let effects = core.handle(at(10), Input::Asked { key: 1, peer: peer(asker), info: asker_info });
    let answered = effects.into_iter().find_map(|effect| match effect {
        Effect::Answer { peers, .. } => Some(peers),
        _ => None,
    });
    answer_of(answered)
}

fn answer_of(answered: Option<Vec<Opaque>>) -> Vec<Opaque> {
    answered.expect("every question is answered")
}

#[test]
fn a_new_peer_is_asked_at_once_and_those_it_names_are_dialled() {
    let mut core = core(&[1]);
    let effects = core.handle(at(1), Input::Peer(PeerEvent::Connected(peer(1))));
    assert_eq!(effects, [Effect::Query { peer: peer(1), own_info: own_bytes() }]);
    let infos = vec![info(1, 5), info(2, 5), info(3, 5), info(OWN, 5)];
    let effects = core.handle(at(2), Input::Answered { peer: peer(1), infos: Ok(infos) });
    let mut peers = dialled(&effects);
    peers.sort();
    assert_eq!(peers, [peer(2), peer(3)], "not itself, not whom it has");
}

#[test]
fn only_peers_seen_live_are_passed_on_in_their_own_bytes_and_never_to_themselves() {
    let mut core = core(&[1]);
    core.handle(at(1), Input::Peer(PeerEvent::Connected(peer(1))));
    core.handle(at(2), Input::Answered { peer: peer(1), infos: Ok(vec![info(1, 5), info(2, 5)]) });
    assert_eq!(answer(&mut core, 7, None), [info(1, 5).bytes], "2 is hearsay");
    assert_eq!(answer(&mut core, 1, None), Vec::<Opaque>::new());
    core.handle(at(3), Input::Peer(PeerEvent::Connected(peer(2))));
    assert_eq!(answer(&mut core, 7, None), [info(1, 5).bytes, info(2, 5).bytes]);
}

#[test]
fn private_peers_are_never_passed_on() {
    let mut core = core(&[1]);
    core.handle(at(1), Input::Peer(PeerEvent::Connected(peer(1))));
    let private = KnownPeer { access: Access::Private, ..info(1, 5) };
    core.handle(at(2), Input::Answered { peer: peer(1), infos: Ok(vec![private]) });
    assert_eq!(answer(&mut core, 7, None), Vec::<Opaque>::new());
}

#[test]
fn an_answer_holds_no_more_than_its_bound() {
    let mut core = core(&[1]);
    for number in 1..=9 {
        core.handle(at(1), Input::Peer(PeerEvent::Connected(peer(number))));
        core.handle(at(1), Input::Answered { peer: peer(number), infos: Ok(vec![info(number, 5)]) });
    }
    assert_eq!(answer(&mut core, 20, None).len(), 3);
}

#[test]
fn who_asks_is_taken_in_and_dialled_back_but_nobody_else_in_its_name() {
    let mut core = core(&[1]);
    let effects = core.handle(at(1), Input::Asked { key: 1, peer: peer(5), info: Some(info(5, 5)) });
    assert_eq!(dialled(&effects), [peer(5)]);
    let effects = core.handle(at(1), Input::Asked { key: 2, peer: peer(5), info: Some(info(6, 5)) });
    assert_eq!(dialled(&effects), Vec::<PeerId>::new());
    assert_eq!(core.snapshot().known, 1);
}

#[test]
fn the_newest_info_of_a_peer_counts() {
    let mut core = core(&[1]);
    core.handle(at(1), Input::Peer(PeerEvent::Connected(peer(1))));
    for timestamp in [5, 9, 7] {
        core.handle(at(1), Input::Answered { peer: peer(1), infos: Ok(vec![info(1, timestamp)]) });
    }
    assert_eq!(answer(&mut core, 7, None), [info(1, 9).bytes]);
}

#[test]
fn seeds_are_dialled_at_every_interval_until_they_answer_and_the_failure_is_shown() {
    let mut core = core(&[1]);
    let failure = DialFailure::OtherChain { reason: "x".into() };
    core.handle(at(1), Input::DialFailed { peer: peer(1), failure: failure.clone() });
    assert_eq!(core.snapshot().seed_failures, [(peer(1), failure)]);
    assert_eq!(core.next_wake(), Some(Duration::from_secs(5)));
    assert_eq!(dialled(&core.handle(at(5_000), Input::Wake)), [peer(1)]);
    core.handle(at(5_001), Input::Peer(PeerEvent::Connected(peer(1))));
    assert_eq!(core.snapshot().seed_failures, []);
}

#[test]
fn no_more_peers_are_dialled_than_wanted() {
    let mut core = core(&[1]);
    core.handle(at(1), Input::Peer(PeerEvent::Connected(peer(1))));
    let infos = (1..=50).map(|number| info(number, 5)).collect();
    let effects = core.handle(at(2), Input::Answered { peer: peer(1), infos: Ok(infos) });
    assert_eq!(dialled(&effects).len(), 3, "with the seed that makes the target of 4");
}

#[test]
fn the_book_is_saved_and_who_was_not_heard_of_for_a_day_leaves_it() {
    let mut core = core(&[1]);
    core.handle(at(1), Input::Asked { key: 1, peer: peer(5), info: Some(info(5, 5)) });
    let effects = core.handle(at(5_000), Input::Wake);
    let saved = Effect::SaveBook { put: vec![(peer(5), info(5, 5).bytes)], remove: vec![] };
    assert!(effects.contains(&saved), "{effects:?}");
    let effects = core.handle(at(25 * 3600 * 1000), Input::Wake);
    assert!(effects.contains(&Effect::SaveBook { put: vec![], remove: vec![peer(5)] }), "{effects:?}");
    assert_eq!(core.snapshot().known, 0);
}

#[test]
fn a_flood_of_hearsay_does_not_displace_peers_seen_live_and_the_book_stays_bounded() {
    let mut core = core(&[1]);
    core.handle(at(1), Input::Peer(PeerEvent::Connected(peer(1))));
    core.handle(at(1), Input::Answered { peer: peer(1), infos: Ok(vec![info(1, 5)]) });
    let flood = (0..MAX_BOOK as u32 * 2).map(|number| {
        let mut id = [0xee; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        KnownPeer { peer: PeerId(id), ..info(2, 5) }
    });
    core.handle(at(2), Input::Answered { peer: peer(1), infos: Ok(flood.collect()) });
    assert_eq!(core.snapshot().known, MAX_BOOK);
    assert_eq!(answer(&mut core, 7, None), [info(1, 5).bytes]);
}
