use super::{
    peers::{LACKS_FOR, MAX_LACKED, OWN_PAUSE},
    *,
};
use soma_types::{ObjectId, ObjectKind};

mod random;

fn id(number: u32) -> ObjectId {
    ObjectId::of(&[&number.to_le_bytes()])
}

fn ids(numbers: std::ops::Range<u32>) -> Vec<ObjectId> {
    numbers.map(id).collect()
}

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

/// A core, and the time.
struct Solo {
    core: Objects,
    now: Duration,
    requests: u64,
}

impl Solo {
    fn new(peers: impl IntoIterator<Item = u8>) -> Self {
        Self::with(Config::default(), peers)
    }

    fn with(config: Config, peers: impl IntoIterator<Item = u8>) -> Self {
        let mut solo = Self { core: Objects::new(config), now: Duration::ZERO, requests: 0 };
        for number in peers {
            solo.feed(Input::Peer(PeerEvent::Connected(peer(number))));
        }
        solo
    }

    fn feed(&mut self, input: Input) -> Vec<Effect> {
        self.core.handle(Now { monotonic: self.now, unix_ms: 0 }, input)
    }

    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        self.feed(Input::Wake)
    }

    /// Requests objects for ten seconds.
    fn fetch(&mut self, ids: Vec<ObjectId>) -> Vec<Effect> {
        self.fetch_from(ids, None)
    }

    fn fetch_from(&mut self, ids: Vec<ObjectId>, first_from: Option<PeerId>) -> Vec<Effect> {
        self.requests += 1;
        let within = Duration::from_secs(10);
        let (request, kind) = (self.requests, ObjectKind::OBJECT);
        self.feed(Input::Fetch { request, kind, ids, within, first_from })
    }

    fn found(&mut self, call: u64, positions: &[u32]) -> Vec<Effect> {
        self.feed(Input::Arrived { call, found: positions.to_vec(), missing: Vec::new(), bytes: 10 })
    }

    fn missing(&mut self, call: u64, positions: &[u32]) -> Vec<Effect> {
        self.feed(Input::Arrived { call, found: Vec::new(), missing: positions.to_vec(), bytes: 0 })
    }

    fn ended(&mut self, call: u64) -> Vec<Effect> {
        self.feed(Input::Ended { call, failure: None, is_unsupported: false })
    }

    fn failed(&mut self, call: u64, fault: Fault) -> Vec<Effect> {
        let failure = Some(PeerFailure::new(fault, "a test"));
        self.feed(Input::Ended { call, failure, is_unsupported: false })
    }
}

fn call(call: u64, to: u8, ids: Vec<ObjectId>) -> Effect {
    Effect::Call { call, peer: peer(to), kind: ObjectKind::OBJECT, ids }
}

fn answer(request: u64, ids: Vec<ObjectId>, answer: Answer) -> Effect {
    Effect::Answer { request, ids, answer }
}

#[test]
fn equal_wishes_are_asked_for_once_and_all_answered() {
    let mut solo = Solo::new([1]);
    assert_eq!(solo.fetch(ids(0..2)), [call(1, 1, ids(0..2))]);
    assert_eq!(solo.fetch(ids(1..3)), [call(2, 1, ids(2..3))], "object 1 is on its way");
    let answers = solo.found(1, &[0, 1]);
    assert_eq!(answers, [answer(1, ids(0..2), Answer::Found), answer(2, ids(1..2), Answer::Found)]);
    assert_eq!(solo.found(2, &[0]), [answer(2, ids(2..3), Answer::Found)]);
    let snapshot = solo.core.snapshot();
    assert_eq!((snapshot.requests, snapshot.wanted, snapshot.found), (0, 0, 4));
}

#[test]
fn a_missing_object_is_asked_for_at_one_peer_after_the_other_and_then_not_found() {
    let mut solo = Solo::new([1, 2]);
    assert_eq!(solo.fetch(ids(0..1)), [call(1, 1, ids(0..1))]);
    assert_eq!(solo.missing(1, &[0]), [call(2, 2, ids(0..1))]);
    assert_eq!(solo.ended(1), []);
    assert_eq!(solo.missing(2, &[0]), [answer(1, ids(0..1), Answer::NotFound { asked: 2 })]);
    assert_eq!(solo.ended(2), []);
    assert_eq!(solo.core.snapshot().not_found, 1);
}

#[test]
fn the_peer_that_sent_the_reference_is_asked_first() {
    let mut solo = Solo::new([1, 2, 3]);
    assert_eq!(solo.fetch_from(ids(0..1), Some(peer(3))), [call(1, 3, ids(0..1))]);
    assert_eq!(solo.missing(1, &[0]), [call(2, 1, ids(0..1))], "then the others");
}

#[test]
fn many_objects_are_shared_among_peers() {
    let mut solo = Solo::new([1, 2, 3]);
    let effects = solo.fetch(ids(0..300));
    assert_eq!(effects, [call(1, 1, ids(0..100)), call(2, 2, ids(100..200)), call(3, 3, ids(200..300))]);
}

