//! Discovery: which nodes there are, and whom to dial.
//!
//! ```text
//!   seeds --> Dial --> Connected --> Query --> infos (verified by the shell) --> book --> Dial ...
//!                                      ^ a few random peers each interval
//!   asked by a peer --> its own info into the book, a sample of peers seen live as the answer
//! ```
//!
//! Always:
//! - An info is passed on in its owner's own bytes, only when this node has been connected to its owner, and never
//!   to its owner; private ones never.
//! - Of two infos of one peer the newer counts. The book has a bound, and who was not heard of for a day leaves it.
//! - Seeds are never given up.

use crate::{
    connections::{DialFailure, DialPurpose},
    core::{Core, Now, Opaque, PeerEvent},
};
use rand::{SeedableRng, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use soma_types::{Access, Address, PeerId, TimestampMs};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Peers in the book beyond those connected.
const MAX_BOOK: usize = 2_000;

/// A peer not heard of for this long leaves the book.
const FORGET_AFTER_MS: TimestampMs = 24 * 3600 * 1000;

/// How old this node's own info may get before it is signed anew.
const RESIGN_AFTER_MS: TimestampMs = 5 * 60 * 1000;

/// Dials begun at once per interval: a book full of dead addresses costs this many dials, not two thousand.
const DIALS_PER_INTERVAL: usize = 8;

/// How Discovery works. Defaults are the seed documents'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// This node.
    pub own_id: PeerId,
    /// Peers to begin with; never given up.
    pub seeds: Vec<(PeerId, Vec<Address>)>,
    /// How often peers are asked for others.
    pub interval: Duration,
    /// How many of them at a time.
    pub peers_to_query: usize,
    /// How many links to have.
    pub target_connections: usize,
    /// Infos in one answer.
    pub max_answer: usize,
    /// Seed of all choices.
    pub seed: u64,
}

/// A node info whose signature, chain and time are in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPeer {
    /// Whose.
    pub peer: PeerId,
    /// When it was signed.
    pub timestamp_ms: TimestampMs,
    /// Where its node listens.
    pub addresses: Vec<Address>,
    /// Whom that may be told.
    pub access: Access,
    /// As its owner signed it.
    pub bytes: Opaque,
}

/// What can happen to Discovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// From the shell: the time asked for has come.
    Wake,
    /// From the shell, answering [`Effect::SignOwnInfo`].
    OwnInfo {
        /// Signed bytes.
        bytes: Opaque,
        /// When it was signed.
        timestamp_ms: TimestampMs,
    },
    /// From the store, at the start: the address book.
    Book(Vec<KnownPeer>),
    /// From Connections.
    Peer(PeerEvent),
    /// From Connections: a dial failed.
    DialFailed {
        /// Whom.
        peer: PeerId,
        /// Why.
        failure: DialFailure,
    },
    /// From the shell's call, answering [`Effect::Query`]: verified infos only.
    Answered {
        /// Who was asked.
        peer: PeerId,
        /// Its own info first, then those of others; or why there was no answer.
        infos: Result<Vec<KnownPeer>, String>,
    },
    /// From the gRPC adapter: a peer asks us. Its info, if it verified.
    Asked {
        /// Under which the shell keeps the answer's address.
        key: u64,
        /// Who asks.
        peer: PeerId,
        /// What it says of itself.
        info: Option<KnownPeer>,
    },
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Sign this node's info with the present time.
    SignOwnInfo,
    /// Ask Connections for a link.
    Dial {
        /// To whom.
        peer: PeerId,
        /// Where.
        addresses: Vec<Address>,
        /// What for.
        purpose: DialPurpose,
    },
    /// Ask the peer whom it knows.
    Query {
        /// Whom.
        peer: PeerId,
        /// This node's info, to be told.
        own_info: Opaque,
    },
    /// Answer an [`Input::Asked`].
    Answer {
        /// Which.
        key: u64,
        /// This node's info.
        own_info: Opaque,
        /// Others'.
        peers: Vec<Opaque>,
    },
    /// Have these infos stored, and those peers' removed.
    SaveBook {
        /// New or newer infos.
        put: Vec<(PeerId, Opaque)>,
        /// Forgotten peers.
        remove: Vec<PeerId>,
    },
}

/// Discovery as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Peers in the book.
    pub known: usize,
    /// Peers of them that this node has been connected to.
    pub seen_live: usize,
    /// Peers connected now.
    pub connected: usize,
    /// How the last dial to each unconnected seed failed.
    pub seed_failures: Vec<(PeerId, DialFailure)>,
}

