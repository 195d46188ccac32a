//! The address book: advertised addresses of peers, and the peers that were reached there.
//!
//! ```text
//!   told by a peer --> new    128 buckets; which one is for the networks of teller and told to decide, and a secret
//!   reached        --> tried   32 buckets; which one is for the network and the address to decide, and the secret
//! ```
//!
//! Nobody who has a network full of identities gets more of the book than that network's buckets: what one network
//! tells of another is in one bucket, all that it tells in 16; all peers of one network that were reached are in 4.
//! (Bitcoin's and CometBFT's books work so.) A machine near by counts as a network of its own.
//!
//! Always: a peer is in one bucket; a bucket has a bound, and so has the book in bytes; a recently reached peer is
//! never displaced by an advertised one.

use super::{KnownPeer, StoredPeer};
use crate::{Backoff, core::Now};
use rand::{
    RngExt,
    seq::{IteratorRandom, index},
};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use soma_types::{Address, ContentDigest, NetworkGroup, PeerId, TimestampMs, codec};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// Buckets of peers that others advertised.
const NEW_BUCKETS: u64 = 128;

/// Buckets that the answers of one network can reach.
const NEW_BUCKETS_OF_SOURCE: u64 = 16;

/// Buckets of peers that were reached.
const TRIED_BUCKETS: u64 = 32;

/// Buckets that the peers of one network can be in.
const TRIED_BUCKETS_OF_GROUP: u64 = 4;

/// Peers in a bucket.
const BUCKET_SIZE: usize = 64;

/// Bytes of infos in a bucket. A full bucket of usual ones has 20 KiB; this bounds those of the greatest length, and
/// the book to 10 MiB. For each bucket, so that long infos displace nobody in others.
const BUCKET_BYTES: u64 = 64 << 10;

/// Bytes of all infos in the book at most.
pub const MAX_BOOK_BYTES: u64 = (NEW_BUCKETS + TRIED_BUCKETS) * BUCKET_BYTES;

/// A peer not heard of for this long leaves the book.
const FORGET_AFTER_MS: TimestampMs = 24 * 3600 * 1000;

/// A tried peer keeps its place against another for this long after it was last reached.
const KEEPS_PLACE_MS: TimestampMs = 3600 * 1000;

/// Failed attempts in a row after which a peer does not count as tried any more.
const MAX_FAILURES: u32 = 3;

/// Pause after an attempt that said nothing of the peer.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Pause between attempts that are made because the peer asks.
const DIAL_BACK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Pause after a failed attempt; doubles with each further one.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Longest pause after failed attempts.
const RETRY_MAX: Duration = Duration::from_secs(64 * 30);

/// Which half of the book, and which bucket there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Place {
    New(u64),
    Tried(u64),
}

/// A peer in the book.
#[derive(Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) info: KnownPeer,
    /// The network of the peer that advertised it.
    pub(super) source: NetworkGroup,
    place: Place,
    /// When it was last connected.
    pub(super) live_ms: Option<TimestampMs>,
    /// When it last showed that it is there: its own signature, or a connection.
    heard_ms: TimestampMs,
    /// Failed attempts in a row.
    failures: u32,
    /// The last attempt to reach it.
    attempted: Option<Duration>,
    /// The last attempt that was made because it asked.
    dialled_back: Option<Duration>,
}

impl Entry {
    /// Whether its turn has come, as far as former failures are concerned.
    fn may_be_tried(&self, now: Duration) -> bool {
        let pause = match self.failures {
            0 => TRY_AGAIN_AFTER,
            failures => Backoff { min: RETRY_AFTER, max: RETRY_MAX }.wait(failures - 1),
        };
        self.attempted.is_none_or(|attempted| now >= attempted + pause)
    }

    /// Whether the peer was reached at an advertised address: `None` if it was never tried.
    pub(super) fn reached(&self) -> Option<bool> {
        match (self.live_ms, self.failures) {
            (_, 1..) => Some(false),
            (Some(_), 0) => Some(true),
            (None, 0) => None,
        }
    }

    /// What survives a restart.
    pub(super) fn stored(&self) -> StoredPeer {
        StoredPeer { info: self.info.clone(), source: self.source.clone(), seen_live_ms: self.live_ms }
    }
}

/// The address book.
#[derive(Serialize, Deserialize)]
pub(super) struct Book {
    secret: u64,
    entries: BTreeMap<PeerId, Entry>,
    buckets: BTreeMap<Place, BTreeSet<PeerId>>,
    /// Those that have been reached and have not failed too often since, in no order: those with `live_ms`.
    live: Vec<PeerId>,
    /// Not told the store yet.
    changed: BTreeSet<PeerId>,
}

