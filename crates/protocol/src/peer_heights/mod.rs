//! PeerHeights: how far each peer says it has got, how well it has served, and who is to be asked next.
//!
//! Always:
//! - A claim is a hint. It makes a peer a candidate and raises the target; it falls as soon as its owner cannot
//!   serve it, and stays down for a while that doubles with each repetition.
//! - Any connected peer that has a range's *start* may serve the range.
//! - The kind of a fault decides what follows (`soma_types::Fault`): only provable lies and malformed answers ban,
//!   slowness and overload mean a pause, and what is our own fault costs the peer nothing.
//! - What a peer has done is remembered across its connections and across restarts of this node; peers on the
//!   allowlist are never disconnected for it, only not asked.

mod selection;
mod standing;
mod work;

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
use strum::VariantNames;
use work::Work;

/// First pause after a fault that does not ban, and first time that a disproved claim stays down.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How many hedges in a row a peer may lose before it counts as slow: one in twenty of any peer's downloads takes longer
/// than nineteen others.
const LOST_HEDGES_TOLERANCE: u32 = 2;

/// Time between two writes of what is remembered of peers. Bans are written at once.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// How PeerHeights works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// How often each peer is asked for its heights, beside what it pushes.
    pub query_interval: Duration,
    /// First ban of a peer that lied or sent malformed data; doubles with each further one.
    pub ban_min: Duration,
    /// Longest ban.
    pub ban_max: Duration,
    /// Peers that are never disconnected: what bans others is a pause for them.
    pub allowlist: BTreeSet<PeerId>,
    /// Seed of all choices.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            query_interval: Duration::from_secs(5),
            ban_min: Duration::from_secs(600),
            ban_max: Duration::from_secs(12 * 3600),
            allowlist: BTreeSet::new(),
            seed: 0,
        }
    }
}

/// What can happen to PeerHeights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
pub enum Input {
    /// From the shell: the time asked for has come.
    Wake,
    /// From Connections.
    Peer(PeerEvent),
    /// From the shell's call, answering [`Effect::Query`]: highest synced and lowest available commit.
    Queried {
        /// Who was asked.
        peer: PeerId,
        /// What it said, or why it did not.
        answer: Result<(CommitIndex, CommitIndex), Fault>,
    },
    /// From the gRPC adapter: a peer told us of a commit.
    Pushed {
        /// Who.
        peer: PeerId,
        /// Up to where it has commits.
        index: CommitIndex,
    },
    /// From the shell's call, answering [`Effect::Push`].
    PushDone {
        /// Who was told.
        peer: PeerId,
        /// Whether it heard.
        heard: bool,
    },
    /// From StateSync: who is to serve a range?
    Pick {
        /// Under which the shell keeps the answer's address.
        key: u64,
        /// The range's first commit.
        start: CommitIndex,
        /// Peers that serve it now, or just failed to.
        tried: Vec<PeerId>,
        /// Whether others serve it now.
        hedge: bool,
        /// Whether all other ranges wait for this one.
        next: bool,
    },
    /// From StateSync: how a picked peer did.
    Report {
        /// Who.
        peer: PeerId,
        /// The range's first commit.
        start: CommitIndex,
        /// How.
        outcome: Outcome,
    },
    /// From StateSync: this node has every commit up to here, durably.
    OwnHeight(CommitIndex),
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Ask the peer which commits it can serve.
    Query(PeerId),
    /// Answer a [`Input::Pick`].
    Picked {
        /// Which.
        key: u64,
        /// Who, or why nobody.
        peer: Result<PeerId, NoPeer>,
    },
    /// Tell StateSync what peers claim; also when it is unchanged but peers became able to serve.
    Target(Target),
    /// Tell the peer that this node has the commit.
    Push {
        /// Whom.
        peer: PeerId,
        /// Which.
        index: CommitIndex,
    },
    /// Have the peer disconnected and kept out.
    Ban {
        /// Whom.
        peer: PeerId,
        /// For how long.
        duration: Duration,
        /// Why, for logs.
        reason: String,
    },
    /// Have these standings stored, and those peers' removed.
    SaveStandings {
        /// New or changed.
        put: Vec<(PeerId, Standing)>,
        /// Forgotten.
        remove: Vec<PeerId>,
    },
    /// Tell Connections who was of use since it was last told.
    Useful(Vec<PeerId>),
}

/// What peers claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The highest commit of all claims that are not disproved; 0 without any.
    pub highest: CommitIndex,
    /// The highest commit that half of the peers claim which have served lately; 0 without any. One of them may lie.
    pub proven: CommitIndex,
    /// Why this says nothing about how far the chain has got, if it does not: no peer's word stands.
    pub doubt: Option<NoPeer>,
}

impl Target {
    /// As long as nothing has been heard.
    pub const NONE: Self = Self { highest: 0, proven: 0, doubt: Some(NoPeer::NotConnected) };
}

/// How a peer served one range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The peer delivered verified commits up to this index.
    Served {
        /// The last verified commit.
        last: CommitIndex,
        /// Bytes of commits, blocks and votes.
        bytes: u64,
    },
    /// The peer was late, and a hedge at another peer was faster.
    LostHedge {
        /// The peer had sent nothing, or nothing for long.
        silent: bool,
    },
    /// No fault of the peer: the range was not needed any more, or failed on this node's side.
    Unused,
    /// The peer failed.
    Failed(PeerFailure),
}

