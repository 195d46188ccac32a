//! Whole networks in one thread and in virtual time, from one seed.
//!
//! ```text
//!   Scenario (plain data) + seed --> world: one paused current-thread runtime
//!      |- node x n   a LocalSet each: the real node, its executor, its consensus, its monitor
//!      |     disk      MemStore: survives a crash, fails on order;  disk time: virtual
//!      |- network    MemoryNetwork behind latency, bandwidth, loss and partitions, message by message
//!      |- archive    segments in memory, for all nodes of a scenario that has one
//!      |- script     what happens when: crashes, restarts, partitions, slow disks, panics
//!      `- journal    every event with its time --> digest;  the first broken invariant --> Failure
//! ```
//!
//! What always holds:
//! - Everything random comes from the seed, everything that waits waits in virtual time, and nothing runs beside the
//!   one thread: two runs of a scenario with one seed write the same journal. [`Scenario::run_twice`] checks it.
//! - Nodes are whole and real: shells, cores, supervision, verification, serving. Simulated are the clock, the disk's
//!   time and the wire below the typed calls.
//! - [Invariants](Invariant) are checked at each commit executed, at each message and a few times a second; the first
//!   that breaks ends the run.

mod archive;
mod chain;
mod chunks;
mod disk;
mod event;
mod fault_injection;
mod frames;
pub mod golden;
mod hostility;
mod identity;
mod invariant;
mod journal;
mod messages;
mod moment;
mod monitor;
mod names;
mod network;
mod node;
mod objects;
mod random;
mod replaying;
mod report;
mod running;
mod scenario;
pub mod scenarios;
mod shrink;
mod wire;
mod world;

pub use chain::ChainSize;
pub use event::{ActorFault, ArchiveFault, DiskFault, DiskOperation, Event};
pub use invariant::Invariant;
pub use moment::Moment;
pub use names::{NodeName, full, millis, secs, validator};
pub use random::{
    LINK_DELAYS, delays_under_attack, fresh_among_silent, hostile as hostile_scenario, scenario as random_scenario,
    silent_majority,
};
pub use report::{Digest, Failure, LostActor, Penalty, Report, Taken};
pub use scenario::{Scenario, SettingsError, Topology};
pub use shrink::{Shrunk, shrink};
