//! What every core is.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use soma_types::{PeerId, TimestampMs};
use std::{fmt::Debug, time::Duration};

/// The time at which an input is handled: handed in, never asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Time since the system started; never goes back.
    pub monotonic: Duration,
    /// Wall clock, for what is signed and compared between nodes.
    pub unix_ms: TimestampMs,
}

/// The half of an actor that decides.
pub trait Core: 'static {
    /// What can happen to it.
    type Input: Clone + Debug + Serialize + DeserializeOwned;
    /// What its shell is to do.
    type Effect: Clone + Debug + PartialEq + Serialize + DeserializeOwned;
    /// What it shows of itself.
    type Snapshot: Clone + Debug + Serialize;

    /// The actor's name in traces, logs and status.
    const NAME: &'static str;

    /// Takes one input and answers what is to be done, in order.
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

/// A change of who can be asked: told to everyone who asks peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerEvent {
    /// There is a link to the peer now, on the same chain.
    Connected(PeerId),
    /// The link is gone.
    Lost(PeerId),
}
