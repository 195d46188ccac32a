use super::*;

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

fn at(ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(ms), unix_ms: ms }
}

fn address() -> Vec<Address> {
    vec!["/ip4/192.0.2.1/tcp/9000".parse().unwrap()]
}

fn dial(core: &mut Connections, now: u64, number: u8) -> Option<LinkId> {
    let effects =
        core.handle(at(now), Input::Dial { peer: peer(number), addresses: address(), purpose: DialPurpose::Link });
    effects.into_iter().find_map(|effect| match effect {
        Effect::Dial { link, .. } => Some(link),
        _ => None,
    })
}

fn connect(core: &mut Connections, number: u8) -> LinkId {
    let link = dial(core, 0, number).expect("a slot is free");
    let effects = core.handle(at(0), Input::Dialled { link, peer: peer(number), result: Ok(()) });
    assert_eq!(effects, [Effect::Event(PeerEvent::Connected(peer(number)))]);
    link
}

fn inbound(core: &mut Connections, connection: u64, number: u8, source: [u8; 4]) -> bool {
    let input = Input::Inbound { connection, peer: peer(number), source: IpAddr::from(source) };
    core.handle(at(0), input) == [Effect::Admit { connection, admitted: true }]
}

#[test]
fn a_peer_is_dialled_once_however_often_it_is_asked_for() {
    let mut core = Connections::new(Config::default());
    assert!(dial(&mut core, 0, 1).is_some());
    assert!(dial(&mut core, 0, 1).is_none());
}

#[test]
fn dials_are_limited_and_wait_for_their_turn() {
    let mut core = Connections::new(Config { max_dials: 1, max_waiting_dials: 1, ..Config::default() });
    let first = dial(&mut core, 0, 1).unwrap();
    assert!(dial(&mut core, 0, 2).is_none());
    let effects = core.handle(at(0), Input::Dial { peer: peer(3), addresses: address(), purpose: DialPurpose::Link });
    assert_eq!(effects, [Effect::DialFailed { peer: peer(3), failure: DialFailure::Full }]);
    let effects = core.handle(at(0), Input::Dialled { link: first, peer: peer(1), result: Ok(()) });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Dial { peer: dialled, .. } if *dialled == peer(2))));
}

#[test]
fn a_dead_address_is_dialled_less_and_less_often() {
    let mut core = Connections::new(Config::default());
    let mut waits = Vec::new();
    let mut now = 0;
    for _ in 0..5 {
        let (waited, link) = (0..).find_map(|ms| Some((ms, dial(&mut core, now + ms, 1)?))).unwrap();
        waits.push(waited);
        now += waited;
        let failure = DialFailure::Unreachable { reason: "refused".into() };
        core.handle(at(now), Input::Dialled { link, peer: peer(1), result: Err(failure) });
    }
    assert_eq!(waits[0], 0);
    for (wait, full) in waits[1..].iter().zip([500, 1_000, 2_000, 4_000]) {
        assert!((full / 2..=full + 1).contains(wait), "{waits:?}");
    }
}

#[test]
fn the_end_of_an_inbound_connection_does_not_touch_the_outbound_link() {
    let mut core = Connections::new(Config::default());
    connect(&mut core, 1);
    assert!(inbound(&mut core, 5, 1, [192, 0, 2, 1]));
    assert_eq!(core.handle(at(0), Input::InboundClosed { connection: 5 }), []);
    assert_eq!(core.snapshot().outbound, [peer(1)]);
}

#[test]
fn the_end_of_an_old_link_does_not_end_its_successor() {
    let mut core = Connections::new(Config::default());
    let old = connect(&mut core, 1);
    let effects = core.handle(at(0), Input::LinkClosed { link: old, peer: peer(1) });
    assert_eq!(effects, [Effect::Event(PeerEvent::Lost(peer(1)))]);
    let new = dial(&mut core, 60_000, 1).unwrap();
    core.handle(at(60_000), Input::Dialled { link: new, peer: peer(1), result: Ok(()) });
    assert_eq!(core.handle(at(60_000), Input::LinkClosed { link: old, peer: peer(1) }), []);
    assert_eq!(core.snapshot().outbound, [peer(1)]);
}

