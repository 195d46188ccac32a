//! Checks, epochs, and authors that contradict themselves.

use super::{
    network::{ms, peer},
    solo::{ACCEPT, Solo, by},
};
use crate::broadcast::{Effect, Input, MessageInfo, MessageVerdict};
use soma_types::Topic;

const TOPIC: Topic = Topic::Certificates;

#[test]
fn nothing_is_delivered_or_sent_before_its_check() {
    let mut solo = Solo::new();
    let (one, other) = (solo.open(1, 1, TOPIC), solo.open(3, 2, TOPIC));
    solo.take();
    let frame = solo.receive(one, &[by(0, 1), by(0, 2)]);
    assert!(solo.delivered().is_empty() && solo.sent(other).is_empty() && solo.taken().is_empty());
    solo.check(ACCEPT);
    let ids = [by(0, 1).id, by(0, 2).id];
    assert_eq!((solo.delivered(), solo.sent(other), solo.taken()), (ids.to_vec(), ids.to_vec(), vec![frame]));
    assert!(solo.sent(one).is_empty());
}

#[test]
fn one_frame_leads_to_one_check_one_delivery_and_one_send_for_each_stream() {
    let mut solo = Solo::new();
    let streams: Vec<_> = (0..4).map(|from| solo.open(1 + 2 * from, from as usize, TOPIC)).collect();
    solo.take();
    let messages: Vec<MessageInfo> = (0..200).map(|number| by(number as u32 % 4, number)).collect();
    solo.receive(streams[0], &messages);
    solo.check(ACCEPT);
    let count = |is: fn(&Effect) -> bool| solo.effects.iter().filter(|effect| is(effect)).count();
    assert_eq!(count(|effect| matches!(effect, Effect::Check { .. })), 1);
    assert_eq!(count(|effect| matches!(effect, Effect::Deliver { .. })), 1);
    assert_eq!(count(|effect| matches!(effect, Effect::Send { .. })), 3);
}

#[test]
fn copies_that_come_meanwhile_are_not_checked_again() {
    let mut solo = Solo::new();
    let (one, other) = (solo.open(1, 1, TOPIC), solo.open(3, 2, TOPIC));
    let first = solo.receive(one, &[by(0, 1)]);
    let second = solo.receive(other, &[by(0, 1)]);
    assert_eq!(solo.checks.len(), 1);
    assert_eq!(solo.taken(), [second]);
    solo.check(ACCEPT);
    assert_eq!(solo.taken(), [second, first]);
    assert_eq!(solo.controls(other).prune, [by(0, 1).author]);
}

#[test]
fn at_most_two_checks_of_a_topic_run_at_once() {
    let mut solo = Solo::new();
    let streams = Topic::ALL.map(|topic| solo.open(1 + 2 * topic as u64, 1, topic));
    for number in 0..10 {
        for stream in streams {
            solo.receive(stream, &[by(stream.0 as u32, number)]);
        }
    }
    assert_eq!(solo.checks.len(), 6);
    let (check, messages) = solo.checks.remove(0);
    assert_eq!(messages.len(), 1);
    solo.input(Input::Checked { check, verdicts: Some(vec![ACCEPT]) });
    assert_eq!(solo.checks.last().map(|(_, messages)| messages.len()), Some(8), "what came meanwhile is one check");
}

#[test]
fn sender_of_a_wrong_message_pays_once_for_a_frame() {
    let mut solo = Solo::new();
    let stream = solo.open(1, 1, TOPIC);
    solo.receive(stream, &[by(0, 1), by(0, 2)]);
    solo.check(MessageVerdict::Reject);
    assert_eq!(solo.reports(), [peer(1)]);
    assert!(solo.delivered().is_empty() && solo.held.is_empty());
}

#[test]
fn right_copy_is_asked_for_after_a_wrong_one() {
    let mut solo = Solo::new();
    let (liar, honest) = (solo.open(1, 1, TOPIC), solo.open(3, 2, TOPIC));
    solo.receive(liar, &[by(0, 1)]);
    solo.receive(honest, &[by(0, 1)]);
    solo.check(MessageVerdict::Reject);
    assert_eq!(solo.reports(), [peer(1)]);
    assert_eq!(solo.controls(honest).want, [by(0, 1).id]);
    solo.accept(honest, &[by(0, 1)]);
    assert_eq!(solo.delivered(), [by(0, 1).id]);
}

#[test]
fn peer_that_lied_and_left_is_reported() {
    let mut solo = Solo::new();
    let stream = solo.open(1, 1, TOPIC);
    solo.receive(stream, &[by(0, 1)]);
    solo.input(Input::Closed { stream, fault: None, is_unsupported: false });
    solo.check(MessageVerdict::Reject);
    assert_eq!(solo.reports(), [peer(1)]);
    assert!(solo.taken().is_empty());
}

#[test]
fn ignored_message_costs_nobody_and_is_not_checked_again() {
    let mut solo = Solo::new();
    let (one, other) = (solo.open(1, 1, TOPIC), solo.open(3, 2, TOPIC));
    solo.receive(one, &[by(0, 1)]);
    solo.check(MessageVerdict::Ignore);
    solo.receive(other, &[by(0, 1)]);
    assert!(solo.reports().is_empty() && solo.delivered().is_empty() && solo.sent(other).is_empty());
    assert!(solo.checks.is_empty() && solo.held.is_empty());
}

