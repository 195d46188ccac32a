use super::*;
use crate::core::{LostReason, PeerEvent};
use soma_types::Address;
use std::net::IpAddr;

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

fn at(ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(ms), unix_ms: ms }
}

/// In a network of the peer's own.
fn address(number: u8) -> Address {
    format!("/ip4/198.{number}.0.1/tcp/9000").parse().unwrap()
}

fn to(number: u8) -> Endpoint {
    Endpoint { address: address(number), ip: address(number).ip() }
}

fn asked(number: u8, addresses: Vec<Address>, purpose: DialPurpose) -> Input {
    Input::Dial { peer: peer(number), addresses, purpose }
}

fn dialled(link: LinkId, number: u8, result: Result<Endpoint, DialFailure>) -> Input {
    let failed = if result.is_err() { vec![address(number)] } else { Vec::new() };
    Input::Dialled { link, peer: peer(number), result, failed }
}

fn unreachable() -> DialFailure {
    DialFailure::Unreachable { reason: "refused".into() }
}

fn begun(effects: &[Effect]) -> Option<LinkId> {
    effects.iter().find_map(|effect| match effect {
        Effect::Dial { link, .. } => Some(*link),
        _ => None,
    })
}

fn dial(core: &mut Connections, now: u64, number: u8) -> Option<LinkId> {
    begun(&core.handle(at(now), asked(number, vec![address(number)], DialPurpose::Link)))
}

fn probe(core: &mut Connections, now: u64, number: u8) -> Option<LinkId> {
    begun(&core.handle(at(now), asked(number, vec![address(number)], DialPurpose::Probe)))
}

fn connect(core: &mut Connections, number: u8) -> LinkId {
    let link = dial(core, 0, number).expect("a slot is free");
    let effects = core.handle(at(0), dialled(link, number, Ok(to(number))));
    assert_eq!(effects, [Effect::Event(PeerEvent::Connected(peer(number)))]);
    link
}

fn lost(number: u8, reason: LostReason) -> Effect {
    Effect::Event(PeerEvent::Lost { peer: peer(number), reason })
}

fn inbound(core: &mut Connections, connection: u64, number: u8, source: [u8; 4]) -> bool {
    let input = Input::Inbound { connection, peer: peer(number), source: IpAddr::from(source) };
    core.handle(at(0), input).contains(&Effect::Admit { connection, admitted: true })
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
    let effects = core.handle(at(0), asked(3, vec![address(3)], DialPurpose::Link));
    assert_eq!(effects, [Effect::DialFailed { peer: peer(3), failure: DialFailure::Full }]);
    let effects = core.handle(at(0), dialled(first, 1, Ok(to(1))));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Dial { peer: dialled, .. } if *dialled == peer(2))));
}

#[test]
fn silent_addresses_keep_no_place_from_other_dials_for_more_than_a_second() {
    let mut core = Connections::new(Config { max_dials: 2, ..Config::default() });
    assert!(dial(&mut core, 0, 1).is_some() && dial(&mut core, 0, 2).is_some());
    for number in 3..20 {
        assert!(dial(&mut core, 0, number).is_none());
    }
    let begun = |effects: &[Effect]| effects.iter().filter(|effect| matches!(effect, Effect::Dial { .. })).count();
    // None of them ever answers: there are four times as many in the end.
    for second in 1..=5 {
        let wake = core.next_wake();
        assert_eq!(wake.is_some(), second <= 4, "{wake:?}");
        let effects = core.handle(at(second * 1_000), Input::Wake);
        assert_eq!(begun(&effects), if second <= 3 { 2 } else { 0 });
    }
    assert_eq!(core.snapshot().dialling, most_dials(2));
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
        core.handle(at(now), dialled(link, 1, Err(unreachable())));
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
    assert_eq!(core.handle(at(0), Input::InboundClosed { connection: 5, end: ConnectionEnd::Usual }), []);
    assert_eq!(core.snapshot().outbound, [peer(1)]);
}

#[test]
fn the_end_of_an_old_link_does_not_end_its_successor() {
    let mut core = Connections::new(Config::default());
    let old = connect(&mut core, 1);
    let effects = core.handle(at(0), Input::LinkClosed { link: old, peer: peer(1), end: ConnectionEnd::Usual });
    assert_eq!(effects, [lost(1, LostReason::Closed)]);
    let new = dial(&mut core, 60_000, 1).unwrap();
    core.handle(at(60_000), dialled(new, 1, Ok(to(1))));
    assert_eq!(core.handle(at(60_000), Input::LinkClosed { link: old, peer: peer(1), end: ConnectionEnd::Usual }), []);
    assert_eq!(core.snapshot().outbound, [peer(1)]);
}

