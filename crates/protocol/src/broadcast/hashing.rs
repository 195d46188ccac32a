//! Hash tables of what peers choose: keyed, never iterated, and written down in order.
//!
//! A message id is a digest, but its author can try payloads until ids collide in a table. So the hash has a secret
//! key, drawn from the node's seed.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use soma_types::MessageId;
use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher},
    time::Duration,
};

/// The key of a hash.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct HashKey {
    low: u64,
    high: u64,
}

impl HashKey {
    pub(super) fn new(rng: &mut ChaCha8Rng) -> Self {
        Self { low: rng.random(), high: rng.random() }
    }
}

impl BuildHasher for HashKey {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { key: *self, state: 0 }
    }
}

/// Folded multiplication, 16 bytes at a time.
pub(super) struct KeyedHasher {
    key: HashKey,
    state: u64,
}

impl KeyedHasher {
    fn mix(&mut self, low: u64, high: u64) {
        let product = u128::from(self.state ^ low ^ self.key.low) * u128::from(high ^ self.key.high);
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(16) {
            let mut padded = [0; 16];
            padded[..chunk.len()].copy_from_slice(chunk);
            let word = u128::from_le_bytes(padded);
            self.mix(word as u64, (word >> 64) as u64);
        }
    }

    /// Lengths and the numbers of variants: the keys of one table have one form.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.state
    }
}

/// A map for lookups.
pub(super) struct KeyedMap<K, V>(HashMap<K, V, HashKey>);

impl<K: Eq + Hash, V: Copy> KeyedMap<K, V> {
    pub(super) fn new(key: HashKey) -> Self {
        Self(HashMap::with_hasher(key))
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.0.get(key).copied()
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.0.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.0.remove(key)
    }
}

impl<K: Copy + Ord + Hash + Serialize, V: Copy + Serialize> Serialize for KeyedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries: Vec<(K, V)> = self.0.iter().map(|(key, value)| (*key, *value)).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        (self.0.hasher(), entries).serialize(serializer)
    }
}

impl<'de, K: Eq + Hash + DeserializeOwned, V: DeserializeOwned> Deserialize<'de> for KeyedMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (key, entries): (HashKey, Vec<(K, V)>) = Deserialize::deserialize(deserializer)?;
        let mut map = HashMap::with_capacity_and_hasher(entries.len(), key);
        map.extend(entries);
        Ok(Self(map))
    }
}

/// Ids of one half of [`SeenIds`]. At 10,000 messages per second the two halves last for about 100 seconds; together they
/// take at most 20 MB.
const MAX_SEEN: usize = 1 << 19;

/// Ids that are known although nothing else is known of their messages any more. Keeps 8 bytes of each.
///
/// There are two generations: a lookup reads both, a new id goes into the young one. So each id is known for at least
/// the time of one generation, unless there are too many.
#[derive(Serialize, Deserialize)]
pub(super) struct SeenIds {
    key: HashKey,
    young: Fingerprints,
    old: Fingerprints,
    young_since: Duration,
}

impl SeenIds {
    pub(super) fn new(key: HashKey) -> Self {
        Self { key, young: Fingerprints::default(), old: Fingerprints::default(), young_since: Duration::ZERO }
    }

    pub(super) fn contains(&self, id: &MessageId) -> bool {
        if self.young.0.is_empty() && self.old.0.is_empty() {
            return false;
        }
        let fingerprint = self.key.hash_one(id);
        self.young.0.contains(&fingerprint) || self.old.0.contains(&fingerprint)
    }

    pub(super) fn insert(&mut self, now: Duration, history: Duration, id: &MessageId) {
        self.expire(now, history);
        if self.young.0.len() >= MAX_SEEN {
            self.begin_generation(now);
        }
        self.young.0.insert(self.key.hash_one(id));
    }

    /// Begins a generation if the young one is old enough.
    pub(super) fn expire(&mut self, now: Duration, history: Duration) {
        if now >= self.young_since + history {
            self.begin_generation(now);
        }
    }

    fn begin_generation(&mut self, now: Duration) {
        self.old = std::mem::take(&mut self.young);
        self.young_since = now;
    }
}

#[derive(Default)]
struct Fingerprints(HashSet<u64, BuildHasherDefault<Identity>>);

impl Serialize for Fingerprints {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sorted: Vec<u64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fingerprints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(|sorted| Self(sorted.into_iter().collect()))
    }
}

/// A fingerprint is a hash already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
