//! Discovery: which nodes there are, and whom to dial.
//!
//! ```text
//!   seeds, validators --> Dial --> Connected --> Query --> infos (verified by the shell) --> book --> Dial ...
//!                                                 ^ a few random peers each interval
//!   asked by a peer --> its own info into the book, Probe: can it be dialled?  --> a sample of peers seen live as the answer
//!   book            --> Probe: a few each interval that were never reached, or not for long  --> tried, or failed
//! ```
//!
//! Always:
//! - An info is passed on in its owner's own bytes, only when this node has reached its owner lately, and never to its
//!   owner; private ones never, those for trusted peers to trusted peers.
//! - Of two infos of one peer the newer counts. The book has a bound, and who was not heard of for a day leaves it.
//! - Addresses near by are taken only from who is as near: nobody far away has this node dial its neighbours.
//! - Seeds and the book are never given up: as long as there is no link, they are dialled again and again.

mod book;
mod dialling;
mod hearsay;
mod trouble;

pub use book::{MAX_BOOK_BYTES, StoredPeer};
pub use hearsay::Seen;
pub use trouble::Trouble;

use crate::{
    connections::{DialFailure, DialPurpose},
    core::{Core, Now, Opaque, PeerEvent},
};
use book::{Book, Entry};
use hearsay::Hearsay;
use rand::{SeedableRng, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use soma_types::{Access, Address, NetworkGroup, PeerId, Reach, TimestampMs};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use strum::VariantNames;

/// How old this node's own info may get before it is signed anew.
const RESIGN_AFTER_MS: TimestampMs = 5 * 60 * 1000;

/// Dials for links begun in one interval: a book full of dead addresses costs this many dials, not thousands.
const DIALS_PER_INTERVAL: usize = 16;

/// Length of an interval while there is no link, if the configured one is longer.
const LONELY_INTERVAL: Duration = Duration::from_secs(1);

/// What the clock may be ahead of the time that passed, in one interval, without having been set.
const MAX_DRIFT_MS: TimestampMs = 1_000;

/// A dial that was not answered for so long is asked for again: an answer was lost.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// A peer is passed on for this long after it was last reached.
const PASS_ON_MS: TimestampMs = 3600 * 1000;

/// How Discovery works. Defaults are the seed documents'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// This node.
    pub own_id: PeerId,
    /// Peers to begin with; never given up.
    pub seeds: Vec<(PeerId, Vec<Address>)>,
    /// Peers to be connected to always, and trusted.
    pub allowlist: BTreeSet<PeerId>,
    /// Peers to have nothing to do with.
    pub denylist: BTreeSet<PeerId>,
    /// Where this node listens, as others are told.
    pub addresses: Vec<Address>,
    /// Its port; with it and without addresses, the address is learned from what peers see.
    pub listen_port: Option<u16>,
    /// How often peers are asked for others.
    pub interval: Duration,
    /// How many of them at a time.
    pub peers_to_query: usize,
    /// How many links to have.
    pub target_connections: usize,
    /// How many of them in one network.
    pub max_per_group: usize,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, VariantNames)]
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
    Book {
        /// Peers whose infos passed.
        stored: Vec<StoredPeer>,
        /// What could not be read, or did not pass.
        unreadable: Vec<PeerId>,
    },
    /// From StateSync: the validators of the epoch of the next commit, and where the committee says that they listen.
    Committee(Vec<(PeerId, Address)>),
    /// From Connections.
    Peer {
        /// What has happened.
        event: PeerEvent,
        /// Where the peer of a new link really is, if the transport tells.
        ip: Option<IpAddr>,
    },
    /// From Connections: a dial failed.
    DialFailed {
        /// Whom.
        peer: PeerId,
        /// Why.
        failure: DialFailure,
    },
    /// From Connections: how a dial for a probe ended. The shell has the link, and ends it after the next query.
    Probed {
        /// Whom.
        peer: PeerId,
        /// Reached, and at which IP address if the transport tells; or why not.
        result: Result<Option<IpAddr>, DialFailure>,
    },
    /// From the shell's call, answering [`Effect::Query`].
    Answered {
        /// Who was asked.
        peer: PeerId,
        /// Where it really is, if the transport tells.
        remote: Option<IpAddr>,
        /// What it said, or why there was no answer.
        answer: Result<Answer, String>,
    },
    /// From the gRPC adapter: a peer asks us. Its info, if it verified.
    Asked {
        /// Under which the shell keeps the answer's address.
        key: u64,
        /// Who asks.
        peer: PeerId,
        /// From where it is connected.
        remote: Option<IpAddr>,
        /// What it says of itself.
        info: Option<KnownPeer>,
    },
}