#[test]
fn no_peer_or_source_and_not_all_together_take_every_inbound_slot() {
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
    core.handle(at(0), Input::InboundClosed { connection: 7, end: ConnectionEnd::Usual });
    assert!(inbound(&mut core, 9, 5, [192, 0, 2, 6]));
}

#[test]
fn untrusted_peer_that_leaves_answers_unread_is_kept_out_for_a_while() {
    let mut core = Connections::new(Config { allowlist: [peer(2)].into(), ..Config::default() });
    for number in [1, 2] {
        assert!(inbound(&mut core, number.into(), number, [192, 0, 2, number]));
        core.handle(at(0), Input::InboundClosed { connection: number.into(), end: ConnectionEnd::Stalled });
    }
    assert!(!inbound(&mut core, 3, 1, [192, 0, 2, 1]));
    assert!(inbound(&mut core, 4, 2, [192, 0, 2, 2]));
    let later = Input::Inbound { connection: 5, peer: peer(1), source: [192, 0, 2, 1].into() };
    assert_eq!(core.handle(at(1_000), later), [Effect::Admit { connection: 5, admitted: true }]);
}

#[test]
fn a_peer_that_floods_a_connection_is_reported_whichever_side_made_it() {
    let reported = |effects: Vec<Effect>| {
        let report = |effect: &Effect| matches!(effect, Effect::Report { fault: Fault::Malformed, .. });
        effects.iter().filter(|effect| report(effect)).count()
    };
    let mut core = Connections::new(Config::default());
    let link = connect(&mut core, 1);
    let end = ConnectionEnd::Flooded;
    assert_eq!(reported(core.handle(at(0), Input::LinkClosed { link, peer: peer(1), end })), 1);
    assert!(inbound(&mut core, 5, 2, [192, 0, 2, 1]));
    assert_eq!(reported(core.handle(at(0), Input::InboundClosed { connection: 5, end })), 1);
    assert!(inbound(&mut core, 6, 3, [192, 0, 2, 1]));
    let end = ConnectionEnd::Stalled;
    assert_eq!(reported(core.handle(at(0), Input::InboundClosed { connection: 6, end })), 0);
}