impl Book {
    pub(super) fn new(rng: &mut ChaCha8Rng) -> Self {
        let (entries, buckets, changed) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { secret: rng.random(), entries, buckets, live: Vec::new(), changed }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all infos.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.info.bytes.size()).sum()
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&Entry> {
        self.entries.get(&peer)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// How many have been reached and have not failed too often since.
    pub(super) fn tried(&self) -> usize {
        self.live.len()
    }

    /// Takes in the stored peers. The time that the node was down does not age them.
    /// `unreadable` and what finds no room leave the store.
    pub(super) fn restore(&mut self, now_ms: TimestampMs, stored: Vec<StoredPeer>, unreadable: Vec<PeerId>) {
        let heard = |stored: &StoredPeer| stored.info.timestamp_ms.max(stored.seen_live_ms.unwrap_or(0));
        let newest = stored.iter().map(heard).max().unwrap_or(now_ms);
        let down_ms = now_ms.saturating_sub(newest);
        for peer in stored {
            let heard_ms = heard(&peer).saturating_add(down_ms);
            let (id, live_ms) = (peer.info.peer, peer.seen_live_ms);
            self.learn(peer.info, peer.source);
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.heard_ms = entry.heard_ms.max(heard_ms);
            }
            if let Some(live_ms) = live_ms {
                self.settle(id, live_ms, None);
            }
            if self.entries.contains_key(&id) {
                self.changed.remove(&id);
            } else {
                self.changed.insert(id);
            }
        }
        self.changed.extend(unreadable);
    }

    /// Excludes this time from every peer's age: no peer could be heard, or the clock was set.
    pub(super) fn does_not_count(&mut self, ms: TimestampMs) {
        for entry in self.entries.values_mut() {
            entry.heard_ms = entry.heard_ms.saturating_add(ms);
        }
    }

    /// Whether the info is newer than what there is of its peer.
    pub(super) fn is_news(&self, info: &KnownPeer) -> bool {
        self.entries.get(&info.peer).is_none_or(|known| known.info.timestamp_ms < info.timestamp_ms)
    }

    /// Takes in an info, told by someone of network `source`. Of two infos of one peer the newer counts.
    pub(super) fn learn(&mut self, info: KnownPeer, source: NetworkGroup) {
        let (peer, heard_ms) = (info.peer, info.timestamp_ms);
        let Some(address) = info.addresses.first() else { return };
        if !self.is_news(&info) {
            return;
        }
        let (mut attempted, mut dialled_back) = (None, None);
        if let Some(known) = self.entries.get_mut(&peer) {
            // Where it was found, if it was, stays in front.
            let first = known.info.addresses.first();
            if let Some(place) = info.addresses.iter().position(|address| Some(address) == first) {
                known.info = info;
                known.info.addresses[..=place].rotate_right(1);
                known.heard_ms = known.heard_ms.max(heard_ms);
                self.changed.insert(peer);
                return;
            }
            (attempted, dialled_back) = (known.attempted, known.dialled_back);
        }
        // The peer is unknown, or has moved and was not reached there.
        let place = Place::New(self.new_bucket(address, &source));
        if !self.has_room(place, info.bytes.size(), Some(peer)) {
            return;
        }
        self.remove(peer);
        self.buckets.entry(place).or_default().insert(peer);
        let entry = Entry { info, source, place, live_ms: None, heard_ms, failures: 0, attempted, dialled_back };
        self.entries.insert(peer, entry);
        self.changed.insert(peer);
    }

    /// The peer was reached, at this IP address if that is known.
    pub(super) fn live(&mut self, peer: PeerId, now_ms: TimestampMs, at: Option<IpAddr>) {
        if let Some(entry) = self.entries.get_mut(&peer) {
            (entry.failures, entry.attempted) = (0, None);
            // The address that worked comes first, in spite of the owner's order.
            let worked = entry.info.addresses.iter().position(|address| at.is_some() && address.ip() == at);
            if let Some(worked) = worked {
                entry.info.addresses[..=worked].rotate_right(1);
            }
            self.settle(peer, now_ms, at);
        }
    }

    /// Has it count as tried, if there is room among the tried.
    fn settle(&mut self, peer: PeerId, live_ms: TimestampMs, at: Option<IpAddr>) {
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        if entry.live_ms.replace(live_ms).is_none() {
            self.live.push(peer);
        }
        entry.heard_ms = entry.heard_ms.max(live_ms);
        self.changed.insert(peer);
        let Some(address) = entry.info.addresses.first().cloned() else { return };
        let (size, before) = (entry.info.bytes.size(), entry.place);
        let place = Place::Tried(self.tried_bucket(&address, at));
        if before == place || (matches!(before, Place::Tried(_)) && at.is_none()) {
            return;
        }
        while !self.fits(place, size, None) {
            let live_ms_of = |peer: &PeerId| self.entries.get(peer).and_then(|entry| entry.live_ms);
            let oldest = self.buckets.get(&place).into_iter().flatten().copied().min_by_key(live_ms_of);
            match oldest {
                Some(oldest) if live_ms_of(&oldest).unwrap_or(0).saturating_add(KEEPS_PLACE_MS) < live_ms => {
                    self.demote(oldest)
                }
                _ => return,
            }
        }
        self.put(peer, place);
    }

