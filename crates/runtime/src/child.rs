//! What a supervisor and its children share.

use crate::{
    exit::ExitReason,
    spec::Rules,
    status::{Display, Tree},
};
use futures::future::LocalBoxFuture;
use tokio::{sync::watch, time::Instant};

/// A child that did not stay up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{child} does not stay up: it {exit}")]
pub struct Escalation {
    /// Which.
    pub child: &'static str,
    /// How it ended last.
    pub exit: ExitReason,
}

/// An order to a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Live,
    /// End in order; the life is cut off at `until`.
    Stop {
        until: Instant,
    },
}

/// How a life ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: ExitReason,
    /// Children that were cut off because they did not stop in time.
    pub(crate) overdue: Vec<&'static str>,
}

impl Ended {
    pub(crate) fn by(exit: ExitReason) -> Self {
        Self { exit, overdue: Vec::new() }
    }
}

/// Something that lives under a supervisor, one life after the other.
pub(crate) trait Child {
    fn name(&self) -> &'static str;
    fn rules(&self) -> Rules;
    fn display(&self) -> &Display;
    fn tree(&self) -> Tree;
    /// One life. Ends soon after an order to stop is due, in any case.
    fn live(&mut self, orders: watch::Receiver<Order>) -> LocalBoxFuture<'static, Ended>;
}
