//! StateSync: plans ranges, runs a worker for each, has verified commits written in order, and hands them on.
//!
//! ```text
//!   Target --> core --Pick--> PeerHeights
//!               |  --Fetch-> SyncWorker (one range, one peer) --verified bytes--> held here under the range's key
//!               |  --Write-> StoreWriter --durable--> executor's stream, PeerHeights (and so the peers)
//! ```
//!
//! A worker is a child of this actor: however it ends, its range returns to the core's plan, and a new worker is
//! started for it after a backoff.

mod archive;
mod backfill;
mod commit_feed;
mod epochs;
mod history_reader;
pub mod messages;
mod metrics;
mod progress;
mod shell;
mod verified_block_cache;
pub mod wiring;
mod worker;

pub use commit_feed::{CommitFeed, Commits, DurableHead};
pub use shell::StateSync;
pub use worker::Settings;
