//! The choice of the peer for each object, and of the objects for each call.

use super::{
    Objects,
    interface::Effect,
    peers::{Key, Peer},
    wanted::{Answers, Wanted},
};
use soma_types::{ObjectId, ObjectKind, PeerId};
use std::time::Duration;

/// Objects that one call asks for.
const MAX_PER_CALL: usize = 1_000;

/// Chunks of snapshots that one call asks for: chunks are large, and several peers share the work.
const MAX_CHUNKS_PER_CALL: usize = 4;

/// Objects of the queue that are looked at after one input: those at its front may be of no use to the peers that have
/// become free.
const MAX_LOOKED_AT: usize = 4_096;

/// What can be done about an object.
enum Choice {
    /// Ask this peer.
    Ask(PeerId),
    /// All peers that have objects lack it: these.
    GiveUp(Vec<PeerId>),
    /// A call may still bring it.
    Leave,
    /// The further peers that may have it are busy or have a pause.
    Wait,
}

impl Objects {
    /// Asks peers for queued objects.
    pub(super) fn ask(&mut self, now: Duration, answers: &mut Answers) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut waiting = Vec::new();
        let mut left = MAX_LOOKED_AT;
        let share = self.wishes.queued().div_ceil(self.free_peers(now).max(1));
        while left > 0 && self.calls.len() < self.config.max_calls && self.free_peers(now) > 0 {
            let Some(key) = self.wishes.next_to_ask() else { break };
            left -= 1;
            match self.choose(&key, now) {
                Choice::Ask(peer) => {
                    let ids = self.gather(peer, key, share, now, &mut left);
                    effects.push(self.begin(peer, key.0, ids, now));
                }
                Choice::GiveUp(lacking) => {
                    if let Some(wanted) = self.wishes.get_mut(&key) {
                        wanted.lacking.extend(lacking);
                    }
                    self.wishes.answer(key, false, answers);
                }
                Choice::Leave => {}
                Choice::Wait => waiting.push(key),
            }
        }
        // They keep their order.
        for key in waiting.into_iter().rev() {
            self.wishes.ask_next(key);
        }
        effects
    }

    fn is_free(&self, id: PeerId, peer: &Peer, now: Duration) -> bool {
        !peer.is_unsupported && peer.paused_until <= now && self.calls.to(id) < self.config.max_calls_per_peer
    }

    fn free_peers(&self, now: Duration) -> usize {
        self.peers.iter().filter(|(id, peer)| self.is_free(**id, peer, now)).count()
    }

    /// Whether a peer may have an object and is not asked for it.
    fn may_bring(&self, id: PeerId, peer: &Peer, key: &Key, now: Duration) -> bool {
        let is_asked = |call: &u64| self.calls.peer(*call) == Some(id);
        let is_called = self.wishes.get(key).is_some_and(|wanted| wanted.calls.iter().any(is_asked));
        !peer.is_unsupported && !peer.lacks(key, now) && !is_called
    }

    fn choose(&self, key: &Key, now: Duration) -> Choice {
        let Some(wanted) = self.wishes.get(key) else { return Choice::Leave };
        let able = self.peers.iter().filter(|(id, peer)| self.may_bring(**id, peer, key, now));
        let free = able.clone().filter(|(id, peer)| self.is_free(**id, peer, now));
        let first = free.min_by_key(|(id, peer)| {
            (Some(**id) != wanted.first_from, peer.expected(self.calls.asked_of(**id)), peer.last_call)
        });
        if let Some((id, _)) = first {
            return Choice::Ask(*id);
        }
        if !wanted.calls.is_empty() {
            let are_late = wanted.calls.iter().all(|call| self.calls.is_hedged(*call));
            return if are_late && able.count() > 0 { Choice::Wait } else { Choice::Leave };
        }
        let mut supporting = self.peers.iter().filter(|(_, peer)| !peer.is_unsupported);
        if supporting.clone().next().is_some() && supporting.all(|(_, peer)| peer.lacks(key, now)) {
            let lacking = self.peers.iter().filter(|(_, peer)| peer.lacks(key, now));
            return Choice::GiveUp(lacking.map(|(id, _)| *id).collect());
        }
        Choice::Wait
    }

    /// The objects of one call, from `first` on: a share of the queue.
    fn gather(&mut self, peer: PeerId, first: Key, share: usize, now: Duration, left: &mut usize) -> Vec<ObjectId> {
        let most = if first.0 == ObjectKind::SNAPSHOT_CHUNK { MAX_CHUNKS_PER_CALL } else { MAX_PER_CALL };
        let sent_reference = |wanted: &Wanted| wanted.first_from == Some(peer);
        // All that a peer has referred to is its own.
        let share = if self.wishes.get(&first).is_some_and(sent_reference) { most } else { share.min(most) };
        let (mut ids, mut others) = (vec![first.1], Vec::new());
        while ids.len() < share && *left > 0 {
            let Some(key) = self.wishes.next_to_ask() else { break };
            *left -= 1;
            let first_from = self.wishes.get(&key).and_then(|wanted| wanted.first_from).filter(|other| *other != peer);
            let asks = |id| {
                let other = self.peers.get(&id);
                other.is_some_and(|other| self.is_free(id, other, now) && self.may_bring(id, other, &key, now))
            };
            let is_others = first_from.is_some_and(asks);
            let may = self.peers.get(&peer).is_some_and(|state| self.may_bring(peer, state, &key, now));
            if key.0 == first.0 && may && !is_others {
                ids.push(key.1);
            } else {
                others.push(key);
            }
        }
        for key in others.into_iter().rev() {
            self.wishes.ask_next(key);
        }
        ids
    }

    fn begin(&mut self, peer: PeerId, kind: ObjectKind, ids: Vec<ObjectId>, now: Duration) -> Effect {
        let call = self.calls.begin(now, peer, kind, ids.clone());
        let mut is_hedge = false;
        for id in &ids {
            if let Some(wanted) = self.wishes.get_mut(&(kind, *id)) {
                is_hedge |= !wanted.calls.is_empty();
                wanted.calls.push(call);
            }
        }
        self.counts.hedges += u64::from(is_hedge);
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.last_call = call;
        }
        Effect::Call { call, peer, kind, ids }
    }
}