/// A peer of the address book as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookEntry {
    /// Who.
    pub peer: PeerId,
    /// Where it says that it listens.
    pub addresses: Vec<Address>,
    /// Whom that may be told.
    pub access: Access,
    /// When it signed that, in milliseconds since 1970.
    pub signed_ms: TimestampMs,
    /// When this node was last connected to it, in milliseconds since 1970; `None`: never, it was only heard of.
    pub seen_live_ms: Option<TimestampMs>,
    /// Whether this node has a link to it now.
    pub connected: bool,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    info: KnownPeer,
    /// When this node was last connected to it, or took its info.
    heard_ms: TimestampMs,
    seen_live: bool,
}

/// The core of Discovery.
#[derive(Serialize, Deserialize)]
pub struct Discovery {
    config: Config,
    rng: ChaCha8Rng,
    own_info: Option<(Opaque, TimestampMs)>,
    signing: bool,
    book: BTreeMap<PeerId, Entry>,
    connected: BTreeSet<PeerId>,
    /// Dials asked for and not answered.
    dialling: BTreeSet<PeerId>,
    seed_failures: BTreeMap<PeerId, DialFailure>,
    next_round: Duration,
    to_save: BTreeSet<PeerId>,
}

impl Discovery {
    /// Starts with seeds only.
    pub fn new(config: Config) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            config,
            own_info: None,
            signing: false,
            book: BTreeMap::new(),
            connected: BTreeSet::new(),
            dialling: BTreeSet::new(),
            seed_failures: BTreeMap::new(),
            next_round: Duration::ZERO,
            to_save: BTreeSet::new(),
        }
    }

    /// The address book, by peer.
    pub fn book(&self) -> Vec<BookEntry> {
        let entry = |(peer, entry): (&PeerId, &Entry)| BookEntry {
            peer: *peer,
            addresses: entry.info.addresses.clone(),
            access: entry.info.access,
            signed_ms: entry.info.timestamp_ms,
            seen_live_ms: entry.seen_live.then_some(entry.heard_ms),
            connected: self.connected.contains(peer),
        };
        self.book.iter().map(entry).collect()
    }

    fn learn(&mut self, now: Now, info: KnownPeer) {
        if info.peer == self.config.own_id {
            return;
        }
        let peer = info.peer;
        match self.book.get_mut(&peer) {
            Some(entry) if entry.info.timestamp_ms < info.timestamp_ms => {
                entry.info = info;
                entry.heard_ms = now.unix_ms;
            }
            Some(_) => return,
            None => {
                if self.book.len() >= MAX_BOOK && !self.make_room() {
                    return;
                }
                let seen_live = self.connected.contains(&peer);
                self.book.insert(peer, Entry { info, heard_ms: now.unix_ms, seen_live });
            }
        }
        self.to_save.insert(peer);
    }

    /// Drops a random peer that was never seen live; a book of live ones is not displaced by hearsay.
    fn make_room(&mut self) -> bool {
        let unproven = self.book.iter().filter(|(_, entry)| !entry.seen_live).map(|(peer, _)| *peer);
        match unproven.choose(&mut self.rng) {
            Some(peer) => self.book.remove(&peer).is_some(),
            None => false,
        }
    }

    fn forget_old(&mut self, now: Now) -> Vec<PeerId> {
        let oldest = now.unix_ms.saturating_sub(FORGET_AFTER_MS);
        let old: Vec<_> = self
            .book
            .iter()
            .filter(|(peer, entry)| entry.heard_ms < oldest && !self.connected.contains(peer))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in &old {
            self.book.remove(peer);
        }
        old
    }

    fn query(&mut self, peer: PeerId, effects: &mut Vec<Effect>) {
        if let Some((own_info, _)) = &self.own_info {
            effects.push(Effect::Query { peer, own_info: own_info.clone() });
        }
    }

    /// Dials seeds that are not connected, and others from the book up to the target.
    fn dial(&mut self, effects: &mut Vec<Effect>) {
        let busy = |peer: &PeerId| self.connected.contains(peer) || self.dialling.contains(peer);
        let mut wanted: Vec<_> = self.config.seeds.iter().filter(|(peer, _)| !busy(peer)).cloned().collect();
        let links = self.connected.len() + self.dialling.len() + wanted.len();
        let room = self.config.target_connections.saturating_sub(links).min(DIALS_PER_INTERVAL);
        let seeds: BTreeSet<_> = self.config.seeds.iter().map(|(peer, _)| *peer).collect();
        let others = self.book.values().filter(|entry| {
            let peer = &entry.info.peer;
            !busy(peer) && !seeds.contains(peer) && !entry.info.addresses.is_empty()
        });
        let others = others.map(|entry| (entry.info.peer, entry.info.addresses.clone()));
        let mut others = others.sample(&mut self.rng, room);
        others.sort();
        wanted.append(&mut others);
        for (peer, addresses) in wanted {
            self.dialling.insert(peer);
            effects.push(Effect::Dial { peer, addresses, purpose: DialPurpose::Link });
        }
    }

    /// Dials a peer that has just shown that it lives: at once, so that it hears of new commits without delay.
    fn dial_back(&mut self, peer: PeerId, addresses: Vec<Address>, effects: &mut Vec<Effect>) {
        let links = self.connected.len() + self.dialling.len();
        let known = self.connected.contains(&peer) || self.dialling.contains(&peer);
        if !known && links < self.config.target_connections && !addresses.is_empty() {
            self.dialling.insert(peer);
            effects.push(Effect::Dial { peer, addresses, purpose: DialPurpose::Link });
        }
    }

    /// One interval's work.
    fn round(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.next_round = now.monotonic + self.config.interval;
        let stale = self.own_info.as_ref().is_none_or(|(_, signed)| now.unix_ms.abs_diff(*signed) > RESIGN_AFTER_MS);
        if stale && !self.signing {
            self.signing = true;
            effects.push(Effect::SignOwnInfo);
        }
        // A dial that was not answered (Connections refused it silently, or was restarted) is asked for again.
        self.dialling.clear();
        let mut asked = self.connected.iter().copied().sample(&mut self.rng, self.config.peers_to_query);
        asked.sort();
        for peer in asked {
            self.query(peer, effects);
        }
        let remove = self.forget_old(now);
        let put = std::mem::take(&mut self.to_save);
        let put: Vec<_> =
            put.into_iter().filter_map(|peer| Some((peer, self.book.get(&peer)?.info.bytes.clone()))).collect();
        if !put.is_empty() || !remove.is_empty() {
            effects.push(Effect::SaveBook { put, remove });
        }
        self.dial(effects);
    }

    fn answer(&mut self, key: u64, asker: PeerId, effects: &mut Vec<Effect>) {
        let shareable = self
            .book
            .values()
            .filter(|entry| entry.seen_live && entry.info.peer != asker && entry.info.access == Access::Public);
        let mut sample = shareable.map(|entry| &entry.info).sample(&mut self.rng, self.config.max_answer);
        sample.sort_by_key(|info| info.peer);
        let peers = sample.into_iter().map(|info| info.bytes.clone()).collect();
        let own_info = self.own_info.as_ref().map(|(bytes, _)| bytes.clone()).unwrap_or_default();
        effects.push(Effect::Answer { key, own_info, peers });
    }
}

