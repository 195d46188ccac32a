//! Limits on concurrent handshakes, in total and per source. A newcomer always gets a slot: if none is left, the
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

/// Concurrent handshakes per source, so that most slots are always left for other sources.
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
    slots: BTreeMap<IpAddr, BTreeMap<u64, CancellationToken>>,
}

impl Taken {
    fn len(&self) -> usize {
        self.slots.values().map(BTreeMap::len).sum()
    }

    fn of(&self, source: IpAddr) -> usize {
        self.slots.get(&source).map_or(0, BTreeMap::len)
    }

    fn remove(&mut self, source: IpAddr, number: u64) {
        let Some(slots) = self.slots.get_mut(&source) else { return };
        slots.remove(&number);
        if slots.is_empty() {
            self.slots.remove(&source);
        }
    }

    /// Evicts the oldest handshake of the source.
    fn evict(&mut self, source: IpAddr) {
        let oldest = self.slots.get(&source).and_then(|slots| slots.first_key_value());
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

    /// A slot for one handshake, until it is dropped or evicted.
    pub(crate) fn slot(self: &Arc<Self>, remote: IpAddr) -> Slot {
        let source = source_of(remote);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // All nodes of a network may run on one machine.
        let exempt = source.is_loopback() && !self.limit_loopback;
        if taken.of(source) >= MAX_PER_SOURCE && !exempt {
            taken.evict(source);
        } else if taken.len() >= MAX_HANDSHAKES {
            let busiest = taken.slots.iter().max_by_key(|(_, slots)| slots.len()).map(|(source, _)| *source);
            taken.evict(busiest.unwrap_or(source));
        }
        let (number, evicted) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.slots.entry(source).or_default().insert(number, evicted.clone());
        Slot { handshakes: self.clone(), source, number, evicted }
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

/// The slot of one handshake.
pub(crate) struct Slot {
    handshakes: Arc<Handshakes>,
    source: IpAddr,
    number: u64,
    /// Cancelled when the handshake is evicted.
    pub(crate) evicted: CancellationToken,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.handshakes.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(self.source, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(handshakes: &Arc<Handshakes>, remotes: impl Iterator<Item = String>) -> Vec<Slot> {
        remotes.map(|remote| handshakes.slot(remote.parse().unwrap())).collect()
    }

    fn kept(slots: &[Slot]) -> Vec<usize> {
        let is_kept = |slot: &Slot| !slot.evicted.is_cancelled();
        slots.iter().enumerate().filter(|(_, slot)| is_kept(slot)).map(|(number, _)| number).collect()
    }

    #[test]
    fn one_source_keeps_few_slots_and_its_oldest_handshakes_are_evicted() {
        let handshakes = Handshakes::new(false);
        let first = slots(&handshakes, (0..100).map(|_| "192.0.2.1".into()));
        assert_eq!(kept(&first), (100 - MAX_PER_SOURCE..100).collect::<Vec<_>>());
        // A mapped address is the same source, and so is a whole IPv6 network.
        let mapped = handshakes.slot("::ffff:192.0.2.1".parse().unwrap());
        assert_eq!(kept(&first).len(), MAX_PER_SOURCE - 1);
        let network = slots(&handshakes, (0..100).map(|host| format!("2001:db8::{host:x}")));
        assert_eq!(kept(&network).len(), MAX_PER_SOURCE);
        drop((first, mapped, network));
        assert!(handshakes.taken.lock().unwrap().slots.is_empty());
    }

    #[test]
    fn when_all_slots_are_taken_the_source_with_the_most_is_evicted() {
        let handshakes = Handshakes::new(false);
        let sources = MAX_HANDSHAKES / MAX_PER_SOURCE;
        let attackers = (0..sources).flat_map(|host| (0..MAX_PER_SOURCE).map(move |_| format!("192.0.2.{host}")));
        let attackers = slots(&handshakes, attackers);
        assert_eq!(kept(&attackers).len(), MAX_HANDSHAKES);
        let others = slots(&handshakes, (0..100).map(|host| format!("198.51.100.{host}")));
        assert_eq!(kept(&others).len(), 100, "a source with one handshake keeps it");
        assert_eq!(kept(&attackers).len(), MAX_HANDSHAKES - 100);
    }

    #[test]
    fn loopback_has_all_places_unless_it_is_limited() {
        let loopback = || (0..2 * MAX_HANDSHAKES).map(|_| "127.0.0.1".into());
        assert_eq!(kept(&slots(&Handshakes::new(false), loopback())).len(), MAX_HANDSHAKES);
        assert_eq!(kept(&slots(&Handshakes::new(true), loopback())).len(), MAX_PER_SOURCE);
    }
}
