//! Whatever comes in, in whatever order.

use super::{
    network::{at, message, ms, peer},
    solo::OWN,
};
use crate::{
    broadcast::{Broadcast, Config, Control, Effect, Input, MessageInfo, MessageVerdict, StreamKey, frame_bytes},
    core::{Core, LostReason, PeerEvent},
};
use proptest::prelude::*;
use soma_types::{Author, MessageId, PeerId, Topic};
use std::collections::{BTreeMap, BTreeSet};

/// Few of everything, so that inputs meet.
fn author() -> impl Strategy<Value = Author> {
    prop_oneof![(0..5u32).prop_map(Author::Authority), (0..3usize).prop_map(|index| Author::Peer(peer(index)))]
}

/// The id covers the topic.
fn any_message(topic: Topic) -> impl Strategy<Value = MessageInfo> {
    let bytes = prop_oneof![Just(100), Just(20_000), Just(300_000)];
    (author(), 0..6u64, 0..4u64, bytes).prop_map(move |(author, number, epoch, bytes)| {
        let info = message(author, (number * 4 + epoch) * 4 + u64::from(topic.number()), bytes);
        MessageInfo { epoch, ..info }
    })
}

fn ids(topic: Topic) -> impl Strategy<Value = Vec<MessageId>> {
    prop::collection::vec(any_message(topic).prop_map(|message| message.id), 0..4)
}

fn control(topic: Topic) -> impl Strategy<Value = Control> {
    let authors = || prop::collection::vec(author(), 0..3);
    (ids(topic), ids(topic), ids(topic), authors(), authors())
        .prop_map(|(have, want, do_not_send, graft, prune)| Control { have, want, do_not_send, graft, prune })
}

fn topic() -> impl Strategy<Value = Topic> {
    prop::sample::select(Topic::ALL.to_vec())
}

fn topic_of(stream: StreamKey) -> Topic {
    Topic::ALL[stream.0 as usize % 3]
}

fn frame(stream: StreamKey) -> impl Strategy<Value = Input> {
    let messages = prop::collection::vec(any_message(topic_of(stream)), 0..5);
    let frame = (messages, control(topic_of(stream)));
    frame.prop_map(move |(messages, control)| Input::Received { stream, frame: 0, messages, control })
}

fn from() -> impl Strategy<Value = PeerId> {
    prop_oneof![0..4usize, OWN + 1..OWN + 4].prop_map(peer)
}

