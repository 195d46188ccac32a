//! What verdicts change, and where accepted messages go.

use super::{Announcement, MAX_ANNOUNCEMENTS, Spread};
use crate::broadcast::{
    checks::{Finished, Queued},
    context::Context,
    equivocation::Finding,
    interface::{Effect, MessageVerdict},
    link_set::LinkSet,
    links::LARGE,
    messages::{Sequence, State},
};
use soma_types::{Fault, MessageId, Topic};
use std::time::Duration;

/// Links over which an author pushes its first large message. Their copies follow one another in the uplink.
const OWN_LARGE_LINKS: usize = 4;

/// Large messages are announced this long after they came. They take longer on the eager path, too, and a copy that
/// was asked for in vain costs more.
const ANNOUNCE_LARGE_AFTER: Duration = Duration::from_secs(1);

impl Spread {
    /// A check has come back.
    pub(in crate::broadcast) fn checked(
        &mut self,
        context: &mut Context<'_>,
        check: u64,
        verdicts: Option<Vec<MessageVerdict>>,
    ) {
        let Some(finished) = self.checks.finish(check) else { return };
        match verdicts.filter(|verdicts| verdicts.len() == finished.messages.len()) {
            Some(verdicts) => self.decide(context, &finished.messages, &verdicts),
            None => self.check_failed(context, finished),
        }
    }

    fn decide(&mut self, context: &mut Context<'_>, messages: &[Queued], verdicts: &[MessageVerdict]) {
        let mut delivered = Vec::with_capacity(messages.len());
        let mut accepted = Vec::with_capacity(messages.len());
        let mut contradictions = Vec::new();
        for (Queued { sequence, .. }, verdict) in messages.iter().zip(verdicts) {
            match verdict {
                MessageVerdict::Accept { slot } => {
                    if let Some(sequence) = self.accept(context, *sequence, *slot, &mut delivered, &mut contradictions)
                    {
                        accepted.push(sequence);
                    }
                }
                MessageVerdict::Ignore => self.ignore(context, *sequence),
                MessageVerdict::Reject => self.reject(context, *sequence),
            }
        }
        self.counts.delivered += delivered.len() as u64;
        if !delivered.is_empty() {
            context.effects.push(Effect::Deliver { topic: self.topic, messages: delivered });
        }
        for (first, second) in contradictions {
            context.effects.push(Effect::Equivocation { topic: self.topic, first, second });
        }
        for sequence in accepted {
            self.settle_source(context, sequence);
            self.spread(context, sequence);
        }
    }

    fn accept(
        &mut self,
        context: &mut Context<'_>,
        sequence: Sequence,
        slot: Option<u64>,
        delivered: &mut Vec<MessageId>,
        contradictions: &mut Vec<(MessageId, MessageId)>,
    ) -> Option<Sequence> {
        let entry = self.messages.get(sequence)?;
        let (message, frame) = (entry.info, entry.frame);
        let finding = slot
            .map_or(Finding::First, |slot| self.equivocations.note(message.epoch, message.author, slot, message.id));
        match finding {
            Finding::First => delivered.push(message.id),
            // Without the first one there is no evidence.
            Finding::Second(first) if self.messages.find(&first).is_some() => contradictions.push((first, message.id)),
            Finding::Second(_) => {}
            Finding::Further => {
                self.ignore(context, sequence);
                return None;
            }
        }
        if self.topic == Topic::Consensus {
            context.committee.heard(context.now, message.author);
        }
        self.decided(frame, context.effects);
        if let Some(entry) = self.messages.get_mut(sequence) {
            entry.frame = None;
        }
        Some(self.messages.set_state(sequence, State::Kept))
    }

    fn ignore(&mut self, context: &mut Context<'_>, sequence: Sequence) {
        let Some(entry) = self.messages.remove(sequence, Some((context.now, context.config.history))) else { return };
        self.counts.ignored += 1;
        self.decided(entry.frame, context.effects);
        self.forget(entry.info.id);
    }

    /// The sender pays. The id does not cover the signature, so a copy of another peer may be right.
    fn reject(&mut self, context: &mut Context<'_>, sequence: Sequence) {
        let Some(entry) = self.messages.remove(sequence, None) else { return };
        self.counts.rejected += 1;
        let frame = entry.frame.and_then(|frame| self.frames.get_mut(&frame));
        if let Some(frame) = frame.filter(|frame| !frame.is_reported) {
            frame.is_reported = true;
            let reason = format!("sent a wrong message on topic {}: {}", self.topic, entry.info.id);
            context.effects.push(Effect::Report { peer: frame.peer, fault: Fault::ProvableLie, reason });
        }
        self.decided(entry.frame, context.effects);
        self.forget(entry.info.id);
        let mut others = entry.holders;
        if let Some(from) = entry.from {
            others.remove(from);
        }
        self.missing.again(context.now, entry.info.id, &others.iter().collect::<Vec<_>>());
        self.ask_for_due(context);
    }

