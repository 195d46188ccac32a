//! A peer with its address, as one text.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use soma_types::{Address, AddressError, PeerId};
use std::{fmt, str::FromStr};

/// A peer to begin with: `PEER_ID@ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedPeer {
    /// The peer that must answer.
    pub peer_id: PeerId,
    /// Where.
    pub address: Address,
}

/// Why a text names no peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeedPeerError {
    /// Not of the form.
    #[error("{0:?} is not of the form PEER_ID@ADDRESS, such as 3b6a…29@/ip4/192.0.2.1/tcp/9000")]
    Form(String),
    /// No peer id before the @.
    #[error("{0}")]
    PeerId(String),
    /// No address behind the @.
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl FromStr for SeedPeer {
    type Err = SeedPeerError;

    fn from_str(text: &str) -> Result<Self, SeedPeerError> {
        let (peer_id, address) = text.split_once('@').ok_or_else(|| SeedPeerError::Form(text.into()))?;
        Ok(Self { peer_id: peer_id.parse().map_err(SeedPeerError::PeerId)?, address: address.parse()? })
    }
}

impl fmt::Display for SeedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.peer_id, self.address)
    }
}

impl Serialize for SeedPeer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SeedPeer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_peer_without_id_or_with_a_bad_address_is_refused_with_a_reason() {
        let form = "/ip4/1.2.3.4/tcp/1".parse::<SeedPeer>().unwrap_err();
        assert!(form.to_string().contains("PEER_ID@ADDRESS"), "{form}");
        let id = "zz@/ip4/1.2.3.4/tcp/1".parse::<SeedPeer>().unwrap_err();
        assert!(id.to_string().contains("64 hex digits"), "{id}");
        let address = format!("{}@1.2.3.4:1", PeerId([1; 32])).parse::<SeedPeer>().unwrap_err();
        assert!(address.to_string().contains("/ip4/ADDR/tcp/PORT"), "{address}");
    }
}
