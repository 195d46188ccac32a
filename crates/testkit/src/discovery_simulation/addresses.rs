//! The addresses of the simulated machines.

use crate::address_of;
use soma_types::Address;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The port on which every machine listens.
const PORT: u16 = 9000;

/// The address of a host in a /16 network.
pub(super) fn address_in(first: u8, network: usize, host: usize) -> (IpAddr, Address) {
    let [network_high, network_low] = ((network / 250) as u8, (network % 250) as u8).into();
    let ip = IpAddr::V4(Ipv4Addr::new(first + network_high, network_low, (host / 250) as u8, 1 + (host % 250) as u8));
    (ip, address_of(SocketAddr::new(ip, PORT)))
}