impl Outcome {
    /// Bytes served in the time of this range, if they tell the peer's speed. A refusal or a lie takes no time, and a
    /// failure on this node's side is not the peer's.
    fn served(&self) -> Option<u64> {
        match self {
            Self::Served { bytes, .. } => Some(*bytes),
            Self::LostHedge { .. } => Some(0),
            Self::Unused | Self::Failed(_) => None,
        }
    }
}

/// Why no peer can serve a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum NoPeer {
    /// Not connected to anyone.
    #[error("not connected to any peer")]
    NotConnected,
    /// Connected, and nobody has answered yet.
    #[error("none of {peers} connected peers has told yet how far it has got")]
    Unheard {
        /// Connected peers.
        peers: usize,
    },
    /// Those that have got that far no longer keep it.
    #[error("all {peers} peers that got that far have pruned it; the lowest commit that any still has is {lowest}")]
    AllPruned {
        /// How many have pruned it.
        peers: usize,
        /// The lowest commit that any of them still has.
        lowest: CommitIndex,
    },
    /// Nobody claims it, or nobody whose claim still stands.
    #[error("none of {peers} connected peers has it")]
    NobodyHasIt {
        /// Connected peers.
        peers: usize,
    },
    /// Those that claim it could not serve it when they were asked.
    #[error("{peers} peers claim up to commit {claimed}, and none could serve it when asked")]
    ClaimsUnproven {
        /// How many.
        peers: usize,
        /// The highest claim.
        claimed: CommitIndex,
    },
    /// Those that claim it have proved nothing yet, and are asked for one range after the other.
    #[error("the peers that claim it, of {peers} connected ones, have served nothing yet, and are tried first")]
    Untested {
        /// Connected peers.
        peers: usize,
    },
    /// Those that have it failed lately and are given a pause.
    #[error("all {peers} peers that have it failed lately and are given a pause")]
    AllPaused {
        /// How many.
        peers: usize,
    },
}

impl NoPeer {
    /// The name of the cause, as metrics and the status have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotConnected => "not-connected",
            Self::Unheard { .. } => "unheard",
            Self::AllPruned { .. } => "all-pruned",
            Self::NobodyHasIt { .. } => "nobody-has-it",
            Self::ClaimsUnproven { .. } => "claims-unproven",
            Self::Untested { .. } => "untested",
            Self::AllPaused { .. } => "all-paused",
        }
    }
}

/// One peer as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSnapshot {
    /// Who.
    pub peer: PeerId,
    /// Highest commit that it claims and may be asked for.
    pub highest: Option<CommitIndex>,
    /// Lowest commit that it says it has.
    pub lowest: Option<CommitIndex>,
    /// Ranges that it is serving us now.
    pub in_flight: usize,
    /// Ranges that it has served since it connected.
    pub served: u64,
    /// Failures in a row.
    pub failures: u32,
    /// Standing: 100 for a peer without fault, 0 for the worst. Recovers with time and with what it serves.
    pub score: u32,
}

/// PeerHeights' state as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Connected peers.
    pub peers: Vec<PeerSnapshot>,
    /// Peers banned since start.
    pub bans: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Peer {
    /// Highest commit claimed, by answer or push.
    claim: Option<CommitIndex>,
    lowest: CommitIndex,
    /// The claim above this is disproved until the time given.
    disproved: Option<(CommitIndex, Duration)>,
    disproofs: u32,
    querying: bool,
    next_query: Duration,
    /// Highest index that we told it of, or that it has.
    told: CommitIndex,
    pushing: bool,
    /// Highest commit that it told us of before we had it.
    news: Option<CommitIndex>,
    served: u64,
    failures: u32,
    /// Hedges lost in a row: how often another peer was faster with the same range.
    lost_hedges: u32,
    work: Work,
    /// It counts as proven until then.
    proven_until: Duration,
    paused_until: Duration,
}

impl Peer {
    /// What it may be asked for, at most.
    fn highest(&self, now: Duration) -> Option<CommitIndex> {
        let cap = self.disproved.filter(|(_, until)| *until > now).map_or(CommitIndex::MAX, |(above, _)| above);
        self.claim.map(|claim| claim.min(cap))
    }

    /// Leaves it alone until then, or for longer if it is to be already: a small fault ends no pause for a large one.
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
    /// Connected peers that were of use and are not told of yet.
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
    /// Starts without peers; `own_height` is the store's watermark, `standings` what was stored of peers.
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

    /// Why nobody's word stands: a claim does, as far as it goes, until its owner cannot serve it.
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
        // Beside proven peers the others have a budget, of which some is free now.
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
        (peer.failures, peer.lost_hedges) = (0, 0);
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
            // What it claims is not believed either until it is asked again.
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
            // It knows best when it has time; but not for longer than anybody is left alone.
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

    /// What was news when it was told counts once it has turned out true: to claim more than there is costs nothing.
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
            if !peer.querying && peer.next_query <= now.monotonic {
                peer.querying = true;
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
                let became_able = match answer {
                    Ok((highest, lowest)) => self.on_claim(now, peer, highest, Some(lowest)),
                    Err(_) => false,
                };
                if let Some(state) = self.peers.get_mut(&peer) {
                    state.querying = false;
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
            let query = (!peer.querying).then_some(peer.next_query);
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
            score: self.standings.score(*id, self.last_now.unix_ms),
        });
        Snapshot { peers: peers.collect(), bans: self.bans }
    }
}

#[cfg(test)]
mod tests;
