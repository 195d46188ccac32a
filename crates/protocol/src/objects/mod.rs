//! Objects: gets content that is named by its digest from the peers that have it.
//!
//! ```text
//!   Fetch --> wanted --> queue --Call--> peer --Arrived(found)--> Answer(found)
//!              ^ equal     ^               |----Arrived(missing)--> queue, or Answer(not found)
//!              | wishes    |               |----Ended(failure)-----> queue; the peer gets a pause
//!              | are one   '--- late ------'   another peer is asked, too
//!              '-- Answer(late), when the request's time is over
//! ```
//!
//! Always:
//! - Each object of each request is answered exactly once, unless the request was dropped.
//! - An object is "not found" only when every connected peer that has objects has said that it lacks it.
//! - The order of peers: first the one that sent the reference; then the one from which the object is expected first.
//! - A peer that lacked an object is not asked for it again for a short time.
//! - A call ends as soon as nobody needs what it would still bring.
//! - The bytes are in the shell: this core sees ids, sizes and outcomes.

mod asking;
mod calls;
mod interface;
mod peers;
mod wanted;

pub use interface::{Answer, Config, Effect, Input, OldestWanted, Snapshot};

use crate::core::{Core, Now, PeerEvent};
use calls::{Calls, Late};
use peers::{Key, Peer};
use serde::{Deserialize, Serialize};
use soma_types::{Fault, PeerFailure, PeerId};
use std::{collections::BTreeMap, time::Duration};
use wanted::{Answers, Wanted, Wishes};

/// Patience with a peer that is gone: its calls end soon.
const NEVER: Duration = Duration::from_secs(3_600);

/// The core of Objects.
#[derive(Serialize, Deserialize)]
pub struct Objects {
    config: Config,
    peers: BTreeMap<PeerId, Peer>,
    wishes: Wishes,
    calls: Calls,
    counts: Counts,
    last_now: Duration,
}

/// Since the start.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Counts {
    found: u64,
    bytes: u64,
    not_found: u64,
    late: u64,
    unused: u64,
    failed_calls: u64,
    hedges: u64,
}

impl Counts {
    fn count(&mut self, answers: &Answers) {
        for ((_, answer), ids) in answers {
            let counter = match answer {
                Answer::Found => &mut self.found,
                Answer::NotFound { .. } => &mut self.not_found,
                Answer::Late { .. } => &mut self.late,
            };
            *counter += ids.len() as u64;
        }
    }
}