/// What a peer that was asked answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the infos those that verified: its own, and others'.
    pub infos: Vec<KnownPeer>,
    /// What it says of this node.
    pub seen: Seen,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Sign this node's info with the present time.
    SignOwnInfo {
        /// Where it says that this node listens.
        addresses: Vec<Address>,
    },
    /// Ask Connections for a dial.
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
        /// What this node has to say of the asker, but for its address.
        seen: Seen,
    },
    /// Have these peers stored, and those removed.
    SaveBook {
        /// New or changed ones.
        put: Vec<StoredPeer>,
        /// Forgotten peers.
        remove: Vec<PeerId>,
    },
}

/// Discovery as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Peers in the book.
    pub known: usize,
    /// Bytes of their infos.
    pub known_bytes: u64,
    /// Peers of them that this node has reached.
    pub seen_live: usize,
    /// Peers connected now.
    pub connected: usize,
    /// Where this node says that it listens.
    pub addresses: Vec<Address>,
    /// What is wrong, if something is.
    pub trouble: Option<Trouble>,
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

/// The core of Discovery.
#[derive(Serialize, Deserialize)]
pub struct Discovery {
    config: Config,
    rng: ChaCha8Rng,
    /// As told to peers.
    addresses: Vec<Address>,
    own_info: Option<(Opaque, TimestampMs)>,
    signing: bool,
    book: Book,
    /// The stored address book has been read: before, nobody known means nothing.
    book_read: bool,
    hearsay: Hearsay,
    validators: BTreeMap<PeerId, Address>,
    connected: BTreeSet<PeerId>,
    /// Dials for links asked for and not answered, with when.
    dialling: BTreeMap<PeerId, Duration>,
    /// Probes asked for and not answered, with when.
    probing: BTreeMap<PeerId, Duration>,
    /// Peers that asked, to be probed.
    to_dial_back: VecDeque<PeerId>,
    dials_left: usize,
    seed_failures: BTreeMap<PeerId, DialFailure>,
    /// A dial has failed since a peer was connected last.
    dial_failed: bool,
    next_round: Duration,
    /// When the book's peers were last looked through for those not heard of.
    aged: Now,
    /// Intervals until seeds are probed, and how many there were before.
    seed_probe_in: u32,
    seed_probe_every: u32,
}