#[test]
fn failed_check_is_repeated_in_smaller_parts_then_forgotten() {
    let mut solo = Solo::new();
    let stream = solo.open(1, 1, TOPIC);
    let messages: Vec<MessageInfo> = (0..64).map(|number| by(0, number)).collect();
    let frame = solo.receive(stream, &messages);
    assert_eq!(solo.fail_checks(), 1);
    assert!(solo.checks.is_empty(), "not at once");
    let mut checked = 0;
    while solo.taken().is_empty() {
        solo.pass(ms(200));
        checked += solo.fail_checks();
        assert!(checked <= 66);
    }
    assert_eq!((checked, solo.taken()), (66, vec![frame]));
    assert!(solo.held.is_empty() && solo.reports().is_empty());
    solo.accept(stream, &messages[..1]);
    assert_eq!(solo.delivered(), [messages[0].id], "it may come again");
}

#[test]
fn verdicts_for_another_number_of_messages_are_a_failed_check() {
    let mut solo = Solo::new();
    let stream = solo.open(1, 1, TOPIC);
    solo.receive(stream, &[by(0, 1), by(0, 2)]);
    let (check, _) = solo.checks.remove(0);
    solo.input(Input::Checked { check, verdicts: Some(vec![ACCEPT]) });
    assert!(solo.delivered().is_empty());
    solo.pass(ms(200));
    solo.check(ACCEPT);
    assert_eq!(solo.delivered().len(), 2);
}

#[test]
fn message_of_the_next_epoch_waits_for_it() {
    let mut solo = Solo::new();
    let stream = solo.open(1, 1, TOPIC);
    let early = MessageInfo { epoch: 2, ..by(0, 1) };
    let frame = solo.receive(stream, &[early]);
    assert_eq!(solo.taken(), [frame]);
    assert!(solo.checks.is_empty());
    solo.committee(2, false);
    solo.check(ACCEPT);
    assert_eq!(solo.delivered(), [early.id]);
    assert_eq!(solo.taken(), [frame], "taken once");
}

#[test]
fn messages_of_the_last_epoch_are_valid_and_those_before_are_not() {
    let mut solo = Solo::new();
    let stream = solo.open(1, 1, TOPIC);
    solo.committee(3, false);
    let of = |epoch| MessageInfo { epoch, ..by(0, epoch) };
    solo.receive(stream, &[of(1), of(2), of(3), of(5)]);
    solo.check(ACCEPT);
    assert_eq!(solo.delivered(), [of(2).id, of(3).id]);
    assert!(!solo.held.contains(&of(1).id) && !solo.held.contains(&of(5).id));
    assert!(solo.reports().is_empty());
}

#[test]
fn messages_before_the_first_committee_wait_for_it() {
    use crate::{
        broadcast::{Broadcast, Config, Control, StreamKey},
        core::Core,
    };
    let mut core = Broadcast::new(Config::new(peer(9), 1));
    let now = super::network::at(ms(1));
    let stream = StreamKey(1);
    let opened = Input::Opened { stream, peer: peer(1), topic: TOPIC, by_us: false, max_message_bytes: 1_000 };
    core.handle(now, opened);
    let messages = vec![by(0, 1)];
    core.handle(now, Input::Received { stream, frame: 1, messages, control: Control::default() });
    let committee = Input::Committee { epoch: 1, validators: vec![peer(0)], is_validator: false };
    let effects = core.handle(now, committee);
    assert!(matches!(effects.as_slice(), [Effect::Check { messages, .. }] if *messages == [by(0, 1).id]));
}

#[test]
fn contradicting_author_is_told_once_and_its_second_message_sent_on() {
    let mut solo = Solo::new();
    let (one, other) = (solo.open(1, 1, TOPIC), solo.open(3, 2, TOPIC));
    let verdict = MessageVerdict::Accept { slot: Some(7) };
    for number in 0..3 {
        solo.receive(one, &[by(0, number)]);
        solo.check(verdict);
    }
    let found = |effect: &Effect| match effect {
        Effect::Equivocation { first, second, .. } => Some((*first, *second)),
        _ => None,
    };
    let found: Vec<_> = solo.effects.iter().filter_map(found).collect();
    assert_eq!(found, [(by(0, 0).id, by(0, 1).id)]);
    assert_eq!(solo.delivered(), [by(0, 0).id]);
    assert_eq!(solo.sent(other), [by(0, 0).id, by(0, 1).id]);
    assert_eq!(solo.core.snapshot_of().equivocations, 1);
    assert!(solo.reports().is_empty(), "the sender did no wrong");
}

#[test]
fn signature_is_left_out_only_if_nobody_gets_the_message_from_here() {
    let signatures = |relays_consensus, is_validator, sender| {
        let mut solo = Solo::with(|config| crate::broadcast::Config { relays_consensus, ..config }, is_validator);
        let stream = solo.open(1, sender, Topic::Consensus);
        solo.receive(stream, &[by(0, 1)]);
        let of = |effect: &Effect| if let Effect::Check { signatures, .. } = effect { Some(*signatures) } else { None };
        solo.effects.iter().find_map(of)
    };
    assert_eq!(signatures(false, false, 0), Some(false));
    assert_eq!(signatures(false, false, 1), Some(true));
    assert_eq!(signatures(true, false, 0), Some(true));
    assert_eq!(signatures(false, true, 0), Some(true));
}