fn verdict() -> impl Strategy<Value = MessageVerdict> {
    prop_oneof![
        4 => Just(MessageVerdict::Accept { slot: None }),
        2 => (0..2u64).prop_map(|slot| MessageVerdict::Accept { slot: Some(slot) }),
        1 => Just(MessageVerdict::Ignore),
        1 => Just(MessageVerdict::Reject),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    let key = || (1..16u64).prop_map(StreamKey);
    let links = prop_oneof![
        Just(Input::Wake),
        from().prop_map(|peer| Input::Peer(PeerEvent::Connected(peer))),
        from().prop_map(|peer| Input::Peer(PeerEvent::Lost { peer, reason: LostReason::Closed })),
        (0..4u64, any::<bool>()).prop_map(|(epoch, is_validator)| Input::Committee {
            epoch,
            validators: (0..4).chain([OWN]).map(peer).collect(),
            is_validator,
        }),
        (key(), from()).prop_map(|(stream, peer)| Input::Opened {
            stream,
            peer,
            topic: topic_of(stream),
            by_us: stream.0 % 2 == 0,
            max_message_bytes: 200_000,
        }),
        (key(), any::<bool>()).prop_map(|(stream, is_unsupported)| Input::Closed {
            stream,
            fault: None,
            is_unsupported
        }),
        (key(), 0..100_000u64).prop_map(|(stream, bytes)| Input::Written { stream, bytes }),
    ];
    let publish = |topic| any_message(topic).prop_map(move |message| Input::Publish { topic, message });
    let checked = (0..40u64, prop::option::weighted(0.9, prop::collection::vec(verdict(), 1..4)));
    prop_oneof![
        6 => links,
        2 => topic().prop_flat_map(publish),
        6 => key().prop_flat_map(frame),
        6 => checked.prop_map(|(check, verdicts)| Input::Checked { check, verdicts }),
    ]
}

/// What must hold of the effects, whatever the inputs were.
#[derive(Default)]
struct Shell {
    held: BTreeMap<MessageId, MessageInfo>,
    accepted: BTreeSet<MessageId>,
    checks: BTreeMap<u64, Vec<MessageId>>,
    frames: u64,
    untaken: BTreeSet<u64>,
}

impl Shell {
    /// Makes an input possible: frames have numbers of their own, a check has as many verdicts as messages.
    fn adapt(&mut self, input: Input) -> Input {
        match input {
            Input::Received { stream, messages, control, .. } => {
                self.frames += 1;
                self.untaken.insert(self.frames);
                self.held.extend(messages.iter().map(|message| (message.id, *message)));
                Input::Received { stream, frame: self.frames, messages, control }
            }
            Input::Publish { topic, message } => {
                self.held.insert(message.id, message);
                self.accepted.insert(message.id);
                Input::Publish { topic, message }
            }
            Input::Checked { check, verdicts } => {
                let waiting = self.checks.keys().nth(check as usize % self.checks.len().max(1)).copied();
                let Some(check) = waiting else { return Input::Wake };
                let messages = self.checks.remove(&check).unwrap_or_default();
                let given = verdicts.map(|given| given.into_iter().cycle().take(messages.len()).collect::<Vec<_>>());
                for (id, verdict) in messages.iter().zip(given.iter().flatten()) {
                    if matches!(verdict, MessageVerdict::Accept { .. }) {
                        self.accepted.insert(*id);
                    }
                }
                Input::Checked { check, verdicts: given }
            }
            input => input,
        }
    }

    fn perform(&mut self, effect: &Effect) {
        match effect {
            Effect::Send { messages, control, .. } => {
                assert!(messages.iter().chain(&control.have).all(|id| self.held.contains_key(id)), "held");
                assert!(messages.iter().chain(&control.have).all(|id| self.accepted.contains(id)), "checked");
                let payloads = messages.iter().map(|id| u64::from(self.held[id].bytes)).sum();
                assert!(frame_bytes(payloads, messages.len(), control) > 0);
            }
            Effect::Check { check, messages, .. } => {
                assert!(messages.iter().all(|id| self.held.contains_key(id)));
                self.checks.insert(*check, messages.clone());
            }
            Effect::Taken { frame } => assert!(self.untaken.remove(frame), "taken once"),
            Effect::Deliver { messages, .. } => {
                assert!(messages.iter().all(|id| self.held.contains_key(id) && self.accepted.contains(id)));
            }
            Effect::Equivocation { first, second, .. } => {
                assert!(first != second && [first, second].iter().all(|id| self.held.contains_key(id)));
            }
            Effect::Forget { messages } => self.held.retain(|id, _| !messages.contains(id)),
            Effect::Open { .. } | Effect::Close { .. } | Effect::Report { .. } => {}
        }
    }
}

fn written_down(core: &Broadcast) -> Vec<u8> {
    bincode::serde::encode_to_vec(core, bincode::config::standard()).expect("encoding into memory does not fail")
}

fn read_back(bytes: &[u8]) -> Broadcast {
    bincode::serde::decode_from_slice(bytes, bincode::config::standard()).expect("it was written down").0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn shell_holds_what_the_core_uses_and_nothing_else(inputs in prop::collection::vec((input(), 0..400u64), 1..150)) {
        let config = Config { history_bytes: 400_000, ..Config::new(peer(OWN), 1) };
        let (mut core, mut shell, mut now) = (Broadcast::new(config), Shell::default(), ms(1));
        for (input, wait) in inputs {
            now += ms(wait);
            let input = shell.adapt(input);
            for effect in core.handle(at(now), input) {
                shell.perform(&effect);
            }
            let leaked: Vec<&MessageId> = shell.held.keys().filter(|id| !core.holds(id)).collect();
            prop_assert!(leaked.is_empty(), "{leaked:?}");
        }
    }

    #[test]
    fn core_that_was_written_down_goes_on_as_before(inputs in prop::collection::vec((input(), 0..400u64), 1..100)) {
        let config = Config { relays_consensus: true, ..Config::new(peer(OWN), 1) };
        let (mut core, mut shell, mut now) = (Broadcast::new(config), Shell::default(), ms(1));
        for (input, wait) in inputs {
            now += ms(wait);
            let input = shell.adapt(input);
            let bytes = written_down(&core);
            let mut other = read_back(&bytes);
            prop_assert_eq!(&written_down(&other), &bytes);
            let effects = core.handle(at(now), input.clone());
            prop_assert_eq!(&other.handle(at(now), input), &effects);
            prop_assert_eq!(other.next_wake(), core.next_wake());
            prop_assert_eq!(other.snapshot(), core.snapshot());
            effects.iter().for_each(|effect| shell.perform(effect));
        }
    }
}
