//! PeerHeights: the advertised height of each peer, its performance, and the choice of the next peer.
//!
//! Always:
//! - A claim is a hint. It makes a peer a candidate and raises the target; it falls as soon as its owner cannot
//!   serve it, and stays down for a while that doubles with each repetition.
//! - Any connected peer that has a range's *start* may serve the range.
//! - The kind of a fault decides what follows (`soma_types::Fault`): only provable lies and malformed answers ban,
//!   slowness and overload mean a pause, and what is our own fault costs the peer nothing.
//! - What a peer has done is remembered across its connections and across restarts of this node; peers on the
//!   allowlist are never disconnected for it, only not asked.

mod interface;
mod selection;
mod standing;
mod work;

pub use interface::{Config, Effect, Input, NoPeer, Outcome, PeerSnapshot, Snapshot, Target};

pub(crate) use selection::PROVEN_FOR;

pub use standing::{MAX_STANDINGS, Standing};

use crate::{
    Backoff,
    core::{Core, Now, PeerEvent},
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use soma_types::{CommitIndex, Fault, PeerFailure, PeerId};
use standing::Standings;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use work::Work;

/// The longest ban that an operator can give: ten years. Longer means for good, and stands on the denylist.
pub const MAX_OPERATOR_BAN: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// First pause after a fault that does not ban, and first time that a disproved claim stays down.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How many hedges in a row a peer may lose before it counts as slow: one in twenty of any peer's downloads takes
/// longer than nineteen others.
const LOST_HEDGES_TOLERANCE: u32 = 2;

/// Commits that a pruning peer may refuse before it has served again. It prunes between two of its answers, so a few
/// refusals are honest.
const MAX_PRUNED_REFUSALS: u32 = 16;

/// Time between two writes of the history of peers. Bans are written at once.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Default, Serialize, Deserialize)]
struct Peer {
    /// Highest commit claimed, by answer or push.
    claim: Option<CommitIndex>,
    lowest: CommitIndex,
    /// The claim above this is disproved until the time given.
    disproved: Option<(CommitIndex, Duration)>,
    disproofs: u32,
    /// Since when its heights have been asked for.
    asked_at: Option<Duration>,
    /// How long its latest answer took.
    round_trip: Option<Duration>,
    next_query: Duration,
    /// Highest index that we told it of, or that it has.
    told: CommitIndex,
    pushing: bool,
    /// Highest commit that it told us of before we had it.
    news: Option<CommitIndex>,
    served: u64,
    failures: u32,
    /// Refused commits that it may have pruned, since it last served.
    pruned_refusals: u32,
    /// Hedges lost in a row: how often another peer was faster with the same range.
    lost_hedges: u32,
    work: Work,
    /// It counts as proven until then.
    proven_until: Duration,
    paused_until: Duration,
}

impl Peer {
    /// The highest commit that the peer may be asked for.
    fn highest(&self, now: Duration) -> Option<CommitIndex> {
        let cap = self.disproved.filter(|(_, until)| *until > now).map_or(CommitIndex::MAX, |(above, _)| above);
        self.claim.map(|claim| claim.min(cap))
    }

    /// Whether the peer may have pruned the commit since it last told its lowest one.
    fn may_have_pruned(&self, index: CommitIndex) -> bool {
        self.lowest > 1 && self.claim > Some(index) && self.pruned_refusals < MAX_PRUNED_REFUSALS
    }

    /// Pauses the peer until then, or longer if it pauses already: a small fault shortens no pause.
    fn rest(&mut self, until: Duration) {
        self.paused_until = self.paused_until.max(until);
    }
}

/// The core of PeerHeights.
#[derive(Serialize, Deserialize)]
pub struct PeerHeights {
    config: Config,
    rng: ChaCha8Rng,
    peers: BTreeMap<PeerId, Peer>,
    standings: Standings,
    next_save: Duration,
    /// Connected peers that were useful and are not reported yet.
    useful: BTreeSet<PeerId>,
    next_useful: Duration,
    own_height: CommitIndex,
    target: Target,
    bans: u64,
    last_now: Now,
}

fn pause(repetition: u32) -> Duration {
    Backoff { min: PAUSE_MIN, max: PAUSE_MAX }.wait(repetition)
}

impl PeerHeights {
    /// Starts without peers; `own_height` is the store's watermark, `standings` the stored history of peers.
    pub fn new(config: Config, own_height: CommitIndex, standings: Vec<(PeerId, Standing)>) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            config,
            peers: BTreeMap::new(),
            standings: Standings::new(standings),
            next_save: Duration::ZERO,
            useful: BTreeSet::new(),
            next_useful: Duration::ZERO,
            own_height,
            target: Target::NONE,
            bans: 0,
            last_now: Now { monotonic: Duration::ZERO, unix_ms: 0 },
        }
    }

    fn update_target(&mut self, now: Now, peers_became_able: bool, effects: &mut Vec<Effect>) {
        let highest = self.peers.values().filter_map(|peer| peer.highest(now.monotonic)).max().unwrap_or(0);
        let target = Target { highest, proven: self.proven_claim(now), doubt: self.doubt(now) };
        if target != self.target || peers_became_able {
            self.target = target;
            effects.push(Effect::Target(target));
        }
    }

    /// The highest commit that half of the proven peers claim.
    fn proven_claim(&self, now: Now) -> CommitIndex {
        let proven = self.peers.values().filter(|peer| peer.is_proven(now.monotonic));
        let mut claims: Vec<_> = proven.filter_map(|peer| peer.highest(now.monotonic)).collect();
        if claims.is_empty() {
            return 0;
        }
        let middle = claims.len() / 2;
        *claims.select_nth_unstable(middle).1
    }

    /// Why no advertised height stands. A height stands until its owner cannot serve it.
    fn doubt(&self, now: Now) -> Option<NoPeer> {
        if self.peers.is_empty() {
            return Some(NoPeer::NotConnected);
        }
        let stands = |peer: &Peer| peer.claim.is_some() && peer.highest(now.monotonic) == peer.claim;
        if self.peers.values().any(stands) {
            return None;
        }
        let claims = self.peers.values().filter_map(|peer| peer.claim);
        Some(match claims.clone().max() {
            Some(claimed) => NoPeer::ClaimsUnproven { peers: claims.count(), claimed },
            None => NoPeer::Unheard { peers: self.peers.len() },
        })
    }

    fn on_claim(&mut self, now: Now, peer: PeerId, highest: CommitIndex, lowest: Option<CommitIndex>) -> bool {
        let Some(state) = self.peers.get_mut(&peer) else { return false };
        let had = state.highest(now.monotonic);
        // Heights go down, too: what a peer says last counts, and a push only says "at least".
        state.claim = Some(if lowest.is_some() { highest } else { highest.max(state.claim.unwrap_or(0)) });
        state.told = state.told.max(highest);
        if let Some(lowest) = lowest {
            state.lowest = lowest;
        }
        had != state.highest(now.monotonic)
    }

    fn on_report(&mut self, now: Now, id: PeerId, start: CommitIndex, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return self.on_report_of_absent(now, id, outcome, effects);
        };
        peer.work.end(now.monotonic, outcome.served());
        let was_proven = peer.is_proven(now.monotonic);
        match outcome {
            Outcome::Served { last, .. } => self.on_served(now, id, last),
            Outcome::Unused => {}
            Outcome::LostHedge { silent } => self.on_lost_hedge(now, id, start, silent),
            Outcome::Failed(failure) => self.on_failure(now, id, start, failure, effects),
        }
        // The budget of unproven peers has room now.
        let frees_budget = !was_proven && self.peers.values().any(|peer| peer.is_proven(now.monotonic));
        self.update_target(now, frees_budget, effects);
    }

    /// A peer that lies and goes, or that only calls, is kept out like any other.
    fn on_report_of_absent(&mut self, now: Now, id: PeerId, outcome: Outcome, effects: &mut Vec<Effect>) {
        if let Outcome::Failed(failure) = outcome
            && failure.fault.bans()
            && self.standings.banned(id, now.unix_ms).is_none()
        {
            self.standings.on_fault(id, failure.fault, now.unix_ms);
            self.ban(now, id, failure.reason, effects);
        }
    }

    fn on_served(&mut self, now: Now, id: PeerId, last: CommitIndex) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.served += 1;
        self.useful.insert(id);
        (peer.failures, peer.lost_hedges, peer.pruned_refusals) = (0, 0, 0);
        peer.prove(now.monotonic);
        self.standings.on_served(id, now.unix_ms);
        if peer.disproved.is_some_and(|(above, _)| last > above) {
            (peer.disproved, peer.disproofs) = (None, 0);
        }
    }

    fn on_lost_hedge(&mut self, now: Now, id: PeerId, start: CommitIndex, silent: bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // Of several ranges that it had at once, the first says all.
        if peer.paused_until > now.monotonic {
            return;
        }
        peer.lost_hedges += 1;
        let until = now.monotonic + pause(peer.lost_hedges - 1);
        peer.rest(until);
        if silent {
            // The advertised height is not believed either until the next query.
            peer.proven_until = Duration::ZERO;
            peer.disproved = Some((start.saturating_sub(1), until));
        }
        if peer.lost_hedges > LOST_HEDGES_TOLERANCE {
            peer.failures += 1;
            self.standings.on_fault(id, Fault::Slow, now.unix_ms);
        }
    }

    fn on_failure(
        &mut self,
        now: Now,
        id: PeerId,
        start: CommitIndex,
        failure: PeerFailure,
        effects: &mut Vec<Effect>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let PeerFailure { fault, reason, retry_after } = failure;
        let asked_for = retry_after.unwrap_or_default();
        match fault {
            Fault::Ours => return,
            // Of several ranges that it refuses at once, the first says all.
            Fault::Overloaded if peer.paused_until > now.monotonic => {
                return peer.rest(now.monotonic + asked_for.min(PAUSE_MAX));
            }
            // It is asked for its lowest commit again.
            Fault::DoesNotHave if peer.may_have_pruned(start) => {
                peer.pruned_refusals += 1;
                peer.lowest = peer.lowest.max(start + 1);
                peer.next_query = now.monotonic;
                return;
            }
            _ => {}
        }
        peer.failures += 1;
        self.standings.on_fault(id, fault, now.unix_ms);
        if fault.bans() {
            return self.ban(now, id, reason, effects);
        }
        let usual = pause(peer.failures - 1);
        match fault {
            Fault::DoesNotHave | Fault::Unproven => {
                peer.disproved = Some((start.saturating_sub(1), now.monotonic + pause(peer.disproofs)));
                peer.disproofs += 1;
            }
            // The peer knows best when it has time, but no pause exceeds the longest one.
            Fault::Overloaded => peer.rest(now.monotonic + asked_for.max(usual).min(PAUSE_MAX)),
            _ => peer.rest(now.monotonic + usual),
        }
    }

    fn ban(&mut self, now: Now, id: PeerId, reason: String, effects: &mut Vec<Effect>) {
        let (shortest, longest) = (self.config.ban_min, self.config.ban_max);
        let duration = self.standings.ban(id, now.unix_ms, shortest, longest);
        self.bans += 1;
        self.next_save = now.monotonic;
        if self.config.allowlist.contains(&id) {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.rest(now.monotonic + duration);
            }
            return;
        }
        self.peers.remove(&id);
        self.useful.remove(&id);
        effects.push(Effect::Ban { peer: id, duration, reason });
    }

    fn on_operator_ban(&mut self, now: Now, peer: PeerId, duration: Duration, reason: String) -> Effect {
        let duration = duration.min(MAX_OPERATOR_BAN);
        self.standings.ban_by_operator(peer, now.unix_ms, duration);
        self.bans += 1;
        self.next_save = now.monotonic;
        self.peers.remove(&peer);
        self.useful.remove(&peer);
        Effect::Ban { peer, duration, reason }
    }

    fn on_unban(&mut self, now: Now, peer: PeerId) -> Effect {
        self.standings.forgive(peer);
        self.next_save = now.monotonic;
        if let Some(state) = self.peers.get_mut(&peer) {
            (state.paused_until, state.failures) = (Duration::ZERO, 0);
        }
        Effect::Unban { peer }
    }

    fn on_connected(&mut self, now: Now, id: PeerId, effects: &mut Vec<Effect>) {
        let banned = self.standings.banned(id, now.unix_ms);
        if let Some(duration) = banned.filter(|_| !self.config.allowlist.contains(&id)) {
            // Banned before a restart, of this node or of Connections.
            let reason = "it is still banned".to_owned();
            return effects.push(Effect::Ban { peer: id, duration, reason });
        }
        let peer = self.peers.entry(id).or_default();
        peer.next_query = now.monotonic;
        peer.rest(now.monotonic + banned.unwrap_or_default());
    }

    fn save(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.standings.has_changed() && self.next_save <= now.monotonic {
            let (put, remove) = self.standings.take_changes(now.unix_ms);
            self.next_save = now.monotonic + SAVE_INTERVAL;
            effects.push(Effect::SaveStandings { put, remove });
        }
    }

    /// An announcement counts once it has proved true, so exaggerating gains nothing.
    fn on_own_height(&mut self, now: Now, height: CommitIndex) {
        self.own_height = self.own_height.max(height);
        for (id, peer) in &mut self.peers {
            let disproved = peer.disproved.is_some_and(|(_, until)| until > now.monotonic);
            if peer.news.take_if(|news| *news <= height).is_some() && !disproved {
                self.useful.insert(*id);
            }
        }
    }

    /// At most once in the time in which every peer is asked, so that there is always an occasion and never a flood.
    fn tell_useful(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !self.useful.is_empty() && self.next_useful <= now.monotonic {
            self.next_useful = now.monotonic + self.config.query_interval;
            effects.push(Effect::Useful(std::mem::take(&mut self.useful).into_iter().collect()));
        }
    }

    /// Tells peers that are behind what this node has; one push to a peer at a time, always the latest.
    fn push(&mut self, effects: &mut Vec<Effect>) {
        let index = self.own_height;
        for (id, peer) in &mut self.peers {
            if peer.told < index && !peer.pushing {
                (peer.pushing, peer.told) = (true, index);
                effects.push(Effect::Push { peer: *id, index });
            }
        }
    }

    fn query_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for (id, peer) in &mut self.peers {
            if peer.asked_at.is_none() && peer.next_query <= now.monotonic {
                peer.asked_at = Some(now.monotonic);
                effects.push(Effect::Query(*id));
            }
        }
    }
}