impl Discovery {
    /// Starts with seeds only.
    pub fn new(config: Config) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        Self {
            addresses: config.addresses.clone(),
            own_info: None,
            signing: false,
            book: Book::new(&mut rng),
            book_read: false,
            hearsay: Hearsay::default(),
            validators: BTreeMap::new(),
            connected: BTreeSet::new(),
            dialling: BTreeMap::new(),
            probing: BTreeMap::new(),
            to_dial_back: VecDeque::new(),
            dials_left: DIALS_PER_INTERVAL,
            seed_failures: BTreeMap::new(),
            dial_failed: false,
            next_round: Duration::ZERO,
            aged: Now { monotonic: Duration::ZERO, unix_ms: 0 },
            seed_probe_in: 1,
            seed_probe_every: 1,
            rng,
            config,
        }
    }

    /// The address book, by peer.
    pub fn book(&self) -> Vec<BookEntry> {
        let entry = |entry: &Entry| BookEntry {
            peer: entry.info.peer,
            addresses: entry.info.addresses.clone(),
            access: entry.info.access,
            signed_ms: entry.info.timestamp_ms,
            seen_live_ms: entry.live_ms,
            connected: self.connected.contains(&entry.info.peer),
        };
        self.book.entries().map(entry).collect()
    }

    /// Whether an info says more than what is known: anything else need not be told to this core at all.
    pub fn is_news(&self, info: &KnownPeer) -> bool {
        info.peer != self.config.own_id && !self.config.denylist.contains(&info.peer) && self.book.is_news(info)
    }

    fn is_trusted(&self, peer: PeerId) -> bool {
        self.config.allowlist.contains(&peer) || self.validators.contains_key(&peer)
    }

    fn seed(&self, peer: PeerId) -> Option<&(PeerId, Vec<Address>)> {
        self.config.seeds.iter().find(|(seed, _)| *seed == peer)
    }

    /// Where the peer is said to be, best first: its own word before the configuration's and the committee's.
    fn addresses_of(&self, peer: PeerId) -> Vec<Address> {
        let mut addresses = self.book.get(peer).map(|entry| entry.info.addresses.clone()).unwrap_or_default();
        let others = self.seed(peer).map(|(_, addresses)| addresses.as_slice()).unwrap_or_default();
        for address in others.iter().chain(self.validators.get(&peer)) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    fn network_of(&self, peer: PeerId) -> Option<NetworkGroup> {
        self.addresses_of(peer).first().map(NetworkGroup::of)
    }

    fn is_busy(&self, peer: PeerId) -> bool {
        self.connected.contains(&peer) || self.dialling.contains_key(&peer)
    }

    /// Those to be connected to always, once each.
    fn kept(&self) -> impl Iterator<Item = PeerId> {
        let trusted: BTreeSet<_> = self.config.allowlist.iter().chain(self.validators.keys()).copied().collect();
        let is_other = |peer: &PeerId| *peer != self.config.own_id && !self.config.denylist.contains(peer);
        trusted.into_iter().filter(move |peer| is_other(peer) && self.is_kept(*peer))
    }

    /// Whether there is to be a link to the peer always: it is on the allowlist, or both are validators.
    fn is_kept(&self, peer: PeerId) -> bool {
        let among_validators =
            || self.validators.contains_key(&self.config.own_id) && self.validators.contains_key(&peer);
        self.config.allowlist.contains(&peer) || among_validators()
    }

    /// Links there are and are to be, beside those that are kept always.
    fn links(&self) -> usize {
        self.connected.iter().chain(self.dialling.keys()).filter(|peer| !self.is_kept(**peer)).count()
    }

    /// Links below which this node takes what it can get.
    fn few_links(&self) -> usize {
        self.config.target_connections.div_ceil(2)
    }

    /// Takes in what somebody of network `source`, as near as `near`, says of a peer.
    fn learn(&mut self, now: Now, mut info: KnownPeer, source: NetworkGroup, near: Reach) {
        let peer = info.peer;
        if !self.is_news(&info) {
            return;
        }
        // What is near by and known stays, whoever passes the info on: only its owner can have put it there.
        let known = self.book.get(peer).map(|entry| entry.info.addresses.as_slice()).unwrap_or_default();
        info.addresses.retain(|address| known.contains(address) || is_taken_from(near, address));
        self.book.learn(info, source);
        if self.connected.contains(&peer) {
            self.book.live(peer, now.unix_ms, None);
        }
    }

    fn query(&mut self, peer: PeerId, effects: &mut Vec<Effect>) {
        if let Some((own_info, _)) = &self.own_info {
            effects.push(Effect::Query { peer, own_info: own_info.clone() });
        }
    }

    fn sign(&mut self, effects: &mut Vec<Effect>) {
        self.signing = true;
        effects.push(Effect::SignOwnInfo { addresses: self.addresses.clone() });
    }

    /// One interval's work.
    fn round(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let stale = self.own_info.as_ref().is_none_or(|(_, signed)| now.unix_ms.abs_diff(*signed) > RESIGN_AFTER_MS);
        if stale && !self.signing {
            self.sign(effects);
        }
        for asked in [&mut self.dialling, &mut self.probing] {
            asked.retain(|_, at| *at + ANSWERED_WITHIN > now.monotonic);
        }
        self.dials_left = DIALS_PER_INTERVAL;
        let mut asked = self.connected.iter().copied().sample(&mut self.rng, self.config.peers_to_query);
        asked.sort();
        for peer in asked {
            self.query(peer, effects);
        }
        self.age(now);
        let (put, remove) = self.book.take_changes();
        if !put.is_empty() || !remove.is_empty() {
            effects.push(Effect::SaveBook { put, remove });
        }
        self.dial_kept(now, effects);
        self.dial(now, effects);
        self.probe_who_asked(now, effects);
        self.probe_seeds(now, effects);
        self.probe_some(now, effects);
        self.next_round = now.monotonic + self.interval();
    }

    /// Who was not heard of for a day leaves the book. Time without a link does not count, nor what the clock was set by.
    fn age(&mut self, now: Now) {
        let past_ms = now.unix_ms.saturating_sub(self.aged.unix_ms);
        let linked_ms = match self.connected.is_empty() {
            true => 0,
            false => now.monotonic.saturating_sub(self.aged.monotonic).as_millis() as TimestampMs + MAX_DRIFT_MS,
        };
        let first = self.aged.unix_ms == 0;
        self.aged = now;
        if !first && past_ms > linked_ms {
            self.book.does_not_count(past_ms - linked_ms);
        }
        self.book.forget_unseen(now.unix_ms, |peer| self.connected.contains(peer));
    }

    fn interval(&self) -> Duration {
        if self.connected.is_empty() { self.config.interval.min(LONELY_INTERVAL) } else { self.config.interval }
    }

    fn answered(&mut self, now: Now, peer: PeerId, remote: Option<IpAddr>, answer: Answer, effects: &mut Vec<Effect>) {
        let (source, near) = teller(remote);
        for info in answer.infos {
            // What it says of itself is its own network's word, what it says of others, too.
            self.learn(now, info, source.clone(), near);
        }
        if self.connected.contains(&peer) {
            self.hearsay.said(peer, source, answer.seen, now.unix_ms);
            self.learn_own_address(effects);
        }
        self.dial(now, effects);
    }

    /// Takes the address at which peers see this node for its own, if there is no other.
    fn learn_own_address(&mut self, effects: &mut Vec<Effect>) {
        let (true, Some(port)) = (self.config.addresses.is_empty(), self.config.listen_port) else { return };
        let Some(ip) = self.hearsay.external_ip() else { return };
        let Ok(learned) = Address::try_from(SocketAddr::new(ip, port)) else { return };
        let learned = vec![learned];
        if self.addresses != learned {
            self.addresses = learned;
            self.sign(effects);
        }
    }

    fn answer(&mut self, now: Now, key: u64, asker: PeerId, effects: &mut Vec<Effect>) {
        let trusted = self.is_trusted(asker);
        let is_shared = |entry: &Entry| {
            let live = entry.reached() == Some(true)
                && entry.live_ms.is_some_and(|live_ms| live_ms.saturating_add(PASS_ON_MS) >= now.unix_ms);
            let told = match entry.info.access {
                Access::Public => true,
                Access::Trusted => trusted,
                Access::Private => false,
            };
            let peer = entry.info.peer;
            told && peer != asker && (live || self.connected.contains(&peer))
        };
        let mut sample = self.book.sample_live(&mut self.rng, self.config.max_answer, is_shared);
        sample.sort_by_key(|info| info.peer);
        let peers = sample.into_iter().map(|info| info.bytes.clone()).collect();
        let own_info = self.own_info.as_ref().map(|(bytes, _)| bytes.clone()).unwrap_or_default();
        let reached = self.book.get(asker).and_then(Entry::reached);
        let seen = Seen { ip: None, time_ms: now.unix_ms, reached };
        effects.push(Effect::Answer { key, own_info, peers, seen });
    }

    /// A dial failed: only while others can be reached does that say something of the peer.
    fn failed(&mut self, now: Now, peer: PeerId, failure: &DialFailure) {
        if failure.is_of_peer() && !self.connected.is_empty() {
            self.book.failed(peer, now.monotonic);
        }
    }

    /// How many peers there are to dial besides seeds: those of the book, and those to be connected to always.
    fn others_known(&self) -> usize {
        let in_config =
            self.kept().filter(|peer| self.book.get(*peer).is_none() && !self.addresses_of(*peer).is_empty());
        self.book.len() + in_config.count()
    }

    /// What is wrong with this node's place in the network, if something is.
    pub fn trouble(&self) -> Option<Trouble> {
        if self.connected.is_empty() {
            let failures = self.seed_failures.iter().map(|(peer, failure)| (*peer, failure.clone())).collect();
            // The committee and the address book come right after the start, in any order, and bring peers to dial.
            let known = self.others_known();
            let is_told_of_all = self.book_read && !self.validators.is_empty();
            let tried = match self.config.seeds.len() {
                0 => is_told_of_all && (known == 0 || self.dial_failed),
                seeds => self.seed_failures.len() >= seeds,
            };
            return tried.then(|| Trouble::without_links(failures, known));
        }
        if let Some((ahead_ms, peers)) = self.hearsay.clock_off() {
            return Some(Trouble::ClockOff { ahead_ms, peers });
        }
        let peers = self.hearsay.unreachable()?;
        Some(Trouble::Unreachable { addresses: self.addresses.clone(), peers })
    }
}