#[test]
fn all_addresses_of_an_ipv6_network_are_one_source() {
    let mut core = Connections::new(Config { max_inbound_per_source: 2, ..Config::default() });
    let mut arrive = |number: u8, source: &str| {
        let (connection, source) = (u64::from(number), source.parse().unwrap());
        let input = Input::Inbound { connection, peer: peer(number), source };
        core.handle(at(0), input).contains(&Effect::Admit { connection, admitted: true })
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
    let effects =
        core.handle(at(0), Input::Ban { peer: peer(1), duration: Duration::from_secs(600), reason: "it lied".into() });
    let expected = [
        Effect::HangUp { link, peer: peer(1) },
        lost(1, LostReason::Banned),
        Effect::HangUpInbound { connection: 5, reason: InboundEnd::Banned },
    ];
    assert_eq!(effects, expected);
    assert!(!inbound(&mut core, 6, 1, [192, 0, 2, 1]));
    let effects = core.handle(at(0), asked(1, vec![address(1)], DialPurpose::Link));
    assert_eq!(effects, [Effect::DialFailed { peer: peer(1), failure: DialFailure::Banned }]);
    assert_eq!(core.next_wake(), Some(Duration::from_secs(600)));
    core.handle(at(600_000), Input::Wake);
    assert!(dial(&mut core, 600_000, 1).is_some());
}

#[test]
fn a_ban_is_shown_with_its_end_and_a_bounded_reason() {
    let mut core = Connections::new(Config::default());
    // A character of two bytes stands across the bound.
    let reason = format!("x{}", "é".repeat(MAX_BAN_REASON_BYTES));
    core.handle(at(0), Input::Ban { peer: peer(1), duration: Duration::from_secs(600), reason });
    let [ban] = &core.snapshot().banned[..] else { panic!("one ban") };
    assert_eq!((ban.peer, ban.until_ms), (peer(1), at(600_000).unix_ms));
    assert_eq!(ban.reason, format!("x{}", "é".repeat(MAX_BAN_REASON_BYTES / 2 - 1)));
    // The end of a ban does not depend on when the core last had an input.
    core.handle(at(60_000), Input::Useful { peers: Vec::new() });
    assert_eq!(core.snapshot().banned[0].until_ms, at(600_000).unix_ms);
}

#[test]
fn a_dial_that_comes_through_after_a_ban_is_hung_up() {
    let mut core = Connections::new(Config::default());
    let link = dial(&mut core, 0, 1).unwrap();
    core.handle(at(0), Input::Ban { peer: peer(1), duration: Duration::from_secs(1), reason: "it lied".into() });
    let effects = core.handle(at(0), dialled(link, 1, Ok(to(1))));
    let refused = Effect::DialFailed { peer: peer(1), failure: DialFailure::Banned };
    assert_eq!(effects, [Effect::HangUp { link, peer: peer(1) }, refused]);
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

#[test]
fn two_nodes_that_dial_each_other_at_once_end_with_one_link_each_way() {
    let [mut one, mut two] = [1, 2].map(|seed| Connections::new(Config { seed, ..Config::default() }));
    let (to_two, to_one) = (dial(&mut one, 0, 2).unwrap(), dial(&mut two, 0, 1).unwrap());
    // Each has its own dial under way when the other's arrives.
    assert!(inbound(&mut one, 1, 2, [198, 2, 0, 1]) && inbound(&mut two, 1, 1, [198, 1, 0, 1]));
    let connected = |number| [Effect::Event(PeerEvent::Connected(peer(number)))];
    assert_eq!(one.handle(at(1), dialled(to_two, 2, Ok(to(2)))), connected(2));
    assert_eq!(two.handle(at(1), dialled(to_one, 1, Ok(to(1)))), connected(1));
    for (core, other) in [(&mut one, 2), (&mut two, 1)] {
        assert_eq!((core.snapshot().outbound, core.snapshot().inbound), (vec![peer(other)], vec![peer(other)]));
        assert!(dial(core, 2, other).is_none());
    }
}

#[test]
fn peer_with_a_dead_address_is_dialled_at_its_others_and_the_pause_shown() {
    let mut core = Connections::new(Config::default());
    let link = dial(&mut core, 0, 1).unwrap();
    core.handle(at(0), dialled(link, 1, Err(unreachable())));
    let effects = core.handle(at(1), asked(1, vec![address(1)], DialPurpose::Link));
    assert!(matches!(&effects[..], [Effect::DialFailed { failure: DialFailure::Pausing { wait }, .. }]
        if *wait < Duration::from_millis(500)));
    let effects = core.handle(at(1), asked(1, vec![address(1), address(7)], DialPurpose::Link));
    let id = begun(&effects).unwrap();
    assert_eq!(effects, [Effect::Dial { link: id, peer: peer(1), addresses: vec![address(7)] }]);
}

#[test]
fn who_claims_the_address_of_another_does_not_have_that_one_left_alone() {
    let mut core = Connections::new(Config::default());
    for ms in [0, 60_000, 120_000] {
        let effects = core.handle(at(ms), asked(2, vec![address(1)], DialPurpose::Probe));
        let wrong_key = DialFailure::WrongKey { reason: "1 is there".into() };
        let result = Err(wrong_key);
        let link = begun(&effects).unwrap();
        core.handle(at(ms), Input::Dialled { link, peer: peer(2), result, failed: vec![address(1)] });
    }
    assert!(begun(&core.handle(at(120_001), asked(1, vec![address(1)], DialPurpose::Link))).is_some());
}

#[test]
fn short_links_are_dialled_less_and_less_often_and_long_ones_soon_again() {
    let pause_after = |lives: &[u64]| {
        let mut core = Connections::new(Config::default());
        let mut now = 0;
        for life in lives {
            let link = (0..)
                .find_map(|_| {
                    dial(&mut core, now, 1).or_else(|| {
                        now += 1;
                        None
                    })
                })
                .unwrap();
            core.handle(at(now), dialled(link, 1, Ok(to(1))));
            now += life;
            assert_eq!(
                core.handle(at(now), Input::LinkClosed { link, peer: peer(1), end: ConnectionEnd::Usual }),
                [lost(1, LostReason::Closed)]
            );
        }
        (0..).find(|ms| dial(&mut core, now + ms, 1).is_some()).unwrap()
    };
    assert!((250..=501).contains(&pause_after(&[0])));
    assert!((4_000..=8_001).contains(&pause_after(&[0, 0, 0, 0, 0])));
    assert!((250..=501).contains(&pause_after(&[0, 0, 0, 0, 20_000])));
}

#[test]
fn links_to_one_network_are_limited_before_and_after_name_resolution() {
    let config = Config { allowlist: [peer(9)].into(), ..Config::default() };
    let mut core = Connections::new(config);
    let there = |host: u8| -> Address { format!("/ip4/203.0.113.{host}/tcp/9000").parse().unwrap() };
    let at_there = |host: u8| Ok(Endpoint { address: there(host), ip: there(host).ip() });
    let effects = core.handle(at(0), asked(1, vec![there(1)], DialPurpose::Link));
    core.handle(at(0), dialled(begun(&effects).unwrap(), 1, at_there(1)));
    // A trusted peer does not count, and is not held to it.
    let effects = core.handle(at(0), asked(9, vec![there(9)], DialPurpose::Link));
    core.handle(at(0), dialled(begun(&effects).unwrap(), 9, at_there(9)));
    let second = begun(&core.handle(at(0), asked(2, vec![there(2)], DialPurpose::Link))).unwrap();
    // One link and one dial: full, also before the dial has ended.
    let full = |number| Effect::DialFailed { peer: peer(number), failure: DialFailure::GroupFull };
    assert_eq!(core.handle(at(0), asked(3, vec![there(3)], DialPurpose::Link)), [full(3)]);
    let effects = core.handle(at(0), asked(3, vec![there(3), address(3)], DialPurpose::Link));
    assert!(matches!(&effects[..], [Effect::Dial { addresses, .. }] if *addresses == [address(3)]));
    core.handle(at(0), dialled(second, 2, at_there(2)));
    // A probe does not stay.
    assert!(begun(&core.handle(at(0), asked(5, vec![there(5)], DialPurpose::Probe))).is_some());
    // A name that leads there is found out once it has.
    let name: Address = "/dns/node.example/tcp/9000".parse().unwrap();
    let link = begun(&core.handle(at(0), asked(4, vec![name.clone()], DialPurpose::Link))).unwrap();
    let endpoint = Endpoint { address: name.clone(), ip: there(4).ip() };
    let effects = core.handle(at(0), dialled(link, 4, Ok(endpoint)));
    assert_eq!(effects, [Effect::HangUp { link, peer: peer(4) }, full(4)]);
    let effects = core.handle(at(0), asked(4, vec![name], DialPurpose::Link));
    assert!(matches!(effects[..], [Effect::DialFailed { failure: DialFailure::Pausing { .. }, .. }]));
    assert_eq!(core.snapshot().outbound, [1, 2, 9].map(peer));
}

#[test]
fn machines_near_by_are_not_limited_by_their_network() {
    let mut core = Connections::new(Config::default());
    for number in 1..=5 {
        let near: Address = format!("/ip4/127.0.0.1/tcp/{number}").parse().unwrap();
        let link = begun(&core.handle(at(0), asked(number, vec![near.clone()], DialPurpose::Link))).unwrap();
        core.handle(at(0), dialled(link, number, Ok(Endpoint { ip: near.ip(), address: near })));
    }
    assert_eq!(core.snapshot().outbound.len(), 5);
}

#[test]
fn a_probe_is_handed_over_and_is_no_link_and_no_event() {
    let mut core = Connections::new(Config { max_outbound: 1, ..Config::default() });
    connect(&mut core, 1);
    let link = probe(&mut core, 0, 2).expect("not held to the limit of links");
    assert_eq!(core.handle(at(0), dialled(link, 2, Ok(to(2)))), [Effect::HandOver { link, peer: peer(2) }]);
    assert_eq!((core.snapshot().outbound, core.snapshot().dialling), (vec![peer(1)], 0));
    assert_eq!(core.handle(at(0), Input::LinkClosed { link, peer: peer(2), end: ConnectionEnd::Usual }), []);
    let link = probe(&mut core, 0, 3).unwrap();
    let failed = Effect::ProbeFailed { peer: peer(3), failure: unreachable() };
    assert_eq!(core.handle(at(0), dialled(link, 3, Err(unreachable()))), [failed]);
    assert_eq!(probe(&mut core, 0, 1), None, "it is linked already");
}

#[test]
fn links_go_before_probes_and_a_link_to_a_probed_peer_waits_its_turn() {
    let mut core = Connections::new(Config { max_dials: 1, ..Config::default() });
    let first = probe(&mut core, 0, 1).unwrap();
    assert_eq!((probe(&mut core, 0, 2), dial(&mut core, 0, 3), dial(&mut core, 0, 1)), (None, None, None));
    let effects = core.handle(at(0), dialled(first, 1, Ok(to(1))));
    assert_eq!(effects[0], Effect::HandOver { link: first, peer: peer(1) });
    let mut order = Vec::new();
    let mut next = effects.into_iter().nth(1);
    while let Some(Effect::Dial { link, peer: PeerId([number, ..]), .. }) = next {
        order.push(number);
        next = core.handle(at(0), dialled(link, number, Ok(to(number)))).into_iter().nth(1);
    }
    assert_eq!(order, [3, 1, 2]);
    assert_eq!(core.snapshot().outbound, [1, 3].map(peer));
}

#[test]
fn trusted_peers_have_room_when_strangers_have_taken_all() {
    let config = Config { max_outbound: 1, max_waiting_dials: 1, ..Config::default() };
    let mut core = Connections::new(config);
    connect(&mut core, 1);
    assert_eq!(dial(&mut core, 0, 2), None, "it waits");
    let full = Effect::DialFailed { peer: peer(3), failure: DialFailure::Full };
    assert_eq!(core.handle(at(0), asked(3, vec![address(3)], DialPurpose::Link)), [full]);
    core.handle(at(0), Input::Committee { validators: vec![peer(3), peer(4)] });
    connect(&mut core, 3);
    connect(&mut core, 4);
    // Those who are no longer validators stay, and count again.
    assert_eq!(core.handle(at(0), Input::Committee { validators: vec![] }), []);
    assert_eq!(core.snapshot().outbound, [1, 3, 4].map(peer));
    assert_eq!(
        core.handle(at(0), Input::LinkClosed { link: LinkId(1), peer: peer(1), end: ConnectionEnd::Usual }).len(),
        1,
        "peer 2 still waits"
    );
}

#[test]
fn a_denied_peer_is_neither_dialled_nor_let_in() {
    let mut core = Connections::new(Config { denylist: [peer(1)].into(), ..Config::default() });
    core.handle(at(0), Input::Committee { validators: vec![peer(1)] });
    let denied = Effect::DialFailed { peer: peer(1), failure: DialFailure::Denied };
    assert_eq!(core.handle(at(0), asked(1, vec![address(1)], DialPurpose::Link)), [denied]);
    assert!(!inbound(&mut core, 1, 1, [192, 0, 2, 1]));
}

#[test]
fn a_disconnected_peer_loses_its_connections_and_may_return_at_once() {
    let mut core = Connections::new(Config::default());
    let link = connect(&mut core, 1);
    assert!(inbound(&mut core, 5, 1, [192, 0, 2, 1]));
    let effects = core.handle(at(0), Input::Disconnect { peer: peer(1) });
    let hang_up = Effect::HangUpInbound { connection: 5, reason: InboundEnd::Disconnected };
    for expected in [Effect::HangUp { link, peer: peer(1) }, hang_up, lost(1, LostReason::Disconnected)] {
        assert!(effects.contains(&expected), "{expected:?} is not in {effects:?}");
    }
    assert_eq!((core.snapshot().outbound, core.snapshot().inbound.len()), (vec![], 0));
    assert!(inbound(&mut core, 6, 1, [192, 0, 2, 1]));
    assert!(dial(&mut core, 0, 1).is_some());
}

#[test]
fn a_banned_peer_is_dialled_and_admitted_again_once_it_is_unbanned() {
    let mut core = Connections::new(Config::default());
    core.handle(at(0), Input::Ban { peer: peer(1), duration: Duration::MAX, reason: "it lied".into() });
    assert!(dial(&mut core, 0, 1).is_none());
    assert!(!inbound(&mut core, 5, 1, [192, 0, 2, 1]));
    core.handle(at(0), Input::Unban { peer: peer(1) });
    assert!(dial(&mut core, 0, 1).is_some());
    assert!(inbound(&mut core, 6, 1, [192, 0, 2, 1]));
}

#[test]
fn peer_that_becomes_trusted_has_room_and_keeps_its_connection_later() {
    let mut core = Connections::new(Config { max_outbound: 1, ..Config::default() });
    connect(&mut core, 1);
    assert_eq!(dial(&mut core, 0, 2), None, "there is no room");
    let trusted = ChosenPeers { trusted: [peer(3)].into(), ..ChosenPeers::default() };
    core.handle(at(0), Input::ChosenPeers(trusted));
    connect(&mut core, 3);
    assert_eq!(core.handle(at(0), Input::ChosenPeers(ChosenPeers::default())), []);
    assert_eq!(core.snapshot().outbound, [1, 3].map(peer));
    assert_eq!(core.snapshot().trusted, []);
}
