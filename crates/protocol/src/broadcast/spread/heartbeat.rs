//! What is done from time to time: announcements, repetitions.

use super::{Announcement, MAX_ANNOUNCEMENTS, Spread};
use crate::broadcast::{
    context::Context,
    link_set::{LinkSet, Slot},
    messages::Sequence,
};
use rand::seq::SliceRandom;
use soma_types::Topic;
use std::time::Duration;

/// Links to which a message is announced in each of its heartbeats. Who lacks it has 20 links to others that have it, and
/// is missed by all of them once in a million times. In the first heartbeats others announce it here, too, and need
/// not be told any more.
const ANNOUNCED_TO: [u32; 3] = [3, 2, 2];

/// Bytes of payload for which a message is announced to one link more: the ids cost less than a fifth of it.
const BYTES_PER_ID: u32 = 160;

/// Messages that are announced in one heartbeat, those of 20,000 per second.
const MAX_ANNOUNCED: usize = 4_096;

impl Spread {
    pub(in crate::broadcast) fn heartbeat(&mut self, context: &mut Context<'_>) {
        self.announce(context);
        self.links.announce_left_out(|id| self.messages.find(id).is_some());
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
        let large = self.large_announcements.iter().take_while(|(due, _)| *due <= context.now).count();
        let large: Vec<_> = self.large_announcements.drain(..large.min(MAX_ANNOUNCED)).collect();
        let small = self.announcements.len().min(MAX_ANNOUNCED);
        let small: Vec<_> = self.announcements.drain(..small).collect();
        if large.is_empty() && small.is_empty() {
            return;
        }
        // Each message goes to the next ones of a random order: random links, and all about as often.
        let mut order: Vec<Slot> = self.links.told.iter().collect();
        order.shuffle(context.rng);
        let mut order = order.into_iter().cycle();
        for (_, mut announcement) in large {
            self.announce_one(context, &mut announcement, usize::MAX, &mut order);
        }
        for mut announcement in small {
            let (round, rounds) = (announcement.round, ANNOUNCED_TO.len());
            let Some(entry) = self.messages.get(announcement.sequence) else { continue };
            let least: u32 = ANNOUNCED_TO.iter().sum();
            let links = (entry.info.bytes / BYTES_PER_ID).max(least) * ANNOUNCED_TO[round] / least;
            let is_left = self.announce_one(context, &mut announcement, links as usize, &mut order);
            announcement.round += 1;
            if is_left && announcement.round < rounds && self.announcements.len() < MAX_ANNOUNCEMENTS {
                self.announcements.push_back(announcement);
            }
        }
    }

    /// Announces a message to so many links. Whether there are more that may lack it.
    fn announce_one(
        &mut self,
        context: &Context<'_>,
        announcement: &mut Announcement,
        links: usize,
        order: &mut impl Iterator<Item = Slot>,
    ) -> bool {
        let Some(entry) = self.messages.get(announcement.sequence) else { return false };
        let id = entry.info.id;
        let known = announcement.told.union(&self.announcing_not_to(context, announcement.sequence));
        let mut candidates = self.links.told.without(&known);
        let mut left = links.min(candidates.len());
        for slot in order.take(self.links.told.len()) {
            if left == 0 {
                break;
            }
            let may_be_told = self.links.get(slot).is_some_and(|link| link.may_be_told(self.topic));
            if candidates.contains(slot) && may_be_told {
                self.links.control(slot, |control| control.have.push(id));
                candidates.remove(slot);
                announcement.told.insert(slot);
                left -= 1;
            }
        }
        !candidates.is_empty()
    }

    /// Links that know of a message, or do not learn of it from here: own consensus messages went to all validators.
    fn announcing_not_to(&self, context: &Context<'_>, sequence: Sequence) -> LinkSet {
        let Some(entry) = self.messages.get(sequence) else { return LinkSet::default() };
        let is_own = entry.is_own && context.committee.is_validator() && self.topic == Topic::Consensus;
        if is_own { entry.holders.union(&self.links.direct) } else { entry.holders }
    }
}
