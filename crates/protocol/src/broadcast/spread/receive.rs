//! What a frame of a peer changes.

use super::{Frame, Spread};
use crate::broadcast::{
    authors::Copy,
    checks::Queued,
    committee::Validity,
    context::Context,
    interface::{Control, Effect, MessageInfo, StreamKey},
    link_set::Slot,
    links::MAX_IDS,
    messages::{Entry, Sequence, State},
    missing::Next,
};
use soma_types::{Author, MessageId, Topic};
use std::{collections::BTreeSet, time::Duration};

/// A peer that asks again for a message this long after it came here has lost it. Before, its request crossed the
/// message.
const RESEND_AFTER: Duration = Duration::from_secs(2);

/// A link that announced a message this long before it came is faster than the link over which it came.
const FASTER_BY: Duration = Duration::from_millis(30);

impl Spread {
    /// A frame of a peer, on a stream that is open.
    pub(in crate::broadcast) fn received(
        &mut self,
        context: &mut Context<'_>,
        stream: StreamKey,
        frame: u64,
        messages: Vec<MessageInfo>,
        control: Control,
    ) {
        let link = self.links.slot(stream).and_then(|slot| Some((slot, self.links.get(slot)?.peer)));
        let Some((slot, peer)) = link else { return };
        let mut undecided = 0;
        for message in &messages {
            undecided += usize::from(self.arrived(context, slot, frame, message));
        }
        if undecided == 0 {
            context.effects.push(Effect::Taken { frame });
        } else {
            self.frames.insert(frame, Frame { stream, peer, undecided, is_reported: false });
        }
        if !control.is_empty() {
            self.controlled(context, slot, control);
        }
    }

    /// One message. Whether it waits for a check.
    fn arrived(&mut self, context: &mut Context<'_>, slot: Slot, frame: u64, message: &MessageInfo) -> bool {
        let was_asked = self.links.get_mut(slot).is_some_and(|link| link.sent(&message.id));
        if let Some(sequence) = self.messages.find(&message.id) {
            self.came_again(context, slot, sequence, was_asked);
            return false;
        }
        if self.messages.was_seen(&message.id) {
            self.counts.duplicates += 1;
            self.forget(message.id);
            if !was_asked {
                self.copied(context, slot, message);
            }
            return false;
        }
        let Some(state) = self.admit(context, slot, message, was_asked) else {
            self.forget(message.id);
            return false;
        };
        let lacking = self.missing.take(&message.id);
        let mut entry = Entry::new(*message, state, context.now);
        let is_offer = lacking.as_ref().is_some_and(|lacking| lacking.is_large);
        if let Some(lacking) = lacking {
            if let Some(link) = lacking.asking().and_then(|asked| self.links.get_mut(asked)) {
                link.answered();
            }
            let is_early = context.now >= lacking.announced_at + FASTER_BY;
            entry.faster = lacking.first_announcer().filter(|faster| is_early && *faster != slot);
            entry.holders = lacking.holders;
        }
        entry.holders.insert(slot);
        let is_waiting = state == State::Waiting;
        (entry.from, entry.frame, entry.pulled) = (Some(slot), is_waiting.then_some(frame), was_asked);
        self.counts.recovered += u64::from(was_asked && !is_offer);
        let sequence = self.messages.insert(entry);
        if is_waiting {
            let signature = self.needs_signature(context, slot, message);
            self.checks.push(Queued { sequence, bytes: message.bytes, signature });
        }
        is_waiting
    }

    /// Whether the message is of use, and there is room for it.
    fn admit(
        &mut self,
        context: &mut Context<'_>,
        slot: Slot,
        message: &MessageInfo,
        was_asked: bool,
    ) -> Option<State> {
        let validity = context.committee.validity(message.epoch);
        let state = match validity {
            Validity::Valid => State::Waiting,
            Validity::Early => State::Early,
            Validity::Past | Validity::Future => {
                self.counts.ignored += 1;
                if !was_asked {
                    let is_mistake = validity == Validity::Past;
                    self.links.useless(context, slot, 1, u64::from(message.bytes), is_mistake);
                }
                return None;
            }
        };
        if message.bytes > self.max_message_bytes(context) {
            self.links.useless(context, slot, 1, u64::from(message.bytes), true);
            return None;
        }
        self.messages.has_room(state, message.bytes).then_some(state)
    }

    /// The signature need not be checked if the author sent the message itself and nobody gets it from here.
    fn needs_signature(&self, context: &Context<'_>, slot: Slot, message: &MessageInfo) -> bool {
        let passes_on =
            self.topic != Topic::Consensus || !self.links.told.is_empty() || context.committee.is_validator();
        passes_on || context.config.relays_consensus || !self.is_from_its_author(context, slot, message)
    }

    /// A copy of a message that is held.
    fn came_again(&mut self, context: &mut Context<'_>, slot: Slot, sequence: Sequence, was_asked: bool) {
        self.counts.duplicates += 1;
        let Some(entry) = self.messages.get_mut(sequence) else { return };
        entry.holders.insert(slot);
        if entry.state == State::Kept {
            let message = entry.info;
            if !was_asked {
                self.copied(context, slot, &message);
            }
        } else if !was_asked && entry.from != Some(slot) {
            // Whether the first copy is right is not known yet.
            entry.came_again(slot);
        }
    }

