//! What hostile peers cannot do.

use super::{
    network::{message, ms, peer},
    solo::{Solo, by},
};
use crate::{
    broadcast::{Config, Control, Input, MessageInfo, MessageVerdict},
    core::Core,
};
use soma_types::{Author, MessageId, PeerId, Topic};

const TOPIC: Topic = Topic::Transactions;

fn made_up(from: u64, count: u64) -> Vec<MessageId> {
    (from..from + count).map(|number| MessageId::of(&[b"made up", &number.to_le_bytes()])).collect()
}

#[test]
fn lacking_message_is_asked_for_after_a_wait_from_one_announcer_after_the_other() {
    let mut solo = Solo::new();
    let (liar, honest) = (solo.open(1, 1, TOPIC), solo.open(3, 2, TOPIC));
    solo.have(liar, vec![by(0, 1).id]);
    solo.have(honest, vec![by(0, 1).id]);
    assert!(solo.controls(liar).want.is_empty());
    solo.pass(ms(150));
    assert_eq!((solo.controls(liar).want.len(), solo.controls(honest).want.len()), (1, 0));
    solo.pass(ms(500));
    assert_eq!((solo.controls(liar).want.len(), solo.controls(honest).want.len()), (1, 1));
    solo.accept(honest, &[by(0, 1)]);
    assert_eq!(solo.delivered(), [by(0, 1).id]);
    assert_eq!(solo.controls(honest).graft, [by(0, 1).author]);
    assert_eq!(solo.core.snapshot_of().topics[&TOPIC].recovered, 1);
}

#[test]
fn peer_that_announces_and_never_delivers_is_not_believed() {
    let mut solo = Solo::new();
    let liar = solo.open(1, 1, TOPIC);
    solo.have(liar, made_up(0, 100));
    solo.pass(ms(1_000));
    assert_eq!(solo.controls(liar).want.len(), 100);
    solo.take();
    for round in 1..50 {
        solo.have(liar, made_up(round * 1_000, 1_000));
        solo.pass(ms(1_000));
    }
    assert!(solo.controls(liar).want.is_empty());
    let honest = solo.open(3, 2, TOPIC);
    solo.have(honest, made_up(1, 1));
    solo.pass(ms(150));
    assert_eq!(solo.controls(honest).want.len(), 1);
}

#[test]
fn announcements_of_one_peer_take_no_place_of_others() {
    let mut solo = Solo::new();
    let (liar, honest) = (solo.open(1, 1, TOPIC), solo.open(3, 2, TOPIC));
    for round in 0..50 {
        solo.have(liar, made_up(round * 1_024, 1_024));
    }
    solo.have(honest, vec![by(0, 1).id]);
    solo.pass(ms(150));
    assert!(solo.controls(honest).want.contains(&by(0, 1).id));
    assert!(solo.controls(liar).want.len() <= 256);
}

#[test]
fn message_is_sent_once_to_a_peer_that_asks_for_it_ever_again() {
    let mut solo = Solo::new();
    let (source, greedy) = (solo.open(1, 1, TOPIC), solo.open(3, 2, TOPIC));
    solo.accept(source, &[by(0, 1)]);
    solo.take();
    for _ in 0..1_000 {
        solo.want(greedy, vec![by(0, 1).id; 1_000]);
    }
    assert!(solo.sent(greedy).is_empty(), "it was pushed before");
}

#[test]
fn asking_for_made_up_messages_ends_the_stream() {
    let mut solo = Solo::new();
    let stream = solo.open(1, 1, TOPIC);
    for round in 0..30 {
        solo.want(stream, made_up(round * 1_000, 1_000));
    }
    assert_eq!(solo.closed(), [stream]);
    assert_eq!(solo.reports(), [peer(1)]);
}

#[test]
fn spam_of_old_epochs_ends_the_stream_and_the_next_one_too() {
    let mut solo = Solo::new();
    solo.committee(5, false);
    let stream = solo.open(1, 1, TOPIC);
    for round in 0..30 {
        let messages: Vec<MessageInfo> = (0..1_000).map(|number| by(0, round * 1_000 + number)).collect();
        solo.receive(stream, &messages);
    }
    assert_eq!((solo.closed(), solo.reports()), (vec![stream], vec![peer(1)]));
    assert!(solo.held.is_empty());
    let next = solo.open(3, 1, TOPIC);
    assert_eq!(solo.closed(), [stream, next]);
    solo.pass(ms(31_000));
    let later = solo.open(5, 1, TOPIC);
    assert_eq!(solo.closed(), [stream, next]);
    assert!(solo.core.snapshot_of().topics[&TOPIC].peers == 1, "{later:?}");
}

#[test]
fn node_that_is_far_behind_blames_nobody_for_later_epochs() {
    let mut solo = Solo::new();
    let stream = solo.open(1, 1, TOPIC);
    for round in 0..30 {
        let of = |number: u64| MessageInfo { epoch: 50, ..by(0, round * 1_000 + number) };
        solo.receive(stream, &(0..1_000).map(of).collect::<Vec<_>>());
    }
    assert_eq!((solo.closed(), solo.reports()), (vec![stream], Vec::new()));
    solo.committee(50, false);
    solo.take();
    solo.open(3, 1, TOPIC);
    assert!(solo.closed().is_empty(), "the wait is over when this node has caught up");
}