/// The network of who tells of peers, and how near it is. From nowhere in particular: from far away.
fn teller(remote: Option<IpAddr>) -> (NetworkGroup, Reach) {
    let source = remote.map_or_else(|| NetworkGroup::Domain(String::new()), NetworkGroup::of_ip);
    (source, remote.map_or(Reach::Global, Reach::of))
}

/// Whether somebody as near as `near` may tell of the address. What a name stands for is not known.
fn is_taken_from(near: Reach, address: &Address) -> bool {
    address.ip().is_none_or(|ip| Reach::of(ip) >= near)
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
            Input::Book { stored, mut unreadable } => {
                let is_denied = |stored: &StoredPeer| self.config.denylist.contains(&stored.info.peer);
                let (denied, mut stored): (Vec<_>, Vec<_>) = stored.into_iter().partition(is_denied);
                // An info has all addresses that its owner signed, those too that its teller was too far away for.
                for StoredPeer { info, source, .. } in &mut stored {
                    info.addresses.retain(|address| is_taken_from(source.reach(), address));
                }
                unreadable.extend(denied.iter().map(|stored| stored.info.peer));
                self.book.restore(now.unix_ms, stored, unreadable);
                self.book_read = true;
                self.dial(now, &mut effects);
            }
            Input::Committee(validators) => {
                self.validators = validators.into_iter().collect();
                self.dial_kept(now, &mut effects);
            }
            Input::Peer { event: PeerEvent::Connected(peer), ip } => {
                self.connected.insert(peer);
                self.dialling.remove(&peer);
                // A probe that waited is dropped then.
                self.probing.remove(&peer);
                self.seed_failures.remove(&peer);
                self.dial_failed = false;
                self.book.live(peer, now.unix_ms, ip);
                self.query(peer, &mut effects);
            }
            Input::Peer { event: PeerEvent::Lost { peer, .. }, .. } => {
                self.connected.remove(&peer);
                self.hearsay.forget(peer);
                self.next_round = self.next_round.min(now.monotonic + self.interval());
                self.dial(now, &mut effects);
            }
            Input::DialFailed { peer, failure } => {
                self.dialling.remove(&peer);
                self.dial_failed = true;
                match &failure {
                    DialFailure::Refused { .. } => self.book.refused(peer, now),
                    failure => self.failed(now, peer, failure),
                }
                let pausing = matches!(failure, DialFailure::Pausing { .. });
                if !pausing && self.seed(peer).is_some() {
                    self.seed_failures.insert(peer, failure);
                }
                self.dial(now, &mut effects);
            }
            Input::Probed { peer, result } => {
                self.probing.remove(&peer);
                match result {
                    Ok(ip) => {
                        self.book.live(peer, now.unix_ms, ip);
                        self.query(peer, &mut effects);
                    }
                    // Whoever has the key has said so: it is there.
                    Err(DialFailure::Refused { .. }) => self.book.refused(peer, now),
                    Err(failure) => self.failed(now, peer, &failure),
                }
                self.probe_who_asked(now, &mut effects);
            }
            Input::Answered { peer, remote, answer: Ok(answer) } => {
                self.answered(now, peer, remote, answer, &mut effects);
            }
            Input::Answered { answer: Err(_), .. } => {}
            Input::Asked { key, peer, remote, info } => {
                if let Some(info) = info.filter(|info| info.peer == peer) {
                    let (source, near) = teller(remote);
                    self.learn(now, info, source, near);
                    self.dial_back(now, peer, &mut effects);
                }
                self.answer(now, key, peer, &mut effects);
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
            known_bytes: self.book.bytes(),
            seen_live: self.book.tried(),
            connected: self.connected.len(),
            addresses: self.addresses.clone(),
            trouble: self.trouble(),
        }
    }
}

#[cfg(test)]
mod tests;
