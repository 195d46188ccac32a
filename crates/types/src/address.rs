//! Where a node listens, as a multiaddr in its one canonical text form.

use crate::limits::MAX_ADDRESS_BYTES;
use multiaddr::{Multiaddr, Protocol};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// A dialable address: `/ip4/…/tcp/PORT`, `/ip6/…/tcp/PORT` or `/dns/NAME/tcp/PORT`.
///
/// Only the canonical text of a multiaddr is accepted, so that equal addresses have equal encodings.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(String);

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Longer than [`MAX_ADDRESS_BYTES`].
    #[error("an address of {size} bytes is over the limit of {MAX_ADDRESS_BYTES}")]
    TooLong {
        /// Bytes of the text.
        size: usize,
    },
    /// No multiaddr.
    #[error("{text:?} is no multiaddr such as /ip4/127.0.0.1/tcp/9000: {reason}")]
    Malformed {
        /// The text.
        text: String,
        /// The parser's reason.
        reason: String,
    },
    /// A multiaddr of another kind, or not written canonically.
    #[error("{text:?} is not of the form /ip4/ADDR/tcp/PORT, /ip6/ADDR/tcp/PORT or /dns/NAME/tcp/PORT")]
    Unsupported {
        /// The text.
        text: String,
    },
}

impl Address {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The IP address; `None` for a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host_and_port().0.parse().ok()
    }

    /// Host and port as a TCP client takes them: an IP address or a name, and a port.
    pub fn host_and_port(&self) -> (String, u16) {
        // The text was checked when the value was made; a fallback keeps this total without a panic.
        host_and_port(&self.0).unwrap_or_else(|| (String::new(), 0))
    }
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let address = Multiaddr::from_str(text).ok()?;
    let mut parts = address.iter();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => ip.to_string(),
        Protocol::Ip6(ip) => ip.to_string(),
        Protocol::Dns(name) if !name.is_empty() => name.to_string(),
        _ => return None,
    };
    let Protocol::Tcp(port) = parts.next()? else { return None };
    parts.next().is_none().then_some((host, port))
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX_ADDRESS_BYTES {
            return Err(AddressError::TooLong { size: text.len() });
        }
        let parsed = Multiaddr::from_str(text)
            .map_err(|error| AddressError::Malformed { text: text.to_owned(), reason: error.to_string() })?;
        if parsed.to_string() != text || host_and_port(text).is_none() {
            return Err(AddressError::Unsupported { text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let kind = if address.is_ipv4() { "ip4" } else { "ip6" };
        Self(format!("/{kind}/{}/tcp/{}", address.ip(), address.port()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A visitor that borrows: what a peer's length prefix claims is never allocated before it is there.
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Address;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a multiaddr")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Address, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}