#[test]
fn chunks_of_snapshots_are_asked_for_a_few_at_a_time() {
    let mut solo = Solo::new([1]);
    let kind = ObjectKind::SNAPSHOT_CHUNK;
    let within = Duration::from_secs(10);
    let effects = solo.feed(Input::Fetch { request: 1, kind, ids: ids(0..100), within, first_from: None });
    let asked = effects.iter().map(|effect| match effect {
        Effect::Call { ids, .. } => ids.len(),
        effect => panic!("{effect:?}"),
    });
    assert_eq!(asked.collect::<Vec<_>>(), [4, 4, 4, 4], "four calls to one peer");
}

#[test]
fn a_silent_peer_holds_up_no_object_that_the_third_peer_has() {
    let mut solo = Solo::new([1, 2, 3]);
    assert_eq!(solo.fetch(ids(0..1)), [call(1, 1, ids(0..1))]);
    let late_at = solo.core.next_wake().expect("it waits");
    assert_eq!(solo.pass(late_at), [call(2, 2, ids(0..1))], "the first peer is silent");
    solo.pass(Duration::from_millis(1));
    assert_eq!(solo.missing(2, &[0]), [call(3, 3, ids(0..1))], "it is still silent, and the second one lacks it");
    assert_eq!(solo.ended(2), []);
    solo.pass(Duration::from_millis(1));
    assert_eq!(solo.found(3, &[0]), [answer(1, ids(0..1), Answer::Found), Effect::Cancel { call: 1 }]);
    // From now on it is asked last.
    let Effect::Call { call: next, peer: asked, .. } = solo.fetch(ids(1..2)).remove(0) else {
        panic!("nobody is asked")
    };
    assert_eq!(asked, peer(3));
    let Effect::Call { peer: asked, .. } = solo.missing(next, &[0]).remove(0) else { panic!("nobody is asked") };
    assert_eq!(asked, peer(2));
}

#[test]
fn a_late_peer_gets_a_rival_and_the_slower_call_is_ended() {
    let mut solo = Solo::new([1, 2]);
    assert_eq!(solo.fetch_from(ids(0..1), Some(peer(1))), [call(1, 1, ids(0..1))]);
    let late_at = solo.core.next_wake().expect("it waits");
    assert_eq!(solo.pass(late_at - Duration::from_millis(1)), []);
    assert_eq!(solo.pass(Duration::from_millis(1)), [call(2, 2, ids(0..1))]);
    let effects = solo.found(2, &[0]);
    assert_eq!(effects, [answer(1, ids(0..1), Answer::Found), Effect::Cancel { call: 1 }]);
    assert_eq!(solo.found(1, &[0]), [], "it comes too late");
    assert_eq!(solo.core.snapshot().hedges, 1);
}

#[test]
fn what_a_failed_call_did_not_bring_is_asked_for_elsewhere_and_the_peer_has_a_pause() {
    let mut solo = Solo::new([1, 2]);
    solo.fetch_from(ids(0..3), Some(peer(1)));
    solo.found(1, &[0]);
    let effects = solo.failed(1, Fault::Slow);
    let report = Effect::Report { peer: peer(1), failure: PeerFailure::new(Fault::Slow, "a test") };
    assert_eq!(effects, [report, call(2, 2, ids(1..3))]);
    assert_eq!(solo.fetch_from(ids(5..6), Some(peer(1))), [call(3, 2, ids(5..6))]);
}

#[test]
fn a_failure_of_this_node_costs_the_peer_nothing() {
    let mut solo = Solo::new([1]);
    solo.fetch(ids(0..1));
    assert_eq!(solo.failed(1, Fault::Ours), []);
    assert_eq!(solo.pass(OWN_PAUSE), [call(2, 1, ids(0..1))], "after a moment");
}

#[test]
fn requests_are_answered_at_their_deadline_and_their_calls_ended() {
    let mut solo = Solo::new([1]);
    solo.fetch(ids(0..1));
    let effects = solo.pass(Duration::from_secs(10));
    assert_eq!(effects, [answer(1, ids(0..1), Answer::Late { asked: 0 }), Effect::Cancel { call: 1 }]);
    assert_eq!(solo.core.snapshot().late, 1);
}

#[test]
fn without_a_peer_that_has_objects_a_request_waits_for_one() {
    let mut solo = Solo::new([]);
    assert_eq!(solo.fetch(ids(0..1)), []);
    solo.feed(Input::Peer(PeerEvent::Connected(peer(1))));
    let effects = solo.feed(Input::Ended { call: 1, failure: None, is_unsupported: true });
    assert_eq!(effects, [], "the only peer has no objects at all");
    assert_eq!(solo.feed(Input::Peer(PeerEvent::Connected(peer(2)))), [call(2, 2, ids(0..1))]);
}