    /// A copy came over a link that was not asked for it: the link need not push this author's messages.
    pub(super) fn copied(&mut self, context: &mut Context<'_>, slot: Slot, message: &MessageInfo) {
        let bytes = u64::from(message.bytes);
        if self.topic == Topic::Consensus && self.links.direct.contains(slot) && context.committee.is_validator() {
            self.links.useless(context, slot, 1, bytes, true);
            return;
        }
        let Some(tree) = self.authors.find(&message.author).and_then(|key| self.authors.tree(key)) else { return };
        match tree.copied(context.now, slot) {
            Copy::Expected | Copy::Late => {}
            Copy::Prune => self.links.prune(slot, message.author),
            Copy::Useless { again } => {
                if again {
                    self.links.prune(slot, message.author);
                }
                self.links.useless(context, slot, 1, bytes, true);
            }
        }
    }

    fn controlled(&mut self, context: &mut Context<'_>, slot: Slot, control: Control) {
        let Control { mut have, mut want, mut do_not_send, graft, prune } = control;
        for list in [&mut have, &mut want, &mut do_not_send] {
            let beyond = list.len().saturating_sub(MAX_IDS);
            list.truncate(MAX_IDS);
            self.links.useless(context, slot, beyond as u64, 0, true);
        }
        self.has(context, slot, &have, &do_not_send);
        self.not_to_send(context, slot, &do_not_send);
        self.wanted(context, slot, want);
        let mut without_effect = 0;
        for author in graft {
            without_effect += u64::from(!self.change_tree(slot, &author, true));
        }
        for author in prune {
            without_effect += u64::from(!self.change_tree(slot, &author, false));
        }
        self.links.useless(context, slot, without_effect, 0, true);
        self.ask_for_due(context);
    }

    fn change_tree(&mut self, slot: Slot, author: &Author, graft: bool) -> bool {
        let is_overlay = self.links.overlay.contains(slot);
        let Some(tree) = self.authors.find(author).and_then(|key| self.authors.tree(key)) else { return false };
        if graft { is_overlay && tree.grafted(slot) } else { tree.refused(slot) }
    }

    /// The peer has large messages, or is about to get them.
    fn not_to_send(&mut self, context: &mut Context<'_>, slot: Slot, do_not_send: &[MessageId]) {
        for id in do_not_send {
            if let Some(entry) = self.messages.find(id).and_then(|sequence| self.messages.get_mut(sequence)) {
                entry.holders.insert(slot);
            } else if !self.messages.was_seen(id) {
                self.missing.has_or_gets(context.now, *id, slot);
            }
        }
    }

    /// The peer has messages.
    fn has(&mut self, context: &mut Context<'_>, slot: Slot, have: &[MessageId], do_not_send: &[MessageId]) {
        if have.is_empty() {
            return;
        }
        let offers: BTreeSet<&MessageId> = do_not_send.iter().collect();
        let is_believed = self.links.get(slot).is_some_and(|link| link.is_believed(context.now));
        let mut beyond = 0;
        for id in have {
            if let Some(entry) = self.messages.find(id).and_then(|sequence| self.messages.get_mut(sequence)) {
                entry.holders.insert(slot);
            } else if is_believed && !self.messages.was_seen(id) {
                let is_noted = self.missing.announced(context.now, *id, slot, offers.contains(id));
                beyond += u64::from(!is_noted);
            }
        }
        self.links.useless(context, slot, beyond, 0, false);
    }

    /// The peer asks for messages.
    fn wanted(&mut self, context: &mut Context<'_>, slot: Slot, want: Vec<MessageId>) {
        let mut useless = 0;
        for id in want {
            let entry = self.messages.find(&id).and_then(|sequence| self.messages.get_mut(sequence));
            let Some(entry) = entry.filter(|entry| entry.state == State::Kept && self.links.told.contains(slot)) else {
                // It may have been forgotten since it was announced.
                useless += u64::from(!self.messages.was_seen(&id));
                continue;
            };
            if entry.holders.contains(slot) {
                if context.now < entry.at + RESEND_AFTER {
                    continue;
                }
                useless += 1;
            }
            self.links.push(context, slot, &entry.info, &mut entry.holders, false);
        }
        self.links.useless(context, slot, useless, 0, true);
    }

    /// Asks for messages whose time has come.
    pub(in crate::broadcast) fn ask_for_due(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        while let Some((id, next)) = self.missing.next(now) {
            let (Next::Ask { late, .. } | Next::GiveUp { late }) = &next;
            if let Some(link) = late.and_then(|late| self.links.get_mut(late)) {
                link.broke_promise(now);
            }
            let Next::Ask { candidates, .. } = next else { continue };
            let best = candidates
                .iter()
                .filter_map(|slot| Some((self.links.get(*slot)?, *slot)))
                .filter(|(link, _)| link.may_be_asked())
                // The first announcer, unless it has much to do or is not believed.
                .min_by_key(|(link, _)| (!link.is_believed(now), link.outstanding() / 32));
            match best.map(|(_, slot)| slot) {
                Some(slot) => {
                    if let Some(link) = self.links.get_mut(slot) {
                        link.ask(id);
                    }
                    self.links.dirty.insert(slot);
                    self.missing.asked(now, id, slot);
                }
                None => self.missing.wait(now, id),
            }
        }
    }

    /// Messages that were of the next epoch.
    pub(super) fn release_early(&mut self, context: &mut Context<'_>) {
        let early: Vec<(Sequence, MessageInfo, Option<Slot>)> =
            self.messages.in_state(State::Early).map(|(sequence, entry)| (sequence, entry.info, entry.from)).collect();
        for (sequence, message, from) in early {
            match context.committee.validity(message.epoch) {
                Validity::Valid => {
                    let sequence = self.messages.set_state(sequence, State::Waiting);
                    let signature = from.is_none_or(|slot| self.needs_signature(context, slot, &message));
                    self.checks.push(Queued { sequence, bytes: message.bytes, signature });
                }
                Validity::Early => {}
                Validity::Past | Validity::Future => {
                    self.messages.remove(sequence, None);
                    self.forget(message.id);
                }
            }
        }
    }
}
