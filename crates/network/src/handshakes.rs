//! Limits on concurrent handshakes, in total and per source. A newcomer always gets a place: if none is left, the
//! oldest handshake of the source with the most is evicted. An honest peer finishes within a few round trips, and a
//! silent one is evicted.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// Concurrent handshakes. To delay an honest peer, an attacker must reopen this many sockets within one handshake's
/// time.
pub(crate) const MAX_HANDSHAKES: usize = 256;

/// Maximum TLS memory of one connection: the longest handshake message that rustls accepts.
pub(crate) const TLS_BYTES: usize = 64 << 10;

/// Concurrent handshakes per source, so that most places are always left for other sources.
const MAX_PER_SOURCE: usize = 16;

/// The handshakes of one listener.
pub(crate) struct Handshakes {
    taken: Mutex<Taken>,
    /// Whether the limit per source applies to loopback.
    limit_loopback: bool,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// By source, then in the order of their start.
    places: BTreeMap<IpAddr, BTreeMap<u64, CancellationToken>>,
}

impl Taken {
    fn len(&self) -> usize {
        self.places.values().map(BTreeMap::len).sum()
    }

    fn of(&self, source: IpAddr) -> usize {
        self.places.get(&source).map_or(0, BTreeMap::len)
    }

    fn remove(&mut self, source: IpAddr, number: u64) {
        let Some(places) = self.places.get_mut(&source) else { return };
        places.remove(&number);
        if places.is_empty() {
            self.places.remove(&source);
        }
    }

    /// Evicts the oldest handshake of the source.
    fn evict(&mut self, source: IpAddr) {
        let oldest = self.places.get(&source).and_then(|places| places.first_key_value());
        if let Some((number, evicted)) = oldest {
            let number = *number;
            evicted.cancel();
            self.remove(source, number);
        }
    }
}

impl Handshakes {
    pub(crate) fn new(limit_loopback: bool) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), limit_loopback })
    }

    /// Maximum bytes of the current handshakes.
    pub(crate) fn bytes(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).len() * TLS_BYTES
    }

    /// A place for one handshake, until it is dropped or evicted.
    pub(crate) fn place(self: &Arc<Self>, remote: IpAddr) -> Place {
        let source = source_of(remote);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // All nodes of a network may run on one machine.
        let exempt = source.is_loopback() && !self.limit_loopback;
        if taken.of(source) >= MAX_PER_SOURCE && !exempt {
            taken.evict(source);
        } else if taken.len() >= MAX_HANDSHAKES {
            let busiest = taken.places.iter().max_by_key(|(_, places)| places.len()).map(|(source, _)| *source);
            taken.evict(busiest.unwrap_or(source));
        }
        let (number, evicted) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.places.entry(source).or_default().insert(number, evicted.clone());
        Place { handshakes: self.clone(), source, number, evicted }
    }
}

/// The owner of an address. A host with one IPv6 address has all 2^64 addresses of its network.
fn source_of(remote: IpAddr) -> IpAddr {
    match remote.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        other => other,
    }
}

/// The place of one handshake.
pub(crate) struct Place {
    handshakes: Arc<Handshakes>,
    source: IpAddr,
    number: u64,
    /// Cancelled when the handshake is evicted.
    pub(crate) evicted: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.handshakes.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(self.source, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(handshakes: &Arc<Handshakes>, remotes: impl Iterator<Item = String>) -> Vec<Place> {
        remotes.map(|remote| handshakes.place(remote.parse().unwrap())).collect()
    }

    fn left(places: &[Place]) -> Vec<usize> {
        let is_left = |place: &Place| !place.evicted.is_cancelled();
        places.iter().enumerate().filter(|(_, place)| is_left(place)).map(|(number, _)| number).collect()
    }

    #[test]
    fn one_source_keeps_few_places_and_its_oldest_handshakes_are_evicted() {
        let handshakes = Handshakes::new(false);
        let first = places(&handshakes, (0..100).map(|_| "192.0.2.1".into()));
        assert_eq!(left(&first), (100 - MAX_PER_SOURCE..100).collect::<Vec<_>>());
        // A mapped address is the same source, and so is a whole IPv6 network.
        let mapped = handshakes.place("::ffff:192.0.2.1".parse().unwrap());
        assert_eq!(left(&first).len(), MAX_PER_SOURCE - 1);
        let network = places(&handshakes, (0..100).map(|host| format!("2001:db8::{host:x}")));
        assert_eq!(left(&network).len(), MAX_PER_SOURCE);
        drop((first, mapped, network));
        assert!(handshakes.taken.lock().unwrap().places.is_empty());
    }

    #[test]
    fn when_all_places_are_taken_the_source_with_the_most_is_evicted() {
        let handshakes = Handshakes::new(false);
        let sources = MAX_HANDSHAKES / MAX_PER_SOURCE;
        let attackers = (0..sources).flat_map(|host| (0..MAX_PER_SOURCE).map(move |_| format!("192.0.2.{host}")));
        let attackers = places(&handshakes, attackers);
        assert_eq!(left(&attackers).len(), MAX_HANDSHAKES);
        let others = places(&handshakes, (0..100).map(|host| format!("198.51.100.{host}")));
        assert_eq!(left(&others).len(), 100, "a source with one handshake keeps it");
        assert_eq!(left(&attackers).len(), MAX_HANDSHAKES - 100);
    }

    #[test]
    fn loopback_has_all_places_unless_it_is_limited() {
        let loopback = || (0..2 * MAX_HANDSHAKES).map(|_| "127.0.0.1".into());
        assert_eq!(left(&places(&Handshakes::new(false), loopback())).len(), MAX_HANDSHAKES);
        assert_eq!(left(&places(&Handshakes::new(true), loopback())).len(), MAX_PER_SOURCE);
    }
}