impl Objects {
    /// Begins without peers and requests.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            peers: BTreeMap::new(),
            wishes: Wishes::default(),
            calls: Calls::default(),
            counts: Counts::default(),
            last_now: Duration::ZERO,
        }
    }

    /// Connected peers that have objects.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.iter().filter(|(_, peer)| !peer.is_unsupported).map(|(id, _)| *id)
    }

    fn on_peer(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Connected(peer) => {
                self.peers.entry(peer).or_default();
            }
            // Its calls end with the link, and say so.
            PeerEvent::Lost { peer, .. } => {
                self.peers.remove(&peer);
            }
        }
    }

    fn on_arrived(
        &mut self,
        now: Duration,
        call: u64,
        found: &[u32],
        missing: &[u32],
        bytes: u64,
        answers: &mut Answers,
    ) {
        let Some((peer, wait)) = self.calls.progress(call, now) else { return };
        self.counts.bytes += bytes;
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.arrived(wait, found.len(), missing.len());
        }
        for (position, is_found) in found.iter().map(|it| (*it, true)).chain(missing.iter().map(|it| (*it, false))) {
            let Some(key) = self.calls.answered(call, position) else { continue };
            if is_found {
                match self.wishes.answer(key, true, answers) {
                    Some(calls) => {
                        for other in calls.into_iter().filter(|other| *other != call) {
                            self.calls.unneeded(other, key);
                        }
                    }
                    None => self.counts.unused += 1,
                }
            } else {
                self.lacks(call, peer, key, now);
            }
        }
    }

    fn lacks(&mut self, call: u64, peer: PeerId, key: Key, now: Duration) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.lacks_now(key, now);
        }
        if let Some(wanted) = self.wishes.get_mut(&key) {
            wanted.lacking.insert(peer);
            wanted.calls.retain(|other| *other != call);
            self.settle(key);
        }
    }

    /// Asks for an object elsewhere, unless a call that is not late may still bring it.
    fn settle(&mut self, key: Key) {
        let is_late = |wanted: &Wanted| wanted.calls.iter().all(|call| self.calls.is_hedged(*call));
        if self.wishes.get(&key).is_some_and(is_late) {
            self.wishes.ask_next(key);
        }
    }

    /// A call is over: what it has not answered is asked for elsewhere.
    fn end_call(&mut self, call: u64) -> Option<PeerId> {
        let (peer, unanswered) = self.calls.end(call)?;
        // The first one is in front again.
        for key in unanswered.into_iter().rev() {
            if let Some(wanted) = self.wishes.get_mut(&key) {
                wanted.calls.retain(|other| *other != call);
                self.settle(key);
            }
        }
        Some(peer)
    }

    fn on_ended(&mut self, now: Now, call: u64, failure: Option<PeerFailure>, is_unsupported: bool) -> Option<Effect> {
        let peer = self.end_call(call)?;
        if let Some(peer) = self.peers.get_mut(&peer).filter(|_| is_unsupported) {
            peer.is_unsupported = true;
            return None;
        }
        let failure = failure?;
        self.counts.failed_calls += 1;
        let state = self.peers.get_mut(&peer);
        if failure.fault == Fault::Ours {
            if let Some(state) = state {
                state.failed_here(now.monotonic);
            }
            return None;
        }
        if let Some(state) = state {
            state.failed(now.monotonic, failure.retry_after);
        }
        Some(Effect::Report { peer, failure })
    }

    /// Ends calls that nobody needs any more.
    fn cancel_unneeded(&mut self) -> Vec<Effect> {
        let unneeded = self.calls.take_unneeded();
        unneeded.into_iter().filter(|call| self.end_call(*call).is_some()).map(|call| Effect::Cancel { call }).collect()
    }

    /// Lets other peers try what a call has not brought in the usual time.
    fn hedge(&mut self, now: Duration) {
        let peers = &self.peers;
        let patience = |peer| peers.get(&peer).map_or(NEVER, Peer::patience);
        for Late { peer, waited, keys } in self.calls.late(now, patience).into_iter().rev() {
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.is_late(waited);
            }
            for key in keys.into_iter().rev() {
                self.wishes.ask_next(key);
            }
        }
    }

    /// Ends what is over, then asks peers for what is wanted.
    fn advance(&mut self, now: Duration, answers: &mut Answers) -> Vec<Effect> {
        self.last_now = now;
        let expired = self.wishes.expire(now, answers);
        for (call, key) in expired {
            self.calls.unneeded(call, key);
        }
        let mut effects = self.cancel_unneeded();
        self.hedge(now);
        effects.extend(self.ask(now, answers));
        effects
    }
}

impl Core for Objects {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = Snapshot;

    const NAME: &'static str = "objects";

    fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut answers = Answers::new();
        match input {
            // What is due is done after every input.
            Input::Wake => {}
            Input::Peer(event) => self.on_peer(event),
            Input::Fetch { request, kind, ids, within, first_from } => {
                if self.wishes.len() + ids.len() > self.config.max_wanted {
                    effects.push(Effect::Refuse { request });
                } else {
                    let deadline = now.monotonic.saturating_add(within);
                    self.wishes.add(now.unix_ms, request, kind, ids, deadline, first_from);
                }
            }
            Input::Dropped { request } => {
                for (call, key) in self.wishes.drop_request(request) {
                    self.calls.unneeded(call, key);
                }
            }
            Input::Arrived { call, found, missing, bytes } => {
                self.on_arrived(now.monotonic, call, &found, &missing, bytes, &mut answers);
            }
            Input::Ended { call, failure, is_unsupported } => {
                effects.extend(self.on_ended(now, call, failure, is_unsupported));
            }
        }
        let further = self.advance(now.monotonic, &mut answers);
        self.counts.count(&answers);
        effects.extend(wanted::effects(answers));
        effects.extend(further);
        effects
    }

    fn wake() -> Option<Input> {
        Some(Input::Wake)
    }

    fn next_wake(&self) -> Option<Duration> {
        let late = self.calls.next_late(|peer| self.peers.get(&peer).map_or(NEVER, Peer::patience));
        let paused = self.peers.values().map(|peer| peer.paused_until);
        // A pause that is over is no reason to wake.
        let resumed = paused.filter(|until| *until > self.last_now).min().filter(|_| self.wishes.queued() > 0);
        [self.wishes.next_deadline(), late, resumed].into_iter().flatten().min()
    }

    fn snapshot(&self) -> Snapshot {
        let Counts { found, bytes, not_found, late, unused, failed_calls, hedges } = self.counts;
        Snapshot {
            requests: self.wishes.requests(),
            wanted: self.wishes.len(),
            waiting: self.wishes.waiting(),
            calls: self.calls.len(),
            peers: self.peers.values().filter(|peer| !peer.is_unsupported).count(),
            found,
            bytes,
            not_found,
            late,
            unused,
            failed_calls,
            hedges,
            oldest: self.wishes.oldest(),
        }
    }
}

#[cfg(test)]
mod tests;