    fn check_failed(&mut self, context: &mut Context<'_>, failed: Finished) {
        for Queued { sequence, .. } in self.checks.retry(context.now, failed) {
            // It may come again.
            let Some(entry) = self.messages.remove(sequence, None) else { continue };
            self.decided(entry.frame, context.effects);
            self.forget(entry.info.id);
        }
    }

    /// Learns from an accepted message which link is the source of its author.
    fn settle_source(&mut self, context: &mut Context<'_>, sequence: Sequence) {
        let Some(entry) = self.messages.get_mut(sequence) else { return };
        let (message, pulled, faster) = (entry.info, entry.pulled, entry.faster);
        let others = std::mem::take(&mut entry.other_senders);
        let Some(from) = entry.from else { return };
        let is_among_validators = context.committee.is_validator() && self.links.direct.contains(from);
        if self.topic == Topic::Consensus && is_among_validators {
            return;
        }
        // What came late has gone on elsewhere; and whoever lacks a large message asks for it.
        let pushes = !pulled && message.bytes < LARGE;
        let eager = if pushes { self.links.eager } else { LinkSet::default() };
        let now = context.now;
        let (tree, is_new) = self.authors.touch(now, message.author, &eager);
        let is_believed = self.links.get(from).is_some_and(|link| link.is_believed(now));
        let before = tree.source();
        if pulled {
            if is_believed && tree.pulled(from) {
                self.links.graft(from, message.author);
            }
        } else if tree.pushed(from)
            && !is_new
            && let Some(link) = tree.try_link(now, faster, &self.links.overlay, context.rng)
        {
            self.links.graft(link, message.author);
        }
        // The old source may be about to push a large message that has come from elsewhere.
        if let Some(before) = before.filter(|before| *before != from && message.bytes >= LARGE)
            && self.messages.get(sequence).is_some_and(|entry| !entry.holders.contains(before))
        {
            self.links.control(before, |control| control.do_not_send.push(message.id));
        }
        for slot in others {
            self.copied(context, slot, &message);
        }
    }

    /// Sends an accepted message on, and has it announced.
    pub(super) fn spread(&mut self, context: &mut Context<'_>, sequence: Sequence) {
        let Some(entry) = self.messages.get_mut(sequence) else { return };
        let message = entry.info;
        let (is_own, is_large) = (entry.is_own, message.bytes >= LARGE);
        let (tree, _) = self.authors.touch(context.now, message.author, &LinkSet::default());
        let is_fresh = tree.is_fresh(context.now);
        if is_large && is_own {
            // Nobody has it yet, so a few copies are none too many, and the tree begins sooner.
            tree.push_first(&LinkSet::of(self.links.eager.iter().take(OWN_LARGE_LINKS)));
        } else if !is_large && !entry.pulled && (is_fresh || is_own) {
            // The tree may have begun with large messages, which are pushed to few unasked.
            tree.push_first(&self.links.eager);
        }
        let is_offered = (is_large || entry.pulled) && is_fresh || is_large && is_own;
        let mut push = tree.eager.and(&self.links.overlay);
        if is_own && self.topic == Topic::Consensus {
            push = push.union(&self.links.direct);
        }
        let push = push.without(&entry.holders);
        let offer = if is_offered && tree.eager.len() < self.links.eager.len() {
            self.links.eager.without(&push).without(&entry.holders)
        } else {
            LinkSet::default()
        };
        for slot in push.iter() {
            self.links.push(context, slot, &message, &mut entry.holders, is_large);
        }
        for slot in offer.iter() {
            self.links.offer(slot, message.id);
        }
        if !self.links.told.without(&entry.holders).is_empty() {
            let announcement = Announcement { sequence, told: offer, round: 0 };
            if is_large && self.large_announcements.len() < MAX_ANNOUNCEMENTS {
                self.large_announcements.push_back((context.now + ANNOUNCE_LARGE_AFTER, announcement));
            } else if !is_large && self.announcements.len() < MAX_ANNOUNCEMENTS {
                self.announcements.push_back(announcement);
            }
        }
    }
}
