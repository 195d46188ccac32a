//! How actors live and talk: mailboxes, the shell around a core, and the supervisors that restart what fails.
//!
//! ```text
//!   sender --Mailbox<M>::tell--> [bounded mailbox] --Envelope<M>--> receiver     Accepted | Busy | Closed
//!          --Mailbox<M>::ask --> ................. --Reply<R>-----> answer, or Closed
//!          --OrderedSender<M>::post --> [bounded queue, in order] --one at a time--> receiver
//!
//!   Supervisor: strategy, order ----------------------------------+ restart with a backoff | stop | escalate
//!     `- monitor: one life --factory--> thread of its own: actor --ends--> ExitReason
//!               ^------------- heartbeat ---------------'
//! ```
//!
//! What always holds:
//! - A sender holds the capability to send one kind of message, never another actor's address.
//! - A capability outlives restarts: it follows the supervised child behind it.
//! - No queue is unbounded, and no sending blocks a handler.
//!
//! actix's own supervisor does not survive a panic (the handler's unwinding ends the actor for good), and nothing in it
//! notices a handler that does not return. So each actor's context runs as a task here, in a node on a thread of its
//! own ([`RuntimeContext::with_threads`]), its end is mapped to an [`ExitReason`], and one that gives no sign of life
//! is replaced. A restarted actor is made anew by its factory: state is rebuilt, not carried over. Its senders
//! hold an [`ActorRef`] or a [`Mailbox`], which follow.
//!
//! - A [`Mailbox`] sends to one actor, an [`OrderedSender`] in order and without loss, a [`Reply`] carries the answer.
//! - [`Supervisor`] puts a tree together, [`Supervision`] is one that lives, [`Tree`] looks at it.
//! - [`ChildSpec`] and [`Rules`] say how a child is to live; [`RestartTracker`] decides, and is pure.
//! - [`Shell`] and [`CoreHost`] run a core; [`Fault`] makes one fail on purpose.

#![deny(missing_docs)]

pub mod causality;
mod child;
mod child_counts;
mod clock;
mod exit;
mod handlers;
mod incarnation;
mod keyed;
mod life;
mod liveness;
mod log_limit;
mod mailbox;
mod monitor;
mod observe;
mod offload;
mod ordered_sender;
mod reply;
mod restart;
mod runtime_context;
mod shell;
mod spec;
mod status;
mod strategy;
mod supervisor;
mod supervisor_loop;
mod telemetry;

pub use child::Escalation;
pub use child_counts::{ChildCounts, LeftBehind, WorkerThread};
pub use clock::Clock;
pub use exit::ExitReason;
pub use incarnation::{Heartbeat, Running, run_actor};
pub use keyed::Keyed;
pub use life::Life;
pub use liveness::while_waiting;
pub use log_limit::LogLimit;
pub use mailbox::{ActorRef, AskError, Delivery, Envelope, Mailbox, Slot};
pub use observe::{Observe, Stop};
pub use offload::{IoTasks, Offload};
pub use ordered_sender::OrderedSender;
pub use reply::{Pending, Reply};
pub use restart::{Decision, Intensity, RESTART_BACKOFF, RestartPolicy, RestartTracker};
pub use runtime_context::{Fault, PlannedFaults, RuntimeContext};
pub use shell::{CoreHost, Shell};
pub use soma_protocol::Backoff;
pub use spec::{ChildSpec, Rules};
pub use status::{ChildState, ChildStatus, Tree};
pub use strategy::Strategy;
pub use supervisor::{Supervision, Supervisor};
pub use telemetry::{Entered, MetricsRecorder, Telemetry};
