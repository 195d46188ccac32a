//! How actors live: the shell around a core, and the tree of supervisors that restarts what fails.
//!
//! ```text
//!   Supervisor: strategy, order ----------------------------------+ restart with a backoff | stop | escalate
//!     `- guardian: one life --factory--> thread of its own: actor --ends--> ExitReason
//!               ^------------- heartbeat ---------------'
//! ```
//!
//! actix's own supervisor does not survive a panic (the handler's unwinding ends the actor for good), and nothing in it
//! notices a handler that does not return. So each actor's context runs as a task here, in a node on a thread of its
//! own ([`Environment::with_threads`]), its end is mapped to an [`ExitReason`], and one that gives no sign of life is
//! replaced. A restarted actor is made anew by its factory: state is rebuilt, not carried over. Whoever talks to it
//! holds an [`ActorRef`](soma_messages::ActorRef) or a [`Mailbox`](soma_messages::Mailbox), which follow.
//!
//! - [`Supervisor`] puts a tree together, [`Supervision`] is one that lives, [`Tree`] looks at it.
//! - [`ChildSpec`] and [`Rules`] say how a child is to live; [`RestartTracker`] decides, and is pure.
//! - [`Shell`] and [`CoreHost`] run a core; [`Fault`] makes one fail on purpose.

#![deny(missing_docs)]

mod census;
mod clock;
mod environment;
mod exit;
mod guardian;
mod incarnation;
mod log_limit;
mod offload;
mod restart;
mod shell;
mod spec;
mod status;
mod supervisor;
mod telemetry;
mod vital;

pub use census::{Census, LeftBehind, WorkerThread};
pub use clock::Clock;
pub use environment::{Environment, Fault, PlannedFaults};
pub use exit::ExitReason;
pub use incarnation::{Heartbeat, Running, run_actor};
pub use log_limit::LogLimit;
pub use offload::{IoTasks, Offload};
pub use restart::{Backoff, Decision, Intensity, RestartPolicy, RestartTracker};
pub use shell::{CoreHost, Shell};
pub use spec::{ChildSpec, Rules};
pub use status::{ChildState, ChildStatus, Tree};
pub use supervisor::{Escalation, Strategy, Supervision, Supervisor};
pub use telemetry::{Entered, MetricsRecorder, Telemetry};
pub use vital::while_waiting;
