//! Addresses of nodes, as multiaddrs in canonical text form.
//!
//! Multiaddrs have many forms. This module accepts three of them: `/ip4/ADDR/tcp/PORT`, `/ip6/ADDR/tcp/PORT` and
//! `/dns/NAME/tcp/PORT`. IPv6 addresses are spelled as in RFC 5952, with mapped IPv4 addresses in dotted notation.
//! Names are host names of RFC 1123 in lower case.

use crate::limits::MAX_ADDRESS_BYTES;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// Longest host name: 255 octets in a DNS message are 253 characters of text (RFC 1035, section 3.1).
const MAX_NAME_BYTES: usize = 253;

/// Longest label of a host name (RFC 1035, section 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// A dialable address: `/ip4/ADDR/tcp/PORT`, `/ip6/ADDR/tcp/PORT` or `/dns/NAME/tcp/PORT`, with a port of at least 1.
///
/// Only the canonical text is accepted, so equal addresses have equal encodings.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(String);

/// The reason why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Longer than [`MAX_ADDRESS_BYTES`].
    #[error("an address of {size} bytes is over the limit of {MAX_ADDRESS_BYTES}")]
    TooLong {
        /// Bytes of the text.
        size: usize,
    },
    /// The text has none of the three forms.
    #[error("{text:?} is not of the form /ip4/ADDR/tcp/PORT, /ip6/ADDR/tcp/PORT or /dns/NAME/tcp/PORT")]
    Form {
        /// The text.
        text: String,
    },
    /// The host is not an IP address, or not in its canonical spelling.
    #[error(
        "{text:?}: {host:?} is not an IP address as RFC 5952 spells it, such as 127.0.0.1, 2001:db8::1 or ::ffff:127.0.0.1"
    )]
    Ip {
        /// The text.
        text: String,
        /// The invalid IP address.
        host: String,
    },
    /// The host is not a host name.
    #[error(
        "{text:?}: {host:?} is not a host name in lower case: labels of 1 to {MAX_LABEL_BYTES} letters, digits and inner hyphens, \
         {MAX_NAME_BYTES} characters in all, the last label not all digits"
    )]
    Name {
        /// The text.
        text: String,
        /// The invalid host name.
        host: String,
    },
    /// The port is not a number, or is out of range.
    #[error("{text:?}: {port:?} is not a port from {least} to 65535")]
    Port {
        /// The text.
        text: String,
        /// The invalid port.
        port: String,
        /// The least allowed port.
        least: u16,
    },
}

/// The host of an address.
enum Host<'a> {
    Ip(IpAddr),
    Name(&'a str),
}

/// Splits the canonical text of an address into host and port.
fn parse(text: &str, least_port: u16) -> Result<(Host<'_>, u16), AddressError> {
    if text.len() > MAX_ADDRESS_BYTES {
        return Err(AddressError::TooLong { size: text.len() });
    }
    let form = || AddressError::Form { text: text.into() };
    let mut parts = text.split('/');
    let (Some(""), Some(kind), Some(host), Some("tcp"), Some(port), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(form());
    };
    let host = match kind {
        "ip4" => canonical::<Ipv4Addr>(host).map(|ip| Host::Ip(ip.into())),
        "ip6" => canonical::<Ipv6Addr>(host).map(|ip| Host::Ip(ip.into())),
        "dns" if is_host_name(host) => Some(Host::Name(host)),
        "dns" => return Err(AddressError::Name { text: text.into(), host: host.into() }),
        _ => return Err(form()),
    }
    .ok_or_else(|| AddressError::Ip { text: text.into(), host: host.into() })?;
    let port = canonical::<u16>(port).filter(|number| *number >= least_port).ok_or_else(|| AddressError::Port {
        text: text.into(),
        port: port.into(),
        least: least_port,
    })?;
    Ok((host, port))
}

/// The value of `text`, if `text` is its canonical spelling.
fn canonical<T: FromStr + ToString>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|value| value.to_string() == text)
}

/// Whether `name` is a host name of RFC 1123 (section 2.1) in lower case that cannot be mistaken for an IP address.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or(name);
    name.len() <= MAX_NAME_BYTES && name.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

impl Address {
    /// The least port: port 0 cannot be dialled.
    const LEAST_PORT: u16 = 1;

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The IP address; `None` for a name.
    pub fn ip(&self) -> Option<IpAddr> {
        match parse(&self.0, Self::LEAST_PORT) {
            Ok((Host::Ip(ip), _)) => Some(ip),
            _ => None,
        }
    }

