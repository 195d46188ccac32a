//! Calls to peers, and the objects that each may still bring.

use super::peers::Key;
use serde::{Deserialize, Serialize};
use soma_types::{ObjectId, ObjectKind, PeerId};
use std::{collections::BTreeMap, time::Duration};

/// The state of one object of a call.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    /// It may come, and somebody wants it.
    Open,
    /// It may come, and nobody wants it any more.
    Unneeded,
    /// The call has answered it.
    Answered,
}

#[derive(Serialize, Deserialize)]
struct Call {
    peer: PeerId,
    kind: ObjectKind,
    ids: Vec<ObjectId>,
    places: Vec<Place>,
    /// When it began, or last brought something.
    progress_at: Duration,
    /// Whether other peers are asked for what it has not brought.
    is_hedged: bool,
}

impl Call {
    /// Objects that it has not answered.
    fn unanswered(&self) -> usize {
        self.places.len() - self.count(Place::Answered)
    }

    fn count(&self, place: Place) -> usize {
        self.places.iter().filter(|it| **it == place).count()
    }

    fn keys(&self, wanted: impl Fn(Place) -> bool) -> Vec<Key> {
        let ids = self.ids.iter().zip(&self.places).filter(|(_, place)| wanted(**place));
        ids.map(|(id, _)| (self.kind, *id)).collect()
    }
}

/// A call that has brought nothing for too long.
pub(super) struct Late {
    pub(super) peer: PeerId,
    pub(super) waited: Duration,
    /// What somebody wants of it.
    pub(super) keys: Vec<Key>,
}

/// Calls under way.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Calls {
    last: u64,
    calls: BTreeMap<u64, Call>,
    /// Calls that nobody needs any more and that have not answered everything.
    unneeded: Vec<u64>,
}

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Calls to a peer, those of an earlier link included.
    pub(super) fn to(&self, peer: PeerId) -> usize {
        self.calls.values().filter(|call| call.peer == peer).count()
    }

    /// Objects that a peer has been asked for and has not answered.
    pub(super) fn asked_of(&self, peer: PeerId) -> usize {
        self.calls.values().filter(|call| call.peer == peer).map(Call::unanswered).sum()
    }

    pub(super) fn peer(&self, call: u64) -> Option<PeerId> {
        self.calls.get(&call).map(|call| call.peer)
    }

    /// Begins a call, and returns its number.
    pub(super) fn begin(&mut self, now: Duration, peer: PeerId, kind: ObjectKind, ids: Vec<ObjectId>) -> u64 {
        self.last += 1;
        let places = vec![Place::Open; ids.len()];
        self.calls.insert(self.last, Call { peer, kind, ids, places, progress_at: now, is_hedged: false });
        self.last
    }

    /// A call has brought something. Returns its peer, and how long that took.
    pub(super) fn progress(&mut self, call: u64, now: Duration) -> Option<(PeerId, Duration)> {
        let call = self.calls.get_mut(&call)?;
        let wait = now.saturating_sub(call.progress_at);
        call.progress_at = now;
        Some((call.peer, wait))
    }

    /// Notes that a call has answered the object at a position. `None` if it has before, or there is none.
    pub(super) fn answered(&mut self, call: u64, position: u32) -> Option<Key> {
        let call = self.calls.get_mut(&call)?;
        let place = call.places.get_mut(position as usize).filter(|place| **place != Place::Answered)?;
        *place = Place::Answered;
        Some((call.kind, call.ids[position as usize]))
    }

    /// Notes that nobody needs an object of a call any more.
    pub(super) fn unneeded(&mut self, number: u64, key: Key) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        for (id, place) in call.ids.iter().zip(&mut call.places) {
            if *id == key.1 && *place == Place::Open {
                *place = Place::Unneeded;
            }
        }
        // A call that has answered everything ends by itself.
        if call.count(Place::Open) == 0 && call.count(Place::Unneeded) > 0 {
            self.unneeded.push(number);
        }
    }

    /// Takes the calls that are to be ended.
    pub(super) fn take_unneeded(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.unneeded)
    }

    /// Ends a call. Returns its peer, and what it has not answered.
    pub(super) fn end(&mut self, call: u64) -> Option<(PeerId, Vec<Key>)> {
        let call = self.calls.remove(&call)?;
        Some((call.peer, call.keys(|place| place != Place::Answered)))
    }

    /// Whether other peers are asked for what the call has not brought.
    pub(super) fn is_hedged(&self, call: u64) -> bool {
        self.calls.get(&call).is_some_and(|call| call.is_hedged)
    }

    /// The calls that have brought nothing in the time that `patience` gives their peers, with what is open of each.
    /// Each call is late once.
    pub(super) fn late(&mut self, now: Duration, patience: impl Fn(PeerId) -> Duration) -> Vec<Late> {
        let mut late = Vec::new();
        for call in self.calls.values_mut().filter(|call| !call.is_hedged) {
            if call.progress_at + patience(call.peer) <= now {
                call.is_hedged = true;
                let (peer, waited) = (call.peer, now.saturating_sub(call.progress_at));
                late.push(Late { peer, waited, keys: call.keys(|place| place == Place::Open) });
            }
        }
        late
    }

    /// When the next call will be late.
    pub(super) fn next_late(&self, patience: impl Fn(PeerId) -> Duration) -> Option<Duration> {
        let calls = self.calls.values().filter(|call| !call.is_hedged);
        calls.map(|call| call.progress_at + patience(call.peer)).min()
    }
}
