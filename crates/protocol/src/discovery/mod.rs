//! Discovery: which nodes exist, and which to dial.
//!
//! ```text
//!   seeds, validators --> Dial --> Connected --> Query --> infos (verified by the shell) --> book --> Dial ...
//!                                                 ^ a few random peers each interval
//!   asked by a peer --> its own info into the book, Probe: can it be dialled?  --> a sample of peers seen live as
//!   the answer book            --> Probe: a few each interval that were never reached, or not for long  --> tried,
//!   or failed
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
mod interface;
mod trouble;

pub use book::MAX_BOOK_BYTES;
pub use hearsay::Seen;
pub use interface::{Answer, BookEntry, Config, Effect, Input, KnownPeer, Snapshot, StoredPeer};
pub use trouble::Trouble;

use crate::{
    connections::DialFailure,
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

/// How old this node's own info may get before it is signed anew.
const RESIGN_AFTER_MS: TimestampMs = 5 * 60 * 1000;

/// Dials for links begun in one interval: a book full of dead addresses costs this many dials, not thousands.
const DIALS_PER_INTERVAL: usize = 16;

/// Length of an interval while there is no link, if the configured one is longer.
const LONELY_INTERVAL: Duration = Duration::from_secs(1);

/// What the clock may be ahead of the time that passed, in one interval, without having been set.
const MAX_DRIFT_MS: TimestampMs = 1_000;

/// A dial without an answer for this long is requested again: its answer was lost.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// A peer is passed on for this long after it was last reached.
const PASS_ON_MS: TimestampMs = 3600 * 1000;

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
    /// The stored address book has been read. Before, an empty book means nothing.
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

    /// Whether an info is newer than the known one; the shell drops all others.
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

    /// Whether this node always keeps a link to the peer: the peer is trusted, or both are validators.
    fn is_kept(&self, peer: PeerId) -> bool {
        let among_validators =
            || self.validators.contains_key(&self.config.own_id) && self.validators.contains_key(&peer);
        self.config.allowlist.contains(&peer) || among_validators()
    }

    /// Links and dials for links, without those that are always kept.
    fn links(&self) -> usize {
        self.connected.iter().chain(self.dialling.keys()).filter(|peer| !self.is_kept(**peer)).count()
    }

    /// Below this number of links, any peer is welcome.
    fn few_links(&self) -> usize {
        self.config.target_connections.div_ceil(2)
    }

    /// Takes in an info that a peer of network `source`, as near as `near`, advertised.
    fn learn(&mut self, now: Now, mut info: KnownPeer, source: NetworkGroup, near: Reach) {
        let peer = info.peer;
        if !self.is_news(&info) {
            return;
        }
        // Known local addresses stay: only the owner can have advertised them.
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

    /// Who was not heard of for a day leaves the book. Time without a link does not count, nor what the clock was set
    /// by.
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
            // The source of every advertised info is the network of its sender.
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
    fn on_own_info(&mut self, bytes: Opaque, timestamp_ms: TimestampMs, effects: &mut Vec<Effect>) {
        let first = self.own_info.is_none();
        self.own_info = Some((bytes, timestamp_ms));
        self.signing = false;
        // Peers that connected before there was an info to tell them.
        if first {
            for peer in self.connected.clone() {
                self.query(peer, effects);
            }
        }
    }

    fn on_book(&mut self, now: Now, stored: Vec<StoredPeer>, mut unreadable: Vec<PeerId>, effects: &mut Vec<Effect>) {
        let is_denied = |stored: &StoredPeer| self.config.denylist.contains(&stored.info.peer);
        let (denied, mut stored): (Vec<_>, Vec<_>) = stored.into_iter().partition(is_denied);
        // An info has every address that its owner signed. Some may be too far from its source.
        for StoredPeer { info, source, .. } in &mut stored {
            info.addresses.retain(|address| is_taken_from(source.reach(), address));
        }
        unreadable.extend(denied.iter().map(|stored| stored.info.peer));
        self.book.restore(now.unix_ms, stored, unreadable);
        self.book_read = true;
        self.dial(now, effects);
    }

    fn on_connected(&mut self, now: Now, peer: PeerId, ip: Option<IpAddr>, effects: &mut Vec<Effect>) {
        self.connected.insert(peer);
        self.dialling.remove(&peer);
        // A probe of the peer that waited is dropped then.
        self.probing.remove(&peer);
        self.seed_failures.remove(&peer);
        self.dial_failed = false;
        self.book.live(peer, now.unix_ms, ip);
        self.query(peer, effects);
    }

    fn on_dial_failed(&mut self, now: Now, peer: PeerId, failure: DialFailure, effects: &mut Vec<Effect>) {
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
        self.dial(now, effects);
    }

    fn on_probed(
        &mut self,
        now: Now,
        peer: PeerId,
        result: Result<Option<IpAddr>, DialFailure>,
        effects: &mut Vec<Effect>,
    ) {
        self.probing.remove(&peer);
        match result {
            Ok(ip) => {
                self.book.live(peer, now.unix_ms, ip);
                self.query(peer, effects);
            }
            // The refusal was signed with the peer's key: the peer is there.
            Err(DialFailure::Refused { .. }) => self.book.refused(peer, now),
            Err(failure) => self.failed(now, peer, &failure),
        }
        self.probe_who_asked(now, effects);
    }

    fn failed(&mut self, now: Now, peer: PeerId, failure: &DialFailure) {
        if failure.is_of_peer() && !self.connected.is_empty() {
            self.book.failed(peer, now.monotonic);
        }
    }
}

/// The network of a sender, and how near it is. An unknown sender is far away.
fn teller(remote: Option<IpAddr>) -> (NetworkGroup, Reach) {
    let source = remote.map_or_else(|| NetworkGroup::Domain(String::new()), NetworkGroup::of_ip);
    (source, remote.map_or(Reach::Global, Reach::of))
}

/// Whether a sender as near as `near` may advertise the address. Names are unresolved here.
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
            Input::OwnInfo { bytes, timestamp_ms } => self.on_own_info(bytes, timestamp_ms, &mut effects),
            Input::Book { stored, unreadable } => self.on_book(now, stored, unreadable, &mut effects),
            Input::Committee(validators) => {
                self.validators = validators.into_iter().collect();
                self.dial_kept(now, &mut effects);
            }
            Input::Peer { event: PeerEvent::Connected(peer), ip } => self.on_connected(now, peer, ip, &mut effects),
            Input::Peer { event: PeerEvent::Lost { peer, .. }, .. } => {
                self.connected.remove(&peer);
                self.hearsay.forget(peer);
                self.next_round = self.next_round.min(now.monotonic + self.interval());
                self.dial(now, &mut effects);
            }
            Input::DialFailed { peer, failure } => self.on_dial_failed(now, peer, failure, &mut effects),
            Input::Probed { peer, result } => self.on_probed(now, peer, result, &mut effects),
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
            Input::ChosenPeers(chosen) => {
                self.config = self.config.clone().with_chosen_peers(&chosen);
                self.seed_failures.retain(|peer, _| self.config.seeds.iter().any(|(seed, _)| seed == peer));
                self.dial_kept(now, &mut effects);
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