impl Core for PeerHeights {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = Snapshot;

    const NAME: &'static str = "peer-heights";

    fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        self.last_now = now;
        let mut effects = Vec::new();
        match input {
            // Pauses and disproofs may have run out.
            Input::Wake => self.update_target(now, true, &mut effects),
            Input::Peer(PeerEvent::Connected(peer)) => {
                self.on_connected(now, peer, &mut effects);
                self.update_target(now, false, &mut effects);
            }
            Input::Peer(PeerEvent::Lost { peer, .. }) => {
                self.peers.remove(&peer);
                self.useful.remove(&peer);
                self.update_target(now, false, &mut effects);
            }
            Input::Queried { peer, answer } => {
                let has_answered = answer.is_ok();
                let became_able = match answer {
                    Ok((highest, lowest)) => self.on_claim(now, peer, highest, Some(lowest)),
                    Err(_) => false,
                };
                if let Some(state) = self.peers.get_mut(&peer) {
                    let took = state.asked_at.take().map(|asked_at| now.monotonic.saturating_sub(asked_at));
                    state.round_trip = took.filter(|_| has_answered).or(state.round_trip);
                    state.next_query = now.monotonic + self.config.query_interval;
                }
                self.update_target(now, became_able, &mut effects);
                self.push(&mut effects);
            }
            Input::Pushed { peer, index } => {
                if index > self.own_height
                    && let Some(state) = self.peers.get_mut(&peer)
                {
                    state.news = state.news.max(Some(index));
                }
                let became_able = self.on_claim(now, peer, index, None);
                self.update_target(now, became_able, &mut effects);
            }
            Input::PushDone { peer, heard } => {
                if let Some(state) = self.peers.get_mut(&peer) {
                    state.pushing = false;
                    if heard {
                        self.push(&mut effects);
                    }
                }
            }
            Input::Pick { key, start, tried, hedge, next } => {
                let peer = self.pick(now, start, &tried, hedge, next);
                effects.push(Effect::Picked { key, peer });
            }
            Input::Report { peer, start, outcome } => self.on_report(now, peer, start, outcome, &mut effects),
            Input::OwnHeight(height) => {
                self.on_own_height(now, height);
                self.push(&mut effects);
            }
            Input::ChosenPeers(chosen) => self.config = self.config.clone().with_chosen_peers(&chosen),
            Input::Ban { peer, duration, reason } => {
                effects.push(self.on_operator_ban(now, peer, duration, reason));
                self.update_target(now, false, &mut effects);
            }
            Input::Unban { peer } => {
                effects.push(self.on_unban(now, peer));
                self.update_target(now, true, &mut effects);
            }
        }
        self.query_due(now, &mut effects);
        self.tell_useful(now, &mut effects);
        self.save(now, &mut effects);
        effects
    }

    fn wake() -> Option<Input> {
        Some(Input::Wake)
    }

    fn next_wake(&self) -> Option<Duration> {
        let times = self.peers.values().flat_map(|peer| {
            let query = peer.asked_at.is_none().then_some(peer.next_query);
            let disproved = peer.disproved.map(|(_, until)| until);
            [query, disproved, Some(peer.paused_until)]
        });
        let save = self.standings.has_changed().then_some(self.next_save);
        times.flatten().chain(save).filter(|at| *at > self.last_now.monotonic).min()
    }

    fn snapshot(&self) -> Snapshot {
        let peers = self.peers.iter().map(|(id, peer)| PeerSnapshot {
            peer: *id,
            highest: peer.highest(self.last_now.monotonic),
            lowest: peer.claim.map(|_| peer.lowest),
            in_flight: peer.work.in_flight,
            served: peer.served,
            failures: peer.failures,
            round_trip_ms: peer.round_trip.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            score: self.standings.score(*id, self.last_now.unix_ms),
        });
        Snapshot { peers: peers.collect(), bans: self.bans }
    }
}

#[cfg(test)]
mod tests;
