//! Which streams are opened, and what becomes of slow ones.

use super::{
    network::{message, ms, peer},
    solo::{OWN, Solo, by},
};
use crate::{
    broadcast::{Control, Effect, Input, StreamKey, frame_bytes},
    core::{LostReason, PeerEvent},
};
use soma_types::{Author, Fault, Topic};

#[test]
fn smaller_id_opens_a_stream_of_each_topic_at_once() {
    let mut solo = Solo::new();
    solo.connect(OWN + 1);
    assert_eq!(solo.opening(), Topic::ALL.map(|topic| (peer(OWN + 1), topic)));
}

#[test]
fn larger_id_opens_streams_only_if_the_other_does_not() {
    let mut solo = Solo::new();
    solo.connect(1);
    solo.pass(ms(500));
    assert!(solo.opening().is_empty());
    solo.open(1, 1, Topic::Consensus);
    solo.pass(ms(600));
    assert_eq!(solo.opening(), [(peer(1), Topic::Certificates), (peer(1), Topic::Transactions)]);
}

#[test]
fn of_two_streams_the_one_of_the_smaller_id_stays() {
    for (other, ours_stays) in [(1, false), (OWN + 1, true)] {
        for ours_is_first in [false, true] {
            let mut solo = Solo::new();
            solo.connect(other);
            solo.pass(ms(1_000));
            let ours = StreamKey(4);
            let opened = |stream, by_us| Input::Opened {
                stream,
                peer: peer(other),
                topic: Topic::Certificates,
                by_us,
                max_message_bytes: 1_000,
            };
            let theirs = StreamKey(1);
            let mut inputs = [opened(theirs, false), opened(ours, true)];
            if ours_is_first {
                inputs.reverse();
            }
            inputs.into_iter().for_each(|input| solo.input(input));
            assert_eq!(solo.closed(), [if ours_stays { theirs } else { ours }], "{other} {ours_is_first}");
            assert_eq!(solo.core.snapshot_of().topics[&Topic::Certificates].peers, 1);
        }
    }
}

#[test]
fn peer_that_does_not_know_the_call_is_not_asked_again_on_this_link() {
    let mut solo = Solo::new();
    let other = OWN + 1;
    solo.connect(other);
    for key in [2, 4, 6] {
        solo.input(Input::Closed { stream: StreamKey(key), fault: None, is_unsupported: true });
    }
    solo.take();
    solo.pass(ms(60_000));
    assert!(solo.opening().is_empty() && solo.reports().is_empty());
    solo.input(Input::Peer(PeerEvent::Lost { peer: peer(other), reason: LostReason::Closed }));
    solo.connect(other);
    assert_eq!(solo.opening().len(), 3);
}

#[test]
fn stream_that_fails_is_opened_again_after_growing_waits() {
    let mut solo = Solo::new();
    solo.connect(OWN + 1);
    let mut opened = 0;
    for _ in 0..60 {
        let effects = solo.take();
        for effect in effects {
            if let Effect::Open { stream, .. } = effect {
                opened += 1;
                solo.input(Input::Closed { stream, fault: None, is_unsupported: false });
            }
        }
        solo.pass(ms(1_000));
    }
    assert!((15..30).contains(&opened), "{opened}");
}

#[test]
fn broken_form_is_reported_and_a_lost_connection_is_not() {
    let mut solo = Solo::new();
    for (key, fault) in [(1, Some(Fault::Malformed)), (3, Some(Fault::Slow)), (5, None)] {
        let stream = solo.open(key, key as usize, Topic::Certificates);
        solo.input(Input::Closed { stream, fault, is_unsupported: false });
    }
    assert_eq!(solo.reports(), [peer(1)]);
}

#[test]
fn slow_peer_loses_transactions_and_learns_of_them_later() {
    let mut solo = Solo::new();
    let (slow, quick) = (solo.open(1, 1, Topic::Transactions), solo.open(3, 2, Topic::Transactions));
    let large = |number| message(Author::Authority(3), number, 8_000);
    solo.take();
    for number in 0..300 {
        solo.publish(Topic::Transactions, large(number));
        let bytes = frame_bytes(8_000, 1, &Control::default());
        solo.input(Input::Written { stream: quick, bytes });
    }
    let (sent, all) = (solo.sent(slow).len(), solo.sent(quick).len());
    assert_eq!(all, 300);
    assert!((120..=131).contains(&sent), "1 MiB: {sent}");
    assert_eq!(solo.core.snapshot_of().topics[&Topic::Transactions].dropped, 300 - sent as u64);
    assert!(solo.closed().is_empty() && solo.core.has_room(Topic::Transactions));
    solo.pass(ms(1_000));
    assert!(solo.controls(slow).have.is_empty(), "there is no room yet");
    solo.input(Input::Written { stream: slow, bytes: 1 << 20 });
    solo.pass(ms(400));
    let have = solo.controls(slow).have;
    assert_eq!(have.len(), 300 - sent);
    solo.want(slow, have[..10].to_vec());
    assert_eq!(solo.sent(slow).len(), sent + 10);
}

#[test]
fn slow_consensus_stream_starts_afresh_and_loses_nothing() {
    let mut solo = Solo::with(|config| config, true);
    let slow = solo.open(1, 1, Topic::Consensus);
    let proposal = |number| message(Author::Authority(4), number, 500_000);
    for number in 0..17 {
        solo.publish(Topic::Consensus, proposal(number));
    }
    assert_eq!(solo.sent(slow).len(), 16);
    assert_eq!(solo.closed(), [slow]);
    solo.take();
    let again = solo.open(3, 1, Topic::Consensus);
    assert!(solo.controls(again).have.contains(&proposal(16).id));
    solo.want(again, vec![proposal(16).id]);
    assert_eq!(solo.sent(again), [proposal(16).id]);
}

#[test]
fn there_is_no_room_while_all_queues_are_half_full() {
    let mut solo = Solo::new();
    assert!(solo.core.has_room(Topic::Transactions));
    let stream = solo.open(1, 1, Topic::Transactions);
    for number in 0..80 {
        solo.publish(Topic::Transactions, message(Author::Authority(3), number, 8_000));
    }
    assert!(!solo.core.has_room(Topic::Transactions));
    solo.input(Input::Written { stream, bytes: 400_000 });
    assert!(solo.core.has_room(Topic::Transactions));
}

#[test]
fn message_that_a_peer_does_not_accept_is_not_sent_to_it() {
    let mut solo = Solo::new();
    let stream = StreamKey(1);
    let (topic, max_message_bytes) = (Topic::Transactions, 999);
    solo.input(Input::Opened { stream, peer: peer(1), topic, by_us: false, max_message_bytes });
    solo.publish(topic, by(3, 1));
    assert!(solo.sent(stream).is_empty());
}

#[test]
fn new_stream_begins_with_the_ids_of_the_last_seconds() {
    let mut solo = Solo::new();
    solo.publish(Topic::Transactions, by(3, 1));
    solo.pass(ms(6_000));
    solo.publish(Topic::Transactions, by(3, 2));
    let stream = solo.open(1, 1, Topic::Transactions);
    assert_eq!(solo.controls(stream).have, [by(3, 2).id]);
}