impl Core for Discovery {
    type Input = Input;
    type Effect = Effect;
    type Snapshot = Snapshot;

    const NAME: &'static str = "discovery";

    fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Wake => {}
            Input::OwnInfo { bytes, timestamp_ms } => {
                let first = self.own_info.is_none();
                self.own_info = Some((bytes, timestamp_ms));
                self.signing = false;
                // Peers that connected before there was an info to tell them.
                if first {
                    for peer in self.connected.clone() {
                        self.query(peer, &mut effects);
                    }
                }
            }
            Input::Book(infos) => {
                for info in infos {
                    self.learn(now, info);
                }
                self.to_save.clear();
            }
            Input::Peer(PeerEvent::Connected(peer)) => {
                self.connected.insert(peer);
                self.dialling.remove(&peer);
                self.seed_failures.remove(&peer);
                if let Some(entry) = self.book.get_mut(&peer) {
                    entry.seen_live = true;
                    entry.heard_ms = now.unix_ms;
                }
                self.query(peer, &mut effects);
            }
            Input::Peer(PeerEvent::Lost { peer, .. }) => {
                self.connected.remove(&peer);
                self.dial(&mut effects);
            }
            Input::DialFailed { peer, failure } => {
                self.dialling.remove(&peer);
                let pausing = matches!(failure, DialFailure::Pausing { .. });
                if !pausing && self.config.seeds.iter().any(|(seed, _)| *seed == peer) {
                    self.seed_failures.insert(peer, failure);
                }
            }
            Input::Answered { peer: _, infos: Ok(infos) } => {
                for info in infos {
                    self.learn(now, info);
                }
                self.dial(&mut effects);
            }
            Input::Answered { infos: Err(_), .. } => {}
            Input::Asked { key, peer, info } => {
                if let Some(info) = info.filter(|info| info.peer == peer) {
                    let addresses = info.addresses.clone();
                    self.learn(now, info);
                    self.dial_back(peer, addresses, &mut effects);
                }
                self.answer(key, peer, &mut effects);
            }
        }
        if now.monotonic >= self.next_round {
            self.round(now, &mut effects);
        }
        effects
    }

    fn wake() -> Option<Input> {
        Some(Input::Wake)
    }

    fn next_wake(&self) -> Option<Duration> {
        Some(self.next_round)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            known: self.book.len(),
            seen_live: self.book.values().filter(|entry| entry.seen_live).count(),
            connected: self.connected.len(),
            seed_failures: self.seed_failures.iter().map(|(peer, failure)| (*peer, failure.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
