use super::super::{Config, Input};
use super::*;
use crate::core::Core;

fn at(ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(ms), unix_ms: ms }
}

fn peer(number: u16) -> PeerId {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&number.to_be_bytes());
    PeerId(id)
}

/// A node that others connect to.
struct Node {
    core: Connections,
    connections: BTreeMap<u64, PeerId>,
    next: u64,
    evicted: BTreeSet<PeerId>,
}

impl Node {
    fn new(max_inbound: usize, trusted: &[PeerId]) -> Self {
        let allowlist = trusted.iter().copied().collect();
        let core = Connections::new(Config { max_inbound, allowlist, seed: 5, ..Config::default() });
        Self { core, connections: BTreeMap::new(), next: 0, evicted: BTreeSet::new() }
    }

    fn arrive(&mut self, ms: u64, peer: PeerId, source: [u8; 4]) -> bool {
        self.next += 1;
        let effects = self.core.handle(at(ms), Input::Inbound { connection: self.next, peer, source: source.into() });
        let mut admitted = false;
        for effect in effects {
            match effect {
                Effect::HangUpInbound { connection, reason: InboundEnd::Evicted } => {
                    self.evicted.insert(self.connections.remove(&connection).unwrap());
                }
                Effect::Admit { admitted: yes, .. } => admitted = yes,
                Effect::Favour { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        if admitted {
            self.connections.insert(self.next, peer);
        }
        assert_eq!(self.core.snapshot().inbound.len(), self.connections.len());
        admitted
    }
}

#[test]
fn attacker_with_many_identities_in_two_networks_displaces_no_other_peer() {
    // There is room at first, and he takes all of it. The last few honest peers have not been here for long, and six
    // were useful.
    let honest = |number: u16| (peer(number), [60 + number as u8, 1, 2, 3]);
    let mut node = Node::new(60, &[]);
    for number in 0..38 {
        let (peer, source) = honest(number);
        assert!(node.arrive(u64::from(number) * 1_000, peer, source));
    }
    node.core.handle(at(38_000), Input::Useful { peers: (30..36).map(peer).collect() });
    let mut now = 40_000;
    let mut attacker_in = 0;
    for number in 0..500_u16 {
        now += 100;
        let source = [203, (number % 2) as u8, (number / 2 % 256) as u8, 9];
        attacker_in += u64::from(node.arrive(now, peer(1_000 + number), source));
    }
    assert!(attacker_in > 22, "he goes on to replace himself");
    let displaced: BTreeSet<_> = node.evicted.iter().filter(|id| **id < peer(1_000)).collect();
    assert!(displaced.is_empty(), "{displaced:?}");
    assert!(node.arrive(now + 10, peer(100), [99, 99, 1, 1]), "an honest newcomer gets in");
    assert!(node.evicted.iter().all(|id| *id >= peer(1_000)));
    now += 2_000;
    node.arrive(now, peer(2_000), [203, 0, 200, 200]);
    assert!(!node.evicted.contains(&peer(100)), "and stays");
}

#[test]
fn full_node_of_strangers_gives_each_attacking_network_one_place_at_most() {
    let mut node = Node::new(40, &[]);
    for number in 0..40 {
        assert!(node.arrive(u64::from(number), peer(number), [60 + number as u8, 1, 2, 3]));
    }
    for number in 0..500_u16 {
        node.arrive(10_000 + 37 * u64::from(number), peer(1_000 + number), [203, (number % 2) as u8, number as u8, 9]);
    }
    let displaced: Vec<_> = node.evicted.iter().filter(|id| **id < peer(1_000)).collect();
    assert!(displaced.len() <= 2, "{displaced:?}");
    assert!(
        displaced.iter().all(|id| **id >= peer(20)),
        "never one of those who have been here for long: {displaced:?}"
    );
}

#[test]
fn the_useful_are_kept_and_the_young_without_merit_go() {
    let mut node = Node::new(24, &[]);
    for number in 0..24 {
        assert!(node.arrive(u64::from(number), peer(number), [60 + number as u8, 1, 2, 3]));
    }
    node.core.handle(at(100), Input::Useful { peers: (16..24).map(peer).collect() });
    for number in 0..8_u16 {
        assert!(node.arrive(5_000 + 2_000 * u64::from(number), peer(100 + number), [140 + number as u8, 1, 1, 1]));
    }
    assert!((16..24).all(|number| !node.evicted.contains(&peer(number))), "{:?}", node.evicted);
    assert!((0..6).all(|number| !node.evicted.contains(&peer(number))), "{:?}", node.evicted);
}

#[test]
fn nobody_is_displaced_in_its_first_second() {
    let mut node = Node::new(2, &[]);
    assert!(node.arrive(0, peer(1), [60, 1, 1, 1]) && node.arrive(0, peer(2), [61, 1, 1, 1]));
    assert!(!node.arrive(999, peer(3), [62, 1, 1, 1]));
}

#[test]
fn trusted_peers_are_never_displaced_and_always_get_in() {
    let trusted: Vec<_> = (0..6).map(peer).collect();
    let mut node = Node::new(4, &trusted);
    for number in 0..4_u16 {
        assert!(node.arrive(u64::from(number), peer(100 + number), [60 + number as u8, 1, 1, 1]));
    }
    // All of them in their first second, and behind one source address: not an obstacle for those who are trusted.
    for id in &trusted {
        assert!(node.arrive(10, *id, [99, 1, 1, 1]));
    }
    assert_eq!(node.evicted.len(), 4, "{:?}", node.evicted);
    assert_eq!(node.core.snapshot().inbound, trusted, "beyond the limit, as all are trusted");
    for number in 0..50_u16 {
        let source = [60 + number as u8, 1, 1, 1];
        assert!(!node.arrive(60_000 + u64::from(number), peer(200 + number), source));
    }
    // They are no longer trusted: their places are like any other, and nobody is cut off for it.
    let mut node = Node::new(2, &[]);
    node.core.handle(at(0), Input::Committee { validators: trusted[..2].to_vec() });
    assert!(node.arrive(0, peer(0), [60, 1, 1, 1]) && node.arrive(0, peer(1), [61, 1, 1, 1]));
    assert!(!node.arrive(2_000, peer(100), [62, 1, 1, 1]));
    assert_eq!(node.core.handle(at(2_000), Input::Committee { validators: vec![] }), []);
    // Both are still kept, but now as any two are: for their networks.
    assert!(!node.arrive(2_000, peer(100), [62, 1, 1, 1]));
}

#[test]
fn connections_of_trusted_and_useful_peers_are_favoured() {
    let favoured = |effects: Vec<Effect>| {
        let favour = |effect| match effect {
            Effect::Favour { connection, time } => Some((connection, time)),
            _ => None,
        };
        effects.into_iter().filter_map(favour).collect::<Vec<_>>()
    };
    let mut core = Connections::new(Config { allowlist: [peer(1)].into(), ..Config::default() });
    let mut arrive = |connection: u64, peer| {
        let source = [192, 0, 2, connection as u8].into();
        favoured(core.handle(at(0), Input::Inbound { connection, peer, source }))
    };
    assert_eq!(arrive(1, peer(1)), [(1, None)]);
    assert_eq!(arrive(2, peer(2)), []);
    assert_eq!(arrive(3, peer(3)), []);
    let useful = Input::Useful { peers: vec![peer(3), peer(4)] };
    assert_eq!(favoured(core.handle(at(1), useful)), [(3, Some(PROVEN_FOR))]);
    let committee = || Input::Committee { validators: vec![peer(2)] };
    assert_eq!(favoured(core.handle(at(2), committee())), [(2, None)]);
    assert_eq!(favoured(core.handle(at(3), committee())), [], "nothing new");
}
