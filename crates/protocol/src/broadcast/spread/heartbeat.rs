//! What is done from time to time: announcements, repetitions.

use super::Spread;
use crate::broadcast::{
    context::Context,
    link_set::{LinkSet, Slot},
    links::MAX_IDS,
    messages::Sequence,
};
use rand::seq::SliceRandom;
use soma_types::Topic;
use std::{collections::VecDeque, time::Duration};

/// Links to which each message is announced. Of a hundred nodes that lack it, two are told by nobody in this heartbeat.
const ANNOUNCED_TO: usize = 4;

/// The same among validators: a message that its author could not send to all has few that announce it.
const ANNOUNCED_TO_VALIDATORS: usize = 6;

/// Messages that are announced in one heartbeat, those of 20,000 per second.
const MAX_ANNOUNCED: usize = 4_096;

impl Spread {
    pub(in crate::broadcast) fn heartbeat(&mut self, context: &mut Context<'_>) {
        self.announce(context);
        self.links.announce_left_out();
        self.authors.top_up(context.now, &self.links.overlay, context.rng);
    }

    /// Whether there is something for the next heartbeat.
    pub(in crate::broadcast) fn has_work(&self) -> bool {
        !self.announcements.is_empty() || !self.large_announcements.is_empty() || self.links.has_left_out()
    }

    /// When the topic is to be handled again, apart from heartbeats.
    pub(in crate::broadcast) fn next_wake(&self, history: Duration) -> Option<Duration> {
        let times = [self.missing.next_due(), self.checks.next_retry(), self.messages.next_expiry(history)];
        times.into_iter().flatten().min()
    }

    fn announce(&mut self, context: &mut Context<'_>) {
        let due = [&mut self.announcements, &mut self.large_announcements].map(|queue| take_due(queue, context.now));
        let due: Vec<Sequence> = due.concat();
        if due.is_empty() {
            return;
        }
        let links = if self.topic == Topic::Consensus { ANNOUNCED_TO_VALIDATORS } else { ANNOUNCED_TO };
        // Each message goes to the next ones of a random order: random links, and all about as often.
        let mut order: Vec<Slot> = self.links.told.iter().collect();
        order.shuffle(context.rng);
        let mut next = 0;
        for sequence in due {
            let Some(entry) = self.messages.get(sequence) else { continue };
            let id = entry.info.id;
            let candidates = self.links.told.without(&self.announcing_not_to(context, sequence));
            let mut told = 0;
            for _ in 0..order.len() {
                let slot = order[next];
                next = (next + 1) % order.len();
                let has_room = self.links.get(slot).is_some_and(|link| link.control.have.len() < MAX_IDS);
                if candidates.contains(slot) && has_room {
                    self.links.control(slot, |control| control.have.push(id));
                    told += 1;
                    if told == links {
                        break;
                    }
                }
            }
        }
    }

    /// Links that know of a message, or do not learn of it from here: own consensus messages went to all validators.
    fn announcing_not_to(&self, context: &Context<'_>, sequence: Sequence) -> LinkSet {
        let Some(entry) = self.messages.get(sequence) else { return LinkSet::default() };
        let is_own = entry.is_own && context.committee.is_validator() && self.topic == Topic::Consensus;
        if is_own { entry.holders.union(&self.links.direct) } else { entry.holders }
    }
}

fn take_due(queue: &mut VecDeque<(Duration, Sequence)>, now: Duration) -> Vec<Sequence> {
    let due = queue.iter().take(MAX_ANNOUNCED).take_while(|(at, _)| *at <= now).count();
    queue.drain(..due).map(|(_, sequence)| sequence).collect()
}
