//! Places for handshakes: so many in all, and so many of one source.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Handshakes at once. A socket beyond that is dropped: whoever opens sockets and says nothing holds these places
/// until the handshake has timed out, and admitted connections not at all.
const MAX_HANDSHAKES: usize = 64;

/// Of them from one source: most of the places are always for others.
const MAX_PER_SOURCE: usize = 8;

/// The places of one listener.
pub(crate) struct Handshakes {
    taken: Mutex<BTreeMap<IpAddr, usize>>,
    /// Whether loopback is a source like any other.
    limit_loopback: bool,
}

impl Handshakes {
    pub(crate) fn new(limit_loopback: bool) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), limit_loopback })
    }

    /// A place for one handshake, until it is dropped.
    pub(crate) fn place(self: &Arc<Self>, remote: IpAddr) -> Option<Place> {
        let source = source_of(remote);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = taken.get(&source).copied().unwrap_or_default();
        // A whole network may run on one machine.
        let exempt = source.is_loopback() && !self.limit_loopback;
        if taken.values().sum::<usize>() >= MAX_HANDSHAKES || (of_source >= MAX_PER_SOURCE && !exempt) {
            return None;
        }
        taken.insert(source, of_source + 1);
        Some(Place { handshakes: self.clone(), source })
    }
}

/// Who is behind an address: a host with one IPv6 address has all 2^64 of its network.
fn source_of(remote: IpAddr) -> IpAddr {
    match remote.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        other => other,
    }
}

/// One place.
pub(crate) struct Place {
    handshakes: Arc<Handshakes>,
    source: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.handshakes.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_source) = taken.get_mut(&self.source) {
            *of_source -= 1;
            if *of_source == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(handshakes: &Arc<Handshakes>, remotes: impl Iterator<Item = String>) -> Vec<Place> {
        remotes.filter_map(|remote| handshakes.place(remote.parse().unwrap())).collect()
    }

    #[test]
    fn one_source_takes_few_places_and_all_together_no_more_than_there_are() {
        let handshakes = Handshakes::new(false);
        let first = places(&handshakes, (0..100).map(|_| "192.0.2.1".into()));
        assert_eq!(first.len(), MAX_PER_SOURCE);
        // An address of a mapped kind is the same source, and so is all of an IPv6 network.
        assert!(handshakes.place("::ffff:192.0.2.1".parse().unwrap()).is_none());
        let network = places(&handshakes, (0..100).map(|host| format!("2001:db8::{host:x}")));
        assert_eq!(network.len(), MAX_PER_SOURCE);
        let others = places(&handshakes, (0..100).map(|host| format!("198.51.100.{host}")));
        assert_eq!(others.len(), MAX_HANDSHAKES - 2 * MAX_PER_SOURCE);
        drop((first, network, others));
        assert!(handshakes.taken.lock().unwrap().is_empty());
    }

    #[test]
    fn loopback_has_all_places_unless_it_is_limited() {
        let loopback = || (0..100).map(|_| "127.0.0.1".into());
        assert_eq!(places(&Handshakes::new(false), loopback()).len(), MAX_HANDSHAKES);
        assert_eq!(places(&Handshakes::new(true), loopback()).len(), MAX_PER_SOURCE);
    }
}
