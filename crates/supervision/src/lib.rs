//! How actors live: the shell around a core, and the supervision that restarts what fails.
//!
//! ```text
//!   Supervisor --factory--> actor's context, run in a task of ours --JoinHandle--> ExitReason
//!       ^                                                                              |
//!       +---- RestartTracker: restart after a backoff | stop | escalate <--------------+
//! ```
//!
//! actix's own supervisor does not survive a panic (the handler's unwinding ends the actor for good), so each actor's
//! context runs as a task here, and the task's end is mapped to an [`ExitReason`]. A restarted actor is made anew by
//! its factory: state is rebuilt, not carried over. Whoever talks to it holds an [`ActorRef`](soma_messages::ActorRef), which follows.

#![deny(missing_docs)]

mod child;
mod clock;
mod environment;
mod offload;
mod restart;
mod shell;
mod supervisor;

pub use child::{ExitReason, run_actor};
pub use clock::Clock;
pub use environment::{Environment, PlannedFaults};
pub use offload::{IoTasks, Offload};
pub use restart::{Backoff, Decision, Intensity, RestartPolicy, RestartTracker};
pub use shell::{CoreHost, Shell};
pub use supervisor::{ChildSpec, ChildState, ChildStatus, Escalation, Supervisor};
