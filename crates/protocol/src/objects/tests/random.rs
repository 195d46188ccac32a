//! Random peers, failures and requests: what always holds.

use super::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// Objects that exist somewhere, and some that do not.
const OBJECTS: u32 = 60;

/// A call under way: its peer, and what it has not answered.
struct Open {
    peer: u8,
    left: Vec<(u32, ObjectId)>,
}

struct World {
    solo: Solo,
    rng: ChaCha8Rng,
    connected: BTreeSet<u8>,
    calls: BTreeMap<u64, Open>,
    /// Objects of each request that are not answered, and its deadline.
    requests: BTreeMap<u64, (BTreeSet<ObjectId>, Duration)>,
    answered: BTreeMap<&'static str, usize>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            solo: Solo::with(Config { max_wanted: 200, max_calls: 6, max_calls_per_peer: 2 }, []),
            rng: ChaCha8Rng::seed_from_u64(seed),
            connected: BTreeSet::new(),
            calls: BTreeMap::new(),
            requests: BTreeMap::new(),
            answered: BTreeMap::new(),
        }
    }

    /// Peer 1 has every object that exists, the others some.
    fn has(peer: u8, id: ObjectId) -> bool {
        let exists = ids(0..OBJECTS * 4 / 5).contains(&id);
        exists && (peer == 1 || id.0[0] % 4 >= peer)
    }

    fn feed(&mut self, input: Input) {
        let effects = self.solo.feed(input);
        for effect in effects {
            self.perform(effect);
        }
        let per_peer = |peer| self.calls.values().filter(|call| call.peer == peer).count();
        assert!(self.calls.len() <= 6 && self.connected.iter().all(|peer| per_peer(*peer) <= 2));
        assert_eq!(self.solo.core.snapshot().requests, self.requests.len());
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Call { call, peer, ids, .. } => {
                assert!(self.connected.contains(&peer.0[0]), "only connected peers are asked");
                let open = Open { peer: peer.0[0], left: (0..).zip(ids).collect() };
                assert!(self.calls.insert(call, open).is_none(), "a call has a number of its own");
            }
            Effect::Cancel { call } => assert!(self.calls.remove(&call).is_some(), "it is under way"),
            Effect::Answer { request, ids, answer } => {
                let (left, deadline) = self.requests.get_mut(&request).expect("an open request is answered");
                for id in ids {
                    assert!(left.remove(&id), "each object is answered once");
                    if let Answer::Late { .. } = answer {
                        assert!(self.solo.now >= *deadline);
                    }
                }
                if left.is_empty() {
                    self.requests.remove(&request);
                }
                let name = match answer {
                    Answer::Found => "found",
                    Answer::NotFound { asked } => {
                        assert!(asked > 0);
                        "not found"
                    }
                    Answer::Late { .. } => "late",
                };
                *self.answered.entry(name).or_default() += 1;
            }
            Effect::Refuse { request } => {
                self.requests.remove(&request).expect("a request is refused at once");
            }
            Effect::Report { .. } => {}
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..15 => self.fetch(),
            15..20 => self.connect_or_lose(),
            20..23 => {
                if let Some(request) = self.requests.keys().next().copied() {
                    self.requests.remove(&request);
                    self.feed(Input::Dropped { request });
                }
            }
            23..40 => {
                self.solo.now += Duration::from_millis(self.rng.random_range(0..200));
                self.feed(Input::Wake);
            }
            _ => self.answer(),
        }
    }

    fn fetch(&mut self) {
        let first = self.rng.random_range(0..OBJECTS);
        let ids = ids(first..first + self.rng.random_range(1..20));
        let within = Duration::from_millis(self.rng.random_range(1..3_000));
        self.solo.requests += 1;
        let request = self.solo.requests;
        self.requests.insert(request, (ids.iter().copied().collect(), self.solo.now + within));
        let first_from = self.rng.random_bool(0.3).then(|| peer(self.rng.random_range(1..5)));
        self.feed(Input::Fetch { request, kind: ObjectKind::OBJECT, ids, within, first_from });
    }

    fn connect_or_lose(&mut self) {
        let number = self.rng.random_range(1..5);
        if self.connected.insert(number) {
            return self.feed(Input::Peer(PeerEvent::Connected(peer(number))));
        }
        self.connected.remove(&number);
        self.feed(Input::Peer(PeerEvent::Lost { peer: peer(number), reason: crate::LostReason::Closed }));
        let calls: Vec<_> = self.calls.iter().filter(|(_, call)| call.peer == number).map(|(call, _)| *call).collect();
        for call in calls {
            self.end(call, Some(Fault::Slow));
        }
    }

    fn answer(&mut self) {
        let Some(call) = self.calls.keys().nth(self.rng.random_range(0..6)).copied() else { return };
        if self.rng.random_bool(0.1) {
            return self.end(call, Some(Fault::Slow));
        }
        let open = self.calls.get_mut(&call).expect("it is under way");
        let count = self.rng.random_range(0..=open.left.len());
        let part: Vec<_> = open.left.drain(..count).collect();
        let is_over = open.left.is_empty();
        let (found, missing): (Vec<_>, Vec<_>) = part.into_iter().partition(|(_, id)| Self::has(open.peer, *id));
        let positions = |part: Vec<(u32, ObjectId)>| part.into_iter().map(|(position, _)| position).collect();
        self.feed(Input::Arrived { call, found: positions(found), missing: positions(missing), bytes: 1 });
        if is_over {
            self.end(call, None);
        }
    }

    fn end(&mut self, call: u64, fault: Option<Fault>) {
        if self.calls.remove(&call).is_some() {
            let failure = fault.map(|fault| PeerFailure::new(fault, "a test"));
            self.feed(Input::Ended { call, failure, is_unsupported: false });
        }
    }

    /// Lets every request come to its end.
    fn drain(&mut self) {
        for _ in 0..200 {
            self.answer();
            self.solo.now += Duration::from_millis(20);
            self.feed(Input::Wake);
        }
        assert!(self.requests.is_empty(), "{} requests have no answer", self.requests.len());
        let snapshot = self.solo.core.snapshot();
        assert_eq!((snapshot.wanted, snapshot.requests), (0, 0));
    }
}

#[test]
fn every_object_of_every_request_is_answered_once_whatever_peers_do() {
    let mut answered: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..200 {
        let mut world = World::new(seed);
        for _ in 0..300 {
            world.step();
        }
        world.drain();
        for (name, count) in world.answered {
            *answered.entry(name).or_default() += count;
        }
    }
    assert!(["found", "not found", "late"].iter().all(|name| answered[name] > 100), "all is tried: {answered:?}");
}
