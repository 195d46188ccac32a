//! The actors of a node: a folder for each, named like the folder of its decisions in `soma-protocol`.
//!
//! ```text
//!   NAME/mod.rs       what it does, and how messages flow through it
//!   NAME/messages.rs  what it can be told and asked
//!   NAME/shell.rs     gives its core what happens, and carries out what the core decides
//!   NAME/metrics.rs   what it counts
//!   NAME/wiring.rs    which mailboxes and settings it is given, and what it reads from the store
//!   wiring.rs         the list of all actors
//! ```
//!
//! An actor uses of another only its messages, through the [`Mailbox`](soma_runtime::Mailbox)es that it is given.

#![deny(missing_docs)]

pub mod archiver;
pub mod broadcast;
pub mod connections;
pub mod discovery;
pub mod grpc_adapter;
pub mod objects;
pub mod peer_heights;
pub mod state_sync;
pub mod store_writer;
pub mod verifier;
pub mod wiring;
