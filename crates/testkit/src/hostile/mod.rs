//! Peers that lie, flood, stall or vanish: one list of behaviours, for simulated peers and for real servers alike.
//!
//! ```text
//!                 caller                                              victim
//!                   v                                                   ^
//!   HostilePeer: PeerApi, changes what goes out              attack(): dials, pushes, idles
//!                   v                                                   |
//!   honest PeerApi: a simulated node, or a store                 any Transport
//!      `- served by the simulated wire, or by `Server` over TLS
//! ```
//!
//! What the typed calls cannot say (bytes that are no protobuf, the key of somebody else, bytes that trickle) is
//! answered in simulation as the real client would find it. Over TLS [`Server`] does the last two; the first takes a
//! server of its own, which the tests have.
//!
//! Everything random comes from a seed.

mod attack;
mod behaviour;
mod messages;
mod node_infos;
mod objects;
mod peer;
mod server;
mod throttle;

pub use attack::{Victim, attack};
pub use behaviour::{Behaviour, Consequence};
pub use objects::ObjectMischief;
pub use peer::{HostilePeer, Means, Mischief};
pub use server::{Server, StorePeer};
