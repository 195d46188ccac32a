//! What every core is.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use soma_types::{ContentDigest, PeerId, TimestampMs};
use std::{fmt::Debug, time::Duration};

/// The time at which an input is handled: handed in, never asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Time since the system started; never goes back.
    pub monotonic: Duration,
    /// Wall clock, for signatures and for comparisons between nodes.
    pub unix_ms: TimestampMs,
}

/// The half of an actor that decides. All of its state can be written down and read back: replay starts from there.
pub trait Core: Serialize + DeserializeOwned + 'static {
    /// What can happen to it.
    type Input: Clone + Debug + Serialize + DeserializeOwned;
    /// What its shell is to do.
    type Effect: Clone + Debug + PartialEq + Serialize + DeserializeOwned;
    /// Its public state.
    type Snapshot: Clone + Debug + Serialize;

    /// The actor's name in traces, logs and status.
    const NAME: &'static str;

    /// Takes one input and returns the effects, in order.
    fn handle(&mut self, now: Now, input: Self::Input) -> Vec<Self::Effect>;

    /// The input by which the shell tells that the time of [`next_wake`](Self::next_wake) has come, for cores that
    /// ever ask for it.
    fn wake() -> Option<Self::Input> {
        None
    }

    /// When the core wants to be woken, on the monotonic clock; asked after each input. The shell holds one timer.
    fn next_wake(&self) -> Option<Duration> {
        None
    }

    /// The state as operators see it.
    fn snapshot(&self) -> Self::Snapshot;
}

/// A link was made or lost: for every actor that calls peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerEvent {
    /// There is a link to the peer now, on the same chain.
    Connected(PeerId),
    /// The link is gone.
    Lost {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: LostReason,
    },
}

/// Why a link is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LostReason {
    /// The connection ended: the peer hung up or cannot be reached any more.
    Closed,
    /// The peer was banned.
    Banned,
    /// Connections was restarted, and with it every connection ended.
    Restarted,
    /// The operator had the peer disconnected.
    Disconnected,
}

/// Bytes that a core passes on and never reads. Written down, in a trace or a state, their digest and size stand for
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opaque(Content);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Bytes(Bytes),
    /// Read back from where it was written down.
    Stand(StandIn),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StandIn {
    digest: ContentDigest,
    size: u64,
}

impl Default for Content {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl Opaque {
    /// How many there are.
    pub fn size(&self) -> u64 {
        match &self.0 {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Stand(stand_in) => stand_in.size,
        }
    }

    /// The bytes; none in a core that is replayed.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Content::Bytes(bytes) => bytes,
            Content::Stand(_) => Bytes::new(),
        }
    }
}

impl From<Bytes> for Opaque {
    fn from(bytes: Bytes) -> Self {
        Self(Content::Bytes(bytes))
    }
}

impl Serialize for Opaque {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Content::Bytes(bytes) => {
                StandIn { digest: ContentDigest::of(&[bytes]), size: bytes.len() as u64 }.serialize(serializer)
            }
            Content::Stand(stand_in) => stand_in.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Opaque {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StandIn::deserialize(deserializer).map(|stand_in| Self(Content::Stand(stand_in)))
    }
}