#[test]
fn neither_one_peer_nor_one_source_address_nor_all_together_can_take_every_inbound_slot() {
    let config = Config { max_inbound: 5, max_inbound_per_source: 2, max_inbound_per_peer: 2, ..Config::default() };
    let mut core = Connections::new(config);
    assert!(inbound(&mut core, 1, 1, [192, 0, 2, 1]));
    assert!(inbound(&mut core, 2, 1, [192, 0, 2, 1]));
    assert!(!inbound(&mut core, 3, 1, [192, 0, 2, 2]), "a third one of the same peer");
    assert!(!inbound(&mut core, 4, 2, [192, 0, 2, 1]), "a third one of the same source");
    assert!(inbound(&mut core, 5, 2, [192, 0, 2, 3]));
    assert!(inbound(&mut core, 6, 3, [192, 0, 2, 4]));
    assert!(inbound(&mut core, 7, 4, [192, 0, 2, 5]));
    assert!(!inbound(&mut core, 8, 5, [192, 0, 2, 6]), "a sixth one");
    assert!(dial(&mut core, 0, 9).is_some(), "outbound slots are not touched");
    core.handle(at(0), Input::InboundClosed { connection: 7 });
    assert!(inbound(&mut core, 9, 5, [192, 0, 2, 6]));
}

#[test]
fn all_addresses_of_an_ipv6_network_are_one_source() {
    let mut core = Connections::new(Config { max_inbound_per_source: 2, ..Config::default() });
    let mut arrive = |number: u8, source: &str| {
        let (connection, source) = (u64::from(number), source.parse().unwrap());
        let input = Input::Inbound { connection, peer: peer(number), source };
        core.handle(at(0), input) == [Effect::Admit { connection, admitted: true }]
    };
    assert!(arrive(1, "2001:db8::1"));
    assert!(arrive(2, "2001:db8::ffff:1"));
    assert!(!arrive(3, "2001:db8::2"));
    assert!(arrive(4, "2001:db8:0:1::1"));
    for number in 5..20 {
        assert!(arrive(number, "::1"), "loopback is exempt");
    }
}

#[test]
fn a_banned_peer_is_cut_off_and_kept_out_until_the_ban_ends() {
    let mut core = Connections::new(Config::default());
    let link = connect(&mut core, 1);
    assert!(inbound(&mut core, 5, 1, [192, 0, 2, 1]));
    let effects = core.handle(at(0), Input::Ban { peer: peer(1), duration: Duration::from_secs(600) });
    let expected = [
        Effect::HangUp { link, peer: peer(1) },
        Effect::Event(PeerEvent::Lost(peer(1))),
        Effect::HangUpInbound { connection: 5 },
    ];
    assert_eq!(effects, expected);
    assert!(!inbound(&mut core, 6, 1, [192, 0, 2, 1]));
    let effects = core.handle(at(0), Input::Dial { peer: peer(1), addresses: address(), purpose: DialPurpose::Link });
    assert_eq!(effects, [Effect::DialFailed { peer: peer(1), failure: DialFailure::Banned }]);
    assert_eq!(core.next_wake(), Some(Duration::from_secs(600)));
    core.handle(at(600_000), Input::Wake);
    assert!(dial(&mut core, 600_000, 1).is_some());
}

#[test]
fn a_dial_that_comes_through_after_a_ban_is_hung_up() {
    let mut core = Connections::new(Config::default());
    let link = dial(&mut core, 0, 1).unwrap();
    core.handle(at(0), Input::Ban { peer: peer(1), duration: Duration::from_secs(1) });
    let effects = core.handle(at(0), Input::Dialled { link, peer: peer(1), result: Ok(()) });
    assert_eq!(effects, [Effect::HangUp { link, peer: peer(1) }]);
    assert_eq!(core.snapshot().outbound, []);
}

#[test]
fn who_subscribes_late_is_told_of_every_link_and_of_no_dial() {
    let mut core = Connections::new(Config::default());
    connect(&mut core, 1);
    connect(&mut core, 2);
    dial(&mut core, 0, 3);
    let told = core.handle(at(0), Input::WhoIsConnected { subscriber: "discovery".into() });
    assert_eq!(told, [Effect::TellConnected { subscriber: "discovery".into(), peers: vec![peer(1), peer(2)] }]);
}