    /// Host (an IP address or a name) and port, in the form that a TCP client takes.
    pub fn host_and_port(&self) -> (String, u16) {
        match parse(&self.0, Self::LEAST_PORT) {
            Ok((Host::Ip(ip), port)) => (ip.to_string(), port),
            Ok((Host::Name(name), port)) => (name.to_owned(), port),
            // Unreachable: the constructor checked the text. The result keeps the function total.
            Err(_) => (String::new(), 0),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text, Self::LEAST_PORT).map(|_| Self(text.to_owned()))
    }
}

/// Fails only for port 0.
impl TryFrom<SocketAddr> for Address {
    type Error = AddressError;

    fn try_from(address: SocketAddr) -> Result<Self, AddressError> {
        ListenAddress(address).to_string().parse()
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
        // Borrow the text: an owned string would be allocated at the length that a peer claims.
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

/// An address to listen on: `/ip4/ADDR/tcp/PORT` or `/ip6/ADDR/tcp/PORT`. For port 0 the system chooses a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress(pub SocketAddr);

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match parse(text, 0)? {
            (Host::Ip(ip), port) => Ok(Self(SocketAddr::new(ip, port))),
            (Host::Name(host), _) => Err(AddressError::Ip { text: text.into(), host: host.into() }),
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.0.is_ipv4() { "ip4" } else { "ip6" };
        write!(f, "/{kind}/{}/tcp/{}", self.0.ip(), self.0.port())
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Allocates the claimed length, which is safe because the text comes from a configuration file, never from a peer.
impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(text: &str) -> bool {
        text.parse::<Address>().is_ok_and(|address| address.as_str() == text)
    }

    #[test]
    fn ipv6_addresses_are_spelled_as_in_rfc_5952() {
        for host in ["::1", "::", "2001:db8::1", "1:2:3:0:5:6:7:8", "::ffff:127.0.0.1", "1::8", "0:0:1::"] {
            assert!(accepted(&format!("/ip6/{host}/tcp/1")), "{host}");
        }
        for host in
            ["1:2:3::5:6:7:8", "::ffff:7f00:1", "2001:DB8::1", "2001:0db8::1", "0::1", "1::2:0:0:0:0", "[::1]", "::1%1"]
        {
            assert!(!accepted(&format!("/ip6/{host}/tcp/1")), "{host}");
        }
    }

    #[test]
    fn ipv4_addresses_have_four_numbers_without_leading_zeros() {
        assert!(accepted("/ip4/127.0.0.1/tcp/9000"));
        for host in ["127.1", "127.0.0.01", "256.0.0.1", "1.2.3.4.5", "", " 1.2.3.4"] {
            assert!(!accepted(&format!("/ip4/{host}/tcp/1")), "{host}");
        }
    }

    #[test]
    fn names_are_host_names_of_rfc_1123_in_lower_case() {
        let longest_label = "a".repeat(63);
        let longest = [&longest_label[..]; 4].join(".")[..253].to_owned();
        for name in ["localhost", "node-1.example", "3com.example", "a", "x--y", &longest_label, &longest] {
            assert!(accepted(&format!("/dns/{name}/tcp/1")), "{name}");
        }
        let (long_label, long) = ("a".repeat(64), format!("{longest}a"));
        let refused = [
            "",
            "a b",
            "::1",
            "127.0.0.1",
            "a.1",
            "-a",
            "a-",
            "a..b",
            ".a",
            "a.",
            "a_b",
            "Node.example",
            "ä.example",
            &long_label,
            &long,
            &"a".repeat(1_000),
        ];
        for name in refused {
            assert!(!accepted(&format!("/dns/{name}/tcp/1")), "{name:?}");
        }
    }

    #[test]
    fn port_0_can_be_listened_on_but_not_dialled() {
        for port in ["1", "65535"] {
            assert!(accepted(&format!("/ip4/127.0.0.1/tcp/{port}")), "{port}");
        }
        for port in ["0", "01", "+1", "65536", "", "-1"] {
            assert!(!accepted(&format!("/ip4/127.0.0.1/tcp/{port}")), "{port:?}");
        }
        let any: ListenAddress = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        assert_eq!(any.0, SocketAddr::from(([127, 0, 0, 1], 0)));
        assert!(Address::try_from(any.0).is_err());
        "/dns/localhost/tcp/1".parse::<ListenAddress>().unwrap_err();
    }

    #[test]
    fn other_multiaddrs_are_refused() {
        for text in [
            "",
            "/",
            "127.0.0.1:9000",
            "/ip4/1.2.3.4/udp/1",
            "/ip4/1.2.3.4/tcp/1/tls",
            "/ip4/1.2.3.4/tcp/1/",
            "/unix/a",
        ] {
            assert!(matches!(text.parse::<Address>(), Err(AddressError::Form { .. })), "{text}");
        }
        let long = format!("/dns/{}/tcp/1", "a".repeat(MAX_ADDRESS_BYTES));
        assert_eq!(long.parse::<Address>(), Err(AddressError::TooLong { size: long.len() }));
    }
}
