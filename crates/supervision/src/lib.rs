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

mod census;
mod clock;
mod environment;
mod exit;
mod guardian;
mod incarnation;
mod offload;
mod restart;
mod shell;
mod spec;
mod status;
mod supervisor;
mod vital;

pub use census::{Census, LeftBehind};
pub use clock::Clock;
pub use environment::{Environment, Fault, PlannedFaults};
pub use exit::ExitReason;
pub use incarnation::{Heartbeat, Running, run_actor};
pub use offload::{IoTasks, Offload};
pub use restart::{Backoff, Decision, Intensity, RestartPolicy, RestartTracker};
pub use shell::{CoreHost, Shell};
pub use spec::{ChildSpec, Rules};
pub use status::{ChildState, ChildStatus, Tree};
pub use supervisor::{Escalation, Strategy, Supervision, Supervisor};
