//! How actors talk: typed messages, one file for each receiver, and mailboxes that say what became of a message.
//!
//! ```text
//!   sender --Mailbox<M>::tell--> [bounded mailbox] --Envelope<M>--> receiver     Accepted | Busy | Closed
//!          --Mailbox<M>::ask --> ................. --Reply<R>-----> answer, or Closed
//!          --Outbox<M>::post --> [bounded queue, in order] --one at a time--> receiver
//! ```
//!
//! What always holds:
//! - A sender holds the capability to send one kind of message, never another actor's address.
//! - A capability outlives restarts: it follows the supervised child behind it.
//! - No queue is unbounded, and no sending blocks a handler.

#![deny(missing_docs)]

pub mod causality;
pub mod connections;
pub mod discovery;
pub mod grpc_adapter;
mod incarnation;
mod links;
mod mailbox;
mod observe;
mod outbox;
pub mod peer_heights;
pub mod state_sync;
pub mod store_writer;
pub mod verifier;

pub use incarnation::Life;
pub use links::{LinkRegistry, Links};
pub use mailbox::{ActorRef, AskError, Delivery, Envelope, Mailbox, Pending, Reply, Slot};
pub use observe::{Observe, Stop};
pub use outbox::Outbox;
