//! Running one incarnation of an actor, and how it ended.

use actix::{Actor, Addr, Context};
use serde::{Deserialize, Serialize};
use std::{any::Any, future::Future};
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

/// How an actor ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "exit", content = "reason", rename_all = "kebab-case")]
pub enum ExitReason {
    /// It stopped itself.
    Normal,
    /// It could not be started, or gave up with an error.
    Failed(String),
    /// A handler panicked.
    Panicked(String),
    /// It was ended from outside.
    Cancelled,
}

impl ExitReason {
    /// The message of a caught panic.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        Self::Panicked(soma_replay::panic_message(panic))
    }
}

impl From<JoinError> for ExitReason {
    fn from(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(panic) => Self::panicked(&*panic),
            Err(_) => Self::Cancelled,
        }
    }
}

impl std::fmt::Display for ExitReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Normal => f.write_str("stopped"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
            Self::Panicked(reason) => write!(f, "panicked: {reason}"),
            Self::Cancelled => f.write_str("was cancelled"),
        }
    }
}

/// Runs an actor in a task of its own on the current actor thread. The future resolves when the actor has ended;
/// dropping it ends the actor.
pub fn run_actor<A>(actor: A, mailbox_capacity: usize) -> (Addr<A>, impl Future<Output = ExitReason>)
where
    A: Actor<Context = Context<A>>,
{
    let mut context = Context::new();
    context.set_mailbox_capacity(mailbox_capacity);
    let running = context.into_future(actor);
    let address = running.address();
    let task = AbortOnDropHandle::new(actix_rt::spawn(running));
    let ended = async move { task.await.map_or_else(ExitReason::from, |()| ExitReason::Normal) };
    (address, ended)
}
