//! The networks of addresses. One owner easily has many addresses of one network, but not addresses of many networks.
//! Limits therefore count networks.

use crate::{Address, codec};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// The distance from which an address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reach {
    /// From the same machine.
    Loopback,
    /// From the same local network.
    Local,
    /// From everywhere.
    Global,
}

impl Reach {
    /// The reach of a peer's address.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            // Such an address cannot be meant for a remote machine, and the system may take it for this machine.
            ip if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || is_broadcast(ip) => Self::Loopback,
            IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() || is_shared(v4) => Self::Local,
            IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => Self::Local,
            _ => Self::Global,
        }
    }
}

fn is_broadcast(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// 100.64.0.0/10: addresses behind a provider's address translation (CGNAT).
fn is_shared(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 100 && second & 0xc0 == 64
}

/// A network for limits per network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NetworkGroup {
    /// An IPv4 network of 16 bits.
    V4([u8; 2]),
    /// An IPv6 network of 32 bits, the usual allocation of a provider.
    V6([u8; 4]),
    /// One machine that is not globally reachable.
    Near(IpAddr),
    /// All names under one domain of two labels.
    Domain(#[serde(deserialize_with = "codec::text")] String),
}

impl NetworkGroup {
    /// The network of an IP address.
    pub fn of_ip(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            ip if Reach::of(ip) != Reach::Global => Self::Near(ip),
            IpAddr::V4(v4) => {
                let [first, second, ..] = v4.octets();
                Self::V4([first, second])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.octets();
                Self::V6([a, b, c, d])
            }
        }
    }

    /// The network of an address. The real network of a name is known only after it is dialled.
    pub fn of(address: &Address) -> Self {
        match address.ip() {
            Some(ip) => Self::of_ip(ip),
            None => {
                let (host, _) = address.host_and_port();
                let labels: Vec<_> = host.rsplit('.').take(2).collect();
                Self::Domain(labels.into_iter().rev().collect::<Vec<_>>().join("."))
            }
        }
    }

    /// The reach of the network's addresses.
    pub fn reach(&self) -> Reach {
        match self {
            Self::Near(ip) => Reach::of(*ip),
            Self::V4(_) | Self::V6(_) | Self::Domain(_) => Reach::Global,
        }
    }

    /// Whether this is a domain: the real network of a name is unknown.
    pub fn is_name(&self) -> bool {
        matches!(self, Self::Domain(_))
    }

    /// Whether this is a nearby machine. A stranger cannot have many of those.
    pub fn is_near(&self) -> bool {
        matches!(self, Self::Near(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(address: &str) -> NetworkGroup {
        NetworkGroup::of(&address.parse().unwrap())
    }

    #[test]
    fn addresses_of_one_owner_are_in_one_group() {
        assert_eq!(group("/ip4/198.51.100.7/tcp/1"), group("/ip4/198.51.3.200/tcp/2"));
        assert_ne!(group("/ip4/198.51.100.7/tcp/1"), group("/ip4/198.52.100.7/tcp/1"));
        assert_eq!(group("/ip6/2001:db8:1::7/tcp/1"), group("/ip6/2001:db8:ffff::1/tcp/1"));
        assert_ne!(group("/ip6/2001:db8:1::7/tcp/1"), group("/ip6/2001:db9:1::7/tcp/1"));
        assert_eq!(group("/dns/a.attacker.example/tcp/1"), group("/dns/b.c.attacker.example/tcp/2"));
        assert_ne!(group("/dns/a.example/tcp/1"), group("/dns/b.example/tcp/1"));
    }

    #[test]
    fn ipv4_address_mapped_into_ipv6_counts_as_ipv4() {
        assert_eq!(NetworkGroup::of_ip("::ffff:198.51.100.7".parse().unwrap()), NetworkGroup::V4([198, 51]));
        assert_eq!(Reach::of("::ffff:127.0.0.1".parse().unwrap()), Reach::Loopback);
    }

    #[test]
    fn addresses_without_a_remote_meaning_count_as_loopback() {
        for here in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "::1"] {
            assert_eq!(Reach::of(here.parse().unwrap()), Reach::Loopback, "{here}");
        }
    }

    #[test]
    fn nearby_machines_are_groups_of_their_own() {
        for near in ["10.1.2.3", "172.16.0.1", "192.168.7.7", "169.254.1.1", "100.64.0.1", "fd00::1", "fe80::1"] {
            let ip: IpAddr = near.parse().unwrap();
            assert_eq!((Reach::of(ip), NetworkGroup::of_ip(ip)), (Reach::Local, NetworkGroup::Near(ip)), "{near}");
        }
        assert_ne!(group("/ip4/10.0.0.1/tcp/1"), group("/ip4/10.0.0.2/tcp/1"));
        assert!(group("/ip4/127.0.0.1/tcp/1").is_near() && !group("/ip4/100.128.0.1/tcp/1").is_near());
    }
}
