//! The broadcast simulation: a thousand nodes send each other messages in one thread and in virtual time.
//!
//! ```text
//!   Scenario + seed --> Settings --> World: one queue of events, each at its time
//!      |- node x n     the real core of Broadcast; the world does the work of its shell, and of the Verifier's pool
//!      |    |- uplink  bytes at a fixed rate; urgent topics first, in parts of 16 KiB
//!      |    `- behaviour  what a hostile node changes in what its core sends, and what it adds
//!      |- links        a delay for each; break and come back, and nothing in flight survives
//!      `- streams      one for each topic, with the window of HTTP/2 and the shell's bound of frames
//!   --> Outcome: times of deliveries, bytes, penalties, broken promises
//! ```
//!
//! Messages have no content and no signatures: the world knows what each check will say. Download is not limited.
//! Within a topic an uplink sends frames one after the other, as if all connections were one.
//! All randomness comes from the seed: two runs with equal settings are equal.

mod behaviour;
mod event;
mod figures;
mod flags;
mod frame;
mod hostility;
mod links;
mod messages;
mod node;
mod outcome;
mod publish;
mod scenario;
mod sending;
mod settings;
mod shells;
mod stream;
mod topology;
mod unrest;
mod uplink;
mod world;

pub use behaviour::Behaviour;
pub use outcome::{Delivery, Outcome, Traffic};
pub use scenario::{Goal, Played, Scenario, Size};
pub use settings::{Load, Settings, Unrest};
pub use world::World;