#[test]
fn copies_of_a_peer_that_does_not_heed_prune_end_its_stream() {
    let mut solo = Solo::new();
    let (source, spammer) = (solo.open(1, 1, TOPIC), solo.open(3, 2, TOPIC));
    solo.accept(source, &[by(0, 1)]);
    for _ in 0..40 {
        solo.receive(spammer, &[by(0, 1); 1_000]);
        solo.pass(ms(100));
    }
    assert!(solo.controls(spammer).prune.len() <= 5);
    assert!(solo.closed().is_empty() || solo.closed() == [spammer]);
    for _ in 0..40 {
        solo.receive(spammer, &[by(0, 1); 1_000]);
        solo.pass(ms(100));
    }
    assert_eq!((solo.closed(), solo.reports()), (vec![spammer], vec![peer(2)]));
}

#[test]
fn grafts_and_prunes_without_effect_end_the_stream() {
    let mut solo = Solo::new();
    let stream = solo.open(1, 1, TOPIC);
    let authors: Vec<Author> = (0..200).map(Author::Authority).collect();
    for _ in 0..120 {
        solo.control(stream, Control { graft: authors.clone(), prune: authors.clone(), ..Control::default() });
    }
    assert_eq!(solo.closed(), [stream]);
}

#[test]
fn wrong_message_in_the_name_of_an_author_does_not_become_its_source() {
    let mut solo = Solo::new();
    let (liar, honest) = (solo.open(1, 1, TOPIC), solo.open(3, 2, TOPIC));
    solo.receive(liar, &[by(0, 1)]);
    solo.check(MessageVerdict::Reject);
    solo.accept(honest, &[by(0, 2)]);
    assert!(solo.controls(honest).prune.is_empty());
    assert_eq!(solo.core.snapshot_of().topics[&TOPIC].eager_peers, 1);
}

#[test]
fn kept_messages_stay_within_their_bytes() {
    let mut solo = Solo::with(|config| Config { history_bytes: 100_000, ..config }, false);
    let stream = solo.open(1, 1, TOPIC);
    for number in 0..1_000 {
        solo.accept(stream, &[by(0, number)]);
        assert!(solo.held.len() <= 101);
    }
    let first: Vec<MessageInfo> = (0..100).map(|number| by(0, number)).collect();
    solo.take();
    solo.accept(stream, &first);
    assert!(solo.delivered().is_empty(), "forgotten messages are known for longer");
    solo.pass(ms(31_000));
    assert!(solo.held.is_empty(), "after the time of the history nothing is kept");
    solo.pass(ms(40_000));
    assert!(solo.core.next_wake().is_none_or(|wake| wake > solo.now));
}

#[test]
fn new_authors_without_end_take_bounded_memory_and_others_keep_their_trees() {
    let mut solo = Solo::new();
    let (source, spammer) = (solo.open(1, 1, TOPIC), solo.open(3, 2, TOPIC));
    solo.accept(source, &[by(0, 0)]);
    solo.accept(spammer, &[by(0, 0)]);
    assert_eq!(solo.controls(spammer).prune.len(), 1);
    for round in 0..50 {
        let author = |number: u64| {
            let mut bytes = [7; 32];
            bytes[..8].copy_from_slice(&(round * 200 + number).to_le_bytes());
            message(Author::Peer(PeerId(bytes)), number, 100)
        };
        solo.accept(spammer, &(0..200).map(author).collect::<Vec<_>>());
        solo.pass(ms(10));
        solo.accept(source, &[by(0, round + 1)]);
    }
    solo.take();
    solo.accept(source, &[by(0, 5_000)]);
    solo.receive(spammer, &[by(0, 5_000)]);
    assert!(solo.controls(source).prune.is_empty());
    assert_eq!(solo.controls(spammer).prune, [], "it was asked before, and its tree is still known");
}

#[test]
fn messages_of_a_stream_that_has_ended_are_forgotten() {
    let mut solo = Solo::new();
    let stream = solo.open(1, 1, TOPIC);
    solo.input(Input::Closed { stream, fault: None, is_unsupported: false });
    solo.receive(stream, &[by(0, 1)]);
    assert!(solo.held.is_empty() && solo.checks.is_empty());
}

#[test]
fn message_that_is_too_large_is_not_taken() {
    let mut solo = Solo::with(|config| Config { max_message_bytes: 999, ..config }, false);
    let stream = solo.open(1, 1, TOPIC);
    solo.accept(stream, &[by(0, 1)]);
    assert!(solo.delivered().is_empty() && solo.held.is_empty());
}

#[test]
fn large_message_goes_to_nobody_that_has_it_or_is_about_to_get_it() {
    let mut solo = Solo::new();
    let streams: Vec<_> = (0..4).map(|from| solo.open(1 + 2 * from, from as usize, TOPIC)).collect();
    let large = |number| message(Author::Authority(0), number, 100_000);
    solo.accept(streams[0], &[large(1)]);
    for stream in &streams[1..] {
        assert!(solo.sent(*stream).is_empty());
        assert_eq!(solo.controls(*stream).do_not_send, [large(1).id], "it is offered");
        let graft = vec![large(1).author];
        solo.control(*stream, Control { want: vec![large(1).id], graft, ..Control::default() });
        assert_eq!(solo.sent(*stream), [large(1).id]);
    }
    solo.take();
    solo.control(streams[2], Control { do_not_send: vec![large(2).id], ..Control::default() });
    solo.accept(streams[0], &[large(2)]);
    let sent: Vec<usize> = streams.iter().map(|stream| solo.sent(*stream).len()).collect();
    assert_eq!(sent, [0, 1, 0, 1]);
}
