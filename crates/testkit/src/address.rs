//! Addresses of listening sockets.

use soma_types::Address;
use std::net::SocketAddr;

/// The address that peers get for a listening socket.
pub fn address_of(socket: SocketAddr) -> Address {
    Address::try_from(socket).expect("a port that is not 0")
}
