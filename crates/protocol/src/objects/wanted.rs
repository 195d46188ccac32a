//! Requests, and the objects that they want. Equal wishes are merged.

use super::{
    interface::{Answer, Effect, OldestWanted},
    peers::Key,
};
use serde::{Deserialize, Serialize};
use soma_types::{ObjectId, ObjectKind, PeerId, TimestampMs};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// One request.
#[derive(Serialize, Deserialize)]
struct Request {
    kind: ObjectKind,
    /// Those that are not answered.
    ids: BTreeSet<ObjectId>,
    deadline: Duration,
}

/// One object that is wanted.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Wanted {
    requests: Vec<u64>,
    /// When it was first requested.
    since_ms: TimestampMs,
    /// Calls that may bring it.
    pub(super) calls: Vec<u64>,
    /// Peers that have said that they lack it, connected or not.
    pub(super) lacking: BTreeSet<PeerId>,
    /// The peer that sent the reference.
    pub(super) first_from: Option<PeerId>,
    /// Its place in the queue, if it is there.
    place: Option<i64>,
}

impl Wanted {
    fn asked(&self) -> u32 {
        u32::try_from(self.lacking.len()).unwrap_or(u32::MAX)
    }
}

/// Answers, by request and by how.
pub(super) type Answers = BTreeMap<(u64, Answer), Vec<ObjectId>>;

/// What is wanted.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Wishes {
    requests: BTreeMap<u64, Request>,
    /// The same, by their deadlines.
    deadlines: BTreeSet<(Duration, u64)>,
    objects: BTreeMap<Key, Wanted>,
    /// Objects to ask a peer for, by their places. Each is wanted.
    queue: BTreeMap<i64, Key>,
}

impl Wishes {
    pub(super) fn requests(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// Objects that no call may bring now.
    pub(super) fn waiting(&self) -> usize {
        self.objects.values().filter(|wanted| wanted.calls.is_empty()).count()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Wanted> {
        self.objects.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Wanted> {
        self.objects.get_mut(key)
    }

    /// The object that has been wanted for longest.
    pub(super) fn oldest(&self) -> Option<OldestWanted> {
        let ((kind, id), wanted) = self.objects.iter().min_by_key(|(_, wanted)| wanted.since_ms)?;
        Some(OldestWanted { kind: *kind, id: *id, since_ms: wanted.since_ms, lacking: wanted.lacking.len() })
    }

    /// Objects to ask a peer for.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Adds a request.
    pub(super) fn add(
        &mut self,
        now_ms: TimestampMs,
        request: u64,
        kind: ObjectKind,
        ids: Vec<ObjectId>,
        deadline: Duration,
        first_from: Option<PeerId>,
    ) {
        for id in &ids {
            let wanted =
                self.objects.entry((kind, *id)).or_insert_with(|| Wanted { since_ms: now_ms, ..Wanted::default() });
            wanted.requests.push(request);
            wanted.first_from = first_from.or(wanted.first_from);
            if wanted.calls.is_empty() && wanted.place.is_none() {
                let last = self.queue.last_key_value().map_or(0, |(place, _)| place + 1);
                wanted.place = Some(last);
                self.queue.insert(last, (kind, *id));
            }
        }
        self.deadlines.insert((deadline, request));
        self.requests.insert(request, Request { kind, ids: ids.into_iter().collect(), deadline });
    }

    /// Puts an object in front of the queue if it is wanted.
    pub(super) fn ask_next(&mut self, key: Key) {
        if let Some(wanted) = self.objects.get_mut(&key).filter(|wanted| wanted.place.is_none()) {
            let first = self.queue.first_key_value().map_or(0, |(place, _)| place - 1);
            wanted.place = Some(first);
            self.queue.insert(first, key);
        }
    }

    /// Takes the next object out of the queue.
    pub(super) fn next_to_ask(&mut self) -> Option<Key> {
        let (_, key) = self.queue.pop_first()?;
        if let Some(wanted) = self.objects.get_mut(&key) {
            wanted.place = None;
        }
        Some(key)
    }

    /// Forgets an object, and its place in the queue.
    fn remove(&mut self, key: &Key) -> Option<Wanted> {
        let wanted = self.objects.remove(key)?;
        if let Some(place) = wanted.place {
            self.queue.remove(&place);
        }
        Some(wanted)
    }

    /// Answers an object. Returns the calls that may still bring it.
    pub(super) fn answer(&mut self, key: Key, found: bool, answers: &mut Answers) -> Option<Vec<u64>> {
        let wanted = self.remove(&key)?;
        let answer = if found { Answer::Found } else { Answer::NotFound { asked: wanted.asked() } };
        for request in wanted.requests {
            answers.entry((request, answer)).or_default().push(key.1);
            let Some(entry) = self.requests.get_mut(&request) else { continue };
            entry.ids.remove(&key.1);
            if entry.ids.is_empty() {
                self.deadlines.remove(&(entry.deadline, request));
                self.requests.remove(&request);
            }
        }
        Some(wanted.calls)
    }

    /// Ends a request. Returns each object that was not answered, with the peers that lack it. Calls that nobody needs
    /// any more are put into `unneeded`.
    fn end(&mut self, request: u64, unneeded: &mut Vec<(u64, Key)>) -> Vec<(ObjectId, u32)> {
        let Some(Request { kind, ids, deadline }) = self.requests.remove(&request) else { return Vec::new() };
        self.deadlines.remove(&(deadline, request));
        let mut unanswered = Vec::new();
        for id in ids {
            let key = (kind, id);
            let Some(wanted) = self.objects.get_mut(&key) else { continue };
            unanswered.push((id, wanted.asked()));
            wanted.requests.retain(|other| *other != request);
            if wanted.requests.is_empty() {
                unneeded.extend(wanted.calls.iter().map(|call| (*call, key)));
                self.remove(&key);
            }
        }
        unanswered
    }

    /// Ends a request that nobody waits for.
    pub(super) fn drop_request(&mut self, request: u64) -> Vec<(u64, Key)> {
        let mut unneeded = Vec::new();
        self.end(request, &mut unneeded);
        unneeded
    }

    /// Ends every request whose time is over.
    pub(super) fn expire(&mut self, now: Duration, answers: &mut Answers) -> Vec<(u64, Key)> {
        let mut unneeded = Vec::new();
        while let Some((_, request)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            for (id, asked) in self.end(request, &mut unneeded) {
                answers.entry((request, Answer::Late { asked })).or_default().push(id);
            }
        }
        unneeded
    }
}

/// The effects of answers.
pub(super) fn effects(answers: Answers) -> impl Iterator<Item = Effect> {
    answers.into_iter().map(|((request, answer), ids)| Effect::Answer { request, ids, answer })
}