#[test]
fn a_call_is_ended_when_its_last_request_is_dropped() {
    let mut solo = Solo::new([1]);
    solo.fetch(ids(0..2));
    solo.fetch(ids(1..2));
    assert_eq!(solo.feed(Input::Dropped { request: 1 }), [], "object 1 is still wanted");
    assert_eq!(solo.feed(Input::Dropped { request: 2 }), [Effect::Cancel { call: 1 }]);
    assert_eq!(solo.core.snapshot(), Snapshot { peers: 1, ..Snapshot::default() });
}

#[test]
fn a_peer_that_lacked_an_object_is_not_asked_again_for_a_short_time() {
    let mut solo = Solo::new([1]);
    solo.fetch(ids(0..1));
    assert_eq!(solo.missing(1, &[0]), [answer(1, ids(0..1), Answer::NotFound { asked: 1 })]);
    solo.ended(1);
    solo.pass(LACKS_FOR - Duration::from_millis(1));
    assert_eq!(solo.fetch(ids(0..1)), [answer(2, ids(0..1), Answer::NotFound { asked: 1 })], "from memory");
    solo.pass(Duration::from_millis(1));
    assert_eq!(solo.fetch(ids(0..1)), [call(2, 1, ids(0..1))]);
}

#[test]
fn memory_of_lacked_objects_has_a_bound() {
    let mut solo = Solo::new([1]);
    for round in 0..6 {
        solo.fetch(ids(round * 1_000..(round + 1) * 1_000));
        let call = u64::from(round) + 1;
        solo.missing(call, &(0..1_000).collect::<Vec<_>>());
        solo.ended(call);
    }
    let lacked = |numbers: std::ops::Range<u32>| {
        let keys = ids(numbers).into_iter().map(|id| (ObjectKind::OBJECT, id));
        keys.filter(|key| solo.core.peers[&peer(1)].lacks(key, solo.now)).count()
    };
    assert_eq!(lacked(0..6_000), MAX_LACKED);
    assert_eq!(lacked(5_000..6_000), 1_000, "the latest are remembered");
}

#[test]
fn a_request_beyond_the_limit_is_refused() {
    let mut solo = Solo::with(Config { max_wanted: 10, ..Config::default() }, []);
    assert_eq!(solo.fetch(ids(0..10)), []);
    assert_eq!(solo.fetch(ids(10..11)), [Effect::Refuse { request: 2 }]);
}

#[test]
fn requests_that_end_leave_nothing_in_the_queue() {
    let mut solo = Solo::new([]);
    for _ in 0..3 {
        solo.fetch(ids(0..100));
        assert_eq!(solo.core.wishes.queued(), 100);
        solo.pass(Duration::from_secs(10));
        assert_eq!(solo.core.wishes.queued(), 0, "no peer was there to ask");
    }
    solo.fetch(ids(0..100));
    solo.feed(Input::Dropped { request: 4 });
    assert_eq!(solo.core.wishes.queued(), 0);
}

#[test]
fn a_peer_that_comes_back_has_no_more_calls_than_it_may() {
    let mut solo = Solo::with(Config { max_calls_per_peer: 1, ..Config::default() }, [1]);
    assert_eq!(solo.fetch(ids(0..1)), [call(1, 1, ids(0..1))]);
    solo.feed(Input::Peer(PeerEvent::Lost { peer: peer(1), reason: crate::LostReason::Closed }));
    solo.feed(Input::Peer(PeerEvent::Connected(peer(1))));
    assert_eq!(solo.fetch(ids(1..2)), [], "the call over the earlier link has not ended");
    let effects = solo.failed(1, Fault::Slow);
    assert!(matches!(effects[..], [Effect::Report { .. }]), "{effects:?}");
}

#[test]
fn a_request_may_wait_as_long_as_there_is_time() {
    let mut solo = Solo::new([]);
    solo.now = Duration::from_secs(1);
    let (request, kind, first_from) = (1, ObjectKind::OBJECT, None);
    solo.feed(Input::Fetch { request, kind, ids: ids(0..1), within: Duration::MAX, first_from });
    assert_eq!(solo.core.snapshot().requests, 1);
}

#[test]
fn faster_peers_are_preferred() {
    let mut solo = Solo::new([1, 2]);
    for round in 0..10 {
        for (to, wait) in [(1, 20), (2, 2)] {
            let number = round * 10 + to;
            let effects = solo.fetch_from(ids(number..number + 1), Some(peer(to as u8)));
            let [Effect::Call { call, .. }] = effects[..] else { panic!("{effects:?}") };
            solo.pass(Duration::from_millis(wait));
            solo.found(call, &[0]);
            solo.ended(call);
        }
    }
    let effects = solo.fetch(ids(1_000..1_001));
    assert!(matches!(effects[..], [Effect::Call { peer: to, .. }] if to == peer(2)), "{effects:?}");
}