    /// The peer is up, but does not admit this node for now.
    pub(super) fn refused(&mut self, peer: PeerId, now: Now) {
        self.live(peer, now.unix_ms, None);
        self.attempt(peer, now.monotonic);
    }

    /// Whether a peer that asks may be dialled now, if it was not just now: it has shown that it lives, so that former
    /// failures do not count, but whoever asks again and again is dialled no more often for it.
    pub(super) fn may_dial_back(&mut self, peer: PeerId, now: Duration) -> bool {
        let Some(entry) = self.entries.get_mut(&peer) else { return false };
        let may = entry.dialled_back.is_none_or(|last| now >= last + DIAL_BACK_AGAIN_AFTER);
        if may {
            entry.dialled_back = Some(now);
        }
        may
    }

    /// An attempt to reach the peer begins.
    pub(super) fn attempt(&mut self, peer: PeerId, now: Duration) {
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.attempted = Some(now);
        }
    }

    /// The peer was not reached.
    pub(super) fn failed(&mut self, peer: PeerId, now: Duration) {
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        entry.failures = entry.failures.saturating_add(1);
        entry.attempted = Some(now);
        if entry.failures >= MAX_FAILURES && entry.live_ms.take().is_some() {
            self.live.retain(|live| *live != peer);
            self.changed.insert(peer);
            self.demote(peer);
        }
    }

    /// Moves the peer back to the advertised ones.
    fn demote(&mut self, peer: PeerId) {
        let Some(entry) = self.entries.get(&peer) else { return };
        let (Place::Tried(_), Some(address)) = (entry.place, entry.info.addresses.first()) else { return };
        let (place, size) = (Place::New(self.new_bucket(address, &entry.source)), entry.info.bytes.size());
        if self.has_room(place, size, None) { self.put(peer, place) } else { self.remove(peer) }
    }

    /// Whether a peer with this many bytes fits into the bucket after `leaves` has left it.
    fn fits(&self, place: Place, size: u64, leaves: Option<PeerId>) -> bool {
        let members = self.buckets.get(&place).into_iter().flatten();
        let staying = members.filter(|member| Some(**member) != leaves).filter_map(|member| self.entries.get(member));
        let (count, bytes) = staying.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.info.bytes.size()));
        count < BUCKET_SIZE && bytes + size <= BUCKET_BYTES
    }

    /// Makes room in the bucket: in a full one only the peer with most failures leaves.
    fn has_room(&mut self, place: Place, size: u64, leaves: Option<PeerId>) -> bool {
        while !self.fits(place, size, leaves) {
            let failures = |peer: &PeerId| self.entries.get(peer).map_or(0, |entry| entry.failures);
            let worst = self.buckets.get(&place).into_iter().flatten().copied().max_by_key(failures);
            match worst {
                Some(worst) if failures(&worst) > 0 => self.remove(worst),
                _ => return false,
            }
        }
        true
    }

    fn put(&mut self, peer: PeerId, place: Place) {
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        let left = std::mem::replace(&mut entry.place, place);
        self.leave(peer, left);
        self.buckets.entry(place).or_default().insert(peer);
    }

    fn leave(&mut self, peer: PeerId, place: Place) {
        if let Some(members) = self.buckets.get_mut(&place) {
            members.remove(&peer);
            if members.is_empty() {
                self.buckets.remove(&place);
            }
        }
    }

    fn remove(&mut self, peer: PeerId) {
        if let Some(entry) = self.entries.remove(&peer) {
            self.leave(peer, entry.place);
            if entry.live_ms.is_some() {
                self.live.retain(|live| *live != peer);
            }
            self.changed.insert(peer);
        }
    }

    /// Drops peers that were not heard of for a day and are not kept.
    pub(super) fn forget_unseen(&mut self, now_ms: TimestampMs, is_kept: impl Fn(&PeerId) -> bool) {
        let oldest = now_ms.saturating_sub(FORGET_AFTER_MS);
        let unseen = self.entries.iter().filter(|(peer, entry)| entry.heard_ms < oldest && !is_kept(peer));
        for peer in unseen.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.remove(peer);
        }
    }

    /// Up to this many reached peers that `suits` accepts; fewer if many do not suit.
    pub(super) fn sample_live(
        &self,
        rng: &mut ChaCha8Rng,
        most: usize,
        suits: impl Fn(&Entry) -> bool,
    ) -> Vec<&KnownPeer> {
        // Twice as many are looked at as are wanted, however large the book is.
        let looked_at = index::sample(rng, self.live.len(), self.live.len().min(most * 2));
        let entries = looked_at.into_iter().filter_map(|place| self.entries.get(self.live.get(place)?));
        entries.filter(|entry| suits(entry)).map(|entry| &entry.info).take(most).collect()
    }

    /// Changes for the store: new and changed peers, and removed ones.
    pub(super) fn take_changes(&mut self) -> (Vec<StoredPeer>, Vec<PeerId>) {
        let changed = std::mem::take(&mut self.changed);
        let (there, gone): (Vec<_>, Vec<_>) = changed.into_iter().partition(|peer| self.entries.contains_key(peer));
        (there.iter().filter_map(|peer| self.entries.get(peer)).map(Entry::stored).collect(), gone)
    }

    /// Peers to connect to, of those that `suits`.
    pub(super) fn candidates(&self, now: Duration, suits: impl Fn(&Entry) -> bool) -> Candidates {
        let mut buckets: BTreeMap<Place, Vec<PeerId>> = BTreeMap::new();
        for (peer, entry) in &self.entries {
            if entry.may_be_tried(now) && suits(entry) {
                buckets.entry(entry.place).or_default().push(*peer);
            }
        }
        let (tried, new) = buckets.into_iter().partition(|(place, _)| matches!(place, Place::Tried(_)));
        Candidates { tried, new }
    }

    /// The peer that was not reached for longest, among those that `suits` accepts and that were last reached before
    /// `before_ms`.
    pub(super) fn least_lately_live(
        &self,
        now: Duration,
        before_ms: TimestampMs,
        suits: impl Fn(&Entry) -> bool,
    ) -> Option<PeerId> {
        let is_due = |entry: &&Entry| {
            entry.live_ms.is_some_and(|live_ms| live_ms < before_ms) && entry.may_be_tried(now) && suits(entry)
        };
        self.entries.values().filter(is_due).min_by_key(|entry| entry.live_ms).map(|entry| entry.info.peer)
    }

    fn new_bucket(&self, told: &Address, source: &NetworkGroup) -> u64 {
        let (told, source) = (network(told), codec::encode(source));
        let slot = self.hash(&[b"told", &told, &source]) % NEW_BUCKETS_OF_SOURCE;
        self.hash(&[b"source", &source, &slot.to_le_bytes()]) % NEW_BUCKETS
    }

    /// By where the peer really was, if that is known.
    fn tried_bucket(&self, address: &Address, at: Option<IpAddr>) -> u64 {
        let slot = self.hash(&[b"address", address.as_str().as_bytes()]) % TRIED_BUCKETS_OF_GROUP;
        let network = match at.map(NetworkGroup::of_ip) {
            Some(group) if !group.is_near() => codec::encode(&group),
            _ => network(address),
        };
        self.hash(&[b"tried", &network, &slot.to_le_bytes()]) % TRIED_BUCKETS
    }

    fn hash(&self, parts: &[&[u8]]) -> u64 {
        let secret = self.secret.to_le_bytes();
        let mut all: Vec<&[u8]> = vec![&secret];
        all.extend(parts);
        let [a, b, c, d, e, f, g, h, ..] = ContentDigest::of(&all).0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// What stands for an address's network: near by, each address for itself.
fn network(address: &Address) -> Vec<u8> {
    let group = NetworkGroup::of(address);
    if group.is_near() { address.as_str().as_bytes().to_vec() } else { codec::encode(&group) }
}

/// Peers to choose from: tried or not by a coin's fall, then a bucket, then one in it, so that who fills a bucket is
/// not chosen more often than who is alone in one.
pub(super) struct Candidates {
    tried: BTreeMap<Place, Vec<PeerId>>,
    new: BTreeMap<Place, Vec<PeerId>>,
}

impl Candidates {
    /// Takes one out.
    pub(super) fn pick(&mut self, rng: &mut ChaCha8Rng) -> Option<PeerId> {
        let prefers_tried = rng.random_bool(0.5);
        let table = match (self.tried.is_empty(), self.new.is_empty()) {
            (false, true) => &mut self.tried,
            (true, _) => &mut self.new,
            (false, false) if prefers_tried => &mut self.tried,
            (false, false) => &mut self.new,
        };
        let place = *table.keys().choose(rng)?;
        let members = table.get_mut(&place)?;
        let peer = members.swap_remove(rng.random_range(0..members.len()));
        if members.is_empty() {
            table.remove(&place);
        }
        Some(peer)
    }
}
